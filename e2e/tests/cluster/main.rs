//! The main job on real nodes, and what goes wrong there: scenarios that share one lab of five nodes, one after the other in this
//! order. `cargo test -p cluster-e2e --test cluster [FILTER]`; `CLUSTERCTL_LAB_USE=NAME` plays on a lab that is up already.
//!
//! Needs root and what `scripts/setup` installs; without them it fails and says so.

#![expect(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "a test fails by panicking, and tells figures by printing")]

mod agents;
mod changes;
mod cluster;
mod controllers;
mod crash;
mod databases;
mod drivers;
mod examples;
mod faults;
mod harness;
mod health;
mod homes;
mod http;
mod input;
mod keep;
mod local;
mod observe;
mod operators;
mod patterns;
mod placement;
mod servers;
mod slow;
mod split;

use std::process::ExitCode;

fn main() -> ExitCode {
    harness::play(&harness::scenarios![
        patterns: [
            platform_is_ready_and_served_through_its_vip,
            singleton_nginx_answers_through_its_vip,
            spread_runs_on_every_node,
            replicas_run_on_as_many_nodes_as_asked_for,
            ring_gives_every_partition_one_owner,
        ],
        local: [apps_are_known_by_their_units],
        examples: [the_examples_run_on_real_nodes],
        input: [
            bad_manifests_are_refused_with_their_place_and_nothing_is_stored,
            bad_requests_to_the_api_are_refused_with_a_reason,
            a_vip_or_unit_of_another_app_is_refused_with_its_name,
        ],
        placement: [
            more_replicas_than_nodes_run_as_far_as_they_fit,
            no_eligible_node_names_what_would_have_to_change,
            labels_names_and_other_apps_decide_where_instances_run,
            a_unit_that_does_not_exist_is_reported,
            a_unit_that_fails_is_reported_with_result_and_log,
            every_placement_field_is_kept_and_seen_in_the_reason,
            bad_content_stops_at_the_first_instance,
        ],
        changes: [
            a_changed_command_or_environment_restarts_with_the_new_one,
            from_unit_to_exec_and_back_leaves_nothing_of_the_other,
            a_text_with_a_mistake_is_told_and_what_runs_goes_on,
            a_changed_vip_leaves_the_old_address,
        ],
        health: [an_unhealthy_active_is_restarted_and_then_fails_over],
        drivers: [
            an_address_of_another_machine_is_not_taken,
            hooks_run_when_partitions_come_and_go,
            a_disk_that_takes_nothing_is_told_and_harms_nothing,
        ],
        operators: [
            a_switchover_hands_over_to_the_named_node_and_stays,
            a_cordoned_node_gets_nothing_new_and_a_drained_one_has_nothing,
        ],
        homes: [failback_is_off_unless_an_app_asks_for_it, a_witness_is_given_nothing],
        databases: [
            a_database_survives_its_active_and_loses_nothing_in_a_switchover,
            what_only_a_cut_off_active_wrote_is_kept_as_divergence,
            a_killed_agent_goes_on_following_its_database,
            a_take_over_that_could_lose_a_confirmed_write_waits,
        ],
        agents: [
            a_restarted_or_killed_agent_adopts_what_runs,
            agents_killed_between_any_two_steps_converge,
            a_second_agent_on_a_node_is_refused,
            an_older_assignment_replayed_is_refused_and_put_right,
        ],
        controllers: [
            a_killed_leading_controller_stops_nothing,
            a_deposed_leaders_late_write_is_refused,
        ],
        slow: [a_slow_nats_does_no_harm],
        servers: [
            nats_restarted_one_by_one_and_all_at_once_stops_no_pool,
            nats_away_for_ten_seconds_stops_no_pool,
            a_dead_watch_is_noticed,
        ],
        split: [
            a_cut_node_gives_up_exclusive_things_and_keeps_its_pools,
            a_silent_node_with_the_leaders_gives_up_too,
            a_paused_node_converges_after_it_goes_on,
        ],
        keep: [what_keeps_goes_on_without_a_majority_until_the_lease_decides],
        faults: [
            agents_and_guards_fail_and_nothing_is_held_twice,
            nodes_fail_and_nothing_is_held_twice,
            servers_and_controllers_fail_and_nothing_is_held_twice,
            units_that_start_by_themselves_are_killed,
            partitions_have_one_owner_whatever_fails,
        ],
        crash: [a_crashed_node_is_replaced_and_rejoins_without_a_second_fail_over],
        // Others vote after it than the first three nodes, which the scenarios above count on.
        operators: [a_voter_is_replaced_and_a_dead_majority_is_forced],
    ])
}
