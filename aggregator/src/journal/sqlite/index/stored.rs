//! A segment in its file: how it is written, and how it is asked.

use rusqlite::{Connection, params, params_from_iter};

use super::CHUNK;
use super::bits::Bits;
use super::builder::Builder;
use super::search::{Chunk, Segment};
use super::term::Facet;
use super::versions::{self, Blob};
use crate::journal::sqlite::block::{Malformed, Packed, Unpacker, compressor};
use crate::journal::sqlite::day::{signed, unsigned};
use crate::journal::sqlite::written::{is_written, malformed};
use crate::journal::sqlite::{hash, log, varint};

/// Where a blob of terms is closed, in bytes: it is read whole to find one of them, and some fit into a page.
const TERMS_BYTES: usize = 4 << 10;

/// More offsets than this are kept as one bit for each record of the segment.
const MOST_OFFSETS: usize = 8 << 10;

/// What a file says of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Meta {
    pub(in super::super) first: u64,
    pub(in super::super) last: u64,
    pub(in super::super) min_ns: i64,
    pub(in super::super) max_ns: i64,
    /// Blobs of terms.
    pub(in super::super) terms: u64,
}

/// The segments of a file.
#[derive(Debug, Default)]
pub(in super::super) struct Segments {
    /// In the order of their positions.
    pub(in super::super) metas: Vec<Meta>,
    pub(in super::super) ranges: Vec<versions::Range>,
    /// Positions before the last of them that none has: the first and the last, each time.
    pub(in super::super) holes: Vec<(u64, u64)>,
}

/// A segment, ready to be written.
#[derive(Debug)]
pub(in super::super) struct Encoded {
    pub(in super::super) generation: u64,
    pub(in super::super) meta: Meta,
    pub(in super::super) range: versions::Range,
    chunks: Vec<(i64, i64, Compressed)>,
    terms: Vec<(Vec<u8>, Compressed)>,
    versions: Vec<(u64, Compressed)>,
    /// The highest count above 1 by the hash of the Event's uid, in the order of the table.
    pub(in super::super) recurrences: Vec<(u64, u64)>,
    /// As [`Builder::is_anew`].
    pub(in super::super) is_anew: bool,
    /// Small blocks, packed anew together.
    pub(in super::super) merged: Vec<Merged>,
}

/// Blocks that take the place of those that begin within positions.
#[derive(Debug)]
pub(in super::super) struct Merged {
    pub(in super::super) first: u64,
    pub(in super::super) last: u64,
    pub(in super::super) blocks: Vec<Packed>,
}

#[derive(Debug)]
struct Compressed {
    bytes: usize,
    body: Vec<u8>,
}

/// A segment in a file that is open.
pub(in super::super) struct Stored<'a> {
    pub(in super::super) connection: &'a Connection,
    pub(in super::super) unpacker: &'a mut Unpacker,
    pub(in super::super) meta: Meta,
}

// === impl Encoded ===

