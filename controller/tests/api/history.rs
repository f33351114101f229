//! Who wrote what: revisions of Apps, and the record of all writes.

use serde_json::{Value, json};
use ureq::http::Request;

use crate::access::sha256;
use crate::world::{Controller, Nats, agent, app, until};

struct As<'a>(&'a Controller, &'a str);

impl As<'_> {
    fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
        let request = Request::builder().method(method).uri(format!("http://{}{path}", self.0.address));
        let request = request.header("authorization", format!("Bearer {}", self.1)).header("content-type", "application/json");
        let text = body.map(ToString::to_string).unwrap_or_default();
        let mut answer = agent().run(request.body(text).expect("a request")).expect("an answer");
        let text = answer.body_mut().read_to_string().expect("a text");
        (answer.status().as_u16(), serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    fn good(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        let (status, body) = self.ask(method, path, body);
        assert!((200..300).contains(&status), "{method} {path}: {status} {body}");
        body
    }

    fn apply(&self, apps: &[Value], source: &str) -> Value {
        self.good("POST", "/v1/apply", Some(&json!({ "apps": apps, "options": { "sourceRevision": source } })))
    }
}

/// Change, who and source revision of each.
fn told(revisions: &Value) -> Vec<String> {
    let word = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let items = revisions["items"].as_array().expect("a list").iter();
    items.map(|r| format!("{} {} {} {}", r["revision"], word(&r["change"]), word(&r["who"]["name"]), word(&r["sourceRevision"]))).collect()
}

#[test]
fn every_write_is_kept_with_who_when_before_and_after() {
    let nats = Nats::start();
    let tokens = [("ada", "admin"), ("ci", "deployer"), ("eve", "viewer")];
    let list: String =
        tokens.iter().map(|(name, role)| format!("- {{ name: {name}, role: {role}, sha256: {} }}\n", sha256(name))).collect();
    std::fs::write(nats.folder().join("tokens"), list).expect("a written file");
    let controller = Controller::ready(&nats, "one", "tokensFile: tokens\n");
    let (ada, ci, eve) = (As(&controller, "ada"), As(&controller, "ci"), As(&controller, "eve"));
    // Made by the controller a moment after it begins.
    until("the streams of history", || (ada.ask("GET", "/v1/audit", None).0 == 200).then_some(()));
    until("the caches", || (ada.ask("GET", "/v1/apps", None).0 == 200).then_some(()));

    ci.apply(&[app("a", 1), app("b", 1)], "abc");
    ada.good("PUT", "/v1/apps/a", Some(&app("a", 2)));
    ada.good("PUT", "/v1/apps/a", Some(&app("a", 2)));
    assert_eq!(eve.ask("PUT", "/v1/apps/a", Some(&app("a", 3))).0, 403);
    ci.good("DELETE", "/v1/apps/a?force=true", None);
    assert_eq!(controller.status("DELETE", "/v1/apps/b", Some("mallory")), 401);
    ci.apply(&[app("a", 5)], "def");

    let of_a = eve.good("GET", "/v1/apps/a/revisions", None);
    assert_eq!(told(&of_a), ["1 created ci abc", "2 changed ada -", "3 deleted ci -", "4 created ci def"], "{of_a}");
    assert_eq!(of_a["items"][1]["spec"]["replicas"], 2);
    assert_eq!(of_a["items"][0]["who"]["address"], "127.0.0.1");
    assert_eq!(of_a["items"][0]["who"]["role"], "deployer");
    assert_eq!(eve.good("GET", "/v1/revisions?limit=2", None)["items"][1]["app"], "a");
    assert_eq!(eve.ask("GET", "/v1/apps/nothing/revisions", None).0, 404);
    assert_eq!(eve.ask("GET", "/v1/apps/*/revisions", None).0, 404, "no subject of others");

    let audit = ada.good("GET", "/v1/audit", None);
    let items = audit["items"].as_array().expect("a list");
    let lines: Vec<String> = items
        .iter()
        .map(|r| format!("{} {} {}", r["who"]["name"].as_str().unwrap_or("-"), r["object"].as_str().unwrap_or("-"), r["outcome"]))
        .collect();
    // The two of one apply are stored in no order.
    let (mut first, rest) = (lines[..2].to_vec(), &lines[2..]);
    first.sort();
    assert_eq!(first, ["ci app/a \"done\"", "ci app/b \"done\""]);
    assert_eq!(rest, ["ada app/a \"done\"", "eve /v1/apps/a \"refused\"", "ci app/a \"done\"", "ci app/a \"done\""], "{audit}");
    let changes = items[2]["changes"].as_array().expect("changes");
    let replicas = changes.iter().find(|c| c["pointer"] == "/spec/replicas").expect("what changed");
    assert_eq!((&replicas["before"], &replicas["after"]), (&json!(1), &json!(2)));
    assert!(items[3]["detail"].as_str().is_some_and(|why| why.contains("viewer")), "{}", items[3]);
    assert_eq!((&items[4]["changes"][0]["before"]["spec"]["replicas"], &items[4]["changes"][0]["after"]), (&json!(2), &Value::Null));
    assert_eq!(audit["missed"], 0);
    assert_eq!(ada.good("GET", "/v1/audit?for=app/b", None)["items"].as_array().map(Vec::len), Some(1));
    assert_eq!(ada.good("GET", "/v1/audit?limit=1", None)["items"][0]["request"], "POST /v1/apply");
    for query in ["for=app/*", "for=app", "limit=0", "limit=1001", "from=x"] {
        assert_eq!(ada.ask("GET", &format!("/v1/audit?{query}"), None).0, 400, "{query}");
    }
    assert_eq!(ci.ask("GET", "/v1/audit", None).0, 403);
}

