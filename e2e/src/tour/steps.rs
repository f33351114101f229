//! The steps of the tour.

use std::io::Write;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use cluster_schemas::assignment::Role;

use super::failover::{FAILOVER_LIMIT, Failover, crash_and_wait};
use super::failure::{Expected, Failure};
use super::left::left_of;
use super::paper::{Paper, time};
use super::platform::{APPS, CACHE_PORT, DATABASE_PORT, PARTITIONS, VIP, WORKERS, WORKERS_PORT};
use super::pulse::{Pulse, Stretch};
use super::view::{active, all_nodes_ready, all_ready, ask_nodes, clusterctl, covered, listed};
use super::writes::Writes;
use crate::error::Result;
use crate::lab::{Lab, UpOptions};
use crate::names::NodeId;
use crate::wait::wait_until;

/// How many nodes the tour has.
const NODES: u8 = 5;
/// Agents register within a second; the rest is for a loaded machine and for a JetStream election that has to be repeated.
const READY_LIMIT: Duration = Duration::from_secs(60);
/// The VIP answers a client within this once the App is Ready.
const SOON: Duration = Duration::from_secs(20);
/// How long the cluster is watched after the crashed node is back: longer than any lease, and than the heartbeat time-out of 6 s,
/// after which a node that is not fully back would be taken for lost again.
const WATCHED: Duration = Duration::from_secs(8);
/// The journal lines per node that a failure shows, and how much of each.
const JOURNAL_LINES: usize = 8;
const JOURNAL_WIDTH: usize = 220;

/// The tour and its paper.
#[derive(Debug)]
pub struct Tour<W> {
    name: String,
    manifest: PathBuf,
    options: UpOptions,
    pub(super) paper: Paper<W>,
}

impl<W: Write> Tour<W> {
    /// A tour in a lab of this name, with the repository's programs and manifests. `lease`: that of exclusive Apps, if not the default.
    #[must_use]
    pub fn new(name: &str, lease: Option<Duration>, paper: Paper<W>) -> Self {
        let options = UpOptions { lease, ..UpOptions::new(NODES).named(name) };
        Self { name: name.to_owned(), manifest: options.repo.join("manifests/platform.yaml"), options, paper }
    }

    /// Walks through all steps. The lab is left as it is when one fails.
    ///
    /// # Errors
    /// [`Failure`] of the first step that was not as said; it is on the paper already.
    pub fn run(mut self) -> Result<(), Failure> {
        let begun = Instant::now();
        self.paper.title("clusterctl: five nodes, one platform, one power cut");
        match self.steps() {
            Ok(()) => {
                self.paper.summary();
                self.paper.end(&format!("Everything was as said, in {}.", time(begun.elapsed())));
                Ok(())
            }
            Err(failure) => {
                let diagnosis = Lab::attach(&self.name).map(|lab| shortened(&lab.diagnose())).unwrap_or_default();
                self.paper.failed(&failure.expected, &failure.seen, &diagnosis);
                Err(failure)
            }
        }
    }

    fn steps(&mut self) -> Result<(), Failure> {
        let lab = self.start()?;
        self.apply(&lab)?;
        let node = self.read_through_vip(&lab)?;
        self.make_busiest(&lab, node)?;
        let pulse = Pulse::start(&lab, VIP);
        wait_until("the VIP to answer", SOON, || pulse.latest()).expected("the VIP answers")?;
        let writes = Writes::start(&lab);
        let sure = self.make_sure(&lab, &writes)?;
        let failover = self.crash(&lab, node, &pulse)?;
        self.rejoin(&lab, node, &pulse, &failover)?;
        drop(pulse);
        self.count_writes(&lab, writes, sure)?;
        self.down(&lab)
    }

