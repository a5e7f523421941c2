//! `loki`: several records a push, at the time at which they happened.
//!
//! Equal records stay equal in labels, time and line, which is how Loki knows a repeat. Loki takes what it can of a push and
//! answers 400 where it refuses a part; which part, only smaller pushes tell, so a refused push is halved until
//! what is refused stands alone.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Uri};
use serde::{Serialize, Serializer};

use super::encode::escape_as_go;
use super::http::{AddressError, Client};
use super::{Cause, Delivery, Limits, Outcome, Report, Sink};
use crate::config::receivers::LokiConfig;

/// Where Loki takes pushes.
pub const PUSH: &str = "/loki/api/v1/push";

/// Pushes to one Loki.
#[derive(Debug)]
pub struct Loki {
    client: Client,
    limits: Limits,
}

#[derive(Serialize)]
struct Push<'a> {
    streams: Vec<Stream<'a>>,
}

#[derive(Serialize)]
struct Stream<'a> {
    stream: BTreeMap<&'a str, &'a str>,
    values: Vec<Value<'a>>,
}

/// Time in nanoseconds, as text, and line.
struct Value<'a> {
    time_ns: i64,
    line: &'a str,
}

// === impl Loki ===

impl Loki {
    /// The Loki of the receiver called `name`.
    ///
    /// # Errors
    /// Where its address, TLS or labels' names cannot be used.
    pub fn new(name: &str, config: &LokiConfig) -> Result<Self, Cause> {
        for (label, _) in &config.labels {
            if !is_label_name(label) {
                return Err(Cause::LabelName(label.clone()));
            }
        }
        let limits = Limits {
            records: config.batch.max_records.max(1),
            bytes: config.batch.max_bytes,
            wait: config.batch.max_wait,
        };
        let address = push_address(&config.url)?;
        Ok(Self { client: Client::new(name, &address, &config.tls, config.timeout)?, limits })
    }

    /// Pushes the deliveries at `indices` of the batch, in parts where Loki refuses a part; false: stop, it is to be tried
    /// again.
    async fn push(&self, batch: &[Delivery], indices: &[usize], report: &mut Report) -> bool {
        // Ranges of `indices`, the first to be pushed last.
        let mut parts = Vec::from([Range { start: 0, end: indices.len() }]);
        while let Some(part) = parts.pop() {
            let Some(part_indices) = indices.get(part.clone()) else { continue };
            let Some(outcome) = self.post(batch, part_indices).await else { continue };
            if part.len() > 1 && outcome.splits {
                let middle = part.start + part.len() / 2;
                parts.push(middle..part.end);
                parts.push(part.start..middle);
                continue;
            }
            for &index in part_indices {
                report.set(index, outcome.outcome.clone());
            }
            if matches!(outcome.outcome, Outcome::Retry(_)) {
                return false;
            }
        }
        true
    }

    async fn post(&self, batch: &[Delivery], indices: &[usize]) -> Option<Pushed> {
        let first = batch.get(*indices.first()?)?;
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        for (name, value) in &first.headers {
            headers.insert(name, value.clone());
        }
        let body = payload(indices.iter().filter_map(|index| batch.get(*index)));
        Some(match self.client.post(headers, body).await {
            Ok(answer) => {
                // 400: some entries, perhaps only one; 413: too large, perhaps only together.
                Pushed {
                    splits: matches!(answer.status.as_u16(), 400 | 413 | 422),
                    outcome: answer.outcome(),
                }
            }
            Err(error) => Pushed { splits: false, outcome: error.outcome() },
        })
    }
}

struct Pushed {
    splits: bool,
    outcome: Outcome,
}

impl Sink for Loki {
    fn limits(&self) -> Limits {
        self.limits
    }

    async fn deliver(&mut self, batch: &[Delivery], report: &mut Report) {
        // Headers, the tenant among them, hold for a whole push: as many pushes as there are different ones.
        let mut groups: Vec<Vec<usize>> = Vec::new();
        let headers = |index: Option<&usize>| {
            index.and_then(|index| batch.get(*index)).map(|delivery| &delivery.headers)
        };
        for index in 0..batch.len() {
            match groups.iter_mut().find(|group| headers(group.first()) == headers(Some(&index))) {
                Some(group) => group.push(index),
                None => groups.push(vec![index]),
            }
        }
        for group in groups {
            if !self.push(batch, &group, report).await {
                return;
            }
        }
    }
}

/// The body of a push: one stream a label set, in the order in which they first come; entries by time, and those of one time
/// as they came.
fn payload<'a>(deliveries: impl Iterator<Item = &'a Delivery>) -> Bytes {
    let mut streams: Vec<Stream<'a>> = Vec::new();
    let mut places: HashMap<&'a [(String, String)], usize> = HashMap::new();
    for delivery in deliveries {
        let place = *places.entry(&delivery.labels).or_insert_with(|| {
            let stream =
                delivery.labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            streams.push(Stream { stream, values: Vec::new() });
            streams.len() - 1
        });
        if let (Some(stream), Ok(line)) = (streams.get_mut(place), std::str::from_utf8(&delivery.body)) {
            stream.values.push(Value { time_ns: delivery.time_ns, line });
        }
    }
    for stream in &mut streams {
        stream.values.sort_by_key(|value| value.time_ns);
    }
    // Writing strings to memory does not fail.
    let json = serde_json::to_vec(&Push { streams }).unwrap_or_default();
    let mut escaped = Vec::with_capacity(json.len());
    escape_as_go(&json, &mut escaped);
    escaped.into()
}

/// A bare address, as users write it, means the push path; any other path is taken as it is.
fn push_address(uri: &Uri) -> Result<Uri, AddressError> {
    if !matches!(uri.path(), "" | "/") {
        return Ok(uri.clone());
    }
    let mut parts = uri.clone().into_parts();
    let path = uri.query().map_or_else(|| PUSH.to_owned(), |query| format!("{PUSH}?{query}"));
    parts.path_and_query = path.parse().ok();
    Uri::from_parts(parts).map_err(|_| AddressError::NoHost(uri.clone()))
}

fn is_label_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

// === impl Value ===

impl Serialize for Value<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (self.time_ns.to_string(), self.line).serialize(serializer)
    }
}

#[cfg(test)]
mod tests;
