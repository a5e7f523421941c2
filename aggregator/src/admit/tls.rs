//! The aggregator's certificate and the CAs of the agents: checked at start, read again when the files change.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use nodetap_wire::time::now_ns;
use nodetap_wire::tls::{Contents, FileError, Files, Material};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::server::WebPkiClientVerifier;
use rustls::version::TLS13;
use rustls::{RootCertStore, ServerConfig};

use super::metrics::Metrics;

/// How often the files are compared with what was read last: a kubelet takes up to a minute to update a Secret anyway.
const POLL: Duration = Duration::from_secs(30);

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
pub struct Credentials {
    files: Files,
    config: Arc<ArcSwap<ServerConfig>>,
    read: Arc<ArcSwap<Contents>>,
    metrics: Metrics,
}

// === impl Credentials ===

impl Credentials {
    /// Reads and checks the files.
    ///
    /// # Errors
    /// Where a file is missing, is something else, is out of date, or does not fit the others.
    pub fn load(files: Files, metrics: Metrics) -> Result<Self, TlsError> {
        let contents = files.read()?;
        let (config, not_after) = build(&files, &contents)?;
        metrics.certificate_expires.set(not_after);
        Ok(Self {
            files,
            config: Arc::new(ArcSwap::new(config)),
            read: Arc::new(ArcSwap::from_pointee(contents)),
            metrics,
        })
    }

    /// What the next connection uses.
    pub fn config(&self) -> Arc<ServerConfig> {
        self.config.load_full()
    }

    /// Looks at the files; takes what is new and good, keeps what it has where the new is bad. Answers whether it took any.
    pub fn refresh(&self) -> bool {
        let taken = self.files.read().map_err(TlsError::from).and_then(|contents| {
            if contents == **self.read.load() {
                return Ok(None);
            }
            let built = build(&self.files, &contents)?;
            self.read.store(Arc::new(contents));
            Ok(Some(built))
        });
        match taken {
            Ok(None) => false,
            Ok(Some((config, not_after))) => {
                self.config.store(config);
                self.metrics.certificate_expires.set(not_after);
                self.metrics.certificate_reloads.inc();
                tracing::info!(not_after, "new certificate taken for the next connections");
                true
            }
            Err(error) => {
                self.metrics.certificate_reload_failures.inc();
                tracing::warn!(%error, "new certificate files cannot be used; the ones from before are kept");
                false
            }
        }
    }

    /// Follows the files for ever.
    pub async fn follow(&self) {
        loop {
            tokio::time::sleep(POLL).await;
            let credentials = self.clone();
            // Files of a hung mount must not hold up the runtime.
            if tokio::task::spawn_blocking(move || credentials.refresh()).await.is_err() {
                return;
            }
        }
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