    fn start(&mut self) -> Result<Lab, Failure> {
        self.paper.step("Start five nodes");
        self.paper.note("Each has its own network, disk and systemd as PID 1. n1, n2 and n3 run NATS with JetStream and a controller, all five an agent.");
        let begun = Instant::now();
        let lab = Lab::up(&self.options).expected("five nodes start")?;
        let expected = format!("five nodes are Ready within {} s", READY_LIMIT.as_secs());
        wait_until("five Ready nodes", READY_LIMIT, || all_nodes_ready(&lab)).expected(&expected)?;
        let took = begun.elapsed();
        self.show(&lab, &["get", "nodes"])?;
        self.paper.seen("Five nodes are Ready.", took);
        self.paper.remember("five nodes Ready", time(took), "from nothing");
        Ok(lab)
    }

    fn apply(&mut self, lab: &Lab) -> Result<(), Failure> {
        self.paper.step("Apply a platform: a database, a cache, an API, workers");
        let begun = Instant::now();
        let manifest = self.manifest.display().to_string();
        let said = clusterctl(lab, &["apply", "-f", &manifest]).expected("the manifest is applied")?;
        let expected = format!("four Apps are Ready within {} s", READY_LIMIT.as_secs());
        wait_until("four Ready Apps", READY_LIMIT, || all_ready(lab, &APPS)).expected(&expected)?;
        let took = begun.elapsed();
        self.paper.ran("clusterctl apply -f manifests/platform.yaml", &said);
        self.show(lab, &["get", "apps"])?;
        self.paper.seen("Four Apps are Ready.", took);
        self.paper.remember("four Apps Ready", time(took), "from the start of clusterctl apply");
        Ok(())
    }

    /// Returns the active node.
    fn read_through_vip(&mut self, lab: &Lab) -> Result<NodeId, Failure> {
        self.paper.step(&format!("A client reads through the VIP, http://{VIP}/"));
        let begun = Instant::now();
        let reply = wait_until("the VIP to answer", SOON, || lab.http_get(VIP, "/").map_err(|error| error.chain()));
        let reply = reply.expected("the VIP answers")?;
        let took = begun.elapsed();
        self.paper.ran(&format!("curl http://{VIP}/"), &reply.body);
        let said: super::view::Said =
            serde_json::from_str(&reply.body).map_err(|error| Failure::new("the demo program answers", error.to_string()))?;
        let instance = active(lab, "database").expected("the database has a status")?;
        let seen = format!("the client: {} as {:?} with epoch {:?}; the controller: {instance:?}", said.node, said.role, said.epoch);
        let agreed = instance.is_some_and(|active| active.node == said.node && active.epoch == said.epoch);
        if !agreed || said.role != Some(Role::Active) || said.epoch.is_none() {
            return Err(Failure::new("the client reaches the active node that the controller names", seen));
        }
        self.paper.seen(&format!("{} answers: Active, epoch {}.", said.node, said.epoch.unwrap_or_default()), took);
        said.node.parse().expected("the active node is one of the lab's")
    }

    fn make_busiest(&mut self, lab: &Lab, node: NodeId) -> Result<(), Failure> {
        self.paper.step(&format!("Put everything on {node}: it shall lead NATS and the controllers, too"));
        self.paper.note(
            "Left alone, these leaders are on any of the three. The worst node to lose is the one that has them all, so they are \
             moved there: the other controllers pause until this one leads, and NATS is asked to hand over every stream.",
        );
        if !lab.servers().contains(&node) {
            return Err(Failure::new("the active node runs NATS and a controller", format!("{node} does not")));
        }
        let begun = Instant::now();
        lab.lead_everything(node).expected(&format!("{node} leads NATS and the controllers"))?;
        wait_until("four Ready Apps", READY_LIMIT, || all_ready(lab, &APPS)).expected("four Apps stay Ready")?;
        let still = active(lab, "database").expected("the database has a status")?;
        if still.as_ref().map(|active| active.node.as_str()) != Some(&node.to_string()) {
            return Err(Failure::new(format!("the database stays on {node}"), format!("{still:?}")));
        }
        self.paper
            .seen(&format!("{node} is active, leads JetStream's meta group and all streams, and leads the controllers."), begun.elapsed());
        Ok(())
    }

