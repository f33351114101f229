//! Bad input: refused before anything is stored, with the place and the reason.

use std::net::SocketAddr;
use std::time::Duration;

use cluster_e2e::{CONTROLLER_PORT, NodeId, Result};

use crate::cluster::{Cluster, SOON, demo_app};
use crate::http::{self, Reply};

/// Unknown field, wrong type, bad address: exit code 2 and FILE:LINE:COLUMN; the good document of the same file is not stored either.
pub fn bad_manifests_are_refused_with_their_place_and_nothing_is_stored(c: &Cluster) -> Result<()> {
    let good = demo_app("good", "Spread", 8100, "");
    let head = "apiVersion: cluster/v1\nkind: App\nmetadata:\n  name: bad\nspec:\n";
    // (what follows the head, line and column of the mistake counted from the head, words of the message)
    let cases = [
        ("  mode: Spread\n  exec:\n    comand: [/bin/true]\n", (8, 5), "comand"),
        ("  mode: Replicas\n  replicas: many\n  exec: { command: [/bin/true] }\n", (7, 13), "replicas"),
        ("  exec: { command: [/bin/true] }\n  vip: { address: 10.0.0.300/24, interface: eth0 }\n", (7, 19), "10.0.0.300"),
        ("  mode: Spread\n  exec: /bin/true\n", (7, 9), "exec"),
        ("  mode: Sprad\n  exec: { command: [/bin/true] }\n", (6, 9), "Sprad"),
    ];
    for (rest, (line, column), word) in cases {
        let file = c.file(&format!("{good}{head}{rest}"));
        let ran = c.ctl(&["apply", "-f", &file])?;
        let place = format!("{file}:{}:{column}", line + good.lines().count());
        assert_eq!((ran.code, ran.stdout.as_str()), (2, ""), "{rest}: {}", ran.stderr);
        assert!(ran.stderr.contains(&place) && ran.stderr.contains(word), "no {place} or {word} in {}", ran.stderr);
        assert!(ran.stderr.contains("nothing was sent"), "{}", ran.stderr);
        assert!(c.apps()?.is_empty(), "something was stored");
    }
    // A file that is not there, and one that is no YAML.
    let ran = c.ctl(&["apply", "-f", "/nonexistent.yaml"])?;
    assert!(ran.code == 2 && ran.stderr.contains("/nonexistent.yaml"), "{ran:?}");
    let ran = c.ctl(&["apply", "-f", &c.file("spec: [1, 2\n")])?;
    assert!(ran.code == 2 && ran.stderr.contains(".yaml:"), "{ran:?}");
    Ok(())
}

