//! A changed spec: what runs follows, and nothing of the old one stays.

use std::net::Ipv4Addr;

use cluster_e2e::{Result, wait_until};

use crate::cluster::{Cluster, SOON, demo_app, ensure};

/// Another command or environment: every instance runs again with it; an unchanged spec restarts nothing.
pub fn a_changed_command_or_environment_restarts_with_the_new_one(c: &Cluster) -> Result<()> {
    let app = |port: u16, environment: &str| {
        format!(
            "apiVersion: cluster/v1\nkind: App\nmetadata: {{ name: web }}\nspec: {{ mode: Spread, exec: {{ command: \
             [/usr/lib/clusterctl/demo, --listen, \"0.0.0.0:{port}\"], environment: {{ COLOUR: {environment} }} }} }}\n"
        )
    };
    let follow = |port: u16, colour: &str| -> Result<_> {
        c.apply(&app(port, colour))?;
        c.wait_ready(&["web"], SOON)?;
        let runs = c.runs()?.of("web");
        assert_eq!(runs.len(), 5);
        for (node, run) in &runs {
            let environment = c.lab.read(*node, &format!("/proc/{}/environ", run.pid))?;
            assert!(environment.split('\0').any(|v| v == format!("COLOUR={colour}")), "{node}: {environment}");
            assert_eq!(c.demo(node.addr(), port)?["node"], node.to_string());
        }
        Ok(runs)
    };
    let first = follow(8100, "red")?;
    assert_eq!(follow(8100, "red")?, first, "an unchanged spec restarted something");
    let second = follow(8101, "red")?;
    assert!(second.iter().all(|(node, run)| first[node].pid != run.pid));
    assert!(c.get(c.lab.addr(1), 8100, "/").is_err(), "the old port still answers");
    let third = follow(8101, "blue")?;
    assert!(third.iter().all(|(node, run)| second[node].pid != run.pid));
    Ok(())
}

/// From an installed unit to a command, to a unit with content, and back: the one before is stopped, and its file goes if it was ours.
pub fn from_unit_to_exec_and_back_leaves_nothing_of_the_other(c: &Cluster) -> Result<()> {
    let head = "apiVersion: cluster/v1\nkind: App\nmetadata: { name: web }\n";
    let nginx = format!("{head}spec: {{ mode: Spread, unit: {{ name: nginx }} }}\n");
    let content = format!(
        "{head}spec:\n  mode: Spread\n  unit:\n    name: own-web\n    content: |\n      [Service]\n      \
         ExecStart=/usr/lib/clusterctl/demo --listen 0.0.0.0:8101 --app content\n"
    );
    let runs_only = |unit: &str| {
        wait_until(&format!("only {unit} to run"), SOON, || {
            let runs = c.runs()?;
            let units: Vec<_> = runs.0.keys().map(|(_, unit)| unit.as_str()).collect();
            ensure(units == [unit; 5], || format!("{units:?}"))
        })
    };
    let our_files =
        || -> Result<String> { c.lab.exec(2, ["sh", "-c", "cd /run/systemd/system && ls | grep -E '^(clusterctl|own)-' || true"])?.ok() };
    c.apply(&nginx)?;
    runs_only("nginx.service")?;
    c.apply(&demo_app("web", "Spread", 8100, ""))?;
    runs_only("clusterctl-web.service")?;
    c.wait_ready(&["web"], SOON)?;
    assert_eq!(our_files()?, "clusterctl-web.service\n");
    c.apply(&content)?;
    c.wait_ready(&["web"], SOON)?;
    assert_eq!(c.demo(c.lab.addr(2), 8101)?["app"], "content");
    runs_only("own-web.service")?;
    assert_eq!(our_files()?, "own-web.service\n");
    c.apply(&nginx)?;
    runs_only("nginx.service")?;
    c.wait_ready(&["web"], SOON)?;
    assert_eq!(our_files()?, "");
    Ok(())
}

/// A text with a mistake is told with the mistake's line and replaces nothing; one that changes nothing for the process restarts nothing.
pub fn a_text_with_a_mistake_is_told_and_what_runs_goes_on(c: &Cluster) -> Result<()> {
    let app = |setting: &str| {
        format!(
            "apiVersion: cluster/v1\nkind: App\nmetadata: {{ name: web }}\nspec:\n  mode: Spread\n  unit:\n    name: own-web\n    content: |\n      \
             [Service]\n      ExecStart=/usr/lib/clusterctl/demo --listen 0.0.0.0:8101 --app content\n      {setting}\n"
        )
    };
    c.apply(&app("Restart=always"))?;
    c.wait_ready(&["web"], SOON)?;
    let before = c.runs()?;
    c.apply(&app("Restartt=always"))?;
    wait_until("the mistake to be told", SOON, || {
        let status = c.status("web")?;
        let told = status.instances.iter().all(|i| i.message.contains("Unknown key 'Restartt' in section [Service]"));
        ensure(told && !status.is_ready(), || format!("{:?}", status.instances))
    })?;
    assert_eq!(c.runs()?, before, "what works was touched");
    c.apply(&app("RestartSec=200ms"))?;
    c.wait_ready(&["web"], SOON)?;
    assert_eq!(c.runs()?, before, "a process that does not see the change was restarted");
    c.apply(&app("Environment=A=1"))?;
    c.wait_ready(&["web"], SOON)?;
    assert!(c.runs()?.0.iter().all(|(key, run)| before.0.get(key).is_some_and(|old| old.pid != run.pid)));
    Ok(())
}

/// Another VIP: the new address answers, the old one is nowhere; without a VIP there is none.
pub fn a_changed_vip_leaves_the_old_address(c: &Cluster) -> Result<()> {
    let (old, new) = (Ipv4Addr::new(10, 0, 0, 121), Ipv4Addr::new(10, 0, 0, 122));
    for mode in ["Singleton", "Spread"] {
        let app = |vip: Ipv4Addr| demo_app("moving", mode, 8100, &format!("vip: {{ address: {vip}/24, interface: eth0 }}"));
        c.apply(&app(old))?;
        c.wait_ready(&["moving"], SOON)?;
        assert_eq!((c.holders(old)?.len(), c.get(old, 8100, "/")?.status), (1, 200));
        c.apply(&app(new))?;
        c.wait_ready(&["moving"], SOON)?;
        let answer = c.demo(new, 8100)?;
        assert_eq!((c.holders(new)?.len(), c.holders(old)?.len()), (1, 0), "{mode}");
        assert_eq!(c.holders(new)?[0].to_string(), answer["node"].as_str().unwrap());
        c.apply(&demo_app("moving", mode, 8100, ""))?;
        wait_until("the VIP to go", SOON, || {
            let left = c.holders(new)?;
            ensure(left.is_empty(), || format!("{left:?} have it"))
        })?;
        c.wait_ready(&["moving"], SOON)?;
        c.delete(&["moving"])?;
    }
    Ok(())
}
