//! `apply` and `validate`.

use std::path::Path;

use serde_json::{Value, json};

use crate::fake::{Fake, clusterctl, command, run_with_stdin};
use crate::world::{app, manifest};

fn applied(results: &[(&str, &str)]) -> Value {
    let results: Vec<Value> = results.iter().map(|(name, outcome)| json!({"name": name, "outcome": outcome, "generation": 1})).collect();
    json!({ "results": results })
}

fn write(folder: &tempfile::TempDir, name: &str, text: &str) -> String {
    let path = folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn each_app_gets_a_line_with_what_became_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(&folder, "three.yaml", &manifest(&["api", "cache", "workers"]));
    let fake = Fake::new().on("POST /v1/apply", 200, &applied(&[("api", "created"), ("cache", "configured"), ("workers", "unchanged")]));
    fake.run(&["apply", "-f", &file]).prints("app/api created\napp/cache configured\napp/workers unchanged\n");
    let sent: Value = serde_json::from_str(&fake.seen()[0].body).unwrap();
    assert_eq!((&sent["apps"][0]["metadata"]["name"], &sent["apps"][0]["spec"]["mode"]), (&json!("api"), &json!("Spread")));
}

#[test]
fn stdin_and_folders_are_read() {
    let fake = Fake::new().on("POST /v1/apply", 200, &applied(&[("api", "created")])).on(
        "POST /v1/apply",
        200,
        &applied(&[("api", "created"), ("web", "created")]),
    );
    let mut from_stdin = command(&["apply", "-f", "-", "--server", &fake.url()]);
    run_with_stdin(&mut from_stdin, &manifest(&["api"])).prints("app/api created\n");
    let folder = tempfile::tempdir().unwrap();
    write(&folder, "b.json", r#"{"apiVersion":"cluster/v1","kind":"App","metadata":{"name":"web"},"spec":{"unit":{"name":"nginx"}}}"#);
    write(&folder, "a.yml", &manifest(&["api"]));
    fake.run(&["apply", "-f", folder.path().to_str().unwrap()]).prints("app/api created\napp/web created\n");
}

#[test]
fn one_bad_file_and_nothing_is_sent() {
    let folder = tempfile::tempdir().unwrap();
    let good = write(&folder, "good.yaml", &manifest(&["api"]));
    let bad = write(&folder, "bad.yaml", &manifest(&["cache"]).replace("mode: Spread", "mode: Spraed"));
    let worse = write(&folder, "worse.yaml", "apiVersion: cluster/v1\nkind: [\n");
    let fake = Fake::new();
    let run = fake.run(&["apply", "-f", &good, "-f", &bad, "-f", &worse]);
    assert_eq!((run.code, run.out.as_str()), (2, ""));
    assert!(
        run.err.contains("bad.yaml:6:") && run.err.contains("Spread") && run.err.contains("worse.yaml:"),
        "all problems at once: {}",
        run.err
    );
    assert!(run.err.starts_with("error[") && run.err.ends_with("2 problems in 2 files\nnothing was sent\n"), "{}", run.err);
    assert_eq!(fake.requests(), Vec::<String>::new());
}

#[test]
fn what_the_controller_refuses_is_told_with_its_place_and_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(&folder, "three.yaml", &manifest(&["api", "cache", "workers"]));
    let errors = json!([
        {"pointer": "/apps/1/spec/vip/address", "message": "10.0.0.9/24 is the VIP of App \"web\" already", "hint": "use another"},
        {"pointer": "/apps/2/metadata/name", "message": "App \"workers\" belongs to the set \"two\""},
        {"pointer": "/options/set", "message": "no name"},
    ]);
    let problem = json!({"type": "invalid", "title": "Unprocessable Entity", "status": 422, "detail": "all of it", "errors": errors});
    let fake = Fake::new().on("POST /v1/apply", 422, &problem).on("POST /v1/plan", 422, &problem);
    let told = format!(
        "\
error: refused (422 invalid), nothing was written
error: app/cache: /spec/vip/address: 10.0.0.9/24 is the VIP of App \"web\" already
  --> {file}:13:9
  hint: use another
error: app/workers: /metadata/name: App \"workers\" belongs to the set \"two\"
  --> {file}:22:9
error: /options/set: no name
"
    );
    fake.run(&["apply", "-f", &file]).fails(1, &told);
    fake.run(&["diff", "-f", &file]).fails(2, &told);
}

