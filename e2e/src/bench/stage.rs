//! Labs for figures: started, applied to, and waited for.

use std::fs;
use std::time::Duration;

use crate::error::{Context, Result};
use crate::lab::{Lab, ScopedLab, UpOptions};
use crate::tour::{Expected, Failure, all_nodes_ready, all_ready, clusterctl};
use crate::wait::wait_until;

/// Nothing measured here takes this long, unless it never ends.
pub(super) const LIMIT: Duration = Duration::from_secs(60);

/// A lab whose nodes are Ready.
pub(super) fn lab(name: &str, nodes: u8) -> Result<ScopedLab, Failure> {
    let lab = Lab::up_scoped(&UpOptions::new(nodes).named(name)).expected("a lab starts")?;
    wait_until("Ready nodes", LIMIT, || all_nodes_ready(&lab)).expected("all nodes are Ready")?;
    Ok(lab)
}

/// Writes a manifest where the client finds it and returns its path.
pub(super) fn manifest(lab: &Lab, name: &str, yaml: &str) -> Result<String> {
    let file = lab.shared_dir().join(format!("{name}.yaml"));
    fs::write(&file, yaml).context(|| format!("write {}", file.display()))?;
    Ok(file.display().to_string())
}

/// Applies a manifest and waits until these Apps are Ready.
pub(super) fn apply(lab: &Lab, yaml: &str, apps: &[&str]) -> Result<(), Failure> {
    let file = manifest(lab, "bench", yaml).expected("a manifest can be written")?;
    clusterctl(lab, &["apply", "-f", &file]).expected("a manifest is applied")?;
    ready(lab, apps)
}

/// Waits until these Apps are Ready.
pub(super) fn ready(lab: &Lab, apps: &[&str]) -> Result<(), Failure> {
    wait_until("Ready Apps", LIMIT, || all_ready(lab, apps)).expected("all Apps are Ready")
}

/// Waits until servers, nodes and Apps are well.
pub(super) fn settle(lab: &Lab, apps: &[&str]) -> Result<(), Failure> {
    lab.wait_nats(LIMIT).expected("NATS is well")?;
    wait_until("Ready nodes", LIMIT, || all_nodes_ready(lab)).expected("all nodes are Ready")?;
    ready(lab, apps)
}

/// An App that runs the demo program; `more` is what else stands in the spec, in flow style.
pub(super) fn demo(name: &str, mode: &str, arguments: &str, more: &str) -> String {
    format!(
        "apiVersion: cluster/v1\nkind: App\nmetadata: {{ name: {name} }}\nspec: {{ mode: {mode}, exec: {{ command: \
         [/usr/lib/clusterctl/demo, {arguments}] }}, {more} }}\n---\n"
    )
}
