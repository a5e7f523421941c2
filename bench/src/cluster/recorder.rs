//! Event recorders as components have them: a repeat of what was said before grows the count of the event that said it.
//!
//! client-go/tools/record writes core/v1 (kubelet, controllers); client-go/tools/events writes events.k8s.io (scheduler),
//! where a repeat becomes a series.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;

use super::events::{Event, Metadata, Reference, Series, Source, micros, seconds};
use super::object::{Key, Object};
use super::state::State;
use super::status::Status;

/// Says what happened.
#[derive(Debug)]
pub struct Recorder {
    state: Arc<State>,
    said: Mutex<HashMap<String, Key>>,
    apart: AtomicBool,
}

/// Something that a component tells of an object.
#[derive(Clone, Debug, Default)]
pub struct Occurrence {
    /// What it is about. Its namespace is the event's; `default` where it has none.
    pub object: Reference,
    /// `reason`
    pub reason: String,
    /// `message`
    pub message: String,
    /// `Normal` or `Warning`.
    pub kind: &'static str,
    /// `source.component`, such as `kubelet`.
    pub component: String,
    /// `source.host`; empty: names none.
    pub host: String,
    /// Written through events.k8s.io.
    pub new_api: bool,
}

/// client-go/tools/record/events_cache.go, `maxLruCacheEntries`. Past it everything is forgotten at once.
const REMEMBERED: usize = 4096;

// === impl Recorder ===

impl Recorder {
    pub(crate) fn new(state: Arc<State>) -> Self {
        Self { state, said: Mutex::default(), apart: AtomicBool::new(false) }
    }

    /// While apart, a repeat becomes an event of its own, so that no state is overwritten before somebody could see it.
    pub fn keep_apart(&self, apart: bool) {
        self.apart.store(apart, Ordering::Relaxed);
    }

    /// Runs something that writes events; watches wake when it is done.
    pub fn together<T>(&self, run: impl FnOnce() -> T) -> T {
        self.state.together(run)
    }

    /// Writes an event, or counts one up.
    ///
    /// # Errors
    /// As the API server refuses it.
    pub fn record(&self, occurrence: Occurrence) -> Result<Arc<Object>, Status> {
        let said = (!self.apart.load(Ordering::Relaxed)).then(|| {
            let Occurrence { object, reason, message, component, host, .. } = &occurrence;
            let Reference { uid, name, field_path, .. } = object;
            format!("{component}|{host}|{uid}|{name}|{reason}|{message}|{field_path}")
        });
        let known = said
            .as_ref()
            .and_then(|said| self.said.lock().unwrap_or_else(PoisonError::into_inner).get(said).cloned());
        if let Some(key) = known {
            match self.state.update_event(&key, |event| repeat(event, occurrence.new_api)) {
                // It has expired: said anew.
                Err(status) if status.code == 404 => {}
                updated => return updated,
            }
        }
        let (event, manager) = self.first(occurrence);
        let namespace = event.metadata.namespace.clone();
        let created = self.state.create_event(&namespace, event, &manager)?;
        let Some(said) = said else { return Ok(created) };
        let mut cache = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.len() >= REMEMBERED {
            cache.clear();
        }
        cache.insert(said, created.key.clone());
        Ok(created)
    }

    fn first(&self, occurrence: Occurrence) -> (Event, String) {
        let Occurrence { object, reason, message, kind, component, host, new_api } = occurrence;
        let namespace =
            if object.namespace.is_empty() { "default".to_owned() } else { object.namespace.clone() };
        let metadata = Metadata {
            name: format!("{}.{:016x}", object.name, self.state.random.next()),
            namespace,
            ..Metadata::default()
        };
        let now = Timestamp::now();
        let manager = component.clone();
        let shared = Event {
            metadata,
            involved_object: object,
            reason,
            message,
            r#type: kind.to_owned(),
            reporting_component: component.clone(),
            ..Event::default()
        };
        let event = if new_api {
            Event {
                event_time: Some(micros(now)),
                action: "Binding".to_owned(),
                reporting_instance: format!(
                    "{component}-{}",
                    if host.is_empty() { "control-plane" } else { &host }
                ),
                ..shared
            }
        } else {
            Event {
                first_timestamp: Some(seconds(now)),
                last_timestamp: Some(seconds(now)),
                count: 1,
                reporting_instance: host.clone(),
                source: Source { component, host },
                ..shared
            }
        };
        (event, manager)
    }
}

fn repeat(event: &mut Event, new_api: bool) -> Result<(), Status> {
    let now = Timestamp::now();
    if new_api {
        let count = event.series.as_ref().map_or(1, |series| series.count) + 1;
        event.series = Some(Series { count, last_observed_time: Some(micros(now)) });
    } else {
        event.count += 1;
        event.last_timestamp = Some(seconds(now));
    }
    Ok(())
}
