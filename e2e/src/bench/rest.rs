//! What the product costs at rest: memory, processor time, writes.

use std::io::Write;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::json;

use super::line;
use super::process::{Memory, cpu, main_pid, memory};
use super::stage;
use crate::lab::Lab;
use crate::names::NodeId;
use crate::tour::{APPS, Expected, Failure};

pub(super) const NAMES: [&str; 9] = [
    "agent_rss_mib",
    "agent_rss_anon_mib",
    "agent_pss_mib",
    "controller_rss_mib",
    "controller_rss_anon_mib",
    "controller_pss_mib",
    "agent_idle_cpu_pct",
    "controller_idle_cpu_pct",
    "idle_jetstream_writes",
];

const NODES: u8 = 5;
/// Until everything that follows from an apply has followed.
const REST: Duration = Duration::from_secs(30);
const WINDOW: Duration = Duration::from_secs(60);

/// One window gives all of them, so all are written whichever was asked for.
pub(super) fn measure(name: &str, out: &mut impl Write) -> Result<(), Failure> {
    let lab = stage::lab(name, NODES)?;
    let platform = crate::lab::UpOptions::new(NODES).repo.join("manifests/platform.yaml");
    crate::tour::clusterctl(&lab, &["apply", "-f", &platform.display().to_string()]).expected("the platform is applied")?;
    stage::ready(&lab, &APPS)?;
    sleep(REST);

    let agents = pids(&lab, lab.nodes().collect(), "cluster-agent.service")?;
    let controllers = pids(&lab, lab.servers().to_vec(), "cluster-controller.service")?;
    let times = |pids: &[u32]| pids.iter().map(|pid| cpu(*pid)).collect::<Result<Vec<_>, _>>();
    let all = || -> Result<_, crate::LabError> { Ok((times(&agents)?, times(&controllers)?, lab.jetstream_writes()?)) };
    let (began, before) = (Instant::now(), all().expected("the kernel and NATS say what was used")?);
    sleep(WINDOW);
    let (took, after) = (began.elapsed(), all().expected("the kernel and NATS say what was used")?);

    let parameters = json!({ "nodes": NODES, "apps": APPS.len(), "partitions": 256, "seconds": WINDOW.as_secs() });
    let pct = |before: &[Duration], after: &[Duration]| -> Vec<f64> {
        before.iter().zip(after).map(|(before, after)| (*after - *before).as_secs_f64() / took.as_secs_f64() * 100.0).collect()
    };
    for (who, pids, used) in [("agent", &agents, pct(&before.0, &after.0)), ("controller", &controllers, pct(&before.1, &after.1))] {
        let all: Vec<Memory> = pids.iter().map(|pid| memory(*pid)).collect::<Result<_, _>>().expected("the kernel says what is used")?;
        let of = |pick: fn(&Memory) -> f64| all.iter().map(pick).collect::<Vec<_>>();
        line::median(out, &format!("{who}_rss_mib"), "MiB", &of(|m| m.rss), &parameters)?;
        line::median(out, &format!("{who}_rss_anon_mib"), "MiB", &of(|m| m.anon), &parameters)?;
        line::median(out, &format!("{who}_pss_mib"), "MiB", &of(|m| m.pss), &parameters)?;
        line::median(out, &format!("{who}_idle_cpu_pct"), "%", &used, &parameters)?;
    }
    let written = u32::try_from(after.2.saturating_sub(before.2)).unwrap_or(u32::MAX);
    line::single(out, "idle_jetstream_writes", "1", f64::from(written), &parameters)
}

fn pids(lab: &Lab, nodes: Vec<NodeId>, service: &str) -> Result<Vec<u32>, Failure> {
    nodes.into_iter().map(|node| main_pid(lab, node, service)).collect::<Result<_, _>>().expected(&format!("{service} runs"))
}
