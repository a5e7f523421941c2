#![allow(clippy::unwrap_used)]

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::task::{Context, Poll};

use tokio::time::Instant;
use tonic::codegen::Service;

use super::*;
use crate::kubernetes::requests::Requests;

/// Lists no pods, and answers each watch with 410.
#[derive(Clone)]
struct Gone;

impl Service<http::Request<Body>> for Gone {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let watches = request.uri().query().is_some_and(|query| query.contains("watch=1"));
        let (status, body) = if watches {
            (410, "gone")
        } else {
            (200, r#"{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"7"},"items":[]}"#)
        };
        let body = Body::from(body.as_bytes().to_vec());
        ready(Ok(http::Response::builder().status(status).body(body).unwrap()))
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_answers_each_watch_with_410_is_asked_ever_more_rarely() {
    let began = Instant::now();
    let requests = Requests::default();
    let metrics = Metrics::with(requests.clone());
    let mut watch = PodWatch::spawn(Client::new(Gone, "default"), "node-1".to_owned(), metrics);
    let mut lists = 0;
    while lists < 5 {
        if let Change::Listed(_) = watch.next().await.unwrap() {
            lists += 1;
        }
    }
    // On the paused clock: 1, 2, 4 and 8 s between them, less a fifth.
    assert!(began.elapsed() >= Duration::from_secs(12), "{:?}", began.elapsed());
    // With what the event watches ask for. The last watch may not have been asked for yet.
    assert_eq!(requests.counted("list", "pods", "2xx"), 5);
    assert!(requests.counted("watch", "pods", "4xx") >= 4);
}
