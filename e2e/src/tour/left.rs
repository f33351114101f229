//! What a lab leaves on the host: nothing, once it is down.

use std::fs;
use std::path::Path;

use crate::error::Result;
use crate::names::{DATA_ROOT, Layout, MAX_NODES, NETNS_DIR, NodeId, netns_path};

/// Folder of the lab's cgroups in each hierarchy.
const CGROUPS: &str = "clusterctl-lab";

/// Everything on the host that belongs to the lab of this name: namespaces, folders, cgroups, and processes with their
/// mounts. One line each.
///
/// # Errors
/// [`LabError::Invalid`](crate::LabError::Invalid) for a name that no lab has.
pub fn left_of(name: &str) -> Result<Vec<String>> {
    let layout = Layout::new(name)?;
    let nodes = (1..=MAX_NODES).map(|number| layout.node_ns(NodeId::from(number)));
    let mut paths: Vec<_> = nodes.chain([layout.switch_ns(), layout.client_ns()]).map(|ns| netns_path(&ns)).collect();
    paths.extend([layout.state(), layout.lock(), layout.default_data()]);
    for root in ["/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd"] {
        paths.push(Path::new(root).join(CGROUPS).join(name));
    }
    let mut found: Vec<String> = paths.iter().filter(|path| path.exists()).map(|path| path.display().to_string()).collect();

    let marks = [format!("/{CGROUPS}/{name}/"), format!("{DATA_ROOT}/{name}/"), format!(" {NETNS_DIR}/{name}-n")];
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.path());
    for process in processes.filter(|path| path.file_name().and_then(|file| file.to_str()?.parse::<u32>().ok()).is_some()) {
        // A process that ends while we look is not left.
        let read = |file: &str| fs::read_to_string(process.join(file)).unwrap_or_default();
        let (cgroup, mounts) = (read("cgroup"), read("mountinfo"));
        if marks.iter().any(|mark| cgroup.contains(mark) || mounts.contains(mark)) {
            found.push(format!("{} {}", process.display(), read("comm").trim()));
        }
    }
    Ok(found)
}
