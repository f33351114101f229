//! How the tenures of Singletons on this node began: times for the record (KV `active.APP`), gathered from the lease host and from what the
//! workers report. Times of reports are a few milliseconds after what they tell of.

use std::collections::BTreeMap;

use cluster_fence::clock;
use cluster_lease::time::{Span, Time, Timing};
use cluster_schemas::node::{AppObserved, InstanceState};
use cluster_schemas::takeover::{Cause, TakeOver};
use jiff::{SignedDuration, Timestamp};

use crate::candidacies::app_slot;
use crate::lease::view::{Acquired, LeaseView};
use crate::worker::observe::is_active;

/// What is known of the present tenures.
#[derive(Debug, Default)]
pub struct TakeOvers {
    known: BTreeMap<String, (Time, TakeOver)>,
}

fn micros(from: Time, to: Time) -> i64 {
    let span = |span: Span| i64::try_from(span.0 / 1_000).unwrap_or(i64::MAX);
    if to >= from { span(to - from) } else { -span(from - to) }
}

impl TakeOvers {
    /// Takes what a worker reports now, under these leases.
    pub fn look(&mut self, node: &str, app: &str, seen: &AppObserved, view: &LeaseView) {
        let acquired = app_slot(app).and_then(|slot| view.acquired.get(&slot));
        self.note(node, app, seen, acquired, (clock::now(), Timestamp::now()));
        self.heard(view);
    }

    /// The former holder's word may come after the grant: then nothing had run out.
    pub fn heard(&mut self, view: &LeaseView) {
        for (app, (_, known)) in self.known.iter_mut().filter(|(_, (_, known))| known.cause != Cause::HandOver) {
            let acquired = app_slot(app).and_then(|slot| view.acquired.get(&slot));
            if acquired.is_some_and(|a| a.handed && a.epoch == known.epoch) {
                (known.cause, known.last_renewal_us, known.deadline_us) = (Cause::HandOver, None, None);
            }
        }
    }

    fn note(&mut self, node: &str, app: &str, seen: &AppObserved, acquired: Option<&Acquired>, (now, wall): (Time, Timestamp)) {
        let Some(acquired) = acquired.filter(|a| a.epoch == seen.leased) else {
            self.known.remove(app);
            return;
        };
        if self.known.get(app).is_none_or(|(_, known)| known.epoch != acquired.epoch) {
            self.known.insert(app.to_owned(), (acquired.granted, begun(node, acquired, now, wall)));
        }
        let Some((granted, known)) = self.known.get_mut(app) else { return };
        let at = Some(micros(*granted, now));
        if seen.vip.as_ref().is_some_and(|v| v.present) {
            known.vip_us = known.vip_us.or(at);
        }
        if seen.state == InstanceState::Running {
            known.unit_us = known.unit_us.or(at);
        }
        if is_active(seen) {
            known.healthy_us = known.healthy_us.or(at);
        }
    }

    /// How the present tenure of `app` began, as far as it came by now.
    #[must_use]
    pub fn of(&self, app: &str, epoch: u64) -> Option<TakeOver> {
        self.known.get(app).map(|(_, known)| known).filter(|known| known.epoch == epoch).cloned()
    }
}

