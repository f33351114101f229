use std::time::Instant;

use cluster_schemas::Metadata;
use cluster_schemas::manifest::parse;
use cluster_schemas::plan::FieldChange;
use serde_json::json;

use super::*;
use crate::world::SharedWorld;

fn app(name: &str, more: &str) -> App {
    let text = format!(
        "apiVersion: cluster/v1\nkind: App\nmetadata: {{name: {name}}}\nspec: {{mode: Spread, exec: {{command: [/bin/true]}}{more}}}\n"
    );
    parse("test", &text).expect("a valid manifest").remove(0).app
}

fn stored(name: &str, set: Option<&str>, revision: u64) -> App {
    let mut app = app(name, "");
    (app.metadata.uid, app.metadata.generation, app.metadata.resource_version) = (format!("uid-{name}"), 1, revision);
    app.metadata.set = set.map(ToOwned::to_owned);
    app
}

fn world(apps: impl IntoIterator<Item = App>) -> World {
    let mut world = SharedWorld::new(Instant::now()).into_inner();
    world.apps = Some(apps.into_iter().map(|a| (a.metadata.name.clone(), a)).collect());
    world
}

fn request(apps: Vec<App>, options: PlanOptions) -> PlanRequest {
    PlanRequest { apps, options, basis: None }
}

fn set(name: &str) -> PlanOptions {
    PlanOptions { set: Some(name.to_owned()), prune: true, ..PlanOptions::default() }
}

fn made(world: &World, request: &PlanRequest) -> Plan {
    plan(world, request, 350, Instant::now()).expect("a plan")
}

fn changes(plan: &Plan) -> Vec<(&str, Change)> {
    plan.apps.iter().map(|a| (a.name.as_str(), a.change)).collect()
}

#[test]
fn what_is_so_already_is_unchanged_whatever_the_commit() {
    let world = world([stored("a", None, 7)]);
    let options = PlanOptions { source_revision: Some("abc".to_owned()), ..PlanOptions::default() };
    let plan = made(&world, &request(vec![app("a", "")], options));
    assert_eq!((changes(&plan), plan.changes()), (vec![("a", Change::Unchanged)], false));
    assert_eq!(plan.basis.revisions, BTreeMap::from([("a".to_owned(), 7)]));
    assert!(plan.effects.is_empty(), "not even that they are not known: there are none");
}

#[test]
fn a_set_is_pruned_and_others_are_not_touched() {
    let world = world([stored("a", Some("one"), 1), stored("b", Some("one"), 2), stored("c", Some("two"), 3), stored("d", None, 4)]);
    let plan = made(&world, &request(vec![app("a", ""), app("n", "")], set("one")));
    assert_eq!(changes(&plan), [("a", Change::Unchanged), ("b", Change::Deleted), ("n", Change::Created)]);
    assert_eq!(plan.basis.revisions.keys().map(String::as_str).collect::<Vec<_>>(), ["a", "b", "n"]);
    let kept = made(&world, &request(vec![app("a", "")], PlanOptions { prune: false, ..set("one") }));
    assert_eq!(changes(&kept), [("a", Change::Unchanged)]);
}

#[test]
fn too_many_deletions_are_refused_and_shown() {
    let all: Vec<App> = (0..8).map(|n| stored(&format!("a{n}"), Some("one"), n + 1)).collect();
    let world = world(all);
    let refused = |keep: usize, most: Option<&str>| {
        let apps = (0..keep).map(|n| app(&format!("a{n}"), "")).collect();
        let options = PlanOptions { max_delete: most.map(ToOwned::to_owned), ..set("one") };
        made(&world, &request(apps, options)).refusals.join("; ")
    };
    assert_eq!([refused(6, None), refused(5, Some("3")), refused(1, Some("100%"))], [const { String::new() }; 3]);
    let text = refused(5, None);
    assert!(text.contains("3 of the 8 Apps of the set \"one\" would be deleted (a5, a6, a7), and at most 2 may be"), "{text}");
    assert!(refused(7, Some("0")).contains("at most 0"));
}

#[test]
fn an_app_of_another_set_is_a_conflict_until_it_is_taken_over() {
    let world = world([stored("a", Some("two"), 1), stored("b", None, 2)]);
    let mine = request(vec![app("a", ""), app("b", "")], set("one"));
    let error = plan(&world, &mine, 350, Instant::now()).expect_err("it is another's");
    let PlanError::Conflict { detail, errors } = error else { panic!("{error:?}") };
    assert_eq!((detail.as_str(), errors[0].pointer.as_str()), ("App \"a\" belongs to the set \"two\"", "/apps/0/metadata/name"));
    let taken = made(&world, &request(mine.apps, PlanOptions { take_over: true, ..set("one") }));
    assert_eq!(changes(&taken), [("a", Change::Changed), ("b", Change::Changed)]);
    let field = FieldChange { pointer: "/metadata/set".to_owned(), before: Some(json!("two")), after: Some(json!("one")) };
    assert_eq!(taken.apps[0].fields, [field]);
    // Without a set it stays in its own, and that is told.
    let plain = made(&world, &request(vec![app("a", ", vip: {address: 10.0.0.7/24, interface: eth0}")], PlanOptions::default()));
    assert_eq!(plain.warnings, ["Apps of the set \"two\", whose next apply may undo this: a"]);
}

