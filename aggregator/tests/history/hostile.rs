//! Input that nobody means well with, and what a person mistypes.

use http::Method;
use serde_json::Value;

use crate::client::{Served, TOKEN};
use crate::store::Store;
use crate::{event, three};

#[tokio::test]
async fn a_bad_parameter_is_named_with_its_value_and_what_is_expected() {
    let served = Served::start(three()).await;
    for (query, parameter, said) in [
        ("limit=0", "limit", "limit=0: expected a whole number from 1 to 1000"),
        ("limit=1001", "limit", "expected a whole number from 1 to 1000"),
        ("limit=ten", "limit", "expected a whole number"),
        ("limit=99999999999999999999", "limit", "expected a whole number"),
        (
            "since=yesterday",
            "since",
            "expected RFC 3339 such as 2026-01-31T12:00:00Z, seconds since 1970, or a duration",
        ),
        ("since=1767225600000", "since", "seconds since 1970"),
        ("since=", "since", "expected RFC 3339"),
        ("since=2h&until=3h", "until", "expected a moment after since"),
        ("record=deaths", "record", "expected one of event, death; did you mean death?"),
        ("exitCode=4294967296", "exitCode", "expected a whole number from -2147483648"),
        ("namespace=", "namespace", "expected 1 to 512 bytes of text"),
        ("text=%2A-%2A", "text", "expected a word"),
        ("limit=1&limit=2", "limit", "given twice"),
        ("namespac=shop", "namespac", "unknown parameter; did you mean namespace?"),
        ("exitcode=1", "exitcode", "did you mean exitCode?"),
        ("colour=red", "colour", "unknown parameter; there are cluster, container, cursor"),
        ("by=reason", "by", "unknown parameter"),
        ("text=%ff", "text=%ff", "expected UTF-8"),
        ("text=%c3%28", "text=%c3%28", "expected UTF-8"),
        ("text=%", "text=%", "expected UTF-8"),
        ("%ff=1", "%ff", "expected UTF-8"),
    ] {
        let answer = served.get(&format!("/api/v1/records?{query}")).await;
        assert_eq!(answer.status, 400, "{query}");
        assert!(answer.message().contains(said), "{query}: {}", answer.text());
        assert_eq!(answer.json()["error"]["parameter"], parameter, "{query}");
    }
    let answer = served.get("/api/v1/counts?step=1s&since=2026-01-01T00:00:00Z").await;
    assert!(
        answer.message().contains("expected at most 1000, by a longer step or a later since"),
        "{}",
        answer.text()
    );
    for path in [
        "/api/v1/counts?top=0",
        "/api/v1/counts?by=colour",
        "/api/v1/tail?after=-1",
        "/api/v1/export?order=odd",
    ] {
        assert_eq!(served.get(path).await.status, 400, "{path}");
    }
    let bearer = format!("Bearer {TOKEN}");
    let headers = [("authorization", bearer.as_str()), ("last-event-id", "x")];
    let answer = served.get_as("/api/v1/tail", &headers, None).await;
    assert_eq!(
        (answer.status.as_u16(), &answer.json()["error"]["parameter"]),
        (400, &Value::from("Last-Event-ID"))
    );
}

#[tokio::test]
async fn a_cursor_that_was_not_given_out_for_this_question_is_refused() {
    let store = Store::new();
    for number in 1..=5 {
        store.put(event(number, number, "x"), None);
    }
    let served = Served::start(store).await;
    let cursor =
        served.json("/api/v1/records?limit=1&reason=BackOff").await["cursor"].as_str().unwrap().to_owned();
    let with = |query: &str, cursor: &str| format!("/api/v1/records?limit=1{query}&cursor={cursor}");
    assert_eq!(served.get(&with("&reason=BackOff", &cursor)).await.status, 200);
    let answer = served.get(&with("", &cursor)).await;
    assert_eq!(answer.status, 400);
    assert!(answer.message().contains("the cursor is of another question"));
    for forged in [
        cursor.replace('0', "1"),
        cursor[2..].to_owned(),
        "x".into(),
        "%00".into(),
        "00".repeat(41),
        "ü".into(),
    ] {
        let forged = forged.replace('ü', "%C3%BC");
        let answer = served.get(&with("&reason=BackOff", &forged)).await;
        assert_eq!(answer.status, 400, "{forged}");
        assert!(answer.message().contains("leave it out to begin anew"), "{}", answer.text());
    }
}

#[tokio::test]
async fn a_request_that_is_too_large_is_refused_and_the_next_is_answered() {
    let served = Served::start(three()).await;
    let answer = served.get(&format!("/api/v1/records?text={}", "x".repeat(9_000))).await;
    assert_eq!(answer.status, 414);
    assert!(answer.message().contains("longer than 8192 bytes"));
    let answer = served.get(&format!("/api/v1/records?text={}", "x".repeat(60_000))).await;
    assert_eq!(answer.status, 431);
    let many = "namespace=a&".repeat(65);
    let answer = served.get(&format!("/api/v1/records?{many}")).await;
    assert!(answer.message().contains("at most 64"), "{}", answer.text());
    let answer = served.get(&format!("/api/v1/records?text={}", "x".repeat(513))).await;
    assert_eq!(answer.status, 400);
    assert!(answer.body.len() < 1_000, "the value is not sent back whole");
    assert_eq!(served.get("/api/v1/records").await.status, 200);
}

#[tokio::test]
async fn only_reading_is_possible_and_only_what_is_there() {
    let served = Served::start(three()).await;
    let bearer = format!("Bearer {TOKEN}");
    let headers = [("authorization", bearer.as_str())];
    for method in [Method::POST, Method::PUT, Method::DELETE, Method::PATCH, Method::OPTIONS] {
        let answer = served.send(method.clone(), "/api/v1/records", &headers, None).await.unwrap();
        assert_eq!(answer.status, 405, "{method}");
        assert_eq!(answer.headers["allow"], "GET, HEAD");
    }
    let head = served.send(Method::HEAD, "/api/v1/records", &headers, None).await.unwrap();
    assert_eq!((head.status.as_u16(), head.body.len()), (200, 0));
    for path in ["/api/v1", "/api/v1/record", "/metrics", "/../etc/passwd", "//", "/openapi.json/"] {
        let answer = served.get(path).await;
        assert_eq!(answer.status, 404, "{path}");
        assert!(answer.message().contains("/openapi.json"));
    }
}

#[tokio::test]
async fn a_connection_that_speaks_no_tls_or_nothing_holds_up_nobody() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let limits = nodetap_aggregator::history::api::Limits {
        handshake: std::time::Duration::from_millis(50),
        ..Default::default()
    };
    let served = Served::start_as(three(), limits, &[]).await;
    let mut plain = tokio::net::TcpStream::connect(served.address).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut silent = tokio::net::TcpStream::connect(served.address).await.unwrap();
    assert_eq!(served.get("/api/v1/records").await.status, 200);
    let mut said = Vec::new();
    // However it ends.
    let _ = plain.read_to_end(&mut said).await;
    assert!(!said.starts_with(b"HTTP"));
    assert_eq!(silent.read(&mut [0; 1]).await.unwrap_or(0), 0, "given up");
}