/// What `clusterctl` would never send: the API says what is wrong as a problem document, and stores nothing.
pub fn bad_requests_to_the_api_are_refused_with_a_reason(c: &Cluster) -> Result<()> {
    let token = c.lab.read(1, "/etc/clusterctl/token")?.trim().to_owned();
    let addr = SocketAddr::from((NodeId::from(1).addr(), CONTROLLER_PORT));
    let ask = |method: &str, path: &str, token: Option<&str>, body: &str| -> Result<Reply> {
        let headers: Vec<String> = token.map(|token| format!("Authorization: Bearer {token}")).into_iter().collect();
        let limit = Duration::from_secs(10);
        Ok(c.lab.as_client(|| http::request(addr, method, path, &headers, body, limit))?.unwrap())
    };
    let app = |spec: &str, version: u64| {
        format!(r#"{{"apiVersion":"cluster/v1","kind":"App","metadata":{{"name":"a","resourceVersion":{version}}},"spec":{spec}}}"#)
    };
    let good = r#"{"mode":"Spread","exec":{"command":["/usr/lib/clusterctl/demo","--listen","0.0.0.0:8100"]}}"#;

    // Each problem with a pointer to its place.
    let bad =
        r#"{"mode":"Replicas","replicas":"many","exec":{"command":["/bin/true"],"shell":true},"vip":{"address":"x","interface":"eth0"}}"#;
    let reply = ask("PUT", "/v1/apps/a", Some(&token), &app(bad, 0))?;
    assert_eq!(reply.status, 422, "{}", reply.body);
    assert!(reply.head.contains("content-type: application/problem+json"), "{}", reply.head);
    let problem = reply.json();
    assert_eq!(problem["status"], 422);
    let pointers: Vec<&str> = problem["errors"].as_array().unwrap().iter().map(|e| e["pointer"].as_str().unwrap()).collect();
    for pointer in ["/spec/replicas", "/spec/exec/shell", "/spec/vip/address"] {
        assert!(pointers.contains(&pointer), "{pointer} is not among {pointers:?}");
    }

    // No JSON, another name, no such thing, another method, far too large.
    assert_eq!(ask("PUT", "/v1/apps/a", Some(&token), "{")?.status, 400);
    assert_eq!(ask("PUT", "/v1/apps/b", Some(&token), &app(good, 0))?.status, 400);
    assert_eq!(ask("GET", "/v1/apps/a", Some(&token), "")?.status, 404);
    assert_eq!(ask("POST", "/v1/apps/a", Some(&token), "")?.status, 405);
    assert_eq!(ask("PUT", "/v1/apps/a", Some(&token), &" ".repeat(2 << 20))?.status, 413);

    // Without the token, or with another.
    for token in [None, Some("0123456789abcdef0123456789abcdef")] {
        for (method, path) in [("GET", "/v1/apps"), ("PUT", "/v1/apps/a"), ("DELETE", "/v1/apps/a")] {
            let reply = ask(method, path, token, &app(good, 0))?;
            assert_eq!((reply.status, reply.json()["status"].as_u64()), (401, Some(401)), "{method} {path}");
        }
    }
    assert_eq!(ask("GET", "/healthz", None, "")?.status, 200);
    let ran = c.lab.client(["sh", "-c", "CLUSTERCTL_TOKEN_FILE=/dev/null clusterctl get apps"])?;
    assert_ne!(ran.code, 0, "{ran:?}");
    assert!(c.apps()?.is_empty(), "something was stored");

    // A write that stands on another version than the stored one.
    let created = ask("PUT", "/v1/apps/a", Some(&token), &app(good, 0))?;
    assert_eq!(created.status, 201, "{}", created.body);
    let version = created.json()["app"]["metadata"]["resourceVersion"].as_u64().unwrap();
    let changed = good.replace("8100", "8101");
    let reply = ask("PUT", "/v1/apps/a", Some(&token), &app(&changed, version + 1))?;
    assert_eq!(reply.status, 409, "{}", reply.body);
    assert!(reply.body.contains(&version.to_string()), "{}", reply.body);
    let reply = ask("PUT", "/v1/apps/a", Some(&token), &app(&changed, version))?;
    assert_eq!(reply.status, 200, "{}", reply.body);
    let reply = ask("PUT", "/v1/apps/a", Some(&token), &app(good, version))?;
    assert_eq!(reply.status, 409, "the second of two writes on the same version: {}", reply.body);
    assert!(c.app("a")?.spec.exec.unwrap().command.join(" ").contains("8101"));
    Ok(())
}

/// A VIP or unit has one App: the second one is refused when it is applied, and told whose it is.
pub fn a_vip_or_unit_of_another_app_is_refused_with_its_name(c: &Cluster) -> Result<()> {
    c.apply(&demo_app("first", "Singleton", 8100, "vip: { address: 10.0.0.120/24, interface: eth0 }"))?;
    c.apply("apiVersion: cluster/v1\nkind: App\nmetadata: { name: web }\nspec: { mode: Singleton, unit: { name: nginx } }\n")?;
    c.wait_ready(&["first", "web"], SOON)?;

    let second = demo_app("second", "Singleton", 8101, "vip: { address: 10.0.0.120/16, interface: eth0 }");
    let ran = c.ctl(&["apply", "-f", &c.file(&second)])?;
    assert!(ran.code == 1 && ran.stderr.contains("first") && ran.stderr.contains("10.0.0.120"), "{ran:?}");
    let second = "apiVersion: cluster/v1\nkind: App\nmetadata: { name: second }\nspec: { mode: Spread, unit: { name: nginx.service } }\n";
    let ran = c.ctl(&["apply", "-f", &c.file(second)])?;
    assert!(ran.code == 1 && ran.stderr.contains("web") && ran.stderr.contains("nginx.service"), "{ran:?}");
    assert_eq!(c.apps()?.into_keys().collect::<Vec<_>>(), ["first", "web"]);

    // When the other lets go, it can be had.
    c.delete(&["web"])?;
    c.apply(second)?;
    c.wait_ready(&["second"], SOON)
}
