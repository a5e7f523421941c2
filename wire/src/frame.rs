//! Batches: records on the wire, compressed, with a bound on everything before it is unpacked.
//!
//! A decoder given any bytes answers with records or an error; it never panics, and never takes more memory than the
//! constants below allow.

use std::fmt;

use bytes::Bytes;
use prost::Message;

use crate::event::Sighting;
use crate::seen::{framed, put_length};
use crate::{Batch, Record, Records, record};

/// Most records in one batch. An agent closes a batch at 512; the rest is head-room for a newer agent.
pub const MAX_RECORDS: usize = 4_096;

/// Where an agent closes a batch.
pub const BATCH_RECORDS: usize = 512;

/// Most bytes of a batch once decompressed: a full batch of mean events is 0.5 MiB, and one event may be 2 MiB.
pub const MAX_RAW_BYTES: usize = 8 << 20;

/// Where an agent closes a batch by size, so that one more record of the largest size still fits.
pub const BATCH_RAW_BYTES: usize = 4 << 20;

/// Longest Event JSON: twice what etcd takes by default.
pub const MAX_EVENT_BYTES: usize = 2 << 20;

/// Most bytes of one record: the longest event and its parsed fields.
pub const MAX_RECORD_BYTES: usize = MAX_EVENT_BYTES + (64 << 10);

/// Most bytes of a record that is not an event: its fields unpack to up to twenty times their size, an event's do not.
pub const MAX_SMALL_RECORD_BYTES: usize = 512 << 10;

/// Largest gRPC message: a batch that did not compress, and its frame.
pub const MAX_MESSAGE_BYTES: usize = MAX_RAW_BYTES + (64 << 10);

/// Of its buffers, what an encoder keeps: a full batch of mean events is 0.5 MiB.
const KEPT_BYTES: usize = 1 << 20;

/// Fast, and no larger than level 3 on events.
const COMPRESSION_LEVEL: i32 = 1;

const RECORDS_TAG: u32 = 1;
const EVENT_TAG: u32 = 1;

/// Why a batch was not made or not taken.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// More than [`MAX_RECORDS`].
    #[error("a batch of {0} records: at most {MAX_RECORDS} are taken")]
    TooManyRecords(usize),
    /// More than [`MAX_RAW_BYTES`].
    #[error("a batch of {0} bytes decompressed: at most {MAX_RAW_BYTES} are taken")]
    TooLong(usize),
    /// A record of more than [`MAX_RECORD_BYTES`], or [`MAX_SMALL_RECORD_BYTES`] where it is not an event.
    #[error(
        "a record of {0} bytes in a batch: at most {MAX_RECORD_BYTES} are taken of an event, {MAX_SMALL_RECORD_BYTES} of another"
    )]
    RecordTooLong(usize),
    /// The payload is not what its frame says.
    #[error("a batch that says {said} {what} has {found}")]
    Contradicts {
        /// What the frame and the payload differ in.
        what: &'static str,
        /// The frame's figure.
        said: usize,
        /// The payload's figure.
        found: usize,
    },
    /// zstd cannot unpack it.
    #[error("a batch that cannot be decompressed: {0}")]
    Compression(std::io::Error),
    /// Not protobuf.
    #[error("a batch that cannot be decoded: {0}")]
    Encoding(#[from] prost::DecodeError),
}

/// Records as they stand in a batch, one behind the other. To write them there at once, while what they are made of is at hand, is
/// much less than to keep them and to write them later.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Run {
    bytes: Vec<u8>,
    /// Where each record ends.
    ends: Vec<usize>,
}

/// Why a record was not put into a [`Run`]: [`decode`] takes none of so many bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordTooLong(pub usize);

/// Packs batches. What it takes for that, about a MiB, it keeps.
#[derive(Default)]
pub struct Encoder {
    compressor: Option<zstd::bulk::Compressor<'static>>,
    packed: Vec<u8>,
}

// === impl Run ===

