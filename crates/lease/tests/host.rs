//! What a host relies on, step by step: single schedules on the real types.

#![expect(clippy::unwrap_used, reason = "names and sets written down here are good")]

use cluster_lease::change::{RESEND, SetChange, Stage};
use cluster_lease::holder::{Action, Candidacy, Event, Holder, HolderConfig, Phase};
use cluster_lease::message::{Answer, Message, Verdict, Why};
use cluster_lease::set::{Member, VoterSet};
use cluster_lease::slots::{Claims, SlotSet};
use cluster_lease::time::{MAX_T, Span, Time};
use cluster_lease::types::{BootId, ClusterId, Epoch, Instance, Node, NodeName, SetNo, Slot, SlotName, VoterId};
use cluster_lease::voter::{Journal, LOCKS_MAX, Voter, VoterAction, VoterConfig};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const CLUSTER: ClusterId = ClusterId(3);
const T: Span = Span::from_millis(350);

fn ms(millis: u64) -> Time {
    Time(millis * 1_000_000)
}

fn node(name: &str) -> Node {
    Node { boot: BootId(1), name: NodeName::new(name).unwrap() }
}

fn set() -> VoterSet {
    VoterSet::new(SetNo(1), vec![Member { id: VoterId(1), node: node("v").name }]).unwrap()
}

fn holder(name: &str, instance: u64) -> Holder {
    Holder::new(HolderConfig::new(CLUSTER, node(name), Instance(instance)), set())
}

fn voter() -> Voter {
    Voter::start(VoterConfig::new(CLUSTER, node("v")), Time(0), Journal::new(VoterId(1), Some(set())), None).0
}

fn slot() -> Slot {
    "app/database".parse().unwrap()
}

fn step(holder: &mut Holder, now: Time, event: Event) -> Vec<Action> {
    let mut actions = Vec::new();
    holder.handle(now, Span::ZERO, event, &mut actions);
    actions
}

/// Delivers what the holder sends to the voter and the answers back; returns the other actions.
fn talk(holder: &mut Holder, voter: &mut Voter, now: Time, event: Event) -> Vec<Action> {
    let mut done = Vec::new();
    let mut todo = step(holder, now, event);
    while !todo.is_empty() {
        let action = todo.remove(0);
        let Action::Send(_, message) = action else {
            done.push(action);
            continue;
        };
        let mut answers = Vec::new();
        voter.handle(now, &message, &mut answers);
        for answer in answers {
            if let VoterAction::Send(_, message) = answer {
                todo.extend(step(holder, now, Event::Message(message)));
            }
        }
    }
    done
}

#[test]
fn acquire_renew_release() {
    let (mut a, mut voter) = (holder("a", 1), voter());
    let done = talk(&mut a, &mut voter, ms(0), Event::Acquire { slot: slot(), t: T });
    let Some(Action::Arm { tenure, deadline, .. }) = done.first() else { panic!("{done:?}") };
    assert_eq!((tenure.epoch, *deadline), (Epoch(1), Time(249_300_000)));
    // The next renewal is due after T/6 and moves the deadline by as much.
    let due = a.next_wake().unwrap();
    assert_eq!(due, Time(T.0 / 6));
    let done = talk(&mut a, &mut voter, due, Event::Tick);
    assert_eq!(done, vec![Action::Extend { slot: slot(), epoch: Epoch(1), deadline: Time(249_300_000 + due.0) }]);
    // P5: asked to release, it sends nothing but renewals until it has stopped; then the word goes first.
    let actions = step(&mut a, ms(100), Event::Release { slot: slot(), successor: Some(node("b").name) });
    assert_eq!(actions, vec![]);
    let actions = step(&mut a, ms(120), Event::Stopped { slot: slot(), epoch: Epoch(1) });
    assert_eq!(actions[0], Action::Disarm { slot: slot(), epoch: Epoch(1) });
    let Action::Send(_, release @ Message::Release(_)) = &actions[1] else { panic!("{actions:?}") };
    // The successor hears of it when the voters acked.
    let mut answers = Vec::new();
    voter.handle(ms(121), release, &mut answers);
    let Some(VoterAction::Send(_, ack)) = answers.pop() else { panic!() };
    let actions = step(&mut a, ms(122), Event::Message(ack));
    assert_eq!(actions[0], Action::Released { slot: slot(), epoch: Epoch(1) });
    assert!(matches!(&actions[1], Action::Send(to, Message::Handover(_)) if *to == node("b").name));
    let mut b = holder("b", 1);
    let done = talk(&mut b, &mut voter, ms(123), Event::Acquire { slot: slot(), t: T });
    assert!(matches!(done[0], Action::Failed { .. }), "B has not heard of epoch 1: {done:?}");
    let done = talk(&mut b, &mut voter, ms(124), Event::Acquire { slot: slot(), t: T });
    assert!(matches!(&done[0], Action::Arm { tenure, .. } if tenure.epoch == Epoch(2)), "{done:?}");
}

