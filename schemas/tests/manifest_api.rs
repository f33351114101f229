//! What the CLI and the controller rely on: places, duplicates over files, bounds, updates, JSON bodies.

use std::fmt::Write as _;
use std::time::Instant;

use cluster_schemas::api::FieldProblem;
use cluster_schemas::app::App;
use cluster_schemas::manifest::{self, Diagnostics, FILE_BYTES_MAX, KEPT_MAX, Rule, SHOWN_MAX};
use serde_json::{Value, json};

fn app(name: &str, mode: &str) -> Value {
    json!({ "apiVersion": "cluster/v1", "kind": "App", "metadata": { "name": name }, "spec": { "mode": mode, "unit": { "name": "nginx" } } })
}

fn yaml(name: &str) -> String {
    format!("apiVersion: cluster/v1\nkind: App\nmetadata:\n  name: {name}\nspec:\n  unit: {{name: nginx}}\n")
}

#[test]
fn an_app_is_found_at_its_name() {
    let text = format!("# first\n{}---\n{}", yaml("web"), yaml("api"));
    let apps = manifest::parse("x.yaml", &text).unwrap();
    let places: Vec<_> = apps.iter().map(|p| (p.app.metadata.name.as_str(), p.file.as_str(), p.line, p.column, &*p.source)).collect();
    assert_eq!(places, [("web", "x.yaml", 5, 9, "  name: web"), ("api", "x.yaml", 12, 9, "  name: api")]);
}

#[test]
fn apps_of_one_name_in_two_files_are_one_problem_with_both_places() {
    let mut apps = manifest::parse("a.yaml", &yaml("web")).unwrap();
    assert!(manifest::check_duplicates(&apps).is_empty());
    apps.extend(manifest::parse("b.yaml", &format!("\n{}", yaml("web"))).unwrap());
    apps.extend(manifest::parse("b.yaml", &yaml("api")).unwrap());
    let found = manifest::check_duplicates(&apps);
    let expected = "error[duplicate-app]: a second App is called `web`\n --> b.yaml:5:9\n  |\n5 |   name: web\n  |         ^^^ the first is at a.yaml:4:9\n\n1 problem in b.yaml";
    assert_eq!(found.to_string(), expected);
    assert_eq!(found.clone().into_result(), Err(found));
}

#[test]
fn places_are_true_behind_every_line_break_and_a_byte_order_mark() {
    for (mark, end) in [("", "\n"), ("", "\r"), ("", "\r\n"), ("\u{feff}", "\n"), ("\u{feff}", "\r\n")] {
        let text = format!("{mark}{}", format!("# ä\n\n{}", yaml("Ä-東-x")).replace('\n', end));
        let found = manifest::parse("x.yaml", &text).unwrap_err();
        let places: Vec<_> = found.iter().map(|p| (p.line, p.column, p.width, &*p.source)).collect();
        assert_eq!(places, [(6, 9, 5, "  name: Ä-東-x")], "{text:?}");
        let found = manifest::parse("x.yaml", &text.replace("Ä-東-x", "'x")).unwrap_err();
        assert_eq!(found.iter().map(|p| (p.line, p.column, p.rule)).collect::<Vec<_>>(), [(6, 9, Rule::Syntax)], "{text:?}");
        let fine = manifest::parse("x.yaml", &text.replace("Ä-東-x", "x")).unwrap();
        assert_eq!((fine[0].line, fine[0].column), (6, 9), "{text:?}");
    }
}

#[test]
fn problems_of_several_files_are_sorted_and_counted() {
    let mut all = Diagnostics::default();
    assert_eq!(all.clone().into_result(), Ok(()));
    for file in ["b.yaml", "a.yaml"] {
        all.merge(manifest::parse(file, "kind: App\nspec: {mode: x, unit: {name: a}}\n").unwrap_err());
    }
    let places: Vec<_> = all.iter().map(|p| (p.file.as_str(), p.line, p.rule)).collect();
    let each = [(1, Rule::MissingField), (1, Rule::MissingField), (2, Rule::UnknownWord)];
    let expected: Vec<_> = ["a.yaml", "b.yaml"].into_iter().flat_map(|file| each.map(|(line, rule)| (file, line, rule))).collect();
    assert_eq!(places, expected);
    assert!(all.to_string().ends_with("\n6 problems in 2 files"), "{all}");
    assert_eq!(all.iter().next().map(|p| (p.pointer.as_str(), p.column, p.width)), Some(("/apiVersion", 1, 4)));
}

