//! A block of the log: records that follow one another, compressed together.
//!
//! A zstd frame with a checksum. Unpacked: version, first position, number of records, a head for each (kind, when it was taken,
//! occurrences, lengths), then their bodies, then what was known of their objects. An event's body is its JSON, a death's is the JSON of
//! `ContainerDied`. Close to 100 records share one context: small enough to unpack for a single record, large enough that
//! what Kubernetes repeats costs nothing.

use std::sync::Arc;

use bytes::Bytes;
use foldhash::HashMap;
use nodetap_wire::ContainerDied;
use nodetap_wire::face::Object;
use zstd::zstd_safe::CParameter;

use super::varint;
use crate::journal::{Body, Entry, Position};

/// Where a block is closed, in records and in bytes before they are compressed.
pub(super) const BLOCK_RECORDS: usize = 128;
pub(super) const BLOCK_BYTES: usize = 128 << 10;

/// Most bytes of one block: one record is closed with the block that it overfills, and one is at most 2 MiB on the wire, and
/// what is known of its object at most 512 KiB there.
const MAX_BYTES: usize = 32 << 20;

/// Level 3 takes twice the time for a twentieth less.
const LEVEL: i32 = 1;

const VERSION: u64 = 2;
const EVENT: u64 = 0;
const DEATH: u64 = 1;

/// Gathers records and packs them.
pub(super) struct Packer {
    compressor: zstd::bulk::Compressor<'static>,
    heads: Vec<u8>,
    bodies: Vec<u8>,
    facts: Vec<u8>,
    /// All of it, to be compressed.
    raw: Vec<u8>,
    /// Where that goes to: of what it may take, a block needs a fifth.
    packed: Vec<u8>,
    first: u64,
    records: usize,
    taken_ns: i64,
}

/// A block as the log keeps it.
#[derive(Debug)]
pub(super) struct Packed {
    /// Position of its first record.
    pub(super) first: u64,
    pub(super) records: usize,
    /// Bytes before it was compressed.
    pub(super) bytes: usize,
    pub(super) body: Vec<u8>,
}

/// A record as it lies in a block.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stored<'a> {
    pub(super) position: u64,
    pub(super) taken_ns: i64,
    pub(super) occurrences: u64,
    pub(super) is_death: bool,
    pub(super) body: &'a [u8],
    /// JSON of what was known of its object.
    pub(super) facts: Option<&'a [u8]>,
}

/// Bytes that are not the block or the record that was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not what was written")]
pub(super) struct Malformed;

/// What was known of the objects of records that are read, by its JSON. Most events about a pod came with the same, and to read it again
/// for each costs a third of what a sink that reads the disk costs.
#[derive(Debug, Default)]
pub(super) struct Objects {
    by_json: HashMap<Box<[u8]>, Arc<Object>>,
    bytes: usize,
}

/// Bytes of JSON that are remembered; then all of it is forgotten. A thousand pods, of a few labels and owners each.
const OBJECTS_BYTES: usize = 512 << 10;

/// Unpacks blocks, one at a time.
pub(super) struct Unpacker {
    decompressor: zstd::bulk::Decompressor<'static>,
    buffer: Vec<u8>,
}

// === impl Packer ===

impl Packer {
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self {
            compressor: compressor()?,
            heads: Vec::new(),
            bodies: Vec::new(),
            facts: Vec::new(),
            raw: Vec::new(),
            packed: Vec::new(),
            first: 0,
            records: 0,
            taken_ns: 0,
        })
    }

    /// Drops what was gathered.
    pub(super) fn clear(&mut self) {
        self.heads.clear();
        self.bodies.clear();
        self.facts.clear();
        (self.records, self.taken_ns) = (0, 0);
    }

    /// Whether nothing was gathered.
    pub(super) fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Whether the next record belongs into another block.
    pub(super) fn is_full(&self) -> bool {
        self.records >= BLOCK_RECORDS || self.bodies.len() + self.facts.len() >= BLOCK_BYTES
    }

    /// Adds a record; the first decides where the block begins, the others follow it.
    pub(super) fn push(&mut self, stored: &Stored<'_>) {
        if self.records == 0 {
            self.first = stored.position;
        }
        self.records += 1;
        let heads = &mut self.heads;
        varint::put(heads, if stored.is_death { DEATH } else { EVENT });
        varint::put_signed(heads, stored.taken_ns.wrapping_sub(self.taken_ns));
        self.taken_ns = stored.taken_ns;
        varint::put(heads, stored.occurrences);
        varint::put(heads, stored.body.len() as u64);
        varint::put(heads, stored.facts.map_or(0, |facts| facts.len() as u64 + 1));
        self.bodies.extend_from_slice(stored.body);
        self.facts.extend_from_slice(stored.facts.unwrap_or_default());
    }

    /// Packs what was gathered, and begins anew.
    pub(super) fn pack(&mut self) -> std::io::Result<Packed> {
        let Self { raw, packed, .. } = self;
        raw.clear();
        packed.clear();
        // What one large block took is not kept.
        raw.shrink_to(4 * BLOCK_BYTES);
        packed.shrink_to(4 * BLOCK_BYTES);
        varint::put(raw, VERSION);
        varint::put(raw, self.first);
        varint::put(raw, self.records as u64);
        raw.extend_from_slice(&self.heads);
        raw.extend_from_slice(&self.bodies);
        raw.extend_from_slice(&self.facts);
        packed.reserve(zstd::zstd_safe::compress_bound(raw.len()));
        self.compressor.compress_to_buffer(raw, packed)?;
        let block =
            Packed { first: self.first, records: self.records, bytes: raw.len(), body: packed.clone() };
        self.clear();
        Ok(block)
    }
}