impl Encoded {
    pub(in super::super) fn new(builder: &Builder, merged: Vec<Merged>) -> std::io::Result<Self> {
        let mut compressor = compressor()?;
        let mut compress =
            |raw: &[u8]| compressor.compress(raw).map(|body| Compressed { bytes: raw.len(), body });
        let mut chunks = Vec::new();
        for (index, times) in builder.times.chunks(CHUNK).enumerate() {
            let from = index * CHUNK;
            let occurrences = builder
                .occurrences
                .iter()
                .filter(|(offset, _)| (from..from + CHUNK).contains(&usize::from(*offset)));
            let known = || times.iter().copied().filter(|time| *time != super::builder::UNREADABLE);
            let (min_ns, max_ns) = (known().min().unwrap_or(i64::MAX), known().max().unwrap_or(i64::MIN));
            chunks.push((min_ns, max_ns, compress(&encode_chunk(from, times, occurrences))?));
        }
        let mut terms = Vec::new();
        let mut raw = Vec::with_capacity(2 * TERMS_BYTES);
        let mut first: &[u8] = &[];
        let mut before: &[u8] = &[];
        builder.terms.try_each_sorted(|term, offsets| {
            if raw.is_empty() {
                (first, before) = (term, &[]);
                varint::put(&mut raw, terms.len() as u64);
            }
            encode_term(&mut raw, before, term, offsets);
            before = term;
            if raw.len() >= TERMS_BYTES {
                terms.push((first.to_vec(), compress(&raw)?));
                raw.clear();
            }
            Ok::<_, std::io::Error>(())
        })?;
        if !raw.is_empty() {
            terms.push((first.to_vec(), compress(&raw)?));
        }
        let mut range = versions::Range {
            segment: builder.first,
            last: builder.next().saturating_sub(1),
            min: u64::MAX,
            max: 0,
        };
        for (number, _) in &builder.versions {
            (range.min, range.max) = (range.min.min(*number), range.max.max(*number));
        }
        let mut blobs = Vec::new();
        for Blob { first, raw } in versions::encode(builder.versions.clone()) {
            blobs.push((first, compress(&raw)?));
        }
        let mut recurrences: Vec<_> = builder.recurrences.iter().map(|(uid, count)| (*uid, *count)).collect();
        recurrences.sort_unstable_by_key(|(uid, _)| uid.cast_signed());
        Ok(Self {
            generation: builder.generation,
            meta: Meta {
                first: builder.first,
                last: builder.next().saturating_sub(1),
                min_ns: builder.min_ns,
                max_ns: builder.max_ns,
                terms: terms.len() as u64,
            },
            range,
            chunks,
            terms,
            versions: blobs,
            is_anew: builder.is_anew,
            recurrences,
            merged,
        })
    }

    /// Writes it, within a transaction, but for the counts. It takes the place of what was damaged.
    pub(in super::super) fn write(&self, connection: &Connection) -> Result<(), rusqlite::Error> {
        let Meta { first, last, min_ns, max_ns, terms } = self.meta;
        let segment = signed(first);
        for table in
            ["segment WHERE first", "chunk WHERE first", "term WHERE segment", "version WHERE segment"]
        {
            connection
                .prepare_cached(&format!("DELETE FROM {table} BETWEEN ?1 AND ?2"))?
                .execute([segment, signed(last)])?;
        }
        let (min_version, max_version) = (signed(self.range.min), signed(self.range.max));
        let row = [segment, signed(last), min_ns, max_ns, min_version, max_version, signed(terms)];
        connection
            .prepare_cached("INSERT INTO segment VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")?
            .execute(params_from_iter(row.iter().chain([&hash::digest(&row)])))?;
        let mut insert = connection.prepare_cached("INSERT INTO chunk VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?;
        for (index, (min_ns, max_ns, Compressed { bytes, body })) in self.chunks.iter().enumerate() {
            let first = chunk_first(segment, index);
            let digest = hash::digest(&[first, *min_ns, *max_ns]);
            insert.execute(params![first, min_ns, max_ns, digest, signed(*bytes as u64), body])?;
        }
        let mut insert = connection
            .prepare_cached("INSERT INTO term (segment, first, bytes, terms) VALUES (?1, ?2, ?3, ?4)")?;
        for (first, Compressed { bytes, body }) in &self.terms {
            insert.execute(params![segment, first, signed(*bytes as u64), body])?;
        }
        let mut insert = connection.prepare_cached(
            "INSERT INTO version (segment, first, bytes, versions) VALUES (?1, ?2, ?3, ?4)",
        )?;
        for (first, Compressed { bytes, body }) in &self.versions {
            insert.execute(params![segment, signed(*first), signed(*bytes as u64), body])?;
        }
        for Merged { first, last, blocks } in &self.merged {
            log::remove(connection, *first, *last)?;
            for block in blocks {
                log::insert(connection, block)?;
            }
        }
        Ok(())
    }
}

/// The first position of a chunk of a segment.
fn chunk_first(segment: i64, index: usize) -> i64 {
    segment.saturating_add(signed((index * CHUNK) as u64))
}

fn encode_chunk<'a>(
    from: usize,
    times: &[i64],
    occurrences: impl Iterator<Item = &'a (u16, u64)>,
) -> Vec<u8> {
    let mut raw = Vec::with_capacity(times.len() * 6);
    varint::put(&mut raw, times.len() as u64);
    let mut before = 0_i64;
    for time in times {
        varint::put_signed(&mut raw, time.wrapping_sub(before));
        before = *time;
    }
    let mut before = from;
    for (offset, number) in occurrences {
        let offset = usize::from(*offset);
        varint::put(&mut raw, (offset - before) as u64);
        varint::put(&mut raw, *number);
        before = offset;
    }
    raw
}

