//! A voter that returns asks before it answers (B5).
//!
//! While a voter was away its set may have been followed by others. That is harmless as long as each set was agreed to by a majority of the one
//! before. After `voters force` it is not: the voters that were declared dead are a majority of their old set, and together they would grant what the
//! new one grants too. So whoever hears of a later set leaves its own, and a voter that boots asks for one while it waits anyway (rule V6):
//! the other voters of its set, and the store. Where nobody tells of a later set there is none to be known of, and it goes on in its own.

use std::sync::Arc;

use cluster_bus::{Bucket, Bus, Change, Kv};
use cluster_fence::clock;
use cluster_lease::message::{Message, SetAnswer, SetAsk, SetStep};
use cluster_lease::set::VoterSet;
use cluster_lease::time::{Span, Time};
use cluster_lease::types::VoterId;
use cluster_schemas::NodeStatus;
use cluster_schemas::node::VoterList;
use tokio::sync::watch;
use tracing::{debug, warn};

use super::LeaseHandle;
use super::host::Host;
use super::view::{Command, LeaseView, set_of};

/// How often the others are asked.
const ASK_EVERY: Span = Span::from_millis(250);

/// Whether voter `me`, whose set is `own`, has to leave that for `later`. What the store says counts only if the two have a voter in common: a
/// store may outlive the cluster that wrote it.
fn leaves(me: VoterId, own: Option<&VoterSet>, later: &VoterSet, from_store: bool) -> bool {
    let Some(own) = own else { return false };
    let concerned = own.has(me) || later.has(me);
    let akin = !from_store || later.members().iter().any(|member| own.members().contains(member));
    own.number() < later.number() && concerned && akin
}

impl Host {
    /// A voter that waits asks what the others are in.
    pub(super) fn begin_asking(&mut self) {
        let now = clock::now();
        self.state.asking = self.voter.waiting(now).map(|_| now);
    }

    pub(super) fn ask_for_later_sets(&mut self, now: Time) {
        if self.state.asking.is_none_or(|at| now < at) {
            return;
        }
        let journal = self.voter.journal();
        let set = journal.set.clone().filter(|_| self.voter.waiting(now).is_some());
        let me = journal.voter;
        self.state.asking = set.as_ref().map(|_| now + ASK_EVERY);
        for other in set.iter().flat_map(VoterSet::members).filter(|member| member.id != me) {
            let reply_to = self.node.name.clone();
            let ask = SetAsk { cluster: self.cluster, voter: other.id, reply_to, step: SetStep::Report };
            self.send(other.node.clone(), Message::SetAsk(ask));
        }
    }

    /// A voter told in which set it is.
    pub(super) fn others_are_in(&mut self, answer: &SetAnswer) {
        if answer.cluster == self.cluster
            && let Some(set) = &answer.installed
        {
            self.heard_of(set, false);
        }
    }

    /// This node's holder may have learned of a set by a refusal.
    pub(super) fn follow_holder(&mut self) {
        let known = self.holder.as_ref().map(|holder| holder.sets().current());
        if let Some(set) = known.filter(|set| leaves(self.voter.journal().voter, self.voter.journal().set.as_ref(), set, false)) {
            let set = set.clone();
            self.heard_of(&set, false);
        }
    }

    /// The store knows of a set.
    pub(super) fn store_knows(&mut self, list: &VoterList) {
        if let Some(set) = set_of(list) {
            self.heard_of(&set, true);
        }
    }

    /// Whoever installed a set vouches that it was agreed to, as a driver of the change does: this node's voter installs it too, durably, and
    /// refuses the earlier one from then on (B5.2).
    fn heard_of(&mut self, set: &VoterSet, from_store: bool) {
        let journal = self.voter.journal();
        if !leaves(journal.voter, journal.set.as_ref(), set, from_store) {
            return;
        }
        let own = journal.set.as_ref().map_or(0, |own| own.number().0);
        warn!(own, later = set.number().0, "there is a later set of voters: this node's voter leaves its own");
        let me = self.node.name.clone();
        let ask = SetAsk { cluster: self.cluster, voter: journal.voter, reply_to: me.clone(), step: SetStep::Install(set.clone()) };
        self.send(me, Message::SetAsk(ask));
    }
}

/// Tells the lease host what sets the store knows of, if its voter has just booted. Best effort: leases wait for no store.
pub async fn tell_of_sets(bus: Bus, leases: LeaseHandle, mut views: watch::Receiver<Arc<LeaseView>>) {
    let waits = match views.wait_for(|view| !view.voter.is_empty()).await {
        Ok(view) => view.waits,
        Err(_) => return,
    };
    if !waits {
        return;
    }
    let kv: Kv<NodeStatus> = bus.open(Bucket::Status).await;
    let mut statuses = kv.watch("node.*");
    while let Some(change) = statuses.next().await {
        let Change::Listed(all) = change else { continue };
        let newest = all.into_values().filter_map(|status| status.value.voters).max_by_key(|list| list.number);
        debug!(newest = newest.as_ref().map_or(0, |list| list.number), "the store was asked for voter sets");
        if let Some(list) = newest {
            leases.ask(Command::HeardVoters(list)).await;
        }
        return;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cluster_lease::set::Member;
    use cluster_lease::types::{NodeName, SetNo};

    fn set(number: u64, members: &[u128]) -> VoterSet {
        let member = |id: &u128| Member { id: VoterId(*id), node: NodeName::new(&format!("n{id}")).expect("a name") };
        VoterSet::new(SetNo(number), members.iter().map(member).collect()).expect("a set")
    }

    #[test]
    fn b5_whoever_hears_of_a_later_set_leaves_its_own() {
        let own = set(3, &[1, 2, 3]);
        let leaves = |later: &VoterSet, from_store| leaves(VoterId(2), Some(&own), later, from_store);
        // Forced by voter 1, which vouched that 2 and 3 are dead.
        assert!(leaves(&set(5, &[1]), false) && leaves(&set(5, &[1]), true));
        assert!(leaves(&set(9, &[2, 7, 8]), true), "it still votes, in a later one");
        assert!(!leaves(&set(3, &[1, 2, 4]), false) && !leaves(&set(2, &[1]), false), "not a later one");
        assert!(!leaves(&set(9, &[7, 8]), true), "a store that has no voter in common is another cluster's");
        assert!(leaves(&set(9, &[7, 8]), false), "a voter of this cluster says so");
    }

    #[test]
    fn b5_who_has_no_set_or_no_vote_leaves_none() {
        assert!(!leaves(VoterId(2), None, &set(5, &[1]), false));
        assert!(!leaves(VoterId(4), Some(&set(3, &[1, 2, 3])), &set(5, &[1]), false));
    }
}
