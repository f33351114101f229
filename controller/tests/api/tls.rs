//! TLS, and clients that have certificates.

use std::path::Path;

use cluster_controller::config::{self, ConfigError};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use serde_json::Value;
use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig, TlsProvider};

use crate::access::sha256;
use crate::world::{Controller, LIMIT, Nats, app, until};

struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, in PEM.
type Pair = (String, String);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority"))
    }

    fn sign(&self, names: &[&str], subject: &[(DnType, &str)], usage: ExtendedKeyUsagePurpose) -> Pair {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("parameters");
        for (kind, text) in subject {
            params.distinguished_name.push(kind.clone(), *text);
        }
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().expect("a key");
        (params.signed_by(&key, &self.0).expect("a certificate").pem(), key.serialize_pem())
    }

    fn server(&self) -> Pair {
        self.sign(&["127.0.0.1"], &[], ExtendedKeyUsagePurpose::ServerAuth)
    }

    fn client(&self, name: &str, role: &str) -> Pair {
        self.sign(&[], &[(DnType::CommonName, name), (DnType::OrganizationName, role)], ExtendedKeyUsagePurpose::ClientAuth)
    }
}

/// Asks a controller over TLS.
struct Client {
    agent: ureq::Agent,
    base: String,
}

impl Client {
    fn new(controller: &Controller, trusts: &Authority, pair: Option<&Pair>) -> Self {
        let root = Certificate::from_pem(trusts.0.pem().as_bytes()).expect("a certificate");
        let own = pair.map(|(certificate, key)| {
            let certificate = Certificate::from_pem(certificate.as_bytes()).expect("a certificate");
            ClientCert::new_with_certs(&[certificate], PrivateKey::from_pem(key.as_bytes()).expect("a key"))
        });
        let tls = TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .unversioned_rustls_crypto_provider(std::sync::Arc::new(rustls::crypto::ring::default_provider()))
            .root_certs(RootCerts::new_with_certs(&[root]))
            .client_cert(own);
        let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(LIMIT)).tls_config(tls.build());
        Self { agent: config.build().new_agent(), base: format!("https://{}", controller.address) }
    }

    fn ask(&self, method: &str, path: &str, token: Option<&str>, body: &Value) -> Result<(u16, Value), ureq::Error> {
        let request = ureq::http::Request::builder().method(method).uri(format!("{}{path}", self.base));
        let request = match token {
            Some(token) => request.header("authorization", format!("Bearer {token}")),
            None => request,
        };
        let text = if body.is_null() { String::new() } else { body.to_string() };
        let mut answer = self.agent.run(request.header("content-type", "application/json").body(text).expect("a request"))?;
        let text = answer.body_mut().read_to_string()?;
        Ok((answer.status().as_u16(), serde_json::from_str(&text).unwrap_or(Value::Null)))
    }

    fn status(&self, method: &str, path: &str, token: Option<&str>) -> u16 {
        self.ask(method, path, token, &Value::Null).expect("an answer").0
    }
}

fn write(folder: &Path, (certificate, key): &Pair, clients: &Authority) {
    for (name, text) in [("tls.crt", certificate), ("tls.key", key), ("clients.crt", &clients.0.pem())] {
        std::fs::write(folder.join(name), text).expect("a written file");
    }
}

const TLS: &str = "tls: { certFile: tls.crt, keyFile: tls.key, clientCaFile: clients.crt }\n";

