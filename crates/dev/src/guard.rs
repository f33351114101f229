//! The guard of a node: the same rounds over the same table as on a real one, in a thread, with processes in the place of cgroups.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use cluster_fence::{Guard, GuardedVip, Hands, Table};
use nix::sys::signal::Signal;
use tracing::warn;

use crate::freeze::{Freeze, Still};
use crate::processes::shared::Shared;
use crate::switch::Switch;

/// What the guard does on a laptop.
#[derive(Debug)]
struct Laptop {
    node: String,
    services: Arc<Shared>,
    switch: Arc<Switch>,
}

impl Hands for Laptop {
    fn is_populated(&mut self, unit: &[u8]) -> bool {
        self.services.of_control_group(unit).is_some_and(|unit| unit.is_populated())
    }

    fn kill(&mut self, unit: &[u8]) -> bool {
        let group = self.services.of_control_group(unit).and_then(|unit| unit.group());
        group.is_some_and(|group| group.signal(Signal::SIGKILL) > 0)
    }

    fn remove(&mut self, vip: &GuardedVip) -> bool {
        self.switch.release(&self.node, vip.address)
    }
}

/// A guard that runs.
#[derive(Debug)]
pub struct Running {
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

/// Starts the guard of a node.
///
/// # Errors
/// The system's, where there is no thread to be had.
pub fn start(services: Arc<Shared>, switch: Arc<Switch>, freeze: Arc<Freeze>) -> std::io::Result<Running> {
    let (stop, rounds) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&rounds));
    let node = services.node.name.clone();
    let table = Arc::clone(&services.node.table);
    let mut guard = Guard::with(Laptop { node: node.clone(), services, switch });
    let body = move || {
        while !stopped.load(Ordering::Acquire) {
            freeze.wait(Still::All);
            let round = guard.round(&table);
            counted.fetch_add(1, Ordering::AcqRel);
            if !round.is_quiet() {
                let late_us = round.lateness.0 / 1_000;
                warn!(node, fenced = round.fenced, killed = round.killed, removed = round.removed, late_us, "fenced");
            }
            pause(&guard, &table);
        }
    };
    let thread = std::thread::Builder::new().name("guard".to_owned()).spawn(body)?;
    Ok(Running { stop, rounds, thread })
}

fn pause(guard: &Guard<Laptop>, table: &Table) {
    std::thread::sleep(guard.pause(table));
}

impl Running {
    /// How many rounds it has made.
    #[must_use]
    pub fn rounds(&self) -> u64 {
        self.rounds.load(Ordering::Acquire)
    }

    /// Ends it and waits for that. It must not stand still.
    pub fn stop(self) {
        self.stop.store(true, Ordering::Release);
        // One that panicked is ended, too.
        let _ended = self.thread.join();
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::os::unix::process::CommandExt as _;
    use std::process::{Child, Command};
    use std::time::Duration;

    use cluster_fence::TABLE;

    use super::*;
    use crate::kernel::{Group, MARK, stat};
    use crate::processes::shared::{self, control_group};

    const UNIT: &str = "clusterctl-a.service";

    fn laptop(folder: &std::path::Path) -> Laptop {
        let node = shared::Node {
            name: "n1".to_owned(),
            address: IpAddr::from([127, 0, 0, 1]),
            programs: folder.to_owned(),
            logs: folder.to_owned(),
            records: folder.to_owned(),
            token: "t".to_owned(),
            table: Arc::new(Table::open(&folder.join(TABLE), 1).expect("a table")),
        };
        Laptop { node: "n1".to_owned(), services: Shared::new(node), switch: Switch::new([127, 78]) }
    }

    fn started(laptop: &Laptop) -> Child {
        let mark = format!("guard-test-{}", std::process::id());
        let child = Command::new("/bin/sleep").arg("600").env(MARK, &mark).process_group(0).spawn().expect("a process");
        let leader = i32::try_from(child.id()).expect("a process id");
        let group = Group { leader, started: stat(leader).expect("the process").started, mark };
        laptop.services.unit(UNIT).set(|inner| inner.group = Some(group));
        child
    }

    #[test]
    fn what_the_table_names_is_seen_and_killed_frozen_or_not() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut laptop = laptop(folder.path());
        let place = control_group(UNIT).into_bytes();
        assert!(!laptop.is_populated(&place) && !laptop.kill(&place) && !laptop.is_populated(b""), "nothing was started");
        for frozen in [false, true] {
            let mut child = started(&laptop);
            assert!(laptop.is_populated(&place));
            if frozen {
                laptop.services.signal_all(Signal::SIGSTOP);
            }
            assert!(laptop.kill(&place));
            child.wait().expect("it ended");
            assert!(!laptop.is_populated(&place));
        }
    }

    #[test]
    fn an_address_is_taken_from_this_node_only() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut laptop = laptop(folder.path());
        let address = IpAddr::from([10, 0, 0, 100]);
        let vip = GuardedVip { address, prefix: 32, interface: 1, word: None };
        let valid = Duration::from_secs(60);
        laptop.switch.hold("n2", "eth0", address, valid).expect("held");
        assert!(!laptop.remove(&vip));
        laptop.switch.hold("n1", "eth0", address, valid).expect("held");
        assert!(laptop.remove(&vip) && !laptop.remove(&vip));
        assert_eq!(laptop.switch.holders()[&address], "n2");
    }
}
