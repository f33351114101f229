//! The lease host: one thread with a runtime and connections of its own, that owns this node's voter, its holder and the deadline words.
//! Nothing else writes them. It does not wait for disks on the way of a renewal, nor for JetStream ever.
//!
//! In: messages of the lease connections, [`Command`]s, time. Out: messages, words, and a [`LeaseView`]. What one input leads to is
//! worked out whole, without waiting for anything; then the messages go out, and the view is published if it changed.
//!
//! This file has the loop and the voter's side; [`super::holding`] has the holder's.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cluster_bus::{LeaseLink, lease_wire};
use cluster_fence::{BEAT, Table, WordIndex, clock};
use cluster_lease::holder::{Event, Holder};
use cluster_lease::message::Message;
use cluster_lease::set::VoterSet;
use cluster_lease::time::{Span, Time};
use cluster_lease::types::{ClusterId, Node, NodeName, Slot};
use cluster_lease::voter::{Voter, VoterAction};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{debug, error, info, warn};

use super::beat;
use super::hints::Hints;
use super::keeping::Keeping;
use super::locking::Locking;
use super::memory::Silence;
use super::store::VoterStore;
use super::view::{Acquired, Command, LeaseView, TenureView, Wanted};
use super::voting::Voting;

/// Messages handled in a row before the answers go out and time is looked at again.
const IN_A_ROW: usize = 64;

/// The parts of a host.
pub struct Host {
    pub(super) cluster: ClusterId,
    pub(super) node: Node,
    pub(super) link: LeaseLink,
    pub(super) table: Arc<Table>,
    pub(super) store: VoterStore,
    pub(super) voter: Voter,
    pub(super) holder: Option<Holder>,
    /// Makes the holder once the voters are known.
    pub(super) make_holder: Box<dyn Fn(VoterSet) -> Holder + Send>,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) view: watch::Sender<Arc<LeaseView>>,
    /// The state folder and the runtime folder.
    pub(super) folders: (PathBuf, PathBuf),
    pub(super) remember_voters: Box<dyn Fn(&VoterSet) + Send>,
    pub(super) state: State,
    /// A guard that did not beat for longer is not there.
    pub(super) guard_stale: Span,
}

/// What the host itself remembers.
#[derive(Default)]
pub(super) struct State {
    pub(super) wanted: BTreeMap<Slot, Wanted>,
    pub(super) words: BTreeMap<Slot, WordIndex>,
    pub(super) tenures: BTreeMap<Slot, TenureView>,
    /// Something of the view changed.
    pub(super) dirty: bool,
    /// Messages to this node itself.
    local: VecDeque<Message>,
    /// Messages to others, for the end of the step.
    outgoing: Vec<(NodeName, Message)>,
    pub(super) guard_stale: bool,
    pub(super) trouble: String,
    /// Whether the voter's memory fails.
    pub(super) silence: Silence,
    /// Why the voter answers nobody; empty when it does.
    pub(super) silent_why: String,
    next_beat: Time,
    pub(super) known_set: u64,
    /// Xorshift state for jitter; any non-zero number.
    pub(super) random: u64,
    /// Number of the voter set that was published last.
    pub(super) published_set: u64,
    pub(super) restarting: Option<(Time, oneshot::Sender<()>)>,
    pub(super) voting: Voting,
    /// When a voter that returned asks next what set the others are in.
    pub(super) asking: Option<Time>,
    pub(super) hints: Hints,
    pub(super) acquired: BTreeMap<Slot, Acquired>,
    /// Slots that go on without a majority.
    pub(super) keeping: Keeping,
    pub(super) locking: Locking,
}

impl State {
    /// `tenures`: what an earlier agent of this boot may hold.
    pub(super) fn new(seed: u64, tenures: BTreeMap<Slot, TenureView>) -> Self {
        Self { random: seed | 1, tenures, dirty: true, ..Self::default() }
    }
}

impl Host {
    /// Runs until all command senders are gone.
    ///
    /// `remembered` is the set that an earlier agent of this boot counted in.
    pub(super) async fn run(mut self, start: Vec<VoterAction>, remembered: Option<VoterSet>) {
        self.voter_actions(start);
        self.begin_asking();
        if let Some(set) = remembered {
            self.learn(set);
        }
        self.settle().await;
        let mut connections = self.link.connections();
        loop {
            self.beat();
            let pause = self.pause();
            tokio::select! {
                biased;
                arrived = self.link.next() => {
                    let Some(first) = arrived else { return };
                    self.arrived(&first.from, &first.payload);
                    for _ in 1..IN_A_ROW {
                        let Some(more) = self.link.try_next() else { break };
                        self.arrived(&more.from, &more.payload);
                    }
                }
                // What was sent before was lost, above all the first renewal of an agent that was restarted (rule P6): not a moment is to be lost.
                Ok(()) = connections.changed() => self.holder_events(vec![Event::RenewNow]),
                command = self.commands.recv() => match command {
                    Some(command) => self.command(command),
                    None => return,
                },
                () = tokio::time::sleep(pause) => {}
            }
            self.tick();
            self.settle().await;
        }
    }

