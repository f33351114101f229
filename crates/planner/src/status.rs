//! How each App is: its [`AppStatus`], computed from a plan and what is observed. Times are for the caller, which has a clock.
//!
//! Ready means: Singleton - one active instance, healthy, its VIP seen; Spread - every eligible Live node; Replicas - as many healthy
//! ones as asked for; Ring - every partition confirmed by its owner. A pool's or ring's VIP has to be seen as well.

mod replicated;

use std::collections::BTreeMap;

use cluster_schemas::app::ip;
use cluster_schemas::assignment::{AppAssignment, Reason, Role};
use cluster_schemas::node::{AppObserved, InstanceState};
use cluster_schemas::status::{Condition, ConditionStatus, Instance};
use cluster_schemas::{App, AppStatus, Mode, PartitionSet};

use crate::input::{AppNotes, Liveness, NodeInput, Plan};
use crate::words;

/// One node's part of an App: what is planned there, and what is seen of it.
struct Part<'a> {
    node: &'a str,
    entry: &'a AppAssignment,
    live: bool,
    quorum: bool,
    /// Of this App, not of an earlier one of its name; `None` on Lost nodes.
    observed: Option<&'a AppObserved>,
}

impl<'a> Part<'a> {
    /// Serves by the spec of its entry; what runs by an earlier one does not count.
    fn healthy(&self) -> bool {
        self.observed.is_some_and(|o| o.healthy && o.state == InstanceState::Running && o.generation == self.entry.generation)
    }

    fn state(&self) -> InstanceState {
        if self.live { self.observed.map_or(InstanceState::Pending, |o| o.state) } else { InstanceState::Unknown }
    }

    fn has_vip(&self, address: &str) -> bool {
        self.observed.and_then(|o| o.vip.as_ref()).is_some_and(|v| v.present && ip(&v.address) == ip(address))
    }

    /// Why the VIP could not be put there, in a word of the agent's.
    fn vip_trouble(&self) -> Option<&'a str> {
        let told = self.observed.and_then(|o| o.vip.as_ref()).map(|v| v.trouble.as_str());
        told.filter(|word| !word.is_empty())
    }

    /// The node and what is wrong with its instance, for a sentence.
    fn trouble(&self) -> Option<String> {
        if !self.live {
            return Some(format!("{} is not heard", self.node));
        }
        let message = self.observed.map(|o| o.message.as_str()).filter(|m| !m.is_empty());
        match (self.healthy(), message) {
            (true, _) => None,
            (false, Some(message)) => Some(format!("{}: {}", self.node, message.lines().next().unwrap_or_default())),
            (false, None) => Some(format!("{} is {}", self.node, state_word(self.state()))),
        }
    }
}

const fn state_word(state: InstanceState) -> &'static str {
    match state {
        InstanceState::Pending => "not started yet",
        InstanceState::Starting => "starting",
        InstanceState::Running => "running, but not healthy",
        InstanceState::Stopping => "stopping",
        InstanceState::Failed => "failed",
        InstanceState::Unknown => "unknown",
        InstanceState::Stopped => "stopped",
    }
}

/// The status of `app`. For all Apps at once [`app_statuses`] is cheaper.
#[must_use]
pub fn app_status(app: &App, plan: &Plan, nodes: &BTreeMap<String, NodeInput>) -> AppStatus {
    let name = &app.metadata.name;
    let entries = plan.assignments.iter().filter_map(|(node, a)| a.apps.get_key_value(name).map(|(_, e)| (node.as_str(), e)));
    let parts = entries.filter_map(|(node, entry)| part(app, nodes, node, entry)).collect::<Vec<_>>();
    compute(app, plan, &parts)
}

/// The statuses of all `apps`, by name.
#[must_use]
pub fn app_statuses(apps: &BTreeMap<String, App>, plan: &Plan, nodes: &BTreeMap<String, NodeInput>) -> BTreeMap<String, AppStatus> {
    let mut parts: BTreeMap<&str, Vec<Part<'_>>> = BTreeMap::new();
    for (node, assignment) in &plan.assignments {
        for (name, entry) in &assignment.apps {
            if let Some(part) = apps.get(name).and_then(|app| part(app, nodes, node, entry)) {
                parts.entry(name).or_default().push(part);
            }
        }
    }
    apps.iter().map(|(name, app)| (name.clone(), compute(app, plan, parts.get(name.as_str()).map_or(&[], Vec::as_slice)))).collect()
}

