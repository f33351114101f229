//! `create` and `explain`.

use serde_json::{Value, json};

use crate::fake::{Fake, clusterctl};
use crate::world::app;

#[test]
fn a_manifest_of_each_mode_is_printed_and_valid() {
    let folder = tempfile::tempdir().unwrap();
    for (index, (words, parts)) in [
        (&["singleton", "db", "--vip", "10.0.0.100/24", "--interface", "eth0", "--database", "/data/app.db"][..], "mode: Singleton"),
        (&["spread", "api"], "mode: Spread"),
        (&["replicas", "workers", "--replicas", "3"], "replicas: 3"),
        (&["Ring", "cache", "--partitions", "64"], "partitions: 64"),
    ]
    .into_iter()
    .enumerate()
    {
        let arguments = [&["create"], words, &["--dry-run=client", "-o", "yaml", "--", "/usr/bin/x", "--port", "80"]].concat();
        let run = clusterctl("http://127.0.0.1:1", &arguments);
        assert_eq!((run.code, run.err.as_str()), (0, ""), "{words:?}");
        assert!(run.out.contains(parts), "{}", run.out);
        let file = folder.path().join(format!("{index}.yaml"));
        std::fs::write(&file, &run.out).unwrap();
        let valid = clusterctl("http://127.0.0.1:1", &["validate", "-f", &file.to_string_lossy()]);
        assert_eq!((valid.code, valid.err.as_str()), (0, ""), "{}", run.out);
    }
}

#[test]
fn an_app_is_made_once_and_mistakes_are_told() {
    let stored = app("db", "Singleton", Value::Null);
    let made = json!({"outcome": "created", "app": stored});
    let fake = Fake::new().on("PUT /v1/apps/db?onlyNew=true", 200, &made);
    fake.run(&["create", "singleton", "db", "--unit", "nginx"]).prints("app/db created\n");
    let body: Value = serde_json::from_str(&fake.seen().last().unwrap().body).unwrap();
    assert_eq!(body["spec"], json!({"mode": "Singleton", "unit": {"name": "nginx"}}));
    let there = Fake::new().on("GET /v1/apps/db", 200, &stored);
    assert!(there.run(&["create", "singleton", "db", "--unit", "nginx"]).err.starts_with("error: app/db exists\nhint: clusterctl apply"));
    assert_eq!(there.requests(), ["GET /v1/apps/db"], "nothing is written");
    for (arguments, part) in [
        (&["create", "singleton", "db"][..], "what shall it run?"),
        (&["create", "singelton", "db"], "singleton"),
        (&["create", "spread", "DB", "--unit", "x"], "/metadata/name"),
        (&["create", "spread", "db", "--unit", "x", "--replicas", "3"], "/spec/replicas"),
        (&["create", "singleton", "db", "--unit", "x", "--vip", "10.0.0.1/24"], "--interface"),
        (&["explain", "app.spec.vipp"], "did you mean app.spec.vip?"),
        (&["explain", "spec.vip"], "clusterctl explain app.spec.vip"),
        (&["explain", "app.spec", "app.metadata"], "clusterctl explain placement APP"),
        (&["wait", "app/db"], "--for"),
        (&["wait", "--for=Ready", "app/db"], "that is a condition: condition=Ready"),
        (&["wait", "--for=condition=Ready", "apps"], "name it, or say --all"),
        (&["wait", "--for=condition=Ready=yes", "app/db"], "True, False or Unknown"),
    ] {
        let run = clusterctl("http://127.0.0.1:1", arguments);
        assert_eq!((run.code, run.out.as_str()), (2, ""), "{arguments:?}: {}", run.err);
        assert!(run.err.contains(part), "{arguments:?}: {}", run.err);
    }
}

#[test]
fn a_field_is_explained_without_a_cluster() {
    let run = clusterctl("http://127.0.0.1:1", &["explain", "app.spec.vip"]);
    assert_eq!((run.code, run.err.as_str()), (0, ""));
    assert!(run.out.starts_with("FIELD:    app.spec.vip <object>\n") && run.out.contains("  address <string> required"), "{}", run.out);
}

#[test]
fn a_placement_is_explained_by_the_controller() {
    let node = json!({"node": "n1", "fits": false, "rules": [{"rule": "heard", "pass": false}], "prefer": 0, "instances": 2, "change": "bring n1 back"});
    let view = json!({"app": "db", "nodes": [node], "smallestChange": "bring n1 back"});
    let fake = Fake::new().on("GET /v1/apps/db/placement", 200, &view);
    for app in ["db", "app/db"] {
        let run = fake.run(&["explain", "placement", app]);
        assert_eq!((run.code, run.err.as_str()), (0, ""));
        assert!(run.out.contains("FAIL") && run.out.contains("The smallest change: bring n1 back"), "{}", run.out);
    }
    let run = fake.run(&["explain", "placement", "db", "-o", "json"]);
    assert_eq!(serde_json::from_str::<Value>(&run.out).unwrap(), view);
}