    fn pause(&self) -> Duration {
        let now = clock::now();
        let holder = self.holder.as_ref().and_then(Holder::next_wake);
        let restarting = self.state.restarting.as_ref().map(|(at, _)| *at);
        let next = holder
            .into_iter()
            .chain(self.voter_wake())
            .chain(restarting)
            .chain(self.state.voting.next_wake())
            .chain(self.state.asking)
            .chain(self.state.keeping.next_wake())
            .chain([self.state.next_beat])
            .min();
        Duration::from_nanos(next.map_or(BEAT, |at| at - now).0)
    }

    fn tick(&mut self) {
        let now = clock::now();
        self.tick_voter(now);
        self.ask_for_later_sets(now);
        if self.holder.as_ref().and_then(Holder::next_wake).is_some_and(|at| at <= now) {
            self.holder_events(vec![Event::Tick]);
        }
        self.ask_for_kept();
        self.drive_voters();
        if self.state.restarting.as_ref().is_some_and(|(at, _)| *at <= now)
            && let Some((_, done)) = self.state.restarting.take()
        {
            // Who asked may have given up waiting.
            let _told = done.send(());
        }
    }

    /// F4: the agent's beat, and a look at the guard's.
    fn beat(&mut self) {
        let now = clock::now();
        if now < self.state.next_beat {
            return;
        }
        self.table.agent_beats();
        let look = beat::look(self.table.guard_silence(now), self.guard_stale);
        self.state.next_beat = now + look.next;
        if look.stale != self.state.guard_stale {
            self.guard_is(look.stale);
        }
        // After the fence: a word to systemd may wait for it.
        if look.nudge {
            let _nobody_listens = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]);
        }
    }

    /// The guard went silent, or beats again.
    fn guard_is(&mut self, stale: bool) {
        self.state.guard_stale = stale;
        self.state.dirty = true;
        if stale {
            warn!("the guard does not beat: exclusive things are given up until it does");
            "cluster-guard does not run on this node, so nothing exclusive can be held".clone_into(&mut self.state.trouble);
            self.fence_all();
        } else {
            info!("the guard beats");
            self.state.trouble.clear();
        }
        self.offer_candidacies();
    }

    fn arrived(&mut self, from: &str, payload: &[u8]) {
        match lease_wire::decode(payload) {
            // The subject is what permissions are written for (rule N5): the message must say the same.
            Ok(message) if message.from().as_str() == from => self.state.local.push_back(message),
            Ok(message) => warn!(from, says = message.from().as_str(), "a lease message under another's name is left out"),
            Err(error) => debug!(from, "an unreadable lease message is left out: {error}"),
        }
    }

    /// Handles what has come, and what this node says to itself on that, until nothing is left; then sends and publishes.
    async fn settle(&mut self) {
        while let Some(message) = self.state.local.pop_front() {
            if message.is_for_voter() {
                self.voter_message(&message);
            } else if let Message::SetAnswer(answer) = &message {
                self.voter_answered(answer);
            } else {
                self.note_hint(&message);
                self.holder_events(vec![Event::Message(message)]);
                self.follow_holder();
            }
        }
        for (to, message) in std::mem::take(&mut self.state.outgoing) {
            match lease_wire::encode(&message) {
                Ok(payload) => self.link.send(to.as_str(), payload).await,
                Err(error) => error!(to = to.as_str(), "a lease message cannot be encoded: {error}"),
            }
        }
        self.state.locking.flush();
        self.publish();
    }

    pub(super) fn send(&mut self, to: NodeName, message: Message) {
        if to == self.node.name {
            self.state.local.push_back(message);
        } else {
            self.state.outgoing.push((to, message));
        }
    }

    pub(super) fn learn(&mut self, set: VoterSet) {
        if set.number().0 <= self.state.known_set {
            return;
        }
        self.state.known_set = set.number().0;
        self.state.voting.installed(set.number());
        self.state.dirty = true;
        info!(number = set.number().0, voters = set.members().len(), "voter set learned");
        if self.holder.is_some() {
            self.holder_events(vec![Event::Set(set)]);
        } else {
            self.holder = Some((self.make_holder)(set));
            self.adopt();
            self.offer_candidacies();
        }
    }

    /// 0 to `longest`: spreads attempts, nothing rests on its quality.
    pub(super) const fn jitter(&mut self, longest: Span) -> Span {
        let x = &mut self.state.random;
        *x ^= *x << 13;
        *x ^= *x >> 7;
        *x ^= *x << 17;
        Span(*x % longest.0)
    }
}
