//! What one model run explores.

use crate::rules::Fault;

/// How often each thing may happen in one run. Everything that has no limit here (delivery, in any order, again, or never; time;
/// fencing at the deadline) may happen always.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Limits {
    /// Attempts per node.
    pub attempts: [u8; 2],
    /// Batches of renewals per node.
    pub renewals: [u8; 2],
    /// Planned releases, of any node.
    pub releases: u8,
    /// Crashes of an agent, each followed by a restart that adopts what is armed.
    pub crashes: u8,
    /// Which node's agent may crash.
    pub crash_node: usize,
    /// Process restarts of a voter in the same boot, with its records.
    pub restarts: u8,
    /// Process restarts of a voter that leave its record torn.
    pub torn: u8,
    /// Reboots of a voter: records gone, journal kept.
    pub reboots: u8,
    /// Fences before the deadline (guard restart, operator, F4).
    pub early_fences: u8,
    /// Renewals with the longest T (planned restart).
    pub long_renewals: u8,
}

/// What has happened before a run begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Before {
    /// This node made an attempt.
    Attempt(usize),
    /// Everything this node sent to this voter arrived, and the answers to it.
    Exchange(usize, usize),
    /// The next change of voters began.
    Change,
    /// The rival change began.
    Rival,
    /// Everything this driver sent to this voter arrived, and the answers to it.
    Drive(usize, usize),
    /// This node learned of the newest set installed.
    Learn(usize),
    /// This node renewed.
    Renew(usize),
    /// A tick passed.
    Tick,
    /// This node reported that its slot stopped.
    Stopped(usize),
}

/// A run: who takes part, at which speed their clocks go, what may happen, which rule is left out.
#[derive(Clone, Debug)]
pub struct Config {
    /// Name of the run.
    pub name: &'static str,
    /// The rule left out.
    pub fault: Option<Fault>,
    /// Units of local time per tick at rate one. 1 where clocks agree.
    pub unit: u64,
    /// T in ticks.
    pub t: u64,
    /// The longest T, and the voters' wait, in ticks.
    pub max_t: u64,
    /// F in ticks.
    pub fence: u64,
    /// How long a fence really takes, in ticks.
    pub fence_takes: u64,
    /// r as the nodes know it, in parts per million.
    pub rate_ppm: u32,
    /// Units that a voter's clock really goes per tick.
    pub voter_speed: u64,
    /// Units that each node's clock really goes per tick.
    pub node_speed: [u64; 2],
    /// The voter sets, by voter number; the first is installed at the start, each next one is driven there after the former.
    pub sets: Vec<Vec<usize>>,
    /// A second driver that tries this set after the first one, at the same time.
    pub rival: Option<Vec<usize>>,
    /// Do the answers to a driver come at once or never, and do nodes learn of a new set at some time, once, instead of by any number
    /// of refusals? Saves many steps; runs without it let all of them be late, doubled and out of order too.
    pub prompt_changes: bool,
    /// May the first change begin before anything was acquired? Else it begins after an acquisition, which keeps runs small.
    pub change_any_time: bool,
    /// Have the voters that join voted before, in an earlier boot, so that they wait at the start (V6)?
    pub joining_wait: bool,
    /// What has happened already; a way to look far without exploring everything on the way there.
    pub before: Vec<Before>,
    /// The highest epoch each node has heard of at the start, so that its first attempt may be above the other's.
    pub seen: [u64; 2],
    /// Do refusals other than "another set" reach the nodes? They end an attempt early and teach epochs; without them an attempt ends by
    /// time, which a lost refusal amounts to.
    pub nacks: bool,
    /// Do acks of releases reach the nodes? They end the repeating of a release, which the model does not do anyway.
    pub release_acks: bool,
    /// What may happen how often.
    pub limits: Limits,
    /// Time stops here, in ticks; `None`: it goes on for ever, and states that differ by time alone are one.
    pub horizon: Option<u64>,
}

impl Config {
    /// Three voters, T of two ticks, equal clocks, and one attempt of each node.
    #[must_use]
    pub fn new(name: &'static str) -> Self {
        Self {
            name,
            fault: None,
            unit: 1,
            t: 2,
            max_t: 2,
            fence: 0,
            fence_takes: 0,
            rate_ppm: 0,
            voter_speed: 1,
            node_speed: [1, 1],
            sets: vec![vec![0, 1, 2]],
            rival: None,
            prompt_changes: false,
            change_any_time: false,
            joining_wait: false,
            before: Vec::new(),
            seen: [0, 0],
            nacks: false,
            release_acks: false,
            limits: Limits { attempts: [1, 1], renewals: [1, 0], ..Limits::default() },
            horizon: None,
        }
    }

    /// The same run with a rule left out.
    #[must_use]
    pub const fn with(mut self, fault: Fault) -> Self {
        self.fault = Some(fault);
        self
    }

    /// The same run with refusals and acks of releases delivered.
    #[must_use]
    pub const fn with_answers(mut self) -> Self {
        (self.nacks, self.release_acks) = (true, true);
        self
    }

    /// The same run up to this tick.
    #[must_use]
    pub const fn until(mut self, tick: u64) -> Self {
        self.horizon = Some(tick);
        self
    }

    /// The same run with other limits.
    #[must_use]
    pub fn limits(mut self, change: impl FnOnce(&mut Limits)) -> Self {
        change(&mut self.limits);
        self
    }

    /// Clocks at the bound: voters fast by r, nodes slow by r, and T long enough for the difference to show at a tick.
    #[must_use]
    pub const fn drifting(mut self) -> Self {
        self.unit = 10;
        self.rate_ppm = 100_000;
        self.voter_speed = 11;
        self.node_speed = [9, 9];
        self
    }
}