#[test]
fn of_an_app_the_last_twenty_revisions_are_kept() {
    let nats = Nats::start();
    let controller = Controller::ready(&nats, "one", "");
    until("the streams of history", || (controller.ask("GET", "/v1/audit", None).0 == 200).then_some(()));
    until("the caches", || (controller.ask("GET", "/v1/apps", None).0 == 200).then_some(()));
    for replicas in 1..=23 {
        controller.apply("a", replicas);
    }
    let kept = controller.get("/v1/apps/a/revisions");
    let replicas: Vec<u64> = kept["items"].as_array().expect("a list").iter().filter_map(|r| r["spec"]["replicas"].as_u64()).collect();
    assert_eq!(replicas, (4..=23).collect::<Vec<u64>>());
    assert_eq!(kept["items"][19]["revision"], 23);
    assert_eq!(controller.get("/v1/revisions?limit=5")["items"].as_array().map(Vec::len), Some(5));
}

/// Of several that make an App of one name at the same time, one does; the others are told and change nothing.
#[test]
fn an_app_that_shall_be_new_is_made_by_one_of_many() {
    let nats = Nats::start();
    let controller = Controller::ready(&nats, "one", "");
    let made: Vec<(u16, Value)> = std::thread::scope(|scope| {
        let tries: Vec<_> = (1..=8)
            .map(|replicas| {
                scope.spawn({
                    let controller = &controller;
                    move || controller.ask("PUT", "/v1/apps/a?onlyNew=true", Some(&app("a", replicas)))
                })
            })
            .collect();
        tries.into_iter().map(|tried| tried.join().expect("an answer")).collect()
    });
    let (won, lost): (Vec<_>, Vec<_>) = made.into_iter().partition(|(status, _)| *status == 201);
    assert_eq!((won.len(), lost.len()), (1, 7), "{lost:?}");
    assert!(lost.iter().all(|(status, body)| *status == 409 && body["detail"] == "App \"a\" exists"), "{lost:?}");
    let replicas = &won[0].1["app"]["spec"]["replicas"];
    let stored = until("the caches", || Some(controller.ask("GET", "/v1/apps/a", None)).filter(|(status, _)| *status == 200)).1;
    assert_eq!((&stored["spec"]["replicas"], stored["metadata"]["generation"].as_u64()), (replicas, Some(1)));
    // Who says nothing of that writes over it, as ever.
    assert_eq!(controller.ask("PUT", "/v1/apps/a", Some(&app("a", 9))).0, 200);
}
