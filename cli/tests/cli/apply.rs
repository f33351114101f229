//! `apply` and `validate`.

use std::path::Path;

use serde_json::{Value, json};

use crate::fake::{Fake, clusterctl, command, run_with_stdin};
use crate::world::{app, manifest};

fn applied(name: &str, outcome: &str) -> Value {
    json!({"outcome": outcome, "app": app(name, "Spread", Value::Null)})
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
    let fake = Fake::new()
        .on("PUT /v1/apps/api", 201, &applied("api", "created"))
        .on("PUT /v1/apps/cache", 200, &applied("cache", "configured"))
        .on("PUT /v1/apps/workers", 200, &applied("workers", "unchanged"));
    fake.run(&["apply", "-f", &file]).prints("app/api created\napp/cache configured\napp/workers unchanged\n");
    let sent: Value = serde_json::from_str(&fake.seen()[0].body).unwrap();
    assert_eq!((&sent["metadata"]["name"], &sent["spec"]["mode"]), (&json!("api"), &json!("Spread")));
}

#[test]
fn stdin_and_folders_are_read() {
    let fake = Fake::new().on("PUT /v1/apps/api", 200, &applied("api", "created")).on("PUT /v1/apps/web", 200, &applied("web", "created"));
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
fn what_the_controller_refuses_is_told_with_its_place_and_the_others_are_applied() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(&folder, "three.yaml", &manifest(&["api", "cache", "workers"]));
    let fake = Fake::new()
        .on("PUT /v1/apps/api", 200, &applied("api", "created"))
        .on(
            "PUT /v1/apps/cache",
            422,
            &json!({"type": "invalid", "title": "Unprocessable Entity", "status": 422, "detail": "App \"cache\" is not valid: all of it",
                    "errors": [{"pointer": "/spec/vip/address", "message": "10.0.0.9/24 is the VIP of App \"web\" already", "hint": "use another"},
                               {"pointer": "/spec/unit/name", "message": "taken"}]}),
        )
        .refuse("PUT /v1/apps/workers", 409, "conflict", "App \"workers\" is being deleted, apply it again when it is gone");
    let run = fake.run(&["apply", "-f", &file]);
    assert_eq!((run.code, run.out.as_str()), (1, "app/api created\n"));
    assert_eq!(
        run.err,
        format!(
            "\
error: app/cache: refused (422 invalid)
  --> {file}:13:9
  /spec/vip/address: 10.0.0.9/24 is the VIP of App \"web\" already
    hint: use another
  /spec/unit/name: taken
error: app/workers: App \"workers\" is being deleted, apply it again when it is gone (409 conflict)
  --> {file}:22:9
"
        )
    );
}

#[test]
fn when_the_controllers_go_away_midway_the_rest_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(&folder, "three.yaml", &manifest(&["api", "cache", "workers"]));
    let fake = Fake::new().on("PUT /v1/apps/api", 200, &applied("api", "created")).on_text("PUT /v1/apps/cache", 0, "");
    let run = fake.run(&["apply", "-f", &file]);
    assert_eq!((run.code, run.out.as_str()), (3, "app/api created\n"));
    assert!(run.err.starts_with("not applied: app/cache, app/workers\nerror: no controller answered\n"), "{}", run.err);
    assert!(run.err.contains(&format!("{}: the connection was closed without an answer", fake.url())), "{}", run.err);
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
