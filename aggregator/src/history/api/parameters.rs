//! The parameters of the API: one table, by which a request is read and the OpenAPI document is written.

use std::time::Duration;

use jiff::Timestamp;

use super::answer::Refusal;
use super::percent;
use crate::config::nearest;
use crate::history::query::{Field, Filter, RecordKind};
use crate::journal::Position;
use crate::journal::words::Words;

/// One parameter of a query.
#[derive(Debug)]
pub(super) struct Parameter {
    pub(super) name: &'static str,
    /// For people: what it does.
    pub(super) about: &'static str,
    /// A value that it takes.
    pub(super) example: &'static str,
    pub(super) kind: Kind,
    /// Given several times, its values are alternatives.
    pub(super) repeats: bool,
}

/// What a parameter takes, and where it is put.
#[derive(Debug)]
pub(super) enum Kind {
    /// Text of at most [`MAX_TEXT`] bytes.
    Text(fn(&mut Asked, String)),
    /// One of a few words.
    Choice(&'static [Choice]),
    /// A whole number within bounds.
    Integer(i64, i64, fn(&mut Asked, i64)),
    /// A moment, in nanoseconds since 1970.
    Moment(fn(&mut Asked, i64)),
    /// A span of time of at least a second.
    Span(fn(&mut Asked, Duration)),
}

/// A word, and what it does.
type Choice = (&'static str, fn(&mut Asked));

/// What a request asks for.
#[derive(Clone, Debug, Default)]
pub(super) struct Asked {
    pub(super) filter: Filter,
    pub(super) clusters: Vec<String>,
    pub(super) limit: Option<usize>,
    pub(super) cursor: Option<String>,
    pub(super) by: Option<Field>,
    /// All records here are of one.
    pub(super) by_cluster: bool,
    pub(super) step: Option<Duration>,
    pub(super) top: Option<usize>,
    pub(super) after: Option<Position>,
    pub(super) oldest_first: bool,
    /// Of everything that was asked for but `limit` and `cursor`: what a cursor must belong to.
    pub(super) fingerprint: u64,
}

/// The longest value of a text.
pub(super) const MAX_TEXT: usize = 512;

/// How many parameters a request may have, each value of a repeated one counted.
const MAX_PARAMETERS: usize = 64;

/// Most rows of a page.
pub(super) const MAX_ROWS: i64 = 1_000;

/// Seconds since 1970 that are beyond the year 5000 are milliseconds.
const MAX_SECONDS: f64 = 1e11;

/// The filters, which every question takes.
pub(super) static FILTERS: &[Parameter] = &[
    Parameter {
        name: "since",
        about: "Happened at or after: RFC 3339, seconds since 1970, or a duration before now.",
        example: "2h",
        kind: Kind::Moment(|asked, ns| asked.filter.since_ns = Some(ns)),
        repeats: false,
    },
    Parameter {
        name: "until",
        about: "Happened before: RFC 3339, seconds since 1970, or a duration before now.",
        example: "2030-01-01T00:00:00Z",
        kind: Kind::Moment(|asked, ns| asked.filter.until_ns = Some(ns)),
        repeats: false,
    },
    Parameter {
        name: "record",
        about: "States of Events alone, or deaths of containers alone.",
        example: "death",
        kind: Kind::Choice(&[
            ("event", |asked| asked.filter.record = Some(RecordKind::Event)),
            ("death", |asked| asked.filter.record = Some(RecordKind::Death)),
        ]),
        repeats: false,
    },
    Parameter {
        name: "namespace",
        about: "Namespace of the involved object, or the Event's own where that has none.",
        example: "shop",
        kind: Kind::Text(|asked, text| asked.filter.namespaces.push(text)),
        repeats: true,
    },
    Parameter {
        name: "kind",
        about: "Kind of the involved object; Pod for a death.",
        example: "Pod",
        kind: Kind::Text(|asked, text| asked.filter.object_kinds.push(text)),
        repeats: true,
    },
    Parameter {
        name: "name",
        about: "Name of the involved object; the pod's of a death.",
        example: "web-0",
        kind: Kind::Text(|asked, text| asked.filter.objects.push(text)),
        repeats: true,
    },
    Parameter {
        name: "node",
        about: "Node on which it happened.",
        example: "node-1",
        kind: Kind::Text(|asked, text| asked.filter.nodes.push(text)),
        repeats: true,
    },
    Parameter {
        name: "reason",
        about: "Reason of the event; ContainerDied or ContainerOOMKilled for a death.",
        example: "BackOff",
        kind: Kind::Text(|asked, text| asked.filter.reasons.push(text)),
        repeats: true,
    },
    Parameter {
        name: "type",
        about: "Type of the event; Warning for a death with a non-zero exit.",
        example: "Warning",
        kind: Kind::Text(|asked, text| asked.filter.types.push(text)),
        repeats: true,
    },
    Parameter {
        name: "owner",
        about: "Name of an owner of the involved object, such as its ReplicaSet.",
        example: "web",
        kind: Kind::Text(|asked, text| asked.filter.owners.push(text)),
        repeats: true,
    },
    Parameter {
        name: "container",
        about: "Container that died, or that the event's fieldPath names.",
        example: "app",
        kind: Kind::Text(|asked, text| asked.filter.containers.push(text)),
        repeats: true,
    },
    Parameter {
        name: "exitCode",
        about: "Exit code of a death.",
        example: "137",
        kind: Kind::Integer(i32::MIN as i64, i32::MAX as i64, |asked, code| {
            asked.filter.exit_codes.extend(i32::try_from(code));
        }),
        repeats: true,
    },
    Parameter {
        name: "text",
        about: "Words that all occur in the message or the last log lines; the last may be a beginning, ended by *.",
        example: "connection refus*",
        kind: Kind::Text(|asked, text| asked.filter.text = Some(text)),
        repeats: false,
    },
    Parameter {
        name: "cluster",
        about: "Name of the cluster: clusterName of the aggregator's configuration.",
        example: "kubernetes",
        kind: Kind::Text(|asked, text| asked.clusters.push(text)),
        repeats: true,
    },
];

/// Of a page of records.
pub(super) static PAGING: &[Parameter] = &[
    Parameter {
        name: "limit",
        about: "Most rows of the page; 100 by default.",
        example: "100",
        kind: Kind::Integer(1, MAX_ROWS, set_limit),
        repeats: false,
    },
    Parameter {
        name: "cursor",
        about: "The page after the one whose answer has this cursor; the other parameters stay as they were.",
        example: "",
        kind: Kind::Text(|asked, text| asked.cursor = Some(text)),
        repeats: false,
    },
];

/// Of counts.
pub(super) static COUNTING: &[Parameter] = &[
    Parameter {
        name: "by",
        about: "One count for each value of this field; one for all by default. A record of an object with several owners counts for each.",
        example: "reason",
        kind: Kind::Choice(&[
            ("record", |asked| asked.by = Some(Field::Record)),
            ("namespace", |asked| asked.by = Some(Field::Namespace)),
            ("kind", |asked| asked.by = Some(Field::ObjectKind)),
            ("name", |asked| asked.by = Some(Field::Object)),
            ("node", |asked| asked.by = Some(Field::Node)),
            ("reason", |asked| asked.by = Some(Field::Reason)),
            ("type", |asked| asked.by = Some(Field::Type)),
            ("owner", |asked| asked.by = Some(Field::Owner)),
            ("container", |asked| asked.by = Some(Field::Container)),
            ("exitCode", |asked| asked.by = Some(Field::ExitCode)),
            ("cluster", |asked| asked.by_cluster = true),
        ]),
        repeats: false,
    },
    Parameter {
        name: "step",
        about: "One count for each span of so long, from 1970 on. Without since, the last 500 of them.",
        example: "1h",
        kind: Kind::Span(|asked, span| asked.step = Some(span)),
        repeats: false,
    },
    Parameter {
        name: "top",
        about: "At most so many values, those with the most records; 10 by default.",
        example: "10",
        kind: Kind::Integer(1, 100, |asked, top| asked.top = usize::try_from(top).ok()),
        repeats: false,
    },
];

/// Of a tail.
pub(super) static TAILING: &[Parameter] = &[Parameter {
    name: "after",
    about: "Start behind this position, as the header Last-Event-ID does, which counts for more; without: what comes from now on.",
    example: "0",
    kind: Kind::Integer(0, i64::MAX, |asked, after| asked.after = u64::try_from(after).ok().map(Position)),
    repeats: false,
}];

/// Of an export.
pub(super) static EXPORTING: &[Parameter] = &[
    Parameter {
        name: "order",
        about: "Newest first by time, the default, or oldest first as they were taken.",
        example: "oldest",
        kind: Kind::Choice(&[
            ("newest", |asked| asked.oldest_first = false),
            ("oldest", |asked| asked.oldest_first = true),
        ]),
        repeats: false,
    },
    Parameter {
        name: "limit",
        about: "Most rows; all by default.",
        example: "100",
        kind: Kind::Integer(1, i64::MAX, set_limit),
        repeats: false,
    },
];

fn set_limit(asked: &mut Asked, limit: i64) {
    asked.limit = usize::try_from(limit).ok();
}

/// Reads the query of a request that takes these parameters.
///
/// # Errors
/// Names the parameter, its value, and what is expected.
pub(super) fn read(query: &str, known: &[&Parameter], now_ns: i64) -> Result<Asked, Refusal> {
    let mut asked = Asked::default();
    let mut given: Vec<(String, String)> = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let broken = |part: &str| {
            let said = "expected UTF-8, each byte that is none of a URL as % and two hexadecimal digits";
            Refusal::parameter(part, part, said)
        };
        let name = percent::decode(name).ok_or_else(|| broken(name))?;
        let value = percent::decode(value).ok_or_else(|| broken(pair))?;
        let Some(parameter) = known.iter().find(|parameter| parameter.name == name) else {
            return Err(unknown(&name, &value, known));
        };
        if !parameter.repeats && given.iter().any(|before| before.0 == name) {
            return Err(Refusal::parameter(&name, &value, "given twice: expected once"));
        }
        if given.len() == MAX_PARAMETERS {
            return Err(Refusal::parameter(&name, &value, "too many parameters: expected at most 64"));
        }
        parameter
            .put(&value, now_ns, &mut asked)
            .map_err(|expected| Refusal::parameter(&name, &value, &expected))?;
        given.push((name, value));
    }
    if let (Some(since), Some(until)) = (asked.filter.since_ns, asked.filter.until_ns)
        && since >= until
    {
        let value = given.iter().find(|one| one.0 == "until").map_or("", |one| one.1.as_str());
        return Err(Refusal::parameter("until", value, "expected a moment after since"));
    }
    if let Some(text) = &asked.filter.text
        && Words::parse(text).is_err()
    {
        return Err(Refusal::parameter("text", text, "expected a word: letters or digits"));
    }
    given.retain(|one| !matches!(one.0.as_str(), "cursor" | "limit"));
    given.sort();
    asked.fingerprint = fingerprint(&given);
    Ok(asked)
}

fn unknown(name: &str, value: &str, known: &[&Parameter]) -> Refusal {
    let mut names: Vec<&str> = known.iter().map(|parameter| parameter.name).collect();
    let expected = match nearest(name, &names) {
        Some(near) => format!("unknown parameter; did you mean {near}?"),
        None if names.is_empty() => "unknown parameter: nothing is expected here".to_owned(),
        None => {
            names.sort_unstable();
            format!("unknown parameter; there are {}", names.join(", "))
        }
    };
    Refusal::parameter(name, value, &expected)
}

/// FNV-1a over all names and values, which no version may change: cursors outlast it.
fn fingerprint(given: &[(String, String)]) -> u64 {
    let parts = given.iter().flat_map(|(name, value)| [name.as_bytes(), b"\0", value.as_bytes(), b"\0"]);
    super::cursor::fnv(parts.flatten().copied())
}

// === impl Parameter ===

impl Parameter {
    fn put(&self, value: &str, now_ns: i64, asked: &mut Asked) -> Result<(), String> {
        let expected = || self.expected();
        match &self.kind {
            Kind::Text(set) if !value.is_empty() && value.len() <= MAX_TEXT => set(asked, value.to_owned()),
            Kind::Text(_) => return Err(expected()),
            Kind::Choice(choices) => {
                let Some((_, set)) = choices.iter().find(|choice| choice.0 == value) else {
                    let names: Vec<&str> = choices.iter().map(|choice| choice.0).collect();
                    let hint = nearest(value, &names).map(|near| format!("; did you mean {near}?"));
                    return Err(expected() + &hint.unwrap_or_default());
                };
                set(asked);
            }
            Kind::Integer(least, most, set) => {
                let number = value.parse().ok().filter(|number| (*least..=*most).contains(number));
                set(asked, number.ok_or_else(expected)?);
            }
            Kind::Moment(set) => set(asked, moment(value, now_ns).ok_or_else(expected)?),
            Kind::Span(set) => {
                let span = crate::config::duration(value).ok().filter(|span| span.as_secs() >= 1);
                set(asked, span.ok_or_else(expected)?);
            }
        }
        Ok(())
    }

