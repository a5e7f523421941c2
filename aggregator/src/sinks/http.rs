//! The HTTP client of one sink: its own connections, its own TLS, and a bound on time and on what is read.
//!
//! Proxies of the environment are not used: name the proxy's address as the sink's instead.

use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::timeout;

use super::{Failure, FailureClass, Outcome};
use crate::config::receivers::TlsConfig;

mod base64;
mod retry_after;
mod tls;

pub use tls::TlsError;

/// How much of an answer is kept, for messages.
pub const MAX_ANSWER: usize = 64 << 10;
const MAX_CONNECT: Duration = Duration::from_secs(5);

/// Sends to one address.
#[derive(Debug)]
pub struct Client {
    pool: Pool<HttpsConnector<HttpConnector>, Full<Bytes>>,
    uri: Uri,
    authorization: Option<HeaderValue>,
    timeout: Duration,
}

/// What was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its `Retry-After`.
    pub retry_after: Option<Duration>,
    /// The start of its body.
    pub body: String,
}

/// Why nothing was answered.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// Not within the time for it.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// No connection.
    #[error("cannot connect: {0}")]
    Connect(String),
    /// The connection broke, or what came was no HTTP.
    #[error("{0}")]
    Broken(String),
}

/// Why an address cannot be sent to.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// It is not `http` or `https`, or names no host.
    #[error("{0}: not an address such as http://host:port/path")]
    NoHost(Uri),
    /// User and password in it cannot be a header.
    #[error("{0}: user or password cannot be sent")]
    UserInfo(Uri),
}

// === impl Client ===

impl Client {
    /// A client of its own for the sink called `name`; user and password of the address become its `Authorization`.
    ///
    /// # Errors
    /// Where the address has no host.
    pub fn new(name: &str, uri: &Uri, config: &TlsConfig, timeout: Duration) -> Result<Self, super::Cause> {
        let (uri, authorization) = address(uri)?;
        let tls = tls::client(name, config)?;
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_connect_timeout(Some(MAX_CONNECT.min(timeout)));
        http.set_keepalive(Some(Duration::from_secs(60)));
        let builder = hyper_rustls::HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http();
        let connector = match tls::server_name(config)? {
            Some(name) => builder
                .with_server_name_resolver(hyper_rustls::FixedServerNameResolver::new(name))
                .enable_http1()
                .wrap_connector(http),
            None => builder.enable_http1().wrap_connector(http),
        };
        let pool = Pool::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(30))
            .pool_max_idle_per_host(1)
            .build(connector);
        Ok(Self { pool, uri, authorization, timeout })
    }

    /// Posts `body`. `headers` win over what is sent by default.
    ///
    /// # Errors
    /// Where there was no whole answer in time.
    pub async fn post(&self, headers: HeaderMap, body: Bytes) -> Result<Answer, HttpError> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        let agent = HeaderValue::from_static(concat!("nodetap/", env!("CARGO_PKG_VERSION")));
        request.headers_mut().insert(USER_AGENT, agent);
        if let Some(authorization) = &self.authorization {
            request.headers_mut().insert(AUTHORIZATION, authorization.clone());
        }
        request.headers_mut().extend(headers);
        // Go takes `Host` from the address, whatever the headers say.
        request.headers_mut().remove(HOST);
        timeout(self.timeout, self.exchange(request)).await.map_err(|_| HttpError::Timeout(self.timeout))?
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Answer, HttpError> {
        let response = self.pool.request(request).await.map_err(|error| {
            let text = chain(&error);
            if error.is_connect() { HttpError::Connect(text) } else { HttpError::Broken(text) }
        })?;
        let (parts, body) = response.into_parts();
        let retry_after = parts.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        Ok(Answer {
            status: parts.status,
            retry_after: retry_after.and_then(|text| retry_after::parse(text, nodetap_wire::time::now_ns())),
            body: read(body).await?,
        })
    }
}

/// Reads what fits; more is left unread, and the connection with it.
async fn read(mut body: Incoming) -> Result<String, HttpError> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| HttpError::Broken(chain(&error)))?;
        if let Some(data) = frame.data_ref() {
            let room = MAX_ANSWER - bytes.len();
            bytes.extend_from_slice(&data[..data.len().min(room)]);
            if bytes.len() == MAX_ANSWER {
                break;
            }
        }
    }
    Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
}

/// An error and its causes in one line: hyper's own says little.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

/// The address without user and password, and what they come to.
fn address(uri: &Uri) -> Result<(Uri, Option<HeaderValue>), AddressError> {
    let no_host = || AddressError::NoHost(uri.clone());
    if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none_or(str::is_empty) {
        return Err(no_host());
    }
    let Some((user, host)) = uri.authority().and_then(|authority| authority.as_str().rsplit_once('@')) else {
        return Ok((uri.clone(), None));
    };
    let mut parts = uri.clone().into_parts();
    parts.authority = Some(host.parse().map_err(|_| no_host())?);
    let bare = Uri::from_parts(parts).map_err(|_| no_host())?;
    let secret = base64::encode(&base64::percent_decoded(user));
    let mut value =
        HeaderValue::try_from(format!("Basic {secret}")).map_err(|_| AddressError::UserInfo(bare.clone()))?;
    value.set_sensitive(true);
    Ok((bare, Some(value)))
}

// === impl Answer ===

impl Answer {
    /// What it means for a record: 2xx took it. Who may come in (401, 403, 407), where it is (404, 405, 410, 421) and when
    /// (408, 425, 429, redirects, 5xx) says nothing about the record, so it is tried again; any other 4xx refuses it for good.
    pub fn outcome(&self) -> Outcome {
        let class = match self.status.as_u16() {
            200..=299 => return Outcome::Delivered,
            401 | 403 | 407 => FailureClass::Unauthorized,
            429 => FailureClass::Throttled,
            408 => FailureClass::Timeout,
            404 | 405 | 410 | 421 | 425 => FailureClass::Unavailable,
            400..=499 => return Outcome::Refused(self.to_string()),
            _ => FailureClass::Unavailable,
        };
        Outcome::Retry(Failure { class, reason: self.to_string(), after: self.retry_after })
    }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "answered {}", self.status)?;
        if self.body.is_empty() { Ok(()) } else { write!(f, ": {}", self.body) }
    }
}

// === impl HttpError ===

impl HttpError {
    /// What it means for a record: it is tried again.
    pub fn outcome(&self) -> Outcome {
        let class = match self {
            Self::Timeout(_) => FailureClass::Timeout,
            Self::Connect(_) => FailureClass::Connect,
            Self::Broken(_) => FailureClass::Broken,
        };
        Outcome::Retry(Failure { class, reason: self.to_string(), after: None })
    }
}

#[cfg(test)]
mod tests;
