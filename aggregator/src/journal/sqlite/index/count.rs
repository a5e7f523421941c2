//! How many records a plan lets through, by a facet's value and span of time.

use std::collections::HashMap;

use super::CHUNK;
use super::builder::UNREADABLE;
use super::plan::Plan;
use super::search::{Chunk, Interrupted, Scratch, Segment};
use super::term::Facet;
use crate::history::query::{Count, CountBy, Mark};
use crate::journal::Position;

/// Most counts at one time: values times spans. What comes beyond is refused.
const MOST: usize = 1_000_000;

/// The counts so far.
#[derive(Debug)]
pub(in super::super) struct Counts {
    facet: Option<Facet>,
    step_ns: Option<i64>,
    top: usize,
    by: HashMap<String, HashMap<i64, Number>>,
    size: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Number {
    records: u64,
    occurrences: u64,
}

/// There are more values and spans than are counted at one time.
#[derive(Debug)]
pub(in super::super) struct TooMany;

// === impl Counts ===

impl Counts {
    pub(in super::super) fn new(by: &CountBy) -> Self {
        let step = by.step.map(|step| i64::try_from(step.as_nanos()).unwrap_or(i64::MAX).max(1));
        Self { facet: by.field.map(Facet::of), step_ns: step, top: by.top, by: HashMap::new(), size: 0 }
    }

    /// The facet that is counted by.
    pub(in super::super) fn facet(&self) -> Option<Facet> {
        self.facet
    }

    /// Counts one record.
    pub(in super::super) fn add(&mut self, value: &str, time_ns: i64, occurrences: u64) {
        let from_ns = self.step_ns.map_or(0, |step| time_ns.div_euclid(step).saturating_mul(step));
        if !self.by.contains_key(value) {
            self.by.insert(value.to_owned(), HashMap::new());
        }
        let Some(spans) = self.by.get_mut(value) else { return };
        let before = spans.len();
        let number = spans.entry(from_ns).or_default();
        number.records += 1;
        number.occurrences = number.occurrences.saturating_add(occurrences);
        self.size += spans.len() - before;
    }

    pub(in super::super) fn check(&self) -> Result<(), TooMany> {
        if self.size > MOST { Err(TooMany) } else { Ok(()) }
    }

    /// By value, most records first, then by time.
    pub(in super::super) fn into_counts(self) -> Vec<Count> {
        let mut values: Vec<_> = self
            .by
            .into_iter()
            .map(|(value, spans)| {
                let records: u64 = spans.values().map(|number| number.records).sum();
                let mut spans: Vec<_> = spans.into_iter().collect();
                spans.sort_by_key(|(from_ns, _)| *from_ns);
                (records, value, spans)
            })
            .collect();
        values.sort_by(|left, right| right.0.cmp(&left.0).then_with(|| left.1.cmp(&right.1)));
        if self.top > 0 {
            values.truncate(self.top);
        }
        let counts = values.into_iter().flat_map(|(_, value, spans)| {
            spans.into_iter().map(move |(from_ns, Number { records, occurrences })| Count {
                value: value.clone(),
                from_ns,
                records,
                occurrences,
            })
        });
        counts.collect()
    }
}

/// Adds what a segment has.
pub(in super::super) fn count(
    segment: &mut impl Segment,
    plan: &Plan,
    scratch: &mut Scratch,
    counts: &mut Counts,
) -> Result<(), Interrupted> {
    if plan.within.is_late() {
        return Err(Interrupted::Late);
    }
    let (min_ns, max_ns) = segment.range();
    if !plan.within.reaches(min_ns, max_ns) {
        return Ok(());
    }
    let Scratch { bits, group, chunk } = scratch;
    if !plan.select(segment, bits, group)? {
        return Ok(());
    }
    let mut whole = Chunk::default();
    for index in 0..segment.len().div_ceil(CHUNK) {
        segment.chunk(index, chunk)?;
        whole.times.append(&mut chunk.times);
        whole.occurrences.append(&mut chunk.occurrences);
    }
    let facet = counts.facet();
    let Chunk { times, occurrences } = &whole;
    let mut tally = |value: &str, offset: u16| {
        let Some(time_ns) = times.get(usize::from(offset)).copied() else { return };
        if time_ns == UNREADABLE || !plan.within.has(Mark { time_ns, position: Position(0) }) {
            return;
        }
        let at = occurrences.binary_search_by_key(&offset, |(offset, _)| *offset);
        let number = at.ok().and_then(|at| occurrences.get(at)).map_or(1, |(_, number)| *number);
        counts.add(value, time_ns, number);
    };
    if let Some(facet) = facet {
        segment.values(facet, &mut |value, offsets| {
            let value = String::from_utf8_lossy(value);
            for offset in offsets {
                if bits.take(*offset) {
                    tally(&value, *offset);
                }
            }
        })?;
    }
    for offset in bits.offsets(0, times.len().next_multiple_of(64)) {
        tally("", offset);
    }
    Ok(())
}
