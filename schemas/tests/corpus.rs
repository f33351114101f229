//! The corpus: every manifest in `corpus/invalid` is refused with exactly the text beside it, every one in `corpus/valid` is read as the
//! text beside it says. Both are held against the JSON Schema, too.
//!
//! After a change that was meant, `UPDATE_GOLDEN=1 cargo test -p cluster-schemas --test corpus` writes the texts anew: read the difference.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test ends at what it did not expect")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use cluster_schemas::manifest::{self, Diagnostics, FILE_BYTES_MAX, Rule};
use cluster_schemas::schema::app_schema;
use serde_json::Value;

/// Rules whose file is made here, because nobody wants to read it.
fn made() -> BTreeMap<Rule, String> {
    BTreeMap::from([(Rule::FileTooLarge, format!("# {}\n", "x".repeat(FILE_BYTES_MAX)))])
}

/// Files that break more than a rule each: how problems look together, and places that are hard to show.
const BEYOND_RULES: [&str; 7] = ["misspelt", "many-kinds", "unicode", "long-line", "tabs", "json", "hundred"];

/// Documents of invalid manifests that the JSON Schema accepts, with the reason. All others it refuses as the parser does.
const SCHEMA_ACCEPTS: [(&str, &str); 15] = [
    ("failback-refused 0", "rests on another field"),
    ("failback-refused 1", "rests on another field"),
    ("failover-lease 1", "takes arithmetic"),
    ("health-time 1", "takes arithmetic"),
    ("health-value 1", "takes arithmetic"),
    ("hook-timeout 1", "takes arithmetic"),
    ("merge-key 0", "plain YAML readers merge before a schema sees anything"),
    ("placeholder-database 0", "what a text names must be in another field"),
    ("placeholder 0", "what stands within a text"),
    ("unit-content 1", "what stands within a text"),
    ("unit-content 2", "what stands within a text"),
    ("unit-oneshot 0", "what stands within a text"),
    ("vip-address 3", "takes arithmetic"),
    ("vip-address 4", "takes arithmetic"),
    ("vip-address 14", "takes arithmetic"),
];

fn folder(kind: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(kind)
}

/// Name and text of every manifest in the folder.
fn manifests(kind: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder(kind)).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            found.insert(name, std::fs::read_to_string(path).unwrap());
        }
    }
    found
}

/// Compares `got` with the text that is kept, or keeps it. Says which files differ rather than stop at the first.
struct Golden {
    folder: PathBuf,
    update: bool,
    wrong: Vec<String>,
    seen: BTreeSet<String>,
}

impl Golden {
    fn new(kind: &str) -> Self {
        Self { folder: folder(kind), update: std::env::var_os("UPDATE_GOLDEN").is_some(), wrong: Vec::new(), seen: BTreeSet::new() }
    }

    fn check(&mut self, name: &str, got: &str) {
        let path = self.folder.join(format!("{name}.txt"));
        self.seen.insert(format!("{name}.txt"));
        if self.update {
            std::fs::write(&path, got).unwrap();
        }
        let kept = std::fs::read_to_string(&path).unwrap_or_default();
        if kept != got {
            self.wrong.push(format!("{}\n--- kept ---\n{kept}\n--- got ---\n{got}", path.display()));
        }
    }