    /// What it takes, in words.
    pub(super) fn expected(&self) -> String {
        match &self.kind {
            Kind::Text(_) => format!("expected 1 to {MAX_TEXT} bytes of text"),
            Kind::Choice(choices) => {
                let names: Vec<&str> = choices.iter().map(|choice| choice.0).collect();
                format!("expected one of {}", names.join(", "))
            }
            Kind::Integer(least, most, _) => format!("expected a whole number from {least} to {most}"),
            Kind::Moment(_) => {
                "expected RFC 3339 such as 2026-01-31T12:00:00Z, seconds since 1970, or a duration before now such as 2h"
                    .to_owned()
            }
            Kind::Span(_) => "expected a duration of 1s or more, such as 15m or 1h".to_owned(),
        }
    }
}

/// RFC 3339, seconds since 1970, or a duration before now.
fn moment(text: &str, now_ns: i64) -> Option<i64> {
    if text == "now" {
        return Some(now_ns);
    }
    if text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        let seconds: f64 = text.parse().ok().filter(|seconds| *seconds < MAX_SECONDS)?;
        let (whole, rest) = (seconds.trunc(), seconds.fract());
        let ns = (whole as i128) * 1_000_000_000 + (rest * 1e9) as i128;
        return i64::try_from(ns).ok();
    }
    if let Ok(ago) = crate::config::duration(text) {
        return Some(now_ns.saturating_sub(i64::try_from(ago.as_nanos()).ok()?));
    }
    // A + that was not written as %2B came as a space.
    let timestamp: Timestamp = text.replace(' ', "+").parse().ok()?;
    i64::try_from(timestamp.as_nanosecond()).ok()
}

#[cfg(test)]
mod tests;
