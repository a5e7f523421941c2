//! What the API server sends: frames of a watch, pages of a list, and its Status, read in place.
//!
//! Every decoder answers any bytes with a value or an error that says what is wrong; only the fields that are used are
//! read.

use std::str;
use std::time::Duration;

use nodetap_wire::Change;
use nodetap_wire::event::{Event, EventError, Pairs, Reader, Sighting, Text};
use nodetap_wire::frame::{MAX_EVENT_BYTES, RecordTooLong, Run};
use serde::Deserialize;
use serde_json::value::RawValue;

/// Longest line of a watch: the longest event in its envelope.
pub const MAX_LINE_BYTES: usize = MAX_EVENT_BYTES + 1_024;

/// Of a message that the API server gives with a failure; the rest is for its own log.
const MESSAGE_CHARACTERS: usize = 300;

/// Annotation of the bookmark that ends a streamed list (KEP-3157).
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// One frame of a watch.
#[derive(Debug)]
pub enum Frame<'a> {
    /// An object was made, or is one of those that a streamed list begins with.
    Added(&'a str),
    /// An object was changed.
    Modified(&'a str),
    /// An object is gone.
    Deleted(Marked<'a>),
    /// Nothing happened, up to here.
    Bookmark(Marked<'a>),
    /// The watch ends here.
    Error(Status<'a>),
    /// A type that this version does not know.
    Unknown(Text<'a>),
}

/// The name and resourceVersion of an object, and of an event the node that wrote it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Marked<'a> {
    #[serde(borrow)]
    metadata: Mark<'a>,
    #[serde(borrow)]
    source: Option<Source<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Source<'a> {
    #[serde(borrow)]
    host: Text<'a>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Mark<'a> {
    #[serde(borrow)]
    name: Text<'a>,
    #[serde(borrow)]
    resource_version: Text<'a>,
    #[serde(borrow)]
    annotations: Option<Pairs<'a>>,
}

/// `meta/v1` Status: why a request was not served.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Status<'a> {
    #[serde(borrow)]
    kind: Text<'a>,
    #[serde(borrow)]
    message: Text<'a>,
    #[serde(borrow)]
    reason: Text<'a>,
    code: u16,
    details: Option<Details>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Details {
    retry_after_seconds: Option<u32>,
}

/// One page of a list.
#[derive(Debug, Deserialize)]
pub struct Page<'a> {
    /// `metadata`
    #[serde(borrow, default)]
    pub metadata: PageMetadata<'a>,
    /// `items`; null where there are none.
    #[serde(borrow, default)]
    pub items: Option<Vec<&'a RawValue>>,
}

/// What of a list's `metadata` is used.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PageMetadata<'a> {
    /// `metadata.resourceVersion`: of the whole list.
    #[serde(borrow)]
    pub resource_version: Text<'a>,
    /// `metadata.shardInfo`, where the selector of a shard was understood (KEP-5866).
    #[serde(borrow)]
    pub shard_info: Option<&'a RawValue>,
    /// `metadata.continue`: where the next page begins; empty: this is the last one.
    #[serde(borrow, rename = "continue")]
    pub continue_token: Text<'a>,
}

/// Why something that the API server sent was not taken.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// Longer than one record may be.
    #[error("an event of {0} bytes: at most {MAX_EVENT_BYTES} are taken")]
    TooLong(usize),
    /// Not text.
    #[error("a frame that is not UTF-8 at byte {0}")]
    NotUtf8(usize),
    /// Not a frame.
    #[error("not a frame of a watch: {0}")]
    Malformed(serde_json::Error),
    /// Not an Event.
    #[error(transparent)]
    Event(#[from] EventError),
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, rename = "type")]
    kind: Text<'a>,
    #[serde(borrow)]
    object: &'a RawValue,
}

// === impl Frame ===

impl<'a> Frame<'a> {
    /// Reads one line of a watch.
    ///
    /// # Errors
    /// Where it is not UTF-8, or not a frame.
    pub fn parse(line: &'a [u8]) -> Result<Self, FrameError> {
        let line = str::from_utf8(line).map_err(|error| FrameError::NotUtf8(error.valid_up_to()))?;
        let envelope: Envelope<'a> = match serde_json::from_str(line) {
            Ok(envelope) => envelope,
            // Some servers end a watch with a Status as it is.
            Err(error) => match serde_json::from_str::<Status<'a>>(line) {
                Ok(status) if &*status.kind == "Status" => return Ok(Self::Error(status)),
                _ => return Err(FrameError::Malformed(error)),
            },
        };
        let object = envelope.object.get();
        Ok(match &*envelope.kind {
            "ADDED" => Self::Added(object),
            "MODIFIED" => Self::Modified(object),
            "DELETED" => Self::Deleted(serde_json::from_str(object).map_err(FrameError::Malformed)?),
            "BOOKMARK" => Self::Bookmark(serde_json::from_str(object).map_err(FrameError::Malformed)?),
            "ERROR" => Self::Error(serde_json::from_str(object).map_err(FrameError::Malformed)?),
            _ => Self::Unknown(envelope.kind),
        })
    }

    /// As [`parse`](Self::parse), but where the line is written as every API server writes it, the object is not looked through
    /// to find its end: it is for whoever reads it to refuse what is not one value. (A field behind the object, which no API
    /// server writes, makes it such.)
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    pub fn take(line: &'a [u8]) -> Result<Self, FrameError> {
        match str::from_utf8(line).ok().and_then(Self::usual) {
            Some(frame) => Ok(frame),
            None => Self::parse(line),
        }
    }

    fn usual(line: &'a str) -> Option<Self> {
        let (make, rest): (fn(&'a str) -> Self, _) =
            match line.strip_prefix("{\"type\":\"ADDED\",\"object\":") {
                Some(rest) => (Self::Added, rest),
                None => (Self::Modified, line.strip_prefix("{\"type\":\"MODIFIED\",\"object\":")?),
            };
        let object = rest.strip_suffix('}')?;
        Some(make(object.trim_matches([' ', '\t', '\n', '\r'])))
    }
}

// === impl Marked ===

impl Marked<'_> {
    /// `metadata.resourceVersion`; empty where it has none.
    pub fn resource_version(&self) -> &str {
        &self.metadata.resource_version
    }

    /// `metadata.name`; empty where it has none.
    pub fn name(&self) -> &str {
        &self.metadata.name
    }

    /// An event's `source.host`; empty where it has none.
    pub fn host(&self) -> &str {
        self.source.as_ref().map_or("", |source| &source.host)
    }

    /// Whether this is the bookmark after the last object of a streamed list.
    pub fn ends_initial_events(&self) -> bool {
        let annotations = self.metadata.annotations.as_ref();
        annotations.and_then(|annotations| annotations.get(INITIAL_EVENTS_END)) == Some("true")
    }
}

