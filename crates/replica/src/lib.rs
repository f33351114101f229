//! x

pub mod apply;
pub mod capture;
#[cfg(feature = "check")]
pub mod check;
pub mod divergence;
pub mod header;
pub mod lineage;
pub mod log;
pub mod meta;
pub mod page;
pub mod role;
pub mod storage;
pub mod sums;
pub mod transaction;
pub mod wal;
