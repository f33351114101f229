//! How long nobody answers at an address when an operator moves its Singleton to another node.

use std::io::Write;
use std::net::Ipv4Addr;
use std::time::Instant;

use serde_json::json;

use super::gap::{gap, holder};
use super::line;
use super::probe::Probe;
use super::stage::{self, LIMIT, demo, settle};
use crate::lab::Lab;
use crate::tour::{Expected, Failure, clusterctl};
use crate::wait::wait_until;
use crate::witness::{Witness, vip};

pub(super) const NAMES: [&str; 1] = ["switchover_gap_ms"];

const NODES: u8 = 3;
/// The addresses of a Singleton with hot standbys and of one with cold ones.
const CASES: [(&str, &str, Ipv4Addr, u16); 2] =
    [("Hot", "hot", Ipv4Addr::new(10, 0, 0, 172), 9310), ("Cold", "cold", Ipv4Addr::new(10, 0, 0, 173), 9320)];

pub(super) fn measure(name: &str, times: usize, out: &mut impl Write) -> Result<(), Failure> {
    let lab = stage::lab(name, NODES)?;
    let witness =
        Witness::start(&lab, CASES.iter().map(|(_, _, address, _)| vip(*address)).collect(), &[]).expected("the witness watches")?;
    for (thing, (standby, app, address, port)) in CASES.iter().enumerate() {
        let arguments = format!("--listen, '0.0.0.0:{port}', --echo, '0.0.0.0:{}'", port + 1);
        let more = format!("standby: {standby}, vip: {{ address: {address}/24, interface: eth0 }}");
        stage::apply(&lab, &demo(app, "Singleton", &arguments, &more), &[app])?;
        let mut gaps = Vec::new();
        for _ in 0..times {
            gaps.push(once(&lab, &witness, thing, app, (*address, port + 1))?);
            settle(&lab, &[app])?;
        }
        line::median(out, NAMES[0], "ms", &gaps, &json!({ "standby": standby, "probe_ms": 2 }))?;
    }
    Ok(())
}

fn once(lab: &Lab, witness: &Witness, thing: usize, app: &str, echo: (Ipv4Addr, u16)) -> Result<f64, Failure> {
    let from = holder(witness, thing)?;
    let probe = Probe::start(lab, echo.into());
    probe.wait().expected("the address answers")?;
    let asked = Instant::now();
    // A standby that has just become one is refused as a successor until it says that it stands by.
    wait_until("a switchover", LIMIT, || clusterctl(lab, &["switchover", app, "--timeout", "30s"])).expected("the Singleton is moved")?;
    let gap = gap(&probe, asked)?;
    let to = holder(witness, thing)?;
    if to == from { Err(Failure::new("another node has the address", format!("{from} has it"))) } else { Ok(gap) }
}
