//! Makes the threads of a node stand still, as a frozen machine does: each of its runtimes of one thread is given a task that blocks it.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use tokio::runtime::Handle;

/// Which threads stand still.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Still {
    /// None.
    #[default]
    No,
    /// All but the guard.
    Agent,
    /// All.
    All,
}

/// Stops and lets go.
#[derive(Debug, Default)]
pub struct Freeze {
    still: Mutex<Still>,
    changed: Condvar,
    runtimes: Mutex<Vec<Handle>>,
}

impl Freeze {
    fn still(&self) -> MutexGuard<'_, Still> {
        self.still.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A runtime of one thread that belongs to the node.
    pub fn add(self: &Arc<Self>, runtime: Handle) {
        self.runtimes.lock().unwrap_or_else(PoisonError::into_inner).push(runtime);
    }

    /// Which stand still.
    #[must_use]
    pub fn get(&self) -> Still {
        *self.still()
    }

    /// Says which are to stand still. Threads that run on do so at once, those that are to stop do at their next turn.
    pub fn set(self: &Arc<Self>, still: Still) {
        let before = std::mem::replace(&mut *self.still(), still);
        self.changed.notify_all();
        if before == Still::No && still != Still::No {
            for runtime in self.runtimes.lock().unwrap_or_else(PoisonError::into_inner).iter() {
                let freeze = Arc::clone(self);
                // A runtime that ended needs no stopping.
                drop(runtime.spawn(async move { freeze.wait(Still::Agent) }));
            }
        }
    }

    /// Blocks the thread while at least so much is to stand still.
    pub fn wait(&self, at_least: Still) {
        let mut still = self.still();
        while *still >= at_least {
            still = self.changed.wait(still).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