#[test]
fn an_address_may_go_from_one_app_to_another_in_one_request() {
    let vip = ", vip: {address: 10.0.0.7/24, interface: eth0}";
    let mut old = stored("a", Some("one"), 1);
    old.spec = app("a", vip).spec;
    let world = world([old, stored("b", Some("one"), 2)]);
    let twice = plan(&world, &request(vec![app("b", vip)], set("two")), 350, Instant::now());
    assert!(twice.is_err());
    let error = plan(&world, &request(vec![app("b", vip)], PlanOptions::default()), 350, Instant::now()).expect_err("a has it");
    let PlanError::Invalid(problems) = error else { panic!("{error:?}") };
    assert_eq!(problems[0].message, "10.0.0.7/24 is the VIP of App \"a\" already");
    assert_eq!(changes(&made(&world, &request(vec![app("a", ""), app("b", vip)], set("one")))).len(), 2);
    assert_eq!(changes(&made(&world, &request(vec![app("b", vip)], set("one")))), [("a", Change::Deleted), ("b", Change::Changed)]);
}

#[test]
fn nothing_at_all_has_to_be_said_aloud() {
    let world = world([stored("a", Some("one"), 1)]);
    assert!(plan(&world, &request(Vec::new(), set("one")), 350, Instant::now()).is_err());
    let options = PlanOptions { allow_empty: true, ..set("one") };
    assert_eq!(changes(&made(&world, &request(Vec::new(), options))), [("a", Change::Deleted)]);
    assert!(plan(&world, &request(Vec::new(), PlanOptions { set: None, ..set("x") }), 350, Instant::now()).is_err());
}

#[test]
fn a_plan_holds_until_the_world_is_another() {
    let asked = request(vec![app("a", ", placement: {nodes: [n1]}")], PlanOptions::default());
    let before = made(&world([stored("a", None, 7), stored("z", None, 8)]), &asked);
    assert_eq!(other_than(&before.basis, &made(&world([stored("a", None, 7), stored("z", None, 9)]), &asked)), None, "no App of this plan");
    let after = made(&world([stored("a", None, 9)]), &asked);
    assert_eq!(other_than(&before.basis, &after).as_deref(), Some("changed since: a"));
}

/// Whatever a valid manifest says, and however it is written: once applied, it is no change.
#[test]
fn every_valid_manifest_of_the_corpus_is_unchanged_once_it_is_applied() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../schemas/tests/corpus/valid");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).expect("the corpus") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("a text");
        let parsed = parse("test", &text).expect("a valid manifest");
        let apps: Vec<App> =
            parsed.into_iter().map(|p| App { metadata: Metadata { resource_version: 0, ..p.app.metadata }, ..p.app }).collect();
        let stored = apps.iter().map(|app| {
            // As the store keeps it.
            let mut app: App = serde_json::from_value(serde_json::to_value(app).expect("JSON")).expect("an App");
            (app.metadata.uid, app.metadata.generation, app.metadata.resource_version) = ("uid".to_owned(), 3, 9);
            app.metadata.creation_timestamp = Some("2026-11-01T00:00:00Z".to_owned());
            app
        });
        let world = world(stored);
        for app in &apps {
            let again = parse("again", &cluster_schemas::manifest::to_yaml(app)).expect("the canonical form").remove(0).app;
            let value = serde_json::to_value(app).expect("JSON");
            for form in [app.clone(), again, cluster_schemas::manifest::from_json(&value).expect("valid JSON")] {
                let plan = plan_without_effects(&world, &request(vec![form], PlanOptions::default()));
                match plan {
                    Ok(plan) => assert_eq!(plan.apps[0].fields, [], "{}", path.display()),
                    // Files of the corpus need not agree with one another about addresses.
                    Err(PlanError::Invalid(problems)) => {
                        assert!(problems.iter().all(|p| p.message.contains("App ")), "{}: {problems:?}", path.display())
                    }
                    Err(error) => panic!("{}: {error}", path.display()),
                }
                count += 1;
            }
        }
    }
    assert!(count > 30, "{count}");
}
