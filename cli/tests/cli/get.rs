//! `get` and `describe`.

use serde_json::{Value, json};

use crate::fake::{Fake, command, run_with_stdin};
use crate::world::{app, assignment, cache, database, list, node};

fn cluster() -> Fake {
    Fake::new()
        .on("GET /v1/apps", 200, &list(&[cache(), database()]))
        .on("GET /v1/apps/database", 200, &database())
        .on("GET /v1/apps/cache", 200, &cache())
        .on("GET /v1/nodes", 200, &list(&[node("n2", "Ready")]))
        .on("GET /v1/nodes/n2", 200, &node("n2", "Ready"))
        .on("GET /v1/assignments", 200, &list(&[assignment("n2")]))
        .on("GET /v1/assignments/n2", 200, &assignment("n2"))
}

#[test]
fn tables() {
    let fake = cluster();
    fake.run(&["get", "apps"]).prints(
        "\
NAME       MODE        READY     STATUS   ACTIVE   VIP          AGE
cache      Ring        256/256   Ready    n1,n2    <none>       100d
database   Singleton   1/1       Ready    n2       10.0.0.100   100d
",
    );
    fake.run(&["get", "app", "database", "-o", "wide", "--no-headers"]).prints(
        "database   Singleton   1/1   Ready   n2   10.0.0.100   100d   1   clusterctl-database.service   \
         Ready=True(Active),Replicated=False(NotImplemented)\n",
    );
    fake.run(&["get", "nodes", "-o", "wide"]).prints(
        "\
NAME   STATUS   ADDRESS    HEARTBEAT   APPS   AGE    VERSION   LABELS   BOOT
n2     Ready    10.0.0.2   0.4s        1      100d   0.1.0     zone=a   2f1c9d3e
",
    );
    fake.run(&["get", "assignments", "-o", "wide"]).prints(
        "\
NODE   TERM   GENERATION   APPS
n2     4      17           database=Active/7
",
    );
}

#[test]
fn several_kinds_name_their_objects_with_the_kind() {
    cluster().run(&["get", "no,app/".trim_end_matches('/'), "--no-headers"]).prints(
        "\
node/n2   Ready   10.0.0.2   0.4s   1   100d   0.1.0

app/cache      Ring        256/256   Ready   n1,n2   <none>       100d
app/database   Singleton   1/1       Ready   n2      10.0.0.100   100d
",
    );
    cluster().run(&["get", "app/database", "node/n2", "-o", "name"]).prints("app/database\nnode/n2\n");
}

#[test]
fn json_and_yaml_are_the_answer_of_the_api() {
    let fake = cluster();
    let read = |text: &str| -> Value { serde_saphyr::from_str(text).unwrap() };
    let of = |arguments: &[&str]| {
        let run = fake.run(arguments);
        assert_eq!((run.code, run.err.as_str()), (0, ""), "{arguments:?}");
        run.out
    };
    let strip = |mut value: Value| {
        // The time differs from call to call of the fixture.
        value["metadata"]["creationTimestamp"] = json!(null);
        value
    };
    for format in ["json", "yaml"] {
        let one = read(&of(&["get", "app", "database", "-o", format]));
        assert_eq!(strip(one), strip(database()), "one object stands alone");
        let all = read(&of(&["get", "apps", "-o", format]));
        let names: Vec<&Value> = all["items"].as_array().unwrap().iter().map(|item| &item["metadata"]["name"]).collect();
        assert_eq!(names, ["cache", "database"]);
        let two = read(&of(&["get", "app/cache", "node/n2", "-o", format]));
        assert_eq!((&two["items"][0]["metadata"]["name"], &two["items"][1]["node"]["name"]), (&json!("cache"), &json!("n2")));
    }
    // Two runs, the same bytes.
    assert_eq!(of(&["get", "apps", "-o", "json"]), of(&["get", "apps", "-o", "json"]));
}

#[test]
fn fields_of_a_newer_controller_are_kept_in_json() {
    let mut newer = database();
    newer["spec"]["tomorrow"] = json!({"z": 1, "a": 2});
    let run = Fake::new().on("GET /v1/apps/database", 200, &newer).run(&["get", "app", "database", "-o", "json"]);
    assert_eq!(serde_json::from_str::<Value>(&run.out).unwrap(), newer);
}