#[test]
fn problems_are_bounded_and_all_counted() {
    let mut text = yaml("web");
    for n in 0..KEPT_MAX + 500 {
        writeln!(text, "field{n}: x").unwrap();
    }
    let found = manifest::parse("x.yaml", &text).unwrap_err();
    assert_eq!((found.iter().count(), found.len()), (KEPT_MAX, KEPT_MAX + 500));
    let shown = found.to_string();
    assert_eq!(shown.matches("error[").count(), SHOWN_MAX);
    assert!(shown.ends_with(&format!("\n\n… and {} more\n\n1500 problems in x.yaml", KEPT_MAX + 500 - SHOWN_MAX)), "{shown}");
}

/// Files made to be slow: a debug build takes well under a second for each, a quadratic one would take minutes.
#[test]
fn the_worst_file_is_answered_in_time() {
    let fill = |head: &str, each: &dyn Fn(usize) -> String| {
        let mut text = head.to_owned();
        let mut n = 0;
        while text.len() + 64 < FILE_BYTES_MAX && n < 49_000 {
            text.push_str(&each(n));
            n += 1;
        }
        text
    };
    let head = yaml("web").replace("  unit: {name: nginx}\n", "");
    let unit = format!("{head}  unit: {{name: x}}\n");
    let slow = [
        ("49000 problems", fill(&yaml("web"), &|n| format!("f{n}: x\n"))),
        ("49002 problems", fill(&format!("{head}  exec:\n    command: [/bin/x]\n    environment:\n"), &|n| format!("      {n}: x\n"))),
        ("49001 problems", fill(&format!("{unit}  placement:\n    nodes:\n"), &|n| format!("      - N{n}\n"))),
        ("error[too-many-values]", fill(&format!("{unit}  x: &a ["), &|_| "a, ".to_owned()) + "]\n  y: [*a, *a, *a]\n"),
        ("error[too-deep]", fill(&format!("{unit}  x: "), &|_| "[".to_owned())),
        ("error[syntax]", fill("", &|n| format!("&a{n} "))),
        ("error[too-many-documents]", fill("", &|_| "---\n- x\n".to_owned())),
        ("expected a mapping, found the text `", fill("\"", &|_| "\\x01\\u00e4".to_owned()) + "\""),
        ("bytes here, and at most 65536", fill(&format!("{head}  unit:\n    name: x\n    content: |\n"), &|_| "      x\n".to_owned())),
        ("1 Apps", fill(&unit, &|_| "# comment\n".to_owned())),
    ];
    for (expected, text) in slow {
        let start = Instant::now();
        let found = manifest::parse("x.yaml", &text).map_or_else(|found| found.to_string(), |apps| format!("{} Apps", apps.len()));
        let took = start.elapsed();
        assert!(found.contains(expected), "{expected}: {}", found.chars().take(300).collect::<String>());
        assert!(took.as_secs() < 5, "{took:?} for {expected}");
    }
}

#[test]
fn what_cannot_be_changed_is_said_at_its_field() {
    let parse = |value: Value| -> App { manifest::from_json(&value).unwrap() };
    let ring = |partitions: u16| {
        let mut value = app("web", "Ring");
        value["spec"]["ring"] = json!({ "partitions": partitions });
        parse(value)
    };
    let pointers = |old: &App, new: &App| manifest::validate_update(old, new).into_iter().map(|p| p.pointer).collect::<Vec<_>>();
    assert_eq!(pointers(&ring(8), &ring(8)), [""; 0]);
    assert_eq!(pointers(&ring(8), &ring(9)), ["/spec/ring/partitions"]);
    assert_eq!(pointers(&parse(app("web", "Ring")), &ring(256)), [""; 0], "the default is 256");
    assert_eq!(pointers(&ring(8), &parse(app("web", "Spread"))), ["/spec/mode"], "that the partitions are gone is no news then");
    let problem = manifest::validate_update(&ring(8), &ring(9)).remove(0);
    assert_eq!(problem.message, "the number of partitions cannot be changed, from 8 to 9");
    assert!(problem.hint.is_some());
}

