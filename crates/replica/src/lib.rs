//! x

pub mod header;
pub mod page;
pub mod wal;
