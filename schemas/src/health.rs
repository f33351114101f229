//! How it is found out whether an instance can serve, and what follows when it cannot.

use std::ops::RangeInclusive;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::app::{ACCOUNT_PATTERN, NO_CONTROL_PATTERN, PROGRAM_PATTERN};
use crate::hooks::{TIMEOUT_PATTERN, span};

/// Shortest and longest pause between checks.
pub const INTERVAL: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(3600));
/// Shortest and longest time that a check may take.
pub const TIMEOUT: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(300));
/// Longest time in which a start may take up serving.
pub const START_GRACE_MAX: Duration = Duration::from_secs(3600);
/// Longest window in which restarts are counted: a day.
pub const WINDOW_MAX: Duration = Duration::from_secs(24 * 3600);
/// Most checks that have to agree.
pub const THRESHOLD_MAX: u32 = 100;
/// Most restarts in a window.
pub const RESTARTS_MAX: u32 = 20;
/// Longest path of a request, in bytes.
pub const PATH_BYTES_MAX: usize = 2048;

/// How an instance is checked: by exactly one of `http`, `tcp`, `exec` and `systemd`. Checks run on its own node, by the agent, as long as its
/// unit is active. What does not pass is not Ready, is passed over where a standby is looked for, and is restarted in place; where that
/// does not help, what is exclusive moves to another node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("allOf" = [
    { "oneOf": [{ "required": ["http"] }, { "required": ["tcp"] }, { "required": ["exec"] }, { "required": ["systemd"] }] },
]))]
pub struct HealthSpec {
    /// Passes when a GET is answered with a status in the range. Redirects are not followed.
    #[schemars(extend("examples" = [{ "port": 8080, "path": "/healthz" }]))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpCheck>,
    /// Passes when a TCP connection is accepted.
    #[schemars(extend("examples" = [{ "port": 5432 }]))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<TcpCheck>,
    /// Passes when a command ends with 0.
    #[schemars(extend("examples" = [{ "command": ["/usr/bin/myapp", "ping"] }]))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec: Option<ExecCheck>,
    /// Passes when systemd says that the unit is active and in one of some sub-states. A unit with `WatchdogSec` is ended by systemd
    /// itself when it is silent, and then is failed.
    #[schemars(extend("examples" = [{}]))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub systemd: Option<SystemdCheck>,
    /// From the begin of a check to the begin of the next, `100ms` to an hour.
    #[schemars(regex(pattern = TIMEOUT_PATTERN), extend("examples" = ["2s"]))]
    #[serde(default = "default_interval")]
    pub interval: String,
    /// How long a check may take, `10ms` to five minutes; then it has failed.
    #[schemars(regex(pattern = TIMEOUT_PATTERN), extend("examples" = ["1s"]))]
    #[serde(default = "default_timeout")]
    pub timeout: String,
    /// So many checks in a row have to pass until an instance counts as healthy.
    #[schemars(range(min = 1, max = 100), extend("examples" = [1]))]
    #[serde(default = "default_success")]
    pub success_threshold: u32,
    /// So many checks in a row have to fail until an instance counts as unhealthy.
    #[schemars(range(min = 1, max = 100), extend("examples" = [3]))]
    #[serde(default = "default_failure")]
    pub failure_threshold: u32,
    /// After a start, failed checks do not count for so long, at most an hour, or until the first one passes.
    #[schemars(regex(pattern = TIMEOUT_PATTERN), extend("examples" = ["30s"]))]
    #[serde(default = "default_grace")]
    pub start_grace: String,
    /// How often an unhealthy instance is restarted where it is, before what is exclusive moves to another node.
    #[schemars(extend("examples" = [{ "attempts": 2, "window": "10m" }]))]
    #[serde(default)]
    pub restarts: RestartSpec,
}

/// How often an unhealthy instance is restarted where it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RestartSpec {
    /// Most restarts in the window; 0: none at all.
    #[schemars(range(min = 0, max = 20), extend("examples" = [2]))]
    #[serde(default = "default_attempts")]
    pub attempts: u32,
    /// The window, at most a day (`1440m`).
    #[schemars(regex(pattern = TIMEOUT_PATTERN), extend("examples" = ["10m"]))]
    #[serde(default = "default_window")]
    pub window: String,
}

/// Where on its node an instance is reached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum CheckHost {
    /// The loopback address.
    #[default]
    #[serde(rename = "127.0.0.1")]
    Loopback,
    /// The node's first address.
    #[serde(rename = "${node.address}")]
    Node,
}

/// A GET over plain HTTP/1.1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpCheck {
    /// The port.
    #[schemars(range(min = 1, max = 65535), extend("examples" = [8080]))]
    pub port: u16,
    /// Path and query, as they stand in the request.
    #[schemars(regex(pattern = "^/[!-~]*$"), length(max = 2048), extend("examples" = ["/healthz"]))]
    #[serde(default = "default_path")]
    pub path: String,
    /// Where on the node.
    #[serde(default)]
    pub host: CheckHost,
    /// A status, or a range of them, that passes.
    #[schemars(regex(pattern = "^[1-5][0-9]{2}(-[1-5][0-9]{2})?$"), extend("examples" = ["200-299"]))]
    #[serde(default = "default_status")]
    pub status: String,
}

