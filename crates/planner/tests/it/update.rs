//! `update`, against nodes that restart slowly, report late, and know why they are down.

use std::collections::BTreeMap;

use cluster_schemas::app::Standby;
use cluster_schemas::assignment::{Order, Role};
use cluster_schemas::node::InstanceState;
use cluster_schemas::status::ConditionStatus;
use cluster_schemas::update::UpdateSpec;
use cluster_schemas::{App, Mode};
use proptest::prelude::*;

use crate::builders::mk_app;
use crate::cluster::{Cluster, obeyed};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Up,
    Starting,
    Failed,
}

/// What truly runs on a node.
#[derive(Debug, Clone)]
struct Instance {
    command: Vec<String>,
    generation: u64,
    order: Order,
    phase: Phase,
    /// It was up and is down because it was told to change.
    by_change: bool,
}

#[derive(Debug)]
struct World {
    cluster: Cluster,
    instances: BTreeMap<String, Instance>,
    most: usize,
    changes: u32,
}

fn is_bad(command: &[String]) -> bool {
    command.iter().any(|c| c == "bad")
}

impl World {
    fn new(app: App, nodes: usize, most: usize) -> Self {
        let mut cluster = Cluster::of(nodes, [app]);
        cluster.step();
        Self { cluster, instances: BTreeMap::new(), most, changes: 0 }
    }

    /// The agent takes what was written last, and begins to restart what changed.
    fn take(&mut self, node: &str) {
        let Some(assignment) = self.cluster.assignments.get(node).filter(|_| self.cluster.live().iter().any(|n| n == node)) else { return };
        let order = assignment.order.clone();
        let runs = |role| matches!(role, Role::Member | Role::Active);
        let Some(entry) = assignment.apps.get("app").filter(|e| runs(e.role)) else {
            self.instances.remove(node);
            return;
        };
        let command = entry.run.exec.as_ref().unwrap().command.clone();
        let (generation, before) = (entry.generation, self.instances.remove(node));
        let instance = match before {
            Some(same) if same.command == command => Instance { generation, order, ..same },
            other => {
                let by_change = other.is_some_and(|o| o.phase == Phase::Up || o.by_change);
                Instance { command, generation, order, phase: Phase::Starting, by_change }
            }
        };
        self.instances.insert(node.to_owned(), instance);
    }

    /// What was starting is up, or has failed for good.
    fn finish(&mut self, node: &str) {
        if let Some(instance) = self.instances.get_mut(node).filter(|i| i.phase == Phase::Starting) {
            instance.phase = if is_bad(&instance.command) { Phase::Failed } else { Phase::Up };
            instance.by_change &= instance.phase == Phase::Failed;
        }
    }

    /// The agent stores how it is.
    fn report(&mut self, node: &str) {
        if !self.cluster.live().iter().any(|n| n == node) {
            return;
        }
        let entry = self.cluster.entry(node, "app").cloned();
        let written = self.cluster.assignments.get(node).map(|a| a.order.clone());
        let status = self.cluster.nodes.get_mut(node).unwrap().status.as_mut().unwrap();
        let Some(instance) = self.instances.get(node) else {
            if entry.as_ref().is_none_or(|e| e.role == Role::Absent) {
                status.apps.remove("app");
                status.assignment = written;
            }
            return;
        };
        let Some(entry) = entry else { return };
        let mut seen = obeyed(&entry, status.apps.get("app"));
        seen.seen = instance.order.generation;
        seen.generation = instance.generation;
        seen.state = match instance.phase {
            Phase::Up => InstanceState::Running,
            Phase::Starting => InstanceState::Starting,
            Phase::Failed => InstanceState::Failed,
        };
        seen.healthy = instance.phase == Phase::Up;
        status.assignment = Some(instance.order.clone());
        status.apps.insert("app".to_owned(), seen);
    }

    fn change(&mut self, bad: bool) {
        self.changes += 1;
        let word = if bad { "bad" } else { "good" };
        let app = self.cluster.app("app");
        app.metadata.generation += 1;
        app.spec.exec.as_mut().unwrap().command = vec!["/usr/bin/demo".to_owned(), word.to_owned(), self.changes.to_string()];
    }

    fn has_bad(&self) -> bool {
        let newest = self.cluster.apps["app"].spec.exec.as_ref().map(|e| &e.command);
        self.instances.values().map(|i| &i.command).chain(newest).any(|command| is_bad(command))
    }

