//! One question to a server that speaks Kubernetes, kubelet or API server: bounded in time and size, and told apart by why it failed.

use std::time::Duration;

use http::{Request, StatusCode, Uri};
use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;
use tokio::time::timeout;

use super::metrics::Outcome;
use super::pods::NotPods;

/// A node's pods are 0.25 to 2 MB; five hundred large ones stay below this.
pub(super) const ANSWER_BYTES: usize = 16 * 1024 * 1024;

/// Until the answer begins. A kubelet answers in milliseconds, and asks the API server who we are in a second.
pub(super) const BEGINS: Duration = Duration::from_secs(10);

/// Between two parts of the answer.
const PART: Duration = Duration::from_secs(10);

/// Part of a refusal that is kept for the message.
const REFUSAL_BYTES: usize = 4096;

/// Why a server gave no pods.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Signed by nobody we know.
    #[error("{server}: certificate signed by an unknown authority; give its CA with --kubelet-ca")]
    UnknownAuthority {
        /// Who was asked.
        server: String,
    },
    /// Otherwise not to be trusted.
    #[error(
        "{server}: certificate not accepted: {error}; give an address that it names with --kubelet, or its CA with --kubelet-ca"
    )]
    Certificate {
        /// Who was asked.
        server: String,
        /// What is wrong with it.
        error: rustls::Error,
    },
    /// No connection.
    #[error("{server}: {error}")]
    Unreachable {
        /// Who was asked.
        server: String,
        /// Why, with its causes.
        error: String,
    },
    /// No answer in time.
    #[error("{server}: no answer within {} s", after.as_secs())]
    Timeout {
        /// Who was asked.
        server: String,
        /// After so long.
        after: Duration,
    },
    /// 401.
    #[error(
        "{server}: 401 Unauthorized: it does not know our token or certificate (a kubelet needs webhook authentication)"
    )]
    Unauthorized {
        /// Who was asked.
        server: String,
    },
    /// 403.
    #[error("{server}: 403 Forbidden: {needs}")]
    Forbidden {
        /// Who was asked.
        server: String,
        /// The permission that is missing.
        needs: &'static str,
    },
    /// Another status than 200.
    #[error("{server}: {status}: {message}")]
    Status {
        /// Who was asked.
        server: String,
        /// The status.
        status: StatusCode,
        /// What it said.
        message: String,
    },
    /// More than is taken.
    #[error("{server}: an answer of more than {} MiB", ANSWER_BYTES / 1024 / 1024)]
    TooLarge {
        /// Who was asked.
        server: String,
    },
    /// Not pods.
    #[error("{server}: {error}")]
    Garbage {
        /// Who was asked.
        server: String,
        /// What it is.
        error: NotPods,
    },
}

/// Asks, and gives the body once its status is 200.
pub(super) async fn ask(
    client: &Client,
    server: &str,
    path: String,
    needs: &'static str,
) -> Result<http::Response<Body>, AskError> {
    let uri: Uri = path.parse().map_err(|error: http::uri::InvalidUri| AskError::Unreachable {
        server: server.to_owned(),
        error: error.to_string(),
    })?;
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = uri;
    let answer = timeout(BEGINS, client.send(request))
        .await
        .map_err(|_| AskError::Timeout { server: server.to_owned(), after: BEGINS })?
        .map_err(|error| AskError::of(server, &error))?;
    let server = server.to_owned();
    match answer.status() {
        StatusCode::OK => Ok(answer),
        StatusCode::UNAUTHORIZED => Err(AskError::Unauthorized { server }),
        StatusCode::FORBIDDEN => Err(AskError::Forbidden { server, needs }),
        status => {
            let body = whole(&server, answer.into_body(), REFUSAL_BYTES).await.unwrap_or_default();
            let message = String::from_utf8_lossy(&body).trim().chars().take(200).collect();
            Err(AskError::Status { server, status, message })
        }
    }
}

