//! How many records a plan lets through, by a facet's value and span of time.

use std::collections::HashMap;

use super::CHUNK;
use super::builder::UNREADABLE;
use super::plan::Plan;
use super::search::{Chunk, Interrupted, Scratch, Segment};
use super::term::Facet;
use crate::history::query::{Count, CountBy, Mark};
use crate::journal::Position;

/// Most memory of the counts of one question: about a hundred thousand names of pods. What comes beyond is refused. Two questions
/// are answered at one time.
const MOST_BYTES: usize = 16 << 20;

/// What the system's allocator keeps beside a name.
const BESIDE: usize = 16;

/// The counts so far.
#[derive(Debug)]
pub(in super::super) struct Counts {
    facet: Option<Facet>,
    step_ns: Option<i64>,
    top: usize,
    /// Each value's number.
    values: HashMap<Box<str>, u32>,
    /// By the value's number, and the beginning of the span.
    numbers: HashMap<(u32, i64), Number>,
    /// Of the values' names.
    bytes: usize,
    /// Something found no room.
    is_full: bool,
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
        Self {
            facet: by.field.map(Facet::of),
            step_ns: step,
            top: by.top,
            values: HashMap::new(),
            numbers: HashMap::new(),
            bytes: 0,
            is_full: false,
        }
    }

    /// The facet that is counted by.
    pub(in super::super) fn facet(&self) -> Option<Facet> {
        self.facet
    }

    /// Counts one record.
    pub(in super::super) fn add(&mut self, value: &str, time_ns: i64, occurrences: u64) {
        let from_ns = self.step_ns.map_or(0, |step| time_ns.div_euclid(step).saturating_mul(step));
        let known = self.values.get(value).copied();
        let key = known.map(|value| (value, from_ns)).filter(|key| self.numbers.contains_key(key));
        let key = match key {
            Some(key) => key,
            // A table that grows is there twice for a moment.
            None if self.size() + self.growth() + value.len() + BESIDE > MOST_BYTES => {
                self.is_full = true;
                return;
            }
            None => (known.unwrap_or_else(|| self.value(value)), from_ns),
        };
        let number = self.numbers.entry(key).or_default();
        number.records += 1;
        number.occurrences = number.occurrences.saturating_add(occurrences);
    }

    /// Gives a value a number.
    fn value(&mut self, value: &str) -> u32 {
        let number = u32::try_from(self.values.len()).unwrap_or(u32::MAX);
        self.values.insert(value.into(), number);
        self.bytes += value.len() + BESIDE;
        number
    }

    fn size(&self) -> usize {
        self.bytes + table(&self.values) + table(&self.numbers)
    }

    /// What one more can take at most.
    fn growth(&self) -> usize {
        let grows =
            |length: usize, capacity: usize, size: usize| if length == capacity { 2 * size } else { 0 };
        grows(self.values.len(), self.values.capacity(), table(&self.values))
            + grows(self.numbers.len(), self.numbers.capacity(), table(&self.numbers))
    }

    pub(in super::super) fn check(&self) -> Result<(), TooMany> {
        if self.is_full { Err(TooMany) } else { Ok(()) }
    }

    /// By value, most records first, then by time.
    pub(in super::super) fn into_counts(self) -> Vec<Count> {
        let Self { top, values, numbers, .. } = self;
        let mut records = vec![0_u64; values.len()];
        for ((value, _), number) in &numbers {
            if let Some(records) = records.get_mut(*value as usize) {
                *records += number.records;
            }
        }
        let records_of = |value: u32| records.get(value as usize).copied().unwrap_or_default();
        let mut values: Vec<_> = values.into_iter().collect();
        values.sort_by(|left, right| {
            records_of(right.1).cmp(&records_of(left.1)).then_with(|| left.0.cmp(&right.0))
        });
        if top > 0 {
            values.truncate(top);
        }
        let places: HashMap<u32, usize> =
            values.iter().enumerate().map(|(place, (_, value))| (*value, place)).collect();
        let mut spans: Vec<_> = numbers
            .into_iter()
            .filter_map(|((value, from_ns), number)| Some((*places.get(&value)?, from_ns, number)))
            .collect();
        spans.sort_unstable_by_key(|(place, from_ns, _)| (*place, *from_ns));
        let count = |(place, from_ns, Number { records, occurrences }): (usize, i64, Number)| {
            let (value, _) = values.get(place)?;
            Some(Count { value: value.to_string(), from_ns, records, occurrences })
        };
        spans.into_iter().filter_map(count).collect()
    }
}

/// What a table takes: room for an eighth more than it may hold, and a byte each.
fn table<K, V>(table: &HashMap<K, V>) -> usize {
    table.capacity() / 7 * 8 * (size_of::<(K, V)>() + 1)
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
        // A record has several owners at times, and counts for each.
        group.clear();
        segment.values(facet, &mut |value, offsets| {
            let value = String::from_utf8_lossy(value);
            for offset in offsets {
                if bits.has(*offset) {
                    group.set(*offset);
                    tally(&value, *offset);
                }
            }
        })?;
        bits.remove(group);
    }
    for offset in bits.offsets(0, times.len().next_multiple_of(64)) {
        tally("", offset);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::history::query::Field;

    #[test]
    fn counts_beyond_their_memory_are_refused_and_take_no_more_of_it() {
        for (step, name) in [(None, 20), (None, 253), (Some(Duration::from_secs(1)), 20)] {
            let mut counts = Counts::new(&CountBy { field: Some(Field::Object), step, top: 10 });
            let mut known = 0_u64;
            for number in 0..1_000_000_u64 {
                let value = format!("{:0name$}", if step.is_some() { number / 100 } else { number });
                counts.add(&value, (number * 1_000_000_000).cast_signed(), 1);
                assert!(counts.size() <= MOST_BYTES, "{} bytes", counts.size());
                known += u64::from(counts.check().is_ok());
            }
            assert!(counts.check().is_err());
            assert!(known >= 30_000, "{known} of names of {name} bytes");
        }
    }

    #[test]
    fn counts_are_by_value_with_the_most_records_first_and_then_by_time() {
        let by = CountBy { field: Some(Field::Reason), step: Some(Duration::from_nanos(10)), top: 2 };
        let mut counts = Counts::new(&by);
        for (value, time_ns, occurrences) in
            [("b", 25, 1), ("a", 5, 2), ("b", 1, 7), ("c", 1, 1), ("c", 2, 1), ("b", 29, 1), ("", 1, 1)]
        {
            counts.add(value, time_ns, occurrences);
        }
        let found: Vec<_> = counts
            .into_counts()
            .into_iter()
            .map(|count| (count.value, count.from_ns, count.records, count.occurrences))
            .collect();
        assert_eq!(found, [("b".into(), 0, 1, 7), ("b".into(), 20, 2, 2), ("c".into(), 0, 2, 2)]);
    }
}
