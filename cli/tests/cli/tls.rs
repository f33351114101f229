//! Controllers that speak TLS.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};

use crate::fake::{command, run};
use crate::world::{database, list};

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A certificate and its key, in PEM.
fn signed(authority: &Authority, usage: ExtendedKeyUsagePurpose) -> (String, String) {
    let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    params.extended_key_usages = vec![usage];
    let key = KeyPair::generate().unwrap();
    (params.signed_by(&key, authority).unwrap().pem(), key.serialize_pem())
}

/// Answers every request whose client has a certificate of `clients`, until the test ends; its URL.
fn controller(authority: &Authority, clients: &Authority) -> String {
    let (certificate, key) = signed(authority, ExtendedKeyUsagePurpose::ServerAuth);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(clients.der().clone()).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build().unwrap();
    let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap())
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let body = list(&[database()]).to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(StreamOwned::new(ServerConnection::new(Arc::clone(&config)).unwrap(), stream.unwrap()));
            let mut line = String::new();
            // A client that does not trust it, or is not trusted, sends no request.
            while stream.read_line(&mut line).is_ok_and(|read| read > 2) {
                line.clear();
            }
            if line == "\r\n" {
                let head = format!(
                    "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                    body.len()
                );
                // It may have gone.
                let _sent = stream.get_mut().write_all((head + &body).as_bytes());
                stream.get_mut().conn.send_close_notify();
                let _sent = stream.get_mut().flush();
            }
        }
    });
    url
}

#[test]
fn a_controller_is_known_by_its_authority_and_knows_the_client_by_its_certificate() {
    let (ours, clients) = (authority(), authority());
    let url = controller(&ours, &clients);
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let (certificate, key) = signed(&clients, ExtendedKeyUsagePurpose::ClientAuth);
    for (name, text) in [("ca.crt", ours.pem()), ("other.crt", authority().pem()), ("me.crt", certificate), ("me.key", key)] {
        write(name, &text);
    }
    write("empty", "");
    let config = folder.path().join("cli.yaml");
    let with = |lines: &str| {
        write("cli.yaml", &format!("servers: ['{url}']\n{lines}"));
        run(command(&["get", "apps", "-o", "name"]).env("CLUSTERCTL_CONFIG", &config))
    };

    with("caFile: ca.crt\ncertFile: me.crt\nkeyFile: me.key\n").prints("app/database\n");

    for other in ["caFile: other.crt\n", ""] {
        let stranger = with(&format!("{other}certFile: me.crt\nkeyFile: me.key\n"));
        assert!(stranger.code != 0 && stranger.err.contains("caFile: in the configuration file"), "{other}: {}", stranger.err);
    }
    let nobody = with("caFile: ca.crt\n");
    assert!(nobody.code != 0 && nobody.out.is_empty(), "{}", nobody.err);

    for (lines, why) in [
        ("caFile: absent\n", "cannot read the file of authorities"),
        ("caFile: empty\n", "empty: there is no certificate in it"),
        ("caFile: ca.crt\ncertFile: me.crt\n", "certFile needs its keyFile too"),
        ("caFile: ca.crt\nkeyFile: me.key\n", "keyFile needs its certFile too"),
        ("caFile: ca.crt\ncertFile: me.crt\nkeyFile: me.crt\n", "there is no private key in it"),
    ] {
        let wrong = with(lines);
        assert_eq!((wrong.code, wrong.out.as_str()), (2, ""), "{lines}");
        assert!(wrong.err.contains(why), "{lines}: {}", wrong.err);
    }
}
