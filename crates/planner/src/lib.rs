//! The planner: desired Apps, registered nodes and what is observed of them in; one assignment per node out, each placement with its
//! reason. Pure: no runtime, clock, randomness or hash order, so the same input gives the same plan on every controller.
//!
//! # Flow
//! [`plan`] indexes the input, settles which Apps lose a claim on a VIP or unit, then plans App by App (Singletons first, then Apps
//! that others look at before those others) and makes one [`Assignment`] per node. One whose content did not change keeps
//! its order; a changed one gets the present term and a higher generation. [`check::check`] judges a finished plan by itself, from
//! the input alone; [`status::app_statuses`] tells how each App is.
//!
//! # Guarantees
//! - An exclusive thing (a Singleton's slot, a partition, a VIP) is given to a node only while no other Live node has an unsettled
//!   claim on it, and always with a higher epoch than any known.
//! - An entry leaves an assignment only after the node confirmed that nothing of the App is left.
//! - Planning again on the plan's own result, with the same observations, changes nothing.
//!
//! # Assumptions
//! - A node declared [`Liveness::Lost`] has given up every exclusive thing by itself, and will not take it up again on the word of
//!   an assignment it had before: a tenure that was given up is dead.
//! - A status stands for the whole node: an App missing in it has nothing there, once the assignment it names was taken.
//! - A standby reports `Failed` as long as its last attempt counts against it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cluster_schemas::assignment::{AppAssignment, Order, ReasonCode, Role};
use cluster_schemas::placement::PlacementView;
use cluster_schemas::{App, Assignment, Mode};

pub mod check;
mod claims;
mod conflict;
mod context;
mod eligibility;
pub mod explain;
mod first;
mod input;
pub mod leases;
mod order;
mod pool;
mod prefer;
pub mod preview;
mod ring;
mod room;
mod singleton;
pub mod status;
mod update;
mod vip;
mod words;
mod world;

pub use cluster_schemas::node::Cordon;
pub use input::{AppNotes, Handover, Input, Liveness, NodeInput, Plan, Shortage};
pub use leases::{LeasedPlan, plan_leased};
pub use singleton::STANDBYS_MAX;

use conflict::Conflicts;
use context::{Board, Context, Entries, absent, reason, shared_run};
use eligibility::Selectors;
use order::{PlanningOrder, planning_order};
use room::Rooms;
use world::World;

/// Most entries of an App whose peers are listed in each of them. With more of them peers stay empty: lists in every entry would
/// grow with the square of the nodes, and past the largest message of the bus.
pub const PEERS_MAX: usize = 64;

/// Plans everything anew; what stands well stays as it is.
#[must_use]
pub fn plan(input: &Input<'_>) -> Plan {
    run(input, None).0
}

/// Plans, and tells of the App `probe` why it is where it is.
fn run(input: &Input<'_>, probe: Option<&str>) -> (Plan, Option<PlacementView>) {
    let world = World::new(input);
    let mut planner = Planner {
        world: &world,
        conflicts: Conflicts::new(&world),
        order: planning_order(input.apps),
        board: Board::new(&world),
        rooms: Rooms::new(&world),
        running: BTreeMap::new(),
        per_node: world.nodes.iter().map(|view| Vec::with_capacity(view.last.map_or(0, |a| a.apps.len()))).collect(),
        plan: Plan::default(),
        probe,
        explained: None,
    };
    planner.plan_apps();
    planner.withdraw_unknown();
    let explained = planner.explained.take();
    (planner.finish(), explained)
}

struct Planner<'w, 'a> {
    world: &'w World<'a>,
    conflicts: Conflicts<'a>,
    order: PlanningOrder<'a>,
    board: Board,
    rooms: Rooms<'a>,
    /// Nodes where Apps that others look at run, and whether they stay there.
    running: BTreeMap<&'a str, BTreeMap<usize, bool>>,
    /// Entries of each node in the order in which Apps are planned.
    per_node: Vec<Vec<(&'a str, AppAssignment)>>,
    plan: Plan,
    /// The App to tell about.
    probe: Option<&'w str>,
    /// What there is to tell of it.
    explained: Option<PlacementView>,
}

impl<'a> Planner<'_, 'a> {
    fn plan_apps(&mut self) {
        let mut selectors = Selectors::default();
        for name in std::mem::take(&mut self.order.apps) {
            let Some((name, app)) = self.world.input.apps.get_key_value(name) else { continue };
            if app.is_deleted() {
                self.delete(name, app);
            } else if let Some(sentence) = self.conflicts.losers.get(name.as_str()).cloned() {
                let why = reason(ReasonCode::Conflict, sentence.clone());
                self.withdraw(name, Some(app), &why);
                self.plan.notes.insert(name.clone(), AppNotes { conflict: Some(sentence), ..AppNotes::default() });
            } else {
                self.place(name, app, &mut selectors);
            }
        }
    }

