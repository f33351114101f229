//! Drivers: the only code of the agent that touches systemd, the kernel's addresses and the network.
//!
//! The agent's core knows the traits [`Units`] and [`Vips`]; behind them stand the drivers of a real node
//! (`systemd`: systemd over D-Bus; `netlink`: addresses over rtnetlink, told to the `neighbours`) and others that need neither.
//!
//! Both traits are level-triggered: every call says what should be, may be repeated at any time, and treats "already so" and
//! "already gone" as success. What they report is what was seen, not what was asked for.

mod commands;
pub mod flaps;
pub mod hook_text;
mod neighbours;
pub mod netlink;
pub mod systemd;
pub use cluster_schemas::unit_change;
pub mod unit_text;
mod units;
mod vips;

pub use commands::Command;
pub use units::{ActiveState, Gate, Installed, InstalledUnit, LoadState, STARTED_BY_MAX, UnitError, UnitState, Units, Verb};
pub use vips::{CONFLICTS_WAITING, Conflict, Held, HeldVip, Mac, VipError, Vips};
