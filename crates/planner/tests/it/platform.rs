//! Scenarios, mode by mode. Every step is checked by `check` and replanned without a difference (`Cluster::step`).

use cluster_schemas::Mode;

use crate::builders::{away_from, mk_app, with_vip};
use crate::cluster::Cluster;

/// The platform of the issue on five nodes: everything gets ready, and survives the loss of the node that is active.
#[test]
fn platform_settles_and_survives_the_active_node() {
    let apps = || {
        [
            with_vip(mk_app("database", Mode::Singleton), "10.0.0.100/24"),
            with_vip(mk_app("cache", Mode::Ring), "10.0.0.101/24"),
            mk_app("api", Mode::Spread),
            away_from(mk_app("workers", Mode::Replicas), &["database"]),
        ]
    };
    let mut cluster = Cluster::of(5, apps());
    cluster.settle().assert_ready();
    assert_eq!(cluster.roles("database"), "n1:Active(1) n2:Standby n3:Standby n4:Standby n5:Standby");
    assert_eq!(cluster.roles("workers"), "n2:Member n3:Member n4:Member");
    cluster.lose("n1").step();
    assert_eq!(cluster.roles("database"), "n1:Standby n2:Active(2) n3:Standby n4:Standby n5:Standby");
    cluster.obey_all().settle().assert_ready();
    assert_eq!(cluster.roles("workers"), "n3:Member n4:Member n5:Member");
    cluster.reboot("n1").settle().assert_ready();
    assert_eq!(cluster.roles("database"), "n1:Standby n2:Active(2) n3:Standby n4:Standby n5:Standby");
}