#[test]
fn one_that_fails_is_named_and_the_others_are_written() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(&folder, "two.yaml", &manifest(&["api", "cache"]));
    let results = json!({"warnings": ["App \"api\" belongs to the set \"one\""], "results": [
        {"name": "api", "outcome": "created", "generation": 1},
        {"name": "cache", "error": "somebody else wrote in between"},
        {"name": "old", "deleted": true},
    ]});
    let run = Fake::new().on("POST /v1/apply", 200, &results).run(&["apply", "-f", &file]);
    assert_eq!((run.code, run.out.as_str()), (1, "app/api created\napp/old deleted\n"));
    assert_eq!(run.err, "warning: App \"api\" belongs to the set \"one\"\nerror: app/cache: somebody else wrote in between\n");
}

#[test]
fn when_no_controller_answers_the_apps_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(&folder, "two.yaml", &manifest(&["api", "cache"]));
    let fake = Fake::new().on_text("POST /v1/apply", 0, "").on_text("POST /v1/plan", 0, "");
    let run = fake.run(&["apply", "-f", &file]);
    assert_eq!((run.code, run.out.as_str()), (3, ""));
    assert!(run.err.starts_with("not known whether applied: app/api, app/cache\nerror: no controller answered\n"), "{}", run.err);
    assert_eq!(fake.run(&["diff", "-f", &file]).code, 2, "no difference may be taken for a failure, nor the other way round");
}

fn plan(change: &str) -> Value {
    let fields = if change == "changed" { json!([{"pointer": "/spec/replicas", "before": 3, "after": 5}]) } else { json!([]) };
    json!({"apps": [{"name": "api", "change": change, "fields": fields}], "effects": {}, "basis": {"revisions": {"api": 7}, "hash": "0123456789abcdef"}})
}

#[test]
fn a_difference_has_its_own_exit_code_and_can_be_kept_and_carried_out() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(&folder, "one.yaml", &manifest(&["api"]));
    Fake::new().on("POST /v1/plan", 200, &plan("unchanged")).run(&["diff", "-f", &file]).prints("");
    let fake = Fake::new().on("POST /v1/plan", 200, &plan("changed")).on("POST /v1/apply", 200, &applied(&[("api", "configured")]));
    let kept = folder.path().join("plan.json").to_str().unwrap().to_owned();
    let run = fake.run(&["diff", "-f", &file, "--set", "one", "--prune", "--max-delete", "3", "--source-revision", "abc", "--save", &kept]);
    assert_eq!((run.code, run.err.as_str()), (1, ""));
    assert_eq!(run.out, "app/api changed\n  spec.replicas: 3 -> 5\n0 created, 1 changed, 0 deleted, 0 unchanged\n");
    let options: Value = serde_json::from_str(&fake.seen()[0].body).unwrap();
    assert_eq!(options["options"], json!({"set": "one", "prune": true, "maxDelete": "3", "sourceRevision": "abc"}));
    let printed = fake.run(&["apply", "--dry-run=server", "-f", &file, "-o", "json"]);
    assert_eq!((printed.code, serde_json::from_str::<Value>(&printed.out).unwrap()["kind"].as_str()), (0, Some("Plan")));
    fake.run(&["apply", "--plan", &kept]).prints("app/api configured\n");
    let sent: Value = serde_json::from_str(&fake.seen().last().unwrap().body).unwrap();
    assert_eq!((&sent["basis"], &sent["options"]["set"]), (&plan("changed")["basis"], &json!("one")));
    let run = fake.run(&["apply", "--plan", &file]);
    assert!(run.code == 2 && run.err.contains("is no saved plan"), "{}", run.err);
}

#[test]
fn a_client_dry_run_asks_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(&folder, "one.yaml", &manifest(&["api"]));
    clusterctl("http://127.0.0.1:1", &["apply", "--dry-run=client", "-f", &file]).prints("app/api valid (client dry run)\n");
}

#[test]
fn an_apply_waits_for_what_it_applied() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(&folder, "one.yaml", &manifest(&["api"]));
    let app = |generation: u64, ready: &str| {
        let mut app = app("api", "Spread", Value::Null);
        app["status"] = json!({"observedGeneration": generation, "ready": "0/1", "instances": [],
            "conditions": [{"type": "Ready", "status": ready, "reason": "Waits", "message": "for n1"}]});
        app
    };
    let results = json!({"results": [{"name": "api", "outcome": "configured", "generation": 2}, {"name": "old", "deleted": true}]});
    let fake = || Fake::new().on("POST /v1/apply", 200, &results);
    // An earlier spec that is Ready is not what was applied.
    let good = fake().on("GET /v1/apps/api", 200, &app(1, "True")).on("GET /v1/apps/api", 200, &app(2, "False")).on(
        "GET /v1/apps/api",
        200,
        &app(2, "True"),
    );
    good.run(&["apply", "--wait", "-f", &file]).prints("app/api configured\napp/old deleted\n");
    let bad = fake().on("GET /v1/apps/api", 200, &app(2, "False")).run(&["apply", "--wait", "--timeout", "500ms", "-f", &file]);
    assert_eq!((bad.code, bad.err.as_str()), (4, "error: app/api is not Ready after 0 s: Waits: for n1\n"));
}

