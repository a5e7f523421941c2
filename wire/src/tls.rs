//! Certificates as both sides read them: PEM files checked whole before use, and the node that an agent's certificate names.
//!
//! Free of any TLS library. What is read here is well-formed, in date and complete; whether the key fits the certificate is for
//! the TLS library of each side to say.

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::time::format_ns;

/// What comes before the node's name in the URI SAN of an agent's certificate.
pub const NODE_URI: &str = "nodetap://node/";

/// Longest name of a node: a DNS subdomain, as the API server has it.
const MAX_NODE_BYTES: usize = 253;

/// A chain of ten certificates has 20 KiB, a bundle of every public CA a quarter of a megabyte.
const MAX_FILE_BYTES: u64 = 2 << 20;

/// Where the certificates of one side are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The CAs that may have issued the other side's certificate.
    pub ca: PathBuf,
    /// This side's certificate, then what leads up to the CA.
    pub certificate: PathBuf,
    /// Its private key: PKCS #8, PKCS #1 or SEC 1.
    pub key: PathBuf,
}

/// What the files hold. Compares by content.
#[derive(Clone, PartialEq, Eq)]
pub struct Contents {
    ca: Vec<u8>,
    certificate: Vec<u8>,
    key: Vec<u8>,
}

/// Certificates and key, ready for a TLS library.
#[derive(Debug)]
pub struct Material {
    /// The CAs.
    pub ca: Vec<CertificateDer<'static>>,
    /// This side's certificate first.
    pub chain: Vec<CertificateDer<'static>>,
    /// Its key.
    pub key: PrivateKeyDer<'static>,
    /// When this side's certificate ends, in seconds since 1970.
    pub not_after: i64,
    /// The node that this side's certificate names.
    pub node: Option<String>,
}

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It is not there, or may not be read.
    #[error("cannot read {what} {path}: {source}; is the Secret mounted there?")]
    Unreadable {
        /// Which of the three.
        what: &'static str,
        /// Where it should be.
        path: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// Longer than any such file.
    #[error("{what} {path} has more than {MAX_FILE_BYTES} bytes: this is not a PEM file of certificates")]
    TooLong {
        /// Which of the three.
        what: &'static str,
        /// Where it is.
        path: String,
    },
    /// No PEM section of the wanted kind.
    #[error("{what} {path} holds no {wanted} in PEM: expected a line `-----BEGIN {wanted}-----`")]
    NotPem {
        /// Which of the three.
        what: &'static str,
        /// Where it is.
        path: String,
        /// The section that is missing.
        wanted: &'static str,
    },
    /// PEM, but no X.509 certificate inside.
    #[error("{what} {path} holds a certificate that cannot be read: {reason}; issue it again")]
    NotCertificate {
        /// Which of the three.
        what: &'static str,
        /// Where it is.
        path: String,
        /// What the parser says.
        reason: String,
    },
    /// Its time is over.
    #[error("certificate {path} expired at {at}: renew it")]
    Expired {
        /// Where it is.
        path: String,
        /// `notAfter`.
        at: String,
    },
    /// Its time has not come.
    #[error("certificate {path} is not valid before {at}: is this machine's clock right?")]
    NotYetValid {
        /// Where it is.
        path: String,
        /// `notBefore`.
        at: String,
    },
}

/// Why a certificate does not say which node it is of.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NodeError {
    /// Not X.509.
    #[error("a certificate that cannot be read: {0}")]
    NotCertificate(String),
    /// No URI SAN of ours.
    #[error("the certificate names no node: it needs a URI SAN {NODE_URI}<node name>")]
    None,
    /// More than one.
    #[error("the certificate names two nodes, `{0}` and `{1}`: it must name one")]
    Several(String, String),
    /// Not the name of a node.
    #[error("the certificate's URI SAN {NODE_URI} is not followed by the name of a node")]
    NotAName,
}

// === impl Files ===

impl Files {
    /// Reads all three as they are now.
    ///
    /// # Errors
    /// Where one cannot be read, or is far too long.
    pub fn read(&self) -> Result<Contents, FileError> {
        Ok(Contents {
            ca: read("CA file", &self.ca)?,
            certificate: read("certificate", &self.certificate)?,
            key: read("key", &self.key)?,
        })
    }