    fn finish(self) {
        assert!(self.wrong.is_empty(), "{}", self.wrong.join("\n\n"));
        let kept = std::fs::read_dir(&self.folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let stray: Vec<String> = kept.filter(|name| name.ends_with(".txt") && !self.seen.contains(name)).collect();
        assert!(stray.is_empty(), "no manifest belongs to {stray:?}");
    }
}

fn problems(name: &str, text: &str) -> Diagnostics {
    match manifest::parse(&format!("{name}.yaml"), text) {
        Ok(apps) => panic!("{name} has no problem: {apps:#?}"),
        Err(problems) => problems,
    }
}

#[test]
fn invalid_manifests_are_refused_with_exactly_this_text() {
    let mut golden = Golden::new("invalid");
    for (name, text) in manifests("invalid") {
        golden.check(&name, &format!("{}\n", problems(&name, &text)));
    }
    for (rule, text) in made() {
        golden.check(rule.as_str(), &format!("{}\n", problems(rule.as_str(), &text)));
    }
    golden.finish();
}

#[test]
fn every_rule_has_a_manifest_that_breaks_it() {
    let mut files = manifests("invalid");
    files.extend(made().into_iter().map(|(rule, text)| (rule.as_str().to_owned(), text)));
    for rule in Rule::ALL {
        let name = rule.as_str();
        let text = files.remove(name).unwrap_or_else(|| panic!("no corpus/invalid/{name}.yaml for the rule {rule:?}"));
        let found = problems(name, &text);
        assert!(found.iter().any(|problem| problem.rule == *rule), "{name}.yaml does not break its rule:\n{found}");
    }
    assert_eq!(files.keys().map(String::as_str).collect::<BTreeSet<_>>(), BTreeSet::from(BEYOND_RULES), "files that belong to no rule");
}

#[test]
fn many_manifests_have_several_problems() {
    let several = manifests("invalid").iter().filter(|(name, text)| problems(name, text).len() >= 3).count();
    assert!(several >= 10, "only {several}");
}

#[test]
fn valid_manifests_are_read_as_written() {
    let mut golden = Golden::new("valid");
    for (name, text) in manifests("valid") {
        let apps = manifest::parse(&name, &text).unwrap_or_else(|problems| panic!("{problems}"));
        let mut written = String::new();
        for parsed in &apps {
            let yaml = manifest::to_yaml(&parsed.app);
            let again = manifest::parse("canonical", &yaml).unwrap_or_else(|problems| panic!("{problems}"));
            assert_eq!(again.iter().map(|parsed| &parsed.app).collect::<Vec<_>>(), [&parsed.app], "{yaml}");
            let json = serde_json::to_value(&parsed.app).unwrap();
            assert_eq!(manifest::from_json(&json).as_ref(), Ok(&parsed.app), "the API takes what the manifest means");
            assert_eq!(manifest::validate(&parsed.app), [], "a finished App breaks no rule");
            written.push_str(&format!("# {}:{}:{}\n{yaml}---\n", parsed.file, parsed.line, parsed.column));
        }
        golden.check(&name, &written);
    }
    golden.finish();
}

/// The manifests that users are given, by path.
fn shipped() -> BTreeMap<String, String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests");
    let in_folder = |folder: PathBuf| std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let files = in_folder(folder.clone()).chain(in_folder(folder.join("examples")));
    let yaml = files.filter(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    let files: BTreeMap<_, _> = yaml.map(|path| (path.display().to_string(), std::fs::read_to_string(&path).unwrap())).collect();
    assert!(files.len() >= 8, "{:?}", files.keys());
    files
}

/// Whatever is valid has a canonical form, which is its own, and keeps every comment: `format` refuses to lose one.
#[test]
fn valid_manifests_have_a_canonical_form() {
    let mut files = manifests("valid");
    files.extend(shipped());
    let mut comments = 0;
    for (name, text) in files {
        let canonical = manifest::format(&name, &text).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(manifest::format(&name, &canonical).as_deref(), Ok(canonical.as_str()), "{name}");
        let words = |text: &str| text.lines().filter(|line| line.trim_start().starts_with("# ")).count();
        comments += words(&canonical);
        assert!(words(&canonical) >= words(&text), "{name}\n{canonical}");
    }
    assert!(comments > 5, "only {comments} comments");
}

#[test]
fn schemas_are_those_of_the_types() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("json/app.json");
    let mut now = serde_json::to_string_pretty(&app_schema()).unwrap();
    now.push('\n');
    let kept = std::fs::read_to_string(path).unwrap();
    assert!(kept == now, "schemas/json/app.json is out of date: run `cargo run -p cluster-schemas --bin write-schemas`");
}

