//! From the assignment and what is seen to what is asked of the lease host: pure.

use std::collections::BTreeMap;

use cluster_fence::UnitIndex;
use cluster_lease::time::Span;
use cluster_lease::types::{NodeName, Slot, SlotName};
use cluster_schemas::PartitionSet;
use cluster_schemas::app::{Mode, Standby};
use cluster_schemas::assignment::{AppAssignment, OwnedPartitions, Role};
use cluster_schemas::node::{AppObserved, InstanceState};

use crate::lease::DEFAULT_T;
use crate::lease::view::{LeaseView, TenureState, TenureView, Wanted};
use crate::worker::health::Standing;
use crate::worker::target::Tenures;

/// The slot `app/NAME`.
#[must_use]
pub fn app_slot(app: &str) -> Option<Slot> {
    SlotName::new(&format!("app/{app}")).ok().map(Slot::Named)
}

/// The slot `vip/ADDRESS` of a pool's or ring's VIP.
#[must_use]
pub fn vip_slot(entry: &AppAssignment) -> Option<Slot> {
    if entry.mode == Mode::Singleton {
        return None;
    }
    let vip = entry.vip.as_ref()?.spec();
    SlotName::new(&format!("vip/{}", vip.ip())).ok().map(Slot::Named)
}

fn ring_slot(app: &str, partition: u16) -> Option<Slot> {
    SlotName::new(app).ok().map(|ring| Slot::Ring { ring, partition })
}

fn names(order: &[String]) -> Vec<NodeName> {
    order.iter().filter_map(|n| NodeName::new(n).ok()).collect()
}

/// The planned holder takes the planned epoch, everybody else one above it.
const fn below(planned: bool, epoch: u64) -> u64 {
    if planned { epoch.saturating_sub(1) } else { epoch }
}

/// The tenures of one ring's partitions.
fn partitions_of<'v>(app: &str, view: &'v LeaseView) -> impl Iterator<Item = (&'v Slot, u16, &'v TenureView)> {
    let ends = ring_slot(app, 0).zip(ring_slot(app, u16::MAX));
    let range = ends.map(|(first, last)| view.tenures.range(first..=last));
    range.into_iter().flatten().filter_map(|(slot, tenure)| match slot {
        Slot::Ring { partition, .. } => Some((slot, *partition, tenure)),
        Slot::Named(_) => None,
    })
}

/// Whether this node has any tenure of the App, whatever its state.
#[must_use]
pub fn has_tenures(app: &str, entry: Option<&AppAssignment>, view: &LeaseView) -> bool {
    let has = |slot: Option<Slot>| slot.is_some_and(|s| view.tenures.contains_key(&s));
    has(app_slot(app)) || has(entry.and_then(vip_slot)) || partitions_of(app, view).next().is_some()
}

/// How an App is on this node.
#[derive(Debug, Clone, Copy, Default)]
pub struct Here<'a> {
    /// What its worker saw last.
    pub observed: Option<&'a AppObserved>,
    /// Its health.
    pub standing: Standing,
}

/// P7: whether this node could be active at once. A hot unit could while it runs and passes its checks, a cold one while it did not fail.
fn ready(entry: &AppAssignment, here: Here<'_>) -> bool {
    let failed = here.observed.is_some_and(|o| o.state == InstanceState::Failed);
    !failed && !here.standing.no_database && (entry.run.standby == Standby::Cold || here.standing.fit)
}