    /// Checks what was read from these files. `now` is in seconds since 1970.
    ///
    /// # Errors
    /// Where a file holds something else, or the certificate is out of date.
    pub fn check(&self, contents: &Contents, now: i64) -> Result<Material, FileError> {
        let ca = certificates("CA file", &self.ca, &contents.ca)?;
        let chain = certificates("certificate", &self.certificate, &contents.certificate)?;
        let path = || self.certificate.display().to_string();
        let unreadable =
            |reason: String| FileError::NotCertificate { what: "certificate", path: path(), reason };
        let leaf = chain.first().ok_or_else(|| unreadable("it is empty".to_owned()))?;
        let (_, parsed) = X509Certificate::from_der(leaf).map_err(|error| unreadable(error.to_string()))?;
        let (not_before, not_after) =
            (parsed.validity().not_before.timestamp(), parsed.validity().not_after.timestamp());
        if now > not_after {
            return Err(FileError::Expired { path: path(), at: moment(not_after) });
        }
        if now < not_before {
            return Err(FileError::NotYetValid { path: path(), at: moment(not_before) });
        }
        let key = PrivateKeyDer::from_pem_slice(&contents.key).map_err(|_| FileError::NotPem {
            what: "key",
            path: self.key.display().to_string(),
            wanted: "PRIVATE KEY",
        })?;
        let node = node_of(leaf).ok();
        Ok(Material { ca, chain, key, not_after, node })
    }
}

fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, FileError> {
    let unreadable = |source| FileError::Unreadable { what, path: path.display().to_string(), source };
    let mut content = Vec::new();
    let file = std::fs::File::open(path).map_err(unreadable)?;
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut content).map_err(unreadable)?;
    if content.len() as u64 > MAX_FILE_BYTES {
        return Err(FileError::TooLong { what, path: path.display().to_string() });
    }
    Ok(content)
}

fn certificates(
    what: &'static str,
    path: &Path,
    pem: &[u8],
) -> Result<Vec<CertificateDer<'static>>, FileError> {
    let path = || path.display().to_string();
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found =
        found.map_err(|error| FileError::NotCertificate { what, path: path(), reason: error.to_string() })?;
    if found.is_empty() {
        return Err(FileError::NotPem { what, path: path(), wanted: "CERTIFICATE" });
    }
    Ok(found)
}

fn moment(seconds: i64) -> String {
    format_ns(seconds.saturating_mul(1_000_000_000)).unwrap_or_else(|| format!("{seconds} s since 1970"))
}

// === impl Contents ===

impl fmt::Debug for Contents {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The key stays out of every log.
        formatter
            .debug_struct("Contents")
            .field("certificate", &self.certificate.len())
            .finish_non_exhaustive()
    }
}

/// The node that an agent's certificate names.
///
/// # Errors
/// Where it names none, two, or something that is not a node's name.
pub fn node_of(certificate: &CertificateDer<'_>) -> Result<String, NodeError> {
    let unreadable = |error: &dyn fmt::Display| NodeError::NotCertificate(error.to_string());
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|error| unreadable(&error))?;
    let names = parsed.subject_alternative_name().map_err(|error| unreadable(&error))?;
    let mut found: Option<&str> = None;
    for name in names.iter().flat_map(|extension| &extension.value.general_names) {
        let GeneralName::URI(uri) = name else { continue };
        let Some(node) = uri.strip_prefix(NODE_URI) else { continue };
        if !is_node_name(node) {
            return Err(NodeError::NotAName);
        }
        match found {
            Some(first) if first != node => {
                return Err(NodeError::Several(first.to_owned(), node.to_owned()));
            }
            _ => found = Some(node),
        }
    }
    found.map(str::to_owned).ok_or(NodeError::None)
}

/// Whether this can be a node's name: a DNS subdomain, a little less strictly than the API server has it.
pub fn is_node_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= MAX_NODE_BYTES
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.')
}
