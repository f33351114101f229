//! The worker's side of the App's database: opened with the App, ordered as decided, let go of with the App.

use std::collections::BTreeSet;
use std::future::pending;

use cluster_schemas::assignment::Role;
use cluster_schemas::node::AppObserved;
use tokio::sync::watch;
use tracing::info;

use super::Worker;
use super::decide::{Seen, SeenDatabase};
use super::target::Desired;
use crate::database::place::Owner;
use crate::database::{Database, Name, Order, Stage, View, Wish};
use crate::drivers::{Units, Vips};

#[derive(Debug)]
struct Open {
    name: Name,
    database: Database,
    view: watch::Receiver<View>,
}

/// The database of one App, if it has one.
#[derive(Debug, Default)]
pub(super) struct Lead {
    open: Option<Open>,
    /// The first epoch in which it could not be had here; what is taken up after that is kept, for nobody else could.
    left: Option<u64>,
}

impl Lead {
    /// Waits until something about it changes.
    pub(super) async fn changed(&mut self) {
        let over = match &mut self.open {
            Some(open) => open.view.changed().await.is_err(),
            None => true,
        };
        if over {
            pending::<()>().await;
        }
    }

    /// Lets go of it; its thread ends.
    pub(super) fn close(&mut self) {
        *self = Self::default();
    }

    fn view(&mut self) -> Option<View> {
        self.open.as_mut().map(|open| open.view.borrow_and_update().clone())
    }

    /// Whether this node could not go on with it, and the epoch that is better given to another.
    pub(super) fn standing(&mut self) -> (bool, u64) {
        let Some(view) = self.view() else { return (false, 0) };
        match view.stage {
            Stage::Failed(epoch) => {
                self.left.get_or_insert(epoch);
            }
            stage if stage.open().is_some() => self.left = None,
            _ => {}
        }
        (!view.fit, self.left.unwrap_or(0))
    }
}

fn wanted(app: &str, desired: &Desired) -> Option<(Name, Owner)> {
    let entry = &desired.entry;
    let spec = entry.run.database.as_ref().filter(|_| entry.role != Role::Absent)?;
    let exec = entry.run.exec.as_ref();
    // Without a user of its own a command of ours runs as root; of a unit of others only the folder tells.
    let user = exec.map(|exec| exec.user.clone().unwrap_or_else(|| "0".to_owned()));
    let owner = Owner { group: exec.and_then(|exec| exec.group.clone()), user };
    Some((Name { app: app.to_owned(), uid: entry.uid.clone(), path: spec.path.clone().into() }, owner))
}

impl<U: Units, V: Vips> Worker<U, V> {
    /// Opens what the App has, and takes in what is seen of it.
    pub(super) fn tend_database(&mut self, desired: &Desired, seen: &mut Seen) {
        let wanted = wanted(&self.parts.app, desired);
        let other = self.database.open.as_ref().is_some_and(|open| wanted.as_ref().is_none_or(|(name, _)| open.name != *name));
        let in_tenure = self.database.view().is_some_and(|view| view.stage.in_tenure());
        if other && !in_tenure {
            self.database.close();
        }
        if self.database.open.is_none()
            && let Some((name, owner)) = wanted
            && let Some(database) = self.parts.databases.open(&name, owner)
        {
            self.database.open = Some(Open { name, view: database.view(), database });
        }
        let order = self.database.open.as_ref().map(|open| open.database.wish().order).unwrap_or_default();
        seen.database = self.database.view().map(|view| SeenDatabase { stage: view.stage, order, other: other && in_tenure });
        // Who its peers are, and what is asked of it, changes without an order.
        self.order_database(desired, order);
    }

    /// Puts what is known of it into a report; what keeps it from being active is what there is to say.
    pub(super) fn report_database(&mut self, observed: &mut AppObserved) {
        let Some(view) = self.database.view() else { return };
        if observed.message.is_empty() && matches!(view.stage, Stage::Promoting(_) | Stage::Failed(_) | Stage::Refused(_) | Stage::Closed) {
            observed.message.clone_from(&view.observed.message);
        }
        observed.database = Some(view.observed);
    }

    /// Gives an order; the same one again brings it up to date.
    pub(super) fn order_database(&mut self, desired: &Desired, order: Order) {
        let Some(open) = &self.database.open else { return };
        let entry = &desired.entry;
        let peers: BTreeSet<String> = entry.peers.iter().chain(&entry.candidates).filter(|n| **n != self.parts.node).cloned().collect();
        let spec = entry.run.database.as_ref();
        let (confirm, max_lag) = (spec.and_then(|s| s.confirm).unwrap_or(0), spec.and_then(|s| s.max_lag));
        if open.database.wish().order != order {
            info!(app = self.parts.app, ?order, "database");
        }
        open.database.order(Wish { order, peers, confirm, max_lag });
    }
}