#[test]
fn p3_a_dead_tenure_is_noticed_before_anything_else() {
    let (mut a, mut voter) = (holder("a", 1), voter());
    talk(&mut a, &mut voter, ms(0), Event::Acquire { slot: slot(), t: T });
    let renewals = step(&mut a, ms(200), Event::RenewNow);
    let Some(Action::Send(_, renew)) = renewals.first() else { panic!("{renewals:?}") };
    let mut answers = Vec::new();
    voter.handle(ms(201), renew, &mut answers);
    let Some(VoterAction::Send(_, ack)) = answers.pop() else { panic!() };
    // The ack of a send at 200 ms would be good until 449 ms, but the deadline of 249 ms has passed.
    let actions = step(&mut a, ms(250), Event::Message(ack));
    assert_eq!(actions, vec![Action::Lost { slot: slot(), epoch: Epoch(1) }]);
    assert_eq!(step(&mut a, ms(260), Event::RenewNow), vec![], "P5: nothing but Release from now on");
}

#[test]
fn p6_an_armed_tenure_goes_on_in_the_same_epoch() {
    let (mut old, mut voter) = (holder("a", 1), voter());
    talk(&mut old, &mut voter, ms(0), Event::Acquire { slot: slot(), t: T });
    let mut new = holder("a", 2);
    let adopt = Event::Adopt { slot: slot(), t: T, epoch: Epoch(1), deadline: Time(249_300_000) };
    assert_eq!(step(&mut new, ms(200), adopt), vec![]);
    assert_eq!(new.next_wake(), Some(ms(200)), "renewed at once, with whatever else is adopted");
    let done = talk(&mut new, &mut voter, ms(200), Event::Tick);
    assert_eq!(done, vec![Action::Extend { slot: slot(), epoch: Epoch(1), deadline: Time(449_300_000) }]);
}

/// Found by the simulation: the agent is back after the deadline, and the unit is just being killed.
#[test]
fn p6_what_still_runs_is_not_asked_for_again() {
    let mut new = holder("a", 2);
    let adopt = Event::Adopt { slot: slot(), t: T, epoch: Epoch(1), deadline: Time(249_300_000) };
    assert_eq!(step(&mut new, ms(260), adopt), vec![Action::Lost { slot: slot(), epoch: Epoch(1) }]);
    assert_eq!(step(&mut new, ms(261), Event::Acquire { slot: slot(), t: T }), vec![]);
    assert!(matches!(new.phase(&slot()), Some(Phase::Ended { .. })));
    let actions = step(&mut new, ms(270), Event::Stopped { slot: slot(), epoch: Epoch(1) });
    assert_eq!(actions[0], Action::Disarm { slot: slot(), epoch: Epoch(1) });
    let actions = step(&mut new, ms(271), Event::Acquire { slot: slot(), t: T });
    assert!(matches!(&actions[0], Action::Send(_, Message::Acquire(_))), "{actions:?}");
}

/// P6, planned: the longest T is asked for, so that the next life has seconds.
#[test]
fn p6_a_planned_restart_has_time() {
    let (mut a, mut voter) = (holder("a", 1), voter());
    talk(&mut a, &mut voter, ms(0), Event::Acquire { slot: slot(), t: T });
    let done = talk(&mut a, &mut voter, ms(10), Event::RenewLong);
    assert_eq!(done, vec![Action::Extend { slot: slot(), epoch: Epoch(1), deadline: ms(10 + 4_890) }]);
}

