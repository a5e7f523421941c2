//! The last entries, in memory, so that a sink that keeps up does not read the disk.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError, RwLock};

use nodetap_wire::face::Object;

use crate::journal::{Body, Entry, Position};

/// Most bytes held: about ten batches. What has gone from here is read from the disk.
const BYTES: usize = 8 << 20;

/// The last entries. Clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Recent(Arc<RwLock<Ring>>);

#[derive(Debug, Default)]
struct Ring {
    segments: VecDeque<Segment>,
    bytes: usize,
}

/// The entries of one batch, whose memory they share.
#[derive(Debug)]
struct Segment {
    entries: Arc<Batch>,
    bytes: usize,
}

/// Entries, each with its record's place in the batch that brought it.
pub(super) type Batch = Vec<(usize, Entry)>;

// === impl Recent ===

impl Recent {
    /// Adds the entries of a batch that took `bytes` in memory.
    pub(super) fn push(&self, entries: Arc<Batch>, bytes: usize) {
        let Some(first) = entries.first().map(|(_, entry)| entry.position.0) else { return };
        let mut ring = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if ring.last().is_some_and(|last| last + 1 != first) {
            ring.clear();
        }
        ring.bytes += bytes;
        ring.segments.push_back(Segment { entries, bytes });
        while ring.bytes > BYTES {
            let Some(gone) = ring.segments.pop_front() else { break };
            ring.bytes -= gone.bytes;
        }
    }

    /// The batches of the entries from one position to another, in order; `None` where not all of them are here.
    pub(super) fn batches(&self, first: u64, last: u64) -> Option<Vec<Arc<Batch>>> {
        let ring = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if first < ring.first()? || last > ring.last()? {
            return None;
        }
        let is_before =
            |segment: &Segment| segment.entries.last().is_none_or(|(_, entry)| entry.position.0 < first);
        let start = ring.segments.partition_point(is_before);
        let begins =
            |segment: &&Segment| segment.entries.first().is_some_and(|(_, entry)| entry.position.0 <= last);
        let batches = ring.segments.range(start..).take_while(begins);
        Some(batches.map(|segment| segment.entries.clone()).collect())
    }

    /// The entries after a position, at most so many and so many bytes; `None` where the disk has to be asked.
    pub(super) fn read(&self, after: Position, limit: usize, bytes: usize) -> Option<Vec<Entry>> {
        let ring = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if after.0 + 1 < ring.first()? || after.0 > ring.last()? {
            return None;
        }
        let start = ring
            .segments
            .partition_point(|segment| segment.entries.last().is_none_or(|(_, last)| last.position <= after));
        let mut left = bytes;
        let held: usize = ring.segments.range(start..).map(|segment| segment.entries.len()).sum();
        let mut entries = Vec::with_capacity(held.min(limit));
        let rest = ring.segments.range(start..).flat_map(|segment| segment.entries.iter());
        let rest = rest.map(|(_, entry)| entry);
        for entry in rest.skip_while(|entry| entry.position <= after).take(limit) {
            let size = size(entry);
            if size > left && !entries.is_empty() {
                break;
            }
            left = left.saturating_sub(size);
            entries.push(entry.clone());
        }
        Some(entries)
    }
}

// === impl Ring ===

impl Ring {
    fn first(&self) -> Option<u64> {
        Some(self.segments.front()?.entries.first()?.1.position.0)
    }

    fn last(&self) -> Option<u64> {
        Some(self.segments.back()?.entries.last()?.1.position.0)
    }

    fn clear(&mut self) {
        self.segments.clear();
        self.bytes = 0;
    }
}

/// About what an entry takes, in bytes.
fn size(entry: &Entry) -> usize {
    let body = match &entry.body {
        Body::Event(json) => json.len(),
        Body::Death(death) => {
            1_024
                + death.message.len()
                + death.last_lines.iter().map(|line| 32 + line.text.len()).sum::<usize>()
        }
    };
    body + entry.object.as_deref().map_or(0, object_size)
}

fn object_size(object: &Object) -> usize {
    let pairs = |(key, value): (&String, &String)| key.len() + value.len();
    object.labels.iter().map(pairs).sum::<usize>() + object.annotations.iter().map(pairs).sum::<usize>()
}

#[cfg(test)]
mod tests;
