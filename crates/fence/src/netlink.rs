//! Removes addresses by raw netlink over sockets opened ahead (F3). No allocation after that: messages are built on the stack.
//!
//! Only addresses with our mark are removed, and the kernel's request to remove one does not look at marks. So the guard knows which addresses
//! carry it: it lists them anew after each change that the kernel tells of. Where it cannot be known, what is fenced is removed, marked or not.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, socket};

use crate::layout::{UNITS_MAX, VIPS_MAX};

/// The mark of addresses that clusterctl puts there: the kernel's IFA_PROTO (Linux 5.18).
pub const ADDRESS_MARK: u8 = 0xC7;

/// struct nlmsghdr.
const HEADER: usize = 16;
/// struct ifaddrmsg.
const IFADDR: usize = 8;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLM_F_DUMP: u16 = 0x300;
/// Changes of addresses of both families: RTMGRP_IPV4_IFADDR and RTMGRP_IPV6_IFADDR.
const GROUPS: u32 = 0x10 | 0x100;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_PROTO: u16 = 11;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// More marked addresses than the table has places for are not told apart any more.
const MARKED_MAX: usize = UNITS_MAX * VIPS_MAX;
/// What the kernel puts into one answer of a listing at most.
const ANSWER_MAX: usize = 64 * 1024;
/// Notices of changes that are read in one round; what is left over counts as one more change.
const NOTICES_MAX: usize = 64;

/// An address that carries the mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Marked {
    interface: u32,
    prefix: u8,
    length: usize,
    address: [u8; 16],
}

impl Marked {
    fn new(interface: u32, prefix: u8, address: &[u8]) -> Option<Self> {
        let mut bytes = [0; 16];
        bytes.get_mut(..address.len())?.copy_from_slice(address);
        Some(Self { interface, prefix, length: address.len(), address: bytes })
    }
}

/// Open sockets for removals, and what is known of marks.
#[derive(Debug)]
pub(crate) struct Addresses {
    socket: OwnedFd,
    sequence: u32,
    /// Hears of changes.
    notices: OwnedFd,
    /// Something changed since the last listing, or it failed.
    outdated: bool,
    /// Addresses with our mark, as far as `known`.
    marked: Vec<Marked>,
    known: bool,
    buffer: Box<[u8]>,
}

fn open(groups: u32) -> io::Result<OwnedFd> {
    let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
    Ok(socket)
}

impl Addresses {
    pub(crate) fn open() -> io::Result<Self> {
        let (socket, notices) = (open(0)?, open(GROUPS)?);
        let (marked, buffer) = (Vec::with_capacity(MARKED_MAX), vec![0; ANSWER_MAX].into_boxed_slice());
        Ok(Self { socket, sequence: 0, notices, outdated: true, marked, known: false, buffer })
    }

    /// Whether the address is there by our doing, or may be.
    pub(crate) fn may_be_ours(&mut self, interface: u32, prefix: u8, address: &[u8]) -> bool {
        let wanted = Marked::new(interface, prefix, address);
        !self.known || wanted.is_none_or(|wanted| self.marked.contains(&wanted))
    }

    /// Learns of what changed. Once per round: the notice of an IPv4 address is there before the address is seen by anybody else, that of an IPv6
    /// address a moment after.
    pub(crate) fn refresh(&mut self) {
        for _ in 0..NOTICES_MAX {
            match recv(self.notices.as_raw_fd(), &mut self.buffer, MsgFlags::MSG_DONTWAIT) {
                Err(Errno::EAGAIN) => break,
                // Notices that found no room are changes too.
                Ok(_) | Err(_) => self.outdated = true,
            }
        }
        if self.outdated {
            self.known = self.list().is_some();
            self.outdated = !self.known;
        }
    }