    fn crash(&mut self, lab: &Lab, node: NodeId, pulse: &Pulse) -> Result<Failover, Failure> {
        self.paper.step(&format!("Pull the plug of {node}"));
        self.paper.note(
            "The database and the cache's partitions are held by lease: the agents settle among themselves who is next, and wait neither for \
             NATS, which elects a leader 4 to 9 s after it lost one, nor for a controller. The pools' instances are replaced 6 s after \
             the last heartbeat.",
        );
        let failover = crash_and_wait(lab, node, pulse)?;
        let epochs = (failover.before.who.epoch, failover.after.who.epoch);
        if epochs.0 >= epochs.1 {
            return Err(Failure::new("the new tenure has a higher epoch", format!("{epochs:?}")));
        }
        let (Some(old), Some(new)) = epochs else { return Err(Failure::new("both tenures have an epoch", format!("{epochs:?}"))) };
        let to = &failover.after.who.node;
        let vip = format!("The VIP answers from {to}: Active, epoch {new} after {old}.");
        let ring = format!("All {PARTITIONS} partitions of the cache have owners that live and confirmed them.");
        let workers = format!("{WORKERS} workers run, none beside the database: on {}.", listed(&failover.worker_nodes));
        let mut seen = [(failover.vip, &vip), (failover.ring, &ring), (failover.workers, &workers)];
        seen.sort_by_key(|(after, _)| *after);
        for (after, text) in seen {
            self.paper.seen(text, after);
        }
        let expected = format!("four Apps are Ready without {node}");
        wait_until("four Ready Apps", FAILOVER_LIMIT, || all_ready(lab, &APPS)).expected(&expected)?;
        self.show(lab, &["get", "apps"])?;
        self.show(lab, &["ring", "show", "cache"])?;
        self.paper.remember(
            "VIP answers from another node",
            time(failover.vip),
            &format!("after the power cut; {node} to {to}, epoch {old} to {new}"),
        );
        self.paper.remember("256 partitions owned and confirmed", time(failover.ring), "after the power cut");
        self.paper.remember("three workers on live nodes", time(failover.workers), "after the power cut, none beside the database");
        Ok(failover)
    }

    fn rejoin(&mut self, lab: &Lab, node: NodeId, pulse: &Pulse, failover: &Failover) -> Result<(), Failure> {
        self.paper.step(&format!("Boot {node} again"));
        let begun = Instant::now();
        lab.boot(node).expected(&format!("{node} boots"))?;
        let ready = |what: &str| format!("{what} within {} s", READY_LIMIT.as_secs());
        wait_until("five Ready nodes", READY_LIMIT, || all_nodes_ready(lab)).expected(&ready(&format!("{node} is Ready again")))?;
        let rejoined = begun.elapsed();
        self.paper.seen(&format!("{node} is Ready."), rejoined);
        wait_until("a whole platform on five nodes", READY_LIMIT, || whole(lab)).expected(&ready("everything runs on five nodes"))?;
        self.paper.seen("It has its share again: an API instance, partitions of the cache, standby for the database.", begun.elapsed());

        let watched = Instant::now();
        thread::sleep(WATCHED);
        wait_until("a whole platform on five nodes", SOON, || whole(lab)).expected("everything still runs on five nodes")?;
        let now = active(lab, "database").expected("the database has a status")?;
        let who = &failover.after.who;
        if now.as_ref().map(|active| (active.node.as_str(), active.epoch)) != Some((&who.node, who.epoch)) {
            return Err(Failure::new(format!("the database stays on {} with epoch {:?}", who.node, who.epoch), format!("{now:?}")));
        }
        let since: Vec<Stretch> = pulse.stretches().into_iter().skip_while(|stretch| stretch.who != *who).collect();
        let [only] = since.as_slice() else {
            let seen: Vec<_> = since.iter().map(|s| format!("{} with epoch {:?}, pid {}", s.who.node, s.who.epoch, s.who.pid)).collect();
            return Err(Failure::new(format!("one process on {} answers since the fail-over", who.node), seen.join("; then ")));
        };
        self.show(lab, &["get", "apps"])?;
        let epoch = who.epoch.unwrap_or_default();
        self.paper.seen(
            &format!(
                "No second fail-over: {} has answered every request since, {} of them, in epoch {epoch} and from one process; longest gap {}.",
                who.node,
                only.answers,
                time(only.gap)
            ),
            watched.elapsed(),
        );
        self.paper.remember(&format!("{node} Ready again"), time(rejoined), "from power on");
        self.paper.remember(
            "longest gap at the VIP since",
            time(only.gap),
            &format!("{} answers of {}, still epoch {epoch}", only.answers, who.node),
        );
        Ok(())
    }