/// What one App makes this node a candidate for.
pub fn wanted(node: &str, app: &str, entry: &AppAssignment, here: Here<'_>, unit: UnitIndex, into: &mut BTreeMap<Slot, Wanted>) {
    if entry.role == Role::Absent {
        return;
    }
    let t = if entry.lease_ms == 0 { DEFAULT_T } else { Span::from_millis(entry.lease_ms) };
    let (ready, fit) = (ready(entry, here), here.standing.fit);
    // What must be exclusive is, whatever an assignment says.
    let keep = entry.keep && entry.mode != Mode::Ring && entry.run.database.is_none();
    let is_candidate = |order: &[String]| order.iter().any(|n| n == node);
    if entry.mode == Mode::Singleton
        && is_candidate(&entry.candidates)
        && let Some(slot) = app_slot(app)
    {
        into.insert(
            slot,
            Wanted {
                unit,
                role: true,
                t,
                keep,
                order: names(&entry.candidates),
                ready,
                seen: below(entry.role == Role::Active, entry.epoch),
            },
        );
    }
    if let (Some(vip), Some(slot)) = (&entry.vip, vip_slot(entry))
        && is_candidate(&vip.candidates)
    {
        into.insert(
            slot,
            Wanted { unit, role: false, t, keep, order: names(&vip.candidates), ready: fit, seen: below(vip.hold, vip.epoch) },
        );
    }
    let Some(ring) = &entry.ring else { return };
    // Where `onOwn` failed a moment ago, what it failed for is not asked for, and everything else only where nobody else is ready.
    let nothing = PartitionSet::new();
    let refused = here.observed.and_then(|o| o.ring.as_ref()).map_or(&nothing, |r| &r.refused);
    let ready = fit && refused.is_empty();
    for group in ring.candidates.iter().filter(|g| is_candidate(&g.order)) {
        let order = names(&group.order);
        for slot in group.partitions.iter().filter(|p| !refused.contains(*p)).filter_map(|p| ring_slot(app, p)) {
            into.insert(slot, Wanted { unit, role: false, t, keep: false, order: order.clone(), ready, seen: entry.epoch });
        }
    }
}

/// Tenures of one App that are to end in good order, with their successors: because the assignment wants it, because the instance is
/// unhealthy here (then whoever is ready and ranks best follows), or because a partition's `onOwn` failed. `entry` is none where the
/// assignment does not have the App any more.
pub fn given_up(
    node: &str,
    app: &str,
    entry: Option<&AppAssignment>,
    here: Here<'_>,
    view: &LeaseView,
    into: &mut BTreeMap<Slot, Option<NodeName>>,
) {
    let present = entry.filter(|e| e.role != Role::Absent);
    let successor = |name: &str| NodeName::new(name).ok().filter(|n| n.as_str() != node);
    let held = |slot: &Slot| view.tenures.get(slot).filter(|t| t.state == TenureState::Held);
    if let Some(slot) = app_slot(app)
        && let Some(tenure) = held(&slot)
    {
        let stays = present.is_some_and(|e| {
            e.mode == Mode::Singleton && e.candidates.iter().any(|n| n == node) && e.releasing.is_none_or(|r| r < tenure.epoch)
        });
        if !stays {
            into.insert(slot, entry.and_then(|e| successor(&e.successor)));
        } else if here.standing.leave_app == tenure.epoch {
            into.insert(slot, None);
        }
    }
    if let Some(slot) = entry.and_then(vip_slot)
        && let Some(tenure) = held(&slot)
    {
        let vip = present.and_then(|e| e.vip.as_ref());
        let stays = vip.is_some_and(|v| v.candidates.iter().any(|n| n == node) && v.releasing.is_none_or(|r| r < tenure.epoch));
        if !stays {
            into.insert(slot, vip.and_then(|v| successor(v.candidates.first()?)));
        } else if here.standing.leave_vip == tenure.epoch {
            into.insert(slot, None);
        }
    }
    let order_of = |partition: u16| {
        let groups = &present?.ring.as_ref()?.candidates;
        groups.iter().find(|g| g.partitions.contains(partition)).map(|g| &g.order)
    };
    let release = present.and_then(|e| e.ring.as_ref()).map(|r| &r.release);
    let refused = here.observed.and_then(|o| o.ring.as_ref()).map(|r| &r.refused);
    for (slot, partition, _) in partitions_of(app, view).filter(|(.., t)| t.state == TenureState::Held) {
        let order = order_of(partition);
        let told_to = release.is_some_and(|r| r.contains(partition));
        if told_to || !order.is_some_and(|o| o.iter().any(|n| n == node)) {
            into.insert(slot.clone(), order.and_then(|o| successor(o.first()?)));
        } else if refused.is_some_and(|r| r.contains(partition)) {
            into.insert(slot.clone(), order.and_then(|o| o.iter().find_map(|n| successor(n))));
        }
    }
}

