//! The two files that the agent writes for a process: its role and its partitions.
//!
//! A file that is absent, unreadable or not understood tells nothing, and the program goes on: a workload must not die because its
//! supervisor is late or newer than itself.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use cluster_schemas::PartitionSet;
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// Longest file that is read, in bytes. The text of 4096 single partitions needs 20 KiB, the peers of 1000 nodes 64 KiB.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What the role file says, as far as this program shows it.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct RoleFile {
    /// `Active`, `Standby` or `Member`.
    #[serde(default)]
    pub(crate) role: Option<String>,
    /// Epoch of the tenure that goes with the role.
    #[serde(default)]
    pub(crate) epoch: Option<u64>,
}

/// What the partitions file says, as far as this program shows it.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct PartitionsFile {
    /// Version of the ring's table.
    #[serde(default)]
    pub(crate) version: Option<u64>,
    /// What is owned, by epoch.
    #[serde(default)]
    pub(crate) own: Vec<Owned>,
}

/// Partitions of one tenure.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct Owned {
    /// The partitions.
    pub(crate) partitions: PartitionSet,
}

impl PartitionsFile {
    /// All owned partitions, whatever their epoch.
    pub(crate) fn owned(&self) -> PartitionSet {
        self.own.iter().flat_map(|group| group.partitions.iter()).collect()
    }
}

/// Reads `path` as JSON.
///
/// # Errors
/// A sentence for the log: the file cannot be read, is too long, or is not what it should be.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<T, String> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|e| format!("cannot open {}: {e}", path.display()))?;
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("{} is longer than {FILE_BYTES_MAX} bytes", path.display()));
    }
    serde_json::from_slice(&bytes).map_err(|e| format!("{} is not understood: {e}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    #[test]
    fn files_of_the_agent_are_understood_and_fields_of_a_newer_one_are_passed_over() {
        let role = write(r#"{"app":"database","node":"n1","role":"Active","epoch":7,"peers":["n2"],"later":true}"#);
        assert_eq!(read::<RoleFile>(role.path()), Ok(RoleFile { role: Some("Active".to_owned()), epoch: Some(7) }));
        let partitions = write(
            r#"{"app":"cache","node":"n1","version":9,"partitions":256,"own":[{"epoch":3,"partitions":"0-84"},{"epoch":5,"partitions":"90,85"}]}"#,
        );
        let read: PartitionsFile = read(partitions.path()).unwrap();
        assert_eq!((read.version, read.owned().to_string().as_str()), (Some(9), "0-85,90"));
    }

    #[test]
    fn bad_files_are_named_with_the_reason() {
        for (text, reason) in
            [("", "not understood"), ("{\"role\":", "not understood"), ("[1]", "not understood"), ("{\"epoch\":\"7\"}", "string")]
        {
            let file = write(text);
            let error = read::<RoleFile>(file.path()).unwrap_err();
            assert!(error.contains(reason) && error.contains(&file.path().display().to_string()), "{text}: {error}");
        }
        assert!(read::<RoleFile>(Path::new("/nonexistent/role.json")).unwrap_err().starts_with("cannot open /nonexistent/role.json"));
        assert!(read::<PartitionsFile>(write(r#"{"own":[{"partitions":"5-3"}]}"#).path()).unwrap_err().contains("5-3"));
        let long = write(&format!("{{\"role\":\"{}\"}}", "x".repeat(1 << 20)));
        assert!(read::<RoleFile>(long.path()).unwrap_err().contains("longer than"));
    }
}
