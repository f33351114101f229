//! The four patterns, by the manifests that come with the product: applied, seen to run, deleted.

use std::net::Ipv4Addr;
use std::time::Duration;

use cluster_e2e::{NodeId, Result, wait_until};
use cluster_schemas::PartitionSet;
use cluster_schemas::assignment::Role;

use crate::cluster::{Cluster, LATER, NODES, SOON, ensure, wrong};

/// VIP of the platform's database.
pub const DATABASE_VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 100);
/// The platform's Apps.
pub const PLATFORM: [&str; 4] = ["database", "cache", "api", "workers"];

/// `platform.yaml`: four Apps Ready, each as its mode says, the database behind its VIP; deletion leaves nothing.
pub fn platform_is_ready_and_served_through_its_vip(c: &Cluster) -> Result<()> {
    c.apply_shipped("platform.yaml")?;
    c.wait_ready(&PLATFORM, SOON)?;

    let (active, epoch) = c.active("database")?;
    let answer = c.demo(DATABASE_VIP, 8080)?;
    let expected = (Some("database"), Some("Active"), Some(epoch), Some("/data/app.db"));
    assert_eq!((answer["app"].as_str(), answer["role"].as_str(), answer["epoch"].as_u64(), answer["database"].as_str()), expected);
    assert_eq!(answer["node"], active.to_string());
    assert_eq!(c.holders(DATABASE_VIP)?, [active]);

    let runs = c.runs()?;
    assert_eq!(runs.nodes_of("database"), [active]);
    assert_eq!((runs.of("cache").len(), runs.of("api").len()), (5, 5));
    let workers = runs.nodes_of("workers");
    assert!(workers.len() == 3 && !workers.contains(&active), "workers on {workers:?}, the database on {active}");

    c.wait_condition("database", "Replicated", |condition| condition.status.as_str() == "True")?;
    let status = c.status("database")?;
    let condition = |kind: &str| status.condition(kind).map(|c| (c.status.as_str(), c.reason.as_str()));
    assert_eq!(condition("Degraded"), Some(("False", "Standbys")));

    // Deletion by the user: the command returns when nothing is left, so nothing has to be waited for.
    c.delete(&PLATFORM)?;
    assert!(c.apps()?.is_empty());
    assert!(c.runs()?.0.is_empty(), "{:?}", c.runs()?.0);
    assert!(c.holders(DATABASE_VIP)?.is_empty());
    for node in c.lab.nodes() {
        let left = c.lab.exec(node, ["sh", "-c", "ls -d /run/clusterctl/*/ /run/systemd/system/clusterctl-* 2>/dev/null || true"])?.ok()?;
        assert_eq!(left, "", "left on {node}");
    }
    Ok(())
}

/// `singleton.yaml`: nginx of Debian runs on one node, which is told to be active, and answers through its VIP.
pub fn singleton_nginx_answers_through_its_vip(c: &Cluster) -> Result<()> {
    let vip = Ipv4Addr::new(10, 0, 0, 110);
    c.apply_shipped("singleton.yaml")?;
    c.wait_ready(&["proxy"], SOON)?;
    let reply = c.get(vip, 80, "/")?;
    assert!(reply.status == 200 && reply.head.contains("server: nginx"), "{}", reply.head);

    let (active, epoch) = c.active("proxy")?;
    assert_eq!(c.holders(vip)?, [active]);
    let nginx: Vec<NodeId> = c.runs()?.0.into_keys().filter(|(_, unit)| unit == "nginx.service").map(|(node, _)| node).collect();
    assert_eq!(nginx, [active]);
    for node in c.lab.nodes() {
        let role = c.app_file(node, "proxy", "role.json")?;
        let expected = if node == active { ("Active", epoch) } else { ("Standby", 0) };
        assert_eq!((role["role"].as_str().unwrap(), role["epoch"].as_u64().unwrap()), expected, "on {node}");
        assert_eq!((role["node"].as_str(), role["peers"].as_array().map(Vec::len)), (Some(node.to_string().as_str()), Some(4)));
    }
    // The unit is not ours: its file stays as Debian made it.
    let before = c.lab.read(active, "/lib/systemd/system/nginx.service")?;
    c.delete(&["proxy"])?;
    assert_eq!(c.lab.read(active, "/lib/systemd/system/nginx.service")?, before);
    assert!(c.get(vip, 80, "/").is_err(), "the VIP still answers");
    Ok(())
}

/// `spread.yaml`: one instance on every node, each a member that says so.
pub fn spread_runs_on_every_node(c: &Cluster) -> Result<()> {
    c.apply_shipped("spread.yaml")?;
    c.wait_ready(&["web"], SOON)?;
    assert_eq!(c.status("web")?.ready, "5/5");
    for node in c.lab.nodes() {
        let answer = c.demo(node.addr(), 8091)?;
        let name = node.to_string();
        let said = (answer["node"].as_str(), answer["app"].as_str(), answer["role"].as_str(), answer["epoch"].as_u64());
        assert_eq!(said, (Some(name.as_str()), Some("web"), Some("Member"), Some(0)));
        let limit = c.lab.exec(node, ["systemctl", "show", "--property=MemoryMax", "--value", "clusterctl-web.service"])?.ok()?;
        assert_eq!(limit.trim(), (64 << 20).to_string());
    }
    Ok(())
}