fn decode_chunk(from: usize, mut raw: &[u8], chunk: &mut Chunk) -> Option<()> {
    chunk.times.clear();
    chunk.occurrences.clear();
    let number = varint::take_length(&mut raw)?;
    if number > CHUNK {
        return None;
    }
    let mut before = 0_i64;
    for _ in 0..number {
        before = before.wrapping_add(varint::take_signed(&mut raw)?);
        chunk.times.push(before);
    }
    let mut before = from;
    while !raw.is_empty() {
        before = before.checked_add(varint::take_length(&mut raw)?)?;
        chunk.occurrences.push((u16::try_from(before).ok()?, varint::take(&mut raw)?));
    }
    Some(())
}

fn encode_term(raw: &mut Vec<u8>, before: &[u8], term: &[u8], offsets: &[u16]) {
    let shared = before.iter().zip(term).take_while(|(left, right)| left == right).count();
    varint::put(raw, shared as u64);
    varint::put_bytes(raw, term.get(shared..).unwrap_or_default());
    if offsets.len() > MOST_OFFSETS {
        let mut bits = Bits::none();
        offsets.iter().for_each(|offset| bits.set(*offset));
        let bytes = bits.bytes();
        varint::put(raw, (bytes.len() as u64) << 1 | 1);
        raw.extend_from_slice(&bytes);
        return;
    }
    let mut list = Vec::with_capacity(offsets.len() + 8);
    let mut before = 0;
    for offset in offsets {
        varint::put(&mut list, u64::from(*offset - before));
        before = *offset;
    }
    varint::put(raw, (list.len() as u64) << 1);
    raw.extend_from_slice(&list);
}

/// A term's records, as they lie in a blob.
enum Offsets<'a> {
    List(&'a [u8]),
    Bits(&'a [u8]),
}

// === impl Offsets ===

impl Offsets<'_> {
    fn add_to(&self, bits: &mut Bits) -> Option<()> {
        match self {
            Self::Bits(bytes) => bits.add_bytes(bytes),
            Self::List(_) => self.each(|offset| bits.set(offset))?,
        }
        Some(())
    }

    fn each(&self, mut tell: impl FnMut(u16)) -> Option<()> {
        match self {
            Self::List(list) => {
                let mut list = *list;
                let mut at = 0_u64;
                while !list.is_empty() {
                    at = at.checked_add(varint::take(&mut list)?)?;
                    tell(u16::try_from(at).ok()?);
                }
            }
            Self::Bits(bytes) => {
                let mut bits = Bits::none();
                bits.add_bytes(bytes);
                bits.offsets(0, super::OFFSETS).for_each(tell);
            }
        }
        Some(())
    }
}

