//! Changing the voters (rules B5): every voter may drive a change towards the list that the leading controller asks for, one voter at a
//! time. The controller only says who should vote; what is a set is agreed on by the voters themselves.

use cluster_fence::clock;
use cluster_lease::change::{SetChange, Stage};
use cluster_lease::message::{Message, SetAnswer, SetAsk, SetStep};
use cluster_lease::set::{Member, VoterSet};
use cluster_lease::time::{Span, Time};
use cluster_lease::types::SetNo;
use cluster_schemas::node::VoterList;
use tracing::{info, warn};

use super::host::Host;
use super::view::set_of;

/// A voter begins this much later than the one before it in the set, so that as a rule one drives.
const APART: Span = Span::from_millis(3_000);
/// A change that comes to nothing for so long is dropped and begun anew.
const GIVE_UP: Span = Span::from_millis(60_000);

/// What the host knows of changes.
#[derive(Default)]
pub(super) struct Voting {
    /// Who should vote; none before a controller said.
    wanted: Option<Vec<Member>>,
    /// That was said since the present set was installed. What was said before may be what led to another one: a voter that has just joined
    /// by an order that it did not hear yet would lead the set back.
    told: bool,
    /// Since when this node could drive a change and none is under way.
    since: Option<Time>,
    change: Option<(SetChange, Time)>,
}

impl Voting {
    pub(super) fn want(&mut self, wanted: Vec<Member>) {
        self.told = true;
        if self.wanted.as_ref() != Some(&wanted) {
            self.wanted = Some(wanted);
            self.since = None;
        }
    }

    /// Another set is installed: a change to an earlier one leads nowhere.
    pub(super) fn installed(&mut self, number: SetNo) {
        self.told = false;
        if self.change.as_ref().is_some_and(|(change, _)| change.next().number() < number) {
            self.change = None;
            self.since = None;
        }
    }

    pub(super) fn next_wake(&self) -> Option<Time> {
        self.change.as_ref().and_then(|(change, _)| change.next_wake())
    }
}

/// The set after `current` on the way to `wanted`: one voter more or less. A voter is added before one is removed, unless its node already
/// votes under another id (it lost its memory) or the set is full.
#[must_use]
pub fn next_set(current: &VoterSet, wanted: &[Member]) -> Option<VoterSet> {
    let members = current.members();
    let number = SetNo(current.number().0 + 1);
    let stale = members.iter().find(|m| !wanted.contains(m) && wanted.iter().any(|w| w.node == m.node));
    let missing = wanted.iter().find(|w| !members.iter().any(|m| m.node == w.node));
    let surplus = members.iter().find(|m| !wanted.contains(m));
    let without = |gone: &Member| VoterSet::new(number, members.iter().filter(|m| *m != gone).cloned().collect()).ok();
    if let Some(joining) = missing {
        let more = VoterSet::new(number, members.iter().chain([joining]).cloned().collect());
        if let Ok(more) = more {
            return Some(more);
        }
    }
    stale.or(surplus).and_then(without)
}

impl Host {
    /// Begins, continues or ends a change of voters.
    pub(super) fn drive_voters(&mut self) {
        if self.state.silence.is_kept() {
            return;
        }
        let now = clock::now();
        if let Some((change, _)) = &mut self.state.voting.change {
            if change.next_wake().is_some_and(|at| at > now) {
                return;
            }
            let messages = change.handle(now, None);
            self.drive(now, messages);
            return;
        }
        let Some(next) = self.due_change(now) else { return };
        let (from, to) = next;
        match SetChange::new(self.cluster, self.node.name.clone(), from, to) {
            Ok(mut change) => {
                info!(number = change.next().number().0, voters = change.next().members().len(), "changing the voters");
                let messages = change.handle(now, None);
                self.state.voting.change = Some((change, now));
                self.drive(now, messages);
            }
            Err(error) => {
                warn!("the voters cannot be changed: {error}");
                self.state.voting.since = Some(now + APART);
            }
        }
    }

