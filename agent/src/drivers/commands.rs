//! Commands that run beside a unit and end by themselves: hooks.

use std::collections::BTreeMap;
use std::time::Duration;

/// A command that runs to its end in a unit of its own, so that it has a cgroup that can be killed as a whole, none of the agent's
/// restrictions, and outlives the agent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Command {
    /// Full name of its unit, which only it has.
    pub unit: String,
    /// What it is, for the service manager's log.
    pub description: String,
    /// The program (absolute path) and its arguments, as they reach it. Never a shell line.
    pub arguments: Vec<String>,
    /// Its environment.
    pub environment: BTreeMap<String, String>,
    /// Who it runs as; root without.
    pub user: Option<String>,
    /// Its group; the user's without.
    pub group: Option<String>,
    /// How long it may take; then every process of it is killed.
    pub timeout: Duration,
}