#[test]
fn a_withdrawn_attempt_starts_nothing() {
    let (mut a, mut voter) = (holder("a", 1), voter());
    let asks = step(&mut a, ms(0), Event::Acquire { slot: slot(), t: T });
    let Some(Action::Send(_, acquire)) = asks.first() else { panic!("{asks:?}") };
    let mut answers = Vec::new();
    voter.handle(ms(1), acquire, &mut answers);
    step(&mut a, ms(2), Event::Withdraw(slot()));
    let Some(VoterAction::Send(_, ack)) = answers.pop() else { panic!() };
    let actions = step(&mut a, ms(3), Event::Message(ack));
    assert!(!actions.iter().any(|action| matches!(action, Action::Arm { .. })), "{actions:?}");
}

/// P7: a candidate that its policy keeps back while it is not ready does not go on with an attempt, nor retries.
#[test]
fn p7_who_may_not_go_gives_its_attempt_up() {
    let mut a = holder("a", 1);
    let candidacy = |ready| Candidacy { order: Arc::from([node("a").name]), ready, unready_may_go: false };
    let candidate = |ready| Event::Candidate { slot: slot(), t: T, candidacy: candidacy(ready) };
    step(&mut a, ms(0), candidate(true));
    let asks = step(&mut a, ms(1), Event::Acquire { slot: slot(), t: T });
    assert!(matches!(&asks[0], Action::Send(_, Message::Acquire(_))), "{asks:?}");
    let actions = step(&mut a, ms(2), candidate(false));
    assert!(matches!(&actions[..], [Action::Failed { .. }, Action::Send(_, Message::Release(_))]), "{actions:?}");
    for later in (3..2_000).step_by(10) {
        let actions = step(&mut a, ms(later), Event::Tick);
        assert!(!actions.iter().any(|action| matches!(action, Action::Send(_, Message::Acquire(_)))), "{actions:?}");
    }
}

/// Found by the simulation: one voter is dead, another refuses the epoch. Those that acked must not be blocked for all of T_hold.
#[test]
fn p2_an_attempt_with_an_outdated_epoch_is_soon_a_new_one() {
    let members = ["u", "v", "w"].iter().zip(1..).map(|(name, id)| Member { id: VoterId(id), node: node(name).name });
    let set = VoterSet::new(SetNo(1), members.collect()).unwrap();
    let mut a = Holder::new(HolderConfig::new(CLUSTER, node("a"), Instance(1)), set);
    let candidacy = Candidacy { order: Arc::from([node("a").name]), ready: true, unready_may_go: false };
    step(&mut a, ms(0), Event::Candidate { slot: slot(), t: T, candidacy });
    let asks = step(&mut a, ms(1), Event::Acquire { slot: slot(), t: T });
    let accepted = SlotSet { named: [SlotName::new("app/database").unwrap()].into(), ..SlotSet::default() };
    for action in asks {
        let Action::Send(_, Message::Acquire(ask)) = action else { continue };
        let verdict = match ask.voter {
            VoterId(1) => Verdict::Slots { accepted: accepted.clone(), refused: vec![] },
            VoterId(2) => Verdict::Slots { accepted: SlotSet::default(), refused: vec![(Why::Epoch(Epoch(9)), accepted.clone())] },
            _ => continue,
        };
        let (cluster, from, voter) = (CLUSTER, node("u").name, ask.voter);
        let answer = Answer { cluster, from, voter, set: SetNo(1), send_no: ask.send_no, verdict };
        step(&mut a, ms(2), Event::Message(Message::Answer(answer)));
    }
    let mut again = None;
    while let Some(now) = a.next_wake().filter(|now| again.is_none() && *now < ms(200)) {
        let actions = step(&mut a, now, Event::Tick);
        again = actions.iter().find_map(|action| match action {
            Action::Send(_, Message::Acquire(ask)) => Some((now, ask.claims.iter().next().unwrap().1)),
            _ => None,
        });
    }
    let (when, epoch) = again.unwrap();
    assert!(epoch == Epoch(10) && when <= ms(25), "epoch {epoch} after {when:?}");
}

