//! Switchovers: operators' wishes that a Singleton be active elsewhere (protocols P5), from the request to its end.
//!
//! A wish is stored beside the assignments and is about one tenure. The planner has that tenure's holder let go in favour of whoever shall
//! follow; the agents do the rest among themselves. The leading controller deletes the wish once a later tenure is seen, and lets it lapse
//! after [`LIFE`]: what could not be done then must not happen an hour later.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use cluster_bus::{HANDOVER_PREFIX, HandoverOrder, Kv, KvError};
use cluster_planner::Handover;
use cluster_schemas::assignment::Role;
use cluster_schemas::node::{Cordon, InstanceState};
use cluster_schemas::{App, Mode};
use tracing::{info, warn};

use crate::world::{HEARTBEAT_TIMEOUT, SharedWorld, World};

/// A wish that nothing came of for so long is dropped.
pub const LIFE: Duration = Duration::from_secs(60);

/// Wishes, each with the moment it was seen first.
pub type Known = BTreeMap<String, (HandoverOrder, Instant)>;

/// Why a Singleton cannot be moved as asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no such App.
    #[error("there is no App {0:?}")]
    NoApp(String),
    /// There is no such node.
    #[error("there is no node {0:?}")]
    NoNode(String),
    /// The App, or the node that shall follow, is not in a state for it.
    #[error("{0}")]
    Cannot(String),
}

/// A wish that may be stored, and who is active now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judged {
    /// The active node.
    pub from: String,
    /// Who shall follow, where one was named.
    pub to: Option<String>,
    /// Uid of the App.
    pub uid: String,
}

/// Who has the lease of a Singleton's slot, by the nodes' own word: node and epoch.
fn holder<'w>(world: &'w World, app: &str) -> Option<(&'w str, u64)> {
    let seen = world.statuses.iter().flatten().filter_map(|(node, s)| s.value.apps.get(app).map(|o| (node.as_str(), o.leased)));
    seen.filter(|(_, epoch)| *epoch > 0).max_by_key(|(_, epoch)| *epoch)
}

/// Judges the request to end the tenure `epoch` of `app` in favour of `to`, or of the best candidate.
///
/// # Errors
/// [`Refusal`], which says what would have to be different.
pub fn judge(world: &World, app: &str, epoch: u64, to: Option<&str>, now: Instant) -> Result<Judged, Refusal> {
    let found = world.apps.as_ref().and_then(|apps| apps.get(app)).filter(|a| !a.is_deleted());
    let spec = found.ok_or_else(|| Refusal::NoApp(app.to_owned()))?;
    if spec.spec.mode != Mode::Singleton {
        return Err(Refusal::Cannot(format!(
            "App {app:?} is a {}: only a Singleton has one active instance to move",
            spec.spec.mode.as_str()
        )));
    }
    let Some((from, present)) = holder(world, app) else {
        return Err(Refusal::Cannot(format!("nobody is active for App {app:?} now, so there is nothing to hand over")));
    };
    if present != epoch {
        return Err(Refusal::Cannot(format!("the tenure with epoch {epoch} is over: {from} is active with epoch {present}")));
    }
    if let Some(to) = to {
        if to == from {
            return Err(Refusal::Cannot(format!("App {app:?} is active on {to} already")));
        }
        if !world.nodes.as_ref().is_some_and(|nodes| nodes.contains_key(to)) {
            return Err(Refusal::NoNode(to.to_owned()));
        }
        if let Some(why) = unready(world, spec, to, now) {
            return Err(Refusal::Cannot(format!("{to} cannot take over App {app:?}: {why}")));
        }
    } else {
        let others: Vec<&String> = world.nodes.iter().flatten().map(|(name, _)| name).filter(|name| *name != from).collect();
        let reasons: Vec<(&String, Option<String>)> = others.iter().map(|n| (*n, unready(world, spec, n, now))).collect();
        if reasons.iter().all(|(_, why)| why.is_some()) {
            let each: Vec<String> = reasons.into_iter().filter_map(|(node, why)| Some(format!("{node}: {}", why?))).collect();
            let each = if each.is_empty() { "there is no other node".to_owned() } else { each.join("; ") };
            return Err(Refusal::Cannot(format!("no other node can take over App {app:?}: {each}")));
        }
    }
    Ok(Judged { from: from.to_owned(), to: to.map(ToOwned::to_owned), uid: spec.metadata.uid.clone() })
}

