//! The terms of a segment that grows, each with the records that have it.
//!
//! Most terms occur in one record, a few in nearly all: a term's first record lies beside it, the others in runs that are chained.
//! Terms and runs lie one after another in a few large allocations, so that a million of them are made and let go of at once.

use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

/// Offsets in one run: it takes half a cache line.
const RUN: usize = 13;

/// More than there are facets.
const FACETS: usize = 16;

/// No run.
const NONE: u32 = u32::MAX;

/// Past this many bytes a segment takes no further record; two are in memory at most, and one that is made anew. One record adds a few MiB at most, so that places of 32 bits do.
const MOST_BYTES: usize = 32 << 20;

/// Terms by their bytes. Who writes events chooses them: the hash has a seed of its own in each segment.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct Terms {
    hasher: RandomState,
    table: HashTable<u32>,
    /// All terms, one after another.
    bytes: Vec<u8>,
    terms: Vec<Term>,
    runs: Vec<Run>,
    /// The last term of each facet, by the lowest bits of its first byte: most facets of a record are as those of the record before,
    /// and need not be looked for.
    last: [u32; FACETS],
}

#[derive(Clone, Copy, Debug)]
struct Term {
    start: u32,
    length: u16,
    first: u16,
    last: u16,
    head: u32,
    tail: u32,
}

#[derive(Clone, Copy, Debug)]
struct Run {
    offsets: [u16; RUN],
    length: u16,
    next: u32,
}

// === impl Terms ===

impl Terms {
    /// Notes that a record has a term. Records come in order, and may say so again.
    pub(in super::super) fn add(&mut self, term: &[u8], offset: u16) {
        let Self { hasher, table, bytes, terms, runs, last } = self;
        let last = &mut last[usize::from(term.first().copied().unwrap_or_default()) % FACETS];
        if let Some(known) = terms.get_mut(*last as usize)
            && known.of(bytes) == term
        {
            known.push(offset, runs);
            return;
        }
        let hash = hasher.hash_one(term);
        let is_it = |index: &u32| terms.get(*index as usize).is_some_and(|known| known.of(bytes) == term);
        if let Some(index) = table.find(hash, is_it) {
            *last = *index;
            if let Some(known) = terms.get_mut(*index as usize) {
                known.push(offset, runs);
            }
            return;
        }
        let (Ok(index), Ok(start), Ok(length)) =
            (u32::try_from(terms.len()), u32::try_from(bytes.len()), u16::try_from(term.len()))
        else {
            return;
        };
        *last = index;
        bytes.extend_from_slice(term);
        terms.push(Term { start, length, first: offset, last: offset, head: NONE, tail: NONE });
        table.insert_unique(hash, index, |index| {
            hasher.hash_one(terms.get(*index as usize).map_or(&[][..], |known| known.of(bytes)))
        });
    }

    /// Whether it takes no further record.
    pub(in super::super) fn is_full(&self) -> bool {
        self.bytes.len()
            + self.terms.len() * (size_of::<Term>() + size_of::<u64>())
            + self.runs.len() * size_of::<Run>()
            > MOST_BYTES
    }

    /// Tells the records of a term, in order.
    pub(in super::super) fn each_of(&self, term: &[u8], tell: impl FnMut(u16)) {
        let found = self.table.find(self.hasher.hash_one(term), |index| {
            self.terms.get(*index as usize).is_some_and(|known| known.of(&self.bytes) == term)
        });
        if let Some(known) = found.and_then(|index| self.terms.get(*index as usize)) {
            known.each(&self.runs, tell);
        }
    }

    /// Tells all terms that begin so, and their records, in no order.
    pub(in super::super) fn each_beginning(&self, beginning: &[u8], mut tell: impl FnMut(&[u8], &[u16])) {
        let mut offsets = Vec::new();
        for known in self.terms.iter().filter(|known| known.of(&self.bytes).starts_with(beginning)) {
            offsets.clear();
            known.each(&self.runs, |offset| offsets.push(offset));
            tell(known.of(&self.bytes), &offsets);
        }
    }

    /// Tells all terms and their records, in the order of the terms.
    ///
    /// # Errors
    /// The first that `tell` has.
    pub(in super::super) fn try_each_sorted<'a, E>(
        &'a self,
        mut tell: impl FnMut(&'a [u8], &[u16]) -> Result<(), E>,
    ) -> Result<(), E> {
        // The first bytes decide nearly always, and lie beside each other.
        let mut sorted: Vec<_> =
            self.terms.iter().map(|known| (beginning(known.of(&self.bytes)), known)).collect();
        sorted.sort_unstable_by(|(left, one), (right, other)| {
            left.cmp(right).then_with(|| one.of(&self.bytes).cmp(other.of(&self.bytes)))
        });
        let mut offsets = Vec::new();
        for (_, known) in sorted {
            offsets.clear();
            known.each(&self.runs, |offset| offsets.push(offset));
            tell(known.of(&self.bytes), &offsets)?;
        }
        Ok(())
    }
}

