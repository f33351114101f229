//! Leases decide, the planner ranks. Between two plans the agents may have moved exclusive things by themselves; this module makes the
//! plan start from there, and adds to every entry who may take over, best first.
//!
//! # Flow
//! 1. [`adopt`]: the assignments as last written, changed to what a plan would say if it had made the moves that are seen: whoever has
//!    the lease of a thing is its owner, with the lease's epoch, and nobody else has a claim on it. A lease is held by one node at a
//!    time, so the higher epoch is the true one where two say that they have it.
//! 2. [`plan`](crate::plan) from there, checked against the same.
//! 3. [`rank`]: candidates in every entry.
//!
//! A mark of release that the present holder was given stays: it is a move that is under way.

use std::collections::BTreeMap;

use cluster_schemas::assignment::{AppAssignment, OwnedPartitions, PartitionCandidates, RingAssignment, Role};
use cluster_schemas::node::{AppObserved, InstanceState, NodeStatus};
use cluster_schemas::{Assignment, Mode, PartitionSet};

use crate::first;
use crate::input::{Input, Liveness, NodeInput, Plan};
use crate::prefer;

/// A plan, and the assignments that it starts from.
#[derive(Debug, Clone)]
pub struct LeasedPlan {
    /// What the agents made of the last plan: the checker judges by these.
    pub adopted: BTreeMap<String, Assignment>,
    /// The plan as made from them: what the checker judges.
    pub bare: Plan,
    /// The plan with candidates, ordered against what was last written: what is stored.
    pub plan: Plan,
}

/// Plans from what the leases say.
#[must_use]
pub fn plan_leased(input: &Input<'_>) -> LeasedPlan {
    let adopted = adopt(input);
    let bare = crate::plan(&Input { assignments: &adopted, ..*input });
    let mut plan = bare.clone();
    name_leases(&mut plan, input);
    first::mark(&mut plan, input);
    rank(&mut plan, input);
    for (node, planned) in &mut plan.assignments {
        let Some(last) = input.assignments.get(node) else { continue };
        let same = last.boot_id == planned.boot_id
            && last.members == planned.members
            && last.cordoned == planned.cordoned
            && last.apps == planned.apps;
        if same && last.order.incarnation == input.incarnation {
            planned.order = last.order.clone();
        } else if planned.order.newer_than(&last.order) == Some(false) {
            planned.order.term = input.term;
            planned.order.generation = last.order.generation + 1;
        }
    }
    LeasedPlan { adopted, bare, plan }
}

/// What is seen of each App on Live nodes: gathered once, for to ask every node about every App would take most of the time.
type Seen<'a> = BTreeMap<&'a str, Vec<(&'a str, &'a AppObserved)>>;

fn seen<'a>(nodes: &'a BTreeMap<String, NodeInput>) -> Seen<'a> {
    let mut seen: Seen<'a> = BTreeMap::new();
    for (node, input) in nodes.iter().filter(|(_, n)| n.liveness == Liveness::Live) {
        let apps = input.status.iter().flat_map(|status: &NodeStatus| &status.apps);
        apps.for_each(|(app, observed)| seen.entry(app).or_default().push((node, observed)));
    }
    seen
}

/// The entries of an App, each with its node.
type AppEntries<'a, 'b> = [(&'a str, &'b mut AppAssignment)];

/// The assignments as if the planner had made the moves that are seen; without candidates.
#[must_use]
pub fn adopt(input: &Input<'_>) -> BTreeMap<String, Assignment> {
    let mut adopted = input.assignments.clone();
    let seen = seen(input.nodes);
    // The entries of nodes whose last assignment is of their present boot, by App.
    let mut entries: BTreeMap<&str, Vec<(&str, &mut AppAssignment)>> = BTreeMap::new();
    for (node, assignment) in &mut adopted {
        let same_boot = input.nodes.get(node).is_some_and(|n| n.node.boot_id == assignment.boot_id);
        for (app, entry) in &mut assignment.apps {
            strip(entry);
            if same_boot && input.apps.contains_key(app) {
                entries.entry(app).or_default().push((node, entry));
            }
        }
    }
    for (app, mut entries) in entries {
        let Some(seen) = seen.get(app) else { continue };
        adopt_slot(seen, &mut entries);
        adopt_vip(seen, &mut entries);
        adopt_ring(seen, &mut entries);
    }
    adopted
}

