//! Rings: partitions spread over the members, counts differing by at most one, moving as few as possible.
//!
//! # Rules
//! - Members are the eligible Live nodes that hear a majority, at most `replicas` of them; present members first, then the nodes
//!   that `spreadBy` and `prefer` rank first, with the fewest instances.
//! - A member's quota is the partitions divided by the members, rounded up for those that own most now and down for the rest. Only what
//!   is above a quota moves, and what has no owner among the members. No plan with counts that differ by at most one moves less.
//! - A member on a cordoned node keeps what it owns and gets nothing more; the others share the rest evenly.
//! - A partition that moves is first in its owner's `release`; it has no owner until that node confirmed. What a Lost or rebooted
//!   node had is given at once.
//! - All partitions given in one step get one new epoch for the ring. Entries remember the newest one, so that epochs rise even if
//!   every group that had it is gone.
//! - A member whose `onOwn` failed a moment ago is given nothing, and what it gave back goes to the others, unless it is so on all.
//! - The table's version rises with every step that changes an owner or an epoch.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use cluster_schemas::assignment::{OwnedPartitions, ReasonCode, RingAssignment, Role};
use cluster_schemas::{Mode, PartitionSet};

use crate::claims::Evidence;
use crate::context::{Board, Context, Entries, reason};
use crate::input::{AppNotes, Shortage};
use crate::prefer::choose;
use crate::words;

/// The owner that a partition has or is to have, and the epoch of its tenure once it has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Target {
    node: usize,
    epoch: Option<u64>,
}

/// Who may still hold a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Claim {
    #[default]
    Nobody,
    One(usize),
    Several,
}

/// Plans one Ring; also tells the newest epoch.
pub(crate) fn plan(ctx: &Context<'_, '_>, board: &Board) -> (Entries, AppNotes, u64) {
    let mut notes = ctx.notes(true);
    let members = members(ctx, board);
    if members.is_empty() {
        notes.shortage = Some(Shortage { none: true, message: ctx.explain(true) });
    }
    let claims = claims(ctx);
    let before = ctx.world.newest_epoch(ctx.name, Mode::Ring);
    let mut newest = before;
    let shut = refusing(ctx, &members);
    let mut targets = present_owners(ctx, &members, &shut);
    let mut waits = Vec::new();
    // What is given changes who owns most, and so the quotas; it is settled when nothing more can be given. Each round gives at least
    // one partition for good, so there are never more rounds than partitions.
    for _ in 0..=targets.len() {
        rebalance(&mut targets, &members, &claims, |node| ctx.world.nodes[node].open && !shut.contains_key(&node));
        waits.clear();
        let mut given = false;
        for (target, claim) in targets.iter_mut().zip(&claims).filter_map(|(t, claim)| t.as_mut().map(|t| (t, claim))) {
            if target.epoch.is_some() {
                continue;
            }
            match claim {
                Claim::One(node) if *node != target.node => waits.push(*node),
                Claim::Several => {}
                Claim::Nobody | Claim::One(_) => {
                    newest = before + 1;
                    target.epoch = Some(newest);
                    given = true;
                }
            }
        }
        for target in targets.iter_mut().filter(|t| t.is_some_and(|t| t.epoch.is_none())) {
            *target = None;
        }
        if !given {
            break;
        }
    }
    if !waits.is_empty() {
        let moving = waits.len();
        waits.sort_unstable();
        waits.dedup();
        let names = ctx.world.names(&waits);
        notes.waits = Some(format!(
            "{moving} partition{} {} not owned until {names} confirmed to have let go",
            words::plural(moving),
            words::is_are(moving)
        ));
    }
    (entries(ctx, &members, &targets, newest), notes, newest)
}

/// Members that may own partitions, rising.
fn members(ctx: &Context<'_, '_>, board: &Board) -> Vec<usize> {
    let candidates = ctx.matching.list.iter().copied().filter_map(|n| {
        let view = &ctx.world.nodes[n];
        // Without a status of this boot a node keeps what it was given in it, but gets nothing.
        let before = view.may_keep() && ctx.may_run(n) && owns_some(ctx, n);
        (before || ctx.may_start(n) && view.can_hold()).then(|| {
            let member = ctx.role(n) == Some(Role::Member);
            // What is preferred is a matter of new ones.
            let score = if member { 0 } else { ctx.score(n) };
            (!member, (Reverse(score), board.instances[n]), n)
        })
    });
    let mut members = choose(ctx, candidates, [], cap(ctx));
    members.sort_unstable();
    members
}

