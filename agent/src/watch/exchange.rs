//! One request to the API server, with a bound on how long and how much it answers.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http::header::{ACCEPT, ACCEPT_ENCODING, RETRY_AFTER};
use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;
use tokio::time::{Instant, timeout, timeout_at};

use super::frame::Status;
use super::machine::Break;

/// The API server gives up a request after 60 s itself.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(65);

/// Between two parts of a page.
const PAGE_IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// For a whole page, however slowly it drips.
const PAGE_TIMEOUT: Duration = Duration::from_secs(300);

/// For the body of a refusal; without it the status speaks alone.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(5);

/// Most of a page that is held: twenty times the mean one, and any one event.
pub(super) const MAX_PAGE_BYTES: usize = 16 << 20;

/// Most that is read of a refusal.
const MAX_REFUSAL_BYTES: usize = 64 << 10;

/// An answer that has begun with 200.
#[derive(Debug)]
pub(super) struct Answer {
    body: Body,
    /// When it was asked for.
    asked: Instant,
}

/// Why there is no answer, or no more of it.
#[derive(Debug)]
pub(super) enum Failure {
    Refused { code: u16, retry_after: Option<Duration>, message: String },
    Broken { how: Break, message: String },
    TooLong,
}

// === impl Answer ===

impl Answer {
    /// Asks, and waits until the answer begins.
    pub(super) async fn to(client: &Client, uri: &str, accept: &str) -> Result<Self, Failure> {
        let asked = Instant::now();
        let request = http::Request::get(uri)
            .header(ACCEPT, accept)
            // From 1.37 on the API server compresses every frame of a watch by itself.
            .header(ACCEPT_ENCODING, "identity")
            .body(Body::empty())
            .map_err(|error| Failure::unanswered(&error))?;
        let answer = match timeout(ANSWER_TIMEOUT, client.send(request)).await {
            Ok(answer) => answer.map_err(|error| Failure::unanswered(&error))?,
            Err(_) => {
                let message = format!("no answer within {} s", ANSWER_TIMEOUT.as_secs());
                return Err(Failure::Broken { how: Break::Unanswered, message });
            }
        };
        if answer.status() != StatusCode::OK {
            return Err(Failure::refused(answer).await);
        }
        Ok(Self { body: answer.into_body(), asked })
    }

    /// How long ago it was asked for.
    pub(super) fn age(&self) -> Duration {
        self.asked.elapsed()
    }

    /// The next chunk; `None` at the end of the body.
    pub(super) async fn chunk(&mut self, idle: Duration) -> Result<Option<Bytes>, Failure> {
        loop {
            let frame = match timeout(idle, self.body.frame()).await {
                Ok(Some(Ok(frame))) => frame,
                Ok(Some(Err(error))) => {
                    return Err(Failure::Broken { how: Break::Cut, message: in_words(&error) });
                }
                Ok(None) => return Ok(None),
                Err(_) => {
                    let message = format!("nothing came for {} s", idle.as_secs());
                    return Err(Failure::Broken { how: Break::Idle, message });
                }
            };
            // Trailers say nothing here.
            if let Ok(data) = frame.into_data() {
                return Ok(Some(data));
            }
        }
    }

    /// The whole body of a page.
    pub(super) async fn page(mut self) -> Result<Vec<u8>, Failure> {
        let mut page = Vec::new();
        let read = async {
            while let Some(chunk) = self.chunk(PAGE_IDLE_TIMEOUT).await? {
                if page.len() + chunk.len() > MAX_PAGE_BYTES {
                    return Err(Failure::TooLong);
                }
                page.extend_from_slice(&chunk);
            }
            Ok(())
        };
        match timeout(PAGE_TIMEOUT, read).await {
            Ok(read) => read.map(|()| page),
            Err(_) => {
                let message = format!("a page took longer than {} s", PAGE_TIMEOUT.as_secs());
                Err(Failure::Broken { how: Break::Idle, message })
            }
        }
    }
}

// === impl Failure ===

impl Failure {
    /// Nothing by the end of a bound.
    pub(super) fn late(late: &tokio::time::error::Elapsed) -> Self {
        Self::Broken { how: Break::Unanswered, message: late.to_string() }
    }

    /// In words.
    pub(super) fn words(&self) -> &str {
        match self {
            Self::Refused { message, .. } | Self::Broken { message, .. } => message,
            Self::TooLong => "the answer is too long",
        }
    }

    /// The status that an answer had, where there was one.
    pub(super) fn code(&self) -> Option<u16> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            Self::Broken { .. } | Self::TooLong => None,
        }
    }

    fn unanswered(error: &dyn std::error::Error) -> Self {
        Self::Broken { how: Break::Unanswered, message: in_words(error) }
    }

    async fn refused(answer: http::Response<Body>) -> Self {
        let code = answer.status().as_u16();
        let retry_after = answer
            .headers()
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok()?.trim().parse().ok())
            .map(Duration::from_secs);
        let mut answer = Answer { body: answer.into_body(), asked: Instant::now() };
        let mut body = Vec::new();
        let until = Instant::now() + REFUSAL_TIMEOUT;
        while let Ok(Ok(Some(chunk))) = timeout_at(until, answer.chunk(REFUSAL_TIMEOUT)).await {
            let room = MAX_REFUSAL_BYTES - body.len();
            body.extend_from_slice(chunk.get(..room).unwrap_or(&chunk));
            if body.len() >= MAX_REFUSAL_BYTES {
                break;
            }
        }
        let status = Status::of_body(code, &body);
        Self::Refused {
            code,
            retry_after: retry_after.or(status.retry_after()),
            message: status.to_message(),
        }
    }
}

/// An error with its causes, as the outermost alone often says no more than that there was one.
fn in_words(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !words.ends_with(&more) {
            words.push_str(": ");
            words.push_str(&more);
        }
        cause = error.source();
    }
    words.truncate(words.floor_char_boundary(500));
    words
}
