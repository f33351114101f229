//! Lease messages on the wire: what goes in comes out, one encoding each, and no bytes whatever make a reader fall over.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use cluster_bus::lease_wire::{MESSAGE_MAX, VERSION, WireError, decode, encode};
use cluster_lease::message::{
    Answer, Ask, CLAIMS_WEIGHT_MAX, Free, Handover, Message, SetAnswer, SetAsk, SetStep, SetWord, Verdict, Watch, Why, weight,
};
use cluster_lease::set::{Member, VoterSet};
use cluster_lease::slots::{Bits, Claims, SlotSet};
use cluster_lease::time::Span;
use cluster_lease::types::{BootId, ClusterId, Epoch, Instance, Node, NodeName, PARTITIONS_MAX, SendNo, SetNo, Slot, SlotName, VoterId};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

fn node_name() -> impl Strategy<Value = NodeName> {
    "[a-z0-9-]{1,63}".prop_map(|name| NodeName::new(&name).unwrap())
}

fn slot_name() -> impl Strategy<Value = SlotName> {
    prop_oneof!["[a-c]", "(app|vip|lock)/[a-z0-9./-]{1,130}"].prop_map(|name| SlotName::new(&name).unwrap())
}

fn bits() -> impl Strategy<Value = Bits> {
    let few = proptest::collection::btree_set(0..PARTITIONS_MAX, 1..20);
    let many = (0..PARTITIONS_MAX, 1u16..600).prop_map(|(from, len)| (from..(from + len).min(PARTITIONS_MAX)).collect());
    prop_oneof![few, many].prop_map(|partitions: BTreeSet<u16>| partitions.into_iter().collect())
}

fn epoch() -> impl Strategy<Value = Epoch> {
    prop_oneof![0u64..300, any::<u64>()].prop_map(Epoch)
}

fn slots() -> impl Strategy<Value = SlotSet> {
    let rings = proptest::collection::btree_map(slot_name(), bits(), 0..4);
    (proptest::collection::btree_set(slot_name(), 0..6), rings).prop_map(|(named, rings)| SlotSet { named, rings })
}

fn claims() -> impl Strategy<Value = Claims> {
    let by_epoch = proptest::collection::btree_map(epoch(), bits(), 1..4);
    let rings = proptest::collection::btree_map(slot_name(), by_epoch, 0..4);
    (proptest::collection::btree_map(slot_name(), epoch(), 0..6), rings).prop_map(|(named, rings)| Claims { named, rings })
}

fn node() -> impl Strategy<Value = Node> {
    (any::<u128>(), node_name()).prop_map(|(boot, name)| Node { boot: BootId(boot), name })
}

fn set() -> impl Strategy<Value = VoterSet> {
    (any::<u64>(), proptest::collection::btree_map(any::<u128>(), node_name(), 1..=6)).prop_filter_map(
        "a node twice",
        |(number, members)| {
            let members = members.into_iter().map(|(id, node)| Member { id: VoterId(id), node }).collect();
            VoterSet::new(SetNo(number), members).ok()
        },
    )
}

fn why() -> impl Strategy<Value = Why> {
    prop_oneof![
        (node(), epoch()).prop_map(|(by, epoch)| Why::Held { by, epoch }),
        epoch().prop_map(Why::Epoch),
        set().prop_map(Why::Set),
        proptest::sample::select(vec![Why::Waiting, Why::Released, Why::Length, Why::Cluster, Why::Voter, Why::EpochRange, Why::Full]),
    ]
}

fn send_no() -> impl Strategy<Value = SendNo> {
    (any::<u64>(), any::<u64>()).prop_map(|(instance, count)| SendNo { instance: Instance(instance), count })
}

fn ask() -> impl Strategy<Value = Ask> {
    let ids = (any::<u128>(), any::<u64>(), any::<u128>());
    (ids, node(), any::<u64>(), any::<u64>(), send_no(), claims()).prop_map(|(ids, node, instance, t, send_no, claims)| Ask {
        cluster: ClusterId(ids.0),
        set: SetNo(ids.1),
        voter: VoterId(ids.2),
        node,
        instance: Instance(instance),
        t: Span(t),
        send_no,
        claims,
    })
}

