//! Renders a record for one sink: body, headers and stream labels.
//!
//! JSON goes out as Go writes it: `<`, `>` and `&` and the two line separators escaped, so that what was made for
//! kubernetes-event-exporter finds the same bytes.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use bytes::{BufMut, Bytes};
use http::{HeaderName, HeaderValue};
use nodetap_wire::face::Face;

use super::Delivery;
use super::chunk::Chunk;
use super::dispatch::Routed;
use crate::config::receivers::{ReceiverBody, StdoutConfig};
use crate::journal::Position;
use crate::route::de_dot::de_dotted;
use crate::route::template::{Layout, Template, TemplateError};

/// The stream of a Loki sink without labels, as kubernetes-event-exporter's users name theirs.
pub const DEFAULT_LABEL: (&str, &str) = ("app", "kubernetes-event-exporter");
/// Streams that one sink may make. Loki itself allows 5,000 for everybody together by default.
pub const MAX_STREAMS: usize = 1_000;
/// What a templated label is where its value would make one stream too many.
pub const OVERFLOW: &str = "overflow";

/// How records are rendered for one sink.
#[derive(Clone, Debug, Default)]
pub struct Encoder {
    layout: Option<Layout>,
    de_dot: bool,
    headers: Vec<(HeaderName, Template)>,
    /// None: the sink has no streams.
    labels: Option<Vec<(String, Template)>>,
    /// Hashes of the label sets made so far; bounded by `MAX_STREAMS`.
    streams: HashSet<u64>,
    overflowed: bool,
    /// Where this sink's bodies lie, and what it renders for others.
    pub(super) chunk: Chunk,
}