#[test]
fn yaml_of_an_app_can_be_applied_again() {
    let yaml = cluster().run(&["get", "app", "database", "-o", "yaml"]).out;
    run_with_stdin(&mut command(&["validate", "-f", "-"]), &yaml).prints("stdin: 1 App is valid: database\n");
}

#[test]
fn an_answer_that_is_not_understood_is_told() {
    let run = Fake::new().on("GET /v1/apps", 200, &json!({"things": []})).run(&["get", "apps"]);
    assert_eq!((run.code, run.out.as_str()), (1, ""));
    assert!(
        run.err.contains("cannot understand the answer of http://127.0.0.1:") && run.err.contains("missing field `items`"),
        "{}",
        run.err
    );
    assert!(run.err.contains("hint: client and controller may be of different versions"), "{}", run.err);
}

#[test]
fn nothing_there_is_no_failure() {
    let fake = Fake::new().on("GET /v1/apps", 200, &list(&[]));
    let run = fake.run(&["get", "apps"]);
    assert_eq!((run.code, run.out.as_str(), run.err.as_str()), (0, "", "No apps found.\n"));
    fake.run(&["get", "apps", "-o", "json"]).prints("{\n  \"items\": []\n}\n");
    fake.run(&["get", "apps", "-o", "name"]).prints("");
}

#[test]
fn what_does_not_exist_is_told_with_a_suggestion_and_the_rest_is_shown() {
    let fake = cluster();
    fake.run(&["get", "app", "databse"]).fails(1, "error: app/databse does not exist\nhint: did you mean app/database?\n");
    fake.run(&["get", "app", "nginx", "-o", "json"]).fails(1, "error: app/nginx does not exist\n");
    let run = fake.run(&["get", "app", "cache", "nginx", "-o", "name"]);
    assert_eq!((run.code, run.out.as_str(), run.err.as_str()), (1, "app/cache\n", "error: app/nginx does not exist\n"));
    fake.run(&["describe", "node/n22"]).fails(1, "error: node/n22 does not exist\nhint: did you mean node/n2?\n");
}

#[test]
fn a_name_cannot_leave_its_place_in_the_path() {
    let fake = cluster();
    assert_eq!(fake.run(&["get", "app", "..?x#y"]).code, 1);
    assert_eq!(fake.requests()[0], "GET /v1/apps/..%3Fx%23y");
}

#[test]
fn describe_app_puts_status_and_units_together() {
    let run = cluster().run(&["describe", "app", "database"]);
    assert_eq!((run.code, run.err.as_str()), (0, ""));
    for part in [
        "Name:         database\n",
        "Status:       Ready\n",
        "  Replicated   False    <unknown>   NotImplemented   databases are not replicated yet\n",
        "  n2:\n    Role:    Active\n    State:   Running, healthy\n    Epoch:   7\n    VIP:     10.0.0.100/24\n    \
         Unit:    clusterctl-database.service: active (running), pid 4242\n    Reason:  it is there already (Sticky)\n",
    ] {
        assert!(run.out.contains(part), "{part}\nis not in\n{}", run.out);
    }
}

#[test]
fn describe_goes_on_without_what_only_adds_to_it() {
    let fake = Fake::new().on("GET /v1/apps", 200, &list(&[database(), app("fresh", "Spread", Value::Null)])).refuse(
        "GET /v1/nodes",
        500,
        "internal",
        "the cache is broken",
    );
    let run = fake.run(&["describe", "apps"]);
    assert_eq!((run.code, run.err.as_str()), (0, "warning: the units are not shown: the cache is broken (500 internal)\n"));
    assert!(run.out.contains("\n\nName:         fresh\n"), "an empty line between two: {}", run.out);
}

#[test]
fn describe_node_shows_plan_and_observation() {
    let run = cluster().run(&["describe", "node", "n2"]);
    assert_eq!((run.code, run.err.as_str()), (0, ""));
    for part in [
        "Load:        0.35\n",
        "Assignment:  term 4 generation 17\n",
        "  database:\n    Planned:   Active/7\n    Reason:    first of the eligible nodes (Chosen)\n    Observed:  Active, Running, healthy\n",
    ] {
        assert!(run.out.contains(part), "{part}\nis not in\n{}", run.out);
    }
    // A node without a plan is described all the same.
    let fresh = Fake::new().on("GET /v1/nodes/n2", 200, &node("n2", "Ready")).run(&["describe", "node", "n2"]);
    assert_eq!((fresh.code, fresh.err.as_str()), (0, ""));
    assert!(!fresh.out.contains("Planned"), "{}", fresh.out);
}

