//! What the program knows of itself, and how it says so.

use std::path::{Path, PathBuf};

use cluster_schemas::PartitionSet;
use serde::Serialize;

use crate::args::Args;
use crate::files::{self, PartitionsFile, RoleFile};

/// The answer to `GET /`. Unknown things are null.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Identity {
    /// The node this runs on.
    node: Option<String>,
    /// The App it belongs to.
    app: Option<String>,
    /// Process id: with `startedAt` it tells one run from the next.
    pid: u32,
    /// When the process started, RFC 3339.
    started_at: String,
    /// `Active`, `Standby` or `Member`.
    role: Option<String>,
    /// Epoch of the tenure that goes with the role.
    epoch: Option<u64>,
    /// Owned partitions in text form, such as `0-84,90`.
    partitions: Option<PartitionSet>,
    /// Version of the ring's table that the partitions were read from.
    version: Option<u64>,
    /// The database file that was named on the command line.
    database: Option<PathBuf>,
    /// How often the files were read again since the start.
    reloads: u64,
}

/// The files to read, and what they said last.
#[derive(Debug)]
pub(crate) struct State {
    identity: Identity,
    role_file: Option<PathBuf>,
    partitions_file: Option<PathBuf>,
}

impl State {
    /// Knows what the command line says and nothing of the files yet.
    pub(crate) fn new(args: Args, pid: u32, started_at: String, hostname: Option<String>) -> Self {
        Self {
            identity: Identity {
                node: args.node.or(hostname),
                app: args.app,
                pid,
                started_at,
                role: None,
                epoch: None,
                partitions: None,
                version: None,
                database: args.db,
                reloads: 0,
            },
            role_file: args.role_file,
            partitions_file: args.partitions_file,
        }
    }

    /// What to answer now.
    pub(crate) fn identity(&self) -> Identity {
        self.identity.clone()
    }

    /// Epoch and node while this instance is Active.
    pub(crate) fn tenure(&self) -> Option<(u64, String)> {
        let active = self.identity.role.as_deref() == Some("Active");
        self.identity.epoch.filter(|_| active).map(|epoch| (epoch, self.identity.node.clone().unwrap_or_default()))
    }

    /// Whether the role file says that another instance is active.
    pub(crate) fn is_standby(&self) -> bool {
        self.identity.role.as_deref() == Some("Standby")
    }

    /// Reads both files. What cannot be read becomes unknown; the reasons are returned for the log.
    pub(crate) fn read_files(&mut self) -> Vec<String> {
        let mut trouble = Vec::new();
        let role: Option<RoleFile> = read(self.role_file.as_deref(), &mut trouble);
        let partitions: Option<PartitionsFile> = read(self.partitions_file.as_deref(), &mut trouble);
        let role = role.unwrap_or_default();
        self.identity.role = role.role;
        self.identity.epoch = role.epoch;
        self.identity.version = partitions.as_ref().and_then(|p| p.version);
        self.identity.partitions = partitions.as_ref().map(PartitionsFile::owned);
        trouble
    }

    /// Reads both files again, as a reload asks for.
    pub(crate) fn reload(&mut self) -> Vec<String> {
        self.identity.reloads = self.identity.reloads.saturating_add(1);
        self.read_files()
    }
}

fn read<T: serde::de::DeserializeOwned>(path: Option<&Path>, trouble: &mut Vec<String>) -> Option<T> {
    match files::read(path?) {
        Ok(value) => Some(value),
        Err(reason) => {
            trouble.push(reason);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn state(arguments: &[&str]) -> State {
        let args = Args::parse_from(std::iter::once("demo").chain(arguments.iter().copied()));
        State::new(args, 42, "2026-11-23T00:00:00Z".to_owned(), Some("host".to_owned()))
    }

    #[test]
    fn without_files_everything_of_the_cluster_is_null() {
        let mut state = state(&[]);
        assert_eq!(state.read_files(), Vec::<String>::new());
        assert_eq!(
            serde_json::to_string(&state.identity()).unwrap(),
            r#"{"node":"host","app":null,"pid":42,"startedAt":"2026-11-23T00:00:00Z","role":null,"epoch":null,"partitions":null,"version":null,"database":null,"reloads":0}"#
        );
    }

    #[test]
    fn a_reload_forgets_what_the_files_no_longer_say() {
        let folder = tempfile::tempdir().unwrap();
        let (role, partitions) = (folder.path().join("role.json"), folder.path().join("partitions.json"));
        std::fs::write(&role, r#"{"role":"Member","epoch":3}"#).unwrap();
        std::fs::write(&partitions, r#"{"version":5,"own":[{"epoch":3,"partitions":"0-2"}]}"#).unwrap();
        let mut state = state(&["--role-file", role.to_str().unwrap(), "--partitions-file", partitions.to_str().unwrap()]);
        assert!(state.read_files().is_empty());
        let before = state.identity();
        assert_eq!((before.role.as_deref(), before.epoch, before.version), (Some("Member"), Some(3), Some(5)));
        assert_eq!(before.partitions.unwrap().to_string(), "0-2");

        std::fs::write(&role, "{").unwrap();
        std::fs::remove_file(&partitions).unwrap();
        let trouble = state.reload();
        assert_eq!(trouble.len(), 2, "{trouble:?}");
        let after = state.identity();
        assert_eq!((after.role, after.epoch, after.partitions, after.version, after.reloads), (None, None, None, None, 1));
    }

    #[test]
    fn owning_nothing_is_not_the_same_as_not_knowing() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), r#"{"version":1,"own":[]}"#).unwrap();
        let mut state = state(&["--partitions-file", file.path().to_str().unwrap()]);
        assert!(state.read_files().is_empty());
        assert_eq!(state.identity().partitions.unwrap().to_string(), "");
    }
}