/// A TCP connection that is closed again at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TcpCheck {
    /// The port.
    #[schemars(range(min = 1, max = 65535), extend("examples" = [5432]))]
    pub port: u16,
    /// Where on the node.
    #[serde(default)]
    pub host: CheckHost,
}

/// A command. Never a shell line. It has the App's environment, and when it takes too long, its whole process group is killed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExecCheck {
    /// The program (absolute path) and its arguments, with the placeholders of `exec.command`.
    #[schemars(length(min = 1, max = 256))]
    #[schemars(inner(regex(pattern = NO_CONTROL_PATTERN)))]
    #[schemars(extend("examples" = [["/usr/bin/myapp", "ping"]]))]
    #[schemars(extend("allOf" = [{ "prefixItems": [{ "pattern": PROGRAM_PATTERN, "not": { "pattern": "/[.]{2}(/|$)" } }] }]))]
    pub command: Vec<String>,
    /// User to run as; that of the App's `exec` when absent, else root.
    #[schemars(regex(pattern = ACCOUNT_PATTERN), extend("examples" = ["www-data"]))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

/// What systemd says of the unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SystemdCheck {
    /// Sub-states that pass, as `systemctl show -P SubState` prints them.
    #[schemars(length(min = 1, max = 16))]
    #[schemars(inner(regex(pattern = "^[a-z]([a-z-]{0,62}[a-z])?$")))]
    #[schemars(extend("examples" = [["running"]]))]
    #[serde(default = "default_sub_states")]
    pub sub_states: Vec<String>,
}

fn default_interval() -> String {
    "2s".to_owned()
}

fn default_timeout() -> String {
    "1s".to_owned()
}

const fn default_success() -> u32 {
    1
}

const fn default_failure() -> u32 {
    3
}

fn default_grace() -> String {
    "30s".to_owned()
}

const fn default_attempts() -> u32 {
    2
}

fn default_window() -> String {
    "10m".to_owned()
}

fn default_path() -> String {
    "/".to_owned()
}

fn default_status() -> String {
    "200-399".to_owned()
}

fn default_sub_states() -> Vec<String> {
    vec!["running".to_owned()]
}

impl Default for HealthSpec {
    fn default() -> Self {
        Self {
            http: None,
            tcp: None,
            exec: None,
            systemd: None,
            interval: default_interval(),
            timeout: default_timeout(),
            success_threshold: default_success(),
            failure_threshold: default_failure(),
            start_grace: default_grace(),
            restarts: RestartSpec::default(),
        }
    }
}

impl Default for RestartSpec {
    fn default() -> Self {
        Self { attempts: default_attempts(), window: default_window() }
    }
}

impl Default for SystemdCheck {
    fn default() -> Self {
        Self { sub_states: default_sub_states() }
    }
}

fn within(text: &str, (min, max): (Duration, Duration)) -> Option<Duration> {
    span(text).filter(|time| (min..=max).contains(time))
}

// All are `None` where the text is no such time, which the validation refuses.
impl HealthSpec {
    /// From the begin of a check to the begin of the next.
    #[must_use]
    pub fn interval(&self) -> Option<Duration> {
        within(&self.interval, INTERVAL)
    }

    /// How long a check may take.
    #[must_use]
    pub fn timeout(&self) -> Option<Duration> {
        within(&self.timeout, TIMEOUT)
    }

    /// How long failed checks do not count after a start.
    #[must_use]
    pub fn start_grace(&self) -> Option<Duration> {
        within(&self.start_grace, (Duration::ZERO, START_GRACE_MAX))
    }
}

impl RestartSpec {
    /// In which time restarts are counted.
    #[must_use]
    pub fn window(&self) -> Option<Duration> {
        within(&self.window, (Duration::ZERO, WINDOW_MAX))
    }
}

impl HttpCheck {
    /// The statuses that pass; `None` where the text is no such range, which the validation refuses.
    #[must_use]
    pub fn statuses(&self) -> Option<RangeInclusive<u16>> {
        let one = |text: &str| text.parse().ok().filter(|n| text.len() == 3 && (100..600).contains(n));
        let (first, last) = self.status.split_once('-').unwrap_or((&self.status, &self.status));
        let (first, last) = (one(first)?, one(last)?);
        (first <= last).then_some(first..=last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_means_what_the_text_says() {
        let health = HealthSpec::default();
        assert_eq!(health.interval(), Some(Duration::from_secs(2)));
        assert_eq!(health.timeout(), Some(Duration::from_secs(1)));
        assert_eq!(health.start_grace(), Some(Duration::from_secs(30)));
        assert_eq!(health.restarts.window(), Some(Duration::from_secs(600)));
    }

    #[test]
    fn statuses_are_one_or_a_range() {
        let of = |text: &str| HttpCheck { port: 1, path: String::new(), host: CheckHost::Loopback, status: text.to_owned() }.statuses();
        assert_eq!(of("204"), Some(204..=204));
        assert_eq!(of("200-399"), Some(200..=399));
        assert_eq!([of("399-200"), of("600"), of("99"), of("200-"), of(""), of("2xx"), of("0200")], [const { None }; 7]);
    }
}
