//! What the four modes share: the App being planned with everything about it, counts per node, and how entries are made.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use cluster_schemas::app::unit_name;
use cluster_schemas::assignment::{AppAssignment, Reason, ReasonCode, RingAssignment, Role, RunSpec, VipAssignment};
use cluster_schemas::resources::Amounts;
use cluster_schemas::{App, Mode};

use crate::claims::Evidence;
use crate::eligibility::{Matching, Rule};
use crate::input::AppNotes;
use crate::world::World;

/// Entries of one App, by node number.
pub(crate) type Entries = BTreeMap<usize, AppAssignment>;

/// Counts per node over all Apps, kept while planning: they begin as last written and change with each App planned.
#[derive(Debug)]
pub(crate) struct Board {
    /// Instances that run: Active and Member.
    pub instances: Vec<u32>,
    /// Active Singletons.
    pub active: Vec<u32>,
    /// Standbys.
    pub standbys: Vec<u32>,
}

impl Board {
    pub(crate) fn new(world: &World<'_>) -> Self {
        let zero = vec![0; world.nodes.len()];
        let mut board = Self { instances: zero.clone(), active: zero.clone(), standbys: zero };
        for (number, view) in world.nodes.iter().enumerate() {
            for entry in view.last.into_iter().flat_map(|a| a.apps.values()) {
                board.add(number, entry.role);
            }
        }
        board
    }

    fn add(&mut self, node: usize, role: Role) {
        match role {
            Role::Active => {
                self.instances[node] += 1;
                self.active[node] += 1;
            }
            Role::Member => self.instances[node] += 1,
            Role::Standby => self.standbys[node] += 1,
            Role::Absent => {}
        }
    }

    fn remove(&mut self, node: usize, role: Role) {
        match role {
            Role::Active => {
                self.instances[node] -= 1;
                self.active[node] -= 1;
            }
            Role::Member => self.instances[node] -= 1,
            Role::Standby => self.standbys[node] -= 1,
            Role::Absent => {}
        }
    }

