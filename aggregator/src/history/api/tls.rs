//! TLS of the history's listener: the aggregator's certificate, and client certificates where some may read.

use std::path::Path;
use std::sync::Arc;

use nodetap_runtime::reloading::{Counts, Reloading, Source};
use nodetap_wire::time::now_ns;
use nodetap_wire::tls::{Contents, Files, Material};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::server::WebPkiClientVerifier;
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig};

use crate::admit::tls::TlsError;

/// What new connections use; follows the files.
pub(super) type Credentials = Reloading<HistoryFiles>;

/// The certificate, its key, and the CA of clients.
#[derive(Debug)]
pub(super) struct HistoryFiles {
    files: Files,
    asks_for_certificates: bool,
}

/// A TLS configuration and its end.
#[derive(Debug)]
pub(super) struct Dated {
    pub(super) config: Arc<ServerConfig>,
    not_after: i64,
}

/// Reads and checks the files. `files.ca` is of clients; they are asked for certificates only where some may read by one.
///
/// # Errors
/// Where a file is missing, is something else, is out of date, or does not fit the others.
pub(super) fn load(
    files: Files,
    asks_for_certificates: bool,
    counts: Counts,
) -> Result<Credentials, TlsError> {
    Reloading::load(HistoryFiles { files, asks_for_certificates }, counts)
}

// === impl HistoryFiles ===

impl Source for HistoryFiles {
    type Contents = Contents;
    type Made = Dated;
    type Error = TlsError;

    const WHAT: &'static str = "certificate of the history";

    fn read(&self) -> Result<Contents, TlsError> {
        Ok(self.files.read()?)
    }

    fn make(&self, contents: &Contents) -> Result<Dated, TlsError> {
        let Material { ca, chain, key, not_after, .. } =
            self.files.check(contents, now_ns().div_euclid(1_000_000_000))?;
        let unusable = |path: &Path, reason: &dyn std::fmt::Display| TlsError::Unusable {
            path: path.display().to_string(),
            reason: reason.to_string(),
        };
        let provider = Arc::new(default_provider());
        // Browsers and older curls: 1.2 with the suites of rustls, which are the good ones.
        let config = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(|error| unusable(&self.files.certificate, &error))?;
        let config = if self.asks_for_certificates {
            let mut roots = RootCertStore::empty();
            for authority in ca {
                roots.add(authority).map_err(|error| unusable(&self.files.ca, &error))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .allow_unauthenticated()
                .build()
                .map_err(|error| unusable(&self.files.ca, &error))?;
            config.with_client_cert_verifier(verifier)
        } else {
            config.with_no_client_auth()
        };
        let mut config = config.with_single_cert(chain, key).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => TlsError::KeyMismatch {
                key: self.files.key.display().to_string(),
                certificate: self.files.certificate.display().to_string(),
            },
            other => unusable(&self.files.key, &other),
        })?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // A resumed session is not checked against the CA file again.
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Dated { config: Arc::new(config), not_after })
    }

    fn expires(made: &Dated) -> Option<i64> {
        Some(made.not_after)
    }
}