fn owns_some(ctx: &Context<'_, '_>, node: usize) -> bool {
    ctx.on(node).is_some_and(|e| !e.foreign(ctx.app) && e.owned().next().is_some())
}

fn cap(ctx: &Context<'_, '_>) -> usize {
    // More members than partitions would own nothing.
    ctx.app.spec.replicas.map_or(usize::MAX, |n| n as usize).min(usize::from(ctx.app.partitions()))
}

fn claims(ctx: &Context<'_, '_>) -> Vec<Claim> {
    let mut claims = vec![Claim::default(); usize::from(ctx.app.partitions())];
    for seen in ctx.evidence {
        for partition in seen.ring_claims().iter() {
            if let Some(claim) = claims.get_mut(usize::from(partition)) {
                *claim = match *claim {
                    Claim::Nobody => Claim::One(seen.node),
                    _ => Claim::Several,
                };
            }
        }
    }
    claims
}

/// Members that give partitions back because their `onOwn` failed, with those partitions. None where there is no other to give them to.
fn refusing<'a>(ctx: &Context<'_, 'a>, members: &[usize]) -> BTreeMap<usize, &'a PartitionSet> {
    let refused = |n: &usize| {
        let seen = ctx.on(*n).and_then(|e| e.observed).filter(|o| o.uid == ctx.app.metadata.uid);
        Some((*n, &seen?.ring.as_ref()?.refused)).filter(|(_, set)| !set.is_empty())
    };
    let shut: BTreeMap<usize, &PartitionSet> = members.iter().filter_map(refused).collect();
    let others = members.iter().any(|n| ctx.world.nodes[*n].open && !shut.contains_key(n));
    if others { shut } else { BTreeMap::new() }
}

/// Owners among the members as last written. A tenure that the node gave up still makes it the owner, of a new tenure.
fn present_owners(ctx: &Context<'_, '_>, members: &[usize], shut: &BTreeMap<usize, &PartitionSet>) -> Vec<Option<Target>> {
    let mut targets: Vec<Option<Target>> = vec![None; usize::from(ctx.app.partitions())];
    for node in members {
        let Some(seen) = ctx.on(*node).filter(|e| !e.foreign(ctx.app)) else { continue };
        let refused = shut.get(node);
        for (partition, epoch) in seen.owned().filter(|(p, _)| !refused.is_some_and(|r| r.contains(*p))) {
            if let Some(target) = targets.get_mut(usize::from(partition))
                && target.is_none_or(|t| t.epoch < epoch)
            {
                *target = Some(Target { node: *node, epoch });
            }
        }
    }
    targets
}

/// How many partitions each member should own. One that is not open (cordoned, or its hooks fail) keeps what it owns, up to an even share, and gets nothing more, unless
/// all are.
fn quotas(owns: &BTreeMap<usize, usize>, partitions: usize, open: impl Fn(usize) -> bool) -> BTreeMap<usize, usize> {
    let share = partitions.div_ceil(owns.len().max(1));
    let any_open = owns.keys().any(|m| open(*m));
    let mut quota: BTreeMap<usize, usize> =
        owns.iter().filter(|(m, _)| any_open && !open(**m)).map(|(m, count)| (*m, share.min(*count))).collect();
    let mut rest: Vec<usize> = owns.keys().copied().filter(|m| !quota.contains_key(m)).collect();
    rest.sort_by_key(|m| (Reverse(owns[m]), *m));
    let partitions = partitions - quota.values().sum::<usize>().min(partitions);
    let (base, extra) = (partitions / rest.len().max(1), partitions % rest.len().max(1));
    quota.extend(rest.iter().enumerate().map(|(at, m)| (*m, base + usize::from(at < extra))));
    quota
}

