//! What the agent asks of the node's network for a VIP: the trait [`Vips`] and what it reports.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use cluster_schemas::app::VipSpec;
use tokio::sync::{broadcast, watch};

/// Conflicts that may wait for a reader; one that is slower misses the oldest ([`broadcast::error::RecvError::Lagged`]).
pub const CONFLICTS_WAITING: usize = 64;

/// The node's addresses, as far as VIPs are concerned. An address that this driver put there carries a mark; one without the mark
/// belongs to somebody else and is never changed or removed.
pub trait Vips: Send + Sync + 'static {
    /// Puts the address there, or refreshes how long it stays: without another call it goes by itself after `valid` (rounded up to
    /// whole seconds; the kernel may take up to half a second more).
    ///
    /// # Errors
    /// [`VipError::InterfaceMissing`], [`VipError::InterfaceDown`] (nothing is refreshed then, so the address runs out),
    /// [`VipError::AddressInUseByHand`], [`VipError::Ipv6Off`], [`VipError::BadAddress`], [`VipError::Kernel`].
    fn hold(&self, vip: &VipSpec, valid: Duration) -> impl Future<Output = Result<Held, VipError>> + Send;

    /// Removes the address if it carries our mark, and ends its announcements; already gone is success, and so is an address that
    /// is not ours.
    ///
    /// # Errors
    /// [`VipError::Kernel`]: the address may still be there.
    fn release(&self, vip: &VipSpec) -> impl Future<Output = Result<(), VipError>> + Send;

    /// Tells the neighbours on the link that the address is here now. The first frames are out when this returns, a few more follow
    /// in the background while the address is still here. Nothing is sent on links without hardware addresses.
    ///
    /// # Errors
    /// [`VipError::InterfaceMissing`], [`VipError::InterfaceDown`], [`VipError::Kernel`].
    fn announce(&self, vip: &VipSpec) -> impl Future<Output = Result<(), VipError>> + Send;

    /// All addresses that carry our mark, on all interfaces, sorted.
    ///
    /// # Errors
    /// [`VipError::Kernel`].
    fn ours(&self) -> impl Future<Output = Result<Vec<HeldVip>, VipError>> + Send;

    /// Whether the address is on its interface with our mark.
    ///
    /// # Errors
    /// [`VipError::Kernel`].
    fn present(&self, vip: &VipSpec) -> impl Future<Output = Result<bool, VipError>> + Send;

    /// A counter that rises whenever an address went away or a link changed, coalesced: read again what concerns you.
    fn changes(&self) -> watch::Receiver<u64>;

    /// Asks the link whether another machine has the address, or is about to take it; takes at most half a second. To be asked before the
    /// first activation of an App or of a changed VIP only: on a take-over the answer would come from the one that is being replaced.
    /// What this node has itself needs no asking, and on links without hardware addresses there is nobody to ask.
    ///
    /// # Errors
    /// [`VipError::Taken`] with the hardware address of the one that has it; otherwise as [`Vips::hold`].
    fn probe(&self, _vip: &VipSpec) -> impl Future<Output = Result<(), VipError>> + Send {
        std::future::ready(Ok(()))
    }

    /// Announces once more every address that was put there by [`Vips::hold`] and is still there, in the background: to be called when
    /// something healed that the driver cannot see. (What it sees, it announces by itself: a link that comes up, a hardware address that
    /// changes, a conflict.) How many addresses that concerns.
    fn announce_held(&self) -> usize {
        0
    }

    /// Every claim of another machine to an address that is held here, as it is heard: at most one per address and second. The driver
    /// announces the address again by itself.
    fn conflicts(&self) -> broadcast::Receiver<Conflict> {
        broadcast::channel(1).1
    }
}

/// The hardware address of an Ethernet interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mac(
    /// Its bytes as they go over the wire.
    pub [u8; 6],
);

