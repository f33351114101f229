//! The systemd driver against a real systemd. The one test boots a bare node of the lab and runs this same program inside it, where it
//! goes through all cases; so nothing of the host's systemd is touched, and none is needed.
//!
//! Needs root and what `scripts/setup` installs; without them it fails and says so. `CLUSTERCTL_CASE=masked` goes through the cases
//! with this word in their name only.
#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that cannot be set up fails; its cases are told by printing"
)]

mod commands;
mod faults;
mod files;
mod node;
mod others;
mod running;
mod trouble;

use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use cluster_agent::drivers::systemd::Systemd;
use cluster_e2e::{Lab, UpOptions};
use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;

/// Set inside the node.
const IN_NODE: &str = "CLUSTERCTL_IN_NODE";
/// Only the cases that have this in their name.
const ONLY: &str = "CLUSTERCTL_CASE";
/// How long all cases may take together.
const LIMIT: Duration = Duration::from_secs(240);

type Case = (&'static str, for<'a> fn(&'a Systemd) -> LocalBoxFuture<'a, ()>);

macro_rules! cases {
    ($($module:ident :: $case:ident),+ $(,)?) => {
        &[$((stringify!($case), |driver| $module::$case(driver).boxed_local())),+]
    };
}

const CASES: &[Case] = cases![
    running::a_unit_is_started_restarted_and_stopped,
    running::arguments_and_environment_arrive_byte_for_byte,
    running::a_failing_start_is_told_with_its_log,
    running::a_unit_over_its_start_limit_starts_again,
    running::a_stop_counts_only_when_no_process_is_left,
    running::a_stop_kills_what_does_not_heed_it,
    running::a_start_that_takes_too_long_is_told_and_can_be_stopped,
    running::a_reload_is_done_refused_or_failed,
    running::a_killed_unit_is_noticed,
    running::many_units_start_at_once,
    files::a_new_file_needs_no_reload_and_a_changed_one_does,
    files::a_reload_that_was_missed_is_made_up_for,
    files::units_of_others_are_not_touched,
    files::ours_are_listed_and_removed,
    files::a_missing_masked_or_bad_unit_is_told_apart,
    files::a_unit_enabled_at_boot_is_seen,
    files::an_alias_is_watched,
    trouble::a_text_is_verified_before_it_is_loaded,
    trouble::a_unit_that_restarts_always_ends_when_it_is_stopped,
    trouble::a_unit_that_flaps_is_told,
    trouble::a_unit_that_used_up_its_start_limit_by_itself_is_told,
    trouble::time_outs_of_the_units_own_are_told,
    trouble::a_reload_that_hangs_is_told,
    trouble::a_stop_sees_the_cgroups_below,
    trouble::only_a_change_of_the_process_needs_a_restart,
    others::a_unit_that_is_enabled_is_warned_about_and_stopped,
    others::a_unit_that_others_start_is_told_with_their_names,
    others::a_unit_masked_or_removed_while_it_runs_is_stopped,
    others::instances_of_a_template_live_apart,
    commands::a_command_runs_to_its_end_as_it_was_written,
    commands::a_command_that_fails_or_takes_too_long_leaves_nothing,
    commands::a_command_of_an_earlier_agent_is_ended_first,
    faults::d_bus_is_restarted_under_us,
    faults::d_bus_is_restarted_during_a_job,
    faults::systemd_is_executed_again_under_us,
    faults::systemd_is_executed_again_during_a_job,
    faults::systemd_is_reloaded_during_a_job,
];

#[test]
fn the_systemd_driver_in_a_node() {
    if std::env::var_os(IN_NODE).is_some() {
        return in_node();
    }
    let only = std::env::var(ONLY).unwrap_or_default();
    let lab = Lab::up_scoped(&UpOptions::new(1).bare().named("drivers")).expect("a lab with one bare node");
    // Copied into the node: its own /tmp hides a build folder below the host's.
    let program = "/usr/local/bin/drivers_systemd";
    let root = format!("/proc/{}/root", lab.node_pid(1).expect("the node's first process"));
    std::fs::copy(std::env::current_exe().expect("this program"), format!("{root}{program}")).expect("a copy in the node");
    let (mark, only) = (format!("{IN_NODE}=1"), format!("{ONLY}={only}"));
    let command = ["env", &mark, &only, program, "--exact", "the_systemd_driver_in_a_node", "--nocapture"];
    let ran = lab.exec_within(LIMIT, 1, command).expect("a run inside the node");
    println!("{}{}", ran.stdout, ran.stderr);
    assert!(ran.success(), "some cases failed inside the node, see above");
    assert!(ran.stdout.contains(" cases passed"), "no case ran inside the node");
}

fn in_node() {
    let only = std::env::var(ONLY).unwrap_or_default();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let (mut passed, mut failed) = (0, Vec::new());
    runtime.block_on(async {
        for (name, case) in CASES.iter().filter(|(name, _)| name.contains(&only)) {
            let start = Instant::now();
            // Each case has a connection of its own, as each agent has.
            let driver = Systemd::new();
            let result = AssertUnwindSafe(case(&driver)).catch_unwind().await;
            println!("{} {name} {:.0?}", if result.is_ok() { "ok    " } else { "FAILED" }, start.elapsed());
            match result {
                Ok(()) => passed += 1,
                Err(_) => failed.push(*name),
            }
            node::clean_up().await;
        }
    });
    assert!(failed.is_empty(), "{} cases failed: {failed:?}", failed.len());
    assert!(passed > 0, "no case is called {only:?}");
    println!("{passed} cases passed");
}
