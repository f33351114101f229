//! The OpenAPI document: as it is checked in, and as it is served.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::world::{Controller, Nats};

fn checked_in() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../schemas/json/openapi.json")
}

#[test]
fn the_document_is_the_one_checked_in() {
    let mut text = serde_json::to_string_pretty(&cluster_controller::api::openapi()).expect("JSON");
    text.push('\n');
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(checked_in(), &text).expect("a written file");
    }
    let there = std::fs::read_to_string(checked_in()).expect("schemas/json/openapi.json");
    assert!(there == text, "schemas/json/openapi.json is not what the code says: run with UPDATE_GOLDEN=1");
}

#[test]
fn every_operation_has_a_name_of_its_own_and_words() {
    let document = cluster_controller::api::openapi();
    let mut names = std::collections::BTreeSet::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("methods") {
            let id = operation["operationId"].as_str().expect("an operationId");
            assert!(names.insert(id.to_owned()), "{id} is there twice");
            assert!(!operation["summary"].as_str().expect("a summary").is_empty(), "{method} {path}");
            let success = operation["responses"].as_object().expect("responses").keys().any(|status| status.starts_with('2'));
            assert!(success, "{method} {path} says what it answers");
            for parameter in operation["parameters"].as_array().expect("parameters") {
                assert!(!parameter["description"].as_str().unwrap_or_default().is_empty(), "{method} {path}: {parameter}");
            }
        }
    }
    assert!(names.len() > 40, "{names:?}");
}

#[test]
fn it_is_served() {
    let nats = Nats::start();
    let controller = Controller::ready(&nats, "one", "");
    let served: Value = controller.get("/v1/openapi.json");
    assert_eq!(served, cluster_controller::api::openapi());
}

/// A controller that knows everything says that nobody votes; "try elsewhere" would send clients in circles.
#[test]
fn without_voters_there_is_none_to_replace() {
    let nats = crate::world::Nats::start();
    let controller = crate::world::Controller::ready(&nats, "one", "");
    for (path, body) in [
        ("/v1/voters/replace", serde_json::json!({ "old": "n1", "new": "n2" })),
        ("/v1/voters/force", serde_json::json!({ "dead": ["n1"] })),
    ] {
        let (status, problem) = controller.ask("POST", path, Some(&body));
        assert_eq!(status, 409, "{path}: {problem}");
    }
}
