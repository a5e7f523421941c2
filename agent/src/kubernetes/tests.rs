use std::fs;

use super::*;

fn authority() -> (String, Vec<u8>) {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate =
        rcgen::CertificateParams::new(vec!["cluster".to_owned()]).unwrap().self_signed(&key).unwrap();
    (certificate.pem(), certificate.der().to_vec())
}

fn config() -> Config {
    Config::new("https://127.0.0.1:6443".parse().unwrap())
}

#[tokio::test]
async fn a_kubeconfig_gives_the_server_the_token_and_the_ca() {
    let folder = tempfile::tempdir().unwrap();
    let (pem, der) = authority();
    fs::write(folder.path().join("ca.crt"), pem).unwrap();
    fs::write(
        folder.path().join("config"),
        "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
         contexts: [{name: c, context: {cluster: k, user: u}}]\n\
         clusters: [{name: k, cluster: {server: 'https://127.0.0.1:6443', certificate-authority: ca.crt}}]\n\
         users: [{name: u, user: {token: abc}}]\n",
    )
    .unwrap();

    let access = KubernetesAccess::new(Some(&folder.path().join("config"))).await.unwrap();

    assert_eq!(access.server(), "https://127.0.0.1:6443/");
    assert_eq!(access.token().as_deref(), Some("abc"));
    let ca = certificates(&access.ca_pem().unwrap().unwrap()).unwrap();
    assert_eq!(ca, vec![CertificateDer::from(der)]);
}

#[tokio::test]
async fn a_kubeconfig_that_is_not_there_is_refused_by_name() {
    let error = KubernetesAccess::new(Some(Path::new("/nowhere/config"))).await.unwrap_err();
    assert!(error.to_string().starts_with("kubeconfig /nowhere/config cannot be used: "), "{error}");
}

#[tokio::test]
async fn a_token_file_is_read_again_and_its_last_token_outlives_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    fs::write(&path, "first\n").unwrap();
    let mut config = config();
    config.auth_info.token_file = Some(path.to_string_lossy().into_owned());
    let access = KubernetesAccess::from_config(config).unwrap();

    assert_eq!(access.token().as_deref(), Some("first"));
    fs::write(&path, "second\n").unwrap();
    assert_eq!(access.token().as_deref(), Some("second"));
    fs::remove_file(&path).unwrap();
    assert_eq!(access.token().as_deref(), Some("second"));
}

#[tokio::test]
async fn a_token_file_that_cannot_be_read_at_start_is_refused_by_name() {
    let mut config = config();
    config.auth_info.token_file = Some("/nowhere/token".to_owned());
    let error = KubernetesAccess::from_config(config).unwrap_err();
    assert!(error.to_string().starts_with("/nowhere/token cannot be read: "), "{error}");
}

#[tokio::test]
async fn a_bundle_without_a_certificate_makes_no_client() {
    let access = KubernetesAccess::from_config(config()).unwrap();
    let server: http::Uri = "https://127.0.0.1:10250".parse().unwrap();
    assert!(access.client_at(server.clone(), &Trust::Bundle(b"nothing".to_vec())).is_err());
    assert!(access.client_at(server, &Trust::Bundle(authority().0.into_bytes())).is_ok());
}

/// As `/proc/net/tcp` has it: whether the kernel asks the peer of a local port whether it is there.
fn is_kept_alive(local: std::net::SocketAddr) -> bool {
    let port = format!(":{:04X}", local.port());
    fs::read_to_string("/proc/self/net/tcp").unwrap().lines().any(|line| {
        let mut words = line.split_whitespace();
        words.nth(1).is_some_and(|address| address.ends_with(&port))
            && words.nth(3).is_some_and(|timer| timer.starts_with("02:"))
    })
}

#[tokio::test]
async fn a_connection_on_which_nothing_comes_asks_whether_its_peer_is_there() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let access = KubernetesAccess::from_config(Config::new(server)).unwrap();
    let request = http::Request::get("/api/v1/events").body(kube::client::Body::empty()).unwrap();
    tokio::spawn(async move { access.client.send(request).await });
    let (_stream, local) = listener.accept().await.unwrap();
    // The timer is another one until the request was acknowledged.
    while !is_kept_alive(local) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_token_that_was_rotated_counts_from_the_next_request_on() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    fs::write(&path, "first").unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = Config::new(format!("http://{}", listener.local_addr().unwrap()).parse().unwrap());
    config.auth_info.token_file = Some(path.to_string_lossy().into_owned());
    let access = KubernetesAccess::from_config(config).unwrap();
    // Knows the second token alone.
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            let is_known = String::from_utf8(head).unwrap().contains("Bearer second");
            let status = if is_known { "200 OK" } else { "401 Unauthorized" };
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    let ask = async || {
        let request = http::Request::get("/version").body(kube::client::Body::empty()).unwrap();
        access.client.send(request).await.unwrap().status().as_u16()
    };
    assert_eq!(ask().await, 401);
    fs::write(&path, "second").unwrap();
    assert_eq!(ask().await, 200);
    // While the third is being written, the second goes on counting.
    fs::write(&path, "").unwrap();
    assert_eq!(ask().await, 200);
}

#[tokio::test]
async fn a_peer_that_accepts_and_never_speaks_tls_is_given_up() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut silent = config();
    silent.cluster_url = format!("https://{}", listener.local_addr().unwrap()).parse().unwrap();
    silent.connect_timeout = Some(std::time::Duration::from_millis(50));
    let access = KubernetesAccess::from_config(silent).unwrap();
    let request = http::Request::get("/version").body(kube::client::Body::empty()).unwrap();
    let answer = tokio::time::timeout(std::time::Duration::from_secs(60), access.client.send(request)).await;
    assert!(answer.expect("the handshake is waited for without an end").is_err());
}

#[tokio::test]
async fn nothing_is_tried_again_unasked() {
    let access = KubernetesAccess::from_config(config()).unwrap();
    assert!(!access.config.default_retry);
    assert_eq!(access.config.read_timeout, None);
}

#[test]
fn a_proxy_is_refused_with_what_to_do_and_without_its_password() {
    let mut proxied = config();
    proxied.proxy_url = Some("http://user:secret@proxy.example:3128".parse().unwrap());
    let refused = KubernetesAccess::from_config(proxied).unwrap_err().to_string();
    assert!(refused.contains("by the proxy proxy.example:3128"), "{refused}");
    assert!(refused.contains("HTTPS_PROXY") && !refused.contains("secret"), "{refused}");
}

#[test]
fn a_watch_whose_api_server_is_gone_is_found_out_in_time_for_a_handover() {
    let gone_after = |silence: Silence| silence.idle + silence.interval * silence.probes;
    assert!(gone_after(IMPATIENT) <= std::time::Duration::from_secs(3));
    for silence in [IMPATIENT, PATIENT] {
        // Linux goes by this one where it is set, at the next probe.
        assert!(silence.unacknowledged <= gone_after(silence));
        assert!(silence.unacknowledged > gone_after(silence) - silence.interval);
    }
}
