//! Metrics and health over HTTP: `/metrics`, `/livez`, `/readyz`, and kubernetes-event-exporter's `/-/healthy` and `/-/ready`.
//!
//! Health is what the process says of its progress at that moment, never the mere fact that it answers.

use std::convert::Infallible;
use std::fmt::Write;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::exposition;

/// What a process says of itself.
pub trait Health: Send + Sync + 'static {
    /// What must hold for the process to be worth keeping.
    fn live(&self) -> Vec<Check>;

    /// What must hold for it to do its work now.
    fn ready(&self) -> Vec<Check>;
}

/// One thing that must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What is checked, such as `journal`.
    pub name: &'static str,
    /// Why it does not hold.
    pub failure: Option<String>,
}

/// What a route of its owner answers.
pub type Answer = Pin<Box<dyn Future<Output = Response<Full<Bytes>>> + Send>>;

/// Serves metrics and health.
pub struct Endpoint<H> {
    registry: Arc<Registry>,
    health: Arc<H>,
    routes: Vec<(&'static str, Arc<dyn Fn() -> Answer + Send + Sync>)>,
    more_metrics: Arc<dyn Fn(bool) -> String + Send + Sync>,
}

/// Scrapers and probes at one time: more than any cluster has, and few enough to hold no memory.
const MAX_CONNECTIONS: usize = 64;

/// A request's head has this long to come, and so an idle connection to stay.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// For what a route asks of another part.
const ROUTE_TIMEOUT: Duration = Duration::from_secs(10);

/// After a failed accept, as when file descriptors run out: long enough not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

// === impl Check ===

impl Check {
    /// Holds if `failure` is none.
    pub fn new(name: &'static str, failure: Option<String>) -> Self {
        Self { name, failure }
    }
}

// === impl Endpoint ===

impl<H: Health> Endpoint<H> {
    /// Serves this registry and this health.
    pub fn new(registry: Registry, health: Arc<H>) -> Self {
        Self {
            registry: Arc::new(registry),
            health,
            routes: Vec::new(),
            more_metrics: Arc::new(|_| String::new()),
        }
    }

    /// Adds metrics that a registry cannot hold, such as counters whose names lack `_total`. Told whether OpenMetrics is
    /// asked for.
    pub fn with_more_metrics(mut self, more: impl Fn(bool) -> String + Send + Sync + 'static) -> Self {
        self.more_metrics = Arc::new(more);
        self
    }

    /// Answers GET of one more path; see [`json`] and [`unavailable`].
    pub fn with_route<F>(mut self, path: &'static str, answer: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
    {
        self.routes.push((path, Arc::new(move || Box::pin(answer()))));
        self
    }

    /// Serves until told to stop.
    pub async fn run(self, listener: TcpListener, stop: CancellationToken) {
        let this = Arc::new(self);
        let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stop.cancelled() => return,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection for metrics or health");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
                tracing::debug!(limit = MAX_CONNECTIONS, "refused a connection for metrics or health");
                continue;
            };
            let (this, stop) = (Arc::clone(&this), stop.clone());
            tokio::spawn(async move {
                let _permit = permit;
                let service = service_fn(move |request| {
                    let route = this.route(&request);
                    let response = route.is_none().then(|| this.answer(&request));
                    async move {
                        let response = match (route, response) {
                            (Some(route), _) => {
                                timeout(ROUTE_TIMEOUT, route).await.unwrap_or_else(|late| unavailable(&late))
                            }
                            (None, Some(response)) => response,
                            (None, None) => unavailable(&"nothing to answer with"),
                        };
                        Ok::<_, Infallible>(response)
                    }
                });
                let connection = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEAD_TIMEOUT)
                    .serve_connection(TokioIo::new(stream), service);
                tokio::select! {
                    ended = connection => if let Err(error) = ended {
                        tracing::debug!(%error, "a connection for metrics or health ended");
                    },
                    () = stop.cancelled() => {}
                }
            });
        }
    }

    fn route(&self, request: &Request<Incoming>) -> Option<Answer> {
        let (_, answer) = self.routes.iter().find(|(path, _)| *path == request.uri().path())?;
        matches!(*request.method(), Method::GET | Method::HEAD).then(|| answer())
    }

    /// `/metrics /livez /readyz`, and what else there is.
    fn paths(&self) -> String {
        let routes = self.routes.iter().map(|(path, _)| *path);
        ["/metrics", "/livez", "/readyz"].into_iter().chain(routes).collect::<Vec<_>>().join(" ")
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n".to_owned());
        }
        match request.uri().path() {
            "/metrics" => {
                let accept = request.headers().get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
                self.metrics(accept.is_some_and(exposition::wants_open_metrics))
            }
            "/livez" | "/-/healthy" => report(&self.health.live()),
            "/readyz" | "/-/ready" => report(&self.health.ready()),
            "/" => plain(StatusCode::OK, format!("{}\n", self.paths())),
            path => plain(StatusCode::NOT_FOUND, format!("nothing at {path}; there are {}\n", self.paths())),
        }
    }

    fn metrics(&self, open: bool) -> Response<Full<Bytes>> {
        let more = (self.more_metrics)(open);
        let (mut text, kind) = match open {
            true => (exposition::open_metrics(&self.registry), exposition::OPEN_METRICS),
            false => (exposition::prometheus(&self.registry), exposition::PROMETHEUS),
        };
        let end = text.len() - if open { "# EOF\n".len() } else { 0 };
        text.insert_str(end, &more);
        let mut response = Response::new(Full::from(text));
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        response
    }
}

/// Binds an address.
///
/// # Errors
/// Names the address and the way out.
pub async fn bind(
    address: SocketAddr,
    what: &'static str,
    setting: &'static str,
) -> Result<TcpListener, BindError> {
    TcpListener::bind(address).await.map_err(|error| BindError { address, what, setting, error })
}

/// An address that cannot be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} for {what}: {error}; choose another with {setting}")]
pub struct BindError {
    address: SocketAddr,
    what: &'static str,
    setting: &'static str,
    error: std::io::Error,
}

/// An answer that is JSON.
pub fn json(text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Says why there is no answer.
pub fn unavailable(why: &dyn std::fmt::Display) -> Response<Full<Bytes>> {
    plain(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n"))
}

fn report(checks: &[Check]) -> Response<Full<Bytes>> {
    let failed = checks.iter().any(|check| check.failure.is_some());
    let mut text = String::new();
    for Check { name, failure } in checks {
        // Writing to a String cannot fail.
        let _ = match failure {
            None => writeln!(text, "[+] {name} ok"),
            Some(failure) => writeln!(text, "[-] {name} failed: {failure}"),
        };
    }
    plain(if failed { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK }, text)
}

fn plain(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

#[cfg(test)]
mod tests;
