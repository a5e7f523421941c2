//! Metric families of the exporters that nodetap replaces, by their exact names, for dashboards and alerts made for them.
//!
//! kubernetes-event-exporter's counters lack `_total`, which no registry writes: they are text of our own.

use std::fmt::Write;

use nodetap_runtime::bounded::{BoundedCounter, OVERFLOW};
use nodetap_wire::EventSeen;
use nodetap_wire::event::Event;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;

/// Which families are on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Switches {
    /// `events_sent` and the others of kubernetes-event-exporter, behind its `metricsNamePrefix`.
    pub kubernetes_event_exporter: bool,
    /// `kube_event_unique_events_total` of event_exporter. Its labels name objects: one series an event.
    pub event_exporter: bool,
    /// `heptio_eventrouter_*_total` of eventrouter. Its labels name objects: one series an object and reason.
    pub event_router: bool,
}

/// The families that are on.
#[derive(Debug)]
pub(super) struct Compatibility {
    event_exporter: Option<BoundedCounter<EventExporterLabels>>,
    event_router: Option<EventRouter>,
}

/// kubernetes-event-exporter's counters, taken from ours.
#[derive(Clone, Debug, Default)]
pub struct EventExporterCounters {
    /// `metricsNamePrefix`
    pub prefix: String,
    /// States of events taken from the watch, before routing, as upstream counts them.
    pub events_sent: Counter,
    /// Watches that failed.
    pub watch_errors: Counter,
    /// Deliveries that failed.
    pub send_event_errors: Counter,
}

#[derive(Debug)]
struct EventRouter {
    normal: BoundedCounter<EventRouterLabels>,
    warning: BoundedCounter<EventRouterLabels>,
    info: BoundedCounter<EventRouterLabels>,
    unknown: BoundedCounter<EventRouterLabels>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EventExporterLabels {
    name: String,
    namespace: String,
    involved_object_namespace: String,
    involved_object_name: String,
    involved_object_kind: String,
    reason: String,
    r#type: String,
    source: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EventRouterLabels {
    involved_object_kind: String,
    involved_object_name: String,
    involved_object_namespace: String,
    reason: String,
    source: String,
}

/// Label sets of each family that names objects: they are switched on by hand, and still must not fill a Prometheus.
const SERIES: usize = 1_000;

// === impl Switches ===

impl Default for Switches {
    /// What costs nothing is on; what names objects in its labels is off.
    fn default() -> Self {
        Self { kubernetes_event_exporter: true, event_exporter: false, event_router: false }
    }
}

// === impl Compatibility ===

impl Compatibility {
    pub(super) fn register(
        registry: &mut Registry,
        switches: Switches,
        overflow_of: impl Fn(&'static str) -> Counter,
    ) -> Self {
        let event_exporter = switches.event_exporter.then(|| {
            let family = BoundedCounter::new(
                SERIES,
                EventExporterLabels::overflow(),
                overflow_of("kube_event_unique_events"),
            );
            family.register(
                registry,
                "kube_event_unique_events",
                "Total number of kubernetes unique event happened",
            );
            family
        });
        let event_router = switches.event_router.then(|| {
            let mut family = |name: &'static str, of: &str| {
                let family = BoundedCounter::new(SERIES, EventRouterLabels::overflow(), overflow_of(name));
                family.register(registry, name, &format!("Total number of {of} in the kubernetes cluster"));
                family
            };
            EventRouter {
                normal: family("heptio_eventrouter_normal", "normal events"),
                warning: family("heptio_eventrouter_warnings", "warning events"),
                info: family("heptio_eventrouter_info", "info events"),
                unknown: family("heptio_eventrouter_unknown", "events of unknown type"),
            }
        });
        Self { event_exporter, event_router }
    }

    pub(super) fn count(&self, seen: &EventSeen, occurrences: u64) {
        if let Some(family) = &self.event_exporter
            && let Some(labels) = EventExporterLabels::of(seen)
        {
            family.inc_by(labels, occurrences);
        }
        if let Some(router) = &self.event_router {
            let family = match &*seen.r#type {
                "Normal" => &router.normal,
                "Warning" => &router.warning,
                "Info" => &router.info,
                _ => &router.unknown,
            };
            family.inc_by(EventRouterLabels::of(seen), occurrences);
        }
    }
}

// === impl EventExporterLabels ===

impl EventExporterLabels {
    /// None for what event_exporter's default filter leaves out, and for what cannot be read.
    fn of(seen: &EventSeen) -> Option<Self> {
        if !seen.r#type.eq_ignore_ascii_case("Warning") {
            return None;
        }
        let event = Event::parse(std::str::from_utf8(&seen.raw).ok()?).ok()?;
        Some(Self {
            name: event.metadata.name.to_string(),
            namespace: seen.namespace.to_string(),
            involved_object_namespace: seen.object_namespace.to_string(),
            involved_object_name: seen.object.to_string(),
            involved_object_kind: seen.kind.to_string(),
            reason: seen.reason.to_string(),
            r#type: seen.r#type.to_string(),
            source: format!("{}/{}", event.source.host, event.source.component),
        })
    }

    fn overflow() -> Self {
        let other = || OVERFLOW.to_owned();
        Self {
            name: other(),
            namespace: other(),
            involved_object_namespace: other(),
            involved_object_name: other(),
            involved_object_kind: other(),
            reason: other(),
            r#type: other(),
            source: other(),
        }
    }
}

// === impl EventRouterLabels ===

impl EventRouterLabels {
    fn of(seen: &EventSeen) -> Self {
        Self {
            involved_object_kind: seen.kind.to_string(),
            involved_object_name: seen.object.to_string(),
            involved_object_namespace: seen.object_namespace.to_string(),
            reason: seen.reason.to_string(),
            source: seen.node.to_string(),
        }
    }

    fn overflow() -> Self {
        let other = || OVERFLOW.to_owned();
        Self {
            involved_object_kind: other(),
            involved_object_name: other(),
            involved_object_namespace: other(),
            reason: other(),
            source: other(),
        }
    }
}

// === impl EventExporterCounters ===

impl EventExporterCounters {
    /// As text. OpenMetrics has no counter without `_total`: there the type is unknown and the name stays, as upstream.
    pub fn expose(&self, open_metrics: bool) -> String {
        let counters = [
            ("events_sent", "The total number of events processed", self.events_sent.get()),
            (
                "events_discarded",
                "The total number of events discarded because of being older than the maxEventAgeSeconds specified",
                // Age is never a reason to drop one.
                0,
            ),
            (
                "watch_errors",
                "The total number of errors received from the informer",
                self.watch_errors.get(),
            ),
            ("send_event_errors", "The total number of send event errors", self.send_event_errors.get()),
            (
                "kube_api_read_cache_hits",
                "The total number of read requests served from cache when looking up object metadata",
                0,
            ),
            (
                "kube_api_read_cache_misses",
                "The total number of read requests served from kube-apiserver when looking up object metadata",
                // What is known of an object comes with the records: nothing is ever asked for.
                0,
            ),
        ];
        let kind = if open_metrics { "unknown" } else { "counter" };
        let mut text = String::new();
        for (name, help, value) in counters {
            let name = format!("{}{name}", self.prefix);
            // Writing to a String cannot fail.
            let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n");
        }
        text
    }
}