/// The first bytes of a term, in an order that is theirs.
fn beginning(term: &[u8]) -> u128 {
    let mut bytes = [0; 16];
    let length = term.len().min(bytes.len());
    bytes[..length].copy_from_slice(&term[..length]);
    u128::from_be_bytes(bytes)
}

// === impl Term ===

impl Term {
    fn of<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        let start = self.start as usize;
        bytes.get(start..start + usize::from(self.length)).unwrap_or_default()
    }

    fn push(&mut self, offset: u16, runs: &mut Vec<Run>) {
        if self.last == offset {
            return;
        }
        self.last = offset;
        if let Some(run) = runs.get_mut(self.tail as usize)
            && let Some(place) = run.offsets.get_mut(usize::from(run.length))
        {
            *place = offset;
            run.length += 1;
            return;
        }
        let Ok(next) = u32::try_from(runs.len()) else { return };
        let mut run = Run { offsets: [0; RUN], length: 1, next: NONE };
        run.offsets[0] = offset;
        match runs.get_mut(self.tail as usize) {
            Some(tail) => tail.next = next,
            None => self.head = next,
        }
        self.tail = next;
        runs.push(run);
    }

    fn each(&self, runs: &[Run], mut tell: impl FnMut(u16)) {
        tell(self.first);
        let mut next = self.head;
        while let Some(run) = runs.get(next as usize) {
            run.offsets.iter().take(usize::from(run.length)).for_each(|offset| tell(*offset));
            next = run.next;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::convert::Infallible;

    use super::*;

    #[test]
    fn each_term_has_its_records_in_order_however_many_there_are() {
        let mut terms = Terms::default();
        let mut expected = BTreeMap::<Vec<u8>, Vec<u16>>::new();
        for offset in 0..5_000_u16 {
            let of_record = [
                b"in all".to_vec(),
                format!("one of some {}", offset % 37).into_bytes(),
                format!("alone {offset}").into_bytes(),
            ];
            for term in of_record {
                terms.add(&term, offset);
                terms.add(&term, offset);
                expected.entry(term).or_default().push(offset);
            }
        }
        let mut sorted = Vec::new();
        let told: Result<(), Infallible> = terms.try_each_sorted(|term, offsets| {
            sorted.push((term.to_vec(), offsets.to_vec()));
            Ok(())
        });
        assert_eq!(told, Ok(()));
        assert_eq!(sorted, expected.clone().into_iter().collect::<Vec<_>>());
        for (term, offsets) in &expected {
            let mut found = Vec::new();
            terms.each_of(term, |offset| found.push(offset));
            assert_eq!(&found, offsets);
        }
        terms.each_of(b"none", |_| panic!("nothing has it"));
        let mut begun = 0;
        terms.each_beginning(b"one of some 1", |_, offsets| begun += offsets.len());
        let begins = |(term, _): &(&Vec<u8>, &Vec<u16>)| term.starts_with(b"one of some 1");
        assert_eq!(begun, expected.iter().filter(begins).map(|(_, offsets)| offsets.len()).sum::<usize>());
    }

    #[test]
    fn terms_of_which_one_is_the_beginning_of_the_other_are_sorted_as_bytes_are() {
        let mut terms = Terms::default();
        let words: [&[u8]; 5] = [b"a\0", b"a", b"sixteen bytes it is", b"sixteen bytes it", b""];
        words.iter().for_each(|word| terms.add(word, 1));
        let mut sorted = Vec::new();
        let told: Result<(), Infallible> = terms.try_each_sorted(|term, _| {
            sorted.push(term);
            Ok(())
        });
        assert_eq!(told, Ok(()));
        let mut expected = words;
        expected.sort_unstable();
        assert_eq!(sorted, expected);
    }

    #[test]
    fn a_segment_of_long_terms_is_full_by_their_bytes() {
        let mut terms = Terms::default();
        let mut offset = 0;
        while !terms.is_full() {
            let term = [offset.to_string().into_bytes(), vec![b'x'; 60_000]].concat();
            terms.add(&term, offset);
            offset += 1;
        }
        assert!(usize::from(offset) * 60_000 >= MOST_BYTES - 65_536);
    }
}
