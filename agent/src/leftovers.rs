//! What an earlier agent of this boot left, for the one that starts.

use std::collections::BTreeSet;
use std::path::Path;

use cluster_schemas::Assignment;
use cluster_schemas::name::check_name;
use tracing::{info, warn};

use crate::drivers::{Units, Vips};

/// Apps that left something under the runtime folder or a unit file of ours.
pub async fn apps<U: Units>(runtime_dir: &Path, units: &U) -> BTreeSet<String> {
    let mut apps = BTreeSet::new();
    if let Ok(folder) = std::fs::read_dir(runtime_dir) {
        let names = folder.flatten().filter(|e| e.path().is_dir()).filter_map(|e| e.file_name().into_string().ok());
        apps.extend(names.filter(|name| check_name(name).is_ok()));
    }
    match units.ours().await {
        Ok(units) => apps.extend(units.into_iter().map(|u| u.app).filter(|a| check_name(a).is_ok())),
        Err(error) => warn!("cannot look for units left behind: {}", cluster_telemetry::chain(&error)),
    }
    apps
}

/// Removes addresses with our mark that no App of this node has to do with. Those of an App are its worker's.
pub async fn sweep_addresses<V: Vips>(assignment: Option<&Assignment>, vips: &V) {
    let known: BTreeSet<String> =
        assignment.iter().flat_map(|a| a.apps.values()).filter_map(|entry| entry.vip.as_ref().map(|v| v.spec().ip().to_owned())).collect();
    match vips.ours().await {
        Ok(held) => {
            for vip in held.iter().filter(|v| !known.contains(&v.address.to_string())) {
                info!(vip = %vip.address, interface = vip.interface, "removing an address that was left behind");
                if let Err(error) = vips.release(&vip.spec()).await {
                    warn!(vip = %vip.address, "cannot remove it, it runs out by itself: {}", cluster_telemetry::chain(&error));
                }
            }
        }
        Err(error) => warn!("cannot look for addresses left behind: {}", cluster_telemetry::chain(&error)),
    }
}
