//! How changed content reaches the instances of an App that has `update`.
//!
//! # Rules
//! - An instance that has other content than the spec keeps it, with the generation it came with, until it is its turn. What is newly
//!   placed, and an App without `update`, gets the newest at once.
//! - What was given new content is *settling* until it is seen to be healthy with it; its entry remembers that, for whatever was seen of
//!   it since may be of before. Only what is settling can be down by a change.
//! - Given the newest content are, in this order: what is settling with older content, as long as it makes no more than `maxUnavailable`
//!   with what is settling otherwise; instances that are down, as long as fewer than
//!   `maxUnavailable` are settling; healthy ones, as long as fewer than that are settling or down. One on a Lost node waits until it is
//!   heard.
//! - Nothing more is given where the newest content failed. Any later edit of the App is a new attempt: who failed by an older generation
//!   is asked again, and the next plan goes on by that.
//! - Of a Singleton the standbys are given it at once; the active instance when every Live standby took it up and none failed;
//!   hot ones have to be healthy with it.

use std::collections::BTreeSet;
use std::sync::Arc;

use cluster_schemas::Mode;
use cluster_schemas::app::Standby;
use cluster_schemas::assignment::{AppAssignment, Role};
use cluster_schemas::node::InstanceState;

use crate::context::{Context, Entries};
use crate::words;

/// Gives entries whose turn has not come the content that they had, and marks those that are settling.
pub(crate) fn hold_back(ctx: &Context<'_, '_>, entries: &mut Entries) {
    let Some(update) = ctx.app.spec.update else { return };
    let outdated = |node: &usize| written(ctx, *node).is_some_and(|last| last.run != ctx.run);
    let waiting: BTreeSet<usize> = entries.iter().filter(|(n, e)| e.role != Role::Absent && outdated(n)).map(|(n, _)| *n).collect();
    let most = update.max_unavailable as usize;
    let (turn, why) = match ctx.app.spec.mode {
        Mode::Singleton if waiting.is_empty() => return,
        Mode::Singleton => (singleton(ctx, entries), "until every standby has taken up the newest".to_owned()),
        Mode::Spread | Mode::Replicas | Mode::Ring => {
            let why = format!("while at most {most} instance{} may be down by a change", words::plural(most));
            (members(ctx, entries, &waiting, most), why)
        }
    };
    for (node, entry) in entries.iter_mut().filter(|(_, e)| e.role != Role::Absent) {
        let last = written(ctx, *node);
        let given = last.is_none() || turn.contains(node);
        entry.settling = entry.role == Role::Member && (given || settling(ctx, *node));
        if let Some(last) = last.filter(|_| waiting.contains(node) && !turn.contains(node)) {
            entry.run = Arc::clone(&last.run);
            entry.generation = last.generation;
            entry.held_back = format!("keeps the content of generation {} {why}", last.generation);
        }
    }
}

/// The entry as last written, where the App has a place there.
fn written<'c>(ctx: &'c Context<'_, '_>, node: usize) -> Option<&'c AppAssignment> {
    ctx.on(node).filter(|e| !e.foreign(ctx.app)).and_then(|e| e.entry).filter(|e| e.role != Role::Absent)
}

/// Whether the worker on `node`, when last heard, acted on the content that was last written.
fn took_up(ctx: &Context<'_, '_>, node: usize) -> bool {
    let observed = ctx.on(node).and_then(|e| e.observed);
    observed.zip(written(ctx, node)).is_some_and(|(o, last)| o.uid == last.uid && o.generation == last.generation)
}

fn settled(ctx: &Context<'_, '_>, node: usize) -> bool {
    took_up(ctx, node) && ctx.on(node).and_then(|e| e.observed).is_some_and(|o| o.healthy && o.state == InstanceState::Running)
}

fn failed(ctx: &Context<'_, '_>, node: usize) -> bool {
    took_up(ctx, node) && ctx.on(node).and_then(|e| e.observed).is_some_and(|o| o.state == InstanceState::Failed)
}

/// Whether it was given its content and was not seen to be healthy with it since.
fn settling(ctx: &Context<'_, '_>, node: usize) -> bool {
    written(ctx, node).is_some_and(|last| last.settling) && !settled(ctx, node)
}

/// Members whose turn it is.
fn members(ctx: &Context<'_, '_>, entries: &Entries, waiting: &BTreeSet<usize>, most: usize) -> BTreeSet<usize> {
    let members = || entries.iter().filter(|(_, e)| e.role == Role::Member).map(|(n, _)| *n);
    if members().any(|n| !waiting.contains(&n) && failed(ctx, n)) {
        return BTreeSet::new();
    }
    let live = |n: &usize| ctx.world.nodes[*n].live;
    let (again, rest): (Vec<usize>, Vec<usize>) = waiting.iter().copied().filter(live).partition(|n| settling(ctx, *n));
    let (healthy, down): (Vec<usize>, Vec<usize>) = rest.into_iter().partition(|n| settled(ctx, *n));
    let busy = members().filter(|n| written(ctx, *n).is_none() || settling(ctx, *n)).count();
    let down_by_itself = members().filter(|n| live(n) && written(ctx, *n).is_some() && !settling(ctx, *n) && !settled(ctx, *n)).count();
    let free = most.saturating_sub(busy);
    // What is settling with older content may have come up with it unseen: then this takes it down, beside those that are settling anyway.
    let others = members().filter(|n| (written(ctx, *n).is_none() || settling(ctx, *n)) && !again.contains(n)).count();
    let again = again.into_iter().take(most.saturating_sub(others));
    again.chain(down.into_iter().take(free)).chain(healthy.into_iter().take(free.saturating_sub(down_by_itself))).collect()
}

/// The active instance, if it is its turn, and all standbys.
fn singleton(ctx: &Context<'_, '_>, entries: &Entries) -> BTreeSet<usize> {
    let standbys = || entries.iter().filter(|(_, e)| e.role == Role::Standby).map(|(n, _)| *n);
    let well = |n: usize| if ctx.app.spec.standby == Standby::Hot { settled(ctx, n) } else { took_up(ctx, n) && !failed(ctx, n) };
    let ready = |n: usize| written(ctx, n).is_some_and(|last| last.run == ctx.run) && well(n);
    let all = standbys().filter(|n| ctx.world.nodes[*n].live).all(ready);
    let active = entries.iter().filter(|(_, e)| e.role == Role::Active && all).map(|(n, _)| *n);
    active.chain(standbys()).collect()
}
