//! One slot of a lock or semaphore on this node.

use std::collections::BTreeMap;

use cluster_lease::time::Time;
use cluster_lease::types::{Epoch, NodeName};

use super::QUEUE_MAX;
use super::core::{Id, NOTE_TTL};
use super::note::Told;

/// Where it stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum State {
    /// Not wanted.
    #[default]
    Idle,
    /// Asked for, once.
    Asking,
    /// Another has it; asked for when it is free.
    Waiting,
    /// A process here has it.
    Held { id: Id, epoch: Epoch },
    /// Lost; its process was told and has not let go yet.
    Ended {
        id: Id,
        epoch: Epoch,
        /// By then the voters' grants are over too.
        until: Time,
    },
}

#[derive(Debug, Default)]
pub(super) struct Place {
    pub(super) state: State,
    /// Who has it, as far as this node heard.
    pub(super) holder: Option<NodeName>,
    /// All claims in their order: kept here by the holder's node, as told by it elsewhere.
    pub(super) queue: Vec<Told>,
    /// When nodes with claims in the queue said so.
    pub(super) heard: BTreeMap<NodeName, Time>,
    /// The queue that was told last.
    pub(super) told: Vec<Told>,
    /// The claims that were told to the holder last.
    pub(super) announced: Vec<Id>,
}

impl Place {
    pub(super) const fn held(&self) -> Option<(Id, Epoch)> {
        match self.state {
            State::Held { id, epoch } => Some((id, epoch)),
            _ => None,
        }
    }

    /// Whether this process has it, or had it until it was lost.
    pub(super) fn is_of(&self, claim: Id) -> bool {
        matches!(self.state, State::Held { id, .. } | State::Ended { id, .. } if id == claim)
    }

    /// These are the claims of a node: those that are known keep their places, the new ones come last.
    pub(super) fn merge(&mut self, node: &NodeName, claims: &[Id]) {
        self.queue.retain(|told| told.node != *node || claims.contains(&told.claim));
        for claim in claims {
            let known = self.queue.iter().any(|told| told.node == *node && told.claim == *claim);
            if !known && self.queue.len() < QUEUE_MAX {
                self.queue.push(Told { node: node.clone(), claim: *claim });
            }
        }
    }

    /// The queue as the holder's node says it is.
    pub(super) fn take_queue(&mut self, mut queue: Vec<Told>) {
        queue.truncate(QUEUE_MAX);
        self.queue = queue;
    }

    /// The nodes in the order of their first claims; this node comes last where it has none.
    pub(super) fn order(&self, me: &NodeName) -> Vec<NodeName> {
        let mut order: Vec<NodeName> = Vec::new();
        for node in self.queue.iter().map(|told| &told.node).chain([me]) {
            if !order.contains(node) {
                order.push(node.clone());
            }
        }
        order
    }

    /// Nodes that have not said for long that they wait do not.
    pub(super) fn forget_silent(&mut self, me: &NodeName, now: Time) {
        self.heard.retain(|_, at| now - *at < NOTE_TTL);
        let heard = &self.heard;
        self.queue.retain(|told| told.node == *me || heard.contains_key(&told.node));
    }
}
