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
use crate::random::push_hex;

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
        let created = self.state.create(&mut self.first(occurrence))?;
        let Some(said) = said else { return Ok(created) };
        let mut cache = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.len() >= REMEMBERED {
            cache.clear();
        }
        cache.insert(said, created.key());
        Ok(created)
    }

    fn first(&self, occurrence: Occurrence) -> Event {
        let Occurrence { object, reason, message, kind, component, host, new_api } = occurrence;
        let namespace =
            if object.namespace.is_empty() { "default".to_owned() } else { object.namespace.clone() };
        let mut name = String::with_capacity(object.name.len() + 17);
        name.push_str(&object.name);
        name.push('.');
        push_hex(&mut name, self.state.random.next(), 16);
        let metadata = Metadata { name, namespace, ..Metadata::default() };
        let now = Timestamp::now();
        let mut event = Event {
            metadata,
            involved_object: object,
            reason,
            message,
            r#type: kind.to_owned(),
            ..Event::default()
        };
        if new_api {
            event.event_time = Some(micros(now));
            "Binding".clone_into(&mut event.action);
            event.reporting_instance =
                format!("{component}-{}", if host.is_empty() { "control-plane" } else { &host });
            event.reporting_component = component;
        } else {
            event.first_timestamp = Some(seconds(now));
            event.last_timestamp = Some(seconds(now));
            event.count = 1;
            event.reporting_instance.clone_from(&host);
            event.reporting_component.clone_from(&component);
            event.source = Source { component, host };
        }
        event.metadata.managed_fields = self.state.managed(&event.reporting_component, event.api_version());
        event
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
