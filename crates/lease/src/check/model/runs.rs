//! The runs: what is explored in the tests, what only in the soak, and one run per planted fault.

use super::config::{Before, Config};
use crate::rules::Fault;

/// An epoch above what any voter reserves in a run (V7): with it a node's first attempt is not refused after a reboot.
const HIGH: u64 = 1 << 22;

/// One voter replaced by another, step by step: the smallest cluster in which two sets that follow each other but one do not meet.
fn replaced(name: &'static str) -> Config {
    let mut config = Config::new(name).limits(|limits| {
        limits.attempts = [1, 1];
        limits.renewals = [0, 0];
    });
    config.sets = vec![vec![0], vec![0, 1], vec![1]];
    config.prompt_changes = true;
    config
}

/// The same, with the slot held in set 1 and the first of the two changes done but for its wait.
fn under_way(name: &'static str) -> Config {
    let mut config = replaced(name);
    config.seen = [0, HIGH];
    config.before = vec![Before::Attempt(0), Before::Exchange(0, 0), Before::Change];
    config.before.extend([0, 1, 0, 0, 1, 0, 1].map(|voter| Before::Drive(0, voter)));
    config
}

/// The same, with the slot held in set 1 and lost, set 2 committed, and the second change begun. The other node has heard of nothing.
fn second_change(name: &'static str) -> Config {
    let mut config = replaced(name);
    config.before = vec![Before::Attempt(0), Before::Exchange(0, 0), Before::Change];
    config.before.extend([0, 1, 0, 0, 1].map(|voter| Before::Drive(0, voter)));
    config.before.extend([Before::Tick, Before::Tick, Before::Drive(0, 0), Before::Drive(0, 1), Before::Change]);
    config
}

/// One change, begun while the slot is held.
fn one_change(name: &'static str, from: Vec<usize>, next: Vec<usize>) -> Config {
    let mut config = replaced(name);
    config.seen = [0, HIGH];
    config.before = vec![Before::Attempt(0)];
    config.before.extend(from.iter().map(|voter| Before::Exchange(0, *voter)));
    config.before.extend([Before::Tick, Before::Change]);
    config.sets = vec![from, next];
    config
}

/// The same with a voter that joins right after its boot.
fn waiting(name: &'static str) -> Config {
    let mut config = one_change(name, vec![0], vec![0, 1]);
    config.joining_wait = true;
    config
}

/// A single voter: enough for what one voter can do wrong, and small.
fn single(name: &'static str) -> Config {
    let mut config = Config::new(name).limits(|limits| limits.renewals = [0, 0]);
    (config.seen, config.sets) = ([0, HIGH], vec![vec![0]]);
    config
}

fn two_tries(name: &'static str) -> Config {
    let mut config = Config::new(name).limits(|limits| limits.attempts = [2, 1]);
    config.seen = [0, HIGH];
    config
}

/// Runs for every test: each exhaustive, all together within a minute on two cores.
#[must_use]
pub fn small_runs() -> Vec<Config> {
    let informed = |name| {
        let mut config = Config::new(name);
        config.seen = [0, HIGH];
        config
    };
    let pair = |name| {
        let mut config = informed(name);
        config.sets = vec![vec![0, 1]];
        config
    };
    let fence = |name| {
        let mut config = pair(name);
        (config.t, config.max_t, config.fence, config.fence_takes) = (3, 3, 1, 1);
        config
    };
    let rival = || {
        let mut config = single("two next sets at once");
        config.sets = vec![vec![0], vec![0, 1]];
        config.rival = Some(vec![0, 2]);
        config.before = vec![Before::Change, Before::Rival];
        config.change_any_time = true;
        config.prompt_changes = true;
        config
    };
    vec![
        informed("plain").limits(|limits| limits.renewals = [0, 0]),
        pair("renewal"),
        single("refusals and release acks").limits(|limits| limits.attempts = [1, 2]).with_answers(),
        pair("voter reboot").limits(|limits| limits.reboots = 1),
        pair("voter reboot and restart").limits(|limits| (limits.reboots, limits.restarts, limits.renewals) = (1, 1, [0, 0])),
        pair("torn record").limits(|limits| limits.torn = 1),
        pair("release and hand-over").limits(|limits| (limits.releases, limits.renewals) = (1, [0, 0])),
        single("two attempts, release").limits(|limits| (limits.attempts, limits.renewals, limits.releases) = ([2, 1], [0, 0], 1)),
        pair("agent crash, adopted").limits(|limits| limits.crashes = 1),
        single("agent crash after two attempts").limits(|limits| (limits.attempts, limits.crashes) = ([3, 1], 1)),
        pair("early fence").limits(|limits| (limits.early_fences, limits.renewals) = (1, [0, 0])),
        pair("clocks at the bound").drifting(),
        fence("fence takes all of F"),
        one_change("fresh voter added", vec![0], vec![0, 1]).until(2),
        one_change("voter removed", vec![0, 1], vec![0]).until(2),
        second_change("voter replaced, nothing heard of"),
        {
            let mut config = second_change("voter replaced").until(3);
            config.seen = [0, HIGH];
            config
        },
        rival().until(1),
        waiting("waiting voter added").until(2),
    ]
}

