//! How fast and how carefully an exclusive thing fails over.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::hooks::TIMEOUT_PATTERN;
use crate::hooks::span;

/// Shortest lease: below it a busy machine loses leases that it could keep.
pub const LEASE_MIN: Duration = Duration::from_millis(200);
/// Longest lease, which voters also wait for after a restart.
pub const LEASE_MAX: Duration = Duration::from_secs(5);

/// How fast and how carefully an exclusive thing fails over.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FailoverSpec {
    /// How long the voters keep a holder's place without a renewal, `200ms` to `5s`: who dies is followed after about this time, and who is
    /// slow for longer loses its place. A change of it counts from the next tenure on. Absent: what the cluster's controllers are
    /// configured with (`lease` in controller.yaml), `350ms` unless they say otherwise.
    #[schemars(regex(pattern = TIMEOUT_PATTERN), extend("examples" = ["350ms"]))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<String>,
    /// What the holder does when it reaches no majority of the voters any more.
    #[serde(default, skip_serializing_if = "QuorumLoss::is_stop")]
    pub on_quorum_loss: QuorumLoss,
    /// Whether the active role goes back by itself to where it was better placed.
    #[serde(default, skip_serializing_if = "Failback::is_never")]
    pub failback: Failback,
}

/// Whether the active role goes back by itself to where it was better placed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Failback {
    /// What moved stays where it is.
    #[default]
    Never,
    /// By a hand-over to a node that `placement.prefer` ranks higher, once it stands by there. A node on which it fails again and again is gone
    /// back to each time.
    Preferred,
}

impl Failback {
    /// Whether it is the default.
    #[must_use]
    pub const fn is_never(&self) -> bool {
        matches!(self, Self::Never)
    }
}

/// What the holder of an exclusive thing does when it reaches no majority of the voters any more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum QuorumLoss {
    /// It stops before anybody else may take over: at most one at any time.
    #[default]
    Stop,
    /// It goes on. **The App is not exclusive any more**: while the network is split, one instance on each side may be active, each with the VIP.
    /// Once a majority is reached again, the lease decides who stays. Not for Apps with a `database`, and not for mode `Ring`.
    Keep,
}

impl QuorumLoss {
    /// Whether it is the default.
    #[must_use]
    pub const fn is_stop(&self) -> bool {
        matches!(self, Self::Stop)
    }
}

/// The length of a lease; `None` where the text is no time from `200ms` to `5s`.
#[must_use]
pub fn parse_lease(text: &str) -> Option<Duration> {
    span(text).filter(|lease| (LEASE_MIN..=LEASE_MAX).contains(lease))
}

impl FailoverSpec {
    /// The lease; `None` where none is named, and where the text is no such time, which the validation refuses.
    #[must_use]
    pub fn lease(&self) -> Option<Duration> {
        self.lease.as_deref().and_then(parse_lease)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_between_200_ms_and_5_s() {
        let of = |text: &str| FailoverSpec { lease: Some(text.to_owned()), ..FailoverSpec::default() }.lease();
        assert_eq!(of("200ms"), Some(LEASE_MIN));
        assert_eq!(of("5s"), Some(LEASE_MAX));
        assert_eq!([of("199ms"), of("6s"), of("1"), of("1h"), of("")], [None; 5]);
        assert_eq!(FailoverSpec::default().lease(), None);
    }
}
