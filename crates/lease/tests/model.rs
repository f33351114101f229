//! The model: small runs are exhausted and nothing breaks; every rule left out is noticed, in a run of its own.
//!
//! Larger runs: `cargo run --release -p cluster-lease --example lease-model -- large`.

#![expect(clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a test fails by panicking, and tells figures by printing")]

use cluster_lease::check::model::{explore, fault_runs, small_runs};
use cluster_lease::rules::Fault;
use std::collections::BTreeSet;

fn small(name: &str) {
    let config = small_runs().into_iter().find(|config| config.name == name).expect("a run of this name");
    let both_may_acquire = config.seen != [0, 0];
    let report = explore(config, 1, None);
    println!("{report}");
    assert!(report.broken.is_none(), "{report}\n{:#?}", report.broken);
    assert!(report.exhausted, "{report}");
    assert!(report.acquired || !both_may_acquire, "nobody else ever acquired, so this shows nothing: {report}");
}

/// Finds the fault, by a schedule of at most so many steps.
fn planted(name: &str, rule: &str, steps_max: usize) {
    let (named, config) = fault_runs().into_iter().find(|(_, config)| config.name == name).expect("a run of this name");
    assert_eq!(named, rule);
    let report = explore(config, 1, Some(12_000_000));
    println!("rule {rule}: {report}");
    let (what, path) = report.broken.clone().unwrap_or_else(|| panic!("rule {rule} was left out and nothing broke: {report}"));
    assert!(path.len() <= steps_max, "{what}: {path:#?}");
}

macro_rules! small_tests {
    ($($test:ident: $name:expr;)*) => {
        $(#[test] fn $test() { small($name); })*

        #[test]
        fn every_small_run_is_tested() {
            let tested = [$($name),*];
            let all: Vec<_> = small_runs().iter().map(|config| config.name).collect();
            assert_eq!(all, tested);
        }
    };
}

macro_rules! planted_tests {
    ($($test:ident: $name:expr, $rule:expr, $steps:expr;)*) => {
        $(#[test] fn $test() { planted($name, $rule, $steps); })*

        #[test]
        fn every_planted_run_is_tested() {
            let tested = [$($name),*];
            let all: Vec<_> = fault_runs().iter().map(|(_, config)| config.name).collect();
            assert_eq!(all, tested);
        }
    };
}

small_tests! {
    plain: "plain";
    renewal: "renewal";
    refusals_and_release_acks: "refusals and release acks";
    voter_reboot: "voter reboot";
    voter_reboot_and_restart: "voter reboot and restart";
    torn_record: "torn record";
    release_and_hand_over: "release and hand-over";
    two_attempts_release: "two attempts, release";
    agent_crash_adopted: "agent crash, adopted";
    agent_crash_after_two_attempts: "agent crash after two attempts";
    early_fence: "early fence";
    clocks_at_the_bound: "clocks at the bound";
    fence_takes_all_of_f: "fence takes all of F";
    fresh_voter_added: "fresh voter added";
    voter_removed: "voter removed";
    voter_replaced_nothing_heard_of: "voter replaced, nothing heard of";
    voter_replaced: "voter replaced";
    two_next_sets_at_once: "two next sets at once";
    waiting_voter_added: "waiting voter added";
}

planted_tests! {
    v6_no_restart_wait: "no restart wait", "V6", 11;
    v6_renewal_in_the_wait: "renewal accepted in the wait", "V6", 18;
    v6_wait_forgotten: "wait forgotten by a process restart", "V6", 12;
    v6_torn_record: "torn record ignored", "V6", 12;
    v7_floor_forgotten: "floor forgotten", "V7", 13;
    v1_higher_epoch: "higher epoch overrides", "V1", 10;
    v1_successor: "successor skips V1", "V1", 12;
    v2_refusal_changes: "refusal raises the floor", "V2", 9;
    v3_other_life: "another life's grant replaced", "V3", 15;
    v4_bit_without_epoch: "bit without its epoch", "V4", 14;
    v5_node_only: "release matched by node only", "V5", 13;
    v5_instance: "release matched without instance", "V5", 13;
    p3_timer_from_answer: "timer from the answer", "P3", 12;
    p1_send_number: "ack without send number", "P1", 17;
    p2_epoch_reused: "epoch reused after restart", "P2", 16;
    p3_dead_tenure: "dead tenure revived", "P3", 12;
    p3_clock_rates_ignored: "clock rates ignored", "P3", 14;
    p4_renewal_is_no_acquisition: "renewal counts as acquisition", "P4", 14;
    p5_release_before_stop: "release before stop", "P5", 12;
    f2_fenced_word: "agent extends a fenced word", "F2", 14;
    b5_no_wait: "next set without wait", "B5.3", 10;
    b5_old_set: "old set still answered", "B5.2", 12;
    b5_floors: "floors not carried over", "B5.3", 10;
    b5_unprepared: "install unprepared", "B5.3", 12;
    b5_round_not_split: "round asked for too early", "B5.3", 12;
    b5_joined_while_waiting: "joined while waiting", "B5.3", 8;
    k_clock_too_slow: "clock rate beyond r", "K", 14;
    f3_fence_too_long: "fence longer than F", "F3", 15;
}

/// Each fault has its run.
#[test]
fn no_fault_is_left_untested() {
    let faults: BTreeSet<Fault> = fault_runs().iter().filter_map(|(_, config)| config.fault).collect();
    assert_eq!(faults.len(), 26);
}