fn strip(entry: &mut AppAssignment) {
    entry.candidates.clear();
    entry.successor.clear();
    entry.lease_ms = 0;
    if let Some(vip) = &mut entry.vip {
        vip.candidates.clear();
        vip.probe = false;
    }
    if let Some(ring) = &mut entry.ring {
        ring.candidates.clear();
    }
}

/// The highest lease among those seen: node and epoch.
fn leaseholder<'a>(leases: impl Iterator<Item = (&'a str, u64)>) -> Option<(String, u64)> {
    leases.filter(|(_, epoch)| *epoch > 0).max_by_key(|(node, epoch)| (*epoch, std::cmp::Reverse(*node))).map(|(n, e)| (n.to_owned(), e))
}

fn adopt_slot(seen: &[(&str, &AppObserved)], entries: &mut AppEntries<'_, '_>) {
    let Some((holder, epoch)) = leaseholder(seen.iter().map(|(node, o)| (*node, o.leased))) else { return };
    for (node, entry) in entries.iter_mut().filter(|(_, e)| e.mode == Mode::Singleton) {
        let may = matches!(entry.role, Role::Active | Role::Standby);
        let told_to_go = entry.releasing.is_some_and(|r| r >= epoch);
        if *node == holder && may && !told_to_go {
            entry.role = Role::Active;
            entry.releasing = None;
            entry.epoch = epoch;
            if let Some(vip) = &mut entry.vip {
                (vip.hold, vip.epoch, vip.releasing) = (true, epoch, None);
            }
        } else if *node != holder && may {
            entry.role = Role::Standby;
            entry.releasing = None;
            entry.epoch = epoch;
            if let Some(vip) = &mut entry.vip {
                (vip.hold, vip.epoch, vip.releasing) = (false, epoch, None);
            }
        } else if *node != holder {
            // On its way out: what it had to let go of is another's by now, or was never had: no epoch is given twice.
            entry.releasing = None;
            if let Some(vip) = &mut entry.vip {
                vip.releasing = None;
            }
        }
    }
}

fn adopt_vip(seen: &[(&str, &AppObserved)], entries: &mut AppEntries<'_, '_>) {
    let leases = seen.iter().filter_map(|(node, o)| o.vip.as_ref().map(|v| (*node, v.leased)));
    let Some((holder, epoch)) = leaseholder(leases) else { return };
    for (node, entry) in entries.iter_mut() {
        let Some(vip) = &mut entry.vip else { continue };
        if entry.role != Role::Member {
            if *node != holder && entry.mode != Mode::Singleton {
                vip.releasing = None;
            }
            continue;
        }
        let told_to_go = vip.releasing.is_some_and(|r| r >= epoch);
        if *node != holder {
            (vip.hold, vip.epoch, vip.releasing) = (false, epoch, None);
        } else if !told_to_go {
            (vip.hold, vip.epoch, vip.releasing) = (true, epoch, None);
        }
    }
}

