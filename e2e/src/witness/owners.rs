//! Who has the leases of a ring's partitions (rule R5: at most one), read from the words that each node's agent arms and its guard fences.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cluster_fence::{TABLE, Table, WordIndex, clock};

use crate::error::{LabError, Result};
use crate::lab::Lab;
use crate::names::NodeId;

use super::real_time;

/// Between the end of a look and the begin of the next. A lease is armed for 100 ms and more.
const PAUSE: Duration = Duration::from_millis(1);
/// How often nodes that booted, and words that were made, are looked for.
const REFRESH: Duration = Duration::from_millis(100);
/// Most overlaps that are kept, for the message.
const KEPT_MAX: usize = 16;

/// A partition that two nodes had the lease of at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Twice {
    /// Which.
    pub partition: u16,
    /// One of them, and the epoch it had it in.
    pub one: (NodeId, u64),
    /// The other.
    pub other: (NodeId, u64),
}

/// What was seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Owners {
    /// How often was looked.
    pub looks: u64,
    /// Longest time between two looks.
    pub longest: Duration,
    /// Most partitions that had an owner at one look.
    pub most: usize,
    /// What must not be; the first few.
    pub twice: Vec<Twice>,
}

/// The words of a node's leases, as agent and guard share them.
///
/// # Errors
/// [`LabError`] where the node does not run or has no table yet.
pub fn table_of(lab: &Lab, node: NodeId) -> Result<Table> {
    open(lab, node, &lab.boot_id(node)?)
}

fn open(lab: &Lab, node: NodeId, boot_id: &str) -> Result<Table> {
    let path = PathBuf::from(format!("/proc/{}/root/run/clusterctl", lab.node_pid(node)?)).join(TABLE);
    let boot = u128::from_str_radix(&boot_id.replace('-', ""), 16).unwrap_or(0);
    // A table of another boot would be emptied by whoever opens it.
    if !path.exists() || boot == 0 {
        return Err(LabError::Invalid(format!("{node} has no table of leases")));
    }
    Table::open(&path, boot).map_err(|error| LabError::Invalid(format!("{}: {error}", path.display())))
}

/// One node's words of the ring.
struct Words {
    node: NodeId,
    boot: String,
    table: Table,
    /// By partition.
    words: Vec<Option<WordIndex>>,
}

impl Words {
    fn find(&mut self, app: &str) {
        for (partition, word) in self.words.iter_mut().enumerate().filter(|(_, word)| word.is_none()) {
            *word = self.table.find_word(&format!("ring/{app}/{partition}"));
        }
    }

    /// The epoch in which the node has the partition's lease at this moment.
    fn epoch(&self, partition: u16) -> Option<u64> {
        let word = (*self.words.get(usize::from(partition))?)?;
        self.table.word(word).armed(clock::now()).map(|(epoch, _)| epoch.0)
    }
}

/// Looks at who has the leases of the partitions of `app` while `work` goes on.
///
/// # Errors
/// Those of `work`.
pub fn watch_owners<T>(lab: &Lab, app: &str, partitions: u16, work: impl FnOnce() -> Result<T>) -> Result<(T, Owners)> {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watching = scope.spawn(|| {
            real_time();
            watch(lab, app, partitions, &stop)
        });
        let done = work();
        stop.store(true, Ordering::Relaxed);
        let owners = watching.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Ok((done?, owners))
    })
}

fn watch(lab: &Lab, app: &str, partitions: u16, stop: &AtomicBool) -> Owners {
    let mut owners = Owners::default();
    let mut nodes: Vec<Words> = Vec::new();
    let (mut refreshed, mut looked): (Option<Instant>, Option<Instant>) = (None, None);
    while !stop.load(Ordering::Relaxed) {
        if refreshed.is_none_or(|at| at.elapsed() >= REFRESH) {
            refreshed = Some(Instant::now());
            for node in lab.nodes() {
                // One without power holds nothing; what it had runs out by its deadlines.
                let Ok(boot) = lab.boot_id(node) else { continue };
                if nodes.iter().any(|words| words.node == node && words.boot == boot) {
                    continue;
                }
                let Ok(table) = open(lab, node, &boot) else { continue };
                nodes.retain(|words| words.node != node);
                nodes.push(Words { node, boot, table, words: vec![None; usize::from(partitions)] });
            }
            nodes.iter_mut().for_each(|words| words.find(app));
        }
        owners.longest = owners.longest.max(looked.map_or(Duration::ZERO, |at| at.elapsed()));
        looked = Some(Instant::now());
        owners.looks += 1;
        let mut owned = 0;
        for partition in 0..partitions {
            let (any, twice) = look(&nodes, partition);
            owned += usize::from(any);
            owners.twice.extend(twice.filter(|_| owners.twice.len() < KEPT_MAX));
        }
        owners.most = owners.most.max(owned);
        std::thread::sleep(PAUSE);
    }
    owners
}

/// Whether anybody has the partition, and whether two have it. Words are read one after the other, so that one that goes from node to node may be seen on
/// both: it counts when the first still has it, in the same epoch, after the second was seen to have it.
fn look(nodes: &[Words], partition: u16) -> (bool, Option<Twice>) {
    let mut first: Option<(&Words, u64)> = None;
    for words in nodes {
        let Some(epoch) = words.epoch(partition) else { continue };
        match first {
            Some((one, its)) if one.epoch(partition) == Some(its) => {
                return (true, Some(Twice { partition, one: (one.node, its), other: (words.node, epoch) }));
            }
            _ => first = Some((words, epoch)),
        }
    }
    (first.is_some(), None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cluster_lease::time::Span;
    use cluster_lease::types::Epoch;

    fn words(dir: &std::path::Path, node: u8) -> Words {
        let table = Table::open(&dir.join(node.to_string()), 1).unwrap();
        let unit = table.add_unit(false).unwrap();
        table.word_for("ring/a/0", unit, false).unwrap();
        let mut words = Words { node: NodeId::from(node), boot: String::new(), table, words: vec![None; 2] };
        words.find("a");
        words
    }

    fn arm(words: &Words, epoch: u64) {
        let until = clock::now() + Span::from_millis(60_000);
        words.table.word(words.words[0].unwrap()).arm(Epoch(epoch), until, clock::now).unwrap();
    }

    #[test]
    fn two_owners_are_told_and_one_after_the_other_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let nodes = [words(dir.path(), 1), words(dir.path(), 2)];
        assert_eq!(look(&nodes, 0), (false, None));
        arm(&nodes[0], 1);
        assert_eq!((look(&nodes, 0), look(&nodes, 1)), ((true, None), (false, None)));
        nodes[0].table.word(nodes[0].words[0].unwrap()).fence();
        arm(&nodes[1], 2);
        assert_eq!(look(&nodes, 0), (true, None));
        arm(&nodes[0], 3);
        let twice = Twice { partition: 0, one: (NodeId::from(1), 3), other: (NodeId::from(2), 2) };
        assert_eq!(look(&nodes, 0), (true, Some(twice)));
    }
}
