//! The guard against the kernel: real cgroups, real addresses in a network namespace of the test's own. Needs root.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use cluster_fence::{ADDRESS_MARK, Guard, GuardedVip, TABLE, Table, clock};
use cluster_lease::time::{Span, Time};
use cluster_lease::types::Epoch;
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

const BOOT: u128 = 7;

fn table() -> (tempfile::TempDir, Table) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let table = Table::open(&dir.path().join(TABLE), BOOT).expect("a table");
    (dir, table)
}

/// A cgroup of the test's own, with a process in it; removed at the end.
struct Group {
    path: PathBuf,
    child: Child,
}

impl Group {
    fn new(name: &str) -> Self {
        let root = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"]
            .into_iter()
            .find(|root| fs::exists(format!("{root}/cgroup.procs")).unwrap_or(false))
            .expect("a unified cgroup hierarchy");
        let path = PathBuf::from(format!("{root}/clusterctl-test-{name}-{}", std::process::id()));
        fs::create_dir(&path).expect("a new cgroup: the test needs root");
        let child = Command::new("sleep").arg("600").spawn().expect("a process");
        fs::write(path.join("cgroup.procs"), child.id().to_string()).expect("the process in the cgroup");
        Self { path, child }
    }

    fn populated(&self) -> bool {
        fs::read_to_string(self.path.join("cgroup.events")).expect("events").contains("populated 1")
    }

    fn text(&self) -> String {
        self.path.to_string_lossy().into_owned()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
        let _removed = fs::remove_dir(&self.path);
    }
}

fn soon(millis: u64) -> Time {
    clock::now() + Span::from_millis(millis)
}

fn ip(arguments: &[&str]) -> String {
    let ran = Command::new("ip").args(arguments).output().expect("ip runs");
    assert!(ran.status.success(), "ip {arguments:?}: {}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8_lossy(&ran.stdout).into_owned()
}

/// Puts a host address there with our mark, as the agent does; Debian's `ip` cannot.
fn add_ours(interface: u32, address: &[u8]) {
    const RTM_NEWADDR: u16 = 20;
    // A request that is acknowledged, for an address that is not there yet.
    const FLAGS: u16 = 1 | 4 | 0x200 | 0x400;
    let attribute = |kind: u16, value: &[u8]| {
        let length = u16::try_from(4 + value.len()).expect("short").to_ne_bytes();
        let mut bytes = [&length, &kind.to_ne_bytes()[..], value].concat();
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    };
    let family = if address.len() == 4 { 2 } else { 10 };
    let prefix = u8::try_from(address.len() * 8).expect("short");
    // IFA_F_NODAD.
    let mut body = vec![family, prefix, 2, 0];
    body.extend(interface.to_ne_bytes());
    for (kind, value) in [(2, address), (1, address), (11, &[ADDRESS_MARK][..])] {
        body.extend(attribute(kind, value));
    }
    let mut message = u32::try_from(16 + body.len()).expect("short").to_ne_bytes().to_vec();
    message.extend(RTM_NEWADDR.to_ne_bytes());
    message.extend(FLAGS.to_ne_bytes());
    message.extend([0; 8]);
    message.extend(body);
    let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute).expect("a socket");
    send(socket.as_raw_fd(), &message, MsgFlags::empty()).expect("sent");
    let mut answer = [0; 256];
    let length = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty()).expect("an answer");
    assert_eq!((length >= 20, &answer[16..20]), (true, &[0; 4][..]), "the kernel takes the address");
}

/// F2, F3: at the deadline the processes are killed and the address is gone, and not before.
#[test]
fn f3_a_passed_deadline_ends_processes_and_address() {
    // This thread alone moves to a network of its own.
    unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace: the test needs root");
    ip(&["link", "add", "v0", "type", "veth", "peer", "name", "v1"]);
    ip(&["link", "set", "v0", "up"]);
    let interface = nix::net::if_::if_nametoindex("v0").expect("the interface");
    add_ours(interface, &[10, 77, 0, 100]);
    let mut group = Group::new("fence");
    let (_dir, table) = table();
    let unit = table.add_unit(true).expect("an entry");
    table.set_cgroup(unit, &group.text()).expect("a short path");
    let address = "10.77.0.100".parse().expect("an address");
    table.set_vips(unit, &[GuardedVip { address, prefix: 32, interface, word: None }]);
    let word = table.word_for("app/database", unit, true).expect("a word");
    let mut guard = Guard::new().expect("a guard");
    let started = Instant::now();
    table.word(word).arm(Epoch(1), soon(2_000), clock::now).expect("armed");
    let round = guard.round(&table);
    assert!(round.is_quiet(), "{round:?}");
    assert!(group.populated() && ip(&["addr", "show", "dev", "v0"]).contains("10.77.0.100"));
    while guard.round(&table).is_quiet() {
        std::thread::sleep(guard.pause(&table));
        assert!(started.elapsed() < Duration::from_secs(30), "never fenced");
    }
    assert!(started.elapsed() >= Duration::from_millis(1_900), "fenced too early");
    assert!(!ip(&["addr", "show", "dev", "v0"]).contains("10.77.0.100"));
    group.child.wait().expect("the process was killed");
    assert!(!group.populated());
    assert!(table.word(word).armed(clock::now()).is_none());
}

