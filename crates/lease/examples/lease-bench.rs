//! Figures of the lease, one JSON line each: `cargo run --release -p cluster-lease --example lease-bench`.

use cluster_lease::check::model::{explore, small_runs};
use cluster_lease::check::sim::{Plan, simulate};
use cluster_lease::message::{Ask, Message};
use cluster_lease::set::{Member, VoterSet};
use cluster_lease::slots::Claims;
use cluster_lease::time::{Span, Time};
use cluster_lease::types::{BootId, ClusterId, Epoch, Instance, Node, NodeName, SendNo, SetNo, Slot, SlotName, VoterId};
use cluster_lease::voter::{Journal, Voter, VoterAction, VoterConfig, encode_record};
use std::error::Error;
use std::hint::black_box;
use std::time::Instant;

const CLUSTER: ClusterId = ClusterId(1);
const T: Span = Span::from_millis(350);

#[expect(clippy::print_stdout, reason = "the figures are the output")]
fn figure(name: &str, value: f64, unit: &str, stat: &str, parameters: &str) {
    println!("{{\"name\":\"{name}\",\"value\":{value:.1},\"unit\":\"{unit}\",\"stat\":\"{stat}\",\"parameters\":{{{parameters}}}}}");
}

fn voter() -> Result<Voter, Box<dyn Error>> {
    let member = |i: u128| Ok::<_, Box<dyn Error>>(Member { id: VoterId(i), node: NodeName::new(&format!("n{i}"))? });
    let set = VoterSet::new(SetNo(1), vec![member(1)?, member(2)?, member(3)?])?;
    let node = Node { boot: BootId(1), name: NodeName::new("n1")? };
    Ok(Voter::start(VoterConfig::new(CLUSTER, node), Time(0), Journal::new(VoterId(1), Some(set)), None).0)
}

fn ask(node: &Node, count: u64, claims: Claims) -> Ask {
    let send_no = SendNo { instance: Instance(9), count };
    Ask { cluster: CLUSTER, set: SetNo(1), voter: VoterId(1), node: node.clone(), instance: Instance(9), t: T, send_no, claims }
}

/// Acquire, renew twice, release: single slots, one message each.
fn voter_ops() -> Result<(), Box<dyn Error>> {
    let mut voter = voter()?;
    let node = Node { boot: BootId(5), name: NodeName::new("candidate")? };
    let slots: Vec<Slot> = (0..1_000).map(|i| SlotName::new(&format!("app/service-{i}")).map(Slot::Named)).collect::<Result<_, _>>()?;
    let (mut actions, mut ops) = (Vec::new(), 0u64);
    let start = Instant::now();
    for round in 1..=200u64 {
        for slot in &slots {
            let mut claims = Claims::default();
            claims.insert(slot, Epoch(round));
            let ask = ask(&node, ops, claims);
            let renew = Message::Renew(ask.clone());
            for message in [Message::Acquire(ask.clone()), renew.clone(), renew, Message::Release(ask)] {
                voter.handle(Time(round * 1_000_000), &message, &mut actions);
                actions.clear();
                ops += 1;
            }
        }
    }
    let rate = ops as f64 / start.elapsed().as_secs_f64();
    figure("lease_voter_ops_per_s", rate, "1/s", "single", "\"slots\":1000,\"slots_per_message\":1,\"threads\":1");
    Ok(())
}

/// One renewal of 4,096 partitions, with the records it has to write encoded too.
fn renew_4096() -> Result<(), Box<dyn Error>> {
    let mut voter = voter()?;
    let node = Node { boot: BootId(5), name: NodeName::new("candidate")? };
    let ring = SlotName::new("cache")?;
    let mut claims = Claims::default();
    for partition in 0..4096 {
        claims.insert(&Slot::Ring { ring: ring.clone(), partition }, Epoch(7));
    }
    let (mut actions, mut handled, mut stored) = (Vec::new(), Vec::new(), Vec::new());
    voter.handle(Time(1), &Message::Acquire(ask(&node, 0, claims.clone())), &mut actions);
    for round in 1..=500u64 {
        actions.clear();
        let message = Message::Renew(ask(&node, round, claims.clone()));
        let start = Instant::now();
        voter.handle(Time(round * 58_000_000), &message, &mut actions);
        handled.push(start.elapsed().as_secs_f64() * 1e6);
        for action in &actions {
            if let VoterAction::Store(slots) = action {
                for slot in slots.iter() {
                    black_box(voter.record(&slot).map(|record| encode_record(&slot, record)));
                }
            }
        }
        stored.push(start.elapsed().as_secs_f64() * 1e6);
    }
    for (times, records) in [(&mut handled, false), (&mut stored, true)] {
        times.sort_by(f64::total_cmp);
        for (stat, at) in [("median", 250), ("p99", 495), ("max", 499)] {
            figure("lease_renew_4096_us", times[at], "us", stat, &format!("\"slots\":4096,\"epochs\":1,\"records_encoded\":{records}"));
        }
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    voter_ops()?;
    renew_4096()?;
    let (mut states, mut exhausted, mut runs) = (0, 0, 0);
    for config in small_runs() {
        let report = explore(config, 2, None);
        states += report.states;
        exhausted += u8::from(report.exhausted && report.broken.is_none());
        runs += 1;
    }
    let parameters = format!("\"runs\":{runs},\"exhausted_without_finding\":{exhausted}");
    figure("lease_model_states", states as f64, "1", "single", &parameters);
    let start = Instant::now();
    let outcome = simulate(&Plan::drawn(1, 1_000, 2));
    let rate = outcome.stats.events as f64 / start.elapsed().as_secs_f64();
    let parameters = format!("\"partitions\":1000,\"acquired\":{},\"broken\":{}", outcome.stats.acquired, outcome.broken.is_some());
    figure("lease_sim_events_per_s", rate, "1/s", "single", &parameters);
    Ok(())
}