fn answer() -> impl Strategy<Value = Message> {
    let refused = proptest::collection::btree_map(why(), slots(), 0..4);
    let verdict = prop_oneof![
        (slots(), refused).prop_map(|(accepted, refused)| Verdict::Slots { accepted, refused: refused.into_iter().collect() }),
        why().prop_map(Verdict::Refused),
    ];
    (any::<u128>(), node_name(), any::<u128>(), any::<u64>(), send_no(), verdict).prop_map(
        |(cluster, from, voter, set, send_no, verdict)| {
            let (cluster, voter, set) = (ClusterId(cluster), VoterId(voter), SetNo(set));
            Message::Answer(Answer { cluster, from, voter, set, send_no, verdict })
        },
    )
}

fn word() -> impl Strategy<Value = SetWord> {
    (any::<u32>(), set()).prop_map(|(round, set)| SetWord { round, set })
}

fn set_message() -> impl Strategy<Value = Message> {
    let step = prop_oneof![
        Just(SetStep::Report),
        word().prop_map(SetStep::Prepare),
        set().prop_map(SetStep::Install),
        (any::<u64>(), epoch()).prop_map(|(number, floor)| SetStep::Floor(SetNo(number), floor)),
        any::<u64>().prop_map(|number| SetStep::Commit(SetNo(number))),
        set().prop_map(SetStep::Force),
    ];
    let ask = (any::<u128>(), any::<u128>(), node_name(), step).prop_map(|(cluster, voter, reply_to, step)| {
        Message::SetAsk(SetAsk { cluster: ClusterId(cluster), voter: VoterId(voter), reply_to, step })
    });
    let maybe = || proptest::option::of(set());
    let answer = (
        (any::<u128>(), any::<u128>()),
        node_name(),
        maybe(),
        maybe(),
        proptest::option::of(word()),
        any::<bool>(),
        (epoch(), epoch(), any::<bool>()),
    )
        .prop_map(|((cluster, voter), from, installed, former, prepared, committed, (high, base, waiting))| {
            let (cluster, voter) = (ClusterId(cluster), VoterId(voter));
            Message::SetAnswer(SetAnswer { cluster, from, voter, installed, former, committed, prepared, high, base, waiting })
        });
    prop_oneof![ask, answer]
}

fn message() -> impl Strategy<Value = Message> {
    let watch = (any::<u128>(), any::<u128>(), node_name(), any::<u16>(), slots()).prop_map(|(cluster, voter, node, part, slots)| {
        Message::Watch(Watch { cluster: ClusterId(cluster), voter: VoterId(voter), node, part, slots })
    });
    let ran_out = || proptest::option::of(node_name());
    let free = (any::<u128>(), node_name(), any::<u128>(), claims(), ran_out()).prop_map(|(cluster, from, voter, floors, ran_out)| {
        Message::Free(Free { cluster: ClusterId(cluster), from, voter: VoterId(voter), floors, ran_out })
    });
    let handover = (any::<u128>(), node_name(), claims())
        .prop_map(|(cluster, from, released)| Message::Handover(Handover { cluster: ClusterId(cluster), from, released }));
    prop_oneof![
        3 => ask().prop_map(Message::Acquire),
        3 => ask().prop_map(Message::Renew),
        1 => ask().prop_map(Message::Release),
        3 => answer(),
        1 => watch,
        1 => free,
        1 => handover,
        2 => set_message(),
    ]
}

proptest! {
    #[test]
    fn messages_come_back(message in message()) {
        let bytes = encode(&message).unwrap();
        prop_assert_eq!(decode(&bytes), Ok(message));
    }

    #[test]
    fn other_versions_are_named(message in message(), version in 2u8..) {
        let mut bytes = encode(&message).unwrap();
        bytes[0] = version;
        prop_assert_eq!(decode(&bytes), Err(WireError::Version(version)));
    }
}

