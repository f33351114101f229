//! What leases cost and bear: recovery of a ring, restarts of agents, messages, processor time, a machine with nothing left to give.

use std::io::Write;
use std::thread::sleep;
use std::time::{Duration, Instant};

use cluster_fence::{Table, clock};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use super::line;
use super::process::{main_pid, thread_cpu};
use super::scale::{DEFAULT_LEASE_MS, Scale};
use super::stage::{self, LIMIT, demo, settle};
use crate::drill::Load;
use crate::drill::stage::VOTER_WAITS;
use crate::error::Result;
use crate::lab::Lab;
use crate::names::NodeId;
use crate::tour::{Expected, Failure, ask_nodes, clusterctl, covered};
use crate::wait::wait_until;
use crate::witness::{Witness, real_time, table_of, unit_of};

pub(super) const NAMES: [&str; 7] = [
    "ring_recover_ms",
    "agent_restart_ms",
    "lease_messages_per_s",
    "lease_bytes_per_s",
    "lease_cpu_pct",
    "false_takeovers",
    "renewal_lateness_max_ms",
];

const NODES: u8 = 3;
const AGENT: &str = "cluster-agent.service";
const RING_PORT: u16 = 9401;
const PARTITIONS: u16 = 256;
const RING_RUNS: usize = 5;
const RESTARTS: usize = 20;
/// A restart that took longer was none that a lease outlives.
const RESTART_LIMIT: Duration = Duration::from_secs(10);
/// How long messages are counted.
const COUNTED: Duration = Duration::from_secs(10);
const BUSY_LOOPS: usize = 4;

pub(super) fn measure(name: &str, wanted: &str, scale: &Scale, out: &mut impl Write) -> Result<(), Failure> {
    let asked = |some: &[&str]| wanted.is_empty() || some.contains(&wanted);
    let lab = stage::lab(name, NODES)?;
    stage::apply(&lab, &main(DEFAULT_LEASE_MS), &["main"])?;
    let witness = Witness::start(&lab, vec![unit_of("main")], &[]).expected("the witness watches")?;
    if asked(&NAMES[1..2]) {
        agent_restarts(&lab, &witness, out)?;
    }
    if asked(&NAMES[2..5]) {
        cost(&lab, &witness, 1, out)?;
    }
    if asked(&NAMES[5..7]) {
        for lease_ms in scale.busy_leases_ms {
            stage::apply(&lab, &main(*lease_ms), &["main"])?;
            for run in 1..=scale.busy_runs {
                saturated(&lab, &witness, *lease_ms, (run, scale.busy), out)?;
            }
        }
    }
    clusterctl(&lab, &["delete", "app", "main"]).expected("an App is deleted")?;
    if asked(&NAMES[2..5]) {
        for slots in scale.slots {
            stage::apply(&lab, &ring("many", *slots), &["many"])?;
            cost(&lab, &witness, u32::from(*slots), out)?;
            clusterctl(&lab, &["delete", "app", "many"]).expected("an App is deleted")?;
        }
    }
    if asked(&NAMES[..1]) {
        ring_recovers(&lab, out)?;
    }
    Ok(())
}

fn main(lease_ms: u64) -> String {
    let more = format!("placement: {{ nodes: [n1, n2, n3] }}, failover: {{ lease: {lease_ms}ms }}");
    demo("main", "Singleton", "--listen, '0.0.0.0:9400'", &more)
}

fn ring(name: &str, partitions: u16) -> String {
    demo(name, "Ring", &format!("--listen, '0.0.0.0:{RING_PORT}'"), &format!("ring: {{ partitions: {partitions} }}"))
}

fn ring_recovers(lab: &Lab, out: &mut impl Write) -> Result<(), Failure> {
    stage::apply(lab, &ring("cache", PARTITIONS), &["cache"])?;
    let mut took = Vec::new();
    for run in 0..RING_RUNS {
        let node = NodeId::from(u8::try_from(run % usize::from(NODES)).unwrap_or(0) + 1);
        let live: Vec<NodeId> = lab.nodes().filter(|other| *other != node).collect();
        let fault = Instant::now();
        lab.crash(node).expected("a node loses its power")?;
        let whole = wait_until("every partition to have an owner", LIMIT, || {
            let said = ask_nodes(lab, &live, RING_PORT).map_err(|error| error.chain())?;
            covered(&said, PARTITIONS).map(|()| fault.elapsed())
        });
        took.push(line::ms(whole.expected("the ring recovers")?));
        lab.boot(node).expected("it boots")?;
        settle(lab, &["cache"])?;
        sleep(VOTER_WAITS);
    }
    line::median(
        out,
        NAMES[0],
        "ms",
        &took,
        &json!({ "nodes": NODES, "partitions": PARTITIONS, "from": "power cut", "until": "processes say so" }),
    )
}

/// Epoch and deadline of the one lease of a node.
fn lease(table: &Table) -> Option<(u64, u64)> {
    table.armed(clock::now()).into_iter().find(|(slot, ..)| slot == "app/main").map(|(_, epoch, deadline)| (epoch.0, deadline.0))
}

fn active(witness: &Witness) -> Result<NodeId, Failure> {
    let held = || witness.holders(0).only().ok_or_else(|| witness.holders(0).to_string());
    wait_until("one to be active", LIMIT, held).expected("one is active")
}

