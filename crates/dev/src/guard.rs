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