/// Runs for the soak: larger, each exhausted or cut off at a number of states given there.
#[must_use]
pub fn large_runs() -> Vec<Config> {
    let both = |name: &'static str| {
        let mut config = Config::new(name).limits(|limits| (limits.attempts, limits.renewals) = ([2, 2], [0, 0]));
        config.seen = [0, HIGH];
        config
    };
    let long = |name| {
        let mut config = two_tries(name).limits(|limits| (limits.attempts, limits.long_renewals) = ([1, 1], 1));
        config.max_t = 3;
        config
    };
    let grown = |name, from: Vec<usize>, next: Vec<usize>| {
        let mut config = Config::new(name).limits(|limits| (limits.attempts, limits.renewals) = ([1, 1], [0, 0]));
        (config.seen, config.sets) = ([0, HIGH], vec![from, next]);
        config
    };
    vec![
        two_tries("three voters, release").limits(|limits| (limits.attempts, limits.renewals, limits.releases) = ([1, 1], [0, 0], 1)),
        two_tries("three voters, early fence")
            .limits(|limits| (limits.attempts, limits.renewals, limits.early_fences) = ([1, 1], [0, 0], 1)),
        both("two attempts each"),
        two_tries("three voters, renewal").limits(|limits| limits.attempts = [1, 1]),
        two_tries("three voters, reboot").limits(|limits| (limits.attempts, limits.reboots) = ([1, 1], 1)),
        two_tries("three voters, torn record").limits(|limits| (limits.attempts, limits.torn) = ([1, 1], 1)),
        two_tries("three voters, restart").limits(|limits| (limits.attempts, limits.restarts) = ([1, 1], 1)),
        two_tries("three voters, agent crash").limits(|limits| (limits.attempts, limits.crashes) = ([1, 1], 1)),
        two_tries("three voters, clocks at the bound").limits(|limits| limits.attempts = [1, 1]).drifting(),
        two_tries("release, reboot")
            .limits(|limits| (limits.attempts, limits.renewals, limits.releases, limits.reboots) = ([1, 1], [0, 0], 1, 1)),
        two_tries("two attempts, release").limits(|limits| (limits.renewals, limits.releases) = ([0, 0], 1)),
        two_tries("two attempts, renewal"),
        two_tries("two attempts, crash").limits(|limits| (limits.renewals, limits.crashes) = ([0, 0], 1)),
        two_tries("two renewals").limits(|limits| (limits.attempts, limits.renewals) = ([1, 1], [2, 0])),
        two_tries("two voter reboots").limits(|limits| (limits.attempts, limits.renewals, limits.reboots) = ([1, 1], [0, 0], 2)),
        two_tries("reboot and process restart")
            .limits(|limits| (limits.attempts, limits.renewals, limits.reboots, limits.restarts) = ([1, 1], [0, 0], 1, 1)),
        two_tries("clocks at the bound, two attempts").limits(|limits| limits.renewals = [0, 0]).drifting(),
        long("planned restart of an agent").limits(|limits| (limits.renewals, limits.crashes) = ([0, 0], 1)),
        under_way("voter replaced, fresh one at once"),
        under_way("voter replaced, renewal").limits(|limits| limits.renewals = [1, 0]),
        one_change("fresh voter added, renewal", vec![0], vec![0, 1]).limits(|limits| limits.renewals = [1, 0]),
        one_change("voter removed, renewal", vec![0, 1], vec![0]).limits(|limits| limits.renewals = [1, 0]),
        one_change("fresh voter added, four ticks", vec![0], vec![0, 1]).until(4),
        one_change("voter removed, four ticks", vec![0, 1], vec![0]).until(4),
        replaced("voter replaced, renewals").limits(|limits| limits.renewals = [1, 0]),
        replaced("voter replaced, reboot").limits(|limits| limits.reboots = 1),
        replaced("voter replaced, release").limits(|limits| limits.releases = 1),
        grown("two voters to three", vec![0, 1], vec![0, 1, 2]),
        grown("three voters to two", vec![0, 1, 2], vec![0, 1]),
        grown("three voters to four", vec![0, 1, 2], vec![0, 1, 2, 3]),
        two_tries("everything").limits(|limits| {
            (limits.attempts, limits.renewals) = ([2, 2], [2, 1]);
            (limits.releases, limits.reboots, limits.restarts, limits.torn) = (1, 1, 1, 1);
            (limits.crashes, limits.early_fences) = (1, 1);
        }),
    ]
}