fn part<'a>(app: &App, nodes: &'a BTreeMap<String, NodeInput>, node: &'a str, entry: &'a AppAssignment) -> Option<Part<'a>> {
    let input = nodes.get(node)?;
    let live = input.liveness == Liveness::Live;
    let status = input.status.as_ref();
    let observed = status.filter(|_| live).and_then(|s| s.apps.get(&app.metadata.name)).filter(|o| o.uid == app.metadata.uid);
    Some(Part { node, entry, live, quorum: status.is_some_and(|s| s.quorum), observed })
}

fn compute(app: &App, plan: &Plan, parts: &[Part<'_>]) -> AppStatus {
    let nothing = AppNotes::default();
    let notes = plan.notes.get(&app.metadata.name).unwrap_or(&nothing);
    let (ready, verdict) = match app.spec.mode {
        Mode::Singleton => singleton(app, parts, notes),
        Mode::Spread => pool(app, parts, None),
        Mode::Replicas => pool(app, parts, Some(app.spec.replicas.unwrap_or(1) as usize)),
        Mode::Ring => ring(app, parts, notes),
    };
    let terminating = app.is_deleted().then(|| plan.terminating.get(&app.metadata.name).map_or(&[][..], Vec::as_slice));
    let mut conditions = vec![ready_condition(notes, terminating.is_some(), verdict)];
    if app.spec.mode == Mode::Singleton && terminating.is_none() {
        conditions.push(degraded(parts));
    }
    if terminating.is_none() && notes.conflict.is_none() {
        conditions.push(placed(notes));
        conditions.extend(app.spec.update.map(|_| progressing(parts)));
    }
    if let Some(sentence) = &notes.conflict {
        conditions.push(condition("Conflict", true, "ClaimedByOlderApp", sentence.clone()));
    }
    conditions.extend(hooks(parts));
    if app.keeps() {
        let message = "`onQuorumLoss: Keep`: while the network is split, several nodes may be active, each with the VIP".to_owned();
        conditions.push(condition("Exclusive", false, "KeepsOnQuorumLoss", message));
    }
    if app.spec.database.is_some() && terminating.is_none() {
        conditions.push(replicated::replicated(parts));
    }
    if let Some(nodes) = terminating {
        conditions.push(terminating_condition(nodes, parts));
    }
    conditions.sort_by(|a, b| a.kind.cmp(&b.kind));
    AppStatus {
        uid: app.metadata.uid.clone(),
        observed_generation: app.metadata.generation,
        ready,
        conditions,
        instances: parts.iter().map(instance).collect(),
        ring_version: (app.spec.mode == Mode::Ring)
            .then(|| parts.iter().filter_map(|p| p.entry.ring.as_ref()).map(|r| r.version).max().unwrap_or(0)),
    }
}

fn condition(kind: &str, holds: bool, reason: &str, message: String) -> Condition {
    Condition {
        kind: kind.to_owned(),
        status: if holds { ConditionStatus::True } else { ConditionStatus::False },
        reason: reason.to_owned(),
        message,
        last_transition_time: None,
    }
}

/// Ready, or the reason and sentence why not.
type Verdict<'a> = Result<String, (&'a str, String)>;

fn ready_condition(notes: &AppNotes, deleted: bool, verdict: Verdict<'_>) -> Condition {
    let not = |reason: &str, message: String| condition("Ready", false, reason, message);
    if deleted {
        return not("Terminating", "the App is being deleted".to_owned());
    }
    if let Some(sentence) = &notes.conflict {
        return not("Conflict", sentence.clone());
    }
    if let Some(shortage) = notes.shortage.as_ref().filter(|s| s.none) {
        return not("NoEligibleNode", shortage.message.clone());
    }
    match verdict {
        Ok(message) => condition("Ready", true, "Ready", message),
        Err((reason, message)) => not(reason, message),
    }
}

fn singleton<'a>(app: &App, parts: &[Part<'a>], notes: &AppNotes) -> (String, Verdict<'a>) {
    let active = parts.iter().find(|p| p.entry.role == Role::Active);
    let verdict = match active {
        None => {
            let message = notes.waits.clone().unwrap_or_else(|| "no node is active".to_owned());
            Err(("NoActiveInstance", message))
        }
        Some(part) => {
            let holds = part.observed.is_some_and(|o| o.holds && o.epoch == part.entry.epoch);
            let vip = app.spec.vip.as_ref().is_none_or(|v| part.has_vip(&v.address));
            if holds && part.healthy() && vip {
                Ok(format!("active on {}", part.node))
            } else if !vip && (part.vip_trouble().is_some() || part.state() == InstanceState::Running) {
                let why = part.observed.map(|o| o.message.as_str()).filter(|m| !m.is_empty()).unwrap_or("not seen yet");
                Err((part.vip_trouble().unwrap_or("VipNotSeen"), format!("the VIP is not present on {}: {why}", part.node)))
            } else {
                Err(not_healthy(part))
            }
        }
    };
    (format!("{}/1", usize::from(verdict.is_ok())), verdict)
}