    /// Replaces what was written for an App by what is planned.
    pub(crate) fn account(&mut self, evidence: &[Evidence<'_>], planned: &Entries) {
        for (node, entry) in evidence.iter().filter_map(|e| e.entry.map(|entry| (e.node, entry))) {
            self.remove(node, entry.role);
        }
        for (node, entry) in planned {
            self.add(*node, entry.role);
        }
    }
}

/// One App being planned.
#[derive(Debug)]
pub(crate) struct Context<'w, 'a> {
    pub world: &'w World<'a>,
    pub name: &'a str,
    pub app: &'a App,
    /// In the order of the nodes.
    pub evidence: &'w [Evidence<'a>],
    pub matching: Rc<Matching>,
    /// What runs, by its present spec.
    pub run: Arc<RunSpec>,
    /// Nodes where an App runs that this one has to be kept apart from.
    pub away: BTreeMap<usize, &'a str>,
    /// Nodes where such an App is on its way out: nothing of this one may start there yet, but what is there stays.
    pub away_soon: BTreeMap<usize, &'a str>,
    /// Apps that this one has to run beside, each with the nodes where it runs.
    pub beside: Vec<(&'a str, BTreeSet<usize>)>,
    /// Nodes where another App still has to let go of the same unit.
    pub busy: BTreeSet<usize>,
    /// What it asks of each node.
    pub asks: Amounts,
    /// What is set apart on each node, for this App too.
    pub reserved: &'w [Amounts],
}

impl<'a> Context<'_, 'a> {
    /// What is known of the App on `node`.
    pub(crate) fn on(&self, node: usize) -> Option<&Evidence<'a>> {
        self.evidence.binary_search_by_key(&node, |e| e.node).ok().map(|at| &self.evidence[at])
    }

    /// Whether the App may have an entry on `node`: it matches, and nothing of an earlier App is left there.
    pub(crate) fn fits(&self, node: usize) -> bool {
        self.matching.mask[node] && !self.on(node).is_some_and(|e| e.foreign(self.app))
    }

    /// Whether an instance may run on `node` (it may be Lost).
    pub(crate) fn may_run(&self, node: usize) -> bool {
        self.fits(node) && !self.away.contains_key(&node) && self.alone(node).is_none()
    }

    /// The first App that this one has to run beside and that does not run on `node`.
    fn alone(&self, node: usize) -> Option<&'a str> {
        self.beside.iter().find(|(_, nodes)| !nodes.contains(&node)).map(|(app, _)| *app)
    }

    /// Whether an instance may be newly placed on `node`.
    pub(crate) fn may_start(&self, node: usize) -> bool {
        self.world.nodes[node].live
            && (self.world.nodes[node].open || self.has_place(node))
            && self.may_run(node)
            && !self.busy.contains(&node)
            && !self.away_soon.contains_key(&node)
            && self.lacks(node).is_none()
    }

    /// The role last written for `node`, unless it belongs to an earlier App.
    pub(crate) fn role(&self, node: usize) -> Option<Role> {
        self.on(node).filter(|e| !e.foreign(self.app)).and_then(Evidence::role)
    }

    /// Whether the App has a place on `node` already: what a cordon leaves alone.
    pub(crate) fn has_place(&self, node: usize) -> bool {
        self.role(node).is_some_and(|role| role != Role::Absent)
    }

    /// Whether `node` was told to take the App off and has not confirmed it yet.
    pub(crate) fn stopping(&self, node: usize) -> bool {
        self.on(node).is_some_and(|e| e.role() == Some(Role::Absent) && !e.confirmed_absent())
    }

    /// Nodes that have this role as last written.
    pub(crate) fn with_role(&self, role: Role) -> impl Iterator<Item = usize> + '_ {
        self.evidence.iter().filter(move |e| e.role() == Some(role) && !e.foreign(self.app)).map(|e| e.node)
    }

    /// Whether the instance on `node` is seen to serve.
    pub(crate) fn healthy(&self, node: usize) -> bool {
        self.on(node).is_some_and(|e| !e.lost && e.observed.is_some_and(|o| o.healthy))
    }

    /// A new entry in `role`. Epochs, VIP and partitions are for the caller, peers are filled in at the end.
    pub(crate) fn entry(&self, role: Role, reason: Reason) -> AppAssignment {
        AppAssignment {
            uid: self.app.metadata.uid.clone(),
            generation: self.app.metadata.generation,
            mode: self.app.spec.mode,
            role,
            epoch: 0,
            releasing: None,
            run: Arc::clone(&self.run),
            vip: None,
            ring: None,
            reason,
            ..AppAssignment::default()
        }
    }

    /// The reason last written if the role stays and it is one of `codes`, else a new one: what decided then still stands.
    pub(crate) fn keep_reason(&self, node: usize, role: Role, codes: &[ReasonCode], new: impl FnOnce() -> Reason) -> Reason {
        let last = self.on(node).filter(|e| !e.foreign(self.app)).and_then(|e| e.entry);
        last.filter(|e| e.role == role && codes.contains(&e.reason.code)).map_or_else(new, |e| e.reason.clone())
    }

    /// Entries for all nodes that have something of the App and no place in `planned`.
    pub(crate) fn withdraw_rest(&self, planned: &mut Entries, why: impl Fn(usize) -> Reason) {
        for seen in self.evidence {
            if !planned.contains_key(&seen.node)
                && let Some(entry) = absent(self.name, Some(self.app), seen, || why(seen.node))
            {
                planned.insert(seen.node, entry);
            }
        }
    }

    /// Why an instance has to leave a node, where it is not a matter of numbers.
    pub(crate) fn why_not(&self, node: usize) -> Option<Reason> {
        if self.on(node).is_some_and(|e| e.foreign(self.app)) {
            return Some(reason(
                ReasonCode::NotEligible,
                "belongs to an earlier App of this name, or to this one in another mode".to_owned(),
            ));
        }
        if !self.matching.mask[node] {
            let why = crate::eligibility::why_left_out(self.world, &self.app.spec.placement, node);
            return Some(reason(ReasonCode::NotEligible, why));
        }
        let away = || self.away.get(&node).map(|other| format!("App {other} runs here, and the two are kept apart by awayFromApps"));
        let alone = || self.alone(node).map(|other| format!("App {other} does not run here, and withApps asks for it"));
        away().or_else(alone).map(|why| reason(ReasonCode::NotEligible, why))
    }

    /// Rules of the moment that keep the App from `node`.
    pub(crate) fn rules_now(&self, node: usize, exclusive: bool) -> Vec<Rule<'a>> {
        let view = &self.world.nodes[node];
        let mut rules = Vec::new();
        rules.extend(self.away.get(&node).or(self.away_soon.get(&node)).map(|other| Rule::Away(other)));
        rules.extend(self.beside.iter().filter(|(_, nodes)| !nodes.contains(&node)).map(|(other, _)| Rule::With(other)));
        rules.extend(self.lacks(node));
        if !view.open && !view.closed {
            rules.push(Rule::Cordoned);
        }
        if !view.live {
            rules.push(Rule::Lost);
        } else if exclusive && !view.can_hold() {
            rules.push(Rule::Quorum);
        }
        if self.busy.contains(&node) || self.stopping(node) || self.on(node).is_some_and(|e| e.foreign(self.app)) {
            rules.push(Rule::Leftover);
        }
        rules
    }

    /// The sentence for a shortage.
    pub(crate) fn explain(&self, exclusive: bool) -> String {
        let text = crate::eligibility::explain(self.world, &self.app.spec.placement, |node| self.rules_now(node, exclusive));
        self.crowded().map_or_else(|| text.clone(), |crowded| format!("{text}; {crowded}"))
    }

    /// Notes with the number of nodes that may run it now.
    pub(crate) fn notes(&self, exclusive: bool) -> AppNotes {
        let able_now = |n: &usize| {
            let view = &self.world.nodes[*n];
            self.matching.mask[*n] && if exclusive { view.can_hold() } else { view.live }
        };
        if let Some((_, nodes)) = self.beside.iter().min_by_key(|(_, nodes)| nodes.len()) {
            let eligible = nodes.iter().filter(|n| able_now(n) && self.may_start(**n)).count();
            return AppNotes { eligible, crowded: self.crowded(), ..AppNotes::default() };
        }
        // Counted by exceptions: looking at every node for every App would cost more than all the rest.
        let able = if exclusive { self.matching.holding } else { self.matching.live };
        let foreign = self.evidence.iter().filter(|e| e.foreign(self.app)).map(|e| e.node);
        let shut = self.world.shut.iter().copied();
        let mut exceptions: Vec<usize> =
            self.away.keys().chain(self.away_soon.keys()).chain(&self.busy).copied().chain(foreign).chain(shut).collect();
        if !self.asks.is_zero() {
            exceptions.extend(self.matching.list.iter().filter(|n| self.lacks(**n).is_some()));
        }
        exceptions.sort_unstable();
        exceptions.dedup();
        let out = exceptions.iter().filter(|n| able_now(n));
        AppNotes { eligible: able - out.count(), crowded: self.crowded(), ..AppNotes::default() }
    }
}

