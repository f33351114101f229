//! Who may still hold what: the evidence of one node about one App.
//!
//! A Live node *claims* an exclusive thing as long as it may hold it: its last written entry gives it or has it released, or its
//! status says that it is there. The claim is *settled* when the node confirmed that it let go, or gave that tenure up by itself.
//! A Lost node claims nothing (its agent fenced itself before it was declared lost), and neither does what was written for an
//! earlier boot.

use cluster_schemas::app::ip;
use cluster_schemas::assignment::{AppAssignment, Order, Role};
use cluster_schemas::node::AppObserved;
use cluster_schemas::{App, Mode, PartitionSet};

/// What is known of one App on one node.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Evidence<'a> {
    /// Number of the node.
    pub node: usize,
    /// The entry as last written.
    pub entry: Option<&'a AppAssignment>,
    /// What the node's agent sees.
    pub observed: Option<&'a AppObserved>,
    /// The node is Lost.
    pub lost: bool,
    /// The entry was written for the boot the node is in.
    pub same_boot: bool,
    /// The App's worker acts on the assignment as last written, or reports nothing while the agent took that assignment.
    pub acked: bool,
    /// The agent took the assignment as last written and reports nothing of the App.
    pub clear: bool,
    /// The entry or the status names a VIP. Few do, and this spares a look at both.
    pub has_vip: bool,
}

/// A VIP that a node may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct VipClaim<'a> {
    /// Address with prefix length.
    pub address: &'a str,
    /// Epoch it was given with.
    pub epoch: u64,
}

/// Whether `taken` is `order` or newer. Orders of different incarnations tell nothing.
pub(crate) fn reached(taken: Option<&Order>, order: &Order) -> bool {
    taken.and_then(|t| order.newer_than(t)) == Some(false)
}

impl<'a> Evidence<'a> {
    /// The entry, if what it gives can still be held: not lost, same boot.
    pub(crate) fn standing(&self) -> Option<&'a AppAssignment> {
        self.entry.filter(|_| self.same_boot && !self.lost)
    }

    /// The entry's role, if there is one.
    pub(crate) fn role(&self) -> Option<Role> {
        self.entry.map(|e| e.role)
    }

    /// Singleton: highest epoch the node gave up by itself.
    pub(crate) fn gave_up(&self) -> u64 {
        self.observed.map_or(0, |o| o.gave_up)
    }

    /// Whether the node says that the Singleton's slot may be held there.
    pub(crate) fn holds(&self) -> bool {
        !self.lost && self.observed.is_some_and(|o| o.holds)
    }

    /// The unsettled claim on `app/NAME`: its epoch.
    pub(crate) fn slot_claim(&self) -> Option<u64> {
        if self.lost {
            return None;
        }
        let planned = self.standing().and_then(|e| match e.role {
            Role::Active => Some((e.epoch, false)),
            _ => e.releasing.map(|epoch| (epoch, true)),
        });
        let seen = self.observed.filter(|o| o.holds).map(|o| o.epoch);
        let unsettled = planned.filter(|(epoch, marked)| !(*marked && self.acked || self.gave_up() >= *epoch)).map(|(epoch, _)| epoch);
        // A node that still holds claims at least the epoch it was given, whatever it has acknowledged.
        seen.map(|epoch| epoch.max(planned.map_or(0, |(planned, _)| planned))).or(unsettled)
    }

    /// The unsettled claims on VIPs: by the entry, and by what is seen where that is another address.
    pub(crate) fn vip_claims(&self) -> impl Iterator<Item = VipClaim<'a>> + use<'a> {
        let seen = self.observed.filter(|_| self.has_vip && !self.lost).and_then(|o| o.vip.as_ref()).filter(|v| v.present);
        let planned = self.standing().filter(|_| self.has_vip).and_then(|entry| {
            let vip = entry.vip.as_ref()?;
            let (epoch, marked) = if vip.hold { (vip.epoch, false) } else { (vip.releasing?, true) };
            let present = seen.is_some_and(|v| ip(&v.address) == ip(&vip.address));
            let settled = !present && (marked && self.acked || self.vip_gave_up(&vip.address) >= epoch);
            (!settled).then_some(VipClaim { address: &vip.address, epoch })
        });
        let other = seen
            .filter(|v| planned.is_none_or(|p| ip(p.address) != ip(&v.address)))
            .map(|v| VipClaim { address: &v.address, epoch: v.epoch });
        planned.into_iter().chain(other)
    }

    /// Highest epoch of the VIP that the node gave up by itself; a Singleton's goes by the slot `app/NAME`.
    pub(crate) fn vip_gave_up(&self, address: &str) -> u64 {
        let own = self.observed.and_then(|o| o.vip.as_ref()).filter(|v| ip(&v.address) == ip(address)).map_or(0, |v| v.gave_up);
        match self.entry {
            Some(entry) if entry.mode == Mode::Singleton => own.max(self.gave_up()),
            _ => own,
        }
    }

    /// Highest epoch of partitions that the node gave up by itself.
    pub(crate) fn ring_gave_up(&self) -> u64 {
        self.observed.and_then(|o| o.ring.as_ref()).map_or(0, |r| r.gave_up)
    }

    /// Partitions that the entry gives, with their epoch; `None` where that tenure is dead.
    pub(crate) fn owned(&self) -> impl Iterator<Item = (u16, Option<u64>)> + use<'a> {
        let dead = self.ring_gave_up();
        let groups = self.standing().and_then(|e| e.ring.as_ref()).map_or(&[][..], |r| &r.own);
        groups.iter().flat_map(move |g| g.partitions.iter().map(move |p| (p, (g.epoch > dead).then_some(g.epoch))))
    }

    /// Partitions with an unsettled claim.
    pub(crate) fn ring_claims(&self) -> PartitionSet {
        if self.lost {
            return PartitionSet::new();
        }
        let mut claims: PartitionSet = self.owned().filter_map(|(p, epoch)| epoch.map(|_| p)).collect();
        if let Some(ring) = self.standing().and_then(|e| e.ring.as_ref())
            && !self.acked
        {
            claims.extend(ring.release.iter());
        }
        if let Some(ring) = self.observed.and_then(|o| o.ring.as_ref()) {
            claims.extend(ring.held.iter());
        }
        claims
    }

    /// Whether what is here belongs to an earlier App of the same name, or to the App in another mode: it has to go first.
    pub(crate) fn foreign(&self, app: &App) -> bool {
        if self.confirmed_absent() {
            return false;
        }
        match (self.entry, self.observed) {
            (Some(entry), _) => {
                entry.uid != app.metadata.uid
                    || entry.mode != app.spec.mode
                    || entry.ring.as_ref().is_some_and(|r| r.partitions != app.partitions())
            }
            (None, Some(observed)) => !observed.uid.is_empty() && observed.uid != app.metadata.uid,
            (None, None) => false,
        }
    }

    /// Whether the node confirmed that nothing is left of an entry that was to go.
    pub(crate) fn confirmed_absent(&self) -> bool {
        self.clear
            && self.role().is_none_or(|r| r == Role::Absent)
            && self.slot_claim().is_none()
            && self.vip_claims().next().is_none()
            && self.ring_claims().is_empty()
    }
}