fn not_healthy(part: &Part<'_>) -> (&'static str, String) {
    let code = if part.state() == InstanceState::Failed { "Failed" } else { "NotHealthy" };
    (code, part.trouble().unwrap_or_else(|| format!("{} has not taken up its newest epoch yet", part.node)))
}

fn pool<'a>(app: &App, parts: &[Part<'a>], replicas: Option<usize>) -> (String, Verdict<'a>) {
    let members: Vec<&Part<'_>> = parts.iter().filter(|p| p.entry.role == Role::Member && p.live).collect();
    let healthy = members.iter().filter(|p| p.healthy()).count();
    let wanted = replicas.unwrap_or(members.len());
    let verdict = if healthy < wanted || wanted == 0 && replicas.is_none() {
        let trouble: Vec<String> = members.iter().filter_map(|p| p.trouble()).take(3).collect();
        let failed = members.iter().any(|p| p.state() == InstanceState::Failed);
        let why = if trouble.is_empty() { "fewer nodes than asked for".to_owned() } else { trouble.join("; ") };
        let code = if failed { "Failed" } else { members.iter().find_map(|p| p.vip_trouble()).unwrap_or("NotHealthy") };
        Err((code, format!("{healthy} of {wanted} are healthy: {why}")))
    } else {
        vip_verdict(app, parts).map(|()| format!("{wanted} instance{} healthy", if wanted == 1 { " is" } else { "s are" }))
    };
    // While more run than asked for, the surplus is on its way out and does not count.
    (format!("{}/{wanted}", healthy.min(wanted)), verdict)
}

fn vip_verdict<'a>(app: &App, parts: &[Part<'a>]) -> Result<(), (&'a str, String)> {
    let Some(vip) = &app.spec.vip else { return Ok(()) };
    let holder = parts.iter().find(|p| p.live && p.entry.vip.as_ref().is_some_and(|v| v.hold));
    match holder {
        Some(part) if part.has_vip(&vip.address) => Ok(()),
        Some(part) => {
            let why = part.observed.map(|o| o.message.as_str()).filter(|m| !m.is_empty()).map(|m| format!(": {m}")).unwrap_or_default();
            Err((part.vip_trouble().unwrap_or("VipNotSeen"), format!("VIP {} is not seen on {} yet{why}", vip.ip(), part.node)))
        }
        None => Err(("VipNotSeen", format!("no member holds VIP {}", vip.ip()))),
    }
}

fn ring<'a>(app: &App, parts: &[Part<'a>], notes: &AppNotes) -> (String, Verdict<'a>) {
    let total = usize::from(app.partitions());
    let confirmed = |p: &&Part<'_>| {
        let (Some(planned), Some(seen)) = (&p.entry.ring, p.observed.and_then(|o| o.ring.as_ref())) else { return 0 };
        // A tenure that the node gave up is not confirmed by what it says of it.
        let owned: PartitionSet = planned.own.iter().filter(|g| g.epoch > seen.gave_up).flat_map(|g| g.partitions.iter()).collect();
        owned.intersection(&seen.confirmed).len()
    };
    let count: usize = parts.iter().filter(|p| p.live).map(|p| confirmed(&p)).sum();
    let verdict = if count < total {
        let trouble: Vec<String> = parts.iter().filter(|p| p.entry.role == Role::Member).filter_map(Part::trouble).take(3).collect();
        let why = notes.waits.clone().into_iter().chain(trouble).collect::<Vec<_>>().join("; ");
        let colon = if why.is_empty() { "" } else { ": " };
        Err(("NotConfirmed", format!("{count} of {total} partitions are confirmed by their owners{colon}{why}")))
    } else {
        vip_verdict(app, parts).map(|()| format!("all {total} partitions are confirmed by their owners"))
    };
    (format!("{count}/{total}"), verdict)
}

/// Partitions that nodes gave back because their `onOwn` failed.
fn hooks(parts: &[Part<'_>]) -> Option<Condition> {
    let refuses = |p: &&Part<'_>| p.observed.and_then(|o| o.ring.as_ref()).is_some_and(|r| !r.refused.is_empty());
    let told = |p: &Part<'_>| {
        let message = p.observed.map(|o| o.message.as_str()).unwrap_or_default();
        format!("{}: {}", p.node, message.lines().next().unwrap_or_default())
    };
    let failing: Vec<String> = parts.iter().filter(refuses).map(told).take(3).collect();
    (!failing.is_empty()).then(|| condition("HooksFailing", true, "OnOwnFailed", failing.join("; ")))
}