/// The whole body, as long as it is within `limit`.
pub(super) async fn whole(server: &str, mut body: Body, limit: usize) -> Result<Vec<u8>, AskError> {
    let mut whole = Vec::new();
    while let Some(part) = next_part(server, &mut body, PART).await? {
        if whole.len() + part.len() > limit {
            return Err(AskError::TooLarge { server: server.to_owned() });
        }
        whole.extend_from_slice(&part);
    }
    Ok(whole)
}

/// The next part of a body; `None` at its end.
pub(super) async fn next_part(
    server: &str,
    body: &mut Body,
    idle: Duration,
) -> Result<Option<bytes::Bytes>, AskError> {
    loop {
        let frame = timeout(idle, body.frame())
            .await
            .map_err(|_| AskError::Timeout { server: server.to_owned(), after: idle })?;
        match frame {
            None => return Ok(None),
            Some(Err(error)) => return Err(AskError::of(server, &error)),
            Some(Ok(frame)) => {
                if let Ok(part) = frame.into_data() {
                    return Ok(Some(part));
                }
            }
        }
    }
}

// === impl AskError ===

impl AskError {
    /// The status that was answered, where one was.
    pub(super) fn code(&self) -> Option<u16> {
        match self {
            Self::Unauthorized { .. } => Some(401),
            Self::Forbidden { .. } => Some(403),
            Self::Status { status, .. } => Some(status.as_u16()),
            _ => None,
        }
    }

    /// Reads the causes of a client's error.
    fn of(server: &str, error: &(dyn std::error::Error + 'static)) -> Self {
        let server = server.to_owned();
        let mut causes = String::new();
        let mut cause = Some(error);
        while let Some(error) = cause {
            if let Some(tls) = tls(error) {
                return match tls {
                    rustls::Error::InvalidCertificate(
                        rustls::CertificateError::UnknownIssuer | rustls::CertificateError::BadSignature,
                    ) => Self::UnknownAuthority { server },
                    tls => Self::Certificate { server, error: tls },
                };
            }
            let text = error.to_string();
            if !causes.contains(&text) {
                if !causes.is_empty() {
                    causes.push_str(": ");
                }
                causes.push_str(&text);
            }
            // An io::Error says its inner error's text and hides the error itself from `source`.
            cause = error
                .downcast_ref::<std::io::Error>()
                .and_then(|error| error.get_ref())
                .map(|inner| inner as &(dyn std::error::Error + 'static))
                .or_else(|| error.source());
        }
        Self::Unreachable { server, error: causes }
    }

    /// As a label's value.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::UnknownAuthority { .. } | Self::Certificate { .. } => Outcome::certificate,
            Self::Unreachable { .. } => Outcome::unreachable,
            Self::Timeout { .. } => Outcome::timeout,
            Self::Unauthorized { .. } => Outcome::unauthorized,
            Self::Forbidden { .. } => Outcome::forbidden,
            Self::Status { status: StatusCode::NOT_FOUND, .. } => Outcome::not_found,
            Self::Status { .. } => Outcome::status,
            Self::TooLarge { .. } => Outcome::too_large,
            Self::Garbage { .. } => Outcome::garbage,
        }
    }

    /// Whether the server is there and will go on refusing until somebody changes something.
    pub fn is_refusal(&self) -> bool {
        matches!(
            self.outcome(),
            Outcome::certificate | Outcome::unauthorized | Outcome::forbidden | Outcome::not_found
        )
    }

    /// Whether another token or CA than the client has read may put it right.
    pub(super) fn may_be_rotated(&self) -> bool {
        matches!(self.outcome(), Outcome::certificate | Outcome::unauthorized)
    }

    /// The watch's resourceVersion is too old.
    pub(super) fn is_gone(&self) -> bool {
        matches!(self, Self::Status { status: StatusCode::GONE, .. })
    }
}

fn tls(error: &(dyn std::error::Error + 'static)) -> Option<rustls::Error> {
    error
        .downcast_ref::<rustls::Error>()
        .filter(|tls| matches!(tls, rustls::Error::InvalidCertificate(_)))
        .cloned()
}
