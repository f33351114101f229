//! Who waits for which job of systemd. Pure.
//!
//! A job's end may be heard before the answer that names it: the two come by different ways. So the latest ends are kept for a while.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// How many ends of jobs are kept for those who ask late. They ask within the time of one answer.
const RECENT_MAX: usize = 512;

/// The jobs of one connection.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    board: Mutex<Board>,
}

#[derive(Debug, Default)]
struct Board {
    /// By the job's object path. Several may wait for one job: systemd merges equal requests.
    waiting: BTreeMap<String, Vec<oneshot::Sender<String>>>,
    recent: VecDeque<(String, String)>,
    closed: bool,
}

impl Jobs {
    /// Gets the job's result once it ends; an error if the connection is lost before.
    pub(super) fn result_of(&self, job: &str) -> oneshot::Receiver<String> {
        let (sender, receiver) = oneshot::channel();
        let mut board = self.board();
        // Those who gave up waiting.
        board.waiting.retain(|_, senders| {
            senders.retain(|sender| !sender.is_closed());
            !senders.is_empty()
        });
        if let Some((_, result)) = board.recent.iter().find(|(ended, _)| ended == job) {
            // The receiver is in our hands, so it takes it.
            let _ = sender.send(result.clone());
        } else if !board.closed {
            board.waiting.entry(job.to_owned()).or_default().push(sender);
        }
        receiver
    }

    /// A job ended.
    pub(super) fn ended(&self, job: &str, result: &str) {
        let mut board = self.board();
        for sender in board.waiting.remove(job).unwrap_or_default() {
            // Who gave up waiting meanwhile does not want it.
            let _ = sender.send(result.to_owned());
        }
        if board.recent.len() >= RECENT_MAX {
            board.recent.pop_front();
        }
        board.recent.push_back((job.to_owned(), result.to_owned()));
    }

    /// Nothing more will be heard.
    pub(super) fn close(&self) {
        let mut board = self.board();
        board.closed = true;
        board.waiting.clear();
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_reaches_all_who_wait_and_those_who_ask_late() {
        let jobs = Jobs::default();
        let (mut one, mut two, mut other) = (jobs.result_of("/job/1"), jobs.result_of("/job/1"), jobs.result_of("/job/2"));
        jobs.ended("/job/1", "done");
        assert_eq!(one.try_recv().unwrap(), "done");
        assert_eq!(two.try_recv().unwrap(), "done");
        assert_eq!(jobs.result_of("/job/1").try_recv().unwrap(), "done");
        assert_eq!(other.try_recv().unwrap_err(), oneshot::error::TryRecvError::Empty);
    }

    #[test]
    fn a_lost_connection_ends_all_waiting() {
        let jobs = Jobs::default();
        let mut before = jobs.result_of("/job/1");
        jobs.close();
        let mut after = jobs.result_of("/job/2");
        assert_eq!(before.try_recv().unwrap_err(), oneshot::error::TryRecvError::Closed);
        assert_eq!(after.try_recv().unwrap_err(), oneshot::error::TryRecvError::Closed);
    }

    #[test]
    fn nothing_grows_without_bound() {
        let jobs = Jobs::default();
        for number in 0..2 * RECENT_MAX {
            drop(jobs.result_of(&format!("/waiting/{number}")));
            jobs.ended(&format!("/ended/{number}"), "done");
        }
        assert!(jobs.board().recent.len() <= RECENT_MAX);
        assert!(jobs.board().waiting.len() <= 1);
    }
}