    fn place(&mut self, name: &'a String, app: &'a App, selectors: &mut Selectors<'a>) {
        let (mut away, mut away_soon) = (BTreeMap::new(), BTreeMap::new());
        for other in self.order.apart.get(name.as_str()).into_iter().flatten() {
            for (node, stays) in self.running.get(other).into_iter().flatten() {
                if *stays { &mut away } else { &mut away_soon }.entry(*node).or_insert(*other);
            }
        }
        let beside = self.order.beside.get(name.as_str()).into_iter().flatten().map(|other| {
            let at = self.running.get(other).into_iter().flatten();
            (*other, at.filter(|(_, stays)| **stays).map(|(node, _)| *node).collect())
        });
        let beside = beside.collect();
        let busy = if self.conflicts.nothing_lingers() { BTreeSet::new() } else { self.conflicts.busy(name, &app.unit_name()) };
        let (asks, reserved) = self.rooms.of(name);
        let ctx = Context {
            world: self.world,
            name,
            app,
            evidence: self.world.evidence(name),
            matching: selectors.matching(self.world, &app.spec.placement),
            run: shared_run(app, self.world.evidence(name)),
            away,
            away_soon,
            beside,
            busy,
            asks,
            reserved,
        };
        let (mut entries, mut notes, newest) = match app.spec.mode {
            Mode::Singleton => singleton::plan(&ctx, &self.board),
            Mode::Spread => {
                let (entries, notes) = pool::spread(&ctx);
                (entries, notes, 0)
            }
            Mode::Replicas => {
                let (entries, notes) = pool::replicas(&ctx, &self.board);
                (entries, notes, 0)
            }
            Mode::Ring => ring::plan(&ctx, &self.board),
        };
        update::hold_back(&ctx, &mut entries);
        if self.probe == Some(name.as_str()) {
            self.explained = Some(explain::view(&ctx, &self.board, &entries));
        }
        if app.spec.mode != Mode::Singleton
            && let Some((slot, epoch)) = vip::plan(&ctx, &mut entries, &mut notes)
        {
            self.remember(slot, epoch);
        }
        if let Some(vip) = app.spec.vip.as_ref().filter(|_| app.spec.mode == Mode::Singleton) {
            self.remember(format!("vip/{}", vip.ip()), newest);
        }
        self.remember(slot_of(name, app.spec.mode), newest);
        set_peers(self.world, &mut entries);
        self.plan.notes.insert(name.clone(), notes);
        self.settle(name, entries);
    }

    fn delete(&mut self, name: &'a str, app: &App) {
        let left = self.withdraw(name, Some(app), &reason(ReasonCode::Deleted, "the App is being deleted".to_owned()));
        if left.is_empty() {
            self.plan.gone.push(name.to_owned());
        } else {
            self.plan.terminating.insert(name.to_owned(), left.into_iter().map(|n| self.world.name(n).to_owned()).collect());
        }
    }

    /// Apps that nobody wants but that have entries or leave traces: their objects are gone.
    fn withdraw_unknown(&mut self) {
        let world = self.world;
        for name in world.seen_apps().filter(|name| !world.input.apps.contains_key(*name)) {
            self.withdraw(name, None, &reason(ReasonCode::Deleted, "no such App".to_owned()));
        }
    }

