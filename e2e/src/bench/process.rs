//! What a process of a node costs, as the kernel counts it.

use std::fs;
use std::time::Duration;

use crate::error::{Context, LabError, Result};
use crate::lab::Lab;
use crate::names::NodeId;

/// Linux counts processor time in hundredths of a second wherever it shows it in /proc.
const TICK: Duration = Duration::from_millis(10);

/// Memory in MiB.
#[derive(Debug, Clone, Copy)]
pub(super) struct Memory {
    pub(super) rss: f64,
    pub(super) anon: f64,
    pub(super) pss: f64,
}

/// The process of a service with one process, by the host's number.
pub(super) fn main_pid(lab: &Lab, node: NodeId, service: &str) -> Result<u32> {
    let pids = lab.cgroups.service(node, service);
    match pids.as_slice() {
        [pid] => Ok(*pid),
        others => Err(LabError::Invalid(format!("{service} of {node} has the processes {others:?}"))),
    }
}

fn read(pid: u32, file: &str) -> Result<String> {
    let path = format!("/proc/{pid}/{file}");
    fs::read_to_string(&path).context(|| format!("read {path}"))
}

/// The memory of a process.
pub(super) fn memory(pid: u32) -> Result<Memory> {
    let (status, rollup) = (read(pid, "status")?, read(pid, "smaps_rollup")?);
    let mib = |text: &str, key: &str| {
        let found = text.lines().find_map(|line| line.strip_prefix(key)?.split_whitespace().next()?.parse::<f64>().ok());
        found.map(|kib| kib / 1024.0).ok_or_else(|| LabError::Invalid(format!("the kernel says no {key} of process {pid}")))
    };
    Ok(Memory { rss: mib(&status, "VmRSS:")?, anon: mib(&status, "RssAnon:")?, pss: mib(&rollup, "Pss:")? })
}

/// Processor time so far.
pub(super) fn cpu(pid: u32) -> Result<Duration> {
    ticks(&read(pid, "stat")?).ok_or_else(|| LabError::Invalid(format!("the kernel says no processor time of process {pid}")))
}

/// Processor time so far of a process' threads of this name.
pub(super) fn thread_cpu(pid: u32, name: &str) -> Result<Duration> {
    let path = format!("/proc/{pid}/task");
    let mut sum = Duration::ZERO;
    for thread in fs::read_dir(&path).context(|| format!("read {path}"))?.flatten() {
        let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        if stat.contains(&format!("({name})")) {
            sum += ticks(&stat).unwrap_or_default();
        }
    }
    Ok(sum)
}

/// User and system time of a `stat`: fields 14 and 15, counted from behind the name, which may hold anything.
fn ticks(stat: &str) -> Option<Duration> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let (user, system): (u32, u32) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(TICK * (user + system))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_read_behind_any_name() {
        let stat = "7 (a) b) R 1 7 7 0 -1 4194304 1 0 0 0 12 30 0 0 20 0 1 0 1 1 1";
        assert_eq!(ticks(stat), Some(Duration::from_millis(420)));
        assert_eq!(ticks("7 (x"), None);
    }

    #[test]
    fn the_memory_of_this_process_is_known() {
        let memory = memory(std::process::id()).unwrap();
        assert!(memory.rss >= memory.anon && memory.pss > 0.0 && memory.pss <= memory.rss, "{memory:?}");
        assert!(cpu(std::process::id()).is_ok());
    }
}
