//! Decisions about databases, in the world of [`super::tests`].

use std::sync::Arc;

use cluster_schemas::app::{DatabaseSpec, Standby};
use cluster_schemas::assignment::{Role, RunSpec};

use super::decide::Step;
use super::target::Desired;
use super::tests::{World, in_state, singleton};
use crate::database::{Order, Stage};
use crate::lease::view::TenureState;

fn with_database(role: Role, epoch: u64, standby: Standby) -> Desired {
    let mut desired = singleton(role, epoch);
    let database = Some(DatabaseSpec { path: "/data/app.db".to_owned(), max_lag: None, confirm: None });
    desired.entry.run = Arc::new(RunSpec { database, standby, ..(*desired.entry.run).clone() });
    desired
}

fn world() -> World {
    let mut world = World::default();
    world.database = Some((Stage::Standby, Order::Follow));
    world
}

#[test]
fn d5_the_database_is_promoted_before_role_address_and_unit() {
    let mut world = world();
    let desired = with_database(Role::Active, 3, Standby::Cold);
    world.settle(&desired);
    let promote = world.order(|s| *s == Step::Promote { epoch: 3, adopt: false });
    for later in [
        world.order(|s| matches!(s, Step::WriteRole(_))),
        world.order(|s| matches!(s, Step::HoldVip(_))),
        world.order(|s| *s == Step::Start),
    ] {
        assert!(promote < later, "{:?}", world.steps);
    }
    assert_eq!(world.steps.iter().filter(|s| matches!(s, Step::Promote { .. })).count(), 1, "ordered once");
}

#[test]
fn while_it_is_promoted_nothing_is_started() {
    for stage in [Stage::Closed, Stage::Standby, Stage::Promoting(3), Stage::Failed(3), Stage::Retiring(2)] {
        let mut world = world();
        world.database = Some((stage, Order::Promote { epoch: 3, adopt: false }));
        world.settle(&with_database(Role::Active, 3, Standby::Cold));
        assert!(world.running.is_none() && world.address.is_none(), "{stage:?}: {:?}", world.steps);
    }
    // Nobody has a history: the application makes it.
    let mut world = world();
    world.database = Some((Stage::Ready(3), Order::Promote { epoch: 3, adopt: false }));
    world.settle(&with_database(Role::Active, 3, Standby::Cold));
    assert!(world.running.is_some() && world.address.is_some());
}

#[test]
fn d9_d11_the_database_goes_after_unit_and_address_and_the_lease_after_it() {
    for state in [TenureState::Releasing, TenureState::Lost] {
        let mut world = world();
        let active = with_database(Role::Active, 3, Standby::Cold);
        world.settle(&active);
        world.steps.clear();
        let ends = in_state(&active, state);
        world.settle(&ends);
        let retire = world.order(|s| *s == Step::Retire);
        assert!(world.order(|s| matches!(s, Step::Stop(_))) < retire && world.order(|s| matches!(s, Step::ReleaseVip(_))) < retire);
        assert!(!world.report(&ends).holds);
        // While standbys take the rest, the lease is held.
        world.database = Some((Stage::Retiring(3), Order::Follow));
        assert!(world.report(&ends).holds);
    }
}

#[test]
fn what_is_open_in_another_epoch_ends_before_the_present_one_begins() {
    let mut world = world();
    world.settle(&with_database(Role::Active, 3, Standby::Cold));
    world.steps.clear();
    world.settle(&with_database(Role::Active, 4, Standby::Cold));
    let (stop, retire) = (world.order(|s| matches!(s, Step::Stop(_))), world.order(|s| *s == Step::Retire));
    let promote = world.order(|s| *s == Step::Promote { epoch: 4, adopt: false });
    assert!(stop < retire && retire < promote && promote < world.order(|s| *s == Step::Start), "{:?}", world.steps);
}

/// An agent that is restarted beside a unit: where the database cannot be gone on with, the unit stops before anything is applied.
#[test]
fn p6_beside_a_unit_that_runs_the_database_is_adopted_or_the_unit_stops() {
    let mut world = world();
    let desired = with_database(Role::Active, 3, Standby::Cold);
    world.settle(&desired);
    world.database = Some((Stage::Standby, Order::Follow));
    world.steps.clear();
    world.settle(&desired);
    let adopt = world.order(|s| *s == Step::Promote { epoch: 3, adopt: true });
    let (stop, promote) = (world.order(|s| matches!(s, Step::Stop(_))), world.order(|s| *s == Step::Promote { epoch: 3, adopt: false }));
    assert!(adopt < stop && stop < promote, "{:?}", world.steps);
    // Where it can, nothing is touched.
    world.database = Some((Stage::Promoting(3), Order::Promote { epoch: 3, adopt: true }));
    world.steps.clear();
    world.settle(&desired);
    assert_eq!(world.steps, [Step::Settled]);
}

/// A hot process that was told that it is active may write: at the end of its tenure it stops, and comes back as a standby.
#[test]
fn a_hot_process_with_a_database_stops_at_the_end_of_its_tenure() {
    let mut world = world();
    let standby = with_database(Role::Standby, 2, Standby::Hot);
    world.settle(&standby);
    assert!(world.running.is_some());
    let active = with_database(Role::Active, 3, Standby::Hot);
    world.steps.clear();
    world.settle(&active);
    assert!(!world.steps.iter().any(|s| matches!(s, Step::Stop(_) | Step::Start | Step::Restart)), "{:?}", world.steps);
    assert!(world.order(|s| *s == Step::Promote { epoch: 3, adopt: false }) < world.order(|s| *s == Step::Reload));
    world.steps.clear();
    world.settle(&in_state(&active, TenureState::Releasing));
    let stop = world.order(|s| matches!(s, Step::Stop(_)));
    assert!(stop < world.order(|s| *s == Step::Retire), "{:?}", world.steps);
    assert!(world.running.is_some() && world.memory.told_role.as_ref().is_some_and(|r| r.role == Role::Standby));
}
