//! How long nobody answers at an address when the node behind it fails.

use std::io::Write;
use std::net::Ipv4Addr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::keepalived;
use super::line;
use super::probe::Probe;
use super::stage::{self, LIMIT, demo, settle};
use crate::drill::stage::VOTER_WAITS;
use crate::lab::{Lab, ScopedLab};
use crate::names::NodeId;
use crate::tour::{Expected, Failure};
use crate::wait::wait_until;
use crate::witness::{Witness, vip};

pub(super) const NAMES: [&str; 2] = ["failover_gap_ms", "double_holders"];

const NODES: u8 = 5;
/// The default lease, milliseconds.
const LEASE_MS: u64 = 350;
/// Faults of the case that is compared, and of each other case.
const COMPARED: usize = 10;
const OTHERS: usize = 5;
/// A fault is over when it was answered for this long again.
const ANSWERED: Duration = Duration::from_millis(700);

/// Our address, held by a hot Singleton on the nodes with NATS servers and votes.
const OURS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 170);
const APPS: [&str; 2] = ["hot", "echo"];

fn apps() -> String {
    let more = "standby: Hot, placement: { nodes: [n1, n2, n3] }, vip: { address: 10.0.0.170/24, interface: eth0 }";
    // What keepalived's address leads to runs on its nodes all the time, as a hot standby does on ours.
    demo("hot", "Singleton", "--listen, '0.0.0.0:9300', --echo, '0.0.0.0:9301'", more)
        + &demo("echo", "Spread", "--listen, '0.0.0.0:9302', --echo, '0.0.0.0:9303'", "placement: { nodes: [n4, n5] }")
}

/// A case: what is done to the node that has the address, and how it is undone.
struct Case {
    name: &'static str,
    times: usize,
    leads: bool,
    fail: fn(&Lab, NodeId) -> crate::Result<()>,
    undo: fn(&Lab, NodeId) -> crate::Result<()>,
    boots: bool,
}

const CASES: [Case; 3] = [
    Case {
        name: "leads_everything",
        times: COMPARED,
        leads: true,
        fail: |lab, node| lab.crash(node).map(drop),
        undo: |lab, node| lab.boot(node),
        boots: true,
    },
    Case {
        name: "drop",
        times: OTHERS,
        leads: false,
        fail: |lab, node| lab.drop_link(node),
        undo: |lab, node| lab.heal(node),
        boots: false,
    },
    Case { name: "cut", times: OTHERS, leads: false, fail: |lab, node| lab.cut(node), undo: |lab, node| lab.heal(node), boots: false },
];

pub(super) fn measure(name: &str, out: &mut impl Write) -> Result<(), Failure> {
    let lab = stage::lab(name, NODES)?;
    let mut witness = Witness::start(&lab, vec![vip(OURS), vip(keepalived::ADDRESS)], &[]).expected("the witness watches")?;
    stage::apply(&lab, &apps(), &APPS)?;
    for case in CASES {
        let gaps = ours(&lab, &witness, &case)?;
        line::median(out, NAMES[0], "ms", &gaps, &parameters("ours", case.name))?;
    }
    // What follows is counted by itself.
    let seen = witness.report().expected("the witness reports")?;
    let (kills, doubles) = killed(&lab, &mut witness)?;
    let during = seen.ledger.overlaps.len();
    let told = json!({ "tool": "ours", "killed": "agent", "of": kills, "during_faults": during });
    line::single(out, NAMES[1], "", doubles, &told)?;

    let pair = keepalived::start(&lab)?;
    let gaps = pair.crashes(&witness, COMPARED)?;
    line::median(out, NAMES[0], "ms", &gaps, &parameters("keepalived", "crash"))?;
    let (kills, doubles) = pair.kills(&mut witness, COMPARED)?;
    line::single(out, NAMES[1], "", doubles, &json!({ "tool": "keepalived", "killed": "keepalived", "of": kills }))
}

fn parameters(tool: &str, case: &str) -> Value {
    match tool {
        "ours" => json!({ "tool": tool, "case": case, "lease_ms": LEASE_MS, "standby": "Hot", "probe_ms": 2 }),
        _ => json!({ "tool": tool, "case": case, "advert_int_ms": 100, "probe_ms": 2 }),
    }
}

/// Waits until somebody has a thing, and says who.
pub(super) fn holder(witness: &Witness, thing: usize) -> Result<NodeId, Failure> {
    let held = || witness.holders(thing).only().ok_or_else(|| witness.holders(thing).to_string());
    wait_until("one to have the address", LIMIT, held).expected("one has the address")
}

/// How long nobody answered after a fault, once all is quiet.
pub(super) fn gap(probe: &Probe, fault: Instant) -> Result<f64, Failure> {
    let gap = wait_until("the address to be answered again", LIMIT, || probe.gap(fault, ANSWERED));
    Ok(line::ms(gap.expected("the address is answered again")?))
}

fn ours(lab: &ScopedLab, witness: &Witness, case: &Case) -> Result<Vec<f64>, Failure> {
    let mut gaps = Vec::new();
    for _ in 0..case.times {
        let node = holder(witness, 0)?;
        if case.leads {
            lab.lead_everything(node).expected(&format!("{node} leads NATS and the controllers"))?;
        }
        let probe = Probe::start(lab, (OURS, 9301).into());
        probe.wait().expected("the address answers")?;
        let fault = Instant::now();
        (case.fail)(lab, node).expected(&format!("{node} fails"))?;
        gaps.push(gap(&probe, fault)?);
        (case.undo)(lab, node).expected(&format!("{node} is back"))?;
        settle(lab, &APPS)?;
        if case.boots {
            // With a voter that waits, the next fault would take the majority.
            sleep(VOTER_WAITS);
        }
    }
    Ok(gaps)
}

/// The agent of the active node killed: how often, and after how many of it two had the address.
fn killed(lab: &Lab, witness: &mut Witness) -> Result<(usize, f64), Failure> {
    let mut doubles = 0;
    for _ in 0..COMPARED {
        let node = holder(witness, 0)?;
        lab.exec(node, ["systemctl", "kill", "--signal=KILL", "--kill-whom=main", "cluster-agent"]).expected("the agent is killed")?;
        sleep(Duration::from_secs(1));
        let seen = witness.report().expected("the witness reports")?;
        doubles += u32::from(!seen.ledger.overlaps.is_empty());
    }
    Ok((COMPARED, f64::from(doubles)))
}
