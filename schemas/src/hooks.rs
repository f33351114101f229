//! Commands that the agent runs beside an App's unit.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::app::{NO_CONTROL_PATTERN, PROGRAM_PATTERN};

pub(crate) const TIMEOUT_PATTERN: &str = "^[1-9][0-9]{0,6}(ms|s|m)$";

/// Longest time-out of a hook.
pub const HOOK_TIMEOUT_MAX: Duration = Duration::from_secs(3600);

/// Commands that the agent of a Ring's member runs when partitions come and go. A failed `onOwn` gives the partition back; an `onRelease`
/// that fails or takes too long ends in a stopped unit, never in a partition released on a hope.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HooksSpec {
    /// After partitions were acquired, before the process is told of them.
    #[schemars(extend("examples" = [{ "command": ["/usr/bin/myapp", "warm-up"] }]))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_own: Option<HookSpec>,
    /// After the process was told that partitions go, before they are released.
    #[schemars(extend("examples" = [{ "command": ["/usr/bin/myapp", "flush"] }]))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_release: Option<HookSpec>,
}

/// A command that the agent runs. Never a shell line.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HookSpec {
    /// The program (absolute path) and its arguments, with the placeholders of `exec.command`.
    #[schemars(length(min = 1, max = 256))]
    #[schemars(inner(regex(pattern = NO_CONTROL_PATTERN)))]
    #[schemars(extend("examples" = [["/usr/bin/myapp", "warm-up"]]))]
    #[schemars(extend("allOf" = [{ "prefixItems": [{ "pattern": PROGRAM_PATTERN, "not": { "pattern": "/[.]{2}(/|$)" } }] }]))]
    pub command: Vec<String>,
    /// Environment variables beside those that the agent sets.
    #[schemars(extend("propertyNames" = { "pattern": "^[A-Za-z_][A-Za-z0-9_]*$" }, "maxProperties" = 256))]
    #[schemars(inner(regex(pattern = NO_CONTROL_PATTERN)))]
    #[schemars(extend("examples" = [{ "RUST_LOG": "info" }]))]
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub environment: BTreeMap<String, String>,
    /// How long it may take, such as `500ms`, `30s` or `2m`, at most an hour; then it is killed.
    #[schemars(regex(pattern = TIMEOUT_PATTERN), extend("examples" = ["30s"]))]
    #[serde(default = "default_timeout")]
    pub timeout: String,
}

fn default_timeout() -> String {
    "30s".to_owned()
}

impl HookSpec {
    /// How long it may take; `None` where the text is no such time, which the validation refuses.
    #[must_use]
    pub fn timeout(&self) -> Option<Duration> {
        span(&self.timeout).filter(|time| *time <= HOOK_TIMEOUT_MAX)
    }
}

/// A time such as `500ms`, `30s` or `2m`.
pub(crate) fn span(text: &str) -> Option<Duration> {
    let (number, millis) = [("ms", 1), ("s", 1000), ("m", 60_000)].into_iter().find_map(|(u, ms)| Some((text.strip_suffix(u)?, ms)))?;
    let sound = (1..=7).contains(&number.len()) && number.bytes().all(|b| b.is_ascii_digit()) && !number.starts_with('0');
    Some(Duration::from_millis(number.parse::<u64>().ok().filter(|_| sound)?.checked_mul(millis)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_outs_are_read_and_bounded() {
        let of = |text: &str| HookSpec { timeout: text.to_owned(), ..HookSpec::default() }.timeout();
        assert_eq!(of("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(of("30s"), Some(Duration::from_secs(30)));
        assert_eq!(of("60m"), Some(HOOK_TIMEOUT_MAX));
        for bad in ["", "30", "s", "0s", "01s", "61m", "3601s", "-1s", "1.5s", "1h", "99999999ms"] {
            assert_eq!(of(bad), None, "{bad}");
        }
    }
}