proptest! {
    // 1,024 cases; the soak asks for many more (PROPTEST_CASES).
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases.saturating_mul(4), ..ProptestConfig::default() })]

    /// Fuzz: damaged messages are refused or read as another message that has just these bytes.
    #[test]
    fn damage_is_refused_or_harmless(
        message in message(),
        hits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<Option<prop::sample::Index>>(),
    ) {
        let mut bytes = encode(&message).unwrap();
        for (at, byte) in hits {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(read) = decode(&bytes) {
            prop_assert_eq!(encode(&read).unwrap(), bytes);
        }
    }

    /// Fuzz: any bytes behind each kind.
    #[test]
    fn any_bytes_are_read_without_panic(kind in 0u8..12, bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut framed = vec![VERSION, kind];
        framed.extend(bytes);
        if let Ok(read) = decode(&framed) {
            prop_assert_eq!(encode(&read).unwrap(), framed);
        }
    }
}

fn sample(claims: Claims) -> Ask {
    let node = Node { boot: BootId(u128::MAX), name: NodeName::new(&"n".repeat(63)).unwrap() };
    let send_no = SendNo { instance: Instance(u64::MAX), count: u64::MAX };
    let (set, t) = (SetNo(u64::MAX), Span(u64::MAX));
    Ask { cluster: ClusterId(1), set, voter: VoterId(2), node, instance: Instance(u64::MAX), t, send_no, claims }
}

#[test]
fn a_whole_ring_is_small() {
    let ring = SlotName::new("cache").unwrap();
    let mut one_epoch = Claims::default();
    let mut all_epochs = Claims::default();
    for partition in 0..PARTITIONS_MAX {
        let slot = Slot::Ring { ring: ring.clone(), partition };
        one_epoch.insert(&slot, Epoch(1 << 40));
        all_epochs.insert(&slot, Epoch((1 << 52) + u64::from(partition)));
    }
    let small = encode(&Message::Renew(sample(one_epoch))).unwrap().len();
    assert!(small < 800, "{small}");
    let large = encode(&Message::Renew(sample(all_epochs))).unwrap().len();
    assert!(large < CLAIMS_WEIGHT_MAX, "{large}");
}

/// What a holder puts into one message by weight, and a voter's longest answer to it, stay below the limit.
#[test]
fn the_heaviest_batches_fit() {
    let (mut claims, mut accepted, mut size) = (Claims::default(), SlotSet::default(), 0);
    let mut refused: BTreeMap<Why, SlotSet> = BTreeMap::new();
    for i in 0.. {
        let name = SlotName::new(&format!("{i:04}")).unwrap();
        size += weight(4);
        if size > CLAIMS_WEIGHT_MAX {
            break;
        }
        let slot = Slot::Named(name);
        claims.insert(&slot, Epoch(u64::MAX));
        accepted.insert(&slot);
    }
    let mut size = 0;
    for i in 0.. {
        let by = Node { boot: BootId(i), name: NodeName::new(&format!("{i:063}")).unwrap() };
        size += weight(136) + 128;
        if size > CLAIMS_WEIGHT_MAX {
            break;
        }
        let slot = Slot::Ring { ring: SlotName::new(&format!("{i:0136}")).unwrap(), partition: 4095 };
        refused.entry(Why::Held { by, epoch: Epoch(u64::MAX) }).or_default().insert(&slot);
    }
    let ask = sample(claims);
    let verdict = Verdict::Slots { accepted, refused: refused.into_iter().collect() };
    let (from, voter, send_no) = (ask.node.name.clone(), ask.voter, ask.send_no);
    let answer = Answer { cluster: ask.cluster, from, voter, set: ask.set, send_no, verdict };
    assert!(encode(&Message::Renew(ask)).unwrap().len() <= CLAIMS_WEIGHT_MAX + 512);
    assert!(encode(&Message::Answer(answer)).unwrap().len() <= MESSAGE_MAX);
}

#[test]
fn too_long_is_refused_both_ways() {
    let mut claims = Claims::default();
    for i in 0..3_000 {
        claims.insert(&Slot::Named(SlotName::new(&format!("{i:0100}")).unwrap()), Epoch(1));
    }
    assert!(matches!(encode(&Message::Renew(sample(claims))), Err(WireError::TooLong(_))));
    assert_eq!(decode(&vec![VERSION; MESSAGE_MAX + 1]), Err(WireError::TooLong(MESSAGE_MAX + 1)));
    assert_eq!(decode(&[]), Err(WireError::Bytes(cluster_lease::bytes::BytesError::Short(0))));
    assert_eq!(decode(&[VERSION, 77]), Err(WireError::Kind(77)));
}
