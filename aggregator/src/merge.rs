//! Tells duplicates from news, and how often something happened since it was last seen.
//!
//! Pure: what is known comes in by [`Known`], which the journal's files implement. Within what they keep, an identity is new
//! exactly once, in whatever order and however often it comes. An event above its namespace's watermark costs no look-up.

use nodetap_wire::{Change, ContainerDied, EventSeen, resource_version};

/// What is known of the records that were journalled before.
pub trait Known {
    /// Why a look-up could not be made.
    type Error;

    /// The highest decimal resourceVersion that was journalled of an event namespace; `None` where there was none.
    fn watermark(&self, namespace: &str) -> Option<&str>;

    /// Whether this state of an Event was journalled.
    fn contains_event(&mut self, uid: &str, resource_version: &str) -> Result<bool, Self::Error>;

    /// The highest count that was journalled of an Event, whose other states count less before this one and no less after it; `None`
    /// where it is not known to have been seen.
    fn last_count(&mut self, event: &EventSeen) -> Result<Option<u64>, Self::Error>;

    /// Whether this death was journalled.
    fn contains_death(&mut self, death: &DeathKey<'_>) -> Result<bool, Self::Error>;

    /// When the last record was taken that is kept no longer, in nanoseconds since 1970; `None`: all are kept.
    fn dropped_ns(&self) -> Option<i64>;
}

/// A death is taken within this time, or it was not the first time that it was seen: the kubelet shows one for as long as its pod
/// lives, and an agent that starts takes all that it shows.
const TAKEN_WITHIN_NS: i64 = 3_600 * 1_000_000_000;

/// What tells one death from another: pod uid, container and container id, or the ordinal where an id is not known on either
/// side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeathKey<'a> {
    /// The pod's uid.
    pub pod_uid: &'a str,
    /// The container's name.
    pub container: &'a str,
    /// The container's id without its runtime's name; empty: not known.
    pub container_id: &'a str,
    /// The `restartCount` of the container that died.
    pub ordinal: u32,
}

/// What a record is, given what is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Never journalled before.
    New {
        /// How often it happened since the last state seen; 0: this state tells of no new occurrence.
        occurrences: u64,
        /// The highest count of the object with this state.
        count: u64,
    },
    /// Journalled already.
    Duplicate,
    /// From so long before what is kept that it was journalled, as far as can be told.
    Forgotten,
}

/// Judges a state of an Event.
///
/// # Errors
/// Where `known` cannot be asked.
pub fn judge_event<K: Known>(event: &EventSeen, known: &mut K) -> Result<Verdict, K::Error> {
    let watermark = known.watermark(&event.namespace);
    let has_watermark = watermark.is_some();
    let is_above = match watermark {
        Some(watermark) => resource_version::is_later(&event.resource_version, watermark),
        // Nothing that compares was journalled of this namespace.
        None => resource_version::compare(&event.resource_version, &event.resource_version).is_some(),
    };
    if !is_above && known.contains_event(&event.uid, &event.resource_version)? {
        return Ok(Verdict::Duplicate);
    }
    let count = event.count.max(1);
    if is_above && event.change() == Change::Added && count == 1 {
        return Ok(Verdict::New { occurrences: 1, count });
    }
    let last = match known.last_count(event)? {
        Some(last) => last,
        // The API server says that there was a state before, and what counts above 1 is always known.
        None if is_above && has_watermark && event.change() == Change::Modified => 1,
        None => 0,
    };
    Ok(Verdict::New { occurrences: count.saturating_sub(last), count: count.max(last) })
}

/// Judges a container's death.
///
/// # Errors
/// Where `known` cannot be asked.
pub fn judge_death<K: Known>(death: &ContainerDied, known: &mut K) -> Result<Verdict, K::Error> {
    if known.contains_death(&DeathKey::of(death))? {
        return Ok(Verdict::Duplicate);
    }
    let is_forgotten = death.finished_ns > 0
        && known
            .dropped_ns()
            .is_some_and(|dropped| death.finished_ns < dropped.saturating_sub(TAKEN_WITHIN_NS));
    Ok(if is_forgotten { Verdict::Forgotten } else { Verdict::New { occurrences: 1, count: 1 } })
}

// === impl DeathKey ===

impl<'a> DeathKey<'a> {
    /// The key of a death.
    pub fn of(death: &'a ContainerDied) -> Self {
        let id = death.container_id.as_str();
        Self {
            pod_uid: &death.pod_uid,
            container: &death.container,
            container_id: id.rsplit_once("://").map_or(id, |(_, id)| id),
            ordinal: death.ordinal,
        }
    }

    /// Whether both are one death.
    pub fn is_same(&self, other: &DeathKey<'_>) -> bool {
        self.pod_uid == other.pod_uid
            && self.container == other.container
            && match self.container_id.is_empty() || other.container_id.is_empty() {
                true => self.ordinal == other.ordinal,
                false => self.container_id == other.container_id,
            }
    }
}

#[cfg(test)]
mod tests;
