//! The agent's process refuses settings that cannot work: exit 64, every problem with its place and the way out.

#![allow(clippy::unwrap_used, reason = "a test may say that something is there")]

use std::path::{Path, PathBuf};
use std::process::Command;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType, date_time_ymd};
use tempfile::TempDir;

const USAGE: i32 = 64;

/// A CA and a certificate for a node, as files.
struct Pki {
    folder: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Pki {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        std::fs::write(folder.path().join("ca.crt"), certificate.pem()).unwrap();
        std::fs::write(folder.path().join("kubeconfig"), KUBECONFIG).unwrap();
        let pki = Self { folder, issuer: Issuer::new(params, key) };
        pki.issue("node", |params| params.subject_alt_names = node("node1"));
        pki
    }

    fn issue(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) {
        let mut params = CertificateParams::default();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(self.path(&format!("{name}.crt")), certificate.pem()).unwrap();
        std::fs::write(self.path(&format!("{name}.key")), key.serialize_pem()).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs the agent with a certificate, and gives its exit code and what it said.
    fn run(&self, certificate: &Path, key: &Path, more: &[&str]) -> (Option<i32>, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_nodetap-agent"))
            .env_clear()
            .args(["--node-name=node1", "--aggregator=127.0.0.1:1", "--aggregator-name=nodetap-aggregator"])
            .args(["--listen=127.0.0.1:0"])
            .arg(format!("--tls-ca={}", self.path("ca.crt").display()))
            .arg(format!("--tls-certificate={}", certificate.display()))
            .arg(format!("--tls-key={}", key.display()))
            .arg(format!("--kubeconfig={}", self.path("kubeconfig").display()))
            .args(more)
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    }

    fn refused(&self, name: &str, message: &str) {
        let (code, said) =
            self.run(&self.path(&format!("{name}.crt")), &self.path(&format!("{name}.key")), &[]);
        assert_eq!(code, Some(USAGE), "{said}");
        assert!(said.contains(message), "{message:?} is not in {said}");
    }
}

const KUBECONFIG: &str = "apiVersion: v1\nkind: Config\nclusters: [{name: c, cluster: {server: 'https://127.0.0.1:1'}}]\n\
    users: [{name: u, user: {token: t}}]\ncontexts: [{name: x, context: {cluster: c, user: u}}]\ncurrent-context: x\n";

fn node(name: &str) -> Vec<SanType> {
    vec![SanType::URI(format!("nodetap://node/{name}").try_into().unwrap())]
}

#[test]
fn everything_that_is_missing_is_named_at_once() {
    let output = Command::new(env!("CARGO_BIN_EXE_nodetap-agent")).env_clear().output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(USAGE), "{said}");
    for flag in ["--node-name", "--aggregator", "--tls-ca", "--tls-certificate", "--tls-key"] {
        assert!(said.contains(&format!("{flag}: missing")), "{flag} is not in {said}");
    }
}

#[test]
fn a_flag_that_is_not_known_is_a_usage_error() {
    let output = Command::new(env!("CARGO_BIN_EXE_nodetap-agent")).arg("--nodename=n").output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(USAGE), "{said}");
    assert!(said.contains("--nodename") && said.contains("--node-name"), "{said}");
}

#[test]
fn a_certificate_that_is_missing_is_named() {
    let pki = Pki::new();
    let missing = pki.path("gone.crt");
    let (code, said) = pki.run(&missing, &pki.path("node.key"), &[]);
    assert_eq!(code, Some(USAGE), "{said}");
    assert!(said.contains(&format!("--tls-certificate: cannot read {}", missing.display())), "{said}");
}

#[test]
fn a_certificate_that_expired_is_refused_with_the_day() {
    let pki = Pki::new();
    pki.issue("old", |params| {
        params.subject_alt_names = node("node1");
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
    });
    pki.refused("old", "expired at 2021-01-01T00:00:00Z: renew it");
}

#[test]
fn a_certificate_for_another_node_is_refused_with_both_names() {
    let pki = Pki::new();
    pki.issue("other", |params| params.subject_alt_names = node("node2"));
    pki.refused("other", "names node `node2`, but this agent runs on node `node1`");
}

#[test]
fn a_key_of_another_certificate_is_refused() {
    let pki = Pki::new();
    pki.issue("other", |params| params.subject_alt_names = node("node1"));
    let (code, said) = pki.run(&pki.path("node.crt"), &pki.path("other.key"), &[]);
    assert_eq!(code, Some(USAGE), "{said}");
    assert!(said.contains("does not match certificate"), "{said}");
}

#[test]
fn a_kubeconfig_that_cannot_be_used_and_a_bad_certificate_are_told_together() {
    let pki = Pki::new();
    std::fs::write(pki.path("kubeconfig"), "clusters: 7\n").unwrap();
    std::fs::write(pki.path("node.crt"), "not PEM").unwrap();
    let (code, said) = pki.run(&pki.path("node.crt"), &pki.path("node.key"), &[]);
    assert_eq!(code, Some(USAGE), "{said}");
    assert!(said.contains("holds no CERTIFICATE in PEM"), "{said}");
    assert!(
        said.contains(&format!("kubeconfig {} cannot be used", pki.path("kubeconfig").display())),
        "{said}"
    );
}