fn adopt_ring(seen: &[(&str, &AppObserved)], entries: &mut AppEntries<'_, '_>) {
    let mut owners: BTreeMap<u16, (&str, u64)> = BTreeMap::new();
    for (node, observed) in seen {
        for group in observed.ring.iter().flat_map(|r| &r.leased) {
            for partition in group.partitions.iter() {
                let owner = owners.entry(partition).or_insert((node, group.epoch));
                if owner.1 < group.epoch {
                    *owner = (node, group.epoch);
                }
            }
        }
    }
    if owners.is_empty() {
        return;
    }
    for (node, entry) in entries {
        let leaves = entry.role == Role::Absent;
        let Some(ring) = &mut entry.ring else { continue };
        if leaves {
            for partition in owners.iter().filter(|(_, (owner, _))| owner != node).map(|(partition, _)| *partition) {
                ring.release.remove(partition);
            }
            continue;
        }
        let mut own: Vec<(u16, u64)> = owned(ring).filter(|(partition, _)| !owners.contains_key(partition)).collect();
        for (partition, (owner, epoch)) in &owners {
            if owner == node && !ring.release.contains(*partition) {
                own.push((*partition, *epoch));
            } else if owner != node {
                ring.release.remove(*partition);
            }
        }
        ring.own = OwnedPartitions::grouped(own);
        entry.epoch = ring.own.iter().map(|g| g.epoch).max().unwrap_or(0).max(entry.epoch);
    }
}

/// What an entry gives, partition by partition, with the epochs.
fn owned(ring: &RingAssignment) -> impl Iterator<Item = (u16, u64)> {
    ring.own.iter().flat_map(|g| g.partitions.iter().map(|p| (p, g.epoch)))
}

/// A thing that stays with its leaseholder though it was to move, or that the plan gave a fresh epoch, goes on under the lease's epoch.
fn name_leases(plan: &mut Plan, input: &Input<'_>) {
    let seen = |node: &str, app: &str| {
        let live = input.nodes.get(node).filter(|n| n.liveness == Liveness::Live);
        live.and_then(|n| n.status.as_ref()).and_then(|s| s.apps.get(app))
    };
    // What goes on under its lease's epoch, by App: the others' entries name that one too.
    let mut slots: BTreeMap<String, u64> = BTreeMap::new();
    let mut vips: BTreeMap<String, u64> = BTreeMap::new();
    for (node, assignment) in &mut plan.assignments {
        for (app, entry) in &mut assignment.apps {
            let Some(observed) = seen(node, app) else { continue };
            if entry.role == Role::Active && observed.leased > 0 {
                slots.insert(app.clone(), observed.leased);
                entry.epoch = observed.leased;
                if let Some(vip) = &mut entry.vip {
                    vip.epoch = observed.leased;
                }
            }
            if let (Role::Member, Some(vip), Some(seen)) = (entry.role, &mut entry.vip, &observed.vip)
                && vip.hold
                && seen.leased > 0
            {
                vips.insert(app.clone(), seen.leased);
                vip.epoch = seen.leased;
            }
            if let (Some(ring), Some(seen)) = (&mut entry.ring, &observed.ring) {
                let leased = |p: u16| seen.leased.iter().find(|g| g.partitions.contains(p)).map(|g| g.epoch);
                ring.own = OwnedPartitions::grouped(owned(ring).map(|(p, epoch)| (p, leased(p).unwrap_or(epoch))));
            }
        }
    }
    for (app, entry) in plan.assignments.values_mut().flat_map(|a| &mut a.apps) {
        let standby = entry.role == Role::Standby && entry.releasing.is_none();
        if let Some(epoch) = slots.get(app).filter(|_| standby) {
            entry.epoch = *epoch;
        }
        let epoch = if standby { slots.get(app) } else { vips.get(app).filter(|_| entry.role == Role::Member) };
        if let (Some(epoch), Some(vip)) = (epoch, entry.vip.as_mut().filter(|v| !v.hold && v.releasing.is_none())) {
            vip.epoch = *epoch;
        }
    }
}

/// Fills in who may hold what, best first.
pub fn rank(plan: &mut Plan, input: &Input<'_>) {
    let mut apps: BTreeMap<&str, Entries<'_>> = BTreeMap::new();
    for (node, assignment) in &mut plan.assignments {
        for (app, entry) in &mut assignment.apps {
            apps.entry(app).or_default().insert(node.clone(), entry);
        }
    }
    for (app, mut entries) in apps {
        let lease = input.apps.get(app).and_then(|a| a.spec.failover.as_ref()).and_then(|f| f.lease());
        let lease_ms = lease.and_then(|l| u64::try_from(l.as_millis()).ok()).unwrap_or(input.lease_ms);
        let keep = input.apps.get(app).is_some_and(cluster_schemas::App::keeps);
        for entry in entries.values_mut().filter(|e| e.role != Role::Absent) {
            entry.keep = keep;
            entry.lease_ms = lease_ms;
        }
        let standing = Standing { app, input };
        rank_slot(&mut entries, standing);
        rank_vip(&mut entries, standing);
        rank_ring(&mut entries, standing);
    }
}