fn degraded(parts: &[Part<'_>]) -> Condition {
    let able = |p: &&Part<'_>| p.entry.role == Role::Standby && p.live && p.quorum && p.state() != InstanceState::Failed;
    let standbys: Vec<&str> = parts.iter().filter(able).map(|p| p.node).collect();
    if standbys.is_empty() {
        let message = "no standby could take over: another eligible node is needed".to_owned();
        return condition("Degraded", true, "NoStandby", message);
    }
    let verb = if standbys.len() == 1 { "stands" } else { "stand" };
    condition("Degraded", false, "Standbys", format!("{} {verb} by", words::list(standbys)))
}

fn placed(notes: &AppNotes) -> Condition {
    match &notes.shortage {
        None => {
            let crowded = notes.crowded.as_ref().map(|text| format!("; {text}")).unwrap_or_default();
            let message = format!("{} node{} may run it{crowded}", notes.eligible, words::plural(notes.eligible));
            condition("Placed", true, "Placed", message)
        }
        Some(s) if s.none => condition("Placed", false, "NoEligibleNode", s.message.clone()),
        Some(s) => condition("Placed", false, "FewerNodesThanReplicas", s.message.clone()),
    }
}

/// How far the newest content has come.
fn progressing(parts: &[Part<'_>]) -> Condition {
    let present = || parts.iter().filter(|p| p.entry.role != Role::Absent);
    let (held, newest): (Vec<&Part<'_>>, Vec<&Part<'_>>) = present().partition(|p| !p.entry.held_back.is_empty());
    let runs = |p: &&&Part<'_>| matches!(p.entry.role, Role::Active | Role::Member) && !p.healthy();
    let unsettled: Vec<&Part<'_>> = newest.iter().filter(runs).copied().collect();
    let trouble = words::list(unsettled.iter().filter_map(|p| p.trouble()).collect::<Vec<_>>().iter().map(String::as_str));
    let of_it = |p: &&Part<'_>| p.observed.is_some_and(|o| o.generation == p.entry.generation);
    let keep = match held.as_slice() {
        [] => String::new(),
        some => format!(
            "; {} {} the content of before",
            words::list(some.iter().map(|p| p.node)),
            if some.len() == 1 { "keeps" } else { "keep" }
        ),
    };
    if newest.iter().any(|p| p.state() == InstanceState::Failed && of_it(p)) {
        let failed = newest.iter().filter(|p| p.state() == InstanceState::Failed).filter_map(|p| p.trouble()).next().unwrap_or_default();
        return condition("Progressing", false, "Failed", format!("the newest content failed: {failed}{keep}"));
    }
    let (have, all) = (newest.len(), newest.len() + held.len());
    if held.is_empty() && unsettled.is_empty() {
        return condition("Progressing", true, "Complete", format!("{have} of {all} have the newest content"));
    }
    let waits = if trouble.is_empty() { String::new() } else { format!("; waits for {trouble}") };
    condition("Progressing", true, "RollingOut", format!("{have} of {all} have the newest content{waits}{keep}"))
}

fn terminating_condition(nodes: &[String], parts: &[Part<'_>]) -> Condition {
    if nodes.is_empty() {
        return condition("Terminating", true, "Deleted", "nothing of it is left".to_owned());
    }
    let lost: Vec<&str> = parts.iter().filter(|p| !p.live).map(|p| p.node).collect();
    let mut message = format!("waits until nothing is left on {}", words::list(nodes.iter().map(String::as_str)));
    if !lost.is_empty() {
        message += &format!("; not heard: {} (bring it back, or remove the node)", words::list(lost));
    }
    condition("Terminating", true, "WaitsForNodes", message)
}

/// Why it is there, and with which content.
fn reason(entry: &AppAssignment) -> Reason {
    let mut reason = entry.reason.clone();
    if !entry.held_back.is_empty() {
        reason.message += &format!("; {}", entry.held_back);
    }
    reason
}

fn instance(part: &Part<'_>) -> Instance {
    let entry = part.entry;
    let owned = entry.ring.as_ref().filter(|_| entry.mode == Mode::Ring);
    let epoch = match entry.role {
        Role::Active => Some(entry.epoch),
        Role::Member => owned.and_then(|r| r.own.iter().map(|g| g.epoch).max()),
        Role::Standby | Role::Absent => None,
    };
    Instance {
        node: part.node.to_owned(),
        role: entry.role,
        state: part.state(),
        healthy: part.healthy(),
        partitions: owned.map(cluster_schemas::assignment::RingAssignment::owned),
        epoch,
        vip: part.observed.and_then(|o| o.vip.as_ref()).filter(|v| v.present).map(|v| v.address.clone()),
        reason: reason(entry),
        message: part.observed.map(|o| o.message.clone()).unwrap_or_default(),
    }
}
