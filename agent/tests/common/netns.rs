//! Network namespaces made by the test that needs them; they vanish with their last descriptor. The host's network is never touched.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::process::Command;
use std::thread;
use std::time::Duration;

use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket};

/// A network namespace.
pub(crate) struct Netns {
    fd: OwnedFd,
}

impl Netns {
    /// A fresh one, with nothing but a loopback interface that is down.
    pub(crate) fn new() -> Self {
        assert!(nix::unistd::geteuid().is_root(), "this test makes network namespaces and needs root: run it as root");
        let fd = thread::scope(|scope| {
            let made = scope.spawn(|| {
                unshare(CloneFlags::CLONE_NEWNET).expect("a new network namespace");
                OwnedFd::from(File::open("/proc/thread-self/ns/net").expect("the namespace just made"))
            });
            made.join().expect("the thread that makes a namespace")
        });
        Self { fd }
    }

    /// Two of them, joined by a cable: interface `name` in the first, `b0` in the second, both up.
    pub(crate) fn pair(name: &str) -> (Self, Self) {
        let (a, b) = (Self::new(), Self::new());
        a.ip(&["link", "add", name, "type", "veth", "peer", "name", "b0"]);
        let target = format!("/proc/{}/fd/{}", std::process::id(), b.fd.as_raw_fd());
        a.ip(&["link", "set", "b0", "netns", &target]);
        a.ip(&["link", "set", name, "up"]);
        b.ip(&["link", "set", "b0", "up"]);
        (a, b)
    }

    /// Runs `body` on a thread that lives in this namespace.
    pub(crate) fn run<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                setns(self.fd.as_fd(), CloneFlags::CLONE_NEWNET).expect("enter the namespace");
                body()
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Runs `body` in this namespace on a runtime whose only thread lives there.
    pub(crate) fn block_on<T: Send>(&self, body: impl AsyncFnOnce() -> T + Send) -> T {
        self.run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(body())
        })
    }

    /// Runs `ip` here and returns what it prints.
    pub(crate) fn ip(&self, arguments: &[&str]) -> String {
        let output = self.run(|| Command::new("ip").args(arguments).output().expect("the program ip (package iproute2)"));
        let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        assert!(output.status.success(), "ip {arguments:?}: {text}");
        text
    }

    /// What `ip -json` says.
    pub(crate) fn ip_json(&self, arguments: &[&str]) -> serde_json::Value {
        let text = self.ip(&[&["-json", "-details"], arguments].concat());
        serde_json::from_str(if text.trim().is_empty() { "[]" } else { &text }).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// The addresses of an interface, as `ip` sees them, by address.
    pub(crate) fn addresses(&self, interface: &str) -> BTreeMap<String, serde_json::Value> {
        let all = self.ip_json(&["address", "show", "dev", interface]);
        let infos = all[0]["addr_info"].as_array().cloned().unwrap_or_default();
        infos.into_iter().filter(|info| !info.is_null()).map(|info| (info["local"].as_str().unwrap_or("?").to_owned(), info)).collect()
    }

    /// A port on all addresses of this namespace, open as long as the listener lives.
    pub(crate) fn serve(&self) -> TcpListener {
        // Of both families.
        self.run(|| TcpListener::bind("[::]:0").expect("a port"))
    }

    /// Whether something here reaches a port by TCP.
    pub(crate) fn reaches(&self, address: &str, port: u16) -> bool {
        let target = SocketAddr::new(address.parse().expect("an address"), port);
        self.run(|| TcpStream::connect_timeout(&target, Duration::from_secs(1)).is_ok())
    }

    /// IFA_PROTO of every address that has one, read by hand: the `ip` of Debian 12 does not show it.
    pub(crate) fn marks(&self) -> BTreeMap<IpAddr, u8> {
        const RTM_GETADDR: u16 = 22;
        const NLM_F_REQUEST_DUMP: u16 = 0x301;
        const NLMSG_DONE: u16 = 3;
        let (family, kind, flags) = (AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC);
        let netlink = self.run(|| socket(family, kind, flags, SockProtocol::NetlinkRoute).expect("a netlink socket"));
        let mut request = Vec::new();
        request.extend(24_u32.to_ne_bytes());
        request.extend(RTM_GETADDR.to_ne_bytes());
        request.extend(NLM_F_REQUEST_DUMP.to_ne_bytes());
        request.extend([0; 16]);
        sendto(netlink.as_raw_fd(), &request, &NetlinkAddr::new(0, 0), MsgFlags::empty()).expect("ask for the addresses");
        let mut marks = BTreeMap::new();
        let mut buffer = vec![0; 65_536];
        loop {
            let length = recv(netlink.as_raw_fd(), &mut buffer, MsgFlags::empty()).expect("the addresses");
            let mut rest = &buffer[..length];
            while rest.len() >= 16 {
                let (message, next) = rest.split_at(padded(u32_at(rest, 0)).min(rest.len()));
                if u16_at(message, 4) == NLMSG_DONE {
                    return marks;
                }
                marks.extend(mark(&message[24..]));
                rest = next;
            }
        }
    }

    /// Sets a switch of the kernel's for this namespace, such as `net/ipv6/conf/eth0/disable_ipv6`.
    pub(crate) fn sysctl(&self, name: &str, value: &str) {
        self.run(|| std::fs::write(format!("/proc/sys/{name}"), value).expect("a switch that can be set"));
    }

    /// Hardware address of an interface.
    pub(crate) fn mac(&self, interface: &str) -> String {
        self.ip_json(&["link", "show", "dev", interface])[0]["address"].as_str().expect("a hardware address").to_owned()
    }
}

/// Address and protocol in the attributes of an address message: IFA_ADDRESS is 1, IFA_LOCAL 2, IFA_PROTO 11.
fn mark(mut attributes: &[u8]) -> Option<(IpAddr, u8)> {
    let (mut ip, mut protocol) = (None, None);
    while attributes.len() >= 4 {
        let length = usize::from(u16_at(attributes, 0));
        let value = &attributes[4..length];
        match u16_at(attributes, 2) {
            1 | 2 => ip = <[u8; 4]>::try_from(value).map(IpAddr::from).or_else(|_| <[u8; 16]>::try_from(value).map(IpAddr::from)).ok(),
            11 => protocol = value.first().copied(),
            _ => {}
        }
        attributes = attributes.get(padded(u32::from(u16_at(attributes, 0)))..).unwrap_or_default();
    }
    ip.zip(protocol)
}

fn padded(length: u32) -> usize {
    (length as usize).next_multiple_of(4)
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_ne_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
