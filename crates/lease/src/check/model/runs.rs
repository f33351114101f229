//! The runs: what is explored in the tests, what only in the soak, and one run per planted fault.

use super::config::Config;
use crate::rules::Fault;

/// One voter replaced by another, step by step: the smallest cluster in which two sets that follow each other but one do not meet.
fn replaced(name: &'static str) -> Config {
    let mut config = Config::new(name).limits(|limits| {
        limits.attempts = [1, 2];
        limits.renewals = [0, 0];
    });
    config.sets = vec![vec![0], vec![0, 1], vec![1]];
    config
}

fn two_tries(name: &'static str) -> Config {
    let mut config = Config::new(name).limits(|limits| limits.attempts = [2, 1]);
    config.seen = [0, 4];
    config
}

/// Runs for every test: each exhaustive, all together within a minute on two cores.
#[must_use]
pub fn small_runs() -> Vec<Config> {
    let informed = |name| {
        let mut config = Config::new(name);
        config.seen = [0, 4];
        config
    };
    let fence = |name| {
        let mut config = informed(name);
        (config.t, config.max_t, config.fence, config.fence_takes) = (3, 3, 1, 1);
        config
    };
    let rival = || {
        let mut config = Config::new("two next sets at once").limits(|limits| {
            limits.attempts = [1, 1];
            limits.renewals = [0, 0];
        });
        config.sets = vec![vec![0], vec![0, 1]];
        config.rival = Some(vec![0, 2]);
        config.change_any_time = true;
        config
    };
    vec![
        informed("plain"),
        informed("voter reboot").limits(|limits| (limits.reboots, limits.renewals) = (1, [0, 0])),
        informed("voter restart").limits(|limits| limits.restarts = 1),
        informed("torn record").limits(|limits| (limits.torn, limits.renewals) = (1, [0, 0])),
        informed("release and hand-over").limits(|limits| (limits.releases, limits.renewals) = (1, [0, 0])),
        informed("agent crash, adopted").limits(|limits| limits.crashes = 1),
        informed("early fence").limits(|limits| (limits.early_fences, limits.renewals) = (1, [0, 0])),
        informed("clocks at the bound").drifting(),
        fence("fence takes all of F").limits(|limits| limits.renewals = [0, 0]),
        replaced("voter replaced, fresh one at once"),
        rival(),
    ]
}

/// Runs for the soak: larger, each exhausted or cut off at a number of states given there.
#[must_use]
pub fn large_runs() -> Vec<Config> {
    let both = |name: &'static str| {
        let mut config = Config::new(name).limits(|limits| (limits.attempts, limits.renewals) = ([2, 2], [0, 0]));
        config.seen = [0, 4];
        config
    };
    let long = |name| {
        let mut config = two_tries(name).limits(|limits| (limits.attempts, limits.long_renewals) = ([1, 1], 1));
        config.max_t = 3;
        config
    };
    let grown = |name, from: Vec<usize>, next: Vec<usize>| {
        let mut config = Config::new(name).limits(|limits| (limits.attempts, limits.renewals) = ([1, 1], [0, 0]));
        (config.seen, config.sets) = ([0, 4], vec![from, next]);
        config
    };
    vec![
        both("two attempts each"),
        two_tries("release, reboot").limits(|limits| (limits.attempts, limits.renewals, limits.releases, limits.reboots) = ([1, 1], [0, 0], 1, 1)),
        two_tries("two attempts, release").limits(|limits| (limits.renewals, limits.releases) = ([0, 0], 1)),
        two_tries("two attempts, renewal"),
        two_tries("two attempts, crash").limits(|limits| (limits.renewals, limits.crashes) = ([0, 0], 1)),
        two_tries("two renewals").limits(|limits| (limits.attempts, limits.renewals) = ([1, 1], [2, 0])),
        two_tries("two voter reboots").limits(|limits| (limits.attempts, limits.renewals, limits.reboots) = ([1, 1], [0, 0], 2)),
        two_tries("reboot and process restart").limits(|limits| (limits.attempts, limits.renewals, limits.reboots, limits.restarts) = ([1, 1], [0, 0], 1, 1)),
        two_tries("clocks at the bound, two attempts").limits(|limits| limits.renewals = [0, 0]).drifting(),
        long("planned restart of an agent").limits(|limits| (limits.renewals, limits.crashes) = ([0, 0], 1)),
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
        config.seen = [0, 4];
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
    let unprepared = {
        let mut config = Config::new("install unprepared").limits(|limits| (limits.attempts, limits.renewals) = ([2, 2], [0, 0]));
        config.sets = vec![vec![0, 1], vec![0, 1, 2]];
        config.rival = Some(vec![0, 1, 3]);
        config.change_any_time = true;
        config
    };
    vec![
        planted("V6", plain("no restart wait").limits(|l| l.reboots = 1), Fault::NoRestartWait),
        planted("V6", plain("renewal accepted in the wait").limits(|l| (l.reboots, l.renewals) = (1, [1, 0])), Fault::RenewDuringWait),
        planted("V6", plain("wait forgotten by a process restart").limits(|l| (l.reboots, l.restarts) = (1, 1)), Fault::WaitForgotten),
        planted("V6", plain("torn record ignored").limits(|l| l.torn = 1), Fault::TornRecordIgnored),
        planted("V7", Config::new("floor forgotten").limits(|l| (l.reboots, l.renewals) = (1, [0, 0])), Fault::FloorForgotten),
        planted("V1", plain("higher epoch overrides"), Fault::HigherEpochOverrides),
        planted("V1", plain("successor skips V1").limits(|l| (l.attempts, l.releases) = ([2, 1], 1)), Fault::SuccessorSkipsV1),
        planted("V4", two_tries("bit without its epoch"), Fault::BitWithoutEpoch),
        planted("V5", plain("release matched by node only").limits(|l| (l.attempts, l.releases) = ([2, 1], 1)), Fault::ReleaseByNodeOnly),
        planted("V5", plain("release matched without instance").limits(|l| (l.attempts, l.crashes) = ([2, 1], 1)), Fault::ReleaseIgnoresInstance),
        planted("P3", plain("timer from the answer"), Fault::TimerFromAnswer),
        planted("P1", plain("ack without send number").limits(|l| l.renewals = [2, 0]), Fault::AckWithoutSendNo),
        planted("P2", plain("epoch reused after restart").limits(|l| (l.attempts, l.crashes) = ([2, 0], 1)), Fault::EpochReused),
        planted("P3", plain("dead tenure revived").limits(|l| l.renewals = [1, 0]), Fault::DeadTenureRevived),
        planted("P3", plain("clock rates ignored").drifting(), Fault::DriftIgnored),
        planted("P4", Config::new("renewal counts as acquisition"), Fault::RenewCountsAsAcquire),
        planted("P5", plain("release before stop").limits(|l| l.releases = 1), Fault::ReleaseBeforeStop),
        planted("F2", plain("agent extends a fenced word").limits(|l| l.renewals = [1, 0]), Fault::FencedExtended),
        planted("B5.3", replaced("next set without wait"), Fault::NextSetWithoutWait),
        planted("B5.2", replaced("old set still answered").limits(|l| l.renewals = [1, 0]), Fault::OldSetAnswered),
        planted("B5.3", replaced("floors not carried over"), Fault::FloorNotCarried),
        planted("B5.3", unprepared, Fault::InstallUnprepared),
        ("K", too_slow),
        ("F3", fence_late),
    ]
}
