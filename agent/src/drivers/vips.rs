//! What the agent asks of the node's network for a VIP: the trait [`Vips`] and what it reports.

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use cluster_schemas::app::VipSpec;
use tokio::sync::watch;

/// The node's addresses, as far as VIPs are concerned. An address that this driver put there carries a mark; one without the mark
/// belongs to somebody else and is never changed or removed.
pub trait Vips: Send + Sync + 'static {
    /// Puts the address there, or refreshes how long it stays: without another call it goes by itself after `valid` (rounded up to
    /// whole seconds; the kernel may take up to half a second more).
    ///
    /// # Errors
    /// [`VipError::InterfaceMissing`], [`VipError::InterfaceDown`] (nothing is refreshed then, so the address runs out),
    /// [`VipError::AddressInUseByHand`], [`VipError::BadAddress`], [`VipError::Kernel`].
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
            Self::BadAddress { .. } | Self::AddressInUseByHand { .. } | Self::Unsupported { .. } => true,
            Self::InterfaceMissing { .. } | Self::InterfaceDown { .. } | Self::Kernel { .. } => false,
        }
    }
}