    fn act(&mut self, what: u8, which: usize, flag: bool) {
        let nodes: Vec<String> = self.cluster.nodes.keys().cloned().collect();
        let node = nodes[which % nodes.len()].clone();
        let live = self.cluster.live().contains(&node);
        match what {
            0..=2 => drop(self.cluster.step()),
            3..=5 => self.take(&node),
            6 | 7 => self.finish(&node),
            8 | 9 => self.report(&node),
            10 => self.change(flag),
            // Another edit, which changes nothing that runs. With content that fails it is a new attempt, by which the next plan goes on.
            11 if !self.has_bad() => self.cluster.app("app").metadata.generation += 1,
            11 => {}
            12 if live => drop(self.cluster.lose(&node)),
            12 | 13 if !live => drop(self.cluster.heal(&node).report(&node)),
            // It goes down by itself.
            _ => {
                if let Some(instance) = self.instances.get_mut(&node).filter(|i| i.phase == Phase::Up) {
                    instance.phase = Phase::Starting;
                }
            }
        }
        self.assert_few_are_down();
    }

    fn assert_few_are_down(&self) {
        // What has been replaced, and waits on a node that is not heard to be taken off, is nobody's loss any more.
        let counts = |node: &str| self.cluster.entry(node, "app").is_some_and(|e| e.role == Role::Member);
        let down: Vec<&String> = self.instances.iter().filter(|(node, i)| i.by_change && counts(node)).map(|(node, _)| node).collect();
        assert!(down.len() <= self.most, "{down:?} are down by changes, of at most {}", self.most);
    }

    /// Everything is heard and done until nothing changes any more.
    fn rest(&mut self) {
        let nodes: Vec<String> = self.cluster.nodes.keys().cloned().collect();
        for node in &nodes {
            if !self.cluster.live().contains(node) {
                self.cluster.heal(node).report(node);
            }
        }
        for _ in 0..60 {
            let before = self.cluster.assignments.clone();
            self.cluster.step();
            for node in &nodes {
                self.take(node);
                self.assert_few_are_down();
                self.finish(node);
                self.report(node);
            }
            if self.cluster.assignments == before {
                return;
            }
        }
        panic!("does not come to rest: {:#?}", self.cluster.assignments);
    }
}

fn updated(mode: Mode, most: u32, replicas: u32) -> App {
    let mut app = mk_app("app", mode);
    app.spec.update = Some(UpdateSpec { max_unavailable: most, ..UpdateSpec::default() });
    app.spec.replicas = (mode == Mode::Replicas).then_some(replicas);
    app
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Whatever the schedule: never are more instances down by changes than allowed; good content reaches all, bad content stays with
    /// those that got it first while all others keep running.
    #[test]
    fn changes_take_down_no_more_than_allowed(
        mode in 0..3usize, nodes in 1..7usize, most in 1u32..4, replicas in 1u32..6,
        steps in proptest::collection::vec((0..15u8, any::<prop::sample::Index>(), any::<bool>()), 0..120), bad in any::<bool>(),
    ) {
        let mode = [Mode::Spread, Mode::Replicas, Mode::Ring][mode];
        let mut world = World::new(updated(mode, most, replicas), nodes, most as usize);
        world.rest();
        for (what, which, flag) in steps {
            world.act(what, which.index(nodes), flag);
        }
        // Whatever was there, good content repairs it.
        world.change(false);
        world.rest();
        let newest = world.cluster.apps["app"].spec.exec.as_ref().unwrap().command.clone();
        for (node, instance) in &world.instances {
            assert_eq!((&instance.command, instance.phase), (&newest, Phase::Up), "{node}");
        }
        let progressing = world.cluster.status("app").condition("Progressing").unwrap().clone();
        assert_eq!((progressing.status, progressing.reason.as_str()), (ConditionStatus::True, "Complete"), "{}", progressing.message);
        if !bad {
            return Ok(());
        }
        world.change(true);
        world.rest();
        let failed = world.instances.values().filter(|i| i.phase == Phase::Failed).count();
        let members = world.instances.len();
        assert_eq!(failed, members.min(most as usize), "as many as were allowed at first, no more");
        assert_eq!(world.instances.values().filter(|i| i.phase == Phase::Up && i.command == newest).count(), members - failed);
        let status = world.cluster.status("app");
        let progressing = status.condition("Progressing").unwrap();
        assert_eq!((progressing.status, progressing.reason.as_str()), (ConditionStatus::False, "Failed"), "{}", progressing.message);
        let kept = status.instances.iter().filter(|i| i.reason.message.contains("; keeps the content of generation ")).count();
        assert_eq!(kept, members - failed);
    }

    /// A Singleton's active instance changes after every standby that is heard took the content up.
    #[test]
    fn standbys_take_up_changes_before_the_active_instance(nodes in 1..6usize, order in Just(()).prop_perturb(|(), rng| rng), lost in any::<u8>()) {
        let mut rng = order;
        let mut cluster = Cluster::of(nodes, [updated(Mode::Singleton, 1, 0)]);
        cluster.settle().assert_ready();
        for n in 2..=nodes {
            if nodes > 2 && lost >> n & 1 == 1 && cluster.live().len() > nodes / 2 + 1 {
                cluster.lose(&format!("n{n}"));
            }
        }
        cluster.settle();
        let active = cluster.nodes_of("app", Role::Active)[0].to_owned();
        let app = cluster.app("app");
        app.metadata.generation += 1;
        app.spec.exec.as_mut().unwrap().command.push("new".to_owned());
        let mut open: Vec<String> = cluster.live().into_iter().filter(|n| *n != active).collect();
        cluster.step();
        while !open.is_empty() {
            let entry = cluster.entry(&active, "app").unwrap();
            assert_eq!(entry.generation, 1, "{open:?} have not taken it up");
            assert!(entry.held_back.starts_with("keeps the content of generation 1 until"), "{}", entry.held_back);
            for node in &open {
                assert_eq!(cluster.entry(node, "app").unwrap().generation, 2);
            }
            let node = open.remove(rng.random_range(0..open.len()));
            cluster.obey(&active).obey(&node).step();
        }
        assert_eq!(cluster.entry(&active, "app").unwrap().generation, 2);
        cluster.settle().assert_ready();
        assert_eq!(cluster.roles("app").matches("Active").count(), 1);
    }
}

