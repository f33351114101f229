//! Figures of the lab: how long it takes until what users wait for is so.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::failover::crash_and_wait;
use super::failure::{Expected, Failure};
use super::platform::{APPS, VIP};
use super::pulse::Pulse;
use super::view::{active, all_nodes_ready, all_ready, clusterctl};
use crate::bench::line;
use crate::error::Result;
use crate::lab::{Lab, ScopedLab, UpOptions};
use crate::names::NodeId;
use crate::wait::wait_until;

/// Nothing measured here takes this long, unless it never ends.
const LIMIT: Duration = Duration::from_secs(60);
const NODES: u8 = 5;
/// Starts of the command line that are measured; each takes milliseconds.
const CLI_STARTS: usize = 50;

/// What can be measured, with what it needs.
pub const NAMES: [&str; 6] =
    ["cli_start_ms", "lab_up_ms", "apply_platform_ready_ms", "failover_ms", "failover_ring_ms", "failover_workers_ms"];

/// Measures the figures that `wanted` names (all of [`NAMES`] when empty) in `runs` labs of this name, one after the
/// other, and writes median and maximum of each as lines of JSON: `{"name", "value", "unit", "stat", "parameters"}`.
///
/// # Errors
/// [`Failure`] when something measured did not come about.
pub fn measure(name: &str, wanted: &str, runs: usize, out: &mut impl Write) -> Result<(), Failure> {
    let asked = |figure: &str| wanted.is_empty() || wanted == figure;
    if !NAMES.iter().any(|figure| asked(figure)) {
        return Err(Failure::new(format!("one of {}", NAMES.join(", ")), wanted));
    }
    let options = UpOptions::new(NODES).named(name);
    if asked("cli_start_ms") {
        write_median(out, "cli_start_ms", &cli_starts(&options)?, &json!({ "command": "clusterctl version --client" }))?;
    }
    let mut samples: Vec<Sample> = Vec::new();
    if NAMES[1..].iter().any(|figure| asked(figure)) {
        let crash = NAMES[3..].iter().any(|figure| asked(figure));
        for _ in 0..runs {
            samples.push(sample(&options, crash)?);
        }
    }
    let of = |pick: fn(&Sample) -> Option<Duration>| samples.iter().filter_map(pick).collect::<Vec<_>>();
    let measured = [
        ("lab_up_ms", of(|sample| Some(sample.up)), json!({ "nodes": NODES, "until": "all nodes Ready" })),
        ("apply_platform_ready_ms", of(|sample| Some(sample.applied)), json!({ "nodes": NODES, "apps": APPS.len() })),
        (
            "failover_ms",
            of(|sample| sample.gap),
            json!({ "nodes": NODES, "what": "no answer at the VIP", "crashed": "leads NATS and controllers" }),
        ),
        ("failover_ring_ms", of(|sample| sample.ring), json!({ "nodes": NODES, "partitions": 256 })),
        ("failover_workers_ms", of(|sample| sample.workers), json!({ "nodes": NODES, "replicas": 3 })),
    ];
    for (figure, durations, parameters) in measured.iter().filter(|(figure, ..)| asked(figure)) {
        write_median(out, figure, durations, parameters)?;
    }
    Ok(())
}

/// One lab from up to down.
struct Sample {
    up: Duration,
    applied: Duration,
    gap: Option<Duration>,
    ring: Option<Duration>,
    workers: Option<Duration>,
}

fn sample(options: &UpOptions, crash: bool) -> Result<Sample, Failure> {
    let begun = Instant::now();
    let lab = Lab::up_scoped(options).expected("a lab starts")?;
    wait_until("Ready nodes", LIMIT, || all_nodes_ready(&lab)).expected("all nodes are Ready")?;
    let up = begun.elapsed();

    let begun = Instant::now();
    let manifest = options.repo.join("manifests/platform.yaml");
    clusterctl(&lab, &["apply", "-f", &manifest.display().to_string()]).expected("the platform is applied")?;
    wait_until("Ready Apps", LIMIT, || all_ready(&lab, &APPS)).expected("all Apps are Ready")?;
    let mut sample = Sample { up, applied: begun.elapsed(), gap: None, ring: None, workers: None };
    if crash {
        let failover = crash_busiest(&lab)?;
        sample.gap = Some(failover.gap);
        sample.ring = Some(failover.ring);
        sample.workers = Some(failover.workers);
    }
    Ok(sample)
}

fn crash_busiest(lab: &ScopedLab) -> Result<super::failover::Failover, Failure> {
    let instance = active(lab, "database").expected("the database has a status")?;
    let node = instance.map(|active| active.node).unwrap_or_default();
    let node: NodeId = node.parse().expected("the database is active on a node of the lab")?;
    lab.lead_everything(node).expected(&format!("{node} leads NATS and the controllers"))?;
    let pulse = Pulse::start(lab, VIP);
    wait_until("the VIP to answer", LIMIT, || pulse.latest()).expected("the VIP answers")?;
    crash_and_wait(lab, node, &pulse)
}

fn cli_starts(options: &UpOptions) -> Result<Vec<Duration>, Failure> {
    let program = options.bin_dir.join("clusterctl");
    let mut starts = Vec::new();
    for _ in 0..CLI_STARTS {
        let begun = Instant::now();
        let status = Command::new(&program).args(["version", "--client"]).stdin(Stdio::null()).stdout(Stdio::null()).status();
        match status {
            Ok(status) if status.success() => starts.push(begun.elapsed()),
            other => return Err(Failure::new(format!("{} tells its version", program.display()), format!("{other:?}"))),
        }
    }
    Ok(starts)
}

fn write_median(out: &mut impl Write, name: &str, durations: &[Duration], parameters: &Value) -> Result<(), Failure> {
    let values: Vec<f64> = durations.iter().copied().map(line::ms).collect();
    line::median(out, name, "ms", &values, parameters)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_figure_is_refused_before_anything_starts() {
        let refused = measure("unused", "failover", 1, &mut Vec::new()).unwrap_err();
        assert!(refused.expected.contains("failover_ms"), "{refused}");
    }
}
