//! The history over HTTPS: search, counts, a live tail, an export, the OpenAPI document, and a small page.
//!
//! Read only. Everything but the page and the document wants a token or a client certificate (`access`), and everything has a
//! bound: rows, bytes, time, connections, questions, tails.

mod access;
mod answer;
mod cursor;
mod export;
mod metrics;
mod openapi;
mod page;
mod parameters;
mod percent;
mod questions;
mod routes;
mod rows;
mod server;
mod stalled;
mod tail;
mod tls;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode, header};
use nodetap_wire::time::now_ns;
use nodetap_wire::tls::Files;
use rustls::pki_types::CertificateDer;
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::access::Access;
pub use self::access::{Client, TokenError};
use self::answer::{Answer, Refusal};
pub use self::metrics::Cut;
use self::metrics::{Class, RequestLabels, RouteLabel, RouteValue};
pub use self::metrics::{CutLabel, Metrics};
use self::page::Page;
use self::parameters::Asked;
use self::tls::Credentials;
use super::History;
use crate::admit::tls::TlsError;
use crate::journal::Journal;

/// Who may read, and how much.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The certificate that is shown, its key, and the CA of client certificates.
    pub files: Files,
    /// Files with a token on each line.
    pub token_files: Vec<PathBuf>,
    /// Whom a client certificate may name.
    pub clients: Vec<Client>,
    /// The name of the cluster.
    pub cluster: String,
    /// How much.
    pub limits: Limits,
}

/// How many and how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at one time.
    pub connections: usize,
    /// For one handshake.
    pub handshake: Duration,
    /// Questions that are answered at one time.
    pub queries: usize,
    /// For the answer to one question.
    pub deadline: Duration,
    /// Tails at one time.
    pub tails: usize,
    /// Exports at one time.
    pub exports: usize,
    /// How long a tail's reader may take nothing.
    pub stall: Duration,
    /// How often a tail that has nothing to say says so.
    pub keep_alive: Duration,
}

/// What of the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The certificate.
    #[error("history: {0}")]
    Tls(#[from] TlsError),
    /// The tokens.
    #[error("history.tokenFiles: {0}")]
    Token(#[from] TokenError),
}

/// The API, ready to be served.
#[derive(Clone, Debug)]
pub struct Api {
    credentials: Credentials,
    access: Access,
    cluster: Arc<str>,
    limits: Limits,
    metrics: Metrics,
}

/// Answers requests.
#[derive(Debug)]
struct Service<H> {
    history: H,
    access: Access,
    cluster: Arc<str>,
    limits: Limits,
    metrics: Metrics,
    /// What is being answered holds a place.
    queries: Arc<Semaphore>,
    tails: Arc<Semaphore>,
    exports: Arc<Semaphore>,
    document: Bytes,
    page: Page,
    stop: CancellationToken,
}

/// Longest path and query.
const MAX_URI: usize = 8 << 10;

// === impl Limits ===

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 256,
            handshake: Duration::from_secs(10),
            queries: 8,
            deadline: Duration::from_secs(10),
            tails: 16,
            exports: 2,
            stall: Duration::from_secs(30),
            keep_alive: Duration::from_secs(15),
        }
    }
}

// === impl Api ===

impl Api {
    /// Reads and checks what the settings name.
    ///
    /// # Errors
    /// Everything that cannot be used.
    pub fn build(settings: Settings, metrics: Metrics) -> Result<Self, Vec<ApiError>> {
        let Settings { files, token_files, clients, cluster, limits } = settings;
        let credentials = tls::load(files, !clients.is_empty(), metrics.certificate.clone());
        let access = Access::load(token_files, clients, metrics.clone());
        match (credentials, access) {
            (Ok(credentials), Ok(access)) => {
                Ok(Self { credentials, access, cluster: cluster.into(), limits, metrics })
            }
            (credentials, access) => {
                let tls = credentials.err().map(ApiError::Tls);
                Err(tls.into_iter().chain(access.err().map(ApiError::Token)).collect())
            }
        }
    }

    /// Looks at the files of certificates and tokens. Answers whether there was something new.
    pub fn refresh(&self) -> bool {
        self.credentials.refresh() | self.access.refresh()
    }