/// The tenures of one App. The version is the caller's to set.
#[must_use]
pub fn tenures_of(app: &str, entry: Option<&AppAssignment>, view: &LeaseView) -> Tenures {
    let of = |slot: Option<Slot>| slot.and_then(|s| view.tenures.get(&s)).copied();
    let in_state = |state: TenureState| {
        let those = partitions_of(app, view).filter(move |(.., t)| t.state == state);
        OwnedPartitions::grouped(those.map(|(_, partition, tenure)| (partition, tenure.epoch)))
    };
    let (ring, releasing) = (in_state(TenureState::Held), in_state(TenureState::Releasing));
    Tenures { version: 0, app: of(app_slot(app)), vip: of(entry.and_then(vip_slot)), ring, releasing }
}

/// Ended tenures of one App of which nothing is left, by what its worker saw. The report must have been made under these tenures.
#[must_use]
pub fn stopped(app: &str, entry: Option<&AppAssignment>, observed: Option<&AppObserved>, view: &LeaseView) -> Vec<(Slot, u64)> {
    let ended = |t: &&TenureView| t.state != TenureState::Held;
    let mut gone = Vec::new();
    let mut check = |slot: Option<Slot>, left: bool| {
        if let Some(slot) = slot
            && let Some(tenure) = view.tenures.get(&slot).filter(ended)
            && !left
        {
            gone.push((slot, tenure.epoch));
        }
    };
    check(app_slot(app), observed.is_some_and(|o| o.holds));
    check(entry.and_then(vip_slot), observed.and_then(|o| o.vip.as_ref()).is_some_and(|v| v.present));
    for (slot, partition, _) in partitions_of(app, view) {
        let told = observed.and_then(|o| o.ring.as_ref()).is_some_and(|r| r.held.contains(partition));
        check(Some(slot.clone()), told);
    }
    gone
}

#[cfg(test)]
mod tests {
    use super::*;
    use cluster_schemas::assignment::{PartitionCandidates, RingAssignment};
    use cluster_schemas::node::RingObserved;

    fn view(tenures: &[(&str, u64, TenureState)]) -> LeaseView {
        let tenures =
            tenures.iter().map(|(s, epoch, state)| (s.parse().expect("a slot"), TenureView { epoch: *epoch, state: *state })).collect();
        LeaseView { tenures, ..LeaseView::default() }
    }

    fn singleton(role: Role, candidates: &[&str], releasing: Option<u64>) -> AppAssignment {
        let candidates = candidates.iter().map(ToString::to_string).collect();
        AppAssignment { mode: Mode::Singleton, role, candidates, releasing, successor: "n2".to_owned(), ..AppAssignment::default() }
    }

    fn given(entry: Option<&AppAssignment>, view: &LeaseView) -> Vec<(String, Option<String>)> {
        let mut into = BTreeMap::new();
        given_up("n1", "a", entry, Here::default(), view, &mut into);
        into.into_iter().map(|(s, n)| (s.to_string(), n.map(|n| n.to_string()))).collect()
    }

    #[test]
    fn a_holder_that_is_only_ranked_lower_goes_on() {
        let held = view(&[("app/a", 5, TenureState::Held)]);
        assert_eq!(given(Some(&singleton(Role::Standby, &["n2", "n1"], None)), &held), []);
        // A release asked of an earlier tenure is done with.
        assert_eq!(given(Some(&singleton(Role::Standby, &["n2", "n1"], Some(4))), &held), []);
    }

