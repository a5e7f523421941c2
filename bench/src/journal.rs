//! An aggregator's journal, read from its folder while the aggregator runs.

use std::path::Path;

use nodetap_aggregator::journal::sqlite::offline;
use nodetap_aggregator::journal::{Body, Entry, Position};
use nodetap_wire::identity::Identity;
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
    let mut kept = Vec::new();
    each(journal, |entry| {
        if let Body::Event(json) = &entry.body {
            let Metadata { uid, resource_version } = metadata(json)?;
            kept.push(Kept {
                uid,
                version: resource_version.parse().unwrap_or_default(),
                taken_ns: entry.taken_ns,
            });
        }
        Ok(())
    })?;
    Ok(kept)
}

/// What each record is, in the order in which they were kept.
///
/// # Errors
/// A file or a record cannot be read.
pub(crate) fn identities(journal: &Path, cluster: &str) -> anyhow::Result<Vec<Identity>> {
    let mut identities = Vec::new();
    each(journal, |entry| {
        identities.push(match &entry.body {
            Body::Event(json) => {
                let Metadata { uid, resource_version } = metadata(json)?;
                Identity::of_event_state(cluster, &uid, &resource_version)
            }
            Body::Death(death) => Identity::of_death(cluster, death),
        });
        Ok(())
    })?;
    Ok(identities)
}

fn each(journal: &Path, mut tell: impl FnMut(&Entry) -> serde_json::Result<()>) -> anyhow::Result<()> {
    let mut told = Ok(());
    let left_out = offline::read(journal, Position(0), |entry| {
        told = tell(&entry);
        told.is_ok()
    })?;
    anyhow::ensure!(left_out.is_nothing(), "{left_out}");
    Ok(told?)
}

fn metadata(json: &[u8]) -> serde_json::Result<Metadata> {
    serde_json::from_slice::<Event>(json).map(|event| event.metadata)
}
