//! Addresses of NATS servers and controllers, names and labels: checked before anything is written.

use cluster_schemas::name::{check_label_key, check_label_value, check_name};
use std::collections::BTreeMap;
use ureq::http::Uri;

use super::SetupError;

/// Most NATS servers or controllers.
pub(crate) const SERVERS_MAX: usize = 16;
/// Where NATS servers listen unless a URL says otherwise.
const NATS_PORT: u16 = 4222;

/// One DNS label.
pub(crate) fn name(what: &str, name: &str) -> Result<String, SetupError> {
    check_name(name).map_err(|error| SetupError::value(what, format!("{name:?} cannot be a name: {error}")))?;
    Ok(name.to_owned())
}

/// URLs of NATS servers, each with its port, in the order given.
pub(crate) fn nats_servers(what: &str, given: &[String]) -> Result<Vec<String>, SetupError> {
    distinct(what, given, |url| {
        let full = if url.contains("://") { url.to_owned() } else { format!("nats://{url}") };
        let bad = |reason: &str| {
            SetupError::value(what, format!("{url:?} is no address of a NATS server: {reason}; write it like nats://10.0.0.11:{NATS_PORT}"))
        };
        let uri: Uri = full.parse().map_err(|_| bad("it is no URL"))?;
        if !matches!(uri.scheme_str(), Some("nats" | "tls")) {
            return Err(bad("its scheme is neither nats nor tls"));
        }
        let authority = uri.authority().filter(|a| !a.host().is_empty()).ok_or_else(|| bad("it has no host"))?;
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(bad("something follows the port"));
        }
        let scheme = uri.scheme_str().unwrap_or("nats");
        Ok(if authority.port().is_some() { format!("{scheme}://{authority}") } else { format!("{scheme}://{authority}:{NATS_PORT}") })
    })
}

/// URLs of controllers, in the order given.
pub(crate) fn controllers(what: &str, given: &[String]) -> Result<Vec<String>, SetupError> {
    distinct(what, given, |url| crate::config::server_url(url).map_err(|error| SetupError::value(what, error.to_string())))
}

fn distinct(what: &str, given: &[String], check: impl Fn(&str) -> Result<String, SetupError>) -> Result<Vec<String>, SetupError> {
    let mut all = Vec::new();
    for text in given {
        let url = check(text.trim())?;
        if all.contains(&url) {
            return Err(SetupError::value(what, format!("{url} is named twice")));
        }
        all.push(url);
    }
    match all.len() {
        0 => Err(SetupError::value(what, "name at least one")),
        n if n > SERVERS_MAX => Err(SetupError::value(what, format!("{n} are named, at most {SERVERS_MAX} are used"))),
        _ => Ok(all),
    }
}

/// The host of a URL that was checked before, without user name and port.
pub(crate) fn host(url: &str) -> &str {
    let authority = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = authority.split('/').next().unwrap_or(authority);
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((v6, _)) => v6,
        None => host.rsplit_once(':').map_or(host, |(host, _)| host),
    }
}

/// Labels, `KEY=VALUE` each.
pub(crate) fn labels(given: &[String]) -> Result<BTreeMap<String, String>, SetupError> {
    let mut labels = BTreeMap::new();
    for label in given {
        let bad = |reason: String| SetupError::value("--label", format!("{label:?}: {reason}"));
        let (key, value) = label.split_once('=').ok_or_else(|| bad("write it like zone=a".to_owned()))?;
        check_label_key(key).map_err(|error| bad(error.to_string()))?;
        check_label_value(value).map_err(|error| bad(error.to_string()))?;
        if labels.insert(key.to_owned(), value.to_owned()).is_some() {
            return Err(bad(format!("{key} is given twice")));
        }
    }
    Ok(labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers(given: &[&str]) -> Result<Vec<String>, String> {
        nats_servers("--nats", &given.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>()).map_err(|e| e.to_string())
    }

    #[test]
    fn nats_urls_get_scheme_and_port_and_keep_their_order() {
        let urls = servers(&["10.0.0.12", "nats://user:word@10.0.0.11:4223", "tls://[::1]"]).unwrap();
        assert_eq!(urls, ["nats://10.0.0.12:4222", "nats://user:word@10.0.0.11:4223", "tls://[::1]:4222"]);
        assert_eq!(urls.iter().map(|u| host(u)).collect::<Vec<_>>(), ["10.0.0.12", "10.0.0.11", "::1"]);
    }

    #[test]
    fn what_cannot_be_a_nats_server_is_refused_with_the_reason() {
        for (given, reason) in [
            (&["http://a"][..], "neither nats nor tls"),
            (&["nats://"], "no URL"),
            (&["nats://a:b:c"], "no URL"),
            (&["nats://a/x"], "follows the port"),
            (&["a", "nats://a:4222"], "named twice"),
            (&[], "at least one"),
        ] {
            let error = servers(given).unwrap_err();
            assert!(error.contains(reason), "{given:?}: {error}");
        }
        let many: Vec<String> = (0..=SERVERS_MAX).map(|n| format!("h{n}")).collect();
        assert!(nats_servers("--nats", &many).unwrap_err().to_string().contains("at most 16"));
    }

    #[test]
    fn labels_have_a_key_and_a_value_once() {
        let labels = |given: &[&str]| labels(&given.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>()).map_err(|e| e.to_string());
        assert_eq!(labels(&["zone=a", "disk=ssd"]).unwrap().len(), 2);
        assert!(labels(&["zone"]).unwrap_err().contains("like zone=a"));
        assert!(labels(&["zone=a", "zone=b"]).unwrap_err().contains("twice"));
        assert!(labels(&["=a"]).unwrap_err().contains("empty"));
    }
}