/// F3: what carries our mark goes, whenever it comes; what somebody put there by hand stays, though it is the same address.
#[test]
fn f3_only_addresses_with_our_mark_are_removed() {
    unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace: the test needs root");
    ip(&["link", "add", "v0", "type", "veth", "peer", "name", "v1"]);
    ip(&["link", "set", "v0", "up"]);
    let interface = nix::net::if_::if_nametoindex("v0").expect("the interface");
    let (_dir, table) = table();
    let unit = table.add_unit(false).expect("an entry");
    let vip = |address: &str, prefix| GuardedVip { address: address.parse().expect("an address"), prefix, interface, word: None };
    table.set_vips(unit, &[vip("10.77.0.100", 32), vip("fd77::100", 128)]);
    table.word_for("app/database", unit, true).expect("a word");
    let mut guard = Guard::new().expect("a guard");
    let shown = || ip(&["addr", "show", "dev", "v0"]);
    // Many others, so that one answer of the kernel does not hold them all.
    for number in 1..=250 {
        ip(&["addr", "add", &format!("10.78.0.{number}/24"), "dev", "v0"]);
    }
    let v6: std::net::Ipv6Addr = "fd77::100".parse().expect("an address");
    let all: [(&str, &str, &[u8]); 2] =
        [("10.77.0.100/32", "10.77.0.100", &[10, 77, 0, 100]), ("fd77::100/128", "fd77::100", &v6.octets())];
    for (address, family, bytes) in all {
        ip(&["addr", "add", address, "dev", "v0"]);
        assert!(guard.round(&table).is_quiet() && shown().contains(family), "by hand");
        ip(&["addr", "del", address, "dev", "v0"]);
        for _ in 0..2 {
            assert!(guard.round(&table).is_quiet());
            add_ours(interface, bytes);
            // The kernel tells of an IPv6 address a moment after it took it.
            let started = Instant::now();
            while guard.round(&table).removed == 0 {
                assert!(started.elapsed() < Duration::from_secs(30), "{address}: ours and not armed, and it stays");
            }
            assert!(!shown().contains(family));
        }
    }
    assert!(shown().contains("10.78.0.250"));
}

/// F5: populated => armed, also for what was started behind our back.
#[test]
fn f5_a_gated_unit_that_was_never_armed_is_killed() {
    let mut group = Group::new("gated");
    let (_dir, table) = table();
    let unit = table.add_unit(true).expect("an entry");
    table.set_cgroup(unit, &group.text()).expect("a short path");
    table.word_for("app/a", unit, true).expect("a word");
    let round = Guard::new().expect("a guard").round(&table);
    assert_eq!((round.fenced, round.killed), (0, 1), "{round:?}");
    group.child.wait().expect("the process was killed");
}

/// A ring's unit may run without any partition; it is killed when one of its words is fenced (R4).
#[test]
fn r4_an_ungated_unit_is_killed_only_when_a_word_of_its_is_fenced() {
    let mut group = Group::new("ring");
    let (_dir, table) = table();
    let unit = table.add_unit(false).expect("an entry");
    table.set_cgroup(unit, &group.text()).expect("a short path");
    let words: Vec<_> = (0..3).map(|p| table.word_for(&format!("ring/cache/{p}"), unit, false).expect("a word")).collect();
    let mut guard = Guard::new().expect("a guard");
    assert!(guard.round(&table).is_quiet());
    for word in &words {
        table.word(*word).arm(Epoch(1), soon(60_000), clock::now).expect("armed");
    }
    table.word(words[1]).arm(Epoch(2), soon(30), clock::now).expect_err("armed already");
    assert!(table.word(words[1]).fence());
    assert!(guard.round(&table).is_quiet(), "a word that the agent fenced itself is a release, not a loss");
    table.word(words[1]).arm(Epoch(2), soon(30), clock::now).expect("armed again");
    std::thread::sleep(Duration::from_millis(40));
    assert_eq!(guard.round(&table).killed, 1);
    group.child.wait().expect("the process was killed");
    assert_eq!(table.armed(clock::now()).len(), 2, "the other words stay");
}

/// F4: a guard that starts finds deadlines in the future and keeps them; a table of another boot is fenced everywhere.
#[test]
fn f4_a_table_is_kept_over_a_restart_and_emptied_over_a_boot() {
    let (dir, table) = table();
    let unit = table.add_unit(true).expect("an entry");
    let word = table.word_for("app/a", unit, true).expect("a word");
    table.word(word).arm(Epoch(5), soon(60_000), clock::now).expect("armed");
    let again = Table::open(&dir.path().join(TABLE), BOOT).expect("the same table");
    assert!(Guard::new().expect("a guard").round(&again).is_quiet());
    assert_eq!(
        again.armed(clock::now()).into_iter().map(|(slot, epoch, _)| (slot, epoch)).collect::<Vec<_>>(),
        [("app/a".to_owned(), Epoch(5))]
    );
    let other = Table::open(&dir.path().join(TABLE), BOOT + 1).expect("the table of another boot");
    assert_eq!(other.armed(clock::now()), []);
    assert!(table.word(word).armed(clock::now()).is_none(), "the same memory");
}
