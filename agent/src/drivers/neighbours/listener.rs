//! A socket that hears of claims to certain addresses, and nothing else: the kernel filters, so that a busy link costs no wake-ups.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd as _;

use nix::sys::socket::{LinkAddr, recvfrom};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::{Claim, arp, ndp};

/// Most addresses that the kernel tells apart; with more it passes on every message of the kind, and only we tell them apart.
const FILTERED_MAX: usize = 64;
/// What is read of a packet: more than any of these messages needs.
const PACKET_MAX: usize = 512;
/// Takes the whole packet, and drops it.
const ACCEPT: u32 = 0x4_0000;
const DROP: u32 = 0;

/// Instructions of the kernel's classic packet filter: load a word or a byte of the packet, jump if it is equal, return
/// (`BPF_LD|BPF_W|BPF_ABS`, `BPF_LD|BPF_B|BPF_ABS`, `BPF_JMP|BPF_JEQ|BPF_K`, `BPF_RET|BPF_K`).
const LOAD_WORD: u16 = 0x20;
const LOAD_BYTE: u16 = 0x30;
const EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;

/// Hears claims to addresses of one family, on all interfaces of the network namespace that it was made in.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: AsyncFd<Socket>,
    family: Family,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

impl Listener {
    /// Hears claims to these addresses; none if there are none of the family. With `wanted`, also of who wants to have one of them.
    /// To be called within a tokio runtime.
    pub(crate) fn ipv4(addresses: &BTreeSet<Ipv4Addr>, wanted: bool) -> io::Result<Option<Self>> {
        let low: Vec<u32> = addresses.iter().map(|ip| ip.to_bits()).collect();
        Self::open(Family::V4, &low, wanted)
    }

    /// The same for IPv6.
    pub(crate) fn ipv6(addresses: &BTreeSet<Ipv6Addr>, wanted: bool) -> io::Result<Option<Self>> {
        let low: BTreeSet<u32> = addresses.iter().map(|ip| low_word(*ip)).collect();
        Self::open(Family::V6, &low.into_iter().collect::<Vec<_>>(), wanted)
    }

    /// For one address, also of who wants to have it.
    pub(crate) fn for_one(address: IpAddr) -> io::Result<Option<Self>> {
        match address {
            IpAddr::V4(ip) => Self::ipv4(&BTreeSet::from([ip]), true),
            IpAddr::V6(ip) => Self::ipv6(&BTreeSet::from([ip]), true),
        }
    }

    fn open(family: Family, words: &[u32], wanted: bool) -> io::Result<Option<Self>> {
        if words.is_empty() {
            return Ok(None);
        }
        let protocol = match family {
            Family::V4 => libc::ETH_P_ARP,
            Family::V6 => libc::ETH_P_IPV6,
        };
        let protocol = u16::try_from(protocol).unwrap_or_default().to_be();
        let socket = Socket::new(Domain::PACKET, Type::RAW.nonblocking().cloexec(), Some(Protocol::from(i32::from(protocol))))?;
        socket.attach_filter(&filter(family, words, wanted))?;
        Ok(Some(Self { socket: readable(socket)?, family }))
    }

    /// The next claim, and the index of the interface that it came by. May be dropped at any time.
    pub(crate) async fn next(&self) -> io::Result<(Claim, u32)> {
        let mut packet = [0; PACKET_MAX];
        loop {
            let (length, from) =
                self.socket.async_io(Interest::READABLE, |socket| Ok(recvfrom::<LinkAddr>(socket.as_raw_fd(), &mut packet)?)).await?;
            let frame = packet.get(..length).unwrap_or_default();
            let claim = match self.family {
                Family::V4 => arp::read(frame),
                Family::V6 => ndp::read(frame),
            };
            if let (Some(claim), Some(link)) = (claim, from) {
                return Ok((claim, u32::try_from(link.ifindex()).unwrap_or_default()));
            }
        }
    }
}

/// Registers the socket with the runtime.
#[expect(unsafe_code, reason = "tokio cannot know that a type keeps its descriptor open; this one does")]
fn readable(socket: Socket) -> io::Result<AsyncFd<Socket>> {
    // SAFETY: a `Socket` owns its descriptor, closes it when it is dropped and not before, and always names the same one. Nobody
    // else has it, and `AsyncFd` owns the socket from here on.
    Ok(unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?)
}

fn low_word(ip: Ipv6Addr) -> u32 {
    let [.., a, b, c, d] = ip.octets();
    u32::from_be_bytes([a, b, c, d])
}

/// A program for the kernel's classic packet filter.
fn filter(family: Family, words: &[u32], wanted: bool) -> Vec<SockFilter> {
    let at = |offset: usize| u32::try_from(offset).unwrap_or(u32::MAX);
    // Takes the packet if the word at the offset is one of these; otherwise goes on behind.
    let one_of = |offset: usize| {
        let mut program = vec![SockFilter::new(LOAD_WORD, 0, 0, at(offset))];
        for word in words {
            program.push(SockFilter::new(EQUAL, 0, 1, *word));
            program.push(SockFilter::new(RETURN, 0, 0, ACCEPT));
        }
        program
    };
    // Drops the packet unless the byte at the offset is this.
    let only = |offset: usize, byte: u8| {
        [SockFilter::new(LOAD_BYTE, 0, 0, at(offset)), SockFilter::new(EQUAL, 1, 0, u32::from(byte)), SockFilter::new(RETURN, 0, 0, DROP)]
    };
    let mut program = Vec::new();
    if family == Family::V6 {
        program.extend(only(ndp::NEXT_HEADER, ndp::ICMPV6));
        if wanted {
            program.push(SockFilter::new(LOAD_BYTE, 0, 0, at(ndp::MESSAGE)));
            // Over the three instructions that follow.
            program.push(SockFilter::new(EQUAL, 3, 0, u32::from(ndp::ADVERTISEMENT)));
        }
        program.extend(only(ndp::MESSAGE, if wanted { ndp::SOLICITATION } else { ndp::ADVERTISEMENT }));
    }
    if words.len() > FILTERED_MAX {
        program.push(SockFilter::new(RETURN, 0, 0, ACCEPT));
        return program;
    }
    match family {
        Family::V4 => {
            program.extend(one_of(arp::SENDER_IP));
            if wanted {
                program.extend(one_of(arp::TARGET_IP));
            }
        }
        // The last four bytes tell enough addresses apart.
        Family::V6 => program.extend(one_of(ndp::TARGET + 12)),
    }
    program.push(SockFilter::new(RETURN, 0, 0, DROP));
    program
}