/// A thousand partitions that met no majority at a thousand different times soon ask together.
#[test]
fn slots_without_a_majority_share_their_messages() {
    let mut a = holder("a", 1);
    let partition = |partition| Slot::Ring { ring: SlotName::new("cache").unwrap(), partition };
    let candidacy = Candidacy { order: Arc::from([node("a").name]), ready: true, unready_may_go: false };
    for i in 0..1_000 {
        let now = Time(u64::from(i) * 250_000);
        step(&mut a, now, Event::Candidate { slot: partition(i), t: T, candidacy: candidacy.clone() });
        step(&mut a, now, Event::Acquire { slot: partition(i), t: T });
    }
    let mut asks = 0;
    while let Some(now) = a.next_wake().filter(|now| *now < ms(3_000)) {
        let mut actions = Vec::new();
        a.handle(now, Span(now.0 % 5_000_000), Event::Tick, &mut actions);
        let sent = actions.iter().filter(|action| matches!(action, Action::Send(_, Message::Acquire(_) | Message::Release(_))));
        asks += if now < ms(2_000) { 0 } else { sent.count() };
    }
    // 2.5 ms is an eighth of a stagger: 400 points in that second, at each an Acquire and a Release at most.
    assert!((1..=800).contains(&asks), "{asks} messages to one voter in one second");
}

/// Rule V6: what the voter says it stored is all that its answers rest on.
#[test]
fn v6_every_change_is_stored_before_its_answer() {
    let (mut a, mut voter) = (holder("a", 1), voter());
    for (now, event) in [(0, Event::Acquire { slot: slot(), t: T }), (50, Event::RenewNow)] {
        for action in step(&mut a, ms(now), event) {
            let Action::Send(_, message) = action else { continue };
            let mut actions = Vec::new();
            voter.handle(ms(now + 1), &message, &mut actions);
            let stored = actions.iter().position(|a| matches!(a, VoterAction::Store(slots) if slots.contains(&slot())));
            let sent = actions.iter().position(|a| matches!(a, VoterAction::Send(..)));
            assert!(stored.is_some() && stored < sent, "{actions:?}");
            for action in actions {
                if let VoterAction::Send(_, answer) = action {
                    step(&mut a, ms(now + 2), Event::Message(answer));
                }
            }
        }
    }
}

/// P5, P7: who let go for another leaves it the time to ask, whatever it planned or heard before; then it asks again as anybody.
#[test]
fn p7_a_former_holder_leaves_its_successor_the_time_to_ask() {
    let (mut a, mut voter) = (holder("a", 1), voter());
    let order: Arc<[NodeName]> = Arc::from([node("a").name, node("b").name]);
    let candidate = |order: &Arc<[NodeName]>| Event::Candidate {
        slot: slot(),
        t: T,
        candidacy: Candidacy { order: order.clone(), ready: true, unready_may_go: true },
    };
    talk(&mut a, &mut voter, ms(0), Event::Acquire { slot: slot(), t: T });
    // A voter that was slow says during the tenure that the slot was free, and the assignment is told again: both plan an attempt.
    let free = |floor: u64| {
        let mut floors = Claims::default();
        floors.insert(&slot(), Epoch(floor));
        Event::Message(Message::Free(cluster_lease::message::Free {
            cluster: CLUSTER,
            from: node("v").name,
            voter: VoterId(1),
            floors,
            ran_out: None,
        }))
    };
    talk(&mut a, &mut voter, ms(10), free(0));
    talk(&mut a, &mut voter, ms(11), candidate(&order));
    talk(&mut a, &mut voter, ms(20), Event::Release { slot: slot(), successor: Some(node("b").name) });
    talk(&mut a, &mut voter, ms(40), Event::Stopped { slot: slot(), epoch: Epoch(1) });
    talk(&mut a, &mut voter, ms(41), free(1));
    let asks = |actions: &[Action]| actions.iter().any(|a| matches!(a, Action::Send(_, Message::Acquire(_)) | Action::Arm { .. }));
    for at in (42..180).step_by(2) {
        let done = talk(&mut a, &mut voter, ms(at), Event::Tick);
        assert!(!asks(&done), "it asks again after {} ms: {done:?}", at - 40);
    }
    // Nobody came: the slot is not left alone.
    let done = talk(&mut a, &mut voter, ms(190), Event::Tick);
    assert!(asks(&done), "{done:?}");
}

