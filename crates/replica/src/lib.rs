//! x

pub mod header;
pub mod lineage;
pub mod page;
pub mod transaction;
pub mod wal;
