//! Properties: no text and no JSON makes the reader fail in another way than by saying so, and what is written comes back.

#![expect(clippy::unwrap_used, reason = "a test ends at what it did not expect")]

use std::collections::BTreeMap;
use std::path::Path;

use cluster_schemas::app::{App, DatabaseSpec, ExecSpec, Metadata, Mode, Placement, Preference, RingSpec, UnitSpec, VipSpec};
use cluster_schemas::hooks::{HookSpec, HooksSpec};
use cluster_schemas::manifest::{self, Rule};
use cluster_schemas::resources::Resources;
use cluster_schemas::schema::app_schema;
use cluster_schemas::update::{UpdateOrder, UpdateSpec};
use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::Value;

/// Every manifest of the corpus, to be broken in small ways.
fn corpus() -> Vec<String> {
    let mut texts = Vec::new();
    for kind in ["valid", "invalid"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(kind);
        let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        let yaml = paths.iter().filter(|path| path.extension().is_some_and(|extension| extension == "yaml"));
        texts.extend(yaml.map(|path| std::fs::read_to_string(path).unwrap()));
    }
    texts.retain(|text| text.len() < 4096);
    assert!(texts.len() > 50);
    texts
}

/// What the reader says of `text` must be presentable, whatever `text` is.
fn read(text: &str) {
    let Err(found) = manifest::parse("x.yaml", text) else { return };
    assert!(!found.is_empty());
    let lines = text.split_inclusive(['\n', '\r']).count() + 1;
    for problem in &found {
        assert!(problem.line >= 1 && problem.column >= 1 && problem.width >= 1, "{problem:?}");
        assert!(problem.line as usize <= lines, "{problem:?} is behind the end");
        assert!(problem.column as usize <= problem.source.chars().count() + 1, "{problem:?} is beside its line");
        // Whether another line break splits the line is nothing to the reader of a problem; that it is one line is.
        let shown = problem.to_string();
        assert!(shown.lines().count() == 5, "{shown}");
        assert!(!shown.contains(|c: char| c.is_control() && c != '\n'), "{shown:?}");
    }
}

/// Pieces that mean something to YAML or to us.
const PIECES: [&str; 40] = [
    ":", ": ", "- ", "\n", "\n  ", "\t", "{", "}", "[", "]", ",", "&a ", "*a", "!!str ", "!x ", "? ", "|\n", ">-\n", "\"", "'", "#", " #",
    "%", "---\n", "...\n", "<<: ", "~", "null", "\u{feff}", "\0", "\u{85}", "\u{2028}", "${", "}", "\\", "\r", "\r\n", "é", "spec:", "yes",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_read_or_refused(text in any::<String>()) {
        read(&text);
    }

    #[test]
    fn any_pieces_are_read_or_refused(pieces in vec(select(&PIECES[..]), 0..40)) {
        read(&pieces.concat());
    }

    #[test]
    fn broken_manifests_are_read_or_refused(
        file in any::<Index>(),
        edits in vec((any::<Index>(), 0_usize..12, prop_oneof![select(&PIECES[..]).prop_map(str::to_owned), any::<char>().prop_map(String::from)]), 1..5),
    ) {
        let mut text: Vec<char> = file.get(&corpus_once()).chars().collect();
        for (place, length, piece) in edits {
            let start = place.index(text.len() + 1);
            let end = (start + length).min(text.len());
            text.splice(start..end, piece.chars());
        }
        read(&text.into_iter().collect::<String>());
    }
}

fn corpus_once() -> Vec<String> {
    static CORPUS: std::sync::OnceLock<Vec<String>> = std::sync::OnceLock::new();
    CORPUS.get_or_init(corpus).clone()
}

/// JSON that looks a little like an App.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        select(&["cluster/v1", "App", "web", "Ring", "10.0.0.1/24", "/bin/x", "${database.path}", ""][..]).prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    let keys = [
        "apiVersion",
        "kind",
        "metadata",
        "spec",
        "name",
        "labels",
        "mode",
        "unit",
        "exec",
        "command",
        "environment",
        "vip",
        "address",
        "ring",
        "partitions",
        "replicas",
        "placement",
        "nodes",
        "database",
        "path",
        "status",
        "hooks",
        "a/b",
        "~",
    ];
    leaf.prop_recursive(6, 64, 8, move |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            btree_map(select(keys.to_vec()).prop_map(str::to_owned), inner, 0..8)
                .prop_map(|fields| Value::Object(fields.into_iter().collect()))
        ]
    })
}

fn name() -> impl Strategy<Value = String> {
    "[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?"
}

/// A text of one line that may stand in a command.
fn line() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>().prop_map(|text| text.chars().filter(|c| !c.is_control()).collect::<String>().replace("${", "")),
        select(
            &[
                "yes",
                "010",
                "1.10",
                "~",
                "null",
                "",
                " ",
                "- x",
                "# x",
                "a: b",
                "a #b",
                "*x",
                "&x",
                "!x",
                "%x",
                "@x",
                "`x",
                "{}",
                "[]",
                "|",
                ">",
                "? x",
                ": x",
                "<<",
                "=",
                "0x10",
                "1e3",
                ".inf",
                "NaN",
                "12:30:45",
                "2026-11-23",
                "-",
                "--",
                "---",
                "...",
                "'",
                "\"",
                "\\",
                "tab\there",
                "$${x}",
                "${node.address}"
            ][..]
        )
        .prop_map(str::to_owned),
    ]
}