/// P7: when the first candidate's lease ran out, the second asks at once and the third a stagger later; after a release all wait for the first.
/// An attempt that was lost against a holder long ago makes nobody slower.
#[test]
fn p7_the_next_asks_at_once_when_the_firsts_lease_ran_out() {
    let order: Arc<[NodeName]> = Arc::from(["a", "b", "c"].map(|name| node(name).name));
    let candidate =
        || Event::Candidate { slot: slot(), t: T, candidacy: Candidacy { order: order.clone(), ready: true, unready_may_go: false } };
    let first_ask = |name: &str, released: bool| {
        let (mut a, mut one, mut voter) = (holder("a", 1), holder(name, 2), voter());
        // It asks when the slot is taken, and loses.
        talk(&mut a, &mut voter, ms(0), Event::Acquire { slot: slot(), t: T });
        talk(&mut one, &mut voter, ms(1), candidate());
        talk(&mut one, &mut voter, ms(1), Event::Acquire { slot: slot(), t: T });
        for at in (10..2_000).step_by(10) {
            talk(&mut a, &mut voter, ms(at), Event::RenewNow);
        }
        if released {
            talk(&mut a, &mut voter, ms(2_000), Event::Release { slot: slot(), successor: None });
            talk(&mut a, &mut voter, ms(2_000), Event::Stopped { slot: slot(), epoch: Epoch(1) });
        }
        let watch = cluster_lease::message::Watch {
            cluster: CLUSTER,
            voter: VoterId(1),
            node: node(name).name,
            part: 0,
            slots: {
                let mut slots = SlotSet::default();
                slots.insert(&slot());
                slots
            },
        };
        let free_at = if released { 2_000 } else { 1_990 + 350 };
        let mut told = Vec::new();
        voter.handle(ms(free_at), &Message::Watch(watch), &mut told);
        let Some(VoterAction::Send(_, free)) = told.into_iter().next() else { panic!("the voter says nothing") };
        let mut done = Vec::new();
        one.handle(ms(free_at), Span::from_millis(4), Event::Message(free), &mut done);
        let asks = |done: &[Action]| done.iter().any(|a| matches!(a, Action::Send(_, Message::Acquire(_))));
        (0..100).find(|after| {
            if *after > 0 {
                one.handle(ms(free_at + after), Span::from_millis(4), Event::Tick, &mut done);
            }
            asks(&done)
        })
    };
    assert_eq!(first_ask("b", false), Some(0));
    assert!(first_ask("c", false).is_some_and(|after| (20..30).contains(&after)), "{:?}", first_ask("c", false));
    assert!(first_ask("b", true).is_some_and(|after| (20..30).contains(&after)), "{:?}", first_ask("b", true));
}

/// A node boots and becomes the second of two voters, which both have to ack: the first one goes on alone until the second one answers, or every
/// lease would run out.
#[test]
fn b5_a_second_voter_that_waits_after_its_boot_is_not_counted_on_yet() {
    let second = Member { id: VoterId(2), node: node("w").name };
    let both = VoterSet::new(SetNo(2), vec![set().members()[0].clone(), second]).unwrap();
    let booted = Journal { may_have_acked: true, ..Journal::new(VoterId(2), None) };
    let mut voters = [voter(), Voter::start(VoterConfig::new(CLUSTER, node("w")), ms(0), booted, None).0];
    let mut change = SetChange::new(CLUSTER, node("v").name, set(), both.clone()).unwrap();
    let mut now = ms(1);
    let mut left_at = None;
    while change.stage() != Stage::Committed && now < ms(20_000) {
        let mut todo = change.handle(now, None);
        while let Some((to, message)) = todo.pop() {
            let mut actions = Vec::new();
            voters[usize::from(to == node("w").name)].handle(now, &message, &mut actions);
            for action in actions {
                if let VoterAction::Send(_, Message::SetAnswer(answer)) = action {
                    todo.extend(change.handle(now, Some(&answer)));
                }
            }
        }
        if left_at.is_none() && voters[0].journal().set.as_ref() == Some(&both) {
            left_at = Some(now);
            assert_eq!(voters[1].waiting(now), None, "the first voter left its set for one in which no majority answers");
        }
        now = now + RESEND;
    }
    assert_eq!(change.stage(), Stage::Committed);
    let left_at = left_at.unwrap();
    assert!((ms(5_000)..ms(5_300)).contains(&left_at), "{left_at:?}");
    assert!(now < left_at + MAX_T + RESEND.times(5), "{now:?}");
}

