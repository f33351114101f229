//! The small applications under manifests/examples, on real nodes; `clusterctl dev` has a test of its own.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use cluster_e2e::{Result, wait_until};

use crate::cluster::{Cluster, SOON, ensure, wrong};
use crate::http;

/// VIPs of the notes and of the pool.
const VIPS: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 0, 0, 120), Ipv4Addr::new(10, 0, 0, 121)];

/// Notes are taken behind their VIP, each partition of the cache answers on its owner and on no other node, a worker answers behind the
/// pool's VIP.
pub fn the_examples_run_on_real_nodes(c: &Cluster) -> Result<()> {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/examples");
    for node in c.lab.nodes() {
        c.lab.exec(node, ["mkdir", "-p", "/usr/lib/clusterctl/examples", "/data/notes"])?.ok()?;
        for name in ["notes.py", "cache.py", "pool.py"] {
            let text = std::fs::read_to_string(scripts.join(name)).unwrap();
            c.lab.write(node, &format!("/usr/lib/clusterctl/examples/{name}"), &text, 0o644)?;
        }
    }
    for name in ["notes", "cache", "pool"] {
        c.apply_shipped(&format!("examples/{name}.yaml"))?;
    }
    c.wait_ready(&["notes", "store", "pool"], SOON)?;

    let ask = |address: Ipv4Addr, port: u16, method: &str, path: &str, body: &str| {
        let addr = SocketAddr::from((address, port));
        let reply = c.lab.as_client(|| http::request(addr, method, path, &[], body, Duration::from_secs(2)))?;
        reply.map_err(|error| wrong(format!("{method} http://{addr}{path}: {error}")))
    };
    // Ready says that the processes run; that they listen comes a moment later.
    wait_until("a note to be taken", SOON, || {
        let status = ask(VIPS[0], 8100, "POST", "/notes", "milk")?.status;
        ensure(status == 201, || format!("answered {status}"))
    })?;
    assert_eq!(ask(VIPS[0], 8100, "GET", "/notes", "")?.json()[0]["text"], "milk");
    // What was noted follows the active one.
    c.ctl(&["db", "sync", "notes"])?.ok()?;
    c.ctl(&["switchover", "notes"])?.ok()?;
    wait_until("the note to be there on another node", SOON, || {
        let reply = ask(VIPS[0], 8100, "GET", "/notes", "")?;
        ensure(reply.status == 200 && reply.json()[0]["text"] == "milk", || format!("answered {reply:?}"))
    })?;

    let located: serde_json::Value = serde_json::from_str(&c.ctl(&["ring", "locate", "store", "user:42", "-o", "json"])?.ok()?).unwrap();
    let path = format!("/{}/user:42", located["partition"]);
    for node in c.lab.nodes() {
        let status = ask(node.addr(), 8101, "GET", &path, "")?.status;
        let expected = if located["node"] == node.to_string() { 404 } else { 421 };
        assert_eq!(status, expected, "{node}, and {located}");
    }

    wait_until("a worker to answer", SOON, || {
        let reply = ask(VIPS[1], 8102, "POST", "/", "7\n8\n9\n11\n")?;
        ensure(reply.json()["primes"] == serde_json::json!([7, 11]), || format!("answered {}", reply.status))
    })?;
    c.delete(&["notes", "store", "pool"])?;
    for node in c.lab.nodes() {
        c.lab.exec(node, ["rm", "-rf", "/usr/lib/clusterctl/examples"])?.ok()?;
    }
    Ok(())
}
