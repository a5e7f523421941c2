//! TLS of one sink and no other.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use hyper_rustls::ConfigBuilderExt as _;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use crate::config::receivers::TlsConfig;

/// Why a sink's TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or is not PEM.
    #[error("tls.{field}: {path}: {cause}")]
    File {
        /// The setting that names it.
        field: &'static str,
        /// Its path.
        path: PathBuf,
        /// What is wrong with it.
        cause: rustls_pki_types::pem::Error,
    },
    /// A file has no certificate in it.
    #[error("tls.{field}: {path}: no certificate in it")]
    Empty {
        /// The setting that names it.
        field: &'static str,
        /// Its path.
        path: PathBuf,
    },
    /// A certificate of the authorities cannot be used.
    #[error("tls.caFile: {path}: {cause}")]
    Authority {
        /// Its path.
        path: PathBuf,
        /// What is wrong with it.
        cause: rustls::Error,
    },
    /// Certificate and key do not go together, or only one of them is there.
    #[error("tls.certFile and tls.keyFile: {0}")]
    Pair(String),
    /// It is no name.
    #[error("tls.serverName: {0:?} is no DNS name and no IP address")]
    ServerName(String),
    /// The protocol versions.
    #[error("tls: {0}")]
    Rustls(#[from] rustls::Error),
}

/// Takes any certificate; its holder still has to prove that it has the key.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

/// What a sink called `name` connects with.
pub(super) fn client(name: &str, config: &TlsConfig) -> Result<ClientConfig, TlsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder =
        ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let builder = if config.insecure_skip_verify {
        tracing::warn!(sink = name, "tls.insecureSkipVerify: whoever answers is taken for the sink");
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Anyone(provider)))
    } else if let Some(path) = &config.ca_file {
        builder.with_root_certificates(authorities(path)?)
    } else {
        builder.with_webpki_roots()
    };
    match (&config.cert_file, &config.key_file) {
        (None, None) => Ok(builder.with_no_client_auth()),
        (Some(certificate), Some(key)) => {
            let chain = certificates("certFile", certificate)?;
            let key = PrivateKeyDer::from_pem_file(key).map_err(|cause| TlsError::File {
                field: "keyFile",
                path: key.clone(),
                cause,
            })?;
            builder.with_client_auth_cert(chain, key).map_err(|error| TlsError::Pair(error.to_string()))
        }
        _ => Err(TlsError::Pair("one is given without the other".to_owned())),
    }
}

/// The name that the sink's certificate must carry, where it is not the host's.
pub(super) fn server_name(config: &TlsConfig) -> Result<Option<ServerName<'static>>, TlsError> {
    let parse =
        |name: &String| ServerName::try_from(name.clone()).map_err(|_| TlsError::ServerName(name.clone()));
    config.server_name.as_ref().map(parse).transpose()
}

fn authorities(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates("caFile", path)? {
        roots.add(certificate).map_err(|cause| TlsError::Authority { path: path.to_owned(), cause })?;
    }
    Ok(roots)
}

fn certificates(field: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |cause| TlsError::File { field, path: path.to_owned(), cause };
    let certificates: Vec<_> =
        CertificateDer::pem_file_iter(path).and_then(Iterator::collect).map_err(failed)?;
    if certificates.is_empty() {
        return Err(TlsError::Empty { field, path: path.to_owned() });
    }
    Ok(certificates)
}

// === impl Anyone ===

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
