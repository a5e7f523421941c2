//! The agent's certificate and what it trusts: checked at start, read again when the files change.

use std::sync::Arc;

use nodetap_runtime::reloading::{Counts, Reloading, Source};
use nodetap_wire::time::now_ns;
use nodetap_wire::tls::{Contents, FileError, Files, Material, NODE_URI};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::ServerName;
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore};

use super::metrics::Metrics;

/// HTTP/2, which gRPC needs.
const ALPN: &[u8] = b"h2";

/// Why this agent's certificate, key or CA file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The certificate is not this node's.
    #[error(
        "certificate {path} names {found}, but this agent runs on node `{node}`: issue one with the URI SAN {NODE_URI}{node}"
    )]
    OtherNode {
        /// Where it is.
        path: String,
        /// What it names.
        found: String,
        /// What it has to name.
        node: String,
    },
    /// The key is of another certificate.
    #[error("key {key} does not match certificate {certificate}: use the two that were issued together")]
    KeyMismatch {
        /// Where the key is.
        key: String,
        /// Where the certificate is.
        certificate: String,
    },
    /// The TLS library does not take one of them.
    #[error("{path} cannot be used: {source}")]
    Unusable {
        /// Which file.
        path: String,
        /// What the library says.
        source: rustls::Error,
    },
    /// The aggregator's name is not one that a certificate can carry.
    #[error("the aggregator's name `{0}` is neither a DNS name nor an IP address: set --aggregator-name")]
    Name(String),
}

/// What new connections use; follows the files.
#[derive(Clone, Debug)]
pub struct Credentials {
    name: ServerName<'static>,
    files: Reloading<ClientFiles>,
}

/// An agent's files, and a TLS configuration made of them.
#[derive(Debug)]
struct ClientFiles {
    files: Files,
    node: String,
}

/// A TLS configuration and its end.
#[derive(Debug)]
struct Dated {
    config: Arc<ClientConfig>,
    not_after: i64,
}

// === impl Credentials ===

impl Credentials {
    /// Reads and checks the files for an agent on `node` that connects to an aggregator whose certificate carries `name`.
    ///
    /// # Errors
    /// Where a file is missing, is something else, is out of date, or does not fit the others or the node.
    pub fn load(files: Files, node: &str, name: &str, metrics: Metrics) -> Result<Self, TlsError> {
        let name = ServerName::try_from(name.to_owned()).map_err(|_| TlsError::Name(name.to_owned()))?;
        let counts = Counts {
            expires: metrics.certificate_expires,
            reloads: metrics.certificate_reloads,
            failures: metrics.certificate_reload_failures,
        };
        let files = Reloading::load(ClientFiles { files, node: node.to_owned() }, counts)?;
        Ok(Self { name, files })
    }

    /// What the next connection uses.
    pub fn config(&self) -> Arc<ClientConfig> {
        self.files.get().config.clone()
    }

    /// The name that the aggregator's certificate has to carry.
    pub fn server_name(&self) -> ServerName<'static> {
        self.name.clone()
    }

    /// Looks at the files; takes what is new and good, keeps what it has where the new is bad. Answers whether it took any.
    pub fn refresh(&self) -> bool {
        self.files.refresh()
    }

    /// Follows the files for ever.
    pub async fn follow(&self) {
        self.files.follow().await;
    }
}

// === impl ClientFiles ===

impl Source for ClientFiles {
    type Contents = Contents;
    type Made = Dated;
    type Error = TlsError;

    const WHAT: &'static str = "certificate of this agent";

    fn read(&self) -> Result<Contents, TlsError> {
        Ok(self.files.read()?)
    }

    fn make(&self, contents: &Contents) -> Result<Dated, TlsError> {
        let (config, not_after) = build(&self.files, contents, &self.node)?;
        Ok(Dated { config, not_after })
    }

    fn expires(made: &Dated) -> Option<i64> {
        Some(made.not_after)
    }
}

fn build(files: &Files, contents: &Contents, node: &str) -> Result<(Arc<ClientConfig>, i64), TlsError> {
    let Material { ca, chain, key, not_after, node: found } =
        files.check(contents, now_ns().div_euclid(1_000_000_000))?;
    let certificate = files.certificate.display().to_string();
    if found.as_deref() != Some(node) {
        let found = found.map_or_else(|| "no node".to_owned(), |found| format!("node `{found}`"));
        return Err(TlsError::OtherNode { path: certificate, found, node: node.to_owned() });
    }
    let mut roots = RootCertStore::empty();
    let unusable =
        |path: &std::path::Path, source| TlsError::Unusable { path: path.display().to_string(), source };
    for authority in ca {
        roots.add(authority).map_err(|error| unusable(&files.ca, error))?;
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| unusable(&files.certificate, error))?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => TlsError::KeyMismatch {
                key: files.key.display().to_string(),
                certificate: certificate.clone(),
            },
            other => unusable(&files.key, other),
        })?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok((Arc::new(config), not_after))
}
