//! The file that all nodes' workloads append to: `EPOCH NODE NUMBER`, a line each millisecond.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;

use crate::error::{Context, LabError, Result};

/// What was appended since the last reading.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Written {
    /// Name of the file.
    pub file: String,
    /// How many lines.
    pub lines: u64,
    /// The highest epoch of all so far.
    pub epoch: u64,
    /// Lines of an older epoch after one of a newer, and of another node in the same epoch: the writers, each with how many.
    pub late: Vec<Late>,
}

/// Lines in a row that should not be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Late {
    /// Who wrote them.
    pub node: String,
    /// In which epoch.
    pub epoch: u64,
    /// After which one, and whose.
    pub after: (u64, String),
    /// How many, until one of the newer epoch came again or the reading ended.
    pub lines: u64,
}

/// Reads what came since the last time, and judges the order.
#[derive(Debug)]
pub(super) struct Workload {
    path: PathBuf,
    offset: u64,
    newest: (u64, String),
}

impl Workload {
    /// Begins with an empty file.
    pub(super) fn new(path: PathBuf) -> Result<Self> {
        File::create(&path).context(|| format!("create {}", path.display()))?;
        Ok(Self { path, offset: 0, newest: (0, String::new()) })
    }

    pub(super) fn read(&mut self) -> Result<Written> {
        let action = || format!("read {}", self.path.display());
        let mut file = File::open(&self.path).context(action)?;
        file.seek(SeekFrom::Start(self.offset)).context(action)?;
        let mut text = String::new();
        file.read_to_string(&mut text).context(action)?;
        // The last line may be half written.
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        text.truncate(whole);
        self.offset += whole as u64;
        let file = self.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        judge(&mut self.newest, &text).map(|written| Written { file, ..written })
    }
}

fn judge(newest: &mut (u64, String), text: &str) -> Result<Written> {
    let mut written = Written::default();
    let mut late: Option<Late> = None;
    for line in text.lines() {
        let mut words = line.split(' ');
        let (epoch, node) = (words.next().and_then(|word| word.parse::<u64>().ok()), words.next());
        let (Some(epoch), Some(node)) = (epoch, node) else {
            return Err(LabError::Invalid(format!("the workload's file has the line {line:?}")));
        };
        written.lines += 1;
        if epoch > newest.0 {
            *newest = (epoch, node.to_owned());
        }
        if (epoch, node) == (newest.0, newest.1.as_str()) {
            written.late.extend(late.take());
            continue;
        }
        match &mut late {
            Some(late) if (late.epoch, late.node.as_str()) == (epoch, node) => late.lines += 1,
            other => {
                let next = Late { node: node.to_owned(), epoch, after: newest.clone(), lines: 1 };
                written.late.extend(other.replace(next));
            }
        }
    }
    written.late.extend(late);
    written.epoch = newest.0;
    Ok(written)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_that_rise_are_as_they_should_be() {
        let written = judge(&mut (0, String::new()), "3 n1 1\n3 n1 2\n5 n2 1\n6 n1 1\n").unwrap();
        assert_eq!(written, Written { lines: 4, epoch: 6, ..Written::default() });
    }

    #[test]
    fn older_epochs_and_second_writers_are_named() {
        let mut newest = (0, String::new());
        let written = judge(&mut newest, "3 n1 1\n5 n2 1\n3 n1 2\n3 n1 3\n5 n2 2\n5 n3 1\n").unwrap();
        let late = |node: &str, epoch, lines| Late { node: node.to_owned(), epoch, after: (5, "n2".to_owned()), lines };
        assert_eq!(written.late, [late("n1", 3, 2), late("n3", 5, 1)]);
        // The next reading remembers.
        assert_eq!(judge(&mut newest, "3 n1 4\n").unwrap().late, [late("n1", 3, 1)]);
        assert!(judge(&mut newest, "rubbish\n").is_err());
    }

    #[test]
    fn only_whole_lines_are_read() {
        let path = std::env::temp_dir().join(format!("clusterctl-workload-{}", std::process::id()));
        let mut workload = Workload::new(path.clone()).unwrap();
        std::fs::write(&path, "1 n1 1\n1 n1").unwrap();
        assert_eq!(workload.read().unwrap().lines, 1);
        std::fs::write(&path, "1 n1 1\n1 n1 2\n").unwrap();
        assert_eq!(workload.read().unwrap().lines, 1);
        std::fs::remove_file(&path).unwrap();
    }
}