fn begun(node: &str, acquired: &Acquired, now: Time, wall: Timestamp) -> TakeOver {
    let Acquired { epoch, granted, free, handed, t } = *acquired;
    // The first voter's grant ran out one T after the last renewal that it took; what P3 leaves of T is what its sender used of it.
    let renewal = free.filter(|_| !handed).map(|free| micros(granted, free) - i64::try_from(t.0 / 1_000).unwrap_or(i64::MAX));
    let hold = i64::try_from(Timing::default().hold(t).0 / 1_000).unwrap_or(i64::MAX);
    let since = SignedDuration::from_micros(micros(granted, now));
    TakeOver {
        node: node.to_owned(),
        epoch,
        cause: if handed { Cause::HandOver } else { Cause::First },
        granted_at: format!("{:.3}", wall.checked_sub(since).unwrap_or(wall)),
        last_renewal_us: renewal,
        deadline_us: renewal.map(|at| at + hold),
        free_us: free.map(|free| micros(granted, free)),
        ..TakeOver::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cluster_schemas::assignment::Role;
    use cluster_schemas::node::{ActiveRecord, VipObserved};
    use cluster_schemas::takeover::HISTORY_MAX;

    const MS: u64 = 1_000_000;

    fn observed(state: InstanceState, vip: bool, healthy: bool) -> AppObserved {
        let vip = Some(VipObserved { present: vip, ..VipObserved::default() });
        AppObserved { role: Role::Active, state, vip, healthy, leased: 7, epoch: 7, ..AppObserved::default() }
    }

    fn wall() -> Timestamp {
        "2026-11-23T12:00:00.500Z".parse().expect("a time")
    }

    #[test]
    fn each_step_is_told_once_and_the_former_holder_is_estimated() {
        let t = Span(350 * MS);
        let acquired = Acquired { epoch: 7, granted: Time(1_000 * MS), free: Some(Time(994 * MS)), handed: false, t };
        let mut all = TakeOvers::default();
        let mut look = |seen: AppObserved, at: u64| all.note("n2", "db", &seen, Some(&acquired), (Time(at * MS), wall()));
        look(observed(InstanceState::Starting, false, false), 1_001);
        look(observed(InstanceState::Starting, true, false), 1_004);
        look(observed(InstanceState::Running, true, true), 1_040);
        look(observed(InstanceState::Running, true, true), 9_000);
        let known = all.of("db", 7).expect("a take-over");
        assert_eq!((known.vip_us, known.unit_us, known.healthy_us), (Some(4_000), Some(40_000), Some(40_000)));
        assert_eq!((known.free_us, known.last_renewal_us), (Some(-6_000), Some(-356_000)));
        let hold = known.deadline_us.expect("an estimate") + 356_000;
        assert!((240_000..=250_000).contains(&hold), "T_hold of 350 ms: {hold}");
        assert_eq!((known.granted_at.as_str(), known.cause), ("2026-11-23T12:00:00.499Z", Cause::First));
        assert_eq!(all.of("db", 8), None);
    }

    #[test]
    fn a_hand_over_estimates_nothing_and_an_adopted_tenure_is_not_told() {
        let acquired = Acquired { epoch: 7, granted: Time(1_000 * MS), free: Some(Time(999 * MS)), handed: true, t: Span(350 * MS) };
        let mut all = TakeOvers::default();
        all.note("n2", "db", &observed(InstanceState::Running, true, true), Some(&acquired), (Time(1_003 * MS), wall()));
        let known = all.of("db", 7).expect("a take-over");
        assert_eq!((known.cause, known.last_renewal_us, known.free_us), (Cause::HandOver, None, Some(-1_000)));
        // The word of the former holder that comes after the grant.
        let late = Acquired { handed: false, epoch: 8, ..acquired };
        let seen = AppObserved { leased: 8, ..observed(InstanceState::Running, true, true) };
        all.note("n2", "db", &seen, Some(&late), (Time(1_003 * MS), wall()));
        assert!(all.of("db", 8).is_some_and(|t| t.cause == Cause::First && t.last_renewal_us.is_some()));
        let slot = app_slot("db").expect("a slot");
        all.heard(&LeaseView { acquired: BTreeMap::from([(slot, Acquired { handed: true, ..late })]), ..LeaseView::default() });
        assert!(all.of("db", 8).is_some_and(|t| t.cause == Cause::HandOver && t.last_renewal_us.is_none()));
        all.note("n2", "db", &observed(InstanceState::Running, true, true), None, (Time(1_004 * MS), wall()));
        assert_eq!(all.of("db", 7), None);
    }

    #[test]
    fn the_history_is_of_one_app_and_bounded() {
        let record = |node: &str, epoch: u64| ActiveRecord {
            uid: "u".to_owned(),
            node: node.to_owned(),
            epoch,
            takeover: Some(TakeOver { node: node.to_owned(), epoch, last_renewal_us: Some(-9), ..TakeOver::default() }),
            history: Vec::new(),
        };
        let mut last = record("n1", 1).first();
        assert_eq!(last.takeover.as_ref().and_then(|t| t.last_renewal_us), None, "nobody was before");
        for epoch in 2..40 {
            last = record("n2", epoch).after(&last);
        }
        assert_eq!((last.history.len(), last.history[0].epoch), (HISTORY_MAX, 38));
        let takeover = last.takeover.clone().expect("a take-over");
        assert_eq!((takeover.cause, takeover.from.map(|f| f.epoch)), (Cause::FailOver, Some(38)));
        // The same tenure told again, by an agent that adopted it, loses nothing.
        let again = ActiveRecord { takeover: None, ..record("n2", 39) }.after(&last);
        assert_eq!(again, last);
        assert_eq!(ActiveRecord { uid: "other".to_owned(), ..record("n2", 40) }.after(&last).history, []);
    }
}
