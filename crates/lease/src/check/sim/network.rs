//! The network, who hears a message, and the driver of a change of voters at its edge.

use super::node::CLUSTER;
use super::world::{Happening, MS, World};
use crate::change::{SetChange, Stage};
use crate::holder::Event;
use crate::message::{Message, SetAnswer, Verdict};
use crate::set::VoterSet;
use crate::time::{MAX_T, Time};
use crate::types::NodeName;
use crate::voter::VoterAction;

impl World {
    pub(super) fn send(&mut self, from: usize, to: &NodeName, message: Message) {
        let to = match to.as_str() {
            "ctl" => None,
            other => other.get(1..).and_then(|digits| digits.parse::<usize>().ok()),
        };
        self.route(Some(from), to, message);
    }

    /// `None` is the controller, which no fault cuts off.
    #[expect(clippy::needless_pass_by_value, reason = "a message that was routed is gone for its sender")]
    pub(super) fn route(&mut self, from: Option<usize>, to: Option<usize>, message: Message) {
        let alone = |node: Option<usize>| node.is_some_and(|node| self.machines[node].cut || !self.machines[node].powered);
        let side = |node: Option<usize>| node.is_some_and(|node| self.split >> node & 1 == 1);
        let same = from == to;
        if !same && (alone(from) || alone(to) || from.is_some() && to.is_some() && side(from) != side(to)) {
            return;
        }
        let mut copies = 1;
        if self.lossy && !same && !self.fair {
            copies = if self.rng.per_mille(100) {
                0
            } else if self.rng.per_mille(100) {
                2
            } else {
                1
            };
        }
        for _ in 0..copies {
            let mut delay = self.rng.range(100_000, 2 * MS);
            if !self.fair && self.rng.per_mille(10) {
                delay = self.rng.range(MS, 1_500 * MS);
            }
            let time = self.now + if same { 1_000 } else { delay };
            let message = Box::new(message.clone());
            self.at(
                time,
                match to {
                    Some(to) => Happening::Deliver(to, message),
                    None => Happening::Driver(message),
                },
            );
        }
    }

    pub(super) fn deliver(&mut self, node: usize, message: Message) {
        let now = self.now;
        let machine = &mut self.machines[node];
        let Some(agent) = &mut machine.agent else { return };
        if agent.paused_until > now {
            machine.keep(message);
            return;
        }
        self.stats.delivered += 1;
        if !message.is_for_voter() {
            self.event(node, Event::Message(message));
            return;
        }
        let clock = machine.clock(now);
        let Some(agent) = &mut machine.agent else { return };
        let mut actions = Vec::new();
        agent.voter.handle(clock, &message, &mut actions);
        let refused = |action: &VoterAction| match action {
            VoterAction::Send(_, Message::Answer(answer)) => match &answer.verdict {
                Verdict::Refused(_) => true,
                Verdict::Slots { accepted, .. } => accepted.is_empty(),
            },
            _ => false,
        };
        // V2: a refusal stores nothing.
        if actions.iter().any(refused) && actions.iter().any(|action| !matches!(action, VoterAction::Send(..))) {
            self.fail("V2: a refusal changed a voter");
        }
        self.voter_actions(node, actions);
        self.plan_wake(node);
    }

    pub(super) fn tick_voter(&mut self, node: usize) {
        let clock = self.machines[node].clock(self.now);
        let mut actions = Vec::new();
        if let Some(agent) = &mut self.machines[node].agent {
            agent.voter.tick(clock, &mut actions);
        }
        self.voter_actions(node, actions);
        self.plan_wake(node);
    }

    pub(super) fn voter_actions(&mut self, node: usize, actions: Vec<VoterAction>) {
        for action in actions {
            if let VoterAction::Send(to, message) = action {
                self.send(node, &to, message);
            }
        }
    }

    pub(super) fn plan_wake(&mut self, node: usize) {
        let Some(agent) = &self.machines[node].agent else { return };
        let wakes = agent.holder.next_wake().into_iter().chain(agent.voter.next_wake());
        let Some(wake) = wakes.map(|wake| self.machines[node].true_time(wake)).min() else { return };
        let wake = wake.max(self.now + 1);
        if let Some(agent) = self.machines[node].agent.as_mut().filter(|agent| agent.wake.is_none_or(|planned| wake < planned)) {
            agent.wake = Some(wake);
            self.at(wake, Happening::Wake(node));
        }
    }

    pub(super) fn drive(&mut self, answer: Option<&SetAnswer>) {
        let now = Time(self.now);
        let Some(driver) = &mut self.driver else { return };
        let before = driver.stage();
        let asks = driver.handle(now, answer);
        let (stage, wake, next) = (driver.stage(), driver.next_wake(), driver.next().clone());
        for (to, message) in asks {
            let to = to.as_str().get(1..).and_then(|digits| digits.parse().ok());
            self.route(None, to, message);
        }
        if stage == Stage::Committed && before != stage {
            self.stats.changes += 1;
            self.set = next;
        }
        if answer.is_none()
            && let Some(wake) = wake
        {
            // The controller's clock runs true here; the agents' do not.
            let time = wake.0.min(self.now + 100 * MS).max(self.now + MS);
            self.at(time, Happening::Drive);
        }
    }

    pub(super) fn new_driver(&mut self, from: VoterSet, next: VoterSet) {
        #[expect(clippy::unwrap_used, reason = "a short name")]
        let me = NodeName::new("ctl").unwrap();
        if let Ok(driver) = SetChange::with_rules(self.rules, CLUSTER, me, MAX_T, from, next) {
            let idle = self.driver.as_ref().is_none_or(|driver| driver.next_wake().is_none());
            self.driver = Some(driver);
            if idle {
                self.drive(None);
            }
        }
    }
}