    /// Reads which addresses carry the mark; none where that cannot be told for sure.
    fn list(&mut self) -> Option<()> {
        self.sequence = self.sequence.wrapping_add(1);
        self.marked.clear();
        let mut message = [0_u8; HEADER + IFADDR];
        let length = u32::try_from(message.len()).ok()?;
        message.get_mut(..4)?.copy_from_slice(&length.to_ne_bytes());
        message.get_mut(4..6)?.copy_from_slice(&RTM_GETADDR.to_ne_bytes());
        message.get_mut(6..8)?.copy_from_slice(&(NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
        message.get_mut(8..12)?.copy_from_slice(&self.sequence.to_ne_bytes());
        send(self.socket.as_raw_fd(), &message, MsgFlags::empty()).ok()?;
        // As long as there is more, the kernel has the next part ready when one was read.
        loop {
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC;
            let length = recv(self.socket.as_raw_fd(), &mut self.buffer, flags).ok()?;
            let mut rest = self.buffer.get(..length)?;
            while !rest.is_empty() {
                let (kind, flags, number, body) = head(rest)?;
                rest = rest.get(aligned(HEADER + body.len()).min(rest.len())..)?;
                if number != self.sequence {
                    continue;
                }
                match kind {
                    RTM_NEWADDR if flags & NLM_F_DUMP_INTR == 0 => {
                        if let Some(marked) = marked(body) {
                            if self.marked.len() >= MARKED_MAX {
                                return None;
                            }
                            self.marked.push(marked);
                        }
                    }
                    NLMSG_DONE if flags & NLM_F_DUMP_INTR == 0 => return Some(()),
                    _ => return None,
                }
            }
        }
    }

    /// Removes the address; true if it was there.
    pub(crate) fn remove(&mut self, interface: u32, prefix: u8, address: &[u8]) -> bool {
        self.sequence = self.sequence.wrapping_add(1);
        let mut message = [0_u8; HEADER + IFADDR + 2 * (4 + 16)];
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
    let length = HEADER + IFADDR + 2 * attribute;
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
    for kind in [IFA_LOCAL, IFA_ADDRESS] {
        put(&u16::try_from(attribute).unwrap_or(0).to_ne_bytes());
        put(&kind.to_ne_bytes());
        put(address);
    }
    length
}

const fn aligned(length: usize) -> usize {
    (length + 3) & !3
}

/// Kind, flags, number and body of the first message.
fn head(bytes: &[u8]) -> Option<(u16, u16, u32, &[u8])> {
    let length = usize::try_from(u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?)).ok()?;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let flags = u16::from_ne_bytes(bytes.get(6..8)?.try_into().ok()?);
    let number = u32::from_ne_bytes(bytes.get(8..12)?.try_into().ok()?);
    Some((kind, flags, number, bytes.get(HEADER..length)?))
}

/// The address in the body of a message, if it carries the mark.
fn marked(body: &[u8]) -> Option<Marked> {
    let prefix = *body.get(1)?;
    let interface = u32::from_ne_bytes(body.get(4..8)?.try_into().ok()?);
    let mut rest = body.get(IFADDR..)?;
    let (mut local, mut peer, mut ours) = (None, None, false);
    while let Some(start) = rest.get(..4) {
        let length = usize::from(u16::from_ne_bytes(start.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(start.get(2..)?.try_into().ok()?);
        let value = rest.get(4..length)?;
        match kind {
            IFA_LOCAL => local = Some(value),
            IFA_ADDRESS => peer = Some(value),
            IFA_PROTO => ours = value == [ADDRESS_MARK],
            _ => {}
        }
        rest = rest.get(aligned(length).min(rest.len())..)?;
    }
    // IPv4 has the address in LOCAL, IPv6 mostly in ADDRESS alone.
    Marked::new(interface, prefix, local.or(peer).filter(|_| ours)?)
}

/// The errno in an answer to request `sequence`: 0 for done.
fn result_of(answer: &[u8], sequence: u32) -> Option<i32> {
    let kind = u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?);
    let number = u32::from_ne_bytes(answer.get(8..12)?.try_into().ok()?);
    let result = i32::from_ne_bytes(answer.get(HEADER..HEADER + 4)?.try_into().ok()?);
    (kind == NLMSG_ERROR && number == sequence).then_some(result)
}