/// A fault, the rule it leaves out, and the run that finds it.
#[must_use]
pub fn fault_runs() -> Vec<(&'static str, Config)> {
    let plain = |name| {
        let mut config = Config::new(name).limits(|limits| limits.renewals = [0, 0]);
        config.seen = [0, HIGH];
        config
    };
    // Held by two of the three voters, and the other node has asked a tick later.
    let held = |name| {
        let mut config = plain(name);
        config.before = vec![Before::Attempt(0), Before::Exchange(0, 0), Before::Exchange(0, 1), Before::Tick, Before::Attempt(1)];
        config
    };
    let planted = |rule, config: Config, fault| (rule, config.with(fault));
    let too_slow = {
        let mut config = plain("clock rate beyond r").drifting();
        config.node_speed = [7, 9];
        config
    };
    let fence_late = {
        let mut config = plain("fence longer than F");
        (config.t, config.max_t, config.fence, config.fence_takes) = (3, 3, 1, 2);
        config
    };
    // Held in set 1, renewed in it although set 2 is installed, and set 2 committed after its wait.
    let old_set = {
        let mut config = replaced("old set still answered").limits(|limits| limits.renewals = [1, 0]);
        config.seen = [0, HIGH];
        config.before = vec![Before::Attempt(0), Before::Exchange(0, 0), Before::Change];
        config.before.extend([0, 1, 0, 0, 1].map(|voter| Before::Drive(0, voter)));
        config.before.extend([Before::Tick, Before::Renew(0), Before::Exchange(0, 0), Before::Tick]);
        config.before.extend([Before::Drive(0, 0), Before::Drive(0, 1)]);
        config
    };
    let unprepared = {
        let mut config = Config::new("install unprepared").limits(|limits| (limits.attempts, limits.renewals) = ([1, 1], [0, 0]));
        config.prompt_changes = true;
        config.sets = vec![vec![0, 1], vec![0, 1, 2]];
        config.rival = Some(vec![0, 1, 3]);
        config.before = vec![Before::Change, Before::Rival];
        config.before.extend([(0, 2), (1, 3), (0, 0), (1, 1)].map(|(driver, voter)| Before::Drive(driver, voter)));
        config.before.extend([Before::Learn(0), Before::Learn(1), Before::Attempt(0), Before::Attempt(1)]);
        config
    };
    // Two voters agreed to the one set in the first round, and are asked for the other one in the next.
    let reopened = {
        let mut config = unprepared.clone();
        config.name = "round asked for too early";
        config.before = vec![Before::Change, Before::Rival];
        config
            .before
            .extend([(0, 0), (0, 1), (0, 2), (1, 0), (1, 0), (1, 1), (1, 3), (0, 0), (1, 1)].map(|(d, voter)| Before::Drive(d, voter)));
        config.before.extend([Before::Learn(0), Before::Learn(1), Before::Attempt(0), Before::Attempt(1)]);
        config
    };
    let bit = {
        let mut config = two_tries("bit without its epoch");
        config.before = vec![
            Before::Attempt(0),
            Before::Exchange(0, 0),
            Before::Exchange(0, 1),
            Before::Tick,
            Before::Tick,
            Before::Stopped(0),
            Before::Attempt(0),
            Before::Exchange(0, 0),
            Before::Exchange(0, 2),
            Before::Tick,
            Before::Renew(0),
        ];
        config
    };
    vec![
        planted("V6", single("no restart wait").limits(|l| l.reboots = 1), Fault::NoRestartWait),
        planted("V6", held("renewal accepted in the wait").limits(|l| (l.reboots, l.renewals) = (1, [1, 0])), Fault::RenewDuringWait),
        planted("V6", single("wait forgotten by a process restart").limits(|l| (l.reboots, l.restarts) = (1, 1)), Fault::WaitForgotten),
        planted("V6", plain("torn record ignored").limits(|l| l.torn = 1), Fault::TornRecordIgnored),
        planted("V7", Config::new("floor forgotten").limits(|l| (l.reboots, l.renewals) = (1, [0, 0])), Fault::FloorForgotten),
        planted("V1", plain("higher epoch overrides"), Fault::HigherEpochOverrides),
        planted("V1", single("successor skips V1").limits(|l| (l.attempts, l.releases) = ([2, 1], 1)), Fault::SuccessorSkipsV1),
        planted("V2", plain("refusal raises the floor"), Fault::RefusalRaisesFloor),
        planted("V3", single("another life's grant replaced").limits(|l| (l.attempts, l.crashes) = ([3, 1], 1)), Fault::OtherLifeReplaces),
        planted("V4", bit, Fault::BitWithoutEpoch),
        planted("V5", single("release matched by node only").limits(|l| (l.attempts, l.releases) = ([2, 1], 1)), Fault::ReleaseByNodeOnly),
        planted(
            "V5",
            single("release matched without instance").limits(|l| (l.attempts, l.crashes) = ([2, 1], 1)),
            Fault::ReleaseIgnoresInstance,
        ),
        planted("P3", plain("timer from the answer"), Fault::TimerFromAnswer),
        planted("P1", single("ack without send number").limits(|l| l.renewals = [2, 0]), Fault::AckWithoutSendNo),
        planted("P2", plain("epoch reused after restart").limits(|l| (l.attempts, l.crashes) = ([2, 0], 1)), Fault::EpochReused),
        planted("P3", plain("dead tenure revived").limits(|l| l.renewals = [1, 0]), Fault::DeadTenureRevived),
        planted("P3", plain("clock rates ignored").drifting(), Fault::DriftIgnored),
        planted("P4", Config::new("renewal counts as acquisition"), Fault::RenewCountsAsAcquire),
        planted("P5", plain("release before stop").limits(|l| l.releases = 1), Fault::ReleaseBeforeStop),
        planted("F2", plain("agent extends a fenced word").limits(|l| l.renewals = [1, 0]), Fault::FencedExtended),
        planted("B5.3", under_way("next set without wait"), Fault::NextSetWithoutWait),
        planted("B5.2", old_set, Fault::OldSetAnswered),
        planted("B5.3", second_change("floors not carried over"), Fault::FloorNotCarried),
        planted("B5.3", unprepared, Fault::InstallUnprepared),
        planted("B5.3", reopened, Fault::RoundNotSplit),
        planted("B5.3", waiting("joined while waiting"), Fault::JoinedWhileWaiting),
        ("K", too_slow),
        ("F3", fence_late),
    ]
}
