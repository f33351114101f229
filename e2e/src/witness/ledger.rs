//! Who held what, from when until when: pure, fed with looks.

use std::fmt;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use crate::names::NodeId;

/// The witness' goal: between two looks not more than this.
pub const RESOLUTION: Duration = Duration::from_millis(2);
/// Changes, overlaps and blind moments that are kept each. A run of an hour has some thousands; beyond this the ledger is spoilt.
const KEPT_MAX: usize = 200_000;

/// Something that one node at most may hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Thing {
    /// A unit: held where its cgroup has a task that is not frozen.
    Unit(String),
    /// An address: held where a node has it and the switch lets the node's frames pass.
    Vip(Ipv4Addr),
}

impl fmt::Display for Thing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unit(name) => f.write_str(name),
            Self::Vip(address) => write!(f, "address {address}"),
        }
    }
}

/// A set of nodes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Nodes(u16);

impl Nodes {
    /// The set with this node too.
    #[must_use]
    pub fn with(self, node: NodeId) -> Self {
        Self(self.0 | 1 << node.number())
    }

    /// The set without this node.
    #[must_use]
    pub fn without(self, node: NodeId) -> Self {
        Self(self.0 & !(1 << node.number()))
    }

    /// Whether the node is among them.
    #[must_use]
    pub fn has(self, node: NodeId) -> bool {
        self.0 & 1 << node.number() != 0
    }

    /// How many.
    #[must_use]
    pub fn count(self) -> u32 {
        self.0.count_ones()
    }

    /// The node, if it is one.
    #[must_use]
    pub fn only(self) -> Option<NodeId> {
        (self.count() == 1).then(|| NodeId::from(u8::try_from(self.0.trailing_zeros()).unwrap_or(0)))
    }

    pub(super) fn bits(self) -> u16 {
        self.0
    }

    pub(super) fn from_bits(bits: u16) -> Self {
        Self(bits)
    }

    /// Those in both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl fmt::Display for Nodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("nobody");
        }
        let all = (0..16).filter(|n| self.0 & 1 << n != 0).map(|n| NodeId::from(n).to_string());
        f.write_str(&all.collect::<Vec<_>>().join("+"))
    }
}

/// From one look on a thing was held by these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// The look.
    pub at: Instant,
    /// Which of the things.
    pub thing: usize,
    /// Who.
    pub nodes: Nodes,
}

/// Two nodes or more held a thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overlap {
    /// Which of the things.
    pub thing: usize,
    /// Who, all that did at some time of it.
    pub nodes: Nodes,
    /// The first look that saw it.
    pub from: Instant,
    /// The last.
    pub until: Instant,
}

impl Overlap {
    /// From the first to the last look that saw it.
    #[must_use]
    pub fn lasted(&self) -> Duration {
        self.until - self.from
    }
}

/// Time between two looks that was longer than [`RESOLUTION`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blind {
    /// The look before.
    pub from: Instant,
    /// The look after.
    pub until: Instant,
    /// Whether a thing changed hands meanwhile, from one node to another: then nobody knows how.
    pub handover: bool,
}

/// What was seen, since the witness began or since a mark.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    /// Every change, in order.
    pub changes: Vec<Change>,
    /// Every overlap, in order of its begin.
    pub overlaps: Vec<Overlap>,
    /// Every moment without a look.
    pub blind: Vec<Blind>,
    /// How many looks.
    pub looks: u64,
    /// The longest time between two looks.
    pub slowest: Duration,
    /// Something was lost: kernel events, or more happened than is kept.
    pub spoilt: Option<String>,
    now: Vec<Nodes>,
    /// For each thing its overlap that goes on, as a place in `overlaps`.
    going_on: Vec<Option<usize>>,
    last: Option<Instant>,
}

impl Ledger {
    pub(super) fn new(things: usize) -> Self {
        Self { now: vec![Nodes::default(); things], going_on: vec![None; things], ..Self::default() }
    }

    /// Who holds the thing, as of the last look.
    #[must_use]
    pub fn holders(&self, thing: usize) -> Nodes {
        self.now.get(thing).copied().unwrap_or_default()
    }

    /// One look: `seen[thing]` held it.
    pub(super) fn look(&mut self, at: Instant, seen: &[Nodes]) {
        self.looks += 1;
        let mut handover = false;
        for (thing, &nodes) in seen.iter().enumerate() {
            let before = self.holders(thing);
            if before != nodes {
                handover |= before.count() > 0 && nodes.count() > 0;
                self.changes.push(Change { at, thing, nodes });
                if let Some(now) = self.now.get_mut(thing) {
                    *now = nodes;
                }
            }
            self.overlap(at, thing, nodes);
        }
        if let Some(last) = self.last.replace(at) {
            let gap = at.saturating_duration_since(last);
            self.slowest = self.slowest.max(gap);
            if gap > RESOLUTION {
                self.blind.push(Blind { from: last, until: at, handover });
            }
        }
        if self.changes.len().max(self.overlaps.len()).max(self.blind.len()) > KEPT_MAX {
            self.spoilt.get_or_insert_with(|| format!("more than {KEPT_MAX} changes, overlaps or moments without a look"));
            (self.changes, self.overlaps, self.blind) = Default::default();
            self.going_on.fill(None);
        }
    }