#[test]
fn a_certificate_is_who_signs_its_requests_and_its_organization_is_the_role() {
    let nats = Nats::start();
    let (ours, clients, strangers) = (Authority::new(), Authority::new(), Authority::new());
    write(nats.folder(), &ours.server(), &clients);
    let list = format!("- {{ name: viewer, role: viewer, sha256: {} }}\n", sha256("viewer-0123456789"));
    std::fs::write(nats.folder().join("tokens"), list).expect("a written file");
    let controller = Controller::start(&nats, "one", &format!("tokensFile: tokens\n{TLS}"));
    let client = |pair: Option<&Pair>| Client::new(&controller, &ours, pair);

    let admin = client(Some(&clients.client("root@ops", "admin")));
    until("the controller to be ready", || (admin.status("GET", "/readyz", None) == 200).then_some(()));
    until("a leader", || admin.ask("GET", "/v1/version", None, &Value::Null).ok()?.1["leader"].as_str().map(|_| ()));

    let deployer = client(Some(&clients.client("ci", "deployer")));
    let (status, answer) = deployer.ask("PUT", "/v1/apps/web", None, &app("web", 1)).expect("an answer");
    assert_eq!(status, 201, "{answer}");
    assert_eq!(deployer.status("GET", "/v1/audit", None), 403, "the organization is the role");
    let audit = until("the record", || {
        let (_, audit) = admin.ask("GET", "/v1/audit", None, &Value::Null).ok()?;
        audit["items"].as_array()?.iter().find(|item| item["who"]["name"] == "ci").cloned()
    });
    assert_eq!((&audit["who"]["role"], &audit["who"]["address"]), (&"deployer".into(), &"127.0.0.1".into()), "{audit}");

    let roleless = client(Some(&clients.client("guest", "somebody")));
    assert_eq!(roleless.status("GET", "/v1/apps", None), 403, "an organization that is no role allows nothing");
    let nameless = client(Some(&clients.sign(&[], &[(DnType::OrganizationName, "admin")], ExtendedKeyUsagePurpose::ClientAuth)));
    assert_eq!(
        nameless.ask("GET", "/v1/apps", None, &Value::Null).map_or(401, |(status, _)| status),
        401,
        "nor does a name that is missing"
    );

    // Tokens go on beside certificates, and one that is wrong is not made good by a certificate.
    let none = client(None);
    assert_eq!((none.status("GET", "/v1/apps", None), none.status("GET", "/v1/apps", Some("viewer-0123456789"))), (401, 200));
    assert_eq!(admin.status("GET", "/v1/apps", Some("nobody-0123456789")), 401);

    assert!(client(Some(&strangers.client("root", "admin"))).ask("GET", "/v1/apps", None, &Value::Null).is_err(), "signed by a stranger");
    let other_use =
        clients.sign(&[], &[(DnType::CommonName, "x"), (DnType::OrganizationName, "admin")], ExtendedKeyUsagePurpose::ServerAuth);
    assert!(client(Some(&other_use)).ask("GET", "/v1/apps", None, &Value::Null).is_err(), "a server's certificate is no client's");
    assert!(
        Client::new(&controller, &strangers, None).ask("GET", "/v1/apps", None, &Value::Null).is_err(),
        "the client knows its authority"
    );
    let plain = crate::world::agent().get(format!("http://{}/v1/apps", controller.address)).call();
    assert!(plain.is_err(), "it speaks TLS only");

    // Who does not finish a handshake holds nobody up, and does not keep the controller from ending.
    let silent: Vec<_> = (0..50).map(|_| std::net::TcpStream::connect(controller.address).expect("a connection")).collect();
    assert_eq!(admin.status("GET", "/v1/apps", None), 200);
    controller.end();
    drop(silent);
}

#[test]
fn certificates_alone_open_the_bind_and_bad_ones_are_named() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let ours = Authority::new();
    write(folder.path(), &ours.server(), &ours);
    let path = folder.path().join("controller.yaml");
    let load = |tls: &str| {
        let text = format!("cluster: c\nname: n1\nnats: {{ servers: [\"nats://127.0.0.1:1\"] }}\nlisten: 0.0.0.0:7070\n{tls}");
        std::fs::write(&path, text).expect("a written file");
        config::load(&path)
    };
    assert!(load(TLS).expect("a good file").tls.is_some());
    let no_clients = "tls: { certFile: tls.crt, keyFile: tls.key }\n";
    assert!(matches!(load(no_clients), Err(ConfigError::OpenToAll { .. })), "TLS alone says nothing of who asks");
    std::fs::write(folder.path().join("empty"), "").expect("a written file");
    std::fs::write(folder.path().join("other.key"), ours.server().1).expect("a written file");
    for (tls, why) in [
        ("certFile: absent, keyFile: tls.key", "absent"),
        ("certFile: empty, keyFile: tls.key", "certFile: there is no certificate in it"),
        ("certFile: tls.crt, keyFile: tls.crt", "keyFile: "),
        ("certFile: tls.crt, keyFile: other.key", "certFile and keyFile: "),
        ("certFile: tls.crt, keyFile: tls.key, clientCaFile: empty", "clientCaFile: there is no certificate in it"),
    ] {
        let error = load(&format!("tls: {{ {tls} }}\n")).expect_err(tls);
        assert!(error.to_string().contains(why), "{tls}: {error}");
    }
}
