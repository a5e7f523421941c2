//! Routes each record once for all sinks.
//!
//! Whoever of the sinks comes to an entry first parses it, decides who gets it and, where one of those takes records as they
//! are, renders it. The others, close behind as a rule, find that here. A sink that is far behind reads, and routes, for itself:
//! what is kept is bounded, and the newest of it.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use nodetap_wire::SharedStr;
use nodetap_wire::event::EventError;
use nodetap_wire::face::Face;

use super::chunk::Chunk;
use super::encode;
use crate::journal::{Entry, Position};
use crate::route::Router;
use crate::route::tree::ReceiverIndex;

/// Entries kept: eight chunks of what a sink reads at once.
const ENTRIES: usize = 4096;
/// Bytes of rendered bodies kept.
const BYTES: usize = 8 << 20;

/// Who gets a record.
#[derive(Debug)]
pub struct Routed {
    /// The record's identity.
    pub id: SharedStr,
    /// Whom it is about.
    pub object: SharedStr,
    /// When it happened, in nanoseconds since 1970; 0: not known.
    pub time_ns: i64,
    /// Its JSON as it is, where a receiver of it takes that.
    pub plain: Option<Bytes>,
    receivers: Vec<ReceiverIndex>,
}

/// Routes, and remembers.
#[derive(Debug)]
pub struct Dispatcher {
    router: Arc<Router>,
    cluster: Arc<str>,
    /// By receiver: takes records as they are.
    plain: Vec<bool>,
    /// None: there is nobody to share it with.
    recent: Option<Mutex<Recent>>,
}

/// A place for each of the newest entries, by position.
#[derive(Debug)]
struct Recent {
    places: Vec<Option<(Position, Arc<Routed>)>>,
    bytes: usize,
}

// === impl Dispatcher ===

impl Dispatcher {
    /// Routes to receivers, in the router's order, of which these take records as they are.
    pub fn new(router: Arc<Router>, cluster: Arc<str>, plain: Vec<bool>) -> Self {
        let recent = (plain.len() > 1)
            .then(|| Mutex::new(Recent { places: (0..ENTRIES).map(|_| None).collect(), bytes: 0 }));
        Self { router, cluster, plain, recent }
    }

    /// Says who gets an entry; and its face, where it had to be parsed for that. What is rendered goes into `chunk`.
    ///
    /// # Errors
    /// Where the journal's bytes are not the Event that was put there.
    pub fn route<'a>(
        &'a self,
        entry: &'a Entry,
        chunk: &mut Chunk,
    ) -> Result<(Arc<Routed>, Option<Face<'a>>), EventError> {
        if let Some(routed) = self.known(entry.position) {
            return Ok((routed, None));
        }
        let face = entry.face(&self.cluster)?;
        let receivers = self.router.deliveries(&face);
        let is_plain = |to: &ReceiverIndex| self.plain.get(to.0).copied().unwrap_or(false);
        // What cannot be written as JSON is each sink's own to say.
        let plain = receivers.iter().any(is_plain).then(|| encode::plain(&face, chunk).ok()).flatten();
        let routed = Arc::new(Routed {
            id: chunk.text(&face.id),
            object: chunk.text(face.object_key()),
            time_ns: face.time_ns,
            plain,
            receivers,
        });
        if let Some(recent) = &self.recent {
            let mut recent = recent.lock().unwrap_or_else(PoisonError::into_inner);
            recent.keep(entry.position, &routed);
        }
        Ok((routed, Some(face)))
    }

    /// The cluster's name, for faces.
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    fn known(&self, position: Position) -> Option<Arc<Routed>> {
        let recent = self.recent.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner);
        recent
            .places
            .get(place(position))?
            .as_ref()
            .filter(|(at, _)| *at == position)
            .map(|(_, routed)| routed.clone())
    }
}

// === impl Recent ===

impl Recent {
    /// Takes the place of an older entry. Of two sinks, one far behind, the one ahead keeps its own.
    fn keep(&mut self, position: Position, routed: &Arc<Routed>) {
        let Some(slot) = self.places.get_mut(place(position)) else { return };
        if slot.as_ref().is_some_and(|(at, _)| *at > position) {
            return;
        }
        if let Some((_, before)) = slot.take() {
            self.bytes -= before.bytes();
        }
        if self.bytes + routed.bytes() <= BYTES {
            self.bytes += routed.bytes();
            *slot = Some((position, routed.clone()));
        }
    }
}

#[allow(clippy::cast_possible_truncation, reason = "below 4096")]
fn place(position: Position) -> usize {
    (position.0 % ENTRIES as u64) as usize
}

// === impl Routed ===

impl Routed {
    /// How often a receiver gets it; mostly 0 or 1.
    pub fn copies(&self, receiver: usize) -> usize {
        self.receivers.iter().filter(|to| to.0 == receiver).count()
    }

    fn bytes(&self) -> usize {
        self.plain.as_ref().map_or(0, Bytes::len)
    }
}

#[cfg(test)]
mod tests;