/// Compresses with a checksum, so that a flipped bit is found.
pub(super) fn compressor() -> std::io::Result<zstd::bulk::Compressor<'static>> {
    let mut compressor = zstd::bulk::Compressor::new(LEVEL)?;
    compressor.set_parameter(CParameter::ChecksumFlag(true))?;
    Ok(compressor)
}

// === impl Unpacker ===

impl Unpacker {
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self { decompressor: zstd::bulk::Decompressor::new()?, buffer: Vec::new() })
    }

    /// Unpacks bytes of a known length.
    pub(super) fn unpack(&mut self, packed: &[u8], bytes: usize) -> Result<&[u8], Malformed> {
        if bytes > MAX_BYTES {
            return Err(Malformed);
        }
        self.buffer.clear();
        // What one large block took is not kept.
        self.buffer.shrink_to(4 * BLOCK_BYTES);
        self.buffer.reserve(bytes);
        let length =
            self.decompressor.decompress_to_buffer(packed, &mut self.buffer).map_err(|_| Malformed)?;
        if length == bytes { Ok(&self.buffer) } else { Err(Malformed) }
    }

    /// The records of a block.
    pub(super) fn records(
        &mut self,
        first: u64,
        packed: &[u8],
        bytes: usize,
    ) -> Result<Vec<Stored<'_>>, Malformed> {
        records(first, self.unpack(packed, bytes)?).ok_or(Malformed)
    }
}

fn records(first: u64, mut raw: &[u8]) -> Option<Vec<Stored<'_>>> {
    if varint::take(&mut raw)? != VERSION || varint::take(&mut raw)? != first {
        return None;
    }
    let number = varint::take_length(&mut raw)?;
    let mut heads = Vec::with_capacity(number.min(BLOCK_RECORDS));
    let mut taken_ns = 0_i64;
    for _ in 0..number {
        let kind = varint::take(&mut raw)?;
        taken_ns = taken_ns.wrapping_add(varint::take_signed(&mut raw)?);
        let occurrences = varint::take(&mut raw)?;
        let body = varint::take_length(&mut raw)?;
        let facts = varint::take_length(&mut raw)?;
        heads.push((kind, taken_ns, occurrences, body, facts));
    }
    let mut bodies = Vec::with_capacity(heads.len());
    for (_, _, _, length, _) in &heads {
        bodies.push(varint::take_slice(&mut raw, *length)?);
    }
    let mut records = Vec::with_capacity(heads.len());
    for ((index, (kind, taken_ns, occurrences, _, facts)), body) in heads.into_iter().enumerate().zip(bodies)
    {
        let facts = match facts.checked_sub(1) {
            Some(length) => Some(varint::take_slice(&mut raw, length)?),
            None => None,
        };
        let is_death = match kind {
            EVENT => false,
            DEATH => true,
            _ => return None,
        };
        records.push(Stored { position: first + index as u64, taken_ns, occurrences, is_death, body, facts });
    }
    raw.is_empty().then_some(records)
}

// === impl Objects ===

impl Objects {
    fn get(&mut self, json: &[u8]) -> Result<Arc<Object>, Malformed> {
        if let Some(object) = self.by_json.get(json) {
            return Ok(Arc::clone(object));
        }
        let object = object(json)?;
        if self.bytes + json.len() > OBJECTS_BYTES {
            self.by_json.clear();
            self.bytes = 0;
        }
        if json.len() <= OBJECTS_BYTES {
            self.by_json.insert(json.into(), Arc::clone(&object));
            self.bytes += json.len();
        }
        Ok(object)
    }
}

fn object(json: &[u8]) -> Result<Arc<Object>, Malformed> {
    serde_json::from_slice(json).map(Arc::new).map_err(|_| Malformed)
}

// === impl Stored ===

