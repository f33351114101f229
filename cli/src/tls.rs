//! Certificates for `https`.

use std::path::Path;
use std::sync::Arc;

use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, TlsProvider, parse_pem};

use crate::config::{ConfigError, Target};

/// What the system trusts, on Debian and its kin.
const SYSTEM_ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";
/// Longest file, in bytes: the system's list has some 200 KiB.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Reads the certificates of a target, in PEM; without authorities of its own those that the system trusts.
///
/// # Errors
/// A file that cannot be read or has nothing to use in it.
pub(crate) fn load(target: &Target) -> Result<TlsConfig, ConfigError> {
    let roots = certificates("the file of authorities", target.ca_file.as_deref().unwrap_or(Path::new(SYSTEM_ROOTS)))?;
    let own = match (&target.cert_file, &target.key_file) {
        (Some(certificate), Some(key)) => {
            let chain = certificates("the certificate", certificate)?;
            let bytes = read("the key", key)?;
            let key = PrivateKey::from_pem(&bytes).map_err(|_| unusable(key, "there is no private key in it (PEM)"))?;
            Some(ClientCert::new_with_certs(&chain, key))
        }
        (None, None) => None,
        (Some(path), None) => return Err(unusable(path, "certFile needs its keyFile too")),
        (None, Some(path)) => return Err(unusable(path, "keyFile needs its certFile too")),
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .unversioned_rustls_crypto_provider(provider)
        .root_certs(RootCerts::new_with_certs(&roots))
        .client_cert(own)
        .build())
}

fn certificates(what: &'static str, path: &Path) -> Result<Vec<Certificate<'static>>, ConfigError> {
    let bytes = read(what, path)?;
    let found: Vec<_> = parse_pem(&bytes)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(Ok(certificate)),
            Ok(_) => None,
            Err(error) => Some(Err(error)),
        })
        .collect::<Result<_, _>>()
        .map_err(|_| unusable(path, "it is no PEM"))?;
    if found.is_empty() { Err(unusable(path, "there is no certificate in it (PEM)")) } else { Ok(found) }
}

fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, ConfigError> {
    crate::config::read_bytes(path, FILE_BYTES_MAX).map_err(|source| ConfigError::Read { what, path: path.to_owned(), source })
}

fn unusable(path: &Path, reason: &'static str) -> ConfigError {
    ConfigError::Tls { path: path.to_owned(), reason }
}
