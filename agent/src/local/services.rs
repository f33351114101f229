//! `/v1/services/APP`: the instances of an App that can serve now. From the agents' own words; no controller is asked.
//!
//! An instance is listed while its agent says that it runs and is healthy, in a role that serves (the active one of a Singleton, a member of a pool
//! or ring), and its node was heard in the last [`HEARD`]. Who hears fewer than half of the registered nodes, itself counted, has no word on
//! who is gone: the list stays as it was when enough were heard last, less what is told nonetheless, and is marked stale.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use cluster_bus::{Bucket, Bus};
use cluster_schemas::NodeStatus;
use cluster_schemas::assignment::Role;
use cluster_schemas::node::{Heartbeat, InstanceState};
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};

use super::caller::Caller;
use super::followed::{self, Followed};
use super::{Local, LocalError, events, selves};

/// A node that was silent for longer is taken for gone: three heartbeats.
const HEARD: Duration = Duration::from_secs(3);
/// How often the clock is looked at.
const TICK: Duration = Duration::from_millis(500);
/// Longest wait of a first question: [`HEARD`], and the time for a listing.
const FIRST_LIMIT: Duration = Duration::from_secs(5);
/// Pause before heartbeats are subscribed to again.
const SUBSCRIBE_RETRY: Duration = Duration::from_secs(1);

/// An instance that can serve.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Instance {
    node: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    role: Role,
    /// Singleton: epoch of the tenure; 0 elsewhere.
    epoch: u64,
}

/// What a node's agent said of its Apps.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Said {
    boot: String,
    /// Role and epoch of those that serve by its word; none of those that do not.
    apps: BTreeMap<String, Option<(Role, u64)>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Heard {
    at: Instant,
    boot: String,
    not_ready: Vec<String>,
}

/// All that is known of who serves.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// By node; none before the first listing.
    said: Option<BTreeMap<String, Said>>,
    /// Registered nodes, with their address. What others say is not kept, which bounds the rest.
    nodes: BTreeMap<String, Option<String>>,
    heard: BTreeMap<String, Heard>,
    /// When at least half of the nodes were heard last.
    enough_at: Option<Instant>,
    /// When heartbeats began to be heard.
    begun: Option<Instant>,
    /// Every node was heard, or had the time to be: what is known is all there is to know.
    settled: bool,
    /// By App: what comes of it.
    services: BTreeMap<String, Vec<Instance>>,
    stale: bool,
}

impl Known {
    /// Takes a heartbeat. Whether it says anything but that the node is there still.
    fn hear(&mut self, heartbeat: Heartbeat, now: Instant) -> bool {
        let Heartbeat { node, boot_id: boot, not_ready, .. } = heartbeat;
        if !self.nodes.contains_key(&node) {
            return false;
        }
        let before = self.heard.insert(node, Heard { at: now, boot: boot.clone(), not_ready: not_ready.clone() });
        before.is_none_or(|before| (before.boot, before.not_ready) != (boot, not_ready))
    }

    /// Works out who serves. Whether that is another answer than before.
    fn settle(&mut self, now: Instant) -> bool {
        self.heard.retain(|node, _| self.nodes.contains_key(node));
        let heard = self.heard.values().filter(|heard| heard.at + HEARD >= now).count();
        let stale = heard == 0 || heard * 2 < self.nodes.len();
        if !stale {
            self.enough_at = Some(now);
        }
        let mut services: BTreeMap<String, Vec<Instance>> = BTreeMap::new();
        for (node, said) in self.said.iter().flatten() {
            let Some(address) = self.nodes.get(node) else { continue };
            let heard = self.heard.get(node);
            let live = self.enough_at.is_none_or(|at| heard.is_some_and(|heard| heard.at + HEARD >= at && heard.boot == said.boot));
            for (app, serves) in &said.apps {
                let instances = services.entry(app.clone()).or_default();
                let ready = heard.is_none_or(|heard| !heard.not_ready.contains(app));
                if let Some((role, epoch)) = serves.filter(|_| live && ready) {
                    instances.push(Instance { node: node.clone(), address: address.clone(), role, epoch });
                }
            }
        }
        let all_heard = heard > 0 && self.nodes.keys().all(|node| self.heard.contains_key(node));
        let listened = self.begun.is_some_and(|begun| begun + HEARD <= now);
        let settled = self.settled || (self.said.is_some() && (all_heard || listened));
        let changed = (stale, settled, &services) != (self.stale, self.settled, &self.services);
        (self.stale, self.settled, self.services) = (stale, settled, services);
        changed
    }
}

fn said(status: NodeStatus) -> Said {
    let serves = |seen: &cluster_schemas::node::AppObserved| {
        let serving = seen.healthy && seen.state == InstanceState::Running && matches!(seen.role, Role::Active | Role::Member);
        serving.then_some((seen.role, seen.epoch))
    };
    Said { boot: status.boot_id, apps: status.apps.iter().map(|(app, seen)| (app.clone(), serves(seen))).collect() }
}