impl Run {
    /// Puts a record behind the others.
    ///
    /// # Errors
    /// Where it is longer than [`decode`] takes; the others stay.
    pub fn put(&mut self, record: &Record) -> Result<(), RecordTooLong> {
        let length = record.encoded_len();
        let most = match &record.kind {
            Some(record::Kind::Event(_)) => MAX_RECORD_BYTES,
            _ => MAX_SMALL_RECORD_BYTES,
        };
        self.begin(length, most)?;
        record.encode_raw(&mut self.bytes);
        self.ends.push(self.bytes.len());
        Ok(())
    }

    /// Puts the record of an event behind the others.
    ///
    /// # Errors
    /// Where it is longer than [`decode`] takes; the others stay.
    pub fn put_event(&mut self, event: &Sighting<'_>) -> Result<(), RecordTooLong> {
        let fields = event.fields();
        let length = fields.encoded_len();
        self.begin(framed(length), MAX_RECORD_BYTES)?;
        put_length(EVENT_TAG, length, &mut self.bytes);
        fields.encode(&mut self.bytes);
        self.ends.push(self.bytes.len());
        Ok(())
    }

    /// Puts records of another one behind these, from the `from`th on: `records` of them, or as few as make `bytes` full, but one at
    /// least, where there is one. Answers how many.
    pub fn put_some(&mut self, other: &Self, from: usize, records: usize, bytes: usize) -> usize {
        let start = other.start(from);
        let ends = other.ends.get(from..).unwrap_or_default();
        let full = ends.iter().take(records.max(1)).position(|end| end - start >= bytes);
        let some = full.map_or(records.max(1), |last| last + 1).min(ends.len());
        let before = self.bytes.len();
        self.bytes.extend_from_slice(other.bytes.get(start..other.start(from + some)).unwrap_or_default());
        self.ends.extend(ends.iter().take(some).map(|end| end - start + before));
        some
    }

    /// Makes room for so many bytes.
    pub fn reserve(&mut self, bytes: usize) {
        self.bytes.reserve(bytes);
    }

    /// How many records it has.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// How many bytes they are.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The records again.
    ///
    /// # Errors
    /// None but that of the decoder, which does not know where they are from.
    pub fn records(&self) -> Result<Vec<Record>, FrameError> {
        Ok(Records::decode(Bytes::copy_from_slice(&self.bytes))?.records)
    }

    fn begin(&mut self, length: usize, most: usize) -> Result<(), RecordTooLong> {
        if length > most {
            return Err(RecordTooLong(length));
        }
        self.bytes.reserve(framed(length));
        put_length(RECORDS_TAG, length, &mut self.bytes);
        Ok(())
    }

    /// Where a record starts; after the last one, where they end.
    fn start(&self, at: usize) -> usize {
        let before = at.checked_sub(1).and_then(|before| self.ends.get(before));
        if at == 0 { 0 } else { before.copied().unwrap_or(self.bytes.len()) }
    }

    fn clear(&mut self) {
        self.ends.clear();
        clear(&mut self.bytes);
    }
}

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run").field("records", &self.len()).field("bytes", &self.bytes()).finish()
    }
}

// === impl Encoder ===

impl Encoder {
    /// Packs records into a batch, with what stands beside them. The run is empty afterwards, whatever came of it.
    ///
    /// # Errors
    /// Where they pass the bounds that [`decode`] holds.
    pub fn encode(&mut self, sequence: u64, run: &mut Run, beside: &Records) -> Result<Batch, FrameError> {
        let batch = self.pack(sequence, run, beside);
        run.clear();
        batch
    }

    fn pack(&mut self, sequence: u64, run: &mut Run, beside: &Records) -> Result<Batch, FrameError> {
        let Self { compressor, packed } = self;
        let records = run.len() + beside.records.len();
        if records > MAX_RECORDS {
            return Err(FrameError::TooManyRecords(records));
        }
        let length = run.bytes.len() + beside.encoded_len();
        if length > MAX_RAW_BYTES {
            return Err(FrameError::TooLong(length));
        }
        clear(packed);
        let raw = &mut run.bytes;
        beside.encode(raw).map_err(|_| FrameError::TooLong(length))?;
        packed.reserve(zstd::zstd_safe::compress_bound(length));
        let compressor = match compressor {
            Some(compressor) => compressor,
            None => compressor
                .insert(zstd::bulk::Compressor::new(COMPRESSION_LEVEL).map_err(FrameError::Compression)?),
        };
        compressor.compress_to_buffer(raw, packed).map_err(FrameError::Compression)?;
        Ok(Batch {
            sequence,
            // Both are below 2^32 by the checks above.
            records: records as u32,
            raw_bytes: length as u32,
            payload: Bytes::copy_from_slice(packed),
        })
    }
}

