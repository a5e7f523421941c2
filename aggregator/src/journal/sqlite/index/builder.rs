//! A segment that grows, in memory.

use std::borrow::Cow;

use foldhash::HashMap;
use nodetap_wire::ContainerDied;
use nodetap_wire::event::Event;
use serde::Deserialize;

use super::bits::Bits;
use super::search::{Chunk, Segment};
use super::term::{self, Buffers, Facet};
use super::terms::Terms;
use super::{CHUNK, SEGMENT};
use crate::journal::facets::Facets;
use crate::journal::sqlite::block::{Malformed, Stored};
use crate::journal::sqlite::hash;
use crate::journal::sqlite::log::Head;
use crate::journal::sqlite::memory::{Version, version_number};
use crate::journal::{Body, Entry};

/// When a record happened that cannot be read: it is found by nothing.
pub(in super::super) const UNREADABLE: i64 = i64::MIN;

/// What is known of the records of a segment so far.
#[derive(Debug)]
pub(in super::super) struct Builder {
    /// Of the file that it belongs to.
    pub(in super::super) generation: u64,
    /// Its first position.
    pub(in super::super) first: u64,
    pub(in super::super) times: Vec<i64>,
    /// Those that are not 1, by offset.
    pub(in super::super) occurrences: Vec<(u16, u64)>,
    pub(in super::super) terms: Terms,
    pub(in super::super) versions: Vec<Version>,
    /// The highest count above 1, by the hash of the Event's uid.
    pub(in super::super) recurrences: HashMap<u64, u64>,
    /// The blocks that hold it.
    pub(in super::super) blocks: Vec<Head>,
    pub(in super::super) min_ns: i64,
    pub(in super::super) max_ns: i64,
    /// It takes the place of one that was written, and is damaged.
    pub(in super::super) is_anew: bool,
    buffers: Buffers,
}

/// Of what is known of an object, its owners alone.
#[derive(Deserialize)]
struct Owners<'a> {
    #[serde(borrow, default, rename = "ownerReferences")]
    owners: Vec<Owner<'a>>,
}

#[derive(Deserialize)]
struct Owner<'a> {
    #[serde(borrow, default)]
    name: Cow<'a, str>,
}

// === impl Builder ===

impl Builder {
    pub(in super::super) fn new(generation: u64, first: u64) -> Self {
        Self {
            generation,
            first,
            times: Vec::new(),
            occurrences: Vec::new(),
            terms: Terms::default(),
            versions: Vec::new(),
            recurrences: HashMap::default(),
            blocks: Vec::new(),
            min_ns: i64::MAX,
            max_ns: i64::MIN,
            is_anew: false,
            buffers: Buffers::default(),
        }
    }

    /// The position that comes next.
    pub(in super::super) fn next(&self) -> u64 {
        self.first + self.times.len() as u64
    }

    pub(in super::super) fn is_empty(&self) -> bool {
        self.times.is_empty()
    }

    /// Whether a position lies beyond what it covers.
    pub(in super::super) fn is_full_for(&self, position: u64) -> bool {
        position >= self.first + SEGMENT || self.terms.is_full()
    }

    /// Adds a record, at or above the position that comes next. What lies between cannot be read.
    ///
    /// # Errors
    /// Where the record is none: its place is taken, and nothing finds it.
    pub(in super::super) fn add(&mut self, stored: &Stored<'_>) -> Result<(), Malformed> {
        let offset = self.place(stored.position)?;
        if stored.is_death {
            let death: ContainerDied = serde_json::from_slice(stored.body).map_err(|_| Malformed)?;
            self.add_facets(offset, stored.occurrences, &Facets::of_death(&death, stored.taken_ns));
            return Ok(());
        }
        let json = std::str::from_utf8(stored.body).map_err(|_| Malformed)?;
        let event = Event::parse(json).map_err(|_| Malformed)?;
        self.add_version(&event);
        let owners = match stored.facts {
            Some(facts) => serde_json::from_slice::<Owners<'_>>(facts).map_err(|_| Malformed)?.owners,
            None => Vec::new(),
        };
        let owners = owners.into_iter().map(|owner| owner.name).collect();
        self.add_facets(offset, stored.occurrences, &Facets::of_event(event, owners, stored.taken_ns));
        Ok(())
    }

