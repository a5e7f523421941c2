//! The aggregator's certificate and the CAs of the agents: checked at start, read again when the files change.

use std::sync::Arc;

use nodetap_runtime::reloading::{Counts, Reloading, Source};
use nodetap_wire::time::now_ns;
use nodetap_wire::tls::{Contents, FileError, Files, Material};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::server::WebPkiClientVerifier;
use rustls::version::TLS13;
use rustls::{RootCertStore, ServerConfig};

use super::metrics::Metrics;

/// HTTP/2, which gRPC needs.
const ALPN: &[u8] = b"h2";

/// Why the aggregator's certificate, key or CA file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The key is of another certificate.
    #[error("key {key} does not match certificate {certificate}: use the two that were issued together")]
    KeyMismatch {
        /// Where the key is.
        key: String,
        /// Where the certificate is.
        certificate: String,
    },
    /// The TLS library does not take one of them.
    #[error("{path} cannot be used: {reason}")]
    Unusable {
        /// Which file.
        path: String,
        /// What the library says.
        reason: String,
    },
}

/// What new connections use; follows the files.
#[derive(Clone, Debug)]
pub struct Credentials(Reloading<ServerFiles>);

/// The aggregator's files, and a TLS configuration for agents made of them.
#[derive(Debug)]
struct ServerFiles(Files);

/// A TLS configuration and its end.
#[derive(Debug)]
struct Dated {
    config: Arc<ServerConfig>,
    not_after: i64,
}

// === impl Credentials ===

impl Credentials {
    /// Reads and checks the files.
    ///
    /// # Errors
    /// Where a file is missing, is something else, is out of date, or does not fit the others.
    pub fn load(files: Files, metrics: Metrics) -> Result<Self, TlsError> {
        let counts = Counts {
            expires: metrics.certificate_expires,
            reloads: metrics.certificate_reloads,
            failures: metrics.certificate_reload_failures,
        };
        Reloading::load(ServerFiles(files), counts).map(Self)
    }

    /// What the next connection uses.
    pub fn config(&self) -> Arc<ServerConfig> {
        self.0.get().config.clone()
    }

    /// Looks at the files; takes what is new and good, keeps what it has where the new is bad. Answers whether it took any.
    pub fn refresh(&self) -> bool {
        self.0.refresh()
    }

    /// Follows the files for ever.
    pub async fn follow(&self) {
        self.0.follow().await;
    }
}

// === impl ServerFiles ===

impl Source for ServerFiles {
    type Contents = Contents;
    type Made = Dated;
    type Error = TlsError;

    const WHAT: &'static str = "certificate for agents";

    fn read(&self) -> Result<Contents, TlsError> {
        Ok(self.0.read()?)
    }

    fn make(&self, contents: &Contents) -> Result<Dated, TlsError> {
        let (config, not_after) = build(&self.0, contents)?;
        Ok(Dated { config, not_after })
    }

    fn expires(made: &Dated) -> Option<i64> {
        Some(made.not_after)
    }
}

fn build(files: &Files, contents: &Contents) -> Result<(Arc<ServerConfig>, i64), TlsError> {
    let Material { ca, chain, key, not_after, .. } =
        files.check(contents, now_ns().div_euclid(1_000_000_000))?;
    let unusable = |path: &std::path::Path, reason: &dyn std::fmt::Display| TlsError::Unusable {
        path: path.display().to_string(),
        reason: reason.to_string(),
    };
    let mut roots = RootCertStore::empty();
    for authority in ca {
        roots.add(authority).map_err(|error| unusable(&files.ca, &error))?;
    }
    let provider = Arc::new(default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .map_err(|error| unusable(&files.ca, &error))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| unusable(&files.certificate, &error))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => TlsError::KeyMismatch {
                key: files.key.display().to_string(),
                certificate: files.certificate.display().to_string(),
            },
            other => unusable(&files.key, &other),
        })?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    // A resumed session is not checked against the CA file again: an agent that is shut out must not come back by a ticket.
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok((Arc::new(config), not_after))
}