/// Two voters each gave their word to another third one, so that no majority can come of it: asked again, they say the same. (They stood
/// still for ever: the word of a voter was final.)
#[test]
fn b5_a_split_between_two_voters_is_settled_in_the_next_round() {
    let member = |n: u128, name: &str| Member { id: VoterId(n), node: node(name).name };
    let from = VoterSet::new(SetNo(1), vec![member(1, "v"), member(2, "w")]).unwrap();
    let grown = |n, name: &str| VoterSet::new(SetNo(2), from.members().iter().cloned().chain([member(n, name)]).collect()).unwrap();
    let sets = [grown(4, "y"), grown(3, "x")];
    let start = |n: u128, name: &str, set: Option<VoterSet>| {
        Voter::start(VoterConfig::new(CLUSTER, node(name)), ms(0), Journal::new(VoterId(n), set), None).0
    };
    let mut voters = BTreeMap::from([
        ("v", start(1, "v", Some(from.clone()))),
        ("w", start(2, "w", Some(from.clone()))),
        ("x", start(3, "x", None)),
        ("y", start(4, "y", None)),
    ]);
    let mut drivers = sets.clone().map(|next| SetChange::new(CLUSTER, node("v").name, from.clone(), next).unwrap());
    let ask = |voters: &mut BTreeMap<&str, Voter>, now, to: &str, message: &Message| {
        let mut actions = Vec::new();
        voters.get_mut(to).unwrap().handle(now, message, &mut actions);
        let answers = actions.into_iter().filter_map(|action| match action {
            VoterAction::Send(_, Message::SetAnswer(answer)) => Some(answer),
            _ => None,
        });
        answers.collect::<Vec<_>>()
    };
    // The first driver reaches the one voter only, the second one the other.
    for (driver, reached) in drivers.iter_mut().zip(["v", "w"]) {
        for (to, message) in driver.handle(ms(1), None) {
            if to.as_str() == reached {
                for answer in ask(&mut voters, ms(1), reached, &message) {
                    driver.handle(ms(1), Some(&answer));
                }
            }
        }
    }
    let words: Vec<_> = ["v", "w"].iter().map(|name| voters[name].journal().prepared.clone().unwrap().set).collect();
    assert_eq!(words, sets, "split");
    let mut now = ms(200);
    while drivers.iter().any(|driver| driver.stage() != Stage::Committed) && now < ms(60_000) {
        for driver in &mut drivers {
            let mut todo = driver.handle(now, None);
            while let Some((to, message)) = todo.pop() {
                for answer in ask(&mut voters, now, to.as_str(), &message) {
                    todo.extend(driver.handle(now, Some(&answer)));
                }
            }
        }
        now = now + RESEND;
    }
    let installed: BTreeSet<_> = ["v", "w"].iter().map(|name| voters[name].journal().set.clone().unwrap()).collect();
    assert_eq!(installed.into_iter().collect::<Vec<_>>(), [sets[1].clone()], "one set, the first in order");
    assert!(drivers.iter().all(|driver| driver.stage() == Stage::Committed), "{:?}", drivers.map(|driver| driver.stage()));
}

/// Applications make up the names of locks: those that are free are forgotten, and no token comes twice.
#[test]
fn v3_free_locks_are_forgotten_and_their_epochs_stay_used() {
    let (mut holder, mut voter) = (holder("a", 1), voter());
    let lock = |n: usize| -> Slot { format!("lock/jobs/n{n}").parse().unwrap() };
    let turn = |holder: &mut Holder, voter: &mut Voter, n: usize| {
        let now = ms(1_000 + n as u64);
        let actions = talk(holder, voter, now, Event::Acquire { slot: lock(n), t: Span::from_millis(350) });
        let armed = actions.iter().find_map(|action| match action {
            Action::Arm { tenure, .. } => Some(tenure.epoch),
            _ => None,
        });
        if let Some(epoch) = armed {
            talk(holder, voter, now, Event::Release { slot: lock(n), successor: None });
            talk(holder, voter, now, Event::Stopped { slot: lock(n), epoch });
        }
        armed
    };
    let first = turn(&mut holder, &mut voter, 0).expect("a free lock");
    let mut most = 0;
    for n in 1..3 * LOCKS_MAX {
        assert!(turn(&mut holder, &mut voter, n).is_some(), "lock {n}");
        most = most.max(voter.records().count());
    }
    assert!(most <= LOCKS_MAX, "{most} records");
    // Another agent knows nothing of these epochs: it is told, and gets a higher one.
    let mut other = self::holder("b", 2);
    assert_eq!(turn(&mut other, &mut voter, 0), None, "its own first epoch is refused");
    let again = (1..9).find_map(|_| turn(&mut other, &mut voter, 0)).expect("the lock");
    assert!(again > first, "{again} after {first}");
}
