//! What is to be told of the difference between two looks. Pure.

use std::collections::{BTreeMap, BTreeSet};

use cluster_planner::Liveness;
use cluster_schemas::AppStatus;
use cluster_schemas::assignment::Role;
use cluster_schemas::event::EventKind;
use cluster_schemas::node::{Cordon, InstanceState};
use cluster_schemas::status::{ConditionStatus, Instance};

use super::Draft;
use crate::world::World;

/// Most nodes that one event names.
const NODES_NAMED_MAX: usize = 5;

fn draft(object: String, kind: EventKind, reason: &str, message: String) -> Draft {
    Draft { object, kind, reason: reason.to_owned(), message }
}

/// Nothing of an App is left.
pub(super) fn deleted(app: &str) -> Draft {
    draft(format!("app/{app}"), EventKind::Normal, "Deleted", "nothing of it is left on any node".to_owned())
}

/// What happened to an App whose status is another one.
pub(super) fn of_app(app: &str, before: Option<&AppStatus>, now: &AppStatus) -> Vec<Draft> {
    let mut drafts = Vec::new();
    let mut tell = |kind, reason: &str, message: String| drafts.push(draft(format!("app/{app}"), kind, reason, message));
    let before = before.filter(|before| before.uid == now.uid);
    match before {
        None => tell(EventKind::Normal, "Created", format!("generation {}", now.observed_generation)),
        Some(before) if before.observed_generation < now.observed_generation => {
            let message = format!("generation {} -> {}", before.observed_generation, now.observed_generation);
            tell(EventKind::Normal, "Changed", message);
        }
        Some(_) => {}
    }
    let empty = AppStatus::default();
    let before = before.unwrap_or(&empty);
    places(before, now, &mut tell);
    active(before, now, &mut tell);
    for instance in &now.instances {
        let was = instance_on(before, &instance.node).map(|was| was.state);
        if instance.state == InstanceState::Failed && was != Some(InstanceState::Failed) {
            let why = if instance.message.is_empty() { String::new() } else { format!(": {}", instance.message) };
            tell(EventKind::Warning, "UnitFailed", format!("on {}{why}", instance.node));
        }
    }
    for condition in &now.conditions {
        let was = before.condition(&condition.kind).map(|was| was.status);
        // A condition that never held, and does not hold, is no news.
        if was == Some(condition.status) || was.is_none() && (condition.status == ConditionStatus::False) != (condition.kind == "Ready") {
            continue;
        }
        let good = if matches!(condition.kind.as_str(), "Degraded" | "Conflict") { ConditionStatus::False } else { ConditionStatus::True };
        // An App that was just made is not ready yet, and nothing is wrong with that; nor with one that goes on.
        let calm = condition.status == good || was.is_none() || matches!(condition.kind.as_str(), "Terminating" | "Progressing");
        let kind = if calm { EventKind::Normal } else { EventKind::Warning };
        let why =
            if condition.message.is_empty() { condition.reason.clone() } else { format!("{}: {}", condition.reason, condition.message) };
        tell(kind, &format!("{}{}", condition.kind, condition.status.as_str()), why);
    }
    drafts
}

fn instance_on<'a>(status: &'a AppStatus, node: &str) -> Option<&'a Instance> {
    status.instances.iter().find(|instance| instance.node == node)
}

/// Where instances are planned now and were not, and the other way round.
fn places(before: &AppStatus, now: &AppStatus, tell: &mut impl FnMut(EventKind, &str, String)) {
    let present = |status: &AppStatus| -> BTreeSet<String> {
        status.instances.iter().filter(|instance| instance.role != Role::Absent).map(|instance| instance.node.clone()).collect()
    };
    let (had, has) = (present(before), present(now));
    let new: Vec<&String> = has.difference(&had).collect();
    if let Some(first) = new.first() {
        let reason = instance_on(now, first).map(|instance| instance.reason.message.clone()).filter(|reason| !reason.is_empty());
        let why = reason.map(|reason| if new.len() == 1 { format!(": {reason}") } else { format!(" ({first}: {reason})") });
        tell(EventKind::Normal, "Placed", format!("on {}{}", names(&new), why.unwrap_or_default()));
    }
    let gone: Vec<&String> = had.difference(&has).collect();
    if !gone.is_empty() {
        tell(EventKind::Normal, "Removed", format!("from {}", names(&gone)));
    }
}

