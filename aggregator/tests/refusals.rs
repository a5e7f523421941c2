//! The aggregator's process refuses a configuration that cannot work: exit 64, every problem with line and column, and no
//! port bound before.

#![allow(clippy::unwrap_used, reason = "a test may say that something is there")]

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

const USAGE: i32 = 64;

fn run(arguments: &[&str]) -> (Option<i32>, String) {
    let output =
        Command::new(env!("CARGO_BIN_EXE_nodetap-aggregator")).env_clear().args(arguments).output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

/// A folder with certificates, and a configuration that names them and ends with `more`.
fn configured(more: &str) -> (TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    std::fs::write(folder.path().join("ca.crt"), params.self_signed(&key).unwrap().pem()).unwrap();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(["nodetap-aggregator".to_owned()]).unwrap();
    std::fs::write(folder.path().join("tls.crt"), params.signed_by(&key, &issuer).unwrap().pem()).unwrap();
    std::fs::write(folder.path().join("tls.key"), key.serialize_pem()).unwrap();
    let at = folder.path().display();
    let text = format!(
        "tls: {{certFile: '{at}/tls.crt', keyFile: '{at}/tls.key', caFile: '{at}/ca.crt'}}\n\
         listen: {{agents: '127.0.0.1:0', metrics: '127.0.0.1:0'}}\n{more}"
    );
    let file = write(folder.path(), &text);
    (folder, file)
}

fn write(folder: &Path, text: &str) -> String {
    let file = folder.join("config.yaml");
    std::fs::write(&file, text).unwrap();
    file.display().to_string()
}

fn refused(file: &str, messages: &[&str]) {
    for arguments in [&["--config", file][..], &["check", file]] {
        let (code, said) = run(arguments);
        assert_eq!(code, Some(USAGE), "{said}");
        for message in messages {
            assert!(said.contains(message), "{message:?} is not in {said}");
        }
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named_with_the_way_out() {
    refused(
        "/no/such/config.yaml",
        &["/no/such/config.yaml: cannot be read: No such file or directory", "--config"],
    );
}

#[test]
fn every_problem_is_told_at_once_with_line_and_column() {
    let (_folder, file) = configured(
        "journal:\n  pth: /tmp/j\nroute:\n  routes:\n    - match:\n        - receiver: nobody\nreceivers:\n  - name: dump\n    stdout: {}\n  - name: dump\n    stdout:\n",
    );
    refused(
        &file,
        &[":4:3: journal.pth: unknown key", "nobody", "another receiver is called", "did you mean path?"],
    );
}

#[test]
fn an_unknown_receiver_is_refused_with_its_place() {
    let (_folder, file) =
        configured("route:\n  match:\n    - receiver: dmup\nreceivers:\n  - name: dump\n    stdout: {}\n");
    refused(&file, &[":5:17:", "dmup", "dump"]);
}

#[test]
fn a_certificate_that_is_missing_is_named() {
    let (folder, file) = configured("");
    std::fs::remove_file(folder.path().join("tls.crt")).unwrap();
    refused(&file, &["tls.certFile", "tls.crt cannot be read: No such file or directory"]);
}

#[test]
fn a_configuration_without_problems_passes_the_check_and_opens_nothing() {
    let (folder, _) = configured("");
    let journal = folder.path().join("journal");
    let (_other, file) = configured(&format!(
        "journal: {{path: '{}'}}\nroute: {{match: [{{receiver: dump}}]}}\nreceivers: [{{name: dump, stdout: {{}}}}]\n",
        journal.display()
    ));
    let (code, said) = run(&["check", &file]);
    assert_eq!(code, Some(0), "{said}");
    assert!(!journal.exists());
}

#[test]
fn an_address_in_use_is_named_with_its_setting() {
    let (folder, _) = configured("");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = folder.path().display();
    let text = format!(
        "tls: {{certFile: '{at}/tls.crt', keyFile: '{at}/tls.key', caFile: '{at}/ca.crt'}}\n\
         listen: {{agents: '127.0.0.1:0', metrics: '{}'}}\njournal: {{path: '{at}/journal'}}\n",
        taken.local_addr().unwrap()
    );
    let file = write(folder.path(), &text);
    let (code, said) = run(&["-conf", &file]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("for metrics") && said.contains("choose another with listen.metrics"), "{said}");
}

#[test]
fn a_journal_folder_that_cannot_be_made_is_named_with_the_way_out() {
    let (folder, _) = configured("");
    let blocked = folder.path().join("file");
    std::fs::write(&blocked, "").unwrap();
    let (_other, file) = configured(&format!("journal: {{path: '{}/journal'}}\n", blocked.display()));
    let (code, said) = run(&["--config", &file]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("file/journal: cannot be made") && said.contains("journal.path"), "{said}");
}