/// Editors show what the schema says: every field that users write has a description, and an example or a list of its words; every one
/// that may be left out and means something then has a default.
#[test]
fn every_field_is_described_with_example_and_default() {
    let schema = app_schema();
    let mut missing = Vec::new();
    let objects = schema["$defs"].as_object().unwrap().iter().map(|(name, object)| (name.as_str(), object));
    for (object, definition) in objects.chain([("App", &schema)]) {
        for (field, property) in definition["properties"].as_object().into_iter().flatten() {
            let target = property["$ref"].as_str().and_then(|r| schema["$defs"].get(r.strip_prefix("#/$defs/")?));
            let has = |key: &str| !property[key].is_null() || target.is_some_and(|t| !t[key].is_null());
            if !has("description") {
                missing.push(format!("{object}.{field}: description"));
            }
            let by_server = property["description"].as_str().is_some_and(|text| text.starts_with("Set by the server"));
            let shown = has("examples") || has("enum") || has("oneOf") || property["pattern"].is_string();
            if !by_server && !shown {
                missing.push(format!("{object}.{field}: example"));
            }
        }
    }
    let defaults = [
        "AppSpec/properties/mode",
        "AppSpec/properties/standby",
        "RingSpec/properties/partitions",
        "Preference/properties/weight",
        "UpdateSpec/properties/order",
        "UpdateSpec/properties/maxUnavailable",
        "HookSpec/properties/timeout",
        "HealthSpec/properties/interval",
        "HealthSpec/properties/timeout",
        "HealthSpec/properties/successThreshold",
        "HealthSpec/properties/failureThreshold",
        "HealthSpec/properties/startGrace",
        "HealthSpec/properties/restarts",
        "HttpCheck/properties/status",
    ];
    let defaults = defaults.into_iter().filter(|pointer| schema["$defs"].pointer(&format!("/{pointer}/default")).is_none());
    missing.extend(defaults.map(|pointer| format!("{pointer}: default")));
    assert!(missing.is_empty(), "{missing:#?}");
}

/// The documents of a manifest as an editor reads them: with plain YAML 1.2, and nothing of ours.
fn as_json(text: &str) -> Result<Vec<Value>, String> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).map_err(|error| error.to_string())?;
    Ok(documents.into_iter().filter(|document| !document.is_null()).collect())
}

#[test]
fn the_json_schema_accepts_what_the_parser_accepts() {
    let schema = jsonschema::validator_for(&app_schema()).expect("the schema is itself valid");
    let mut files = manifests("valid");
    files.extend(shipped());
    for (name, text) in files {
        for document in as_json(&text).unwrap() {
            let errors: Vec<String> = schema.iter_errors(&document).map(|error| format!("{}: {error}", error.instance_path())).collect();
            assert!(errors.is_empty(), "{name}: {errors:#?}");
        }
    }
}

/// The texts between the `---` of a manifest.
fn documents(text: &str) -> Vec<String> {
    let mut documents = vec![String::new()];
    for line in text.lines() {
        match documents.last_mut() {
            Some(last) if line != "---" => last.push_str(&format!("{line}\n")),
            _ => documents.push(String::new()),
        }
    }
    documents.retain(|document| !document.is_empty());
    documents
}

#[test]
fn the_json_schema_refuses_what_it_can_express() {
    let schema = jsonschema::validator_for(&app_schema()).expect("the schema is itself valid");
    let (mut accepted, mut checked) = (BTreeSet::new(), 0);
    for (name, text) in manifests("invalid") {
        for (n, document) in documents(&text).iter().enumerate() {
            // What plain YAML cannot read never gets to a schema.
            let Ok(values) = as_json(document) else { continue };
            let by_schema = values.iter().all(|value| schema.is_valid(value));
            match manifest::parse(&name, document) {
                Ok(apps) => assert!(by_schema, "{name} {n}: only the schema refuses {apps:?}"),
                Err(_) if by_schema => drop(accepted.insert(format!("{name} {n}"))),
                Err(_) => {}
            }
            checked += 1;
        }
    }
    assert!(checked > 150, "only {checked} documents came to the schema");
    let listed: BTreeSet<String> = SCHEMA_ACCEPTS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(accepted, listed, "left: accepted by the schema; right: listed as such");
}

/// Every problem of a JSON body has a pointer to something that is there, or to a field that is missing where it points.
#[test]
fn the_api_says_the_same_with_pointers() {
    for (name, text) in manifests("invalid") {
        let (Ok(documents), Err(found)) = (as_json(&text), manifest::parse(&name, &text)) else { continue };
        let [document] = documents.as_slice() else { continue };
        let from_yaml: BTreeSet<&str> = found.iter().map(|problem| problem.pointer.as_str()).collect();
        let Err(errors) = manifest::from_json(document) else {
            assert_eq!(name, "merge-key", "{name} is refused as YAML only");
            continue;
        };
        for error in &errors {
            let known = from_yaml.contains(error.pointer.as_str());
            // A body has numbers and booleans where a manifest has texts.
            let typed = error.message.starts_with("expected text, found the ");
            assert!(known || typed, "{name}: {error:?} is not among {from_yaml:?}");
            let parent = error.pointer.rsplit_once('/').map_or("", |(parent, _)| parent);
            assert!(document.pointer(parent).is_some(), "{name}: nothing at {parent}");
        }
    }
}
