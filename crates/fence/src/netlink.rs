//! Removes addresses by raw netlink over a socket opened ahead (F3). No allocation: the message is built on the stack.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, send, socket};

/// struct nlmsghdr.
const HEADER: usize = 16;
/// struct ifaddrmsg.
const IFADDR: usize = 8;
const RTM_DELADDR: u16 = 21;
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// An open socket for removals.
#[derive(Debug)]
pub(crate) struct Addresses {
    socket: OwnedFd,
    sequence: u32,
}

impl Addresses {
    pub(crate) fn open() -> io::Result<Self> {
        let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
        nix::sys::socket::bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Removes the address; true if it was there.
    pub(crate) fn remove(&mut self, interface: u32, prefix: u8, address: &[u8]) -> bool {
        self.sequence = self.sequence.wrapping_add(1);
        let mut message = [0_u8; HEADER + IFADDR + 4 + 16];
        let length = build(&mut message, self.sequence, interface, prefix, address);
        let Some(message) = message.get(..length) else { return false };
        if send(self.socket.as_raw_fd(), message, MsgFlags::empty()).is_err() {
            return false;
        }
        // The kernel answers a request of this kind before `send` returns; never wait, a guard has no time.
        let mut answer = [0_u8; 256];
        while let Ok(length) = recv(self.socket.as_raw_fd(), &mut answer, MsgFlags::MSG_DONTWAIT) {
            if let Some(result) = result_of(answer.get(..length).unwrap_or(&[]), self.sequence) {
                return result == 0;
            }
        }
        false
    }
}

/// Writes the request and returns its length.
fn build(out: &mut [u8], sequence: u32, interface: u32, prefix: u8, address: &[u8]) -> usize {
    let attribute = 4 + address.len();
    // For IPv4 the kernel compares the prefix only with IFA_ADDRESS given: without it the address goes whatever its prefix.
    let kinds: &[u16] = if address.len() == 4 { &[IFA_LOCAL] } else { &[IFA_ADDRESS] };
    let length = HEADER + IFADDR + kinds.len() * attribute;
    let mut at = 0;
    let mut put = |bytes: &[u8]| {
        if let Some(place) = out.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
        at += bytes.len();
    };
    put(&u32::try_from(length).unwrap_or(0).to_ne_bytes());
    put(&RTM_DELADDR.to_ne_bytes());
    put(&(NLM_F_REQUEST | NLM_F_ACK).to_ne_bytes());
    put(&sequence.to_ne_bytes());
    put(&0_u32.to_ne_bytes());
    put(&[if address.len() == 4 { AF_INET } else { AF_INET6 }, prefix, 0, 0]);
    put(&interface.to_ne_bytes());
    for kind in kinds {
        put(&u16::try_from(attribute).unwrap_or(0).to_ne_bytes());
        put(&kind.to_ne_bytes());
        put(address);
    }
    length
}

/// The errno in an answer to request `sequence`: 0 for done.
fn result_of(answer: &[u8], sequence: u32) -> Option<i32> {
    let kind = u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?);
    let number = u32::from_ne_bytes(answer.get(8..12)?.try_into().ok()?);
    let result = i32::from_ne_bytes(answer.get(HEADER..HEADER + 4)?.try_into().ok()?);
    (kind == NLMSG_ERROR && number == sequence).then_some(result)
}