    /// What this voter should drive now, after its turn came: a change that was left half done, or the next step.
    fn due_change(&mut self, now: Time) -> Option<(VoterSet, VoterSet)> {
        let journal = self.voter.journal();
        let current = journal.set.clone()?;
        // A voter that was away may have skipped sets: it knows no pair of which one follows the other, and leaves the rest to those that do.
        let former = journal.former.clone().filter(|former| !journal.committed && former.check_next(&current).is_ok());
        let half_done = former.map(|former| (former, current.clone()));
        let wanted = self.state.voting.wanted.as_deref().filter(|_| self.state.voting.told);
        let next = half_done.or_else(|| {
            let promised = journal.prepared.as_ref().map(|word| word.set.clone());
            promised.or_else(|| next_set(&current, wanted?)).map(|next| (current.clone(), next))
        });
        let rank = current.members().iter().position(|m| m.id == journal.voter);
        let (Some(next), Some(rank)) = (next, rank) else {
            self.state.voting.since = None;
            return None;
        };
        let since = *self.state.voting.since.get_or_insert(now);
        (now - since >= APART.times(rank as u64)).then_some(next)
    }

    /// `voters force`: this node's voter, if it is one of those that are left, goes on in the set of these alone.
    pub(super) fn force_voters(&mut self, list: &VoterList) {
        let journal = self.voter.journal();
        let Some(next) = set_of(list).filter(|next| next.has(journal.voter)) else { return };
        if journal.set.as_ref().is_none_or(|set| set.number() >= next.number()) {
            return;
        }
        warn!(
            number = next.number().0,
            voters = next.members().len(),
            "an operator vouches that the other voters are dead: they count no more"
        );
        let me = self.node.name.clone();
        let ask = SetAsk { cluster: self.cluster, voter: journal.voter, reply_to: me.clone(), step: SetStep::Force(next) };
        self.send(me, Message::SetAsk(ask));
    }

    pub(super) fn voter_answered(&mut self, answer: &SetAnswer) {
        self.others_are_in(answer);
        let now = clock::now();
        let Some((change, _)) = &mut self.state.voting.change else { return };
        let messages = change.handle(now, Some(answer));
        self.drive(now, messages);
    }

    fn drive(&mut self, now: Time, messages: Vec<(cluster_lease::types::NodeName, cluster_lease::message::Message)>) {
        for (to, message) in messages {
            self.send(to, message);
        }
        let Some((change, began)) = &self.state.voting.change else { return };
        match change.stage() {
            Stage::Committed => info!(number = change.next().number().0, "the voters are changed"),
            Stage::Conflict => warn!("another change of voters is under way, it is looked at again"),
            _ if now - *began > GIVE_UP => warn!("the change of voters came to nothing, it is looked at again"),
            _ => return,
        }
        self.state.voting.change = None;
        self.state.voting.since = Some(now + APART);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cluster_lease::types::{NodeName, VoterId};

    fn member(node: &str, id: u128) -> Member {
        Member { id: VoterId(id), node: NodeName::new(node).expect("a name") }
    }

    fn set(number: u64, members: &[Member]) -> VoterSet {
        VoterSet::new(SetNo(number), members.to_vec()).expect("a set")
    }

    /// All sets on the way, as sizes, and the last one.
    fn walk(from: &[Member], wanted: &[Member]) -> (Vec<usize>, VoterSet) {
        let mut current = set(1, from);
        let mut sizes = Vec::new();
        while let Some(next) = next_set(&current, wanted) {
            assert_eq!(current.check_next(&next), Ok(()), "B5.1");
            sizes.push(next.members().len());
            current = next;
            assert!(sizes.len() < 20, "{current:?}");
        }
        (sizes, current)
    }

    #[test]
    fn b5_sets_grow_and_shrink_by_one_and_add_before_they_remove() {
        let [a, b, c, d] = [member("a", 1), member("b", 2), member("c", 3), member("d", 4)];
        let three = [a.clone(), b.clone(), c.clone()];
        assert_eq!(walk(std::slice::from_ref(&a), &three).0, [2, 3]);
        assert_eq!(walk(&three, std::slice::from_ref(&b)).0, [2, 1]);
        let (sizes, last) = walk(&three, &[a, b, d.clone()]);
        assert_eq!((sizes, last.has(d.id), last.has(c.id)), (vec![4, 3], true, false));
        assert_eq!(walk(&three, &three).0, Vec::<usize>::new());
    }

    #[test]
    fn b5_a_voter_that_lost_its_memory_goes_before_it_comes_back() {
        let [a, b, c] = [member("a", 1), member("b", 2), member("c", 3)];
        let anew = member("c", 9);
        let (sizes, last) = walk(&[a.clone(), b.clone(), c], &[a, b, anew.clone()]);
        assert_eq!((sizes, last.has(anew.id)), (vec![2, 3], true));
    }
}