#[test]
fn templates_and_columns_are_those_of_kubectl() {
    let fake = cluster();
    fake.run(&["get", "apps", "-o", "jsonpath={.items[*].metadata.name}"]).prints("cache database");
    fake.run(&["get", "apps", "-o", r#"jsonpath={range .items[*]}{.metadata.name}{"\t"}{.spec.mode}{"\n"}{end}"#])
        .prints("cache\tRing\ndatabase\tSingleton\n");
    fake.run(&["get", "app", "database", "-o", "jsonpath={.status.conditions[?(@.type=='Ready')].status}"]).prints("True");
    fake.run(&["get", "apps", "--sort-by=.spec.mode", "-o", "custom-columns=NAME:.metadata.name,VIP:.spec.vip.address"])
        .prints("NAME       VIP\ncache      <none>\ndatabase   10.0.0.100/24\n");
    fake.run(&["get", "nodes", "-o", "custom-columns=N:.node.name,Z:.node.labels.zone", "--no-headers"]).prints("n2   a\n");
    fake.run(&["get", "failovers", "-o", "jsonpath={.items}"]).fails(1, "error: there is no GET /v1/failovers (404 not-found)\n");
}

#[test]
fn order_and_labels_choose_rows() {
    let labelled = |name: &str, generation: u32, tier: &str| {
        let mut app = app(name, "Spread", Value::Null);
        app["metadata"]["generation"] = json!(generation);
        app["metadata"]["labels"] = json!({"tier": tier});
        app
    };
    let all = list(&[labelled("a10", 2, "web"), labelled("a2", 10, "web"), labelled("b", 1, "db")]);
    // A controller that does not know selectors answers with everything.
    let fake = Fake::new().on("GET /v1/apps", 200, &all).on("GET /v1/apps?labelSelector=tier%3Dweb", 200, &all);
    fake.run(&["get", "apps", "--sort-by", ".metadata.generation", "-o", "name"]).prints("app/b\napp/a10\napp/a2\n");
    fake.run(&["get", "apps", "--sort-by", "{.metadata.name}", "-l", "tier=web", "-o", "name"]).prints("app/a2\napp/a10\n");
    let table = fake.run(&["get", "apps", "-l", "tier=web", "--no-headers"]);
    assert_eq!((table.code, table.out.lines().count()), (0, 2), "{table:?}");
    let none = Fake::new().on("GET /v1/apps", 200, &list(&[]));
    assert_eq!(none.run(&["get", "apps"]).err, "No apps found.\n");
    none.run(&["get", "apps", "-q"]).prints("");
}

#[test]
fn a_watch_prints_what_changes_and_only_that() {
    let waiting = app("db", "Singleton", crate::world::status("0/1", &[], &[]));
    let mut ready = waiting.clone();
    ready["status"]["ready"] = json!("1/1");
    let other = crate::world::app("other", "Spread", Value::Null);
    let event = |kind: &str, name: &str, revision: &str, object: &Value| {
        let event = json!({"type": kind, "name": name, "resourceVersion": revision, "object": object});
        format!("event: {kind}\nid: {revision}\ndata: {event}\n\n")
    };
    let mut all = list(&[waiting.clone(), other]);
    all["resourceVersion"] = json!("1");
    let changes =
        event("MODIFIED", "db", "2", &waiting) + &event("MODIFIED", "db", "3", &ready) + &event("DELETED", "other", "4", &Value::Null);
    let fake = Fake::new().on("GET /v1/apps", 200, &all).on_text("GET /v1/apps?watch=true&resourceVersion=1", 200, &changes).refuse(
        "GET /v1/apps?watch=true&resourceVersion=4",
        403,
        "forbidden",
        "enough",
    );
    let run = fake.run(&["get", "apps", "-w", "-o", "custom-columns=N:.metadata.name,R:.status.ready"]);
    let rows: Vec<String> = run.out.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(rows, ["N R", "db 0/1", "other <none>", "db 1/1"], "{run:?}");
    assert!(run.code == 1 && run.err.contains("app/other is gone") && run.err.contains("enough"), "{run:?}");
}
