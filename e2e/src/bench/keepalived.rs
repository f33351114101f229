//! Debian's keepalived on two nodes of the same lab, for comparison.

use std::cell::RefCell;
use std::net::Ipv4Addr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::gap::{gap, holder};
use super::probe::Probe;
use crate::group::Background;
use crate::lab::Lab;
use crate::names::NodeId;
use crate::tour::{Expected, Failure};
use crate::witness::Witness;

/// Its address.
pub(super) const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 171);
/// Place of the address among what the witness watches.
const WATCHED: usize = 1;
const NODES: [u8; 2] = [4, 5];
const CONFIG: &str = "/etc/keepalived-bench.conf";
/// A daemon that has just started waits a few advertisements until it is a backup.
const SETTLES: Duration = Duration::from_secs(2);

fn config(node: NodeId) -> String {
    format!(
        "global_defs {{\n  router_id {node}\n  vrrp_version 3\n}}\nvrrp_instance bench {{\n  state BACKUP\n  nopreempt\n  interface eth0\n  \
         virtual_router_id 51\n  priority {}\n  advert_int 0.1\n  virtual_ipaddress {{\n    {ADDRESS}/24 dev eth0\n  }}\n}}\n",
        100 + node.number()
    )
}

/// Two nodes with the daemon.
pub(super) struct Pair<'a> {
    lab: &'a Lab,
    /// They are killed with this.
    daemons: RefCell<Vec<Background>>,
}

/// Starts the daemon on both.
pub(super) fn start(lab: &Lab) -> Result<Pair<'_>, Failure> {
    let pair = Pair { lab, daemons: RefCell::new(Vec::new()) };
    for node in NODES {
        pair.start_on(node.into())?;
    }
    sleep(SETTLES);
    Ok(pair)
}

impl Pair<'_> {
    fn start_on(&self, node: NodeId) -> Result<(), Failure> {
        self.lab.write(node, CONFIG, &config(node), 0o644).expected("keepalived is configured")?;
        let program = ["keepalived", "--dont-fork", "--vrrp", "--use-file", CONFIG];
        let mut daemon = self.lab.start(node, program).expected("keepalived starts (scripts/setup installs it)")?;
        sleep(Duration::from_millis(300));
        if let Some(code) = daemon.ended().expected("keepalived runs")? {
            return Err(Failure::new(format!("keepalived runs on {node}"), format!("it ended with {code}")));
        }
        self.daemons.borrow_mut().push(daemon);
        Ok(())
    }

    /// The node with the address loses its power, so many times: how long nobody answered.
    pub(super) fn crashes(&self, witness: &Witness, times: usize) -> Result<Vec<f64>, Failure> {
        let mut gaps = Vec::new();
        for _ in 0..times {
            let node = holder(witness, WATCHED)?;
            let probe = Probe::start(self.lab, (ADDRESS, 9303).into());
            probe.wait().expected("keepalived's address answers")?;
            let fault = Instant::now();
            self.lab.crash(node).expected("a node loses its power")?;
            gaps.push(gap(&probe, fault)?);
            self.lab.boot(node).expected("it boots")?;
            super::stage::settle(self.lab, &["echo"])?;
            self.start_on(node)?;
            sleep(SETTLES);
        }
        Ok(gaps)
    }

    /// The daemon of the node with the address is killed, so many times: after how many of it two had the address.
    pub(super) fn kills(&self, witness: &mut Witness, times: usize) -> Result<f64, Failure> {
        let mut doubles = 0;
        for _ in 0..times {
            let node = holder(witness, WATCHED)?;
            witness.report().expected("the witness reports")?;
            self.lab.exec(node, ["pkill", "--signal", "KILL", "--exact", "keepalived"]).expected("keepalived is killed")?;
            sleep(SETTLES);
            let seen = witness.report().expected("the witness reports")?;
            doubles += u32::from(seen.ledger.overlaps.iter().any(|overlap| overlap.thing == WATCHED));
            // What it left, a person has to remove.
            self.lab.exec(node, ["ip", "address", "delete", &format!("{ADDRESS}/24"), "dev", "eth0"]).expected("the address is removed")?;
            self.start_on(node)?;
            sleep(SETTLES);
        }
        Ok(f64::from(doubles))
    }
}