async fn statuses(bus: Bus, known: watch::Sender<Known>) {
    let watch = bus.open::<NodeStatus>(Bucket::Status).await.watch_checked("node.*");
    followed::each(watch, |changes, all| {
        known.send_if_modified(|known| {
            let first = known.said.is_none();
            let nodes = known.said.get_or_insert_default();
            if all {
                nodes.clear();
            }
            for (key, status) in changes {
                let node = key.trim_start_matches("node.").to_owned();
                match status {
                    Some(status) => drop(nodes.insert(node, said(status))),
                    None => drop(nodes.remove(&node)),
                }
            }
            known.settle(Instant::now()) || first
        });
    })
    .await;
}

async fn nodes(bus: Bus, known: watch::Sender<Known>) {
    followed::each_node(&bus, |changes, all| {
        known.send_if_modified(|known| {
            if all {
                known.nodes.clear();
            }
            for (name, node) in changes {
                match node {
                    Some(address) => drop(known.nodes.insert(name, address)),
                    None => drop(known.nodes.remove(&name)),
                }
            }
            known.settle(Instant::now())
        });
    })
    .await;
}

async fn heartbeats(bus: Bus, known: watch::Sender<Known>) {
    known.send_if_modified(|known| {
        known.begun = Some(Instant::now());
        false
    });
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let Ok(mut heartbeats) = bus.heartbeats().await else {
            tokio::time::sleep(SUBSCRIBE_RETRY).await;
            continue;
        };
        loop {
            tokio::select! {
                _ = ticks.tick() => drop(known.send_if_modified(|known| known.settle(Instant::now()))),
                heartbeat = heartbeats.next() => match heartbeat {
                    Some(heartbeat) => drop(known.send_if_modified(|known| {
                        let now = Instant::now();
                        known.hear(heartbeat, now) && known.settle(now)
                    })),
                    None => break,
                },
            }
        }
    }
}

/// The services that are followed, once somebody asked.
pub type Services = Followed<Known>;

/// The answer to a question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Service {
    app: String,
    /// Sorted by node.
    instances: Vec<Instance>,
    /// Too few nodes are heard here: this is what was known last.
    stale: bool,
    /// Tells two answers apart: another content has another version.
    version: String,
}

fn service(known: &Known, app: &str) -> Option<Service> {
    let instances = known.services.get(app)?.clone();
    let mut service = Service { app: app.to_owned(), instances, stale: known.stale, version: String::new() };
    service.version = selves::version(&service);
    Some(service)
}

/// Who serves is no secret: every App of the node may ask for every service.
async fn follow(local: &Local) -> Result<watch::Receiver<Known>, LocalError> {
    let bus = &local.bus;
    let mut known = local.services.follow(|known| {
        vec![
            tokio::spawn(statuses(bus.clone(), known.clone())),
            tokio::spawn(nodes(bus.clone(), known.clone())),
            tokio::spawn(heartbeats(bus.clone(), known.clone())),
        ]
    });
    // Before all nodes had the time to be heard, those that serve would be left out.
    let settled = known.wait_for(|known| known.settled);
    if tokio::time::timeout(FIRST_LIMIT, settled).await.is_err() {
        return Err(LocalError::unavailable("the services are not known here yet: the store cannot be reached"));
    }
    Ok(known)
}