/// Lines, blank and indented ones among them.
fn lines() -> impl Strategy<Value = String> {
    (vec(prop_oneof![line(), line().prop_map(|l| format!("  {l}")), Just(String::new())], 0..6), any::<bool>())
        .prop_map(|(lines, end)| lines.join("\n") + if end { "\n" } else { "" })
}

fn unit() -> impl Strategy<Value = UnitSpec> {
    let content = vec("[A-Za-z]{1,10}=[ -~]{0,30}[!-~]", 0..5).prop_map(|lines| {
        format!("[Service]\nExecStart=/bin/x\n# note\n\n{}\n", lines.join("\n").replace('\\', "/").replace("Type=", "Kind="))
    });
    ("[a-z]{1,10}(@[a-z0-9]{1,5})?([.]service)?", proptest::option::of(content))
        .prop_map(|(name, content)| UnitSpec { name: format!("x-{name}"), content })
}

fn exec() -> impl Strategy<Value = ExecSpec> {
    let absent_or = |pattern: &'static str| proptest::option::of(pattern);
    (
        vec(line(), 0..5),
        btree_map("[A-Z_][A-Z0-9_]{0,10}", line(), 0..5),
        absent_or("[a-z_][a-z0-9_-]{0,10}"),
        absent_or("[0-9]{1,3}|[a-z]{1,5}"),
        absent_or("/[a-z /]{0,10}[a-z]"),
        proptest::option::of("[1-9][0-9]{0,3}M"),
    )
        .prop_map(|(arguments, environment, user, group, working_directory, memory)| ExecSpec {
            command: [vec!["/usr/bin/x".to_owned()], arguments].concat(),
            environment,
            user,
            group: group.map(|g| g.parse::<u32>().map_or(g, |n| n.to_string())),
            working_directory,
            limits: memory.map(|m| ("MemoryMax".to_owned(), m)).into_iter().collect(),
        })
}

fn resources() -> impl Strategy<Value = Resources> {
    let cpu = proptest::option::of("[1-9][0-9]{0,3}m|[1-9][0-9]{0,2}([.][0-9]{1,3})?|0[.][0-9]{0,2}[1-9]");
    let memory = proptest::option::of("[1-9][0-9]{0,12}|[1-9][0-9]{0,4}([.][0-9]{1,3})?(Ki|Mi|Gi|Ti)");
    (cpu, memory).prop_map(|(cpu, memory)| Resources { cpu, memory })
}

fn hook() -> impl Strategy<Value = HookSpec> {
    (vec(line(), 0..3), btree_map("[A-Z_][A-Z0-9_]{0,10}", line(), 0..3), "[1-9][0-9]{0,2}(ms|s)|[1-9]m").prop_map(
        |(arguments, environment, timeout)| HookSpec {
            command: [vec!["/usr/bin/hook".to_owned()], arguments].concat(),
            environment,
            timeout,
        },
    )
}

fn labels() -> impl Strategy<Value = BTreeMap<String, String>> {
    btree_map(
        "[a-z]{1,5}([.][a-z]{1,5}/[a-z]{1,5})?",
        prop_oneof![Just(String::new()), "[A-Za-z0-9]([A-Za-z0-9._-]{0,8}[A-Za-z0-9])?"],
        0..4,
    )
}

/// Keeps what it may not have beside its other fields out of it: an avoided label that is asked for, the same preference twice.
fn placement() -> impl Strategy<Value = Placement> {
    let prefer = proptest::collection::vec((labels(), 1_u8..=100), 0..4);
    let apps = (btree_set(name(), 0..3), btree_set(name(), 0..3));
    let fields = (btree_set(name(), 0..4), labels(), labels(), prefer, apps, proptest::option::of("[a-z]{1,5}([.][a-z]{1,5}/[a-z]{1,5})?"));
    (fields, proptest::option::of(resources())).prop_map(|(fields, resources)| {
        let (nodes, node_selector, mut avoid_labels, prefer, (with, away), spread_by) = fields;
        avoid_labels.retain(|key, value| node_selector.get(key) != Some(value));
        let by_labels: BTreeMap<BTreeMap<String, String>, u8> = prefer.into_iter().filter(|(labels, _)| !labels.is_empty()).collect();
        Placement {
            nodes: nodes.into_iter().collect(),
            node_selector,
            avoid_labels,
            prefer: by_labels.into_iter().map(|(labels, weight)| Preference { labels, weight }).collect(),
            with_apps: with.into_iter().map(|app| format!("with-{app}")).collect(),
            away_from_apps: away.into_iter().map(|app| format!("other-{app}")).collect(),
            spread_by,
            resources,
        }
    })
}

