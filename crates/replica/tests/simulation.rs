//! The seeded simulation: schedules without a fault planted hold, and each planted fault is found.

#![expect(clippy::panic, reason = "a test ends at what it did not expect")]

use cluster_replica::check::{Plant, Violation, run};

/// Schedules in a test; the soak runs 10,000 by `replica-sim`.
const SCHEDULES: u64 = 200;
/// Schedules in which a planted fault must show.
const FOUND_WITHIN: u64 = 300;

#[test]
fn schedules_hold() {
    let (mut confirmed, mut lost, mut files, mut snapshots) = (0, 0, 0, 0);
    for seed in 0..SCHEDULES {
        let report = run(seed, None).unwrap_or_else(|violation| panic!("{violation}"));
        confirmed += report.confirmed;
        lost += report.lost;
        files += report.divergence;
        snapshots += report.snapshots;
    }
    // They are worth something: all that may happen does.
    assert!(confirmed > 50 && lost > 100 && files > 20 && snapshots > 50, "{confirmed} {lost} {files} {snapshots}");
}

fn find(plant: Plant) -> Violation {
    let found = (0..FOUND_WITHIN).find_map(|seed| run(seed, Some(plant)).err());
    found.unwrap_or_else(|| panic!("{plant:?} against {} is not found in {FOUND_WITHIN} schedules", plant.rule()))
}

#[test]
fn d3_an_epoch_without_a_start_is_found() {
    let violation = find(Plant::NoStart);
    assert!(["D3", "D5", "D6", "D8", "D9", "liveness"].contains(&violation.rule), "{violation}");
}

#[test]
fn d4_a_standby_that_does_not_heed_its_seal_is_found() {
    assert_eq!(find(Plant::NoSeal).rule, "D4");
}

#[test]
fn d6_a_mismatch_taken_as_deposed_is_found() {
    assert_eq!(find(Plant::MismatchIsDeposed).rule, "D6");
}

#[test]
fn d8_a_position_written_before_its_pages_is_found() {
    assert_eq!(find(Plant::PositionBeforePages).rule, "D8");
}

#[test]
fn d9_an_old_wal_left_beside_a_snapshot_is_found() {
    assert_eq!(find(Plant::LeftoverWal).rule, "D9");
}

#[test]
fn d2_a_mark_moved_without_the_write_lock_is_found() {
    assert_eq!(find(Plant::MarkWithoutLock).rule, "D2");
}