#[test]
fn sets_are_listed() {
    let list = json!({"items": [{"name": "one", "apps": ["a", "b"], "sourceRevision": "abc"}, {"name": "two", "apps": ["c"]}]});
    let fake = Fake::new().on("GET /v1/sets", 200, &list);
    fake.run(&["get", "sets"]).prints("NAME   COUNT   SOURCE   APPS\none    2       abc      a,b\ntwo    1       <none>   c\n");
    fake.run(&["get", "sets", "two", "-o", "name"]).prints("set/two\n");
}

#[test]
fn files_that_are_not_there_or_have_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let run = clusterctl("", &["apply", "-f", &format!("{path}/no.yaml")]);
    assert_eq!(run.code, 2);
    assert!(run.err.starts_with(&format!("error: cannot read {path}/no.yaml: No such file")), "{}", run.err);
    clusterctl("", &["apply", "-f", path]).fails(
        2,
        &format!("error: no *.yaml, *.yml or *.json in the folder {path}\nhint: -R reads the folders within it too\nnothing was sent\n"),
    );
    let empty = write(&folder, "empty.yaml", "---\n# nothing\n");
    assert_eq!(clusterctl("", &["apply", "-f", &empty]).code, 2);
}

#[test]
fn validate_needs_no_cluster() {
    let folder = tempfile::tempdir().unwrap();
    let two = write(&folder, "two.yaml", &manifest(&["api", "cache"]));
    let one = write(&folder, "one.yaml", &manifest(&["web"]));
    clusterctl("http://127.0.0.1:1", &["validate", "-f", &two, "-f", &one])
        .prints(&format!("{one}: 1 App is valid: web\n{two}: 2 Apps are valid: api, cache\n"));
    let twin = write(&folder, "twin.yaml", &manifest(&["web"]));
    let run = clusterctl("", &["validate", "-f", &one, "-f", &twin]);
    assert_eq!(run.code, 2);
    assert!(run.err.contains("one.yaml") && run.err.contains("twin.yaml"), "{}", run.err);
}

#[test]
fn fmt_prints_checks_and_writes_the_canonical_form_with_its_comments() {
    let folder = tempfile::tempdir().unwrap();
    let written =
        "# Ours.\nkind: App # of two\napiVersion: cluster/v1\nmetadata: {name: web}\nspec: {mode: Spread, exec: {command: [/bin/web]}}\n";
    let canonical = "# Ours.\napiVersion: cluster/v1\nkind: App # of two\nmetadata:\n  name: web\nspec:\n  mode: Spread\n  exec:\n    \
                     command:\n      - /bin/web\n  standby: Cold\n";
    let canonical = canonical.replace("# Ours.\napiVersion: cluster/v1\n", "apiVersion: cluster/v1\n# Ours.\n");
    let file = write(&folder, "web.yaml", written);
    clusterctl("", &["fmt", "-f", &file]).prints(&canonical);
    let run = clusterctl("", &["fmt", "--check", "-f", &file]);
    assert_eq!((run.code, run.out), (1, format!("{file}\n")));
    clusterctl("", &["fmt", "--write", "-f", &file]).prints(&format!("{file} formatted\n"));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), canonical);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left");
    clusterctl("", &["fmt", "--check", "-f", &file]).prints("");
    // Nothing is written if anything is wrong, or cannot be written.
    let bad = write(&folder, "bad.yaml", "kind: App\nspec: {modus: Spread}\n");
    let other = write(&folder, "other.yaml", &manifest(&["other"]));
    let run = clusterctl("", &["fmt", "-w", "-f", &other, "-f", &bad]);
    assert!(run.code == 2 && run.err.contains("bad.yaml:2:8"), "{}", run.err);
    let json = write(&folder, "a.json", &written.replace("# Ours.\n", "").replace(" # of two", ""));
    let run = clusterctl("", &["fmt", "-w", "-f", &other, "-f", &json]);
    assert!(run.code == 2 && run.err.contains("a.json cannot be written back: the canonical form is YAML"), "{}", run.err);
    assert_eq!(std::fs::read_to_string(&other).unwrap(), manifest(&["other"]));
}

#[test]
fn the_manifests_of_this_repository_are_valid() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "yaml") {
            let run = clusterctl("", &["validate", "-f", path.to_str().unwrap()]);
            assert_eq!((run.code, run.err.as_str()), (0, ""), "{}", path.display());
            count += 1;
        }
    }
    assert!(count >= 5, "one for each mode, and the platform; found {count}");
}
