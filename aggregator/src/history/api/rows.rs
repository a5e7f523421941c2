//! A record as the API shows it: its face, and what the history knows beside it.

use nodetap_wire::event::EventError;
use nodetap_wire::face::Face;
use nodetap_wire::time;
use serde::Serialize;

use crate::history::filter::time_ns;
use crate::history::query::RecordKind;
use crate::journal::Entry;
use crate::journal::facets::{Facets, Test};

/// What is written of a record.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row<'a> {
    position: u64,
    /// When it happened; RFC 3339.
    time: Option<String>,
    record: &'static str,
    first_time: Option<String>,
    last_time: Option<String>,
    /// How often it happened by then.
    count: u64,
    /// As kubernetes-event-exporter shows it.
    event: &'a Face<'a>,
}

/// A record that a test lets through.
pub(super) fn matching(entry: &Entry, cluster: &str, test: &Test) -> Result<Option<Vec<u8>>, EventError> {
    test.matches(&Facets::of(entry)?).then(|| of(entry, cluster)).transpose()
}

/// A record.
pub(super) fn of(entry: &Entry, cluster: &str) -> Result<Vec<u8>, EventError> {
    let face = entry.face(cluster)?;
    let ns = time_ns(entry, &face);
    let series = face.series.as_ref().map_or(0, |series| series.count);
    let first = [&face.first_timestamp, &face.event_time, &face.metadata.creation_timestamp];
    let first = first.into_iter().find_map(|text| time::parse_ns(text)).unwrap_or(ns);
    let row = Row {
        position: entry.position.0,
        time: time::format_ns(ns),
        record: RecordKind::of(entry).name(),
        first_time: time::format_ns(first.min(ns)),
        last_time: time::format_ns(ns),
        count: u64::try_from(face.count.max(series)).unwrap_or(1).max(1),
        event: &face,
    };
    Ok(serde_json::to_vec(&row)?)
}
