//! The newest records that a plan lets through, over segments.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::CHUNK;
use super::bits::Bits;
use super::builder::UNREADABLE;
use super::plan::Plan;
use super::term::Facet;
use crate::history::query::Mark;
use crate::journal::Position;

/// A segment that can be asked, in memory or in a file.
pub(in super::super) trait Segment {
    /// Its first position.
    fn first(&self) -> u64;

    /// Offsets that it has.
    fn len(&self) -> usize;

    /// When its first and last record happened.
    fn range(&self) -> (i64, i64);

    /// Adds the records that have a term.
    fn exact(&mut self, term: &[u8], bits: &mut Bits) -> Result<(), rusqlite::Error>;

    /// Adds the records that have a term that begins so.
    fn beginning(&mut self, beginning: &[u8], bits: &mut Bits) -> Result<(), rusqlite::Error>;

    /// Tells each value of a facet, and which records have it.
    fn values(&mut self, facet: Facet, tell: &mut dyn FnMut(&[u8], &[u16])) -> Result<(), rusqlite::Error>;

    /// When the first and last record of a chunk happened, or within which times at least.
    fn chunk_range(&mut self, index: usize) -> Result<(i64, i64), rusqlite::Error>;

    /// Reads a chunk.
    fn chunk(&mut self, index: usize, chunk: &mut Chunk) -> Result<(), rusqlite::Error>;
}

/// When records that follow one another happened, and how often.
#[derive(Debug, Default)]
pub(in super::super) struct Chunk {
    pub(in super::super) times: Vec<i64>,
    /// Where it is not once, by offset in the segment.
    pub(in super::super) occurrences: Vec<(u16, u64)>,
}

/// The newest so far.
#[derive(Debug)]
pub(in super::super) struct Top {
    limit: usize,
    heap: BinaryHeap<Reverse<Mark>>,
}

/// What a search over segments needs again and again.
#[derive(Debug)]
pub(in super::super) struct Scratch {
    pub(in super::super) bits: Bits,
    pub(in super::super) group: Bits,
    pub(in super::super) chunk: Chunk,
}

/// It took longer than it may.
#[derive(Debug)]
pub(in super::super) enum Interrupted {
    Late,
    Failed(rusqlite::Error),
}

// === impl Top ===

impl Top {
    pub(in super::super) fn new(limit: usize) -> Self {
        Self { limit, heap: BinaryHeap::new() }
    }

    /// Whether a record that happened no later than this could be among them.
    pub(in super::super) fn admits(&self, max_ns: i64) -> bool {
        self.heap.len() < self.limit || self.heap.peek().is_some_and(|Reverse(last)| max_ns >= last.time_ns)
    }

    pub(in super::super) fn push(&mut self, mark: Mark) {
        if self.heap.len() < self.limit {
            self.heap.push(Reverse(mark));
        } else if let Some(mut last) = self.heap.peek_mut()
            && mark > last.0
        {
            last.0 = mark;
        }
    }

    /// Newest first.
    pub(in super::super) fn into_marks(self) -> Vec<Mark> {
        self.heap.into_sorted_vec().into_iter().map(|Reverse(mark)| mark).collect()
    }
}

// === impl Scratch ===

impl Scratch {
    pub(in super::super) fn new() -> Self {
        Self { bits: Bits::none(), group: Bits::none(), chunk: Chunk::default() }
    }
}

// === impl Interrupted ===

impl From<rusqlite::Error> for Interrupted {
    fn from(error: rusqlite::Error) -> Self {
        Self::Failed(error)
    }
}

/// Adds what a segment has.
pub(in super::super) fn search(
    segment: &mut impl Segment,
    plan: &Plan,
    scratch: &mut Scratch,
    top: &mut Top,
) -> Result<(), Interrupted> {
    if plan.within.is_late() {
        return Err(Interrupted::Late);
    }
    let (min_ns, max_ns) = segment.range();
    if !plan.within.reaches(min_ns, max_ns) || !top.admits(max_ns) {
        return Ok(());
    }
    let Scratch { bits, group, chunk } = scratch;
    if !plan.select(segment, bits, group)? {
        return Ok(());
    }
    let first = segment.first();
    for index in (0..segment.len().div_ceil(CHUNK)).rev() {
        let (from, to) = (index * CHUNK, (index + 1) * CHUNK);
        if bits.offsets(from, to).next().is_none() {
            continue;
        }
        let (min_ns, max_ns) = segment.chunk_range(index)?;
        if !plan.within.reaches(min_ns, max_ns) || !top.admits(max_ns) {
            continue;
        }
        segment.chunk(index, chunk)?;
        for offset in bits.offsets(from, to) {
            let Some(time_ns) = chunk.times.get(usize::from(offset) - from).copied() else { break };
            let mark = Mark { time_ns, position: Position(first + u64::from(offset)) };
            if time_ns != UNREADABLE && plan.within.has(mark) {
                top.push(mark);
            }
        }
        if plan.within.is_late() {
            return Err(Interrupted::Late);
        }
    }
    Ok(())
}
