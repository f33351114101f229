//! What the node's own machinery does to units and addresses.

use std::net::Ipv4Addr;

use cluster_e2e::{Result, wait_until};

use crate::cluster::{Cluster, LATER, SOON, demo_app, ensure};

/// Hardware address of the lab's client.
const CLIENT_MAC: &str = "02:63:6c:00:00:64";

/// An address that another machine on the link answers for is not taken, and the App says so; once it is free, it is. After that a
/// take-over asks nobody, whoever answers.
pub fn an_address_of_another_machine_is_not_taken(c: &Cluster) -> Result<()> {
    let (single, pool) = (Ipv4Addr::new(10, 0, 0, 131), Ipv4Addr::new(10, 0, 0, 132));
    let on_client = |verb: &str, ip: Ipv4Addr| c.lab.client(["ip", "address", verb, &format!("{ip}/24"), "dev", "eth0"])?.ok().map(drop);
    on_client("add", single)?;
    on_client("add", pool)?;
    let app = |name: &str, mode: &str, port, vip| demo_app(name, mode, port, &format!("vip: {{ address: {vip}/24, interface: eth0 }}"));
    c.apply(&app("claimed", "Singleton", 8100, single))?;
    c.apply(&app("claims", "Spread", 8101, pool))?;
    for (name, ip) in [("claimed", single), ("claims", pool)] {
        let ready = c.wait_condition(name, "Ready", |ready| ready.reason == "VipTaken")?;
        let told = ready.message.contains(CLIENT_MAC) && ready.message.contains(&ip.to_string());
        assert!(told, "{}", ready.message);
        assert!(c.holders(ip)?.is_empty(), "{ip} was taken");
        on_client("delete", ip)?;
    }
    c.wait_ready(&["claimed", "claims"], LATER)?;

    // Now that it is known, somebody who answers for it keeps nobody from taking over.
    let known =
        |app: &str| -> Result<bool> { Ok(c.assignments()?.values().filter_map(|a| a.apps.get(app)?.vip.as_ref()).all(|vip| !vip.probe)) };
    wait_until("the plan to know the address", SOON, || ensure(known("claimed")?, || "some node is to ask still".to_owned()))?;
    on_client("add", single)?;
    let before = c.active("claimed")?.0;
    c.systemctl(before, &["stop", "cluster-agent"])?;
    let moved = wait_until("another node to take the address", SOON, || {
        let holders = c.holders(single)?;
        ensure(holders.len() == 1 && holders[0] != before, || format!("{holders:?} have it"))
    });
    on_client("delete", single)?;
    c.systemctl(before, &["start", "cluster-agent"])?;
    moved?;
    c.wait_ready(&["claimed", "claims"], LATER)
}
