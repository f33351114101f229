//! Room on nodes for `placement.resources`.
//!
//! # Rules
//! - What an App asks for is set apart on every node where it has a place: for a Singleton's standbys too, so that a fail-over finds it,
//!   and for what is on its way out until it is gone.
//! - Nothing new is placed where capacity minus what is set apart is less than is asked for, or where the capacity is not known.
//! - What has a place keeps it, whatever was changed since: nothing that runs is stopped for an amount on paper. Such a node takes
//!   nothing new until it has room again.

use std::collections::BTreeMap;

use cluster_schemas::assignment::Role;
use cluster_schemas::resources::{Amounts, cpu_text, memory_text};

use crate::claims::Evidence;
use crate::context::{Context, Entries};
use crate::eligibility::Rule;
use crate::words;
use crate::world::World;

/// What is set apart on each node, kept while planning: it begins as last written, by the present specs, and changes with each App.
#[derive(Debug)]
pub(crate) struct Rooms<'a> {
    asks: BTreeMap<&'a str, Amounts>,
    reserved: Vec<Amounts>,
}

impl<'a> Rooms<'a> {
    pub(crate) fn new(world: &World<'a>) -> Self {
        let asks = world.input.apps.iter().map(|(name, app)| (name.as_str(), app.spec.placement.asks()));
        let asks: BTreeMap<&str, Amounts> = asks.filter(|(_, ask)| !ask.is_zero()).collect();
        let mut reserved = vec![Amounts::default(); world.nodes.len()];
        for (name, ask) in &asks {
            for seen in world.evidence(name).iter().filter(|e| has_place(e)) {
                reserved[seen.node] = reserved[seen.node].plus(*ask);
            }
        }
        Self { asks, reserved }
    }

    /// What `app` asks of each node, and what is set apart on each.
    pub(crate) fn of(&self, app: &str) -> (Amounts, &[Amounts]) {
        (self.asks.get(app).copied().unwrap_or_default(), &self.reserved)
    }

    /// Replaces what was written for an App by what is planned.
    pub(crate) fn account(&mut self, app: &str, evidence: &[Evidence<'_>], planned: &Entries) {
        let Some(ask) = self.asks.get(app) else { return };
        for seen in evidence.iter().filter(|e| has_place(e)) {
            self.reserved[seen.node] = self.reserved[seen.node].minus(*ask);
        }
        for node in planned.keys() {
            self.reserved[*node] = self.reserved[*node].plus(*ask);
        }
    }
}

/// Whether something is set apart for what was written there. What a node confirmed to be gone is free in this plan already: in the next
/// one, planning the same again would change something.
fn has_place(seen: &Evidence<'_>) -> bool {
    seen.entry.is_some() && !seen.confirmed_absent()
}

impl<'a> Context<'_, 'a> {
    /// What `node` has too little of for a new place; nothing where the App has a place already.
    pub(crate) fn lacks(&self, node: usize) -> Option<Rule<'a>> {
        if self.asks.is_zero() || self.on(node).and_then(Evidence::role).is_some_and(|role| role != Role::Absent) {
            return None;
        }
        let Some(capacity) = self.world.nodes[node].node.capacity else { return Some(Rule::Capacity) };
        let free = capacity.minus(self.reserved_by_others(node));
        if self.asks.cpu_millis > free.cpu_millis {
            Some(Rule::Cpu)
        } else if self.asks.memory_bytes > free.memory_bytes {
            Some(Rule::Memory)
        } else {
            None
        }
    }

    fn reserved_by_others(&self, node: usize) -> Amounts {
        let own = self.on(node).is_some_and(has_place);
        if own { self.reserved[node].minus(self.asks) } else { self.reserved[node] }
    }

    /// The Live nodes that match and have too little room, such as `n2: memory 3.2Gi of 4Gi reserved, 1Gi asked`.
    pub(crate) fn crowded(&self) -> Option<String> {
        if self.asks.is_zero() {
            return None;
        }
        let matching = self.matching.list.iter().copied().filter(|n| self.world.nodes[*n].live);
        let mut lacking = matching.filter_map(|node| Some((node, self.lacks(node)?)));
        let shown: Vec<String> = lacking.by_ref().take(words::NAMES_MAX).map(|(node, rule)| self.lack_text(node, rule)).collect();
        let more = lacking.count();
        let more = (more > 0).then(|| format!("{more} more node{} likewise", words::plural(more)));
        let parts: Vec<String> = shown.into_iter().chain(more).collect();
        (!parts.is_empty()).then(|| parts.join("; "))
    }

    fn lack_text(&self, node: usize, rule: Rule<'_>) -> String {
        let name = self.world.name(node);
        match rule {
            Rule::Cpu | Rule::Memory => format!("{name}: {}", self.room_text(node, rule)),
            _ => format!("{name}: capacity not known"),
        }
    }

    /// What is reserved on `node` for others, what there is, and what is asked, such as `memory 3.2Gi of 4Gi reserved, 1Gi asked`.
    pub(crate) fn room_text(&self, node: usize, rule: Rule<'_>) -> String {
        let (reserved, asked) = (self.reserved_by_others(node), self.asks);
        let Some(capacity) = self.world.nodes[node].node.capacity else { return "capacity not known".to_owned() };
        let (what, [reserved, capacity, asked]) = match rule {
            Rule::Cpu => ("cpu", [reserved, capacity, asked].map(|a| cpu_text(a.cpu_millis))),
            _ => ("memory", [reserved, capacity, asked].map(|a| memory_text(a.memory_bytes))),
        };
        format!("{what} {reserved} of {capacity} reserved, {asked} asked")
    }
}
