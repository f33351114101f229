//! From a user's command to processes that run.

use std::io::Write;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use serde_json::json;

use super::line;
use super::stage::{self, LIMIT, demo, manifest};
use crate::error::{LabError, Result};
use crate::lab::Lab;
use crate::tour::{Expected, Failure, clusterctl};
use crate::wait::wait_until;

pub(super) const NAMES: [&str; 1] = ["apply_to_active_ms"];

const NODES: u8 = 3;
const RUNS: u16 = 11;
/// Several times the goal.
const UNDISTURBED: Duration = Duration::from_millis(400);

pub(super) fn measure(name: &str, out: &mut impl Write) -> Result<(), Failure> {
    let lab = stage::lab(name, NODES)?;
    let parameters =
        |units: &str| json!({ "nodes": NODES, "units": units, "from": "start of clusterctl", "until": "ActiveEnterTimestampMonotonic" });
    let listen = |port: u16| format!("--listen, '0.0.0.0:{port}'");

    let (mut fresh, mut changed, mut installed) = (Vec::new(), Vec::new(), Vec::new());
    for run in 0..RUNS {
        let app = format!("app{run}");
        let unit = format!("clusterctl-{app}.service");
        fresh.push(applied(&lab, &demo(&app, "Spread", &listen(9000 + run), ""), &unit)?);
        stage::ready(&lab, &[&app])?;
        changed.push(applied(&lab, &demo(&app, "Spread", &listen(9100 + run), ""), &unit)?);
        stage::ready(&lab, &[&app])?;
        clusterctl(&lab, &["delete", "app", &app]).expected("an App is deleted")?;

        let nginx = "apiVersion: cluster/v1\nkind: App\nmetadata: { name: web }\nspec: { mode: Spread, unit: { name: nginx } }\n";
        installed.push(applied(&lab, nginx, "nginx.service")?);
        stage::ready(&lab, &["web"])?;
        clusterctl(&lab, &["delete", "app", "web"]).expected("an App is deleted")?;
    }
    let mut reloads = Vec::new();
    for _ in 0..RUNS {
        reloads.push(line::ms(lab.exec(1, ["systemctl", "daemon-reload"]).expected("systemd reloads")?.took));
    }
    reloads.sort_by(f64::total_cmp);
    let reload = reloads.get(reloads.len() / 2).copied().unwrap_or_default();
    line::median(out, NAMES[0], "ms", &fresh, &parameters("new"))?;
    line::median(out, NAMES[0], "ms", &installed, &parameters("installed"))?;
    let mut with_reload = parameters("changed");
    with_reload["reload_ms"] = json!(reload.round());
    line::median(out, NAMES[0], "ms", &changed, &with_reload)
}

/// The clock of systemd's time stamps; the nodes have the host's.
fn now() -> Result<Duration, Failure> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_err(|error| Failure::new("the clock can be read", error.to_string()))?;
    Ok(now.into())
}

/// Applies a manifest and returns, in milliseconds, how long after the start of the command the last of the nodes' units was active.
fn applied(lab: &Lab, yaml: &str, unit: &str) -> Result<f64, Failure> {
    let file = manifest(lab, "bench", yaml).expected("a manifest can be written")?;
    // The program itself, with nothing before it that enters namespaces.
    let mut command = Command::new(lab.config.bin_dir.join("clusterctl"));
    command.args(["apply", "-f", &file]).env("CLUSTERCTL_CONFIG", lab.layout.client_dir().join("cli.yaml"));
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let (began, status) = lab.as_client(|| (now(), command.status())).expected("a manifest is applied")?;
    let began = began?;
    match status {
        Ok(status) if status.success() => {}
        other => return Err(Failure::new("a manifest is applied", format!("{other:?}"))),
    }
    // Who looks takes processor time from what is measured; the time stamps can be read later.
    sleep(UNDISTURBED);
    let last = wait_until(&format!("{unit} to be active on all nodes"), LIMIT, || -> Result<Duration> {
        let mut last = Duration::ZERO;
        for node in lab.nodes() {
            let since = since(lab, node.number(), unit)?.filter(|since| *since > began);
            last = last.max(since.ok_or_else(|| LabError::Invalid(format!("{unit} is not active yet on {node}")))?);
        }
        Ok(last)
    });
    Ok(line::ms(last.expected("the units start")? - began))
}

/// Since when the unit is active; nothing while it is not.
fn since(lab: &Lab, node: u8, unit: &str) -> Result<Option<Duration>> {
    let shown = lab.exec(node, ["systemctl", "show", "--property=ActiveState,ActiveEnterTimestampMonotonic", unit])?.ok()?;
    let value = |key: &str| shown.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    let since = value("ActiveEnterTimestampMonotonic").and_then(|micros| micros.parse().ok()).map(Duration::from_micros);
    Ok(since.filter(|_| value("ActiveState") == Some("active")))
}