/// `replicas.yaml`: two instances on distinct nodes; a larger number adds, a smaller one removes, and the others go on running.
pub fn replicas_run_on_as_many_nodes_as_asked_for(c: &Cluster) -> Result<()> {
    let wait = |count: usize| {
        wait_until(&format!("{count} jobs"), SOON, || {
            let nodes = c.runs()?.nodes_of("jobs");
            let ready = c.status("jobs")?.ready;
            ensure(nodes.len() == count && ready == format!("{count}/{count}"), || format!("{ready} on {nodes:?}"))
        })
    };
    c.apply_shipped("replicas.yaml")?;
    wait(2)?;
    let two = c.runs()?.of("jobs");
    let (&first, _) = two.first_key_value().unwrap();
    assert_eq!(c.app_file(first, "jobs", "role.json")?["role"], "Member");
    assert_eq!(c.demo(first.addr(), 8092)?["app"], "jobs");

    c.apply(&crate::cluster::demo_app("jobs", "Replicas", 8092, "replicas: 4"))?;
    wait(4)?;
    let four = c.runs()?.of("jobs");
    assert!(two.iter().all(|(node, run)| four.get(node) == Some(run)), "{two:?} are not among {four:?}");
    c.apply(&crate::cluster::demo_app("jobs", "Replicas", 8092, "replicas: 1"))?;
    wait(1)?;
    let one = c.runs()?.of("jobs");
    assert!(one.iter().all(|(node, run)| four.get(node) == Some(run)), "{one:?} is not among {four:?}");
    Ok(())
}

/// `ring.yaml`: every partition has one owner, counts differ by at most one, and file, process and table say the same.
pub fn ring_gives_every_partition_one_owner(c: &Cluster) -> Result<()> {
    c.apply_shipped("ring.yaml")?;
    c.wait_ready(&["sessions"], SOON)?;
    let table = check_ring(c, "sessions", 8093, &c.lab.nodes().collect::<Vec<_>>())?;

    let located = c.ctl(&["ring", "locate", "sessions", "user:42", "-o", "json"])?.ok()?;
    let located: serde_json::Value = serde_json::from_str(&located).map_err(|error| wrong(error.to_string()))?;
    let partition = u16::try_from(located["partition"].as_u64().unwrap()).unwrap();
    let owner = table.iter().find(|(_, owned)| owned.contains(partition)).map(|(node, _)| node.to_string());
    assert_eq!(located["node"].as_str(), owner.as_deref());
    Ok(())
}

/// The ring is complete, balanced, and owned by `members`, and each process knows exactly its part. Gives back who owns what.
pub fn check_ring(c: &Cluster, app: &str, port: u16, members: &[NodeId]) -> Result<Vec<(NodeId, PartitionSet)>> {
    let table = c.ring(app)?;
    ensure(table.unowned.is_empty(), || format!("unowned: {}", table.unowned))?;
    let set = |text: &serde_json::Value| text.as_str().and_then(|text| text.parse::<PartitionSet>().ok()).unwrap_or_default();
    let mut all = PartitionSet::new();
    let mut owners = Vec::new();
    for owner in &table.owners {
        let (node, owned) = (owner.node.parse::<NodeId>()?, &owner.partitions);
        ensure(all.is_disjoint(owned), || format!("{node} owns what another owns: {owned}"))?;
        all = all.union(owned);
        ensure(owner.confirmed == *owned, || format!("{node} owns {owned}, and confirmed {}", owner.confirmed))?;
        let file = c.app_file(node, app, "partitions.json")?;
        let groups = file["own"].as_array().into_iter().flatten();
        let filed = groups.fold(PartitionSet::new(), |sum, group| sum.union(&set(&group["partitions"])));
        let told = (filed, file["partitions"].as_u64(), file["version"].as_u64());
        let right = (owned.clone(), Some(u64::from(table.partitions)), Some(table.version));
        ensure(told == right, || format!("the file of {node} says {told:?}, not {right:?}"))?;
        let said = set(&c.demo(node.addr(), port)?["partitions"]);
        ensure(said == *owned, || format!("the process on {node} says {said}, not {owned}"))?;
        owners.push((node, owned.clone()));
    }
    ensure(all == PartitionSet::all(table.partitions), || format!("owned: {all}"))?;
    let nodes: Vec<NodeId> = owners.iter().map(|(node, _)| *node).collect();
    ensure(nodes == members, || format!("owners are {nodes:?}, not {members:?}"))?;
    let counts = || owners.iter().map(|(_, owned)| owned.len());
    ensure(counts().max().unwrap_or(0) - counts().min().unwrap_or(0) <= 1, || format!("{:?}", counts().collect::<Vec<_>>()))?;
    Ok(owners)
}

/// Waits until these Apps are Ready and the ring is as [`check_ring`] wants it. One look is not enough after a fault: what was stored
/// before it may still say that all is well.
pub fn wait_all_well(c: &Cluster, apps: &[&str], ring: &str, port: u16, members: &[NodeId]) -> Result<()> {
    wait_until("all to be well", LATER, || {
        check_ring(c, ring, port, members)?;
        c.wait_ready(apps, Duration::ZERO)
    })
}

/// Nodes with a healthy member of the App, as the leader says.
pub fn healthy_members(c: &Cluster, app: &str) -> Result<Vec<NodeId>> {
    let instances = c.status(app)?.instances;
    instances.iter().filter(|i| i.role == Role::Member && i.healthy).map(|i| i.node.parse()).collect()
}

/// All nodes but one.
pub fn all_but(node: NodeId) -> Vec<NodeId> {
    (1..=NODES).map(NodeId::from).filter(|other| *other != node).collect()
}