/// Tells the terms of a blob, in order, until told to stop: `false` then. `None`: it is none.
fn each_term(mut raw: &[u8], mut tell: impl FnMut(&[u8], &Offsets<'_>) -> Option<bool>) -> Option<bool> {
    let mut term = Vec::new();
    while !raw.is_empty() {
        let shared = varint::take_length(&mut raw)?;
        let rest = varint::take_bytes(&mut raw)?;
        if shared > term.len() {
            return None;
        }
        term.truncate(shared);
        term.extend_from_slice(rest);
        let tag = varint::take_length(&mut raw)?;
        let bytes = varint::take_slice(&mut raw, tag >> 1)?;
        let offsets = if tag & 1 == 1 { Offsets::Bits(bytes) } else { Offsets::List(bytes) };
        if !tell(&term, &offsets)? {
            return Some(false);
        }
    }
    Some(true)
}

/// The first term of a blob.
fn first_term(mut raw: &[u8]) -> Option<&[u8]> {
    varint::take(&mut raw).filter(|shared| *shared == 0)?;
    varint::take_bytes(&mut raw)
}

/// Unpacks a blob of the index.
pub(in super::super) fn unpack<'a>(
    unpacker: &'a mut Unpacker,
    body: &[u8],
    bytes: i64,
    what: &str,
) -> Result<&'a [u8], rusqlite::Error> {
    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    unpacker.unpack(body, bytes).map_err(|Malformed| malformed(what))
}

// === impl Segments ===

impl Segments {
    /// Reads what a file says of its segments, whose first position is `first`.
    pub(in super::super) fn read(connection: &Connection, first: u64) -> Result<Self, rusqlite::Error> {
        let mut statement = connection.prepare(
            "SELECT first, last, min_ns, max_ns, min_version, max_version, terms, digest FROM segment ORDER BY first",
        )?;
        let mut rows = statement.query([])?;
        let mut segments = Self::default();
        let mut next = first;
        while let Some(row) = rows.next()? {
            let mut numbers = [0_i64; 8];
            for (index, number) in numbers.iter_mut().enumerate() {
                *number = row.get_ref(index)?.as_i64().unwrap_or(0);
            }
            let [row @ .., digest] = numbers;
            let [first, last, min_ns, max_ns, min_version, max_version, terms] = row;
            let (first, last) = (unsigned(first), unsigned(last));
            // One that is damaged is as if it were not there.
            if hash::digest(&row) != digest || first < next || last < first {
                continue;
            }
            if first > next {
                segments.holes.push((next, first - 1));
            }
            next = last + 1;
            segments.metas.push(Meta { first, last, min_ns, max_ns, terms: unsigned(terms) });
            segments.ranges.push(versions::Range {
                segment: first,
                last,
                min: unsigned(min_version),
                max: unsigned(max_version),
            });
        }
        Ok(segments)
    }

    /// Up to where the records are indexed, but for the holes; `None`: there is no segment.
    pub(in super::super) fn covered(&self) -> Option<u64> {
        self.metas.last().map(|meta| meta.last)
    }

    /// Whether a position is in a hole.
    pub(in super::super) fn misses(&self, position: u64) -> bool {
        self.holes.iter().any(|(first, last)| (*first..=*last).contains(&position))
    }
}

// === impl Stored ===

impl Stored<'_> {
    /// Tells the terms from one on, until told to stop.
    fn terms_from(
        &mut self,
        term: &[u8],
        mut tell: impl FnMut(&[u8], &Offsets<'_>) -> Option<bool>,
    ) -> Result<(), rusqlite::Error> {
        let mut statement = self.connection.prepare_cached(
            "SELECT bytes, terms, first FROM term WHERE segment = ?1 AND first >= coalesce(
                 (SELECT first FROM term WHERE segment = ?1 AND first <= ?2 ORDER BY first DESC LIMIT 1), x'')
             ORDER BY first",
        )?;
        let mut rows = statement.query(params![signed(self.meta.first), term])?;
        let mut expected = None;
        let damaged = || malformed("terms");
        while let Some(row) = rows.next()? {
            let mut raw = unpack(self.unpacker, row.get_ref(1)?.as_blob()?, row.get(0)?, "terms")?;
            let first = row.get_ref(2)?.as_blob()?;
            let number = varint::take(&mut raw).ok_or_else(damaged)?;
            // No blob is left out, and none begins behind what is looked for but the first of all.
            let is_expected = expected.map_or(number == 0 || first <= term, |expected| number == expected);
            if !is_expected || first_term(raw) != Some(first) {
                return Err(damaged());
            }
            expected = Some(number + 1);
            if !each_term(raw, &mut tell).ok_or_else(damaged)? {
                return Ok(());
            }
        }
        if expected.unwrap_or(0) == self.meta.terms { Ok(()) } else { Err(damaged()) }
    }
}

