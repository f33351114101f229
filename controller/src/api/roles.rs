//! Who may do what: the one table of routes and least roles.
//!
//! What the table does not name is closed rather than open: reading asks for [`Role::Viewer`], anything else for [`Role::Admin`].

use cluster_schemas::access::Role;

/// Least role by method and path, as the router writes it, where it is not what the rule above says.
const LEAST: [(&str, &str, Role); 13] = [
    ("PUT", "/v1/apps/{name}", Role::Deployer),
    ("DELETE", "/v1/apps/{name}", Role::Deployer),
    ("POST", "/v1/apps/{name}/switchover", Role::Deployer),
    ("POST", "/v1/apps/{name}/database/sync", Role::Deployer),
    ("POST", "/v1/apps/{name}/database/verify/{node}", Role::Deployer),
    // What is in a database is not for everybody who may look at the cluster; nor is what an application keeps.
    ("GET", "/v1/apps/{name}/database/divergences/{node}/{file}", Role::Deployer),
    ("GET", "/v1/apps/{name}/kv", Role::Deployer),
    ("GET", "/v1/apps/{name}/kv/{*key}", Role::Deployer),
    ("PUT", "/v1/apps/{name}/kv/{*key}", Role::Deployer),
    ("DELETE", "/v1/apps/{name}/kv/{*key}", Role::Deployer),
    // Who did what is not for everybody who may look.
    ("GET", "/v1/audit", Role::Admin),
    // A plan stores nothing; carrying one out does.
    ("POST", "/v1/plan", Role::Viewer),
    ("POST", "/v1/apply", Role::Deployer),
];

/// The least role for a request; `path` as the router writes it.
#[must_use]
pub fn least(method: &str, path: &str) -> Role {
    // HEAD is GET without the body.
    let method = if method == "HEAD" { "GET" } else { method };
    let named = LEAST.iter().find(|(m, p, _)| *m == method && *p == path).map(|(.., role)| *role);
    named.unwrap_or(if method == "GET" { Role::Viewer } else { Role::Admin })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_named_is_closed() {
        assert_eq!(least("GET", "/v1/new"), Role::Viewer);
        assert_eq!(least("HEAD", "/v1/apps/{name}/kv"), Role::Deployer);
        for method in ["PUT", "POST", "DELETE", "PATCH", "OPTIONS"] {
            assert_eq!(least(method, "/v1/new"), Role::Admin);
        }
    }
}