/// What runs by the spec of `app`: the copy that an entry has already, where one has it, for it is compared and kept at no cost.
pub(crate) fn shared_run(app: &App, evidence: &[Evidence<'_>]) -> Arc<RunSpec> {
    let known = evidence.iter().filter_map(|e| e.entry).find(|e| e.uid == app.metadata.uid && e.generation == app.metadata.generation);
    known.map(|e| &e.run).filter(|run| is_run_of(run, app)).map_or_else(|| Arc::new(run_spec(app)), Arc::clone)
}

/// Whether `run` is what the spec of `app` says.
fn is_run_of(run: &RunSpec, app: &App) -> bool {
    let spec = &app.spec;
    run.unit == spec.unit
        && run.exec == spec.exec
        && run.standby == spec.standby
        && run.database == spec.database
        && run.hooks == spec.hooks
        && run.health == spec.health
}

/// The part of the spec that says what runs.
pub(crate) fn run_spec(app: &App) -> RunSpec {
    RunSpec {
        unit: app.spec.unit.clone(),
        exec: app.spec.exec.clone(),
        standby: app.spec.standby,
        database: app.spec.database.clone(),
        hooks: app.spec.hooks.clone(),
        health: app.spec.health.clone(),
    }
}

/// A reason from its two halves.
pub(crate) const fn reason(code: ReasonCode, message: String) -> Reason {
    Reason { code, message }
}

/// The entry that takes an App off a node; `None` once the node confirmed that nothing is left.
///
/// It keeps what the last entry said of the unit, so that the agent knows what to stop, and marks what has to be let go.
pub(crate) fn absent(name: &str, app: Option<&App>, seen: &Evidence<'_>, why: impl FnOnce() -> Reason) -> Option<AppAssignment> {
    if seen.confirmed_absent() {
        return None;
    }
    let mut entry = seen.entry.cloned().unwrap_or_else(|| from_observed(name, app, seen));
    let why = why();
    if entry.role != Role::Absent || entry.reason.code != why.code {
        entry.reason = why;
    }
    entry.role = Role::Absent;
    entry.peers.clear();
    entry.held_back.clear();
    entry.settling = false;
    entry.releasing = seen.slot_claim();
    entry.vip = seen.vip_claims().next().map(|claim| {
        let interface = entry.vip.as_ref().map(|v| &v.interface).or(app.and_then(|a| a.spec.vip.as_ref()).map(|v| &v.interface));
        VipAssignment {
            address: claim.address.to_owned(),
            interface: interface.cloned().unwrap_or_default(),
            hold: false,
            epoch: entry.vip.as_ref().map_or(claim.epoch, |v| v.epoch.max(claim.epoch)),
            releasing: Some(claim.epoch),
            ..VipAssignment::default()
        }
    });
    let release = seen.ring_claims();
    if entry.mode == Mode::Ring || !release.is_empty() {
        // The newest epoch of the groups that go has to be remembered.
        let newest = entry.ring.iter().flat_map(|r| r.own.iter().map(|g| g.epoch)).max().unwrap_or(0);
        entry.epoch = entry.epoch.max(newest);
        let (partitions, version) = entry.ring.as_ref().map_or((app.map_or(0, App::partitions), 0), |r| (r.partitions, r.version));
        entry.ring = Some(RingAssignment { partitions, own: Vec::new(), release, version, ..RingAssignment::default() });
    }
    Some(entry)
}

/// What can be said of an App of which only the node's status tells.
fn from_observed(name: &str, app: Option<&App>, seen: &Evidence<'_>) -> AppAssignment {
    let observed = seen.observed.cloned().unwrap_or_default();
    let app = app.filter(|a| a.metadata.uid == observed.uid);
    let mode = if observed.ring.is_some() {
        Mode::Ring
    } else if observed.role == Role::Member {
        Mode::Spread
    } else {
        Mode::Singleton
    };
    let unit = observed.unit.filter(|u| u.name != unit_name(name, None));
    AppAssignment {
        uid: observed.uid,
        generation: observed.generation,
        mode: app.map_or(mode, |a| a.spec.mode),
        role: Role::Absent,
        epoch: observed.epoch.max(observed.gave_up),
        run: app.map_or_else(
            || {
                let unit = unit.map(|u| cluster_schemas::app::UnitSpec { name: u.name, content: None });
                Arc::new(RunSpec { unit, ..RunSpec::default() })
            },
            |app| Arc::new(run_spec(app)),
        ),
        ..AppAssignment::default()
    }
}