fn agent_restarts(lab: &Lab, witness: &Witness, out: &mut impl Write) -> Result<(), Failure> {
    let (mut took, mut kept) = (Vec::new(), 0);
    for _ in 0..RESTARTS {
        let node = active(witness)?;
        let table = table_of(lab, node).expected("the table of leases is there")?;
        let pid = main_pid(lab, node, AGENT).expected("the agent runs")?;
        let killed = Instant::now();
        kill(Pid::from_raw(i32::try_from(pid).unwrap_or(i32::MAX)), Signal::SIGKILL)
            .map_err(|e| Failure::new("the agent is killed", e.to_string()))?;
        // Nobody extends it from here on but the next agent, after the voters acknowledged.
        let before = lease(&table);
        let renewed = loop {
            let now = lease(&table);
            match (before, now) {
                (Some((epoch, deadline)), Some((same, later))) if same == epoch && later > deadline => break Some(killed.elapsed()),
                // Fenced, or a new tenure: an ordinary fail-over.
                (_, None) => break None,
                (Some((epoch, _)), Some((other, _))) if other != epoch => break None,
                _ if killed.elapsed() > RESTART_LIMIT => break None,
                _ => sleep(Duration::from_micros(300)),
            }
        };
        if let Some(renewed) = renewed {
            took.push(line::ms(renewed));
            kept += 1;
        }
        sleep(Duration::from_secs(1));
        stage::ready(lab, &["main"])?;
    }
    let parameters = json!({ "lease_ms": DEFAULT_LEASE_MS, "kills": RESTARTS, "same_epoch": kept, "until": "first acknowledged renewal" });
    line::median(out, NAMES[1], "ms", &took, &parameters)
}

fn cost(lab: &Lab, witness: &Witness, slots: u32, out: &mut impl Write) -> Result<(), Failure> {
    let nodes: Vec<NodeId> = if slots == 1 { vec![active(witness)?] } else { lab.nodes().collect() };
    let pids: Vec<u32> = nodes.iter().map(|node| main_pid(lab, *node, AGENT)).collect::<Result<_>>().expected("the agents run")?;
    let used = || pids.iter().map(|pid| thread_cpu(*pid, "lease")).collect::<Result<Vec<_>>>().expected("the kernel says what is used");
    let (began, before) = (Instant::now(), used()?);
    let (messages, bytes) = lab.count_messages("lab.lease.>", COUNTED).expected("messages can be counted")?;
    let (took, after) = (began.elapsed().as_secs_f64(), used()?);
    let pct: Vec<f64> = before.iter().zip(&after).map(|(before, after)| (*after - *before).as_secs_f64() / took * 100.0).collect();
    let parameters = json!({ "slots": slots, "nodes": NODES, "lease_ms": DEFAULT_LEASE_MS, "connections": 2 });
    let seconds = COUNTED.as_secs_f64();
    line::single(out, NAMES[2], "1/s", f64::from(messages) / seconds, &parameters)?;
    line::single(out, NAMES[3], "B/s", f64::from(bytes) / seconds, &parameters)?;
    line::median(out, NAMES[4], "%", &pct, &parameters)
}

/// Minutes with no processor idle: take-overs that nothing called for, and the longest time between two renewals.
fn saturated(lab: &Lab, witness: &Witness, lease_ms: u64, (run, busy): (usize, Duration), out: &mut impl Write) -> Result<(), Failure> {
    let _busy = Load::start(BUSY_LOOPS);
    // With real-time priority as the witness has it: a look that comes late is no renewal that does.
    let watched = std::thread::scope(|scope| {
        let watch = || {
            real_time();
            watch_renewals(lab, witness, busy)
        };
        scope.spawn(watch).join()
    });
    let (takeovers, longest) = watched.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    let parameters = json!({ "lease_ms": lease_ms, "busy_loops": BUSY_LOOPS, "seconds": busy.as_secs(), "run": run });
    let renewal = Duration::from_millis(lease_ms) / 6;
    line::single(out, NAMES[5], "1", f64::from(takeovers), &parameters)?;
    line::single(out, NAMES[6], "ms", line::ms(longest.saturating_sub(renewal)), &parameters)
}

/// How often the lease was lost, and the longest time between two renewals.
fn watch_renewals(lab: &Lab, witness: &Witness, busy: Duration) -> Result<(u32, Duration), Failure> {
    let began = Instant::now();
    let (mut takeovers, mut longest) = (0_u32, Duration::ZERO);
    while began.elapsed() < busy {
        let node = active(witness)?;
        let table = table_of(lab, node).expected("the table of leases is there")?;
        let Some((epoch, mut deadline)) = lease(&table) else { continue };
        let mut renewed = Instant::now();
        while began.elapsed() < busy {
            match lease(&table) {
                Some((same, later)) if same == epoch => {
                    if later > deadline {
                        longest = longest.max(renewed.elapsed());
                        (deadline, renewed) = (later, Instant::now());
                    }
                }
                _ => {
                    takeovers += 1;
                    break;
                }
            }
            sleep(Duration::from_millis(1));
        }
    }
    Ok((takeovers, longest))
}