    /// Serves a history on a listener until it is told to stop.
    pub async fn run<H: History + Journal>(self, listener: TcpListener, history: H, stop: CancellationToken) {
        let Self { credentials, access, cluster, limits, metrics } = self;
        let service = Service {
            history,
            access: access.clone(),
            cluster,
            limits,
            metrics: metrics.clone(),
            queries: Arc::new(Semaphore::new(limits.queries)),
            tails: Arc::new(Semaphore::new(limits.tails)),
            exports: Arc::new(Semaphore::new(limits.exports)),
            document: openapi::document(),
            page: Page::new(),
            stop: stop.clone(),
        };
        tokio::select! {
            () = server::serve(listener, credentials.clone(), Arc::new(service), stop) => {}
            () = credentials.follow() => {}
            () = access.follow() => {}
        }
    }
}

// === impl Service ===

impl<H: History + Journal> Service<H> {
    /// Answers a request, which counts it.
    async fn answer(&self, request: &Parts, certificate: Option<&CertificateDer<'_>>) -> Answer {
        let begun = Instant::now();
        let found = routes::find(request.uri.path());
        let route = found.as_ref().map_or(RouteValue::other, |(endpoint, _)| endpoint.route);
        let answered = self.dispatch(request, certificate, found).await;
        let answer = answered.unwrap_or_else(|refusal| refusal.answer());
        let labels = RequestLabels { route, code: Class::of(answer.status()) };
        self.metrics.requests.get_or_create(&labels).inc();
        self.metrics.seconds.get_or_create(&RouteLabel { route }).observe(begun.elapsed().as_secs_f64());
        answer
    }

    async fn dispatch(
        &self,
        request: &Parts,
        certificate: Option<&CertificateDer<'_>>,
        found: Option<(&routes::Endpoint, Option<&str>)>,
    ) -> Result<Answer, Refusal> {
        if !matches!(request.method, Method::GET | Method::HEAD) {
            let message = "the history is read only: expected GET";
            return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "method", message));
        }
        if request.uri.path_and_query().is_some_and(|whole| whole.as_str().len() > MAX_URI) {
            let message =
                format!("the path and query are longer than {MAX_URI} bytes: ask for less at one time");
            return Err(Refusal::new(StatusCode::URI_TOO_LONG, "uri", message));
        }
        let Some((endpoint, argument)) = found else {
            let message = "there is nothing here: GET /openapi.json tells what there is";
            return Err(Refusal::new(StatusCode::NOT_FOUND, "path", message));
        };
        match endpoint.route {
            RouteValue::page => return Ok(self.page.answer()),
            RouteValue::openapi => return Ok(answer::whole("application/json", self.document.clone())),
            _ => {}
        }
        let now_ns = now_ns();
        let grant = self.access.judge(&request.headers, certificate, now_ns)?;
        let query = request.uri.query().unwrap_or_default();
        let asked = parameters::read(query, &endpoint.parameters(), now_ns)?;
        match endpoint.route {
            RouteValue::records => self.records(asked).await,
            RouteValue::record => self.record(argument.unwrap_or_default()).await,
            RouteValue::counts => self.counts(asked, now_ns).await,
            RouteValue::tail => self.tail(asked, &request.headers, grant),
            RouteValue::export => self.export(asked, grant).await,
            // Answered above.
            RouteValue::page | RouteValue::openapi | RouteValue::other => {
                Err(Refusal::new(StatusCode::NOT_FOUND, "path", "there is nothing here"))
            }
        }
    }

    /// Whether a question is one to this cluster.
    fn is_asked(&self, asked: &Asked) -> bool {
        asked.clusters.is_empty() || asked.clusters.iter().any(|cluster| **cluster == *self.cluster)
    }
}

/// A place among those who ask at one time.
fn place(
    places: &Arc<Semaphore>,
    what: &str,
    limit: usize,
    retry_after: u32,
) -> Result<OwnedSemaphorePermit, Refusal> {
    places.clone().try_acquire_owned().map_err(|_| {
        Refusal::busy(
            retry_after,
            format!("{limit} {what} are open, which is as many as may be: ask again later"),
        )
    })
}

/// A header of text that is known.
fn set(answer: &mut Answer, name: header::HeaderName, value: &'static str) {
    answer.headers_mut().insert(name, HeaderValue::from_static(value));
}
