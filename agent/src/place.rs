//! Where an agent runs: what of its machine stands behind no driver. A real node has [`Place::machine`]; several agents of one process, as
//! on a laptop, have one each.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cluster_fence::STALE;
use cluster_lease::time::Span;
use cluster_schemas::assignment::RunSpec;
use nix::net::if_::if_nametoindex;
use nix::unistd::{getgid, getuid};
use tokio::runtime::Handle;

use crate::fences::unified_root;
use crate::identity;

/// Tells the unit, by its full name, that a process of this node belongs to; none where it belongs to none.
pub type UnitOf = Arc<dyn Fn(i32) -> Option<String> + Send + Sync>;

/// See the module.
#[derive(Clone)]
pub struct Place {
    /// Tells this life of the node from earlier ones, after which nothing runs any more: a UUID, the kernel's on a real node.
    pub boot_id: String,
    /// What goes before [`UnitState::control_group`](crate::drivers::UnitState) in the fence table, for the guard to find the unit by.
    pub groups: String,
    /// Index of an interface, as the guard's [`Hands`](cluster_fence::Hands) take it.
    pub interface: fn(&str) -> Option<u32>,
    /// Addresses to register, by interface; those of the kernel without.
    pub addresses: Option<BTreeMap<String, Vec<String>>>,
    /// Of an agent that runs as somebody who can be nobody else: folder that paths of databases are below. None on a real node, where paths
    /// and users are as the Apps say.
    pub data: Option<PathBuf>,
    /// A guard that did not beat for longer is not there (F4).
    pub guard_stale: Span,
    /// Which unit a process is of.
    pub unit_of: UnitOf,
    /// Told of the runtime of each thread that the agent starts beside its caller's.
    pub thread: Arc<dyn Fn(Handle) + Send + Sync>,
}

impl Place {
    /// This machine as a whole.
    ///
    /// # Errors
    /// The system's, where it has no boot id.
    pub fn machine() -> std::io::Result<Self> {
        Ok(Self {
            boot_id: identity::boot_id()?,
            groups: unified_root(),
            interface: |name| if_nametoindex(name).ok(),
            addresses: None,
            data: None,
            guard_stale: STALE,
            unit_of: Arc::new(crate::local::peer::unit_of),
            thread: Arc::new(|_| {}),
        })
    }

    /// The boot id as a number; 0 where it is no UUID.
    #[must_use]
    pub fn boot(&self) -> u128 {
        uuid::Uuid::parse_str(&self.boot_id).map_or(0, |id| id.as_u128())
    }
}

/// Puts what runs where an agent with [`Place::data`] can have it: databases below `data`, in folders that are made, and everything as the
/// agent's own user.
pub fn adapt(data: &Path, run: &mut RunSpec) {
    if let Some(exec) = &mut run.exec {
        exec.user = Some(getuid().to_string());
        exec.group = Some(getgid().to_string());
    }
    if let Some(database) = &mut run.database {
        let path = data.join(database.path.trim_start_matches('/'));
        // Where it cannot be made, the database says that it is missing.
        let _made = path.parent().map(std::fs::create_dir_all);
        database.path = path.to_string_lossy().into_owned();
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place")
            .field("boot_id", &self.boot_id)
            .field("groups", &self.groups)
            .field("data", &self.data)
            .finish_non_exhaustive()
    }
}
