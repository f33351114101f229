//! How to reach NATS: the `nats` block of the agent's and the controller's configuration.

use serde::{Deserialize, Serialize};

/// The `nats` block of a configuration file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NatsConfig {
    /// URLs such as `nats://10.0.0.11:4222`, tried in this order.
    pub servers: Vec<String>,
    /// Replicas of every bucket and stream: 3 where there are three servers, else 1. It does not grow by itself later (protocols B6).
    #[serde(default = "one")]
    pub replicas: usize,
}

const fn one() -> usize {
    1
}