    /// As [`add`](Self::add), of a record that was not packed yet when it was last seen.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub(in super::super) fn add_entry(&mut self, entry: &Entry) -> Result<(), Malformed> {
        let offset = self.place(entry.position.0)?;
        let facets = match &entry.body {
            Body::Event(json) => {
                let event = entry.event(json).map_err(|_| Malformed)?;
                self.add_version(&event);
                Facets::of_event(event, entry.owners(), entry.taken_ns)
            }
            Body::Death(death) => Facets::of_death(death, entry.taken_ns),
        };
        self.add_facets(offset, entry.occurrences, &facets);
        Ok(())
    }

    /// Takes the place of a position.
    fn place(&mut self, position: u64) -> Result<u16, Malformed> {
        let offset = u16::try_from(position - self.first).map_err(|_| Malformed)?;
        self.times.resize(usize::from(offset) + 1, UNREADABLE);
        Ok(offset)
    }

    fn add_version(&mut self, event: &Event<'_>) {
        let Some(number) = version_number(&event.metadata.resource_version) else { return };
        let uid = hash::of(&[&event.metadata.uid]);
        self.versions.push((number, uid));
        let count = event.occurrences();
        if count > 1 {
            let highest = self.recurrences.entry(uid).or_default();
            *highest = count.max(*highest);
        }
    }

    fn add_facets(&mut self, offset: u16, occurrences: u64, facets: &Facets<'_>) {
        if let Some(time) = self.times.last_mut() {
            *time = facets.time_ns;
        }
        self.min_ns = self.min_ns.min(facets.time_ns);
        self.max_ns = self.max_ns.max(facets.time_ns);
        if occurrences != 1 {
            self.occurrences.push((offset, occurrences));
        }
        let terms = &mut self.terms;
        term::each(facets, &mut self.buffers, |term| terms.add(term, offset));
    }
}

impl Segment for &Builder {
    fn first(&self) -> u64 {
        self.first
    }

    fn len(&self) -> usize {
        self.times.len()
    }

    fn range(&self) -> (i64, i64) {
        (self.min_ns, self.max_ns)
    }

    fn exact(&mut self, term: &[u8], bits: &mut Bits) -> Result<(), rusqlite::Error> {
        self.terms.each_of(term, |offset| bits.set(offset));
        Ok(())
    }

    fn beginning(&mut self, beginning: &[u8], bits: &mut Bits) -> Result<(), rusqlite::Error> {
        self.terms
            .each_beginning(beginning, |_, offsets| offsets.iter().for_each(|offset| bits.set(*offset)));
        Ok(())
    }

    fn values(&mut self, facet: Facet, tell: &mut dyn FnMut(&[u8], &[u16])) -> Result<(), rusqlite::Error> {
        self.terms
            .each_beginning(&[facet as u8], |term, offsets| tell(term.get(1..).unwrap_or_default(), offsets));
        Ok(())
    }

    fn chunk_range(&mut self, _: usize) -> Result<(i64, i64), rusqlite::Error> {
        Ok(self.range())
    }

    fn chunk(&mut self, index: usize, chunk: &mut Chunk) -> Result<(), rusqlite::Error> {
        let from = index * CHUNK;
        let to = (from + CHUNK).min(self.times.len());
        chunk.times.clear();
        chunk.times.extend_from_slice(self.times.get(from..to).unwrap_or_default());
        chunk.occurrences.clear();
        let within = self.occurrences.iter().filter(|(offset, _)| (from..to).contains(&usize::from(*offset)));
        chunk.occurrences.extend(within);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
