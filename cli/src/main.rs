//! clusterctl, the command line.

fn main() {}
