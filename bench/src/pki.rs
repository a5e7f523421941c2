//! A certificate authority for tests and the demo: servers, agents, and the aggregator.
//!
//! Keys live in the files and memory of one run only.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// A CA that signs leaves on request.
#[derive(Debug)]
pub struct Authority {
    pem: String,
    der: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

/// A signed certificate and its key.
#[derive(Debug)]
pub struct Leaf {
    /// The certificate, PEM.
    pub certificate: String,
    /// Its private key, PKCS #8 PEM.
    pub key: String,
    certificate_der: CertificateDer<'static>,
    key_der: Vec<u8>,
}

/// Where a [`Leaf`] is written.
#[derive(Clone, Debug)]
pub struct LeafFiles {
    /// The certificate, PEM.
    pub certificate: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
}

// === impl Authority ===

impl Authority {
    /// A new CA with a key of its own.
    pub fn new(name: &str) -> anyhow::Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name = common_name(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        let (pem, der) = (certificate.pem(), certificate.der().clone());
        Ok(Self { pem, der, issuer: Issuer::new(params, key) })
    }

    /// The CA's certificate, PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// A server on loopback: DNS names, and always `localhost`, 127.0.0.1 and ::1.
    pub fn server(&self, name: &str) -> anyhow::Result<Leaf> {
        self.sign(
            name,
            vec![
                SanType::DnsName(name.try_into()?),
                SanType::DnsName("localhost".try_into()?),
                SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)),
                SanType::IpAddress("::1".parse()?),
            ],
            ExtendedKeyUsagePurpose::ServerAuth,
        )
    }

    /// An agent: the URI SAN `nodetap://node/<node>` names its node.
    pub fn agent(&self, node: &str) -> anyhow::Result<Leaf> {
        let san = SanType::URI(format!("nodetap://node/{node}").as_str().try_into()?);
        self.sign(node, vec![san], ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// The aggregator: DNS SAN `nodetap-aggregator`, and loopback.
    pub fn aggregator(&self) -> anyhow::Result<Leaf> {
        self.server("nodetap-aggregator")
    }

    /// Roots that hold this CA alone.
    pub fn roots(&self) -> anyhow::Result<rustls::RootCertStore> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.der.clone())?;
        Ok(roots)
    }

    fn sign(&self, name: &str, sans: Vec<SanType>, usage: ExtendedKeyUsagePurpose) -> anyhow::Result<Leaf> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name = common_name(name);
        params.subject_alt_names = sans;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Leaf {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
            certificate_der: certificate.der().clone(),
            key_der: key.serialize_der(),
        })
    }
}

// === impl LeafFiles ===

impl LeafFiles {
    /// `<name>.crt` and `<name>.key` of a folder.
    pub fn of(folder: &Path, name: &str) -> Self {
        Self { certificate: folder.join(format!("{name}.crt")), key: folder.join(format!("{name}.key")) }
    }
}

// === impl Leaf ===

impl Leaf {
    /// Writes `<name>.crt` and `<name>.key` into a folder.
    pub fn write(&self, folder: &Path, name: &str) -> anyhow::Result<LeafFiles> {
        let files = LeafFiles::of(folder, name);
        for (path, text) in [(&files.certificate, &self.certificate), (&files.key, &self.key)] {
            std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(files)
    }

    /// Settings of a server that shows this certificate, asks for none, and speaks HTTP/2 and HTTP/1.1.
    pub fn server_config(&self) -> anyhow::Result<Arc<rustls::ServerConfig>> {
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key_der.clone()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![self.certificate_der.clone()], key)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}