/// A Singleton that is active under another epoch.
fn active(before: &AppStatus, now: &AppStatus, tell: &mut impl FnMut(EventKind, &str, String)) {
    let of = |status: &AppStatus| {
        let holder = status.instances.iter().filter(|i| i.role == Role::Active).filter_map(|i| Some((i.epoch?, i.node.clone()))).max();
        holder.filter(|(epoch, _)| *epoch > 0)
    };
    let Some((epoch, node)) = of(now) else { return };
    match of(before) {
        Some((old, _)) if old >= epoch => {}
        Some((_, from)) if from != node => {
            tell(EventKind::Normal, "TakenOver", format!("{node} is active with epoch {epoch}, {from} was"));
        }
        _ => tell(EventKind::Normal, "Active", format!("{node} is active with epoch {epoch}")),
    }
}

fn names(nodes: &[&String]) -> String {
    let shown = nodes.iter().take(NODES_NAMED_MAX).map(|node| node.as_str()).collect::<Vec<_>>().join(", ");
    match nodes.len().saturating_sub(NODES_NAMED_MAX) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// Nodes and voters as a leadership saw them last; the first look tells nothing.
#[derive(Debug, Default)]
pub struct Seen {
    nodes: Option<BTreeMap<String, (Liveness, Cordon)>>,
    voters: Option<(u64, Vec<String>)>,
}

impl Seen {
    /// Looks again, and says what is other than at the last look.
    pub fn look(&mut self, world: &World, now: std::time::Instant) -> Vec<Draft> {
        let nodes = world.node_inputs(now).into_iter().map(|(name, input)| (name, (input.liveness, input.cordon))).collect();
        let voters = world.voters().map(|list| (list.number, list.voters.iter().map(|voter| voter.node.clone()).collect()));
        self.take(nodes, voters)
    }

    fn take(&mut self, nodes: BTreeMap<String, (Liveness, Cordon)>, voters: Option<(u64, Vec<String>)>) -> Vec<Draft> {
        let mut drafts = Vec::new();
        let mut tell = |node: &str, kind, reason: &str, message: &str| {
            drafts.push(draft(format!("node/{node}"), kind, reason, message.to_owned()));
        };
        if let Some(before) = &self.nodes {
            for (name, (liveness, cordon)) in &nodes {
                let Some((was_live, was_cordon)) = before.get(name) else {
                    tell(name, EventKind::Normal, "Registered", "it is part of the cluster");
                    continue;
                };
                match (was_live, liveness) {
                    (Liveness::Live, Liveness::Lost) => tell(name, EventKind::Warning, "Lost", "no heartbeat is heard any more"),
                    (Liveness::Lost, Liveness::Live) => tell(name, EventKind::Normal, "Back", "heartbeats are heard again"),
                    _ => {}
                }
                match (was_cordon, cordon) {
                    (was, is) if was == is => {}
                    (_, Cordon::None) => tell(name, EventKind::Normal, "Uncordoned", "it may be given instances again"),
                    (_, Cordon::Cordoned) => tell(name, EventKind::Normal, "Cordoned", "it is given nothing new"),
                    (_, Cordon::Draining) => tell(name, EventKind::Normal, "Draining", "everything is moved away"),
                }
            }
            for name in before.keys().filter(|name| !nodes.contains_key(*name)) {
                tell(name, EventKind::Normal, "Forgotten", "it is no part of the cluster any more");
            }
        }
        if let (Some((was, _)), Some((number, members))) = (&self.voters, &voters)
            && number > was
        {
            let message = format!("set {number}: {}", members.join(", "));
            drafts.push(draft("cluster/voters".to_owned(), EventKind::Normal, "VotersChanged", message));
        }
        self.nodes = Some(nodes);
        // A set that cannot be told just now is no change.
        self.voters = voters.or(self.voters.take());
        drafts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cluster_schemas::assignment::{Reason, ReasonCode};
    use cluster_schemas::status::Condition;

    fn status(generation: u64, instances: &[(&str, Role, InstanceState, Option<u64>)], ready: ConditionStatus) -> AppStatus {
        let instances = instances.iter().map(|(node, role, state, epoch)| Instance {
            node: (*node).to_owned(),
            role: *role,
            state: *state,
            healthy: true,
            partitions: None,
            epoch: *epoch,
            vip: None,
            reason: Reason { code: ReasonCode::Sticky, message: "it is there already".to_owned() },
            message: String::new(),
        });
        let condition = Condition {
            kind: "Ready".to_owned(),
            status: ready,
            reason: "Why".to_owned(),
            message: String::new(),
            last_transition_time: None,
        };
        AppStatus {
            uid: "u".to_owned(),
            observed_generation: generation,
            conditions: vec![condition],
            instances: instances.collect(),
            ..AppStatus::default()
        }
    }

    fn told(before: Option<&AppStatus>, now: &AppStatus) -> Vec<String> {
        of_app("db", before, now).into_iter().map(|d| format!("{} {} {}", d.kind.as_str(), d.reason, d.message)).collect()
    }

    #[test]
    fn the_life_of_a_singleton() {
        use InstanceState::{Failed, Pending, Running};
        let new = status(1, &[("n1", Role::Active, Pending, None), ("n2", Role::Standby, Pending, None)], ConditionStatus::False);
        let up = status(1, &[("n1", Role::Active, Running, Some(3)), ("n2", Role::Standby, Pending, None)], ConditionStatus::True);
        let over = status(1, &[("n1", Role::Standby, Failed, None), ("n2", Role::Active, Running, Some(4))], ConditionStatus::False);
        assert_eq!(
            told(None, &new),
            ["Normal Created generation 1", "Normal Placed on n1, n2 (n1: it is there already)", "Normal ReadyFalse Why"]
        );
        assert_eq!(told(Some(&new), &up), ["Normal Active n1 is active with epoch 3", "Normal ReadyTrue Why"]);
        assert_eq!(told(Some(&up), &up), [""; 0], "nothing changed, nothing is told");
        assert_eq!(
            told(Some(&up), &over),
            ["Normal TakenOver n2 is active with epoch 4, n1 was", "Warning UnitFailed on n1", "Warning ReadyFalse Why"]
        );
        let moved = status(2, &[("n3", Role::Active, Running, Some(4))], ConditionStatus::False);
        assert_eq!(
            told(Some(&over), &moved),
            ["Normal Changed generation 1 -> 2", "Normal Placed on n3: it is there already", "Normal Removed from n1, n2"]
        );
        let mut another = moved.clone();
        another.uid = "v".to_owned();
        assert!(told(Some(&moved), &another).contains(&"Normal Created generation 2".to_owned()));
    }

    #[test]
    fn nodes_and_voters_are_compared_with_the_last_look() {
        let mut seen = Seen::default();
        let nodes = |list: &[(&str, Liveness, Cordon)]| list.iter().map(|(n, l, c)| ((*n).to_owned(), (*l, *c))).collect();
        let mut take = |list: &[(&str, Liveness, Cordon)], voters: u64| -> Vec<String> {
            let told = seen.take(nodes(list), Some((voters, vec!["n1".to_owned()])));
            told.into_iter().map(|d| format!("{} {}", d.object, d.reason)).collect()
        };
        use Liveness::{Live, Lost};
        assert_eq!(take(&[("n1", Live, Cordon::None), ("n2", Lost, Cordon::None)], 1), [""; 0], "a new leader tells nothing old");
        assert_eq!(
            take(&[("n1", Lost, Cordon::None), ("n2", Live, Cordon::Cordoned)], 1),
            ["node/n1 Lost", "node/n2 Back", "node/n2 Cordoned"]
        );
        assert_eq!(
            take(&[("n2", Live, Cordon::None), ("n3", Live, Cordon::None)], 2),
            ["node/n2 Uncordoned", "node/n3 Registered", "node/n1 Forgotten", "cluster/voters VotersChanged"]
        );
    }
}
