//! The lab: real nodes on one machine.
//!
//! A node is a network namespace on a bridge, an overlay over the host's root file system, and systemd as PID 1: it has
//! its own units, journal, D-Bus, addresses and boot id, and can lose its network, its power or its time. `README.md`
//! tells how it is made and what it cannot do.
//!
//! ```no_run
//! use std::time::Duration;
//! use cluster_e2e::{Lab, UpOptions, wait_until};
//!
//! # fn main() -> cluster_e2e::Result<()> {
//! let lab = Lab::up_scoped(&UpOptions::new(3).named("mytest"))?;
//! lab.client(["clusterctl", "apply", "-f", "manifests/singleton.yaml"])?.ok()?;
//! lab.crash(1)?;
//! wait_until("n2 to serve", Duration::from_secs(5), || lab.http_get(([10, 0, 0, 100], 8080).into(), "/").map_err(|e| e.chain()))?;
//! lab.boot(1)?;
//! # Ok(())
//! # }
//! ```

pub mod bench;
mod capture;
mod cgroup;
mod content;
pub mod drill;
mod error;
mod exec;
mod faults;
mod group;
mod lab;
mod machine;
mod names;
mod nats;
mod net;
mod rootfs;
mod spawn;
mod status;
mod steer;
pub mod tour;
mod wait;
pub mod witness;

pub use capture::{Capture, Frame, Tap};
pub use content::SHARED_DIR;
pub use error::{LabError, Result};
pub use exec::EXEC_LIMIT;
pub use faults::Crash;
pub use group::Background;
pub use lab::{Lab, NATS_VERSION, Removed, ScopedLab, UpOptions};
pub use names::{CLIENT_ADDR, CONTROLLER_PORT, MAX_NODES, MAX_SERVERS, NATS_MONITOR_PORT, NATS_PORT, NodeId};
pub use nats::HttpReply;
pub use net::Link;
pub use spawn::Ran;
pub use status::{NodeStatus, Power};
pub use wait::wait_until;
