//! The manifests that users are given, as they stand.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test ends at what it did not expect")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use cluster_schemas::app::Mode;
use cluster_schemas::manifest::{self, ParsedApp};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests")
}

fn read(name: &str) -> Vec<ParsedApp> {
    let text = std::fs::read_to_string(folder().join(name)).unwrap();
    manifest::parse(name, &text).unwrap_or_else(|problems| panic!("{problems}"))
}

/// Names of the manifests in a folder, sorted.
fn yaml_in(folder: &Path) -> Vec<String> {
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name.ends_with(".yaml")).collect();
    names.sort();
    names
}

#[test]
fn every_example_is_valid_and_has_its_page() {
    let names = yaml_in(&folder().join("examples"));
    assert_eq!(names, ["cache.yaml", "notes.yaml", "pool.yaml"]);
    let apps: Vec<ParsedApp> = names.iter().flat_map(|name| read(&format!("examples/{name}"))).collect();
    assert_eq!(manifest::check_duplicates(&apps).to_string(), "0 problems in 0 files");
    for name in names {
        assert!(folder().join("examples").join(name.replace(".yaml", ".md")).is_file(), "{name} has no page");
    }
}

#[test]
fn every_manifest_is_valid_and_they_can_be_applied_together() {
    let names = yaml_in(&folder());
    assert_eq!(names, ["platform.yaml", "replicas.yaml", "ring.yaml", "singleton.yaml", "spread.yaml"]);
    let apps: Vec<ParsedApp> = names.iter().flat_map(|name| read(name)).collect();
    assert_eq!(manifest::check_duplicates(&apps).to_string(), "0 problems in 0 files");
    // One node may run them all: no two of them share a port.
    let ports: Vec<&str> = apps
        .iter()
        .filter_map(|parsed| parsed.app.spec.exec.as_ref())
        .map(|exec| exec.command.iter().skip_while(|word| *word != "--listen").nth(1).unwrap().as_str())
        .collect();
    assert_eq!(ports.len(), 7);
    assert_eq!(ports.iter().collect::<BTreeSet<_>>().len(), 7, "{ports:?}");
}

#[test]
fn the_platform_is_the_one_of_the_design() {
    let apps = read("platform.yaml");
    let modes: Vec<(&str, Mode)> = apps.iter().map(|p| (p.app.metadata.name.as_str(), p.app.spec.mode)).collect();
    assert_eq!(modes, [("database", Mode::Singleton), ("cache", Mode::Ring), ("api", Mode::Spread), ("workers", Mode::Replicas)]);
    let database = &apps[0].app.spec;
    assert_eq!(database.vip.as_ref().unwrap().address, "10.0.0.100/24");
    assert_eq!(database.vip.as_ref().unwrap().interface, "eth0");
    assert_eq!(database.database.as_ref().unwrap().path, "/data/app.db");
    assert!(database.exec.as_ref().unwrap().command.contains(&"${database.path}".to_owned()));
    assert_eq!(apps[1].app.partitions(), 256);
    assert_eq!(apps[3].app.spec.replicas, Some(3));
    assert_eq!(apps[3].app.spec.placement.away_from_apps, ["database"]);
    // The place of an App is that of its name.
    assert_eq!((apps[0].line, apps[0].column), (13, 9));
}