impl Segment for Stored<'_> {
    fn first(&self) -> u64 {
        self.meta.first
    }

    fn len(&self) -> usize {
        usize::try_from(self.meta.last.saturating_add(1) - self.meta.first).unwrap_or(0)
    }

    fn range(&self) -> (i64, i64) {
        (self.meta.min_ns, self.meta.max_ns)
    }

    fn exact(&mut self, wanted: &[u8], bits: &mut Bits) -> Result<(), rusqlite::Error> {
        self.terms_from(wanted, |term, offsets| {
            if term == wanted {
                offsets.add_to(bits)?;
            }
            Some(term < wanted)
        })
    }

    fn beginning(&mut self, beginning: &[u8], bits: &mut Bits) -> Result<(), rusqlite::Error> {
        self.terms_from(beginning, |term, offsets| {
            let begins = term.starts_with(beginning);
            if begins {
                offsets.add_to(bits)?;
            }
            Some(begins || term < beginning)
        })
    }

    fn values(&mut self, facet: Facet, tell: &mut dyn FnMut(&[u8], &[u16])) -> Result<(), rusqlite::Error> {
        let mut list = Vec::new();
        self.terms_from(&[facet as u8], |term, offsets| {
            let Some((first, value)) = term.split_first() else { return Some(true) };
            if *first == facet as u8 {
                list.clear();
                offsets.each(|offset| list.push(offset))?;
                tell(value, &list);
            }
            Some(*first <= facet as u8)
        })
    }

    fn chunk_range(&mut self, index: usize) -> Result<(i64, i64), rusqlite::Error> {
        let first = chunk_first(signed(self.meta.first), index);
        self.connection
            .prepare_cached("SELECT min_ns, max_ns, digest FROM chunk WHERE first = ?1")?
            .query_row([first], |row| whole_range(first, row))
    }

    fn chunk(&mut self, index: usize, chunk: &mut Chunk) -> Result<(), rusqlite::Error> {
        let first = chunk_first(signed(self.meta.first), index);
        let mut statement = self
            .connection
            .prepare_cached("SELECT min_ns, max_ns, digest, bytes, times FROM chunk WHERE first = ?1")?;
        let unpacker = &mut *self.unpacker;
        statement.query_row([first], |row| {
            whole_range(first, row)?;
            let raw = unpack(unpacker, row.get_ref(4)?.as_blob()?, row.get(3)?, "times")?;
            decode_chunk(index * CHUNK, raw, chunk).ok_or_else(|| malformed("times"))
        })
    }
}

/// When the records of a chunk happened, as its row says.
fn whole_range(first: i64, row: &rusqlite::Row<'_>) -> Result<(i64, i64), rusqlite::Error> {
    let (min_ns, max_ns) = (row.get(0)?, row.get(1)?);
    is_written(row.get(2)?, hash::digest(&[first, min_ns, max_ns]), "times")?;
    Ok((min_ns, max_ns))
}

/// Reads every blob of a segment.
pub(in super::super) fn verify(
    connection: &Connection,
    unpacker: &mut Unpacker,
    meta: Meta,
) -> Result<(), rusqlite::Error> {
    let mut segment = Stored { connection, unpacker, meta };
    segment.terms_from(&[], |_, offsets| offsets.each(|_| {}).map(|()| true))?;
    let mut chunk = Chunk::default();
    for index in 0..segment.len().div_ceil(CHUNK) {
        segment.chunk(index, &mut chunk)?;
    }
    versions::verify(connection, segment.unpacker, meta.first)
}
