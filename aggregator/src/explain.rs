//! Writes the sentence of each death as it is journalled, from what events have told about the same pod.
//!
//! Only the events that say why a container was stopped are remembered, a moment of each, so that a death that comes seconds
//! after its cause finds it. What was forgotten, or came later than the death, leaves the sentence with less in it, not wrong.

use std::collections::HashMap;

use nodetap_wire::event::{Event, Outline};
use nodetap_wire::explain::{PodEvent, Related, explain};
use nodetap_wire::{ContainerDied, EventSeen};

/// Events about pods that say why a container ended. Sources: `pkg/kubelet/events/event.go`, the scheduler, the eviction
/// controllers.
const REASONS: [&str; 8] = [
    "Killing",
    "Unhealthy",
    "Evicted",
    "Preempting",
    "Preempted",
    "TaintManagerEviction",
    "DeadlineExceeded",
    "NodeShutdown",
];

/// The event about a node whose kernel killed for want of memory outside of any limit.
const SYSTEM_OOM: &str = "SystemOOM";

/// Events of one pod: a probe's failures and a kill for each of its containers. Past this the oldest goes.
const EVENTS: usize = 16;

/// Longest message that is remembered, in bytes: what a sentence quotes is shorter.
const MESSAGE_BYTES: usize = 1_024;

/// Nodes whose last lack of memory is remembered: more than have one within seconds of each other.
const NODES: usize = 1_024;

/// How much is remembered of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Most bytes.
    pub bytes: usize,
}

/// Explains deaths. What it has learnt least recently goes first, by halves.
#[derive(Debug, Default)]
pub struct Explainer {
    bounds: Bounds,
    young: HashMap<String, Vec<PodEvent>>,
    young_bytes: usize,
    old: HashMap<String, Vec<PodEvent>>,
    /// When a node was out of memory last, in nanoseconds since 1970.
    system_oom: HashMap<String, i64>,
}

// === impl Bounds ===

impl Default for Bounds {
    /// Room for about 20,000 pods that have just been stopped.
    fn default() -> Self {
        Self { bytes: 8 << 20 }
    }
}

// === impl Explainer ===

impl Explainer {
    /// Knows nothing yet.
    pub fn new(bounds: Bounds) -> Self {
        Self { bounds, ..Self::default() }
    }

    /// Remembers what an event tells about a pod, where it may explain a death. `outline`: what was read of its JSON before.
    pub fn learn(&mut self, event: &EventSeen, outline: Option<&Outline>) {
        if event.kind == "Node" && event.reason == SYSTEM_OOM {
            return self.out_of_memory(&event.object, event.time_ns);
        }
        if event.kind != "Pod" || event.object_uid.is_empty() || !REASONS.contains(&&*event.reason) {
            return;
        }
        let Some(event_of_pod) = pod_event(event, outline) else { return };
        let uid = &*event.object_uid;
        if !self.young.contains_key(uid) {
            let events = self.old.remove(uid).unwrap_or_default();
            let bytes = weight(uid, &events);
            if self.young_bytes + bytes > self.bounds.bytes / 2 {
                self.old = std::mem::take(&mut self.young);
                self.young_bytes = 0;
            }
            self.young_bytes += bytes;
            self.young.insert(uid.to_owned(), events);
        }
        let Some(events) = self.young.get_mut(uid) else { return };
        self.young_bytes = self.young_bytes.saturating_sub(weight(uid, events));
        put(events, event_of_pod);
        self.young_bytes += weight(uid, events);
    }

    /// The death with its explanation.
    pub fn explained(&self, death: &ContainerDied) -> ContainerDied {
        let uid = death.pod_uid.as_str();
        let pod = self.young.get(uid).or_else(|| self.old.get(uid)).map_or(&[][..], Vec::as_slice);
        let system_oom_ns = self.system_oom.get(&death.node).copied().unwrap_or(0);
        ContainerDied { explanation: explain(death, Related { pod, system_oom_ns }), ..death.clone() }
    }

    /// How many pods are remembered.
    pub fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn out_of_memory(&mut self, node: &str, time_ns: i64) {
        if self.system_oom.len() >= NODES && !self.system_oom.contains_key(node) {
            let oldest = self.system_oom.iter().min_by_key(|(_, time_ns)| **time_ns);
            if let Some(node) = oldest.map(|(node, _)| node.clone()) {
                self.system_oom.remove(&node);
            }
        }
        let last = self.system_oom.entry(node.to_owned()).or_default();
        *last = time_ns.max(*last);
    }
}

/// What is remembered of an event; `None` where it cannot be read.
fn pod_event(event: &EventSeen, outline: Option<&Outline>) -> Option<PodEvent> {
    let told = Event::read(&event.raw, outline).ok()?;
    let message = &*told.message;
    let mut end = message.len().min(MESSAGE_BYTES);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    Some(PodEvent {
        reason: event.reason.to_string(),
        container: container_of(&told.involved_object.field_path).to_owned(),
        message: message[..end].to_owned(),
        time_ns: event.time_ns,
    })
}

/// The container that a `fieldPath` names, as in `spec.initContainers{prepare}`; empty: none.
fn container_of(field_path: &str) -> &str {
    field_path.split_once('{').and_then(|(_, rest)| rest.strip_suffix('}')).unwrap_or("")
}

/// Adds an event; of those that tell the same, which the kubelet counts up, the last stays.
fn put(events: &mut Vec<PodEvent>, event: PodEvent) {
    let tells_the_same = |other: &PodEvent| {
        other.reason == event.reason
            && other.container == event.container
            && other.message.split(':').next() == event.message.split(':').next()
    };
    if let Some(same) = events.iter_mut().find(|other| tells_the_same(other)) {
        if event.time_ns >= same.time_ns {
            *same = event;
        }
        return;
    }
    if events.len() >= EVENTS {
        let oldest = events.iter().enumerate().min_by_key(|(_, event)| event.time_ns).map(|(index, _)| index);
        if let Some(index) = oldest {
            events.swap_remove(index);
        }
    }
    events.push(event);
}

/// Bytes in memory, about.
fn weight(uid: &str, events: &[PodEvent]) -> usize {
    let each = |event: &PodEvent| 96 + event.reason.len() + event.container.len() + event.message.len();
    96 + uid.len() + events.iter().map(each).sum::<usize>()
}

#[cfg(test)]
mod tests;
