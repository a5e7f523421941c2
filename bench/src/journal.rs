//! An aggregator's journal, read from its folder while the aggregator runs.

use std::path::Path;

use nodetap_aggregator::journal::sqlite::offline;
use nodetap_aggregator::journal::{Body, Position};
use serde::Deserialize;

/// One state of an event, as it was kept.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    /// The event's uid.
    pub(crate) uid: String,
    /// And resourceVersion.
    pub(crate) version: u64,
    /// When it was taken, in nanoseconds since 1970.
    pub(crate) taken_ns: i64,
}

#[derive(Deserialize)]
struct Event {
    metadata: Metadata,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    uid: String,
    resource_version: String,
}

/// How many states of events there are.
///
/// # Errors
/// A file cannot be read.
pub(crate) fn events(journal: &Path) -> anyhow::Result<usize> {
    Ok(states(journal)?.len())
}

/// All states of events, in the order in which they were kept.
///
/// # Errors
/// A file or a record cannot be read.
pub(crate) fn states(journal: &Path) -> anyhow::Result<Vec<Kept>> {
    let (mut kept, mut failed) = (Vec::new(), None);
    let unreadable = offline::read(journal, Position(0), |entry| {
        if let Body::Event(json) = &entry.body {
            match serde_json::from_slice::<Event>(json) {
                Ok(Event { metadata: Metadata { uid, resource_version } }) => kept.push(Kept {
                    uid,
                    version: resource_version.parse().unwrap_or_default(),
                    taken_ns: entry.taken_ns,
                }),
                Err(error) => failed = Some(error),
            }
        }
        failed.is_none()
    })?;
    anyhow::ensure!(unreadable == 0, "{unreadable} records of the journal cannot be read");
    failed.map_or(Ok(kept), |error| Err(error.into()))
}
