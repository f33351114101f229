//! The local API on nodes with a systemd and a kernel of their own.

use cluster_e2e::{Result, wait_until};
use serde_json::Value;

use crate::cluster::{Cluster, SOON, ensure, wrong};

/// Every instance is known by its unit, and stores what it is told; a stranger on the node is refused, whatever it asks.
pub fn apps_are_known_by_their_units(c: &Cluster) -> Result<()> {
    let ask = "curl -s --unix-socket $CLUSTERCTL_SOCKET";
    let script = format!(
        "until {ask} http://x/v1/self | {ask} -X PUT --data-binary @- http://x/v1/kv/self/$CLUSTERCTL_NODE | grep -q revision; \
         do sleep 0.2; done; exec sleep infinity"
    );
    let exec = serde_json::json!({ "command": ["/bin/sh", "-c", script] });
    c.apply(&format!(
        "apiVersion: cluster/v1\nkind: App\nmetadata: {{ name: who }}\nspec: {{ mode: Spread, exec: {exec}, placement: {{ nodes: [n1, n2] }} }}\n"
    ))?;
    for node in c.lab.nodes().take(2) {
        let name = node.to_string();
        let me = wait_until(&format!("what {name} is told"), SOON, || {
            let text = c.ctl(&["kv", "get", "who", &format!("self/{name}")])?.ok()?;
            serde_json::from_str::<Value>(&text).map_err(|error| wrong(format!("{text}: {error}")))
        })?;
        assert_eq!(
            (me["app"].as_str(), me["node"].as_str(), me["unit"].as_str()),
            (Some("who"), Some(name.as_str()), Some("clusterctl-who.service"))
        );

        let socket = "/run/clusterctl/local.sock";
        let root = c.lab.exec(node, ["curl", "-s", "--unix-socket", socket, "http://x/v1/self?app=who"])?.ok()?;
        ensure(root.contains("clusterctl-who.service"), || root.clone())?;
        // In the group of the socket, so that it may connect, and in a unit of no App.
        let stranger =
            ["systemd-run", "--quiet", "--pipe", "--wait", "--uid=nobody", "--gid=root", "/usr/bin/curl", "-s", "--unix-socket", socket];
        for path in ["http://x/v1/self", "http://x/v1/self?app=who", "http://x/v1/kv/self/n1?app=who"] {
            let told = c.lab.exec(node, stranger.iter().chain([&path]).copied())?.ok()?;
            ensure(told.contains("\"forbidden\"") && told.contains("which is of no App"), || told.clone())?;
        }
    }
    c.delete(&["who"])
}
