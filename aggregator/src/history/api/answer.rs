//! What the API answers: JSON, errors that say the way out, and streams.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use hyper::body::{Body, Frame, SizeHint};
use serde::Serialize;
use tokio::sync::mpsc;

use crate::history::HistoryError;

/// A refusal, as JSON: what is wrong, and the way out.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Refusal {
    #[serde(skip)]
    pub(super) status: StatusCode,
    /// For programs.
    code: &'static str,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    parameter: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    #[serde(skip)]
    retry_after: Option<u32>,
}

#[derive(Serialize)]
struct Wrapped<'a> {
    error: &'a Refusal,
}

/// A body that is whole, or comes in chunks.
#[derive(Debug)]
pub(super) enum AnswerBody {
    /// There at once.
    Whole(Option<Bytes>),
    /// As it is made.
    Chunks {
        /// An error cuts the connection, so that what was sent is not taken for the whole.
        chunks: mpsc::Receiver<Result<Bytes, Broken>>,
        /// What is sent after the last chunk, also when there was no room for it behind the others.
        farewell: Arc<OnceLock<Bytes>>,
        said_farewell: bool,
    },
}

/// A stream that cannot be ended as it should.
#[derive(Clone, Debug, thiserror::Error)]
#[error("cut short: {0}")]
pub(super) struct Broken(pub(super) String);

/// An answer.
pub(super) type Answer = Response<AnswerBody>;

/// How much of a value is shown in an error.
const SHOWN: usize = 100;

/// Chunks between who makes them and the connection.
pub(super) const CHUNKS: usize = 4;

// === impl Refusal ===

impl Refusal {
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { status, code, message, parameter: None, value: None, retry_after: None }
    }

    /// A parameter that cannot be used.
    pub(super) fn parameter(name: &str, value: &str, expected: &str) -> Self {
        let (name, value) = (shown(name), shown(value));
        let message = format!("{name}={value}: {expected}");
        Self {
            parameter: Some(name),
            value: Some(value),
            ..Self::new(StatusCode::BAD_REQUEST, "bad_parameter", message)
        }
    }

    /// Too much at one time.
    pub(super) fn busy(seconds: u32, message: impl Into<String>) -> Self {
        let refusal = Self::new(StatusCode::TOO_MANY_REQUESTS, "busy", message);
        Self { retry_after: Some(seconds), ..refusal }
    }

    pub(super) fn answer(&self) -> Answer {
        let mut answer = json(&Wrapped { error: self });
        *answer.status_mut() = self.status;
        let headers = answer.headers_mut();
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        match self.status {
            StatusCode::UNAUTHORIZED => {
                headers
                    .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"nodetap\""));
            }
            StatusCode::METHOD_NOT_ALLOWED => {
                headers.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            }
            _ => {}
        }
        answer
    }
}

impl From<HistoryError> for Refusal {
    fn from(error: HistoryError) -> Self {
        match &error {
            HistoryError::Deadline(_) => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "deadline", error.to_string())
            }
            HistoryError::Busy => Self::busy(1, error.to_string()),
            HistoryError::Text(said) => Self::parameter("text", "", said),
            HistoryError::TooMany => Self {
                parameter: Some("by".to_owned()),
                ..Self::new(StatusCode::BAD_REQUEST, "too_many", error.to_string())
            },
            HistoryError::Storage(_) => {
                tracing::warn!(%error, "a question to the history was not answered");
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "storage", error.to_string())
            }
        }
    }
}

fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

// === impl AnswerBody ===

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Chunks { chunks, farewell, said_farewell } => match chunks.poll_recv(context) {
                Poll::Ready(Some(chunk)) => Poll::Ready(Some(chunk.map(Frame::data))),
                Poll::Ready(None) if !*said_farewell => {
                    *said_farewell = true;
                    Poll::Ready(farewell.get().map(|bytes| Ok(Frame::data(bytes.clone()))))
                }
                Poll::Ready(None) => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Chunks { .. } => SizeHint::default(),
        }
    }
}

/// An answer of bytes that are there.
pub(super) fn whole(kind: &'static str, bytes: Bytes) -> Answer {
    with_kind(kind, AnswerBody::Whole(Some(bytes)))
}

/// An answer in chunks, and where they are put.
pub(super) fn chunks(
    kind: &'static str,
) -> (Answer, mpsc::Sender<Result<Bytes, Broken>>, Arc<OnceLock<Bytes>>) {
    let (sender, chunks) = mpsc::channel(CHUNKS);
    let farewell = Arc::new(OnceLock::new());
    let body = AnswerBody::Chunks { chunks, farewell: farewell.clone(), said_farewell: false };
    (with_kind(kind, body), sender, farewell)
}

/// An answer in JSON.
pub(super) fn json(value: &impl Serialize) -> Answer {
    match serde_json::to_vec(value) {
        Ok(mut bytes) => {
            bytes.push(b'\n');
            whole("application/json", bytes.into())
        }
        // What is answered here has text for keys, and so can always be written.
        Err(error) => {
            tracing::error!(%error, "an answer of the history cannot be written");
            let mut answer = whole("text/plain; charset=utf-8", Bytes::from_static(b"internal error\n"));
            *answer.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            answer
        }
    }
}

fn with_kind(kind: &'static str, body: AnswerBody) -> Answer {
    let mut answer = Response::new(body);
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    answer
}