    /// Takes an App off all nodes; tells on which something is left.
    fn withdraw(&mut self, name: &'a str, app: Option<&App>, why: &cluster_schemas::assignment::Reason) -> Vec<usize> {
        let entries: Entries = self
            .world
            .evidence(name)
            .iter()
            .filter_map(|seen| absent(name, app, seen, || why.clone()).map(|entry| (seen.node, entry)))
            .collect();
        if let Some(mode) = app.map(|a| a.spec.mode).filter(|m| matches!(m, Mode::Singleton | Mode::Ring)) {
            self.remember(slot_of(name, mode), self.world.newest_epoch(name, mode));
        }
        let left = entries.keys().copied().collect();
        self.settle(name, entries);
        left
    }

    fn remember(&mut self, slot: String, epoch: u64) {
        if epoch > 0 {
            let known = self.plan.epochs.entry(slot).or_default();
            *known = epoch.max(*known);
        }
    }

    fn settle(&mut self, name: &'a str, entries: Entries) {
        self.board.account(self.world.evidence(name), &entries);
        self.rooms.account(name, self.world.evidence(name), &entries);
        if self.order.watched.contains(name) {
            let stays = |e: &AppAssignment| match e.role {
                Role::Active | Role::Member => Some(true),
                Role::Standby => e.releasing.map(|_| false),
                Role::Absent => (e.mode != Mode::Singleton || e.releasing.is_some()).then_some(false),
            };
            self.running.insert(name, entries.iter().filter_map(|(node, e)| stays(e).map(|stays| (*node, stays))).collect());
        }
        for (node, entry) in entries {
            self.per_node[node].push((name, entry));
        }
    }

    fn finish(mut self) -> Plan {
        let input = self.world.input;
        for (ip, epoch) in self.world.vip_epochs() {
            self.remember(format!("vip/{ip}"), epoch);
        }
        self.plan.gone.sort();
        let members = shared_members(input);
        for (view, apps) in self.world.nodes.iter().zip(self.per_node) {
            let name = &view.node.name;
            // Made from all at once: one by one would move most of them several times.
            let apps: BTreeMap<String, AppAssignment> = apps.into_iter().map(|(name, entry)| (name.to_owned(), entry)).collect();
            let unchanged = view.last.filter(|last| {
                last.order.incarnation == input.incarnation
                    && last.boot_id == view.node.boot_id
                    && last.members == members
                    && last.cordoned != view.open
                    && last.apps == apps
            });
            let assignment = Assignment {
                node: name.clone(),
                order: unchanged.map_or_else(|| next_order(input, view), |last| last.order.clone()),
                boot_id: view.node.boot_id.clone(),
                members: Arc::clone(&members),
                cordoned: !view.open,
                apps,
                // What an operator signed is no matter of planning.
                ..Assignment::default()
            };
            self.plan.assignments.insert(name.clone(), assignment);
        }
        self.plan
    }
}

/// The names of all nodes: the list that the last plan's assignments share, if it is still true.
fn shared_members(input: &Input<'_>) -> Arc<Vec<String>> {
    let last = input.assignments.values().next().map(|a| &a.members);
    last.filter(|members| members.iter().eq(input.nodes.keys())).map_or_else(|| Arc::new(input.nodes.keys().cloned().collect()), Arc::clone)
}

/// Newer than what was written, and than what the agent or any of its workers says to have taken, should the store have lost that.
fn next_order(input: &Input<'_>, view: &world::NodeView<'_>) -> Order {
    let written = view.last.map_or(0, |a| a.order.generation);
    let taken = view.status.and_then(|s| s.assignment.as_ref()).map_or(0, |o| o.generation);
    let seen = view.status.into_iter().flat_map(|s| s.apps.values()).map(|o| o.seen).max().unwrap_or(0);
    Order { incarnation: input.incarnation.to_owned(), term: input.term, generation: written.max(taken).max(seen) + 1 }
}

fn slot_of(app: &str, mode: Mode) -> String {
    if mode == Mode::Ring { format!("ring/{app}") } else { format!("app/{app}") }
}

/// Each entry's peers: the other nodes that have a place for the App.
fn set_peers(world: &World<'_>, entries: &mut Entries) {
    let present: Vec<usize> = entries.iter().filter(|(_, e)| e.role != Role::Absent).map(|(node, _)| *node).collect();
    if present.len() > PEERS_MAX {
        return;
    }
    for node in &present {
        if let Some(entry) = entries.get_mut(node) {
            entry.peers = present.iter().filter(|other| *other != node).map(|other| world.name(*other).to_owned()).collect();
        }
    }
}
