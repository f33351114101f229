//! The lab: real nodes on one machine; scenarios, faults, benchmarks, the demo.

fn main() {}