    #[test]
    fn a_tenure_is_given_up_when_it_is_asked_for_or_the_node_is_no_candidate() {
        let held = view(&[("app/a", 5, TenureState::Held)]);
        let to_n2 = vec![("app/a".to_owned(), Some("n2".to_owned()))];
        assert_eq!(given(Some(&singleton(Role::Standby, &["n2", "n1"], Some(5))), &held), to_n2);
        assert_eq!(given(Some(&singleton(Role::Active, &["n2", "n3"], None)), &held), to_n2);
        assert_eq!(given(Some(&singleton(Role::Absent, &["n1"], None)), &held), to_n2);
        assert_eq!(given(None, &held), [("app/a".to_owned(), None)]);
        assert_eq!(given(None, &view(&[("app/a", 5, TenureState::Lost)])), []);
    }

    #[test]
    fn an_unhealthy_holder_gives_up_the_tenure_in_which_it_was_found_so() {
        let held = view(&[("app/a", 5, TenureState::Held)]);
        let left = |epoch| {
            let mut into = BTreeMap::new();
            let standing = Standing { leave_app: epoch, ..Standing::default() };
            given_up(
                "n1",
                "a",
                Some(&singleton(Role::Active, &["n1", "n2"], None)),
                Here { standing, ..Here::default() },
                &held,
                &mut into,
            );
            into.into_iter().map(|(s, n)| (s.to_string(), n)).collect::<Vec<_>>()
        };
        assert_eq!(left(5), [("app/a".to_owned(), None)]);
        assert_eq!(left(4), [], "nobody else could, and it was taken up again here");
    }

    #[test]
    fn p7_a_standby_that_failed_or_is_unhealthy_is_not_ready() {
        let entry = |standby| {
            let run = cluster_schemas::assignment::RunSpec { standby, ..Default::default() };
            AppAssignment { run: run.into(), ..singleton(Role::Standby, &["n2", "n1"], None) }
        };
        let is = |standby, state, fit| {
            let observed = AppObserved { state, ..AppObserved::default() };
            ready(&entry(standby), Here { observed: Some(&observed), standing: Standing { fit, ..Standing::default() } })
        };
        assert!(is(Standby::Hot, InstanceState::Running, true) && !is(Standby::Hot, InstanceState::Running, false));
        assert!(is(Standby::Cold, InstanceState::Stopped, false) && !is(Standby::Cold, InstanceState::Failed, false));
    }

    #[test]
    fn a_partition_is_stopped_only_when_the_process_was_told() {
        let seen = |held: &str| AppObserved {
            ring: Some(RingObserved { held: held.parse().expect("a set"), ..RingObserved::default() }),
            ..AppObserved::default()
        };
        let tenures =
            view(&[("ring/a/1", 3, TenureState::Releasing), ("ring/a/2", 3, TenureState::Held), ("ring/a/3", 3, TenureState::Lost)]);
        assert_eq!(stopped("a", None, Some(&seen("1-3")), &tenures), []);
        let gone: Vec<String> = stopped("a", None, Some(&seen("2")), &tenures).into_iter().map(|(s, _)| s.to_string()).collect();
        assert_eq!(gone, ["ring/a/1", "ring/a/3"]);
    }

    #[test]
    fn partitions_are_given_up_to_their_planned_owner() {
        let group = |order: &[&str], set: &str| PartitionCandidates {
            order: order.iter().map(ToString::to_string).collect(),
            partitions: set.parse().expect("a set"),
        };
        let ring = RingAssignment {
            candidates: vec![group(&["n1", "n2"], "0-1"), group(&["n3", "n1"], "2")],
            release: "2".parse().expect("a set"),
            ..RingAssignment::default()
        };
        let entry = AppAssignment { mode: Mode::Ring, role: Role::Member, ring: Some(ring), ..AppAssignment::default() };
        let held = view(&[("ring/a/0", 1, TenureState::Held), ("ring/a/2", 1, TenureState::Held), ("ring/b/2", 1, TenureState::Held)]);
        assert_eq!(given(Some(&entry), &held), [("ring/a/2".to_owned(), Some("n3".to_owned()))]);
    }
}
