//! Files of one App under the runtime folder: what the agent remembers of this boot, and what the process reads.

use std::io;
use std::path::Path;

use tracing::warn;

use super::decide::Memory;
use super::target::{PartitionsFile, RoleFile};
use crate::drivers::unit_text::{PARTITIONS_FILE, ROLE_FILE};
use crate::files::{Durability, read_limited, write_atomic};

/// Name of the file with the agent's memory.
pub(super) const MEMORY_FILE: &str = "agent.json";
/// Largest memory file that is read, in bytes.
const MEMORY_MAX: usize = 1024 * 1024;

/// What an earlier agent of this boot remembered; nothing where there is nothing readable.
pub(super) fn load(folder: &Path) -> Memory {
    let path = folder.join(MEMORY_FILE);
    let read = read_limited(&path, MEMORY_MAX).map(|bytes| bytes.map(|b| serde_json::from_slice(&b)));
    match read {
        Ok(None) => Memory::default(),
        Ok(Some(Ok(memory))) => memory,
        Ok(Some(Err(error))) => {
            warn!(path = %path.display(), "unreadable, what it remembered is looked up anew: {error}");
            Memory::default()
        }
        Err(error) => {
            warn!(path = %path.display(), "unreadable, what it remembered is looked up anew: {error}");
            Memory::default()
        }
    }
}

/// Remembers.
pub(super) fn save(folder: &Path, memory: &Memory) -> io::Result<()> {
    write(folder, MEMORY_FILE, memory, 0o600)
}

/// Writes the role file for the process.
pub(super) fn write_role(folder: &Path, role: &RoleFile) -> io::Result<()> {
    write(folder, ROLE_FILE, role, 0o644)
}

/// Writes the partition file for the process.
pub(super) fn write_partitions(folder: &Path, file: &PartitionsFile) -> io::Result<()> {
    write(folder, PARTITIONS_FILE, file, 0o644)
}

/// Removes the App's folder.
pub(super) fn remove(folder: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn write<T: serde::Serialize>(folder: &Path, name: &str, value: &T, mode: u32) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let mut text = serde_json::to_vec_pretty(value).map_err(io::Error::other)?;
    text.push(b'\n');
    // Gone with the boot anyway, so nothing waits for a disk.
    write_atomic(&folder.join(name), &text, mode, Durability::Process)
}