#[test]
fn a_standby_that_fails_keeps_the_active_instance_as_it_is() {
    let mut cluster = Cluster::of(3, [updated(Mode::Singleton, 1, 0)]);
    cluster.settle().assert_ready();
    let app = cluster.app("app");
    app.metadata.generation += 1;
    app.spec.exec.as_mut().unwrap().command.push("new".to_owned());
    cluster.step().obey("n2").obey("n3");
    cluster.observed("n2", "app").state = InstanceState::Failed;
    cluster.observed("n2", "app").message = "the unit cannot be loaded".to_owned();
    cluster.step().obey("n1").step();
    assert_eq!(cluster.entry("n1", "app").unwrap().generation, 1);
    let status = cluster.status("app");
    assert!(status.is_ready(), "the rest keeps running");
    let progressing = status.condition("Progressing").unwrap();
    let expected = "the newest content failed: n2: the unit cannot be loaded; n1 keeps the content of before";
    assert_eq!((progressing.status, progressing.message.as_str()), (ConditionStatus::False, expected));
}

#[test]
fn a_hot_standby_has_to_be_healthy_first() {
    let mut app = updated(Mode::Singleton, 1, 0);
    app.spec.standby = Standby::Hot;
    let mut cluster = Cluster::of(2, [app]);
    cluster.settle().assert_ready();
    cluster.app("app").metadata.generation += 1;
    cluster.app("app").spec.exec.as_mut().unwrap().command.push("new".to_owned());
    cluster.step().obey_all();
    cluster.observed("n2", "app").state = InstanceState::Starting;
    cluster.step();
    assert_eq!(cluster.entry("n1", "app").unwrap().generation, 1);
    (cluster.observed("n2", "app").state, cluster.observed("n2", "app").healthy) = (InstanceState::Running, true);
    cluster.step();
    assert_eq!(cluster.entry("n1", "app").unwrap().generation, 2);
}

#[test]
fn without_update_all_change_at_once_and_with_it_one_after_the_other() {
    let mut cluster = Cluster::of(3, [mk_app("all", Mode::Spread), updated(Mode::Spread, 1, 0)]);
    cluster.settle().assert_ready();
    for name in ["all", "app"] {
        let app = cluster.app(name);
        app.metadata.generation += 1;
        app.spec.exec.as_mut().unwrap().command.push("new".to_owned());
    }
    let generations = |cluster: &Cluster, app: &str| ["n1", "n2", "n3"].map(|n| cluster.entry(n, app).unwrap().generation);
    cluster.step();
    assert_eq!((generations(&cluster, "all"), generations(&cluster, "app")), ([2, 2, 2], [2, 1, 1]));
    let reason = cluster.status("app").instances[1].reason.message.clone();
    assert_eq!(reason, "runs on every eligible node; keeps the content of generation 1 while at most 1 instance may be down by a change");
    cluster.obey("n1");
    cluster.observed("n1", "app").state = InstanceState::Starting;
    cluster.observed("n1", "app").healthy = false;
    cluster.step();
    assert_eq!(generations(&cluster, "app"), [2, 1, 1]);
    let progressing = cluster.status("app").condition("Progressing").unwrap().clone();
    let expected = "1 of 3 have the newest content; waits for n1 is starting; n2 and n3 keep the content of before";
    assert_eq!((progressing.reason.as_str(), progressing.message.as_str()), ("RollingOut", expected));
    cluster.obey("n1").step();
    assert_eq!(generations(&cluster, "app"), [2, 2, 1]);
    cluster.settle().assert_ready();
    assert_eq!(generations(&cluster, "app"), [2, 2, 2]);
}
