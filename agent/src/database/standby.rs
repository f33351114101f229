//! A replica takes what the active says.

use cluster_bus::DatabaseMessage;
use cluster_replica::host::HostError;
use cluster_replica::lineage::{Corruption, Position};
use cluster_replica::role::{MemberError, Received};

use super::Stage;
use super::fetch::Fetch;
use super::task::{Heard, Task};
use super::wire::{Confirm, Head, RECORD, json, read};

/// Most messages that are taken before what they brought is made durable, applied and confirmed.
const TOGETHER: usize = 256;

impl Task {
    /// Takes a live message, and those that came with it.
    pub(super) fn take_live(&mut self, first: DatabaseMessage) {
        let mut message = Some(first);
        let (mut brought, mut taken) = (false, 0);
        while let Some(next) = message {
            // Records that come while something is fetched are fetched too.
            if next.from != self.setup.link.node() && self.stage == Stage::Standby {
                brought |= self.take_one(&next);
            }
            taken += 1;
            message = if taken < TOGETHER { self.next_live() } else { None };
        }
        if brought {
            self.settle();
        }
    }

    /// Whether something came that is to be made durable.
    fn take_one(&mut self, message: &DatabaseMessage) -> bool {
        let Some(host) = &mut self.host else { return false };
        if !message.payload.starts_with(RECORD) {
            let head = read::<Head>(&message.payload).filter(|head| head.db == self.db.to_string());
            if let Some(head) = head.filter(|head| head.place.epoch >= host.member().noted()) {
                self.hear(&message.from, head.place.into(), true);
            }
            return false;
        }
        if message.payload.get(8..24) != Some(self.db.0.as_slice()) {
            return false;
        }
        if self.fetch.is_some() {
            return false;
        }
        match host.receive(&message.payload) {
            Ok(Received::Appended(at)) => {
                self.hear(&message.from, at, true);
                true
            }
            Ok(Received::Partial | Received::Known | Received::Refused { .. }) => false,
            Ok(Received::Behind) => {
                // How far behind is not known yet, only who knows.
                let mine = host.member().position();
                let noted = host.member().noted();
                self.hear(&message.from, Position { epoch: noted, tx: mine.tx + 1, checksum: 0 }, false);
                false
            }
            Err(HostError::Member(MemberError::Decode(_))) => false,
            Err(error) => {
                self.close(&error);
                false
            }
        }
    }

    /// `sure`: the sender said so itself. What it says comes in order, so the newest counts.
    pub(super) fn hear(&mut self, node: &str, place: Position, sure: bool) {
        let before = self.heard.as_ref().filter(|h| !sure && h.node == node).map(|h| h.place);
        let place = before.filter(|before| (before.epoch, before.tx) > (place.epoch, place.tx)).unwrap_or(place);
        self.heard = Some(Heard { node: node.to_owned(), place });
    }

    /// Makes durable what came, applies it, and confirms it.
    pub(super) fn settle(&mut self) {
        let Some(host) = &mut self.host else { return };
        match host.settle() {
            Ok(_) => self.confirm(),
            Err(error) => self.close(&error),
        }
    }

    /// Says what is here; what may not be counted (rule D4) only says that this replica lives.
    pub(super) fn confirm(&self) {
        let Some(host) = &self.host else { return };
        let (place, noted) = (host.member().position(), host.member().noted());
        let confirm = Confirm { db: self.db.to_string(), place: place.into(), counts: place.epoch == noted };
        let subject = self.setup.link.names().database_confirm(self.app(), self.setup.link.node());
        self.say(subject, json(&confirm));
    }

    /// A replica that is behind asks the active.
    pub(super) async fn catch_up(&mut self) {
        if self.fetch.is_some() || self.ask_after.is_some() {
            return;
        }
        let (Some(host), Some(heard)) = (&self.host, &self.heard) else { return };
        let at = host.member().position();
        let same = (at.epoch, at.tx) == (heard.place.epoch, heard.place.tx);
        if same && heard.place.checksum != 0 && at.checksum != heard.place.checksum {
            let found = Corruption { epoch: at.epoch, tx: at.tx, left: at.checksum, right: heard.place.checksum };
            self.host_failed(&HostError::Member(MemberError::Corrupt(found)));
            return;
        }
        if host.applied().is_none() || self.wants_snapshot {
            let node = heard.node.clone();
            self.fetch = Fetch::snapshot(self, &node).await;
        } else if (at.epoch, at.tx) < (heard.place.epoch, heard.place.tx) || (at.tx > heard.place.tx && at.epoch < heard.place.epoch) {
            let node = heard.node.clone();
            self.fetch = Fetch::tail(self, &node).await;
        } else if self.trouble.is_some() && self.retry_at.is_none() {
            self.well();
        }
    }
}
