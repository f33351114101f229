//! The kinds of faults.

use std::fmt;
use std::str::FromStr;

use crate::error::LabError;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The active node loses its power.
    Crash,
    /// So does the one that is active and leads every stream, JetStream's meta group and the controllers.
    CrashLeader,
    /// The active node's link goes down, and comes back.
    Cut,
    /// The active node hears and is heard no more, and then again; it leads NATS and the controllers.
    Drop,
    /// The active node's agent gets SIGKILL.
    AgentKilled,
    /// The active node's agent stands still for 5 s.
    AgentStopped,
    /// The agent of a node whose process is active among hot standbys stands still for 5 s.
    HotAgentStopped,
    /// The active node's guard gets SIGKILL.
    GuardKilled,
    /// Both do.
    BothKilled,
    /// Both stand still: the table's bounded case.
    BothStopped,
    /// The active node stands still as a whole for 5 s: the table's bounded case.
    Paused,
    /// The NATS server on the active node gets SIGKILL.
    NatsKilled,
    /// It stands still for 10 s.
    NatsFrozen,
    /// No NATS server for 20 s.
    AllNatsKilled,
    /// No controller, and then the active node loses its power.
    ControllersKilled,
    /// The agents of the two other voters are restarted in a row.
    VotersRestarted,
    /// The two other voters lose their power and boot.
    VotersRebooted,
    /// All agents and guards are restarted one after the other.
    RollingRestart,
    /// The node of a unit with `Restart=always` falls silent.
    RestartAlways,
    /// A standby's unit is started by hand.
    StartedByHand,
    /// A standby boots with the unit enabled.
    EnabledAtBoot,
    /// Agent killed, guard killed, power cut, with no processor idle.
    Saturated,
}

/// All kinds.
pub const KINDS: [Kind; 22] = [
    Kind::Crash,
    Kind::CrashLeader,
    Kind::Cut,
    Kind::Drop,
    Kind::AgentKilled,
    Kind::AgentStopped,
    Kind::HotAgentStopped,
    Kind::GuardKilled,
    Kind::BothKilled,
    Kind::BothStopped,
    Kind::Paused,
    Kind::NatsKilled,
    Kind::NatsFrozen,
    Kind::AllNatsKilled,
    Kind::ControllersKilled,
    Kind::VotersRestarted,
    Kind::VotersRebooted,
    Kind::RollingRestart,
    Kind::RestartAlways,
    Kind::StartedByHand,
    Kind::EnabledAtBoot,
    Kind::Saturated,
];

/// What has to follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expect {
    /// Another node takes over.
    Moves,
    /// Nothing changes hands, and the epoch stays.
    Stays,
    /// The same tenure goes on, or a new one begins.
    Either,
}

impl Kind {
    /// Its name, as in tables and on command lines.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Crash => "crash",
            Self::CrashLeader => "crash-leader",
            Self::Cut => "cut",
            Self::Drop => "drop",
            Self::AgentKilled => "agent-killed",
            Self::AgentStopped => "agent-stopped",
            Self::HotAgentStopped => "hot-agent-stopped",
            Self::GuardKilled => "guard-killed",
            Self::BothKilled => "both-killed",
            Self::BothStopped => "both-stopped",
            Self::Paused => "paused",
            Self::NatsKilled => "nats-killed",
            Self::NatsFrozen => "nats-frozen",
            Self::AllNatsKilled => "all-nats-killed",
            Self::ControllersKilled => "controllers-killed",
            Self::VotersRestarted => "voters-restarted",
            Self::VotersRebooted => "voters-rebooted",
            Self::RollingRestart => "rolling-restart",
            Self::RestartAlways => "restart-always",
            Self::StartedByHand => "started-by-hand",
            Self::EnabledAtBoot => "enabled-at-boot",
            Self::Saturated => "saturated",
        }
    }

    pub(super) fn expects(self) -> Expect {
        match self {
            Self::Crash
            | Self::CrashLeader
            | Self::Cut
            | Self::Drop
            | Self::AgentStopped
            | Self::HotAgentStopped
            | Self::BothStopped
            | Self::Paused
            | Self::ControllersKilled
            | Self::RestartAlways
            | Self::Saturated => Expect::Moves,
            Self::NatsKilled | Self::NatsFrozen | Self::VotersRestarted | Self::StartedByHand | Self::EnabledAtBoot => Expect::Stays,
            Self::AgentKilled
            | Self::GuardKilled
            | Self::BothKilled
            | Self::AllNatsKilled
            | Self::VotersRebooted
            | Self::RollingRestart => Expect::Either,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Kind {
    type Err = LabError;

    fn from_str(text: &str) -> Result<Self, LabError> {
        let names = || KINDS.map(Kind::name).join(", ");
        let found = KINDS.into_iter().find(|kind| kind.name() == text);
        found.ok_or_else(|| LabError::Invalid(format!("'{text}' is no kind of fault; there are {}", names())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_listed_once_and_known_by_its_name() {
        for (place, kind) in KINDS.into_iter().enumerate() {
            assert_eq!(kind.name().parse::<Kind>().unwrap(), kind);
            assert_eq!(KINDS.iter().position(|other| *other == kind), Some(place));
        }
        assert!("fire".parse::<Kind>().unwrap_err().to_string().contains("agent-killed"));
    }
}
