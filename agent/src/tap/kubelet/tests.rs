#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::{Arc, Mutex};

use kube::Config;
use nodetap_bench::pki::Authority;
use rustls::ServerConfig;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

/// A kubelet that shows one certificate and knows one token, both of which can be changed; each answer ends its connection.
#[derive(Clone)]
struct Rotating(Arc<Mutex<(Arc<ServerConfig>, &'static str)>>);

// === impl Rotating ===

impl Rotating {
    async fn start(authority: &Authority, token: &'static str) -> (Self, Uri) {
        rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
        let rotating = Self(Arc::new(Mutex::new((certificate(authority), token))));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap()).parse().unwrap();
        let serving = rotating.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (tls, token) = serving.0.lock().unwrap().clone();
                tokio::spawn(async move {
                    let Ok(mut stream) = tokio_rustls::TlsAcceptor::from(tls).accept(stream).await else {
                        return;
                    };
                    let mut asked = Vec::new();
                    while !asked.ends_with(b"\r\n\r\n") {
                        asked.push(stream.read_u8().await.unwrap());
                    }
                    let asked = String::from_utf8(asked).unwrap().to_lowercase();
                    let knows = asked.contains(&format!("authorization: bearer {token}\r\n"));
                    let (status, body) =
                        if knows { ("200 OK", "{\"items\":[]}") } else { ("401 Unauthorized", "") };
                    let head = format!(
                        "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
                        body.len()
                    );
                    stream.write_all(head.as_bytes()).await.unwrap();
                    stream.write_all(body.as_bytes()).await.unwrap();
                    stream.shutdown().await.unwrap();
                });
            }
        });
        (rotating, url)
    }

    fn shows(&self, certificate: Arc<ServerConfig>) {
        self.0.lock().unwrap().0 = certificate;
    }

    fn knows(&self, token: &'static str) {
        self.0.lock().unwrap().1 = token;
    }
}

fn certificate(authority: &Authority) -> Arc<ServerConfig> {
    let config = authority.server("node-1").unwrap().server_config().unwrap();
    let mut config = Arc::unwrap_or_clone(config);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}

/// A client with a token and a CA in files, as in a pod.
fn kubelet(folder: &Path, url: Uri) -> Kubelet {
    let mut config = Config::new("https://127.0.0.1:1".parse().unwrap());
    config.auth_info.token_file = Some(folder.join("token").to_string_lossy().into_owned());
    let access = KubernetesAccess::from_config(config).unwrap();
    Kubelet::new(access, Address { url, ca: Some(folder.join("ca.crt")), skip_verify: false })
}

/// A kubelet that has answered once: the client's files, the CA of its certificate, the server, the client.
async fn begun() -> (tempfile::TempDir, Authority, Rotating, Kubelet) {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new("kubelet-serving").unwrap();
    std::fs::write(folder.path().join("ca.crt"), authority.pem()).unwrap();
    std::fs::write(folder.path().join("token"), "first").unwrap();
    let (server, url) = Rotating::start(&authority, "first").await;
    let mut kubelet = kubelet(folder.path(), url);
    kubelet.pods().await.unwrap();
    (folder, authority, server, kubelet)
}

#[tokio::test]
async fn a_token_that_was_rotated_is_read_again_before_a_failure_counts() {
    let (folder, _, server, mut kubelet) = begun().await;
    server.knows("second");
    std::fs::write(folder.path().join("token"), "second").unwrap();
    kubelet.pods().await.unwrap();
    // One that it does not know is a failure, and is not asked with for ever.
    server.knows("third");
    let refused = kubelet.pods().await.unwrap_err();
    assert!(matches!(refused, KubeletError::Ask(AskError::Unauthorized { .. })), "{refused}");
    std::fs::write(folder.path().join("token"), "third").unwrap();
    kubelet.pods().await.unwrap();
}

#[tokio::test]
async fn a_kubelet_that_rotates_its_certificate_is_followed_without_a_failure() {
    let (folder, authority, server, mut kubelet) = begun().await;
    server.shows(certificate(&authority));
    kubelet.pods().await.unwrap();
    // And under another CA, once its bundle is there.
    let other = Authority::new("kubelet-serving-2").unwrap();
    server.shows(certificate(&other));
    std::fs::write(folder.path().join("ca.crt"), format!("{}{}", authority.pem(), other.pem())).unwrap();
    kubelet.pods().await.unwrap();
    std::fs::write(folder.path().join("ca.crt"), authority.pem()).unwrap();
    kubelet.client = None;
    let refused = kubelet.pods().await.unwrap_err();
    assert!(matches!(refused, KubeletError::Ask(AskError::UnknownAuthority { .. })), "{refused}");
}

#[tokio::test]
async fn a_cluster_ca_that_is_replaced_is_read_again_without_a_failure() {
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("cluster.crt");
    let (old, new) = (Authority::new("cluster").unwrap(), Authority::new("cluster-2").unwrap());
    std::fs::write(&ca, old.pem()).unwrap();
    std::fs::write(folder.path().join("token"), "first").unwrap();
    let (server, url) = Rotating::start(&old, "first").await;
    let mut config = Config::new("https://127.0.0.1:1".parse().unwrap());
    config.auth_info.token_file = Some(folder.path().join("token").to_string_lossy().into_owned());
    config.root_cert_file = Some(ca.clone());
    let access = KubernetesAccess::from_config(config).unwrap();
    let mut kubelet = Kubelet::new(access, Address { url, ca: None, skip_verify: false });
    kubelet.pods().await.unwrap();
    // As Kubernetes rotates it: the bundle first, then the certificate, then the old authority goes.
    for (bundle, shown) in [
        (format!("{}{}", old.pem(), new.pem()), &old),
        (format!("{}{}", old.pem(), new.pem()), &new),
        (new.pem().to_owned(), &new),
    ] {
        std::fs::write(&ca, bundle).unwrap();
        server.shows(certificate(shown));
        kubelet.pods().await.unwrap();
    }
    // At once, as where somebody replaces both by hand.
    std::fs::write(&ca, old.pem()).unwrap();
    server.shows(certificate(&old));
    kubelet.pods().await.unwrap();
    // What was trusted when the client was made is trusted for as long as it lives.
    kubelet.client = None;
    server.shows(certificate(&new));
    let refused = kubelet.pods().await.unwrap_err();
    assert!(matches!(refused, KubeletError::Ask(AskError::UnknownAuthority { .. })), "{refused}");
}
