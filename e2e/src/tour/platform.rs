//! The facts of `manifests/platform.yaml` that the tour relies on.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Its Apps, sorted.
pub const APPS: [&str; 4] = ["api", "cache", "database", "workers"];
/// Where clients reach the database.
pub const VIP: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 100)), DATABASE_PORT);
/// Where the database listens.
pub const DATABASE_PORT: u16 = 8080;
/// Where the members of the ring listen.
pub const CACHE_PORT: u16 = 8081;
/// Where the workers listen.
pub const WORKERS_PORT: u16 = 8083;
/// The ring's partitions.
pub const PARTITIONS: u16 = 256;
/// How many workers there shall be.
pub const WORKERS: usize = 3;
