//! Who asks too often.

use crate::access::sha256;
use crate::world::{Controller, Nats, until};

const VIEWER: &str = "viewer-0123456789";
const ADMIN: &str = "admin-0123456789";

#[test]
fn who_asks_too_often_waits_and_nobody_else() {
    let nats = Nats::start();
    let entry = |name: &str, token: &str| format!("- {{ name: {name}, role: {name}, sha256: {} }}\n", sha256(token));
    std::fs::write(nats.folder().join("tokens"), entry("viewer", VIEWER) + &entry("admin", ADMIN)).expect("a written file");
    let controller = Controller::ready(&nats, "one", "tokensFile: tokens\nrequestsPerSecond: 3\n");
    let status = |token| controller.status("GET", "/v1/apps", token);
    // Faster than three a second.
    let refused = |token| (0..1000).any(|_| status(token) == 429);

    assert!(refused(None), "guesses at tokens are counted");
    assert_eq!(status(Some(VIEWER)), 200, "who has a token is not held up by strangers of the same address");
    assert!(refused(Some(VIEWER)));
    assert_eq!(status(Some(ADMIN)), 200, "nor by who has another");
    until("the viewer to be served again", || (status(Some(VIEWER)) == 200).then_some(()));
    assert_eq!(controller.status("GET", "/healthz", None), 200);
}

#[test]
fn without_tokens_an_address_is_a_client() {
    let nats = Nats::start();
    let controller = Controller::ready(&nats, "one", "requestsPerSecond: 3\n");
    let refusal = (0..1000).map(|_| controller.ask("GET", "/v1/apps", None)).find(|(status, _)| *status != 200);
    let (status, problem) = refusal.expect("faster than three a second");
    assert_eq!((status, problem["type"].as_str()), (429, Some("too-many-requests")), "{problem}");
    let detail = problem["detail"].as_str().expect("a text");
    assert!(detail.contains("127.0.0.1 asks more than 3 times a second"), "{detail}");
}