// === impl Status ===

impl<'a> Status<'a> {
    /// Reads the body of an answer that is not 200; whatever it is, its beginning is the message.
    pub fn of_body(code: u16, body: &'a [u8]) -> Self {
        let text = str::from_utf8(body).unwrap_or_default();
        match serde_json::from_str::<Self>(text) {
            Ok(status) if &*status.kind == "Status" => Self { code, ..status },
            _ => Self { code, message: text.trim().into(), ..Self::default() },
        }
    }

    /// `code`: an HTTP status; 410 where only the reason says so.
    pub fn code(&self) -> u16 {
        match (self.code, &*self.reason) {
            (0, "Expired" | "Gone") => 410,
            (0, _) => 500,
            (code, _) => code,
        }
    }

    /// Code, reason and the beginning of the message.
    pub fn to_message(&self) -> String {
        let mut said = self.code().to_string();
        for part in [&*self.reason, &*self.message] {
            if !part.is_empty() {
                said.push(' ');
                said.extend(
                    part.chars().filter(|character| !character.is_control()).take(MESSAGE_CHARACTERS),
                );
            }
        }
        said
    }

    /// `details.retryAfterSeconds`
    pub fn retry_after(&self) -> Option<Duration> {
        let seconds = self.details.as_ref()?.retry_after_seconds?;
        (seconds > 0).then(|| Duration::from_secs(seconds.into()))
    }
}

// === impl FrameError ===

impl FrameError {
    /// As a label of metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::TooLong(_) => "too_long",
            Self::NotUtf8(_) => "not_utf8",
            Self::Malformed(_) => "malformed_frame",
            Self::Event(EventError::Malformed(_)) => "malformed_event",
            Self::Event(EventError::NoIdentity(_)) => "no_identity",
        }
    }
}

/// Reads an Event's JSON into an Event that is empty, if it is no longer than one record may be.
///
/// # Errors
/// Where it is too long, or not an Event.
pub fn read<'a>(reader: &mut Reader, json: &'a str, event: &mut Event<'a>) -> Result<(), FrameError> {
    if json.len() > MAX_EVENT_BYTES {
        return Err(FrameError::TooLong(json.len()));
    }
    Ok(reader.read(json, event)?)
}

/// Puts an Event that was read from `json` behind others. Answers when it last happened, in nanoseconds since 1970; 0: not known.
///
/// # Errors
/// Where it is too long: what was read of it stands beside the JSON, so that a reason of a megabyte counts twice.
pub fn put(run: &mut Run, event: &Event<'_>, json: &str, change: Change) -> Result<i64, FrameError> {
    let sighting = Sighting::of(event, json, change);
    run.put_event(&sighting).map_err(|RecordTooLong(length)| FrameError::TooLong(length))?;
    Ok(sighting.time_ns())
}

/// The little that is wanted of an object that is not taken whole.
///
/// # Errors
/// Where it is not an object.
pub fn marked(json: &str) -> Result<Marked<'_>, FrameError> {
    serde_json::from_str(json).map_err(FrameError::Malformed)
}

/// The namespace and name of an object that could not be taken, where at least they can be read.
pub fn name_of(json: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Object<'a> {
        #[serde(borrow)]
        metadata: Name<'a>,
    }
    #[derive(Deserialize)]
    struct Name<'a> {
        #[serde(borrow, default)]
        namespace: Text<'a>,
        #[serde(borrow)]
        name: Text<'a>,
    }
    let object: Object<'_> = serde_json::from_str(json).ok()?;
    let name = format!("{}/{}", object.metadata.namespace, object.metadata.name);
    Some(name.chars().filter(|character| !character.is_control()).take(MESSAGE_CHARACTERS).collect())
}

#[cfg(test)]
mod tests;