/// `GET /v1/services/APP[?watch=true]`
pub(super) async fn get(
    State(local): State<Arc<Local>>,
    _caller: Caller,
    Path(app): Path<String>,
    Query(asked): Query<events::WatchQuery>,
    headers: HeaderMap,
) -> Result<Response, LocalError> {
    cluster_schemas::name::check_name(&app).map_err(|error| LocalError::bad_request(format!("{app}: {error}")))?;
    let known = follow(&local).await?;
    let now = service(&known.borrow(), &app);
    let now = now.ok_or_else(|| LocalError::not_found(format!("no node has anything of an App {app:?}")))?;
    if !asked.watch {
        return Ok(Json(now).into_response());
    }
    Ok(events::views(known, "service", &headers, move |known| {
        // An App that is gone from all nodes serves nowhere.
        let gone = || Service { app: app.clone(), instances: Vec::new(), stale: false, version: "gone".to_owned() };
        let now = service(known, &app).unwrap_or_else(gone);
        Some((now.version.clone(), now))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const APP: &str = "api";

    fn heartbeat(node: &str, boot: &str, not_ready: &[&str]) -> Heartbeat {
        Heartbeat {
            node: node.to_owned(),
            boot_id: boot.to_owned(),
            instance: String::new(),
            sequence: 0,
            assignment: None,
            status_revision: 0,
            term: 0,
            load_percent: 0,
            not_ready: not_ready.iter().map(|app| (*app).to_owned()).collect(),
        }
    }

    /// All of `nodes` serve, and were heard at `now`.
    fn known(nodes: &[&str], now: Instant) -> Known {
        let serving = || Said { boot: "b".to_owned(), apps: [(APP.to_owned(), Some((Role::Member, 0)))].into() };
        let mut known = Known {
            said: Some(nodes.iter().map(|node| ((*node).to_owned(), serving())).collect()),
            nodes: nodes.iter().map(|node| ((*node).to_owned(), None)).collect(),
            ..Known::default()
        };
        for node in nodes {
            assert!(known.hear(heartbeat(node, "b", &[]), now));
        }
        known.settle(now);
        known
    }

    fn serving(known: &Known) -> Vec<&str> {
        known.services[APP].iter().map(|instance| instance.node.as_str()).collect()
    }

    #[test]
    fn only_what_runs_healthy_in_a_role_that_serves_is_listed() {
        use cluster_schemas::node::AppObserved;
        let good = AppObserved { role: Role::Member, state: InstanceState::Running, healthy: true, ..AppObserved::default() };
        let apps = [
            ("good", good.clone()),
            ("sick", AppObserved { healthy: false, ..good.clone() }),
            ("stopping", AppObserved { state: InstanceState::Stopping, ..good.clone() }),
            ("hot-standby", AppObserved { role: Role::Standby, ..good.clone() }),
            ("active", AppObserved { role: Role::Active, epoch: 7, ..good }),
        ];
        let status = NodeStatus { apps: apps.map(|(app, seen)| (app.to_owned(), seen)).into(), ..NodeStatus::default() };
        let serving: Vec<(String, u64)> = said(status).apps.into_iter().filter_map(|(app, serves)| Some((app, serves?.1))).collect();
        assert_eq!(serving, [("active".to_owned(), 7), ("good".to_owned(), 0)]);
    }

    #[test]
    fn who_is_not_ready_leaves_at_its_next_heartbeat_and_a_rebooted_node_until_it_says_what_it_has() {
        let now = Instant::now();
        let mut known = known(&["n1", "n2", "n3"], now);
        assert_eq!((serving(&known), known.stale), (vec!["n1", "n2", "n3"], false));
        assert!(!known.hear(heartbeat("n2", "b", &[]), now), "nothing new is no reason to work it out again");
        assert!(known.hear(heartbeat("n2", "b", &[APP]), now) && known.settle(now));
        assert_eq!(serving(&known), ["n1", "n3"]);
        assert!(known.hear(heartbeat("n3", "c", &[]), now) && known.settle(now));
        assert_eq!(serving(&known), ["n1"]);
        assert!(!known.hear(heartbeat("stranger", "b", &[]), now));
        assert!(!known.heard.contains_key("stranger"));
    }

    #[test]
    fn a_silent_node_leaves_and_who_hears_too_few_keeps_what_it_knew() {
        let start = Instant::now();
        let mut known = known(&["n1", "n2", "n3"], start);
        let mut now = start + HEARD + Duration::from_millis(1);
        for node in ["n1", "n2"] {
            known.hear(heartbeat(node, "b", &[]), now);
        }
        assert!(known.settle(now));
        assert_eq!((serving(&known), known.stale), (vec!["n1", "n2"], false));
        // Now it is cut off with itself: the others are kept, but for the one that was gone before.
        for _ in 0..5 {
            now += HEARD;
            known.hear(heartbeat("n1", "b", &[]), now);
            known.settle(now);
        }
        assert_eq!((serving(&known), known.stale), (vec!["n1", "n2"], true));
        known.hear(heartbeat("n3", "b", &[]), now);
        assert!(known.settle(now));
        assert_eq!((serving(&known), known.stale), (vec!["n1", "n3"], false));
    }

    #[test]
    fn nobody_is_answered_before_all_nodes_had_the_time_to_be_heard() {
        let start = Instant::now();
        let mut known = known(&["n1", "n2", "n3"], start);
        assert!(known.settled, "all were heard");
        known.heard.clear();
        known.settled = false;
        known.begun = Some(start);
        for node in ["n1", "n2"] {
            known.hear(heartbeat(node, "b", &[]), start);
        }
        known.settle(start);
        assert!(!known.settled, "n3 may be as alive as the others");
        assert!(known.settle(start + HEARD) && known.settled);
        assert_eq!((serving(&known), known.stale), (vec!["n1", "n2"], false));
        // Whoever comes later makes nobody wait again, and without a listing nothing is known.
        known.nodes.insert("n4".to_owned(), None);
        known.settle(start + HEARD);
        assert!(known.settled);
        let mut unlisted = Known { begun: Some(start), ..Known::default() };
        unlisted.settle(start + 2 * HEARD);
        assert!(!unlisted.settled);
    }

    #[test]
    fn of_two_nodes_the_silent_one_leaves_and_nobody_heard_is_stale() {
        let start = Instant::now();
        let mut known = known(&["n1", "n2"], start);
        let now = start + 2 * HEARD;
        known.hear(heartbeat("n1", "b", &[]), now);
        assert!(known.settle(now));
        assert_eq!((serving(&known), known.stale), (vec!["n1"], false));
        known.settle(now + 2 * HEARD);
        assert_eq!((serving(&known), known.stale), (vec!["n1"], true));
        // Nothing was heard yet: what the store has is all there is to say.
        known.heard.clear();
        known.enough_at = None;
        known.settle(now);
        assert_eq!((serving(&known), known.stale), (vec!["n1", "n2"], true));
    }
}