impl Stored<'_> {
    /// The record, on its own.
    pub(super) fn entry(&self) -> Result<Entry, Malformed> {
        self.entry_with(object)
    }

    /// The record, which shares what was known of its object with others.
    pub(super) fn entry_among(&self, objects: &mut Objects) -> Result<Entry, Malformed> {
        self.entry_with(|json| objects.get(json))
    }

    fn entry_with(
        &self,
        object: impl FnOnce(&[u8]) -> Result<Arc<Object>, Malformed>,
    ) -> Result<Entry, Malformed> {
        let (body, object) = if self.is_death {
            let death: ContainerDied = serde_json::from_slice(self.body).map_err(|_| Malformed)?;
            let object = death.object();
            (Body::Death(Box::new(death)), Some(Arc::new(object)))
        } else {
            let facts = self.facts.map(object).transpose()?;
            (Body::Event(Bytes::copy_from_slice(self.body)), facts)
        };
        Ok(Entry {
            position: Position(self.position),
            taken_ns: self.taken_ns,
            body,
            outline: None,
            object,
            occurrences: self.occurrences,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn stored(position: u64, body: &[u8]) -> Stored<'_> {
        Stored {
            position,
            taken_ns: 5 - position as i64,
            occurrences: position,
            is_death: false,
            body,
            facts: None,
        }
    }

    fn packed() -> Packed {
        let mut packer = Packer::new().unwrap();
        packer.push(&stored(7, b"{\"a\":1}"));
        packer.push(&Stored { facts: Some(b"{}"), ..stored(8, b"") });
        packer.push(&Stored { is_death: true, ..stored(9, b"dead") });
        packer.pack().unwrap()
    }

    #[test]
    fn what_is_packed_is_unpacked() {
        let packed = packed();
        let mut unpacker = Unpacker::new().unwrap();
        let records = unpacker.records(packed.first, &packed.body, packed.bytes).unwrap();
        assert_eq!(records.iter().map(|record| record.position).collect::<Vec<_>>(), [7, 8, 9]);
        assert_eq!(records.iter().map(|record| record.taken_ns).collect::<Vec<_>>(), [-2, -3, -4]);
        assert_eq!(records[0].body, b"{\"a\":1}");
        assert_eq!((records[1].facts, records[2].facts), (Some(b"{}".as_slice()), None));
        assert_eq!((records[2].is_death, records[2].occurrences), (true, 9));
    }

    #[test]
    fn records_share_what_was_known_of_their_object_and_no_more_of_it_is_kept_than_is_allowed() {
        let mut objects = Objects::default();
        let mut read = |facts: &str| {
            let stored = Stored { facts: Some(facts.as_bytes()), ..stored(1, b"{}") };
            let entry = stored.entry_among(&mut objects).unwrap();
            assert_eq!(entry.object, stored.entry().unwrap().object);
            let kept: usize = objects.by_json.keys().map(|json| json.len()).sum();
            assert!(kept == objects.bytes && kept <= OBJECTS_BYTES, "{kept} of {}", objects.bytes);
            entry.object.unwrap()
        };
        let facts = |number: usize, padding: usize| {
            let label = "x".repeat(padding);
            format!(
                r#"{{"labels":{{"app":"{number}{label}"}},"annotations":{{}},"ownerReferences":[],"deleted":false}}"#
            )
        };
        let first = read(&facts(0, 1));
        assert!(Arc::ptr_eq(&first, &read(&facts(0, 1))));
        for number in 0..2_000 {
            assert_eq!(read(&facts(number, 400)).labels["app"], format!("{number}{}", "x".repeat(400)));
        }
        assert!(!Arc::ptr_eq(&first, &read(&facts(0, 1))), "forgotten, and read anew");
        assert_eq!(read(&facts(7, OBJECTS_BYTES)).labels["app"].len(), OBJECTS_BYTES + 1);
        let malformed = Stored { facts: Some(b"{"), ..stored(1, b"{}") };
        assert!(malformed.entry_among(&mut objects).is_err());
    }

    #[test]
    fn any_flipped_bit_and_any_cut_is_found() {
        let packed = packed();
        let mut unpacker = Unpacker::new().unwrap();
        // Of zstd's frame header, one bit is reserved for nothing; it is in byte 4.
        for (index, bit) in (0..packed.body.len()).flat_map(|index| (0..8).map(move |bit| (index, bit))) {
            let mut body = packed.body.clone();
            body[index] ^= 1 << bit;
            let is_same = |records: &[Stored<'_>]| {
                records.len() == 3 && records[0].body == b"{\"a\":1}" && records[2].body == b"dead"
            };
            match unpacker.records(7, &body, packed.bytes) {
                Err(Malformed) => {}
                Ok(records) => assert!(is_same(&records), "byte {index} bit {bit}"),
            }
        }
        for length in 0..packed.body.len() {
            assert!(unpacker.records(7, &packed.body[..length], packed.bytes).is_err(), "cut at {length}");
        }
        assert!(unpacker.records(7, &packed.body, packed.bytes - 1).is_err());
        assert!(unpacker.records(7, &packed.body, usize::MAX).is_err());
    }
}
