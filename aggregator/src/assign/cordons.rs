//! Which nodes were cordoned before this process began, as the journal's own history has it: the API server is not asked.
//!
//! The kubelet writes an event when its node is cordoned and when it no longer is, and only then. The latest of each node that is still
//! kept counts; a node whose event is older than what is kept counts as not cordoned.

use std::collections::BTreeMap;
use std::time::Duration;

use nodetap_wire::event::Event;

use super::Assigner;
use crate::history::query::{Filter, Found, RecordKind, Search};
use crate::history::{History, HistoryError};
use crate::journal::Body;

/// For each page of answers; the plan goes on without meanwhile.
const DEADLINE: Duration = Duration::from_secs(10);

/// Answers of one page.
const PAGE: usize = 1_000;

/// Pages that are read, newest first: each node of the largest cluster cordoned and drained twice.
const PAGES: usize = 64;

/// Whether a node takes pods after an event of it with this reason; none where that says nothing of it.
pub fn is_cordoned(kind: &str, reason: &str) -> Option<bool> {
    match (kind, reason) {
        ("Node", "NodeNotSchedulable") => Some(true),
        // One that is removed may come back under its name, and the kubelet says only what changes.
        ("Node", "NodeSchedulable" | "RemovingNode") => Some(false),
        _ => None,
    }
}

/// Looks for them, and tells the plan.
pub async fn recall(history: impl History, assigner: Assigner) {
    let known = match known(&history).await {
        Ok(known) => known,
        Err(error) => {
            tracing::warn!(%error, "the history does not say which nodes were cordoned: they are known once they are again");
            return;
        }
    };
    let cordoned = known.values().filter(|is_cordoned| **is_cordoned).count();
    tracing::info!(cordoned, nodes = known.len(), "cordoned nodes recalled from the history");
    // Where nobody hears it, the aggregator is stopping.
    let _ = assigner.recall(known.into_iter().collect()).await;
}

/// The nodes of which the history has an event, and whether the latest says that they are cordoned.
///
/// # Errors
/// Where the history cannot be asked.
pub async fn known(history: &impl History) -> Result<BTreeMap<String, bool>, HistoryError> {
    let filter = Filter {
        record: Some(RecordKind::Event),
        object_kinds: vec!["Node".to_owned()],
        reasons: ["NodeNotSchedulable", "NodeSchedulable", "RemovingNode"].map(str::to_owned).into(),
        ..Filter::default()
    };
    let mut search = Search { filter, after: None, limit: PAGE, deadline: DEADLINE };
    let mut known = BTreeMap::new();
    for _ in 0..PAGES {
        let page = history.search(search.clone()).await?;
        for (node, is_cordoned) in page.found.iter().filter_map(said) {
            // Newest first.
            known.entry(node).or_insert(is_cordoned);
        }
        search.after = page.last;
        if !page.has_more || search.after.is_none() {
            break;
        }
    }
    Ok(known)
}

fn said(found: &Found) -> Option<(String, bool)> {
    let Body::Event(json) = &found.entry.body else { return None };
    let event = Event::parse(std::str::from_utf8(json).ok()?).ok()?;
    let is_cordoned = is_cordoned(&event.involved_object.kind, &event.reason)?;
    Some((event.involved_object.name.to_string(), is_cordoned))
}

#[cfg(test)]
mod tests;
