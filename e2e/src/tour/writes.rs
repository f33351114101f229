//! A client that never stops writing, and its ledger: which writes were acknowledged, and which of them are there afterwards.

use std::collections::BTreeSet;
use std::io::{self, Read as _, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::failure::{Expected, Failure};
use super::paper::time;
use super::platform::VIP;
use super::steps::Tour;
use super::view::clusterctl;
use crate::error::{LabError, Result};
use crate::lab::Lab;
use crate::wait::wait_until;

/// Between the end of one write and the start of the next.
const PAUSE: Duration = Duration::from_millis(5);
/// Longest time for one write.
const LIMIT: Duration = Duration::from_millis(500);
/// Longest answer.
const ANSWER_MAX: u64 = 64 * 1024;
/// The notes are read within this.
const SOON: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
struct Ledger {
    acknowledged: Vec<u32>,
    stop: bool,
}

/// Writes notes through the VIP, numbered, from the client's side of the network until it is dropped.
#[derive(Debug)]
pub struct Writes {
    ledger: Arc<Mutex<Ledger>>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Writes {
    /// Starts writing.
    #[must_use]
    pub fn start(lab: &Lab) -> Self {
        let ledger = Arc::new(Mutex::new(Ledger::default()));
        let (lab, shared) = (lab.clone(), Arc::clone(&ledger));
        let thread = thread::spawn(move || lab.as_client(|| write_until_stopped(&shared)));
        Self { ledger, thread: Some(thread) }
    }

    /// How many were acknowledged so far.
    #[must_use]
    pub fn count(&self) -> usize {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner).acknowledged.len()
    }

    /// Ends the writing: what was acknowledged, in order.
    ///
    /// # Errors
    /// [`LabError`] when the client's namespace could not be entered.
    pub fn stop(mut self) -> Result<Vec<u32>> {
        self.end()?;
        Ok(std::mem::take(&mut self.ledger.lock().unwrap_or_else(PoisonError::into_inner).acknowledged))
    }

    fn end(&mut self) -> Result<()> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner).stop = true;
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(entered)) => entered,
            Some(Err(_)) => Err(LabError::Invalid("the writing thread panicked".to_owned())),
            None => Ok(()),
        }
    }
}

impl Drop for Writes {
    fn drop(&mut self) {
        let _reported_by_stop = self.end();
    }
}

fn write_until_stopped(shared: &Mutex<Ledger>) {
    for number in 0_u32.. {
        let written = post(VIP, &format!("write {number}"));
        let mut ledger = shared.lock().unwrap_or_else(PoisonError::into_inner);
        if ledger.stop {
            return;
        }
        if written.is_ok_and(|created| created) {
            ledger.acknowledged.push(number);
        }
        drop(ledger);
        thread::sleep(PAUSE);
    }
}

fn post(addr: SocketAddr, text: &str) -> io::Result<bool> {
    let mut stream = TcpStream::connect_timeout(&addr, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    write!(stream, "POST /notes HTTP/1.0\r\nHost: {addr}\r\nContent-Length: {}\r\n\r\n{text}", text.len())?;
    let mut answer = String::new();
    stream.take(ANSWER_MAX).read_to_string(&mut answer)?;
    Ok(answer.starts_with("HTTP/1.0 201") || answer.starts_with("HTTP/1.1 201"))
}

/// The numbers of the writes that are in the database, and whether another follows a missing one.
fn numbers(body: &str) -> BTreeSet<u32> {
    body.lines().filter_map(|line| line.strip_prefix("write ")?.parse().ok()).collect()
}

/// What became of acknowledged writes: how many are there, and which are not.
fn missing(acknowledged: &[u32], there: &BTreeSet<u32>) -> Vec<u32> {
    acknowledged.iter().filter(|number| !there.contains(number)).copied().collect()
}

impl<W: Write> Tour<W> {
    /// A client writes all the time; everything up to a moment before the power cut is made sure of. How many writes that are.
    pub(super) fn make_sure(&mut self, lab: &Lab, writes: &Writes) -> Result<usize, Failure> {
        self.paper.step(&format!("A client writes notes into the database, http://{VIP}/notes"));
        let begun = Instant::now();
        let enough = || if writes.count() >= 100 { Ok(()) } else { Err(format!("{} are acknowledged", writes.count())) };
        wait_until("100 writes", SOON, enough).expected("100 writes are acknowledged")?;
        let sure = writes.count();
        let said = clusterctl(lab, &["db", "sync", "database"]).expected("what is committed is on a standby")?;
        self.paper.ran("clusterctl db sync database", &said);
        self.paper.seen(&format!("{sure} writes are acknowledged, and durable on a standby at least."), begun.elapsed());
        self.show(lab, &["db", "status", "database"])?;
        Ok(sure)
    }

    /// Which writes are there after the power cut.
    pub(super) fn count_writes(&mut self, lab: &Lab, writes: Writes, sure: usize) -> Result<(), Failure> {
        self.paper.step("Count the writes");
        let begun = Instant::now();
        let acknowledged = writes.stop().expected("the client writes")?;
        let read = || lab.http_get(VIP, "/notes/all").map_err(|error| error.chain());
        let reply = wait_until("the notes to be read", SOON, read).expected("the notes can be read")?;
        let there = numbers(&reply.body);
        let lost = missing(&acknowledged, &there);
        let before: Vec<u32> = acknowledged.iter().take(sure).copied().filter(|number| lost.contains(number)).collect();
        if !before.is_empty() {
            return Err(Failure::new("every write that was made sure of is there", format!("{before:?} are missing")));
        }
        let gap = lost.windows(2).any(|pair| acknowledged.iter().any(|n| pair[0] < *n && *n < pair[1]));
        if gap {
            return Err(Failure::new("what is missing was written last, right before the cut", format!("{lost:?} of {acknowledged:?}")));
        }
        let text =
            format!("{} writes were acknowledged, before the cut and after it; {} of them are not there", acknowledged.len(), lost.len());
        let text = match lost.as_slice() {
            [] => format!("{} writes were acknowledged, before the cut and after it; all of them are there.", acknowledged.len()),
            [first, .., last] => format!("{text}: {first} to {last}, acknowledged right before the cut and on no standby yet."),
            [one] => format!("{text}: {one}, acknowledged right before the cut and on no standby yet."),
        };
        self.paper.seen(&text, begun.elapsed());
        self.show(lab, &["db", "status", "database", "-o", "wide"])?;
        self.paper.remember(
            "acknowledged writes lost",
            lost.len(),
            &format!("of {}; none of the {sure} before clusterctl db sync, {} to read all", acknowledged.len(), time(begun.elapsed())),
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        let there = numbers("write 0\nwrite 1\nsomething else\nwrite 4\n");
        assert_eq!(there.iter().copied().collect::<Vec<_>>(), [0, 1, 4]);
        assert_eq!(missing(&[0, 1, 3, 4], &there), [3]);
    }
}
