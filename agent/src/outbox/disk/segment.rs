//! What stands in a segment file: entries one after the other, each a header with checksums and a batch's payload.
//!
//! Whatever became of the bytes, [`scan`] finds every entry that is whole: where a header cannot be read it looks for the next
//! one. A header's checksum begins with the segment's salt, so that nothing inside a payload passes for an entry.

use std::ops::Range;

use bytes::Bytes;
use memchr::memmem;
use nodetap_wire::{Batch, frame};

use crate::checksum::Checksum;

/// Length of an entry's header.
pub(super) const HEADER: usize = 40;

const MAGIC: &[u8; 4] = b"ntob";

/// A header's fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Of the payload behind it.
    pub(super) length: u32,
    pub(super) raw_bytes: u32,
    pub(super) records: u32,
    /// In the process that wrote it.
    pub(super) sequence: u64,
    /// When the batch was closed, in nanoseconds since 1970.
    pub(super) closed_ns: i64,
    pub(super) payload_checksum: u32,
}

/// What a segment holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Scan {
    /// Entries that are whole, and where each stands.
    pub(super) entries: Vec<(Range<usize>, Header)>,
    /// What stands between them and is not whole.
    pub(super) damaged: Vec<Range<usize>>,
    /// An entry at the end whose writing was cut short: nobody was told that it is kept.
    pub(super) torn: Option<Range<usize>>,
}

/// Bytes that are not the entry that was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the bytes are not those that were written")]
pub(super) struct Damaged;

/// An entry's bytes, less its payload.
pub(super) fn header(salt: u64, batch: &Batch, closed_ns: i64) -> Option<[u8; HEADER]> {
    let header = Header {
        length: u32::try_from(batch.payload.len())
            .ok()
            .filter(|length| *length as usize <= frame::MAX_MESSAGE_BYTES)?,
        raw_bytes: batch.raw_bytes,
        records: batch.records,
        sequence: batch.sequence,
        closed_ns,
        payload_checksum: Checksum::of(&batch.payload),
    };
    Some(header.write(salt))
}

/// The batch of one entry.
pub(super) fn read(salt: u64, entry: Bytes) -> Result<(Header, Batch), Damaged> {
    let header = Header::read(salt, &entry).ok_or(Damaged)?;
    let payload = if entry.len() == header.entry() { entry.slice(HEADER..) } else { return Err(Damaged) };
    if Checksum::of(&payload) != header.payload_checksum {
        return Err(Damaged);
    }
    let Header { sequence, records, raw_bytes, .. } = header;
    Ok((header, Batch { sequence, records, raw_bytes, payload }))
}

/// All that stands in a segment.
pub(super) fn scan(salt: u64, bytes: &[u8]) -> Scan {
    let mut scan = Scan::default();
    let mut at = 0;
    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
        let Some(header) = Header::read(salt, rest) else {
            let next = next_header(salt, rest);
            let range = at..next.map_or(bytes.len(), |next| at + next);
            match next {
                None if is_torn(rest) => scan.torn = Some(range.clone()),
                _ => scan.damaged.push(range.clone()),
            }
            at = range.end;
            continue;
        };
        let end = at + header.entry();
        match bytes.get(at + HEADER..end) {
            // A length that was checked is right: what is missing was never written, or was cut off.
            None => match next_header(salt, rest) {
                Some(next) => {
                    scan.damaged.push(at..at + next);
                    at += next;
                }
                None => {
                    scan.torn = Some(at..bytes.len());
                    at = bytes.len();
                }
            },
            Some(payload) => {
                if Checksum::of(payload) == header.payload_checksum {
                    scan.entries.push((at..end, header));
                } else if end == bytes.len() && payload.iter().rev().take(8).all(|byte| *byte == 0) {
                    // The file had grown, its last blocks had not been written.
                    scan.torn = Some(at..end);
                } else {
                    scan.damaged.push(at..end);
                }
                at = end;
            }
        }
    }
    scan
}

/// Where the next whole header after the first byte begins.
fn next_header(salt: u64, bytes: &[u8]) -> Option<usize> {
    let behind = bytes.get(1..)?;
    let whole = |at: &usize| bytes.get(*at..).and_then(|rest| Header::read(salt, rest)).is_some();
    memmem::find_iter(behind, MAGIC).map(|at| at + 1).find(whole)
}

/// Less than a header, or nothing but zeros: a writing that was cut short.
fn is_torn(rest: &[u8]) -> bool {
    rest.len() < HEADER || rest.iter().all(|byte| *byte == 0)
}

// === impl Header ===

impl Header {
    /// Length of the whole entry.
    pub(super) fn entry(&self) -> usize {
        HEADER + self.length as usize
    }

    fn write(&self, salt: u64) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        let fields: [&[u8]; 7] = [
            MAGIC,
            &self.length.to_le_bytes(),
            &self.raw_bytes.to_le_bytes(),
            &self.records.to_le_bytes(),
            &self.sequence.to_le_bytes(),
            &self.closed_ns.to_le_bytes(),
            &self.payload_checksum.to_le_bytes(),
        ];
        let mut checksum = Checksum::default().with(&salt.to_le_bytes());
        let mut rest: &mut [u8] = &mut bytes;
        for field in fields {
            checksum = checksum.with(field);
            let (place, after) = rest.split_at_mut(field.len());
            place.copy_from_slice(field);
            rest = after;
        }
        rest.copy_from_slice(&checksum.finish().to_le_bytes());
        bytes
    }

    fn read(salt: u64, bytes: &[u8]) -> Option<Self> {
        let (fields, rest) = bytes.split_first_chunk::<36>()?;
        let (checksum, _) = rest.split_first_chunk::<4>()?;
        let said = Checksum::default().with(&salt.to_le_bytes()).with(fields).finish();
        if !fields.starts_with(MAGIC) || u32::from_le_bytes(*checksum) != said {
            return None;
        }
        let (_, rest) = fields.split_first_chunk::<4>()?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let (raw_bytes, rest) = rest.split_first_chunk::<4>()?;
        let (records, rest) = rest.split_first_chunk::<4>()?;
        let (sequence, rest) = rest.split_first_chunk::<8>()?;
        let (closed_ns, rest) = rest.split_first_chunk::<8>()?;
        let (payload_checksum, _) = rest.split_first_chunk::<4>()?;
        Some(Self {
            length: u32::from_le_bytes(*length),
            raw_bytes: u32::from_le_bytes(*raw_bytes),
            records: u32::from_le_bytes(*records),
            sequence: u64::from_le_bytes(*sequence),
            closed_ns: i64::from_le_bytes(*closed_ns),
            payload_checksum: u32::from_le_bytes(*payload_checksum),
        })
    }
}

#[cfg(test)]
mod tests;
