//! What the writer learns again from a file's records when it is opened: of those that the index does not have, which they are;
//! of the last, how often their Events had happened.

use std::borrow::Cow;

use rusqlite::Connection;
use serde::Deserialize;

use super::block::{Stored, Unpacker};
use super::memory::{Memory, version_of};
use super::{hash, log};

/// What tells an Event and its count, and nothing else of it.
#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow)]
    metadata: Metadata<'a>,
    #[serde(default, alias = "deprecatedCount")]
    count: Option<i64>,
    #[serde(default)]
    series: Option<Series>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata<'a> {
    #[serde(borrow)]
    uid: Cow<'a, str>,
    #[serde(borrow)]
    resource_version: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Series {
    #[serde(default)]
    count: Option<i64>,
}

/// Reads the records after a position, up to another. Answers with how many lie beyond what is indexed.
pub(super) fn read(
    connection: &Connection,
    (after, last): (u64, u64),
    covered: u64,
    memory: &mut Memory,
) -> Result<u64, rusqlite::Error> {
    let Ok(mut unpacker) = Unpacker::new() else { return Ok(0) };
    let mut unindexed = 0;
    log::blocks(connection, after, |head, packed| {
        if head.first > last {
            return false;
        }
        let records = log::unpack(&mut unpacker, head, packed);
        let within = |stored: &&Stored<'_>| stored.position > after && stored.position <= last;
        for stored in records.iter().flatten().filter(within) {
            let is_unindexed = stored.position > covered;
            unindexed += u64::from(is_unindexed);
            recall(stored, is_unindexed, memory);
        }
        true
    })?;
    Ok(unindexed)
}

/// What cannot be read is left out here as it is when it is read.
fn recall(stored: &Stored<'_>, is_unindexed: bool, memory: &mut Memory) {
    if stored.is_death {
        return;
    }
    let Ok(event) = serde_json::from_slice::<Event<'_>>(stored.body) else { return };
    let count = event.count.max(event.series.and_then(|series| series.count)).unwrap_or(1).max(1);
    memory.counts.raise(hash::of(&[&event.metadata.uid]), count.unsigned_abs());
    if is_unindexed && let Some(version) = version_of(&event.metadata.uid, &event.metadata.resource_version) {
        memory.unindexed.insert(version, stored.position);
    }
}