/// Takes from each member what is above its quota, and gives what has no owner to members below theirs.
fn rebalance(targets: &mut [Option<Target>], members: &[usize], claims: &[Claim], open: impl Fn(usize) -> bool) {
    if members.is_empty() {
        return;
    }
    let mut owns: BTreeMap<usize, usize> = members.iter().map(|m| (*m, 0)).collect();
    for target in targets.iter().flatten() {
        *owns.entry(target.node).or_default() += 1;
    }
    let quota = quotas(&owns, targets.len(), open);
    for target in targets.iter_mut().rev() {
        if let Some(Target { node, .. }) = *target
            && let Some(count) = owns.get_mut(&node)
            && *count > quota[&node]
        {
            *count -= 1;
            *target = None;
        }
    }
    // A node that has to let go of a partition can as well keep it: then nobody waits.
    for (target, claim) in targets.iter_mut().zip(claims).filter(|(t, _)| t.is_none()) {
        if let Claim::One(node) = claim
            && let Some(count) = owns.get_mut(node)
            && *count < quota[node]
        {
            *count += 1;
            *target = Some(Target { node: *node, epoch: None });
        }
    }
    let mut free = members.iter().flat_map(|m| std::iter::repeat_n(*m, quota[m] - owns[m]));
    for target in targets.iter_mut().filter(|t| t.is_none()) {
        *target = free.next().map(|node| Target { node, epoch: None });
    }
}

fn entries(ctx: &Context<'_, '_>, members: &[usize], targets: &[Option<Target>], newest: u64) -> Entries {
    let mut own: BTreeMap<usize, Vec<(u16, u64)>> = BTreeMap::new();
    for (partition, target) in (0u16..).zip(targets) {
        if let Some(Target { node, epoch: Some(epoch) }) = target {
            own.entry(*node).or_default().push((partition, *epoch));
        }
    }
    // Nodes that own nothing for the moment stay members as long as there is room.
    let room = cap(ctx).saturating_sub(members.len());
    let idle = ctx.with_role(Role::Member).filter(|n| ctx.may_run(*n) && !members.contains(n)).take(room);
    let mut entries = Entries::new();
    for node in members.iter().copied().chain(idle) {
        let groups = OwnedPartitions::grouped(own.remove(&node).into_iter().flatten());
        let owned: PartitionSet = groups.iter().flat_map(|g| g.partitions.iter()).collect();
        let release = ctx.on(node).map(Evidence::ring_claims).unwrap_or_default().difference(&owned);
        let why =
            ctx.keep_reason(node, Role::Member, &[ReasonCode::EveryEligibleNode, ReasonCode::Chosen], || match ctx.app.spec.replicas {
                Some(cap) => {
                    let left_out = &ctx.matching.left_out;
                    reason(ReasonCode::Chosen, ctx.chosen(node, &format!("one of at most {cap} members, fewest instances first{left_out}")))
                }
                None => reason(ReasonCode::EveryEligibleNode, ctx.and_because("every eligible node is a member".to_owned(), node)),
            });
        let mut entry = ctx.entry(Role::Member, why);
        entry.epoch = newest;
        entry.ring = Some(RingAssignment { partitions: ctx.app.partitions(), own: groups, release, ..RingAssignment::default() });
        entries.insert(node, entry);
    }
    ctx.withdraw_rest(&mut entries, |node| {
        ctx.why_not(node).unwrap_or_else(|| reason(ReasonCode::Surplus, format!("{} other nodes are members", members.len())))
    });
    set_version(ctx, &mut entries);
    entries
}

/// The same version in all members' entries: one more than the last if any owner or epoch changed.
fn set_version(ctx: &Context<'_, '_>, entries: &mut Entries) {
    let table = |of: &mut dyn Iterator<Item = (usize, &RingAssignment)>| -> Vec<Option<(usize, u64)>> {
        let mut table = vec![None; usize::from(ctx.app.partitions())];
        for (node, ring) in of {
            for group in &ring.own {
                for partition in group.partitions.iter() {
                    // Writes that stopped half way may leave two owners, of which the higher epoch is true.
                    if let Some(owner) = table.get_mut(usize::from(partition))
                        && owner.is_none_or(|(_, epoch)| epoch < group.epoch)
                    {
                        *owner = Some((node, group.epoch));
                    }
                }
            }
        }
        table
    };
    let last = || ctx.evidence.iter().filter_map(|e| e.entry.and_then(|a| a.ring.as_ref()).map(|r| (e.node, r)));
    let before = table(&mut last());
    let after = table(&mut entries.iter().filter_map(|(node, e)| e.ring.as_ref().map(|r| (*node, r))));
    let version = last().map(|(_, r)| r.version).max().unwrap_or(0) + u64::from(before != after);
    for ring in entries.values_mut().filter(|e| e.role == Role::Member).filter_map(|e| e.ring.as_mut()) {
        ring.version = version;
    }
}
