//! How long nobody answers at an address when the node behind it fails.

use std::io::Write;
use std::net::Ipv4Addr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::json;

use super::keepalived;
use super::line;
use super::probe::Probe;
use super::scale::{DEFAULT_LEASE_MS, Scale};
use super::stage::{self, LIMIT, demo, settle};
use crate::drill::stage::VOTER_WAITS;
use crate::lab::{Lab, ScopedLab};
use crate::names::NodeId;
use crate::tour::{Expected, Failure};
use crate::wait::wait_until;
use crate::witness::{Witness, vip};

pub(super) const NAMES: [&str; 3] = ["failover_gap_ms", "double_holders", "heal_black_hole_ms"];

const NODES: u8 = 5;
/// A fault is over when it was answered for this long again.
const ANSWERED: Duration = Duration::from_millis(700);

/// Our address, held by a hot Singleton on the nodes with NATS servers and votes.
const OURS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 170);
const APPS: [&str; 2] = ["hot", "echo"];

fn apps(lease_ms: u64) -> String {
    let lease = if lease_ms == DEFAULT_LEASE_MS { String::new() } else { format!(", failover: {{ lease: {lease_ms}ms }}") };
    let more = format!("standby: Hot, placement: {{ nodes: [n1, n2, n3] }}, vip: {{ address: 10.0.0.170/24, interface: eth0 }}{lease}");
    // What keepalived's address leads to runs on its nodes all the time, as a hot standby does on ours.
    demo("hot", "Singleton", "--listen, '0.0.0.0:9300', --echo, '0.0.0.0:9301'", &more)
        + &demo("echo", "Spread", "--listen, '0.0.0.0:9302', --echo, '0.0.0.0:9303'", "placement: { nodes: [n4, n5] }")
}

/// A case: what is done to the node that has the address, and how it is undone.
struct Case {
    name: &'static str,
    leads: bool,
    fail: fn(&Lab, NodeId) -> crate::Result<()>,
    undo: fn(&Lab, NodeId) -> crate::Result<()>,
    boots: bool,
}

const CASES: [Case; 3] = [
    Case {
        name: "leads_everything",
        leads: true,
        fail: |lab, node| lab.crash(node).map(drop),
        undo: |lab, node| lab.boot(node),
        boots: true,
    },
    Case { name: "drop", leads: false, fail: |lab, node| lab.drop_link(node), undo: |lab, node| lab.heal(node), boots: false },
    Case { name: "cut", leads: false, fail: |lab, node| lab.cut(node), undo: |lab, node| lab.heal(node), boots: false },
];

pub(super) fn measure(name: &str, scale: &Scale, out: &mut impl Write) -> Result<(), Failure> {
    let faults = scale.faults;
    let lab = stage::lab(name, NODES)?;
    let mut witness = Witness::start(&lab, vec![vip(OURS), vip(keepalived::ADDRESS)], &[]).expected("the witness watches")?;
    for lease_ms in scale.leases_ms.iter().copied() {
        stage::apply(&lab, &apps(lease_ms), &APPS)?;
        for case in CASES.iter().filter(|case| case.leads || scale.every_case || lease_ms == DEFAULT_LEASE_MS) {
            // The others in half the number: they are not compared.
            let times = if case.leads || scale.every_case { faults } else { faults.div_ceil(2) };
            let (gaps, holes) = ours(&lab, &witness, case, times)?;
            let parameters = json!({ "tool": "ours", "case": case.name, "lease_ms": lease_ms, "standby": "Hot", "probe_ms": 2 });
            line::median(out, NAMES[0], "ms", &gaps, &parameters)?;
            // A node that boots has nothing of before.
            if !case.boots {
                line::median(out, NAMES[2], "ms", &holes, &parameters)?;
            }
        }
    }
    // What follows is counted by itself.
    let seen = witness.report().expected("the witness reports")?;
    let doubles = killed(&lab, &mut witness, faults)?;
    let during = seen.ledger.overlaps.len();
    let told = json!({ "tool": "ours", "killed": "agent", "of": faults, "during_faults": during });
    line::single(out, NAMES[1], "1", doubles, &told)?;

    let pair = keepalived::start(&lab)?;
    let gaps = pair.crashes(&witness, faults)?;
    line::median(out, NAMES[0], "ms", &gaps, &json!({ "tool": "keepalived", "case": "crash", "advert_int_ms": 100, "probe_ms": 2 }))?;
    let doubles = pair.kills(&mut witness, faults)?;
    line::single(out, NAMES[1], "1", doubles, &json!({ "tool": "keepalived", "killed": "keepalived", "of": faults }))
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

/// How long nobody answered after each fault, and how long at most from the moment on at which it was undone.
fn ours(lab: &ScopedLab, witness: &Witness, case: &Case, times: usize) -> Result<(Vec<f64>, Vec<f64>), Failure> {
    let (mut gaps, mut holes) = (Vec::new(), Vec::new());
    for _ in 0..times {
        let node = holder(witness, 0)?;
        if case.leads {
            lab.lead_everything(node).expected(&format!("{node} leads NATS and the controllers"))?;
        }
        let probe = Probe::start(lab, (OURS, 9301).into());
        probe.wait().expected("the address answers")?;
        let fault = Instant::now();
        (case.fail)(lab, node).expected(&format!("{node} fails"))?;
        gaps.push(gap(&probe, fault)?);
        let heal = Instant::now();
        (case.undo)(lab, node).expected(&format!("{node} is back"))?;
        settle(lab, &APPS)?;
        holes.push(gap(&probe, heal)?);
        if case.boots {
            // With a voter that waits, the next fault would take the majority.
            sleep(VOTER_WAITS);
        }
    }
    Ok((gaps, holes))
}

/// The agent of the active node killed: how often, and after how many of it two had the address.
fn killed(lab: &Lab, witness: &mut Witness, times: usize) -> Result<f64, Failure> {
    let mut doubles = 0;
    for _ in 0..times {
        let node = holder(witness, 0)?;
        lab.exec(node, ["systemctl", "kill", "--signal=KILL", "--kill-whom=main", "cluster-agent"]).expected("the agent is killed")?;
        sleep(Duration::from_secs(1));
        let seen = witness.report().expected("the witness reports")?;
        doubles += u32::from(!seen.ledger.overlaps.is_empty());
    }
    Ok(f64::from(doubles))
}
