//! The tour: the main job on real nodes, shown and checked step by step (`make demo`); parts of it are measured by the
//! benchmarks of the lab.

mod failover;
mod failure;
mod figures;
mod left;
mod paper;
mod platform;
mod pulse;
mod steps;
mod supervise;
mod view;
mod writes;

pub use failover::{FAILOVER_LIMIT, Failover, crash_and_wait};
pub use failure::{Expected, Failure};
pub use figures::{NAMES, measure};
pub use left::left_of;
pub use paper::{Paper, time};
pub use platform::{APPS, VIP};
pub use pulse::{Pulse, Stretch};
pub use steps::{Tour, shortened};
pub use supervise::supervised;
pub use view::{active, all_nodes_ready, all_ready, ask_nodes, clusterctl, covered};
pub use writes::Writes;