prop_compose! {
    /// An App that breaks no rule.
    fn app()(
        name in name(), labels in labels(), annotations in btree_map("[a-z]{1,5}", lines(), 0..4), resource_version in 0_u64..1 << 53,
        mode in select(&[Mode::Singleton, Mode::Spread, Mode::Replicas, Mode::Ring][..]),
        run in prop_oneof![unit().prop_map(Ok), exec().prop_map(Err)],
        (replicas, capped, partitions) in (1_u32..=1000, any::<bool>(), 1_u16..=4096),
        vip in proptest::option::of((1_u8..=223, 1_u8..=254, "[a-z]{1,4}[0-9]{1,2}([.][0-9]{1,4})?")),
        database in proptest::option::of(("(/[a-z._]{0,6}[a-z]){1,3}", proptest::option::of(0_u64..1 << 53), proptest::option::of(1_u32..=100))),
        placement in placement(),
        hooks in proptest::option::of((proptest::option::of(hook()), proptest::option::of(hook()))),
        max_unavailable in proptest::option::of(1_u32..=1000),
    ) -> App {
        let mut app: App = serde_json::from_value(serde_json::json!({ "apiVersion": "cluster/v1", "kind": "App", "metadata": { "name": "x" }, "spec": {} })).unwrap();
        app.metadata = Metadata { name, labels, annotations, resource_version, ..Metadata::default() };
        let spec = &mut app.spec;
        (spec.unit, spec.exec) = match run { Ok(unit) => (Some(unit), None), Err(exec) => (None, Some(exec)) };
        spec.mode = mode;
        spec.replicas = match mode { Mode::Replicas => Some(replicas), Mode::Ring if capped => Some(replicas), _ => None };
        spec.ring = (mode == Mode::Ring).then_some(RingSpec { partitions });
        spec.vip = vip.filter(|(first, ..)| *first != 127).map(|(first, last, interface)| VipSpec { address: format!("{first}.0.0.{last}/24"), interface });
        spec.database = database.filter(|_| mode == Mode::Singleton).map(|(path, max_lag, confirm)| DatabaseSpec { path: format!("/data{path}"), max_lag, confirm });
        spec.placement = placement;
        spec.hooks = hooks.filter(|_| mode == Mode::Ring).map(|(on_own, on_release)| HooksSpec { on_own, on_release });
        let bounded = |n| if mode == Mode::Singleton { 1 } else { n };
        spec.update = max_unavailable.map(|n| UpdateSpec { order: UpdateOrder::StopFirst, max_unavailable: bounded(n) });
        if mode == Mode::Spread {
            spec.placement.prefer.clear();
            spec.placement.spread_by = None;
        }
        app
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_json_is_read_or_refused(value in any_json()) {
        if let Err(problems) = manifest::from_json(&value) {
            prop_assert!(!problems.is_empty());
        }
    }

    #[test]
    fn what_is_written_comes_back(app in app()) {
        prop_assert_eq!(manifest::validate(&app), []);
        let yaml = manifest::to_yaml(&app);
        let parsed = manifest::parse("x.yaml", &yaml);
        prop_assert!(parsed.is_ok(), "{}\n{}", parsed.unwrap_err(), yaml);
        prop_assert_eq!(&parsed.unwrap()[0].app, &app, "{}", yaml);
        let json = serde_json::to_value(&app).unwrap();
        prop_assert_eq!(manifest::from_json(&json), Ok(app.clone()));
        // JSON is YAML.
        let parsed = manifest::parse("x.json", &json.to_string());
        prop_assert!(parsed.is_ok(), "{}\n{}", parsed.unwrap_err(), json);
        prop_assert_eq!(&parsed.unwrap()[0].app, &app);
    }

    #[test]
    fn another_reader_of_yaml_reads_the_same(app in app()) {
        let json = serde_json::to_value(&app).unwrap();
        let other: Value = serde_saphyr::from_str(&manifest::to_yaml(&app)).unwrap();
        prop_assert_eq!(other, json);
    }

    #[test]
    fn a_field_with_another_name_is_one_problem(app in app(), rename in any::<Index>()) {
        let mut json = serde_json::to_value(&app).unwrap();
        let spec = json["spec"].as_object_mut().unwrap();
        let keys: Vec<String> = spec.keys().filter(|key| *key != "mode").cloned().collect();
        let key = rename.get(&keys);
        let value = spec.remove(key).unwrap();
        spec.insert(format!("{key}x"), value);
        let found = manifest::parse("x.yaml", &manifest::to_yaml_value(&json)).unwrap_err();
        let rules: Vec<Rule> = found.iter().map(|problem| problem.rule).collect();
        prop_assert_eq!(rules, [Rule::UnknownField], "{}", found);
        prop_assert!(found.to_string().contains(&format!("did you mean `{key}`?")), "{}", found);
    }
}

#[test]
fn the_json_schema_accepts_every_valid_app() {
    let schema = jsonschema::validator_for(&app_schema()).unwrap();
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() });
    runner
        .run(&app(), |app| {
            let json = serde_json::to_value(&app).unwrap();
            let errors: Vec<String> = schema.iter_errors(&json).map(|error| format!("{}: {error}", error.instance_path())).collect();
            prop_assert!(errors.is_empty(), "{:?}", errors);
            Ok(())
        })
        .unwrap();
}