/// Why a record cannot be rendered.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// Its layout.
    #[error("layout: {0}")]
    Layout(#[source] TemplateError),
    /// A stream label.
    #[error("label {0}: {1}")]
    Label(String, #[source] TemplateError),
    /// Its face.
    #[error("cannot be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

// === impl Encoder ===

impl Encoder {
    /// The encoder that a receiver asks for.
    pub fn new(body: &ReceiverBody) -> Self {
        match body {
            ReceiverBody::Stdout(StdoutConfig { de_dot, layout }) => {
                Self { layout: layout.clone(), de_dot: *de_dot, ..Self::default() }
            }
            ReceiverBody::File(config) => {
                Self { layout: config.layout.clone(), de_dot: config.de_dot, ..Self::default() }
            }
            ReceiverBody::Webhook(config) => {
                Self { layout: config.layout.clone(), headers: config.headers.clone(), ..Self::default() }
            }
            ReceiverBody::Loki(config) => {
                let mut headers = config.headers.clone();
                let tenant = HeaderName::from_static("x-scope-orgid");
                if let Some(template) = &config.tenant {
                    headers.retain(|(name, _)| *name != tenant);
                    headers.push((tenant, template.clone()));
                }
                Self {
                    layout: config.layout.clone(),
                    headers,
                    labels: Some(config.labels.clone()),
                    ..Self::default()
                }
            }
        }
    }

    /// Renders one record, journalled at `position` at `taken_ns`.
    ///
    /// # Errors
    /// Where a template of the layout or of a label cannot be rendered for it.
    pub fn encode(
        &mut self,
        face: &Face<'_>,
        position: Position,
        taken_ns: i64,
    ) -> Result<Delivery, EncodeError> {
        let body = if self.de_dot { de_dotted(face, |face| self.body(face))? } else { self.body(face)? };
        Ok(Delivery {
            position,
            id: self.chunk.text(&face.id),
            object: self.chunk.text(face.object_key()),
            time_ns: known_time(face.time_ns, taken_ns),
            taken_ns,
            body,
            headers: self.headers(face),
            labels: self.labels(face)?,
        })
    }

    fn body(&mut self, face: &Face<'_>) -> Result<Bytes, EncodeError> {
        let Self { layout, chunk, .. } = self;
        let Some(layout) = layout else { return plain(face, chunk) };
        let rendered = layout.render(face).map_err(EncodeError::Layout)?;
        chunk.json(|json| Ok(serde_json::to_writer(json, &rendered)?))
    }

    /// Whether records go out as they are.
    pub fn is_plain(&self) -> bool {
        self.layout.is_none() && !self.de_dot
    }

    /// Renders one record from what is known of it without its face, where that is enough.
    pub fn encode_routed(&self, routed: &Routed, position: Position, taken_ns: i64) -> Option<Delivery> {
        let body = routed.plain.as_ref().filter(|_| self.is_plain() && self.headers.is_empty())?;
        let labels = match &self.labels {
            None => Vec::new(),
            Some(labels) if labels.is_empty() => {
                vec![(DEFAULT_LABEL.0.to_owned(), DEFAULT_LABEL.1.to_owned())]
            }
            Some(_) => return None,
        };
        Some(Delivery {
            position,
            id: routed.id.clone(),
            object: routed.object.clone(),
            time_ns: known_time(routed.time_ns, taken_ns),
            taken_ns,
            body: body.clone(),
            headers: Vec::new(),
            labels,
        })
    }

    /// A header that does not render, or renders to what no header may be, is sent as it was written.
    fn headers(&self, face: &Face<'_>) -> Vec<(HeaderName, HeaderValue)> {
        let value = |text: &str| HeaderValue::from_str(text).ok();
        let rendered = |template: &Template| {
            template.render(face).ok().and_then(|text| value(&text)).or_else(|| value(template.source()))
        };
        self.headers.iter().filter_map(|(name, template)| Some((name.clone(), rendered(template)?))).collect()
    }

    fn labels(&mut self, face: &Face<'_>) -> Result<Vec<(String, String)>, EncodeError> {
        let Some(templates) = &self.labels else { return Ok(Vec::new()) };
        let mut labels = Vec::with_capacity(templates.len().max(1));
        for (name, template) in templates {
            let value = template.render(face).map_err(|error| EncodeError::Label(name.clone(), error))?;
            // To Loki a label without a value is no label.
            if !value.is_empty() {
                labels.push((name.clone(), value));
            }
        }
        if labels.is_empty() {
            labels.push((DEFAULT_LABEL.0.to_owned(), DEFAULT_LABEL.1.to_owned()));
        }
        let mut hasher = DefaultHasher::new();
        labels.hash(&mut hasher);
        let stream = hasher.finish();
        if !self.streams.contains(&stream) {
            if self.streams.len() < MAX_STREAMS {
                self.streams.insert(stream);
            } else {
                if !self.overflowed {
                    self.overflowed = true;
                    tracing::warn!(
                        streams = MAX_STREAMS,
                        "labels make too many streams; further ones share one"
                    );
                }
                for (label, value) in &mut labels {
                    if templates.iter().any(|(name, template)| name == label && !template.is_literal()) {
                        OVERFLOW.clone_into(value);
                    }
                }
            }
        }
        Ok(labels)
    }
}

/// When it happened, or else when it was taken.
fn known_time(time_ns: i64, taken_ns: i64) -> i64 {
    [time_ns, taken_ns].into_iter().find(|ns| *ns > 0).unwrap_or(1)
}

/// A record as it is: the whole face.
///
/// # Errors
/// Where it cannot be written as JSON.
pub fn plain(face: &Face<'_>, chunk: &mut Chunk) -> Result<Bytes, EncodeError> {
    chunk.json(|json| Ok(face.write_json(json)?))
}

/// Escapes what Go's `encoding/json` escapes beyond what JSON asks for, onto the end of a buffer. Outside strings JSON has none of
/// these.
pub fn escape_as_go(json: &[u8], out: &mut impl BufMut) {
    // U+2028 and U+2029 are E2 80 A8 and E2 80 A9.
    let special = |json: &[u8], from: usize| -> Option<usize> {
        let rest = json.get(from..)?;
        let ascii = memchr::memchr3(b'<', b'>', b'&', rest);
        // What stands behind the first of those is looked at later.
        let before = &rest[..ascii.unwrap_or(rest.len())];
        let separator = memchr::memchr_iter(0xe2, before)
            .find(|at| matches!(rest.get(at + 1..at + 3), Some([0x80, 0xa8 | 0xa9])));
        separator.or(ascii).map(|at| from + at)
    };
    let mut done = 0;
    while let Some(at) = special(json, done) {
        let (text, length): (&[u8], usize) = match json[at] {
            b'<' => (b"\\u003c", 1),
            b'>' => (b"\\u003e", 1),
            b'&' => (b"\\u0026", 1),
            _ if json[at + 2] == 0xa8 => (b"\\u2028", 3),
            _ => (b"\\u2029", 3),
        };
        out.put_slice(&json[done..at]);
        out.put_slice(text);
        done = at + length;
    }
    out.put_slice(&json[done..]);
}

#[cfg(test)]
mod tests;