/// Why a node cannot take over at once; nothing where it can.
fn unready(world: &World, app: &App, node: &str, now: Instant) -> Option<String> {
    let name = &app.metadata.name;
    let registered = world.nodes.as_ref().and_then(|nodes| nodes.get(node));
    if registered.is_some_and(|n| n.witness) {
        return Some("it is a witness".to_owned());
    }
    if !world.heartbeats.contains_key(node) || world.silence(node, now) >= HEARTBEAT_TIMEOUT {
        return Some("it is not heard".to_owned());
    }
    match world.cordon(node) {
        Cordon::None => {}
        Cordon::Cordoned => return Some("it is cordoned".to_owned()),
        Cordon::Draining => return Some("it is being drained".to_owned()),
    }
    let status = world.statuses.as_ref().and_then(|s| s.get(node)).map(|s| &s.value);
    if !status.is_some_and(|s| s.quorum) {
        return Some("it can hold nothing exclusive now".to_owned());
    }
    let entry = world.assignments.as_ref().and_then(|a| a.get(node)).and_then(|a| a.value.apps.get(name));
    if entry.is_none_or(|e| e.role != Role::Standby) {
        let why = entry.map(|e| e.reason.message.as_str()).filter(|m| !m.is_empty());
        return Some(why.map_or_else(|| "it does not stand by".to_owned(), |why| format!("it does not stand by: {why}")));
    }
    let Some(seen) = status.and_then(|s| s.apps.get(name)) else { return Some("it does not stand by yet".to_owned()) };
    let hot = app.spec.standby == cluster_schemas::app::Standby::Hot;
    match seen.state {
        InstanceState::Failed => Some(format!("it failed there{}", first_line(&seen.message))),
        InstanceState::Running => None,
        state if hot => Some(format!("its hot standby is {state:?}{}", first_line(&seen.message))),
        _ => None,
    }
}

fn first_line(message: &str) -> String {
    message.lines().next().map(|line| format!(": {line}")).unwrap_or_default()
}

/// The wishes as the planner takes them. One about an earlier App of the name is none.
#[must_use]
pub fn wishes(world: &World) -> BTreeMap<String, Handover> {
    let uid = |app: &str| world.apps.as_ref().and_then(|apps| apps.get(app)).map(|a| a.metadata.uid.as_str());
    let orders = world.handovers.iter().flatten().filter(|(app, order)| uid(app) == Some(&order.uid));
    orders.map(|(app, order)| (app.clone(), Handover { epoch: order.epoch, to: order.to.clone() })).collect()
}

/// What became of a wish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Open,
    Done,
    Lapsed,
}

fn fate(world: &World, app: &str, order: &HandoverOrder, since: Instant, now: Instant) -> Fate {
    let same = world.apps.as_ref().and_then(|apps| apps.get(app)).is_some_and(|a| a.metadata.uid == order.uid && !a.is_deleted());
    match holder(world, app) {
        Some((_, epoch)) if epoch > order.epoch => Fate::Done,
        _ if !same => Fate::Lapsed,
        // While nobody is active it is under way: whoever was named shall still come first.
        Some(_) if now.saturating_duration_since(since) > LIFE => Fate::Lapsed,
        _ => Fate::Open,
    }
}

/// Deletes the wishes that are done or have lapsed.
///
/// # Errors
/// As the store says; the next pass tries again.
pub async fn settle(kv: &Kv<HandoverOrder>, world: &SharedWorld, known: &mut Known) -> Result<(), KvError> {
    let now = Instant::now();
    let ended: Vec<(String, HandoverOrder, Fate)> = {
        let world = world.read();
        let orders = world.handovers.clone().unwrap_or_default();
        known.retain(|app, (order, _)| orders.get(app) == Some(order));
        for (app, order) in orders {
            known.entry(app).or_insert((order, now));
        }
        let fates = known.iter().map(|(app, (order, since))| (app.clone(), order.clone(), fate(&world, app, order, *since, now)));
        fates.filter(|(.., fate)| *fate != Fate::Open).collect()
    };
    for (app, order, fate) in ended {
        let key = format!("{HANDOVER_PREFIX}{app}");
        if let Some(present) = kv.get(&key).await?.filter(|present| present.value == order) {
            match kv.delete(&key, present.revision).await {
                // Another wish came in between; the next pass looks at that one.
                Ok(()) | Err(KvError::Conflict { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        match fate {
            Fate::Lapsed => warn!(app, epoch = order.epoch, "nothing came of a switchover, it is dropped"),
            Fate::Done | Fate::Open => info!(app, after = order.epoch, "switched over"),
        }
        world.change(|w| w.handovers.as_mut().is_some_and(|all| all.get(&app) == Some(&order) && all.remove(&app).is_some()));
    }
    Ok(())
}