fn clear(buffer: &mut Vec<u8>) {
    buffer.clear();
    // What one large batch took is not kept.
    buffer.shrink_to(KEPT_BYTES);
}

impl fmt::Debug for Encoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encoder").finish_non_exhaustive()
    }
}

/// Packs records into a batch, where it is but one.
///
/// # Errors
/// As [`Encoder::encode`].
pub fn encode(sequence: u64, records: &Records) -> Result<Batch, FrameError> {
    Encoder::default().encode(sequence, &mut Run::default(), records)
}

/// Unpacks a batch.
///
/// # Errors
/// Where the payload passes a bound, is not what the frame says, or is not a batch at all.
pub fn decode(batch: &Batch) -> Result<Records, FrameError> {
    let (said_records, said_bytes) = (batch.records as usize, batch.raw_bytes as usize);
    if said_records > MAX_RECORDS {
        return Err(FrameError::TooManyRecords(said_records));
    }
    if said_bytes > MAX_RAW_BYTES {
        return Err(FrameError::TooLong(said_bytes));
    }
    let raw = zstd::bulk::decompress(&batch.payload, said_bytes).map_err(FrameError::Compression)?;
    if raw.len() != said_bytes {
        return Err(FrameError::Contradicts { what: "bytes", said: said_bytes, found: raw.len() });
    }
    check_records(&raw, said_records)?;
    let mut records = Records { records: Vec::with_capacity(said_records), ..Records::default() };
    records.merge(Bytes::from(raw))?;
    Ok(records)
}

/// Walks the outermost fields alone, so that nothing is unpacked before its size and number are known to be in bounds.
fn check_records(mut raw: &[u8], said: usize) -> Result<(), FrameError> {
    use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

    let mut found = 0;
    // Checkpoints, entries of the ledger, and what a newer agent sends.
    let mut others = 0;
    while !raw.is_empty() {
        let (tag, wire_type) = decode_key(&mut raw)?;
        if wire_type != WireType::LengthDelimited {
            skip_field(wire_type, tag, &mut raw, DecodeContext::default())?;
            continue;
        }
        let length = usize::try_from(decode_varint(&mut raw)?).unwrap_or(usize::MAX);
        let Some((field, rest)) = raw.split_at_checked(length) else {
            return Err(FrameError::RecordTooLong(length));
        };
        raw = rest;
        if tag == RECORDS_TAG {
            found += 1;
            if length > MAX_RECORD_BYTES || other_than_event(field)? > MAX_SMALL_RECORD_BYTES {
                return Err(FrameError::RecordTooLong(length));
            }
        } else {
            others += 1;
        }
        if found > MAX_RECORDS || others > MAX_RECORDS {
            return Err(FrameError::TooManyRecords(found.max(others)));
        }
    }
    if found != said {
        return Err(FrameError::Contradicts { what: "records", said, found });
    }
    Ok(())
}

/// How many bytes of a record are not those of an event. All of its fields are asked: of a oneof that stands there twice, the
/// last counts.
fn other_than_event(record: &[u8]) -> Result<usize, FrameError> {
    use prost::encoding::{DecodeContext, decode_key, skip_field};

    let mut rest = record;
    let mut other = 0;
    while !rest.is_empty() {
        let before = rest.len();
        let (tag, wire_type) = decode_key(&mut rest)?;
        skip_field(wire_type, tag, &mut rest, DecodeContext::default())?;
        if tag != EVENT_TAG {
            other += before - rest.len();
        }
    }
    Ok(other)
}

#[cfg(test)]
mod tests;
