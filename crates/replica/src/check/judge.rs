//! What must hold when all has come together.

use std::collections::BTreeSet;

use super::Violation;
use super::database::sums;
use super::node::{DB, Role};
use super::world::World;
use crate::divergence;
use crate::lineage::Position;
use crate::stream::{Reader, Survey};
use crate::transaction::{Record, decode};

pub(super) fn judge(world: &mut World) -> Result<(), Violation> {
    let Some(active) = world.nodes.iter().find(|node| matches!(node.role, Role::Active(_))) else {
        return Err(world.violation("liveness", "nobody is active"));
    };
    let head = active.head();
    for node in &world.nodes {
        if sums(&node.db.view()).total() != head.checksum {
            return Err(world.violation("D8", format!("the database of {} is not that of the active", node.name)));
        }
    }
    let Some(history) = world.ledger.history(head.checksum) else {
        return Err(world.violation("D3", "the surviving database is no state that an application made"));
    };
    if let Some(lost) = world.ledger.confirmed.difference(&history).next() {
        return Err(world.violation("D5", format!("a confirmed write is lost: state {lost:016x}")));
    }
    let stream = replay(&world.stream);
    if stream != Some(head) {
        return Err(world.violation("D6", format!("the stream leads to {stream:?}, the database is at {head:?}")));
    }
    // A log that overflowed has lost what it would have kept (D1).
    if !world.small_log {
        kept(world, &history)?;
    }
    world.report.commits = world.ledger.len();
    world.report.lost = world.ledger.len() - history.len();
    world.report.confirmed = world.ledger.confirmed.len();
    Ok(())
}

/// The stream after voiding: where it leads.
fn replay(stream: &[Vec<u8>]) -> Option<Position> {
    let mut survey = Survey::default();
    for bytes in stream {
        survey.take(&decode(bytes).ok()?);
    }
    let mut reader = Reader::new(survey.lineage()?);
    for bytes in stream {
        reader.take(&decode(bytes).ok()?).ok()?;
    }
    Some(reader.position())
}

/// Each state that a returning node had, and that is not part of the history, is in a divergence file.
fn kept(world: &mut World, history: &BTreeSet<u64>) -> Result<(), Violation> {
    let (mut files, mut states) = (0, BTreeSet::new());
    for node in &world.nodes {
        for name in divergence::list(&node.disk).unwrap_or_default() {
            files += 1;
            let read = divergence::read(&node.disk, DB, &name, |record| {
                if let Record::Chunk(chunk) = record {
                    states.extend(chunk.close.map(|close| close.after));
                }
            });
            if let Err(error) = read {
                return Err(world.violation("D9", format!("{name} of {}: {error}", node.name)));
            }
        }
    }
    for (node, survived) in world.nodes.iter().zip(&world.survived) {
        if let Some(missing) = survived.iter().find(|state| !history.contains(state) && !states.contains(state)) {
            return Err(world.violation("D9", format!("state {missing:016x} came back with {} and is in no file", node.name)));
        }
    }
    world.report.divergence = files;
    Ok(())
}
