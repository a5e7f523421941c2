use std::sync::Mutex;

use prometheus_client::metrics::counter::Counter;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;

#[derive(Default)]
struct Scripted(Mutex<Option<String>>);

impl Health for Scripted {
    fn live(&self) -> Vec<Check> {
        vec![Check::new("tasks", None)]
    }

    fn ready(&self) -> Vec<Check> {
        vec![Check::new("tasks", None), Check::new("journal", self.0.lock().unwrap().clone())]
    }
}

async fn serve(health: Arc<Scripted>) -> SocketAddr {
    let mut registry = Registry::default();
    let counter = Counter::<u64>::default();
    counter.inc();
    registry.register("taken", "Taken", counter);
    let listener = bind("127.0.0.1:0".parse().unwrap(), "metrics", "--listen").await.unwrap();
    let address = listener.local_addr().unwrap();
    let endpoint = Endpoint::new(registry, health)
        .with_more_metrics(|open| format!("events_sent{{}} {}\n", i32::from(open)));
    tokio::spawn(endpoint.run(listener, CancellationToken::new()));
    address
}

async fn get(address: SocketAddr, path: &str, accept: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\naccept: {accept}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn metrics_are_given_in_the_format_that_is_asked_for() {
    let address = serve(Arc::default()).await;
    let open = get(address, "/metrics", "application/openmetrics-text;version=1.0.0").await;
    assert!(open.contains("content-type: application/openmetrics-text; version=1.0.0"), "{open}");
    assert!(open.ends_with("events_sent{} 1\n# EOF\n"), "{open}");
    let text = get(address, "/metrics", "*/*").await;
    assert!(text.contains("content-type: text/plain; version=0.0.4"), "{text}");
    assert!(
        text.contains("# TYPE taken_total counter\ntaken_total 1\n") && text.ends_with("events_sent{} 0\n"),
        "{text}"
    );
}

#[tokio::test]
async fn readiness_says_what_fails_and_why_while_liveness_holds() {
    let health = Arc::<Scripted>::default();
    let address = serve(Arc::clone(&health)).await;
    assert!(get(address, "/readyz", "*/*").await.starts_with("HTTP/1.1 200"));
    *health.0.lock().unwrap() = Some("disk full".to_owned());
    for path in ["/readyz", "/-/ready"] {
        let answer = get(address, path, "*/*").await;
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        assert!(answer.ends_with("[+] tasks ok\n[-] journal failed: disk full\n"), "{answer}");
    }
    assert!(get(address, "/livez", "*/*").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn an_address_in_use_is_named_with_the_way_out() {
    let first = bind("127.0.0.1:0".parse().unwrap(), "metrics", "--listen").await.unwrap();
    let address = first.local_addr().unwrap();
    let error = bind(address, "metrics", "--listen").await.unwrap_err().to_string();
    assert!(error.starts_with(&format!("cannot listen on {address} for metrics: ")), "{error}");
    assert!(error.ends_with("choose another with --listen"), "{error}");
}
