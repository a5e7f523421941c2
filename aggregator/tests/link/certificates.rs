//! Certificates, on disk as a Secret would be.

use std::path::PathBuf;

use nodetap_wire::tls::Files;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType,
    date_time_ymd,
};
use tempfile::TempDir;

/// A CA.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// When a certificate is valid.
pub enum Life {
    Valid,
    Expired,
    Future,
}

/// A folder with `ca.crt`, `tls.crt` and `tls.key`.
pub struct Identity {
    folder: TempDir,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap() }
    }

    pub fn agent(&self, node: &str) -> Identity {
        self.client(Some(node), Life::Valid)
    }

    pub fn client(&self, node: Option<&str>, life: Life) -> Identity {
        let names = node.map(|node| SanType::URI(format!("nodetap://node/{node}").try_into().unwrap()));
        self.issue(names.into_iter().collect(), ExtendedKeyUsagePurpose::ClientAuth, life)
    }

    pub fn client_of(&self, uris: &[&str]) -> Identity {
        let names = uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())).collect();
        self.issue(names, ExtendedKeyUsagePurpose::ClientAuth, Life::Valid)
    }

    pub fn server(&self, name: &str) -> Identity {
        let name = SanType::DnsName(name.try_into().unwrap());
        self.issue(vec![name], ExtendedKeyUsagePurpose::ServerAuth, Life::Valid)
    }

    fn issue(&self, names: Vec<SanType>, usage: ExtendedKeyUsagePurpose, life: Life) -> Identity {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.subject_alt_names = names;
        params.extended_key_usages = vec![usage];
        let (from, to) = match life {
            Life::Valid => (2020, 2090),
            Life::Expired => (2000, 2001),
            Life::Future => (2090, 2091),
        };
        params.not_before = date_time_ymd(from, 1, 1);
        params.not_after = date_time_ymd(to, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let identity = Identity { folder: TempDir::new().unwrap() };
        identity.write_ca(self);
        identity.put("tls.crt", &certificate.pem());
        identity.put("tls.key", &key.serialize_pem());
        identity
    }
}

impl Identity {
    pub fn files(&self) -> Files {
        Files { ca: self.path("ca.crt"), certificate: self.path("tls.crt"), key: self.path("tls.key") }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn put(&self, name: &str, content: &str) {
        std::fs::write(self.path(name), content).unwrap();
    }

    pub fn write_ca(&self, authority: &Authority) {
        self.put("ca.crt", &authority.issuer.pem());
    }

    /// Takes over what another has.
    pub fn copy(&self, name: &str, other: &Self) {
        self.put(name, &std::fs::read_to_string(other.path(name)).unwrap());
    }
}