    fn overlap(&mut self, at: Instant, thing: usize, nodes: Nodes) {
        let Some(going_on) = self.going_on.get_mut(thing) else { return };
        if nodes.count() < 2 {
            *going_on = None;
            return;
        }
        match going_on.and_then(|place| self.overlaps.get_mut(place)) {
            Some(overlap) => {
                overlap.until = at;
                overlap.nodes = Nodes(overlap.nodes.0 | nodes.0);
            }
            None => {
                *going_on = Some(self.overlaps.len());
                self.overlaps.push(Overlap { thing, nodes, from: at, until: at });
            }
        }
    }

    /// Begins anew: what was seen is given away, who holds what is kept.
    pub(super) fn take(&mut self) -> Self {
        let next = Self { now: self.now.clone(), last: self.last, ..Self::new(self.now.len()) };
        std::mem::replace(self, next)
    }

    /// When, at or after `from`, a thing was first held by a node that pleases.
    #[must_use]
    pub fn first(&self, thing: usize, from: Instant, mut pleases: impl FnMut(Nodes) -> bool) -> Option<Instant> {
        self.changes.iter().find(|c| c.thing == thing && c.at >= from && pleases(c.nodes)).map(|c| c.at)
    }

    /// In a few words, in seconds from `from`.
    #[must_use]
    pub fn story(&self, things: &[Thing], from: Instant) -> String {
        let at = |at: Instant| at.saturating_duration_since(from).as_secs_f64() - from.saturating_duration_since(at).as_secs_f64();
        let told = self.changes.iter().map(|c| {
            let thing = things.get(c.thing).map(ToString::to_string).unwrap_or_default();
            format!("{:+.3} s {thing}: {}", at(c.at), c.nodes)
        });
        told.collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(numbers: &[u8]) -> Nodes {
        numbers.iter().fold(Nodes::default(), |set, n| set.with(NodeId::from(*n)))
    }

    fn ledger(looks: &[(u64, &[u8])]) -> (Ledger, Instant) {
        let (mut ledger, start) = (Ledger::new(1), Instant::now());
        for (at, who) in looks {
            ledger.look(start + Duration::from_millis(*at), &[nodes(who)]);
        }
        (ledger, start)
    }

    #[test]
    fn a_hand_over_with_a_pause_is_no_overlap() {
        let (ledger, start) = ledger(&[(0, &[1]), (1, &[]), (2, &[2])]);
        assert!(ledger.overlaps.is_empty() && ledger.blind.is_empty(), "{ledger:?}");
        assert_eq!(ledger.changes.len(), 3);
        assert_eq!(ledger.first(0, start, |n| n.only() == Some(NodeId::from(2))), Some(start + Duration::from_millis(2)));
        let told = ledger.story(&[Thing::Unit("a.service".to_owned())], start);
        assert_eq!(told, "+0.000 s a.service: n1, +0.001 s a.service: nobody, +0.002 s a.service: n2");
    }

    #[test]
    fn an_overlap_is_one_for_as_long_as_it_goes_on() {
        let (ledger, start) = ledger(&[(0, &[1]), (1, &[1, 2]), (2, &[1, 2, 3]), (3, &[2, 3]), (4, &[2]), (5, &[2, 3])]);
        assert_eq!(ledger.overlaps.len(), 2, "{ledger:?}");
        let first = ledger.overlaps[0];
        assert_eq!(
            (first.nodes, first.from, first.lasted()),
            (nodes(&[1, 2, 3]), start + Duration::from_millis(1), Duration::from_millis(2))
        );
        assert_eq!(first.nodes.to_string(), "n1+n2+n3");
    }

    #[test]
    fn what_changes_hands_unseen_is_told() {
        let (quiet, _) = ledger(&[(0, &[1]), (9, &[1]), (20, &[]), (30, &[2])]);
        assert_eq!(quiet.blind.len(), 3);
        assert!(quiet.blind.iter().all(|blind| !blind.handover), "{quiet:?}");
        assert_eq!(quiet.slowest, Duration::from_millis(11));
        let (told, _) = ledger(&[(0, &[1]), (9, &[2])]);
        assert!(told.blind[0].handover);
    }

    #[test]
    fn a_mark_keeps_who_holds() {
        let (mut ledger, start) = ledger(&[(0, &[1]), (1, &[1, 2])]);
        assert_eq!(ledger.take().overlaps.len(), 1);
        assert_eq!((ledger.holders(0), ledger.looks), (nodes(&[1, 2]), 0));
        ledger.look(start + Duration::from_millis(2), &[nodes(&[1, 2])]);
        assert_eq!((ledger.changes.len(), ledger.overlaps.len()), (0, 1), "it goes on");
    }
}
