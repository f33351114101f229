//! Roles and routes: every cell.

use crate::world::{Controller, Nats};

/// A token of each role, in their order.
const TOKENS: [(&str, &str); 3] = [("viewer", "viewer-0123456789"), ("deployer", "deployer-0123456789"), ("admin", "admin-0123456789")];

/// What is not reading for viewers or changing for admins, said again here: this is the promise, the code's table keeps it.
const OTHERWISE: [(&str, &str, &str); 8] = [
    ("PUT", "/v1/apps/{name}", "deployer"),
    ("DELETE", "/v1/apps/{name}", "deployer"),
    ("POST", "/v1/apps/{name}/switchover", "deployer"),
    ("POST", "/v1/apps/{name}/database/sync", "deployer"),
    ("POST", "/v1/apps/{name}/database/verify/{node}", "deployer"),
    ("GET", "/v1/apps/{name}/database/divergences/{node}/{file}", "deployer"),
    ("POST", "/v1/plan", "viewer"),
    ("GET", "/v1/audit", "admin"),
];
/// Routes of applications' state, and the one that carries plans out: a deployer's, whatever the method.
const OF_DEPLOYERS: [&str; 2] = ["/v1/apps/{name}/kv", "/v1/apply"];

/// Methods and paths of all routes, as the document has them.
fn routes() -> Vec<(String, String)> {
    let document = cluster_controller::api::openapi();
    let paths = document["paths"].as_object().expect("paths");
    let methods = |path: &serde_json::Value| path.as_object().expect("methods").keys().map(|m| m.to_uppercase()).collect::<Vec<_>>();
    paths.iter().flat_map(|(path, item)| methods(item).into_iter().map(move |method| (method, path.clone()))).collect()
}

fn least(method: &str, path: &str) -> &'static str {
    if OF_DEPLOYERS.iter().any(|folder| path.starts_with(folder)) {
        return "deployer";
    }
    let otherwise = OTHERWISE.iter().find(|(m, p, _)| *m == method && *p == path).map(|(.., role)| *role);
    otherwise.unwrap_or(if method == "GET" { "viewer" } else { "admin" })
}

#[test]
fn every_role_may_do_what_it_says_on_every_route_and_nothing_else() {
    let nats = Nats::start();
    let mut list = String::new();
    for (role, token) in TOKENS {
        list.push_str(&format!("- {{ name: {role}, role: {role}, sha256: {} }}\n", sha256(token)));
    }
    std::fs::write(nats.folder().join("tokens"), list).expect("a written file");
    let controller = Controller::ready(&nats, "one", "tokensFile: tokens\n");
    let routes = routes();
    assert!(routes.len() > 20, "the source is read: {routes:?}");
    let rank = |role: &str| TOKENS.iter().position(|(name, ..)| *name == role).expect("a role");
    for (method, path) in &routes {
        // Nothing has this name, so that nothing happens where it is allowed.
        let concrete: String =
            path.split('/').skip(1).map(|part| if part.starts_with('{') { "/nothing".to_owned() } else { format!("/{part}") }).collect();
        assert_eq!(controller.status(method, &concrete, None), 401, "{method} {path} without a token");
        assert_eq!(controller.status(method, &concrete, Some("nobody-0123456789")), 401, "{method} {path} with a wrong token");
        for (role, token) in TOKENS {
            let status = controller.status(method, &concrete, Some(token));
            let may = rank(role) >= rank(least(method, path));
            assert_eq!(status != 403 && status != 401, may, "{method} {path} as {role}: {status}");
        }
    }
}

pub fn sha256(text: &str) -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}
