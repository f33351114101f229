//! The small HTTP workload of the demo and the manifests: says node, role, epoch and partitions.

fn main() {}