/// What makes one node a better candidate for an App than another.
#[derive(Clone, Copy)]
struct Standing<'a> {
    app: &'a str,
    input: &'a Input<'a>,
}

impl<'a> Standing<'a> {
    /// Partitions whose leases the node has, as far as it said.
    fn leased(self, node: &str) -> &'a [OwnedPartitions] {
        let status = self.input.nodes.get(node).and_then(|n| n.status.as_ref());
        status.and_then(|s| s.apps.get(self.app)).and_then(|o| o.ring.as_ref()).map_or(&[], |r| &r.leased)
    }

    fn live(self, node: &str) -> bool {
        self.input.nodes.get(node).is_some_and(|n| n.liveness == Liveness::Live)
    }

    /// Those that failed come after those that did not, those that hold nothing at present after those that could, and those on cordoned
    /// nodes after the others; then by `prefer`. What is left is decided by a hash of both names, so that what one node loses is spread over all the others.
    fn open(self, node: &str) -> bool {
        self.input.nodes.get(node).is_some_and(NodeInput::is_open)
    }

    /// Whether an operator asked that `node` be active next, after the tenure of this epoch or an earlier one.
    fn asked(self, node: &str, epoch: u64) -> bool {
        self.input.handovers.get(self.app).is_some_and(|h| h.epoch >= epoch && h.to.as_deref() == Some(node))
    }

    fn of(self, node: &str) -> impl Ord + use<> {
        let status = self.input.nodes.get(node).and_then(|n| n.status.as_ref());
        let failed = status.and_then(|s| s.apps.get(self.app)).is_some_and(|o| o.state == InstanceState::Failed);
        let unable = !self.live(node) || status.is_some_and(|s| !s.quorum);
        let labels = self.input.nodes.get(node).map(|n| &n.node.labels);
        let wanted = self.input.apps.get(self.app).zip(labels).map_or(0, |(app, labels)| prefer::score(app, labels));
        (failed, unable, !self.open(node), std::cmp::Reverse(wanted), fnv(self.app.bytes().chain([0]).chain(node.bytes())), node.to_owned())
    }
}

