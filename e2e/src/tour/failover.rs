//! One power cut and everything that has to follow, measured from the cut.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use super::failure::{Expected, Failure};
use super::platform::{CACHE_PORT, PARTITIONS, WORKERS, WORKERS_PORT};
use super::pulse::{Pulse, Stretch};
use super::view::{ask_nodes, confirmed_by, covered, listed, ring};
use crate::error::Result;
use crate::lab::Lab;
use crate::names::NodeId;

/// The address moves within a second. This is for the pools, twice what the worst sum of time-outs amounts to: 6 s until a node counts
/// as lost, up to 9 s for NATS to elect a leader, then a controller to be elected and to write.
pub const FAILOVER_LIMIT: Duration = Duration::from_secs(60);

/// Between two looks at all processes.
const PAUSE: Duration = Duration::from_millis(20);

/// What a power cut led to.
#[derive(Debug, Clone)]
pub struct Failover {
    /// The last answers of the node that was crashed.
    pub before: Stretch,
    /// The first answers of the next.
    pub after: Stretch,
    /// From the cut to the first answer of another node at the VIP.
    pub vip: Duration,
    /// From the last answer of the old node to the first of the new one: what a client felt.
    pub gap: Duration,
    /// From the cut until every partition had an owner that lives and has confirmed it.
    pub ring: Duration,
    /// From the cut until the wanted number of workers ran on live nodes, none of them beside the new active node.
    pub workers: Duration,
    /// The nodes on which these run.
    pub worker_nodes: Vec<NodeId>,
}

/// Crashes `node`, which is active behind the address of `pulse`, and waits until everything runs again.
///
/// # Errors
/// [`Failure`] with what is still missing after [`FAILOVER_LIMIT`].
pub fn crash_and_wait(lab: &Lab, node: NodeId, pulse: &Pulse) -> Result<Failover, Failure> {
    let live: Vec<NodeId> = lab.nodes().filter(|other| *other != node).collect();
    let names: BTreeSet<String> = live.iter().map(ToString::to_string).collect();
    let before = pulse.latest().map_err(|seen| Failure::new(format!("{node} answers before it is crashed"), seen))?;
    let cut = Instant::now();
    lab.crash(node).expected(&format!("{node} loses its power"))?;

    let (mut ring_after, mut workers_after) = (None, None);
    loop {
        let begun = cut.elapsed();
        let vip = pulse.latest().ok().filter(|stretch| stretch.who.node != before.who.node);
        let cache = match ring_after {
            Some(_) => Ok(()),
            None => ring_is_whole(lab, &live, &names),
        };
        if cache.is_ok() {
            ring_after.get_or_insert_with(|| cut.elapsed());
        }
        let workers = ask_nodes(lab, &live, WORKERS_PORT).expected("the workers can be asked")?;
        // They are to keep away from the database: where that is now decides where they may be.
        let beside = |stretch: &Stretch| workers.values().any(|worker| worker.node == stretch.who.node);
        if workers.len() == WORKERS && vip.as_ref().is_some_and(|stretch| !beside(stretch)) {
            workers_after.get_or_insert_with(|| cut.elapsed());
        }
        if let (Some(after), Some(ring), Some(workers_after)) = (vip.clone(), ring_after, workers_after) {
            // The pulse keeps the last answer before the cut and the first after it.
            let before = pulse.stretches().into_iter().rfind(|stretch| stretch.who == before.who).unwrap_or(before);
            return Ok(Failover {
                vip: after.first.saturating_duration_since(cut),
                gap: after.first.saturating_duration_since(before.last),
                before,
                after,
                ring,
                workers: workers_after,
                worker_nodes: workers.into_keys().collect(),
            });
        }
        if begun > FAILOVER_LIMIT {
            let vip = vip.map_or_else(|| "no other node".to_owned(), |stretch| stretch.who.node);
            let seen = format!(
                "at the VIP: {vip}\nring: {}\nworkers: on {}",
                cache.err().unwrap_or_else(|| "whole".to_owned()),
                listed(workers.keys())
            );
            return Err(Failure::new(format!("VIP, ring and workers run without {node} after {} s", FAILOVER_LIMIT.as_secs()), seen));
        }
        thread::sleep(PAUSE);
    }
}

/// The processes say so, each for itself, and then the controllers do.
fn ring_is_whole(lab: &Lab, live: &[NodeId], names: &BTreeSet<String>) -> Result<(), String> {
    covered(&ask_nodes(lab, live, CACHE_PORT).map_err(|error| error.chain())?, PARTITIONS)?;
    confirmed_by(&ring(lab, "cache").map_err(|error| error.chain())?, names)
}
