//! The receiver: counts what comes by its version, and refuses while it is down.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// What came.
#[derive(Debug, Default)]
pub(super) struct Received {
    state: Mutex<State>,
    refused: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    /// How often each came, by its number.
    times: Vec<u8>,
    count: u64,
    /// Those below the first number that was sent live.
    old: u64,
    /// When what is live was sent, and how long it took.
    sent: HashMap<u64, Instant>,
    took: Vec<(u64, Duration)>,
}

/// Serves it.
pub(super) async fn serve(received: Arc<Received>, is_up: Arc<AtomicBool>) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await.context("no port for the receiver")?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (received, is_up) = (Arc::clone(&received), Arc::clone(&is_up));
            let service = service_fn(move |request: Request<Incoming>| {
                let (received, is_up) = (Arc::clone(&received), Arc::clone(&is_up));
                async move { Ok::<_, Infallible>(answer(request, &received, &is_up).await) }
            });
            let _ = stream.set_nodelay(true);
            let connection =
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            tokio::spawn(async move {
                // Who hangs up comes again.
                let _ = connection.await;
            });
        }
    });
    Ok(address)
}

async fn answer(
    request: Request<Incoming>,
    received: &Received,
    is_up: &AtomicBool,
) -> Response<Empty<Bytes>> {
    let id = request.headers().get("nodetap-id").and_then(|id| id.to_str().ok());
    let version = id.and_then(|id| id.rsplit('/').next()?.parse::<u64>().ok());
    let status = match (request.into_body().collect().await, version) {
        (Ok(_), Some(version)) if is_up.load(Ordering::Relaxed) => {
            received.take(version.saturating_sub(1));
            StatusCode::OK
        }
        (_, None) => StatusCode::BAD_REQUEST,
        _ => {
            received.refused.fetch_add(1, Ordering::Relaxed);
            StatusCode::SERVICE_UNAVAILABLE
        }
    };
    let mut response = Response::new(Empty::new());
    *response.status_mut() = status;
    response
}

// === impl Received ===

impl Received {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, number: u64) {
        let now = Instant::now();
        let mut state = self.state();
        let Ok(place) = usize::try_from(number) else { return };
        if state.times.len() <= place {
            state.times.resize(place + 1, 0);
        }
        let Some(times) = state.times.get_mut(place) else { return };
        *times = times.saturating_add(1);
        if *times > 1 {
            return;
        }
        state.count += 1;
        match state.sent.remove(&number) {
            Some(sent) => {
                let took = now.duration_since(sent);
                state.took.push((number, took));
            }
            None => state.old += 1,
        }
    }

    /// These are about to be journalled, live.
    pub(super) fn sent(&self, first: u64, last: u64) {
        let now = Instant::now();
        let mut state = self.state();
        state.sent.extend((first..last).map(|number| (number, now)));
    }

    /// How many different ones came.
    pub(super) fn count(&self) -> u64 {
        self.state().count
    }

    /// How many of those before the first live one came.
    pub(super) fn count_to(&self, live: u64) -> u64 {
        self.state().old.min(live)
    }

    /// How many requests were refused.
    pub(super) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// How many of the first so many never came, and how many came more than once.
    pub(super) fn compare(&self, total: u64) -> (u64, u64) {
        let state = self.state();
        let twice = state.times.iter().filter(|times| **times > 1).count() as u64;
        let total = usize::try_from(total).unwrap_or(usize::MAX);
        let came = state.times.iter().take(total).filter(|times| **times > 0).count();
        (total.saturating_sub(came) as u64, twice)
    }

    /// How long each of the live ones took.
    pub(super) fn latencies(&self, first: u64, last: u64) -> Vec<(u64, Duration)> {
        let state = self.state();
        state.took.iter().copied().filter(|(number, _)| (first..last).contains(number)).collect()
    }
}