    fn down(&mut self, lab: &Lab) -> Result<(), Failure> {
        self.paper.step("Take everything down");
        let begun = Instant::now();
        lab.down().expected("the lab goes down")?;
        let took = begun.elapsed();
        let left = left_of(&self.name).expected("it can be looked for what is left")?;
        if !left.is_empty() {
            return Err(Failure::new("nothing is left", left.join("\n")));
        }
        self.paper.seen("No process, namespace, mount, cgroup or file of the lab is left.", took);
        Ok(())
    }

    pub(super) fn show(&mut self, lab: &Lab, args: &[&str]) -> Result<(), Failure> {
        let command = format!("clusterctl {}", args.join(" "));
        let said = clusterctl(lab, args).expected(&format!("'{command}' answers"))?;
        self.paper.ran(&command, &said);
        Ok(())
    }
}

/// The platform as it is when no node is missing, by the controllers' word and by that of the processes.
fn whole(lab: &Lab) -> Result<(), String> {
    let nodes: Vec<NodeId> = lab.nodes().collect();
    let chain = |error: crate::LabError| error.chain();
    all_ready(lab, &APPS)?;
    let members = ask_nodes(lab, &nodes, CACHE_PORT).map_err(chain)?;
    if members.len() != nodes.len() {
        return Err(format!("the ring has members on {}", listed(members.keys())));
    }
    covered(&members, PARTITIONS)?;
    let (databases, workers) =
        (ask_nodes(lab, &nodes, DATABASE_PORT).map_err(chain)?, ask_nodes(lab, &nodes, WORKERS_PORT).map_err(chain)?);
    if databases.len() != 1 || workers.len() != WORKERS {
        return Err(format!("databases run on {}, workers on {}", listed(databases.keys()), listed(workers.keys())));
    }
    Ok(())
}

/// The last lines of each node in [`Lab::diagnose`], none of them long.
#[must_use]
pub fn shortened(diagnosis: &str) -> String {
    let mut text = String::new();
    for block in diagnosis.split("--- ").filter(|block| !block.is_empty()) {
        let (head, lines) = block.split_once('\n').unwrap_or((block, ""));
        let lines: Vec<&str> = lines.lines().collect();
        text.push_str(&format!("--- {head}\n"));
        for line in &lines[lines.len().saturating_sub(JOURNAL_LINES)..] {
            text.extend(line.chars().take(JOURNAL_WIDTH));
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diagnosis_keeps_the_end_of_each_node() {
        let lines = |node: u8| (0..20).map(|n| format!("n{node} line {n} {}\n", "x".repeat(300))).collect::<String>();
        let short = shortened(&format!("--- n1 of lab a\n{}--- n2 of lab a\n{}", lines(1), lines(2)));
        assert_eq!(short.lines().count(), 2 * (1 + JOURNAL_LINES));
        assert!(short.contains("n1 line 19") && short.contains("n2 line 12") && !short.contains("n2 line 11"), "{short}");
        assert!(short.lines().all(|line| line.len() <= JOURNAL_WIDTH));
    }
}