impl Mac {
    pub(super) const BROADCAST: Self = Self([0xff; 6]);
    pub(super) const NONE: Self = Self([0; 6]);
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// Another machine says that it has an address that is held here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// The address.
    pub address: IpAddr,
    /// The interface of this node by which it was heard.
    pub interface: String,
    /// The other's hardware address.
    pub mac: Mac,
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "address {} is held here, and {} on the link of {} says that it has it too", self.address, self.mac, self.interface)
    }
}

/// What [`Vips::hold`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// The address was not there: neighbours need to be told ([`Vips::announce`]).
    Fresh,
    /// It was there, and stays longer now.
    Refreshed,
}

/// An address that carries our mark.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct HeldVip {
    /// The address.
    pub address: IpAddr,
    /// The prefix length it has on the interface (a driver may use a full one whatever the App says).
    pub prefix: u8,
    /// The interface that carries it.
    pub interface: String,
    /// How long it still stays, in whole seconds; `None` means for ever.
    pub valid: Option<Duration>,
}

impl HeldVip {
    /// The VIP in the form that [`Vips::release`] takes.
    #[must_use]
    pub fn spec(&self) -> VipSpec {
        VipSpec { address: format!("{}/{}", self.address, self.prefix), interface: self.interface.clone() }
    }
}

/// Why something could not be done with a VIP.
#[derive(Debug, thiserror::Error)]
pub enum VipError {
    /// The address is not one.
    #[error("VIP {address:?}: {reason}")]
    BadAddress {
        /// What was given.
        address: String,
        /// The rule it breaks.
        reason: &'static str,
    },
    /// The interface does not exist.
    #[error("interface {interface} does not exist on this node")]
    InterfaceMissing {
        /// Its name.
        interface: String,
    },
    /// The interface does not carry packets.
    #[error("interface {interface} is down: {reason}")]
    InterfaceDown {
        /// Its name.
        interface: String,
        /// Switched off, or without a carrier.
        reason: &'static str,
    },
    /// The address is there, but somebody else put it there.
    #[error("address {address} is already on interface {interface} and was not put there by clusterctl")]
    AddressInUseByHand {
        /// The address.
        address: IpAddr,
        /// The interface that has it.
        interface: String,
    },
    /// Another machine on the link has the address, or is about to take it.
    #[error("address {address} is in use on the link of interface {interface}, by the machine with the hardware address {mac}")]
    Taken {
        /// The address.
        address: IpAddr,
        /// The interface by which it was heard.
        interface: String,
        /// The other's hardware address.
        mac: Mac,
    },
    /// The interface takes no IPv6 addresses.
    #[error("IPv6 is switched off on interface {interface} (sysctl disable_ipv6)")]
    Ipv6Off {
        /// Its name.
        interface: String,
    },
    /// This kernel cannot do it.
    #[error("{what}")]
    Unsupported {
        /// What is missing.
        what: &'static str,
    },
    /// The kernel refused, or could not be asked.
    #[error("{action}")]
    Kernel {
        /// What was tried.
        action: String,
        /// The kernel's error.
        #[source]
        source: io::Error,
    },
}

impl VipError {
    /// Trying again is useless until somebody changes the App or the node. Everything else is worth another try, after a pause.
    #[must_use]
    pub const fn is_permanent(&self) -> bool {
        match self {
            Self::BadAddress { .. } | Self::AddressInUseByHand { .. } | Self::Ipv6Off { .. } | Self::Unsupported { .. } => true,
            Self::InterfaceMissing { .. } | Self::InterfaceDown { .. } | Self::Taken { .. } | Self::Kernel { .. } => false,
        }
    }

    /// The reason in one word, for a condition.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::BadAddress { .. } => "VipInvalid",
            Self::InterfaceMissing { .. } => "InterfaceMissing",
            Self::InterfaceDown { .. } => "InterfaceDown",
            Self::AddressInUseByHand { .. } => "VipConfiguredByHand",
            Self::Taken { .. } => "VipTaken",
            Self::Ipv6Off { .. } => "Ipv6Off",
            Self::Unsupported { .. } => "Unsupported",
            Self::Kernel { .. } => "VipFailed",
        }
    }
}