#[test]
fn a_json_body_gets_defaults_and_loses_what_only_the_server_sets() {
    let mut value = app("web", "Ring");
    value["metadata"]["uid"] = json!("1");
    value["metadata"]["generation"] = json!("not even a number");
    value["metadata"]["creationTimestamp"] = Value::Null;
    value["metadata"]["deletionTimestamp"] = json!("2026-11-23T07:00:00Z");
    value["metadata"]["resourceVersion"] = json!(17);
    value["status"] = json!({ "anything": [] });
    let app = manifest::from_json(&value).unwrap();
    assert_eq!((app.metadata.uid.as_str(), app.metadata.generation, app.metadata.resource_version), ("", 0, 17));
    assert!(!app.is_deleted() && app.metadata.creation_timestamp.is_none());
    assert_eq!(app.spec.ring.map(|ring| ring.partitions), Some(256));
}

#[test]
fn a_json_body_is_strict_about_types_and_points_at_every_problem() {
    let mut value = app("web", "Replicas");
    value["spec"] = json!({
        "mode": "Replicas", "replicas": "3", "exec": { "command": ["/bin/x", 80], "environment": { "A": 1.10, "a/b": "x", "C": true } }, "services": {}
    });
    let problem = |pointer: &str, message: &str, hint: Option<&str>| FieldProblem {
        pointer: pointer.to_owned(),
        message: message.to_owned(),
        hint: hint.map(str::to_owned),
    };
    let quotes = Some("put it in quotes");
    assert_eq!(
        manifest::from_json(&value).unwrap_err(),
        [
            problem("/spec/exec/command/1", "expected text, found the number `80`", quotes),
            problem("/spec/exec/environment/A", "expected text, found the number `1.1`", quotes),
            problem("/spec/exec/environment/C", "expected text, found the boolean `true`", quotes),
            problem("/spec/replicas", "expected a whole number, found the text `\"3\"`", Some("write 3 without quotes")),
            problem("/spec/services", "`spec.services` is not implemented yet", Some("leave it out")),
            problem("/spec/exec/environment/a~1b", "`a/b` is no name of a variable", Some("letters, digits and `_`, the first no digit")),
        ]
    );
    assert_eq!(manifest::from_json(&json!([])).unwrap_err(), [problem("", "expected a mapping, found a list", None)]);
    let deep = (0..40).fold(Value::Null, |inner, _| json!([inner]));
    assert_eq!(manifest::from_json(&deep).unwrap_err(), [problem("", "the body is nested deeper than 32 levels", None)]);
}

#[test]
fn a_printed_list_can_be_applied() {
    let list = json!({ "items": [app("web", "Spread"), app("Api", "Ring")] });
    let found = manifest::parse("x.yaml", &manifest::to_yaml_value(&list)).unwrap_err();
    assert_eq!(found.iter().map(|p| (p.rule, p.pointer.as_str(), p.line)).collect::<Vec<_>>(), [(Rule::Name, "/metadata/name", 13)]);
    let apps = manifest::parse("x.yaml", &manifest::to_yaml_value(&list).replace("Api", "api")).unwrap();
    assert_eq!(apps.iter().map(|p| (p.app.metadata.name.as_str(), p.line)).collect::<Vec<_>>(), [("web", 5), ("api", 13)]);
    assert!(manifest::parse("x.yaml", "items: []").unwrap().is_empty());
    // One body of the API is one App.
    assert!(manifest::from_json(&list).is_err());
}

#[test]
fn null_is_absent_where_a_field_may_be() {
    let text = yaml("web") + "  mode: ~\n  ring:\n  placement: null\n  vip: Null\n";
    let apps = manifest::parse("x.yaml", &text).unwrap();
    assert_eq!(manifest::parse("x.yaml", &yaml("web")).unwrap()[0].app, apps[0].app);
}

#[test]
fn validation_of_a_finished_app_needs_no_text() {
    let mut app = manifest::from_json(&app("web", "Spread")).unwrap();
    assert_eq!(manifest::validate(&app), []);
    app.spec.replicas = Some(0);
    app.metadata.name = "Web".to_owned();
    let pointers: Vec<String> = manifest::validate(&app).into_iter().map(|p| p.pointer).collect();
    assert_eq!(pointers, ["/metadata/name", "/spec/replicas", "/spec/replicas"]);
}

#[test]
fn any_value_is_written_as_yaml() {
    assert_eq!(
        manifest::to_yaml_value(&json!({ "items": [{ "a": 1, "b": "1" }, null, true] })),
        "items:\n  - a: 1\n    b: \"1\"\n  - null\n  - true\n"
    );
    assert_eq!(manifest::to_yaml_value("text"), "text\n");
}
