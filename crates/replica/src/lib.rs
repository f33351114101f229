//! A SQLite database that follows its Singleton: the application opens its file as it always did; its transactions are captured from the
//! write-ahead log, logged, shipped, and applied to replicas on other nodes. No network here and no runtime: the agent carries the
//! bytes. `docs/database-design.md` lists the rules by name and where each lives.
//!
//! # Parts
//! - [`header`], [`page`], [`wal`]: SQLite's formats, read from outside.
//! - [`capture`]: following a database beside any application (D1, D2).
//! - [`transaction`]: what is logged and shipped (D3, D12). [`log`]: the local log of it (D1, D7). [`storage`]: the disk under that.
//! - [`sums`]: checksums of all pages, so that a database's own changes with a transaction by the pages it touches.
//! - [`apply`]: the replica (D8). [`divergence`]: what only an old active had (D9).
//! - [`lineage`], [`meta`], [`role`]: who may write, who confirms what, who takes over from where (D3 to D6, D9, D10).
//! - [`stream`]: the durable stream of records, read: what of it counts, and where it leads. [`restore`]: a database made anew from that.
//! - [`host`]: all that of one node, for an agent to drive.
//! - `check` (feature of that name, tests only): the seeded simulation, which drives these very types.
//!
//! # Flow
//! 1. The active opens an epoch with a `Start` and captures each committed transaction into its log, with the checksum of the whole database
//!    before and after.
//! 2. It ships them live; standbys log, sync, confirm and apply them. The stream gets them too; nothing waits for it.
//! 3. A successor seals the standbys for its epoch, fetches the best tail, applies it, and starts.
//! 4. An old active reads what its write-ahead log still has, keeps what is void in a file, and is a replica from then on.
//!
//! # Guarantees
//! - A replica is the active's database after some transaction: by checksum, before it becomes visible; or an error names what differs.
//! - Nothing that was committed vanishes silently: it is in the lineage, or in a divergence file of the node that had it, or the log of that
//!   node overflowed and said so.
//! - With `confirm: N`, what N standbys confirmed survives the loss of the active and of any N-1 standbys.
//!
//! # Why it is safe
//! 1. A name (epoch, transaction) has one content: an epoch has one active (the lease), which numbers what it captures in the order of the
//!    write-ahead log. What a crash took from its log is captured again from the same frames; where those are gone, the log was made durable
//!    before they went ([`capture::Capture::move_on`]).
//! 2. What is confirmed is durable at the confirming node, and of the epoch it noted last. A promotion notes its epoch at as many standbys
//!    as leave no confirmed write out, before it reads what they have.
//! 3. Which records are void is a function of the chain of starts alone, so that late and doubled messages change nothing.
//! 4. The position of a replica is found by its checksum and so cannot disagree with its pages; its log is durable before it.
//!
//! # Assumptions
//! - The lease: at most one tenure is active, its unit stopped before the next begins.
//! - A disk that says so has synced; a node's disk is not set back to an older state.

pub mod apply;
pub mod capture;
#[cfg(feature = "check")]
pub mod check;
pub mod divergence;
pub mod header;
pub mod host;
pub mod lineage;
pub mod log;
pub mod meta;
pub mod page;
pub mod restore;
pub mod role;
pub mod storage;
pub mod stream;
pub mod sums;
pub mod transaction;
pub mod wal;
