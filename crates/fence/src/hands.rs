//! What a guard does to the machine: the trait, and the kernel behind it.

use std::fmt::Debug;
use std::net::IpAddr;

use crate::cgroup;
use crate::netlink::Addresses;
use crate::table::GuardedVip;

/// What the guard sees and ends with. It is called in the guard's round, at deadlines: nothing of it may wait for anybody.
pub trait Hands: Debug {
    /// A round is about to look at units: what is known of the machine may be outdated.
    fn look(&mut self) {}

    /// Whether anything of the unit runs. `unit` is the text that [`Table::set_cgroup`](crate::Table::set_cgroup) was given; what is not
    /// known, and an empty text, has nothing that runs. Where it cannot be told, it runs.
    fn is_populated(&mut self, unit: &[u8]) -> bool;

    /// Kills everything of the unit, frozen or not, and does not wait for the end of it. True if the order was taken.
    fn kill(&mut self, unit: &[u8]) -> bool;

    /// Takes the address away, if it is there by clusterctl's doing; true if it was.
    fn remove(&mut self, vip: &GuardedVip) -> bool;
}

/// A real node: cgroups, and addresses over a netlink socket that is open already.
#[derive(Debug)]
pub struct Machine(Addresses);

impl Machine {
    /// Opens what will be needed.
    ///
    /// # Errors
    /// The system's, where no netlink socket can be had.
    pub fn open() -> std::io::Result<Self> {
        Addresses::open().map(Self)
    }
}

impl Hands for Machine {
    fn look(&mut self) {
        self.0.refresh();
    }

    fn is_populated(&mut self, unit: &[u8]) -> bool {
        cgroup::is_populated(unit)
    }

    fn kill(&mut self, unit: &[u8]) -> bool {
        cgroup::kill(unit)
    }

    fn remove(&mut self, vip: &GuardedVip) -> bool {
        // One that somebody put there by hand is theirs.
        let mut remove =
            |address: &[u8]| self.0.may_be_ours(vip.interface, vip.prefix, address) && self.0.remove(vip.interface, vip.prefix, address);
        match vip.address {
            IpAddr::V4(v4) => remove(&v4.octets()),
            IpAddr::V6(v6) => remove(&v6.octets()),
        }
    }
}
