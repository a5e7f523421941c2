//! What happens in the cluster, as counters that outlive the events, with a bound on every family.
//!
//! The families of kubernetes-event-exporter, event_exporter and eventrouter are in `compatibility`.

pub mod compatibility;

use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, PoisonError};

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use nodetap_runtime::bounded::{BoundedCounter, ContainerLabels, OVERFLOW, Overflow};
use nodetap_wire::record::Kind;
use nodetap_wire::{ContainerDied, EventSeen, Record};
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;

use compatibility::Compatibility;

/// Label sets of `nodetap_events_total`: with the deaths' and our own, all series stay below 5,000 at any cluster size.
const EVENT_SERIES: usize = 2_500;

/// Label sets of `nodetap_container_deaths_total`.
const DEATH_SERIES: usize = 1_500;

/// Label sets of `nodetap_container_deaths_missed_total`.
const MISSED_SERIES: usize = 256;

/// Counts what was journalled.
#[derive(Clone, Debug)]
pub struct ClusterMetrics {
    families: Arc<Families>,
}

#[derive(Debug)]
struct Families {
    events: BoundedCounter<EventLabels>,
    /// Counters of `events`, found without a label set being made.
    known: Mutex<Known>,
    deaths: BoundedCounter<DeathLabels>,
    missed_deaths: BoundedCounter<ContainerLabels>,
    compatibility: Compatibility,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EventLabels {
    namespace: String,
    kind: String,
    reason: String,
    r#type: EventType,
}

/// `type` of an Event: the API server takes nothing but the first two (core/v1 validation of events.k8s.io writers).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum EventType {
    Normal,
    Warning,
    Other,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DeathLabels {
    namespace: String,
    container: String,
    reason: String,
    exit: String,
}

/// Bounded as the family is.
#[derive(Debug, Default)]
struct Known {
    hasher: RandomState,
    counters: HashTable<(EventLabels, Counter)>,
}

// === impl ClusterMetrics ===

impl ClusterMetrics {
    /// Registers the families; `compatibility` are those of other exporters that are switched on.
    pub fn register(registry: &mut Registry, compatibility: compatibility::Switches) -> Self {
        let overflow = Overflow::default();
        let overflow_of = |family| overflow.of(family);
        let other = || OVERFLOW.to_owned();
        let events = BoundedCounter::new(
            EVENT_SERIES,
            EventLabels { namespace: other(), kind: other(), reason: other(), r#type: EventType::Other },
            overflow_of("nodetap_events"),
        );
        events.register(registry, "nodetap_events", "Occurrences of events, each recurrence counted");
        let deaths = BoundedCounter::new(
            DEATH_SERIES,
            DeathLabels { namespace: other(), container: other(), reason: other(), exit: other() },
            overflow_of("nodetap_container_deaths"),
        );
        deaths.register(registry, "nodetap_container_deaths", "Deaths of containers");
        let missed_deaths = BoundedCounter::new(
            MISSED_SERIES,
            ContainerLabels::overflow(),
            overflow_of("nodetap_container_deaths_missed"),
        );
        missed_deaths.register(
            registry,
            "nodetap_container_deaths_missed",
            "Deaths of containers that nobody could see, known by the next one's restart count",
        );
        let compatibility = Compatibility::register(registry, compatibility, overflow_of);
        overflow.register(registry, "nodetap_label_overflow");
        let known = Mutex::default();
        Self { families: Arc::new(Families { events, known, deaths, missed_deaths, compatibility }) }
    }

    /// Counts a record that was new to the journal, and that happened so often since it was last seen.
    pub fn count(&self, record: &Record, occurrences: u64) {
        match &record.kind {
            Some(Kind::Event(event)) => {
                self.families.count(event, occurrences);
                self.families.compatibility.count(event, occurrences);
            }
            Some(Kind::Death(death)) => {
                self.families.deaths.inc_by(DeathLabels::of(death), 1);
                if death.missed_before > 0 {
                    let (namespace, container) = (death.namespace.clone(), death.container.clone());
                    let labels = ContainerLabels { namespace, container };
                    self.families.missed_deaths.inc_by(labels, u64::from(death.missed_before));
                }
            }
            Some(Kind::Pod(_)) | None => {}
        }
    }
}

// === impl Families ===

impl Families {
    fn count(&self, event: &EventSeen, occurrences: u64) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let Known { hasher, counters } = &mut *known;
        let hash = hasher.hash_one(EventLabels::key(event));
        if let Some((_, counter)) = counters.find(hash, |(labels, _)| labels.is_of(event)) {
            counter.inc_by(occurrences);
            return;
        }
        let labels = EventLabels::of(event);
        match self.events.counter(&labels) {
            Some(counter) => {
                counter.inc_by(occurrences);
                let hash_of = |(labels, _): &(EventLabels, Counter)| {
                    let EventLabels { namespace, kind, reason, r#type } = labels;
                    hasher.hash_one((namespace.as_bytes(), kind.as_bytes(), reason.as_bytes(), *r#type))
                };
                counters.insert_unique(hash, (labels, counter), hash_of);
            }
            None => self.events.inc_by(labels, occurrences),
        }
    }
}

// === impl EventLabels ===

impl EventLabels {
    /// As bytes: as text, each would be looked at for its being such, of every event.
    fn key(event: &EventSeen) -> (&[u8], &[u8], &[u8], EventType) {
        let EventSeen { namespace, kind, reason, r#type, .. } = event;
        (namespace.bytes(), kind.bytes(), reason.bytes(), EventType::of(r#type))
    }

    fn is_of(&self, event: &EventSeen) -> bool {
        let Self { namespace, kind, reason, r#type } = self;
        (namespace.as_bytes(), kind.as_bytes(), reason.as_bytes(), *r#type) == Self::key(event)
    }

    fn of(event: &EventSeen) -> Self {
        Self {
            namespace: event.namespace.to_string(),
            kind: event.kind.to_string(),
            reason: event.reason.to_string(),
            r#type: EventType::of(&event.r#type),
        }
    }
}

// === impl EventType ===

impl EventType {
    fn of(text: &str) -> Self {
        match text {
            "Normal" => Self::Normal,
            "Warning" => Self::Warning,
            _ => Self::Other,
        }
    }
}

impl EncodeLabelValue for EventType {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        let text = match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
            Self::Other => OVERFLOW,
        };
        text.encode(encoder)
    }
}

// === impl DeathLabels ===

impl DeathLabels {
    fn of(death: &ContainerDied) -> Self {
        Self {
            namespace: death.namespace.clone(),
            container: death.container.clone(),
            reason: death.reason.clone(),
            exit: death.exit_code.map_or_else(|| "unknown".to_owned(), |code| code.to_string()),
        }
    }
}

#[cfg(test)]
mod tests;