/// FNV-1a, 64 bits: the same on every controller and in every version.
fn fnv(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

type Entries<'a> = BTreeMap<String, &'a mut AppAssignment>;

fn rank_slot(entries: &mut Entries<'_>, standing: Standing<'_>) {
    let newest = entries.values().map(|e| e.epoch).max().unwrap_or(0);
    let mut ranked: Vec<_> = entries
        .iter()
        .filter(|(_, e)| matches!(e.role, Role::Active | Role::Standby))
        .map(|(node, e)| ((e.releasing.is_some(), !standing.asked(node, newest), e.role != Role::Active, standing.of(node)), node.clone()))
        .collect();
    ranked.sort();
    let order: Vec<String> = ranked.into_iter().map(|(_, node)| node).collect();
    for (node, entry) in entries.iter_mut().filter(|(_, e)| e.mode == Mode::Singleton) {
        if matches!(entry.role, Role::Active | Role::Standby) {
            entry.candidates.clone_from(&order);
        }
        if entry.releasing.is_some() {
            entry.successor = order.iter().find(|n| *n != node).cloned().unwrap_or_default();
        }
    }
}

fn rank_vip(entries: &mut Entries<'_>, standing: Standing<'_>) {
    let members = |e: &AppAssignment| e.role == Role::Member && e.vip.is_some();
    let mut ranked: Vec<_> = entries
        .iter()
        .filter(|(_, e)| members(e))
        .map(|(node, e)| {
            let vip = e.vip.as_ref();
            ((vip.is_some_and(|v| v.releasing.is_some()), !vip.is_some_and(|v| v.hold), standing.of(node)), node.clone())
        })
        .collect();
    ranked.sort();
    let order: Vec<String> = ranked.into_iter().map(|(_, node)| node).collect();
    for entry in entries.values_mut().filter(|e| members(e)) {
        if let Some(vip) = &mut entry.vip {
            vip.candidates.clone_from(&order);
        }
    }
}

/// Most candidates of a partition: its owner and those that may take over from it. More would take over no sooner, and in large clusters
/// every node would be told every order of all nodes.
pub const RING_CANDIDATES_MAX: usize = 4;

/// The planned owner first; then the other members, beginning at another one for each partition, so that what a lost node owned spreads
/// evenly. A partition that is moving goes to a member that owns too few.
fn rank_ring(entries: &mut Entries<'_>, standing: Standing<'_>) {
    let members: Vec<String> = entries
        .iter()
        .filter(|(node, e)| e.role == Role::Member && e.ring.is_some() && standing.live(node))
        .map(|(n, _)| n.clone())
        .collect();
    let partitions = entries.values().filter_map(|e| e.ring.as_ref()).map(|r| r.partitions).max().unwrap_or(0);
    if members.is_empty() || partitions == 0 {
        return;
    }
    let mut owner: BTreeMap<u16, String> = BTreeMap::new();
    let mut leaving: BTreeMap<u16, String> = BTreeMap::new();
    for (node, ring) in entries.iter().filter_map(|(n, e)| e.ring.as_ref().map(|r| (n, r))) {
        owner.extend(ring.owned().iter().map(|p| (p, node.clone())));
        leaving.extend(ring.release.iter().map(|p| (p, node.clone())));
    }
    let mut groups: BTreeMap<Vec<String>, PartitionSet> = BTreeMap::new();
    let mut counts: BTreeMap<&String, usize> = members.iter().map(|m| (m, 0)).collect();
    for node in owner.values() {
        if let Some(count) = counts.get_mut(node) {
            *count += 1;
        }
    }
    let mut turn: BTreeMap<String, usize> = BTreeMap::new();
    for partition in 0..partitions {
        let first = owner.get(&partition).cloned().or_else(|| {
            let left = leaving.get(&partition);
            let node = members
                .iter()
                .filter(|m| Some(*m) != left)
                .min_by_key(|m| (!standing.open(m), counts.get(m).copied().unwrap_or(0), (*m).clone()))?;
            if let Some(count) = counts.get_mut(node) {
                *count += 1;
            }
            Some(node.clone())
        });
        let Some(first) = first else { continue };
        let others: Vec<&String> = members.iter().filter(|m| **m != first).collect();
        let at = turn.entry(first.clone()).or_default();
        let mut order = vec![first];
        order.extend(
            (0..others.len().min(RING_CANDIDATES_MAX - 1)).filter_map(|i| others.get((*at + i) % others.len()).map(|n| (*n).clone())),
        );
        *at += 1;
        groups.entry(order).or_default().insert(partition);
    }
    let candidates: Vec<PartitionCandidates> =
        groups.into_iter().map(|(order, partitions)| PartitionCandidates { order, partitions }).collect();
    for (node, entry) in entries.iter_mut().filter(|(_, e)| e.role == Role::Member) {
        let Some(ring) = &mut entry.ring else { continue };
        // What concerns the node: what it may take, and to whom it is to give what it has.
        let leased = standing.leased(node);
        let has = |p: u16| ring.release.contains(p) || leased.iter().any(|g| g.partitions.contains(p));
        let concerns = |group: &&PartitionCandidates| group.order.contains(node) || group.partitions.iter().any(has);
        ring.candidates = candidates.iter().filter(concerns).cloned().collect();
    }
}
