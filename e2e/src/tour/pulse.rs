//! A client that never stops asking: who answers at an address, from when until when.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::view::{Said, ask};
use crate::error::{LabError, Result};
use crate::lab::Lab;

/// Between the end of one request and the start of the next.
const PAUSE: Duration = Duration::from_millis(10);
/// Answers of different processes that are kept; one that changes more often is broken, not interesting.
const STRETCHES_MAX: usize = 1000;

/// Consecutive answers of one process in one role.
#[derive(Debug, Clone)]
pub struct Stretch {
    /// Who answered.
    pub who: Said,
    /// The first answer.
    pub first: Instant,
    /// The latest.
    pub last: Instant,
    /// How many answers.
    pub answers: usize,
    /// The longest time between two of them.
    pub gap: Duration,
}

#[derive(Debug, Default)]
struct Record {
    stretches: Vec<Stretch>,
    stop: bool,
}

/// Asks again and again from the client's side of the network until it is dropped.
#[derive(Debug)]
pub struct Pulse {
    record: Arc<Mutex<Record>>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Pulse {
    /// Starts asking the demo program behind `addr`.
    #[must_use]
    pub fn start(lab: &Lab, addr: SocketAddr) -> Self {
        let record = Arc::new(Mutex::new(Record::default()));
        let (lab, shared) = (lab.clone(), Arc::clone(&record));
        let thread = thread::spawn(move || lab.as_client(|| ask_until_stopped(addr, &shared)));
        Self { record, thread: Some(thread) }
    }

    /// Who answered so far, in order.
    #[must_use]
    pub fn stretches(&self) -> Vec<Stretch> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner).stretches.clone()
    }

    /// The latest answers, if there are any.
    ///
    /// # Errors
    /// A text for a wait.
    pub fn latest(&self) -> Result<Stretch, String> {
        self.stretches().pop().ok_or_else(|| "nothing has answered yet".to_owned())
    }

    /// Ends the asking.
    ///
    /// # Errors
    /// [`LabError`] when the client's namespace could not be entered.
    pub fn stop(mut self) -> Result<Vec<Stretch>> {
        self.end()?;
        Ok(self.stretches())
    }

    fn end(&mut self) -> Result<()> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner).stop = true;
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(entered)) => entered,
            Some(Err(_)) => Err(LabError::Invalid("the asking thread panicked".to_owned())),
            None => Ok(()),
        }
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        let _reported_by_stop = self.end();
    }
}

fn ask_until_stopped(addr: SocketAddr, shared: &Mutex<Record>) {
    loop {
        let answer = ask(addr);
        let mut record = shared.lock().unwrap_or_else(PoisonError::into_inner);
        if record.stop {
            return;
        }
        if let Ok(who) = answer {
            note(&mut record.stretches, who, Instant::now());
        }
        drop(record);
        thread::sleep(PAUSE);
    }
}

fn note(stretches: &mut Vec<Stretch>, who: Said, now: Instant) {
    if let Some(stretch) = stretches.last_mut().filter(|stretch| stretch.who == who) {
        stretch.gap = stretch.gap.max(now.saturating_duration_since(stretch.last));
        stretch.last = now;
        stretch.answers = stretch.answers.saturating_add(1);
    } else if stretches.len() < STRETCHES_MAX {
        stretches.push(Stretch { who, first: now, last: now, answers: 1, gap: Duration::ZERO });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_epoch_or_process_begins_a_stretch() {
        let said = |pid: u32, epoch: u64| -> Said {
            let text = format!(r#"{{"node":"n1","app":"db","pid":{pid},"startedAt":"-","role":"Active","epoch":{epoch}}}"#);
            serde_json::from_str(&text).unwrap()
        };
        let mut stretches = Vec::new();
        let start = Instant::now();
        for (at, pid, epoch) in [(0, 1, 1), (10, 1, 1), (50, 1, 1), (60, 1, 2), (70, 2, 2)] {
            note(&mut stretches, said(pid, epoch), start + Duration::from_millis(at));
        }
        let seen: Vec<_> = stretches.iter().map(|s| (s.answers, s.gap.as_millis(), (s.last - s.first).as_millis())).collect();
        assert_eq!(seen, [(3, 40, 50), (1, 0, 0), (1, 0, 0)]);
    }
}
