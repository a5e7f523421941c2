//! The outbox as a state machine: batches in order, encoded once, held until they are acknowledged.
//!
//! Promises: batches leave in the order in which their records came, a checkpoint never before what it covers; nothing is let
//! go of but by its acknowledgement; what is held stays within the bound plus one record of the largest size.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use nodetap_wire::frame::{self, FrameError};
use nodetap_wire::{Batch, Checkpoint, Record, Records, record};
use prost::Message;

use super::{Mark, Taken};

/// Where batches end and how much is held.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Records of a batch.
    pub records: usize,
    /// Bytes of a batch before it is compressed.
    pub raw_bytes: usize,
    /// How long the first record of a batch waits for others.
    pub age: Duration,
    /// Least time between two batches that hold checkpoints alone.
    pub checkpoint_interval: Duration,
    /// Encoded bytes held, with the open batch.
    pub held_bytes: usize,
}

/// Batches that are open, waiting, or on their way.
#[derive(Debug)]
pub struct Queue {
    bounds: Bounds,
    open: Open,
    held: VecDeque<Batch>,
    held_bytes: usize,
    held_records: usize,
    /// How many of `held` have been sent on the stream of now.
    sent: usize,
    /// The highest sequence sent on any stream: one that is sent again is at most this.
    sent_ever: u64,
    next_sequence: u64,
    /// The batch that has to be acknowledged, and who waits for it; in order. Each asker has one under way.
    marks: VecDeque<(u64, Mark)>,
    /// When the last batch of checkpoints alone was closed.
    checkpoints_closed: Option<Instant>,
}

/// The batch that is being filled.
#[derive(Debug, Default)]
struct Open {
    records: Records,
    raw_bytes: usize,
    closes_at: Option<Instant>,
}

/// A batch to send.
#[derive(Clone, Debug, PartialEq)]
pub struct Outgoing {
    /// Ready for the wire. Its payload is shared, not copied.
    pub batch: Batch,
    /// It was sent on an earlier stream.
    pub again: bool,
}

/// What an acknowledgement let go of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Acknowledged {
    /// Batches.
    pub batches: usize,
    /// Records in them.
    pub records: usize,
}

/// Why something taken is not sent.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The aggregator would refuse it, and the batch with it.
    #[error(
        "a record of {0} bytes: at most {max} are taken of an event, {small} of another",
        max = frame::MAX_RECORD_BYTES,
        small = frame::MAX_SMALL_RECORD_BYTES
    )]
    TooLarge(usize),
    /// A record of no kind.
    #[error("a record that holds nothing")]
    Empty,
    /// A batch of this many records could not be packed.
    #[error("a batch of {0} records that cannot be packed: {1}")]
    Unpackable(usize, FrameError),
}

/// An acknowledgement of a batch that was not sent on this stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("batch {sequence} was acknowledged, but the last one sent on this stream is {sent}")]
pub struct NotSent {
    /// What was acknowledged.
    pub sequence: u64,
    /// What was sent.
    pub sent: u64,
}

/// Checkpoints of a batch: the bound of `frame::decode` is eight times as much.
const BATCH_CHECKPOINTS: usize = 512;

// === impl Bounds ===

impl Default for Bounds {
    fn default() -> Self {
        Self {
            records: frame::BATCH_RECORDS,
            raw_bytes: frame::BATCH_RAW_BYTES,
            age: Duration::from_millis(50),
            checkpoint_interval: Duration::from_secs(5),
            held_bytes: 8 << 20,
        }
    }
}

// === impl Queue ===

impl Queue {
    /// An empty one; its first batch has sequence 1.
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            open: Open::default(),
            held: VecDeque::new(),
            held_bytes: 0,
            held_records: 0,
            sent: 0,
            sent_ever: 0,
            next_sequence: 1,
            marks: VecDeque::new(),
            checkpoints_closed: None,
        }
    }

    /// Whether one more may be taken. Where not, whoever takes has to wait for an acknowledgement.
    pub fn has_room(&self) -> bool {
        self.bytes() < self.bounds.held_bytes
    }

    /// Takes one.
    ///
    /// # Errors
    /// Where it can never be sent; the queue goes on without it.
    pub fn take(&mut self, now: Instant, taken: Taken) -> Result<(), Refused> {
        match taken {
            Taken::Record(record) => self.take_record(now, record),
            Taken::Checkpoint(checkpoint) => self.take_checkpoint(now, checkpoint),
            Taken::Mark(mark) => {
                let last =
                    if self.open.closes_at.is_some() { self.next_sequence } else { self.next_sequence - 1 };
                self.marks.push_back((last, mark));
                self.reach();
                Ok(())
            }
        }
    }

    /// When the open batch is to be closed; `None` while it is empty.
    pub fn closes_at(&self) -> Option<Instant> {
        self.open.closes_at
    }

    /// Closes the open batch where its time has come.
    ///
    /// # Errors
    /// Where it cannot be packed; its records are gone.
    pub fn close_due(&mut self, now: Instant) -> Result<(), Refused> {
        if self.open.closes_at.is_some_and(|at| at <= now) { self.close(now) } else { Ok(()) }
    }

    /// Closes the open batch, whatever its age.
    ///
    /// # Errors
    /// Where it cannot be packed; its records are gone.
    pub fn close(&mut self, now: Instant) -> Result<(), Refused> {
        let open = std::mem::take(&mut self.open);
        if open.closes_at.is_none() {
            return Ok(());
        }
        let records = open.records.records.len();
        if records == 0 {
            self.checkpoints_closed = Some(now);
        }
        let batch = frame::encode(self.next_sequence, &open.records)
            .map_err(|error| Refused::Unpackable(records, error))?;
        self.next_sequence += 1;
        self.held_bytes += batch.payload.len();
        self.held_records += records;
        self.held.push_back(batch);
        Ok(())
    }

    /// The next batch to send, where fewer than `window` are on their way.
    pub fn send(&mut self, window: usize) -> Option<Outgoing> {
        if self.sent >= window {
            return None;
        }
        let batch = self.held.get(self.sent)?.clone();
        self.sent += 1;
        let again = batch.sequence <= self.sent_ever;
        self.sent_ever = self.sent_ever.max(batch.sequence);
        Some(Outgoing { batch, again })
    }

    /// Whether [`send`](Self::send) would give one.
    pub fn can_send(&self, window: usize) -> bool {
        self.sent < window && self.sent < self.held.len()
    }

    /// Lets go of everything up to and with a sequence.
    ///
    /// # Errors
    /// Where that was not sent on this stream; nothing is let go of.
    pub fn acknowledge(&mut self, sequence: u64) -> Result<Acknowledged, NotSent> {
        let last_sent = self.sent.checked_sub(1).and_then(|last| self.held.get(last));
        let sent = last_sent.map_or_else(|| self.before_first(), |batch| batch.sequence);
        if sequence > sent {
            return Err(NotSent { sequence, sent });
        }
        let mut acknowledged = Acknowledged::default();
        while let Some(batch) = self.held.pop_front_if(|batch| batch.sequence <= sequence) {
            self.sent -= 1;
            self.held_bytes -= batch.payload.len();
            self.held_records -= batch.records as usize;
            acknowledged.batches += 1;
            acknowledged.records += batch.records as usize;
        }
        self.reach();
        Ok(acknowledged)
    }

    /// The stream was cut: everything that is not acknowledged is to be sent again.
    pub fn rewind(&mut self) {
        self.sent = 0;
    }

    /// Batches on their way.
    pub fn in_flight(&self) -> usize {
        self.sent
    }

    /// Bytes held, the open batch uncompressed.
    pub fn bytes(&self) -> usize {
        self.held_bytes + self.open.raw_bytes
    }

    /// Records that are not acknowledged, those of the open batch among them.
    pub fn records(&self) -> usize {
        self.held_records + self.open.records.records.len()
    }

    /// Nothing is open and nothing is held.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty() && self.open.closes_at.is_none()
    }

    fn reach(&mut self) {
        let acknowledged = self.before_first();
        while let Some((_, mark)) = self.marks.pop_front_if(|(last, _)| *last <= acknowledged) {
            mark.reach();
        }
    }

    fn before_first(&self) -> u64 {
        self.held.front().map_or(self.next_sequence, |batch| batch.sequence) - 1
    }

    fn take_record(&mut self, now: Instant, record: Record) -> Result<(), Refused> {
        let length = record.encoded_len();
        let most = match &record.kind {
            Some(record::Kind::Event(_)) => frame::MAX_RECORD_BYTES,
            Some(_) => frame::MAX_SMALL_RECORD_BYTES,
            None => return Err(Refused::Empty),
        };
        if length > most {
            return Err(Refused::TooLarge(length));
        }
        let closes_at = now + self.bounds.age;
        self.open.closes_at = Some(self.open.closes_at.map_or(closes_at, |at| at.min(closes_at)));
        self.open.raw_bytes += framed(length);
        self.open.records.records.push(record);
        if self.open.records.records.len() >= self.bounds.records
            || self.open.raw_bytes >= self.bounds.raw_bytes
        {
            return self.close(now);
        }
        Ok(())
    }

    fn take_checkpoint(&mut self, now: Instant, checkpoint: Checkpoint) -> Result<(), Refused> {
        let length = framed(checkpoint.encoded_len());
        if length > frame::MAX_SMALL_RECORD_BYTES {
            return Err(Refused::TooLarge(length));
        }
        let checkpoints = &mut self.open.records.checkpoints;
        match checkpoints.iter_mut().find(|known| known.shard == checkpoint.shard) {
            Some(known) => {
                self.open.raw_bytes = self.open.raw_bytes - framed(known.encoded_len()) + length;
                *known = checkpoint;
            }
            None => {
                self.open.raw_bytes += length;
                checkpoints.push(checkpoint);
            }
        }
        if self.open.closes_at.is_none() {
            let earliest = self.checkpoints_closed.map(|closed| closed + self.bounds.checkpoint_interval);
            let closes_at = now + self.bounds.age;
            self.open.closes_at = Some(earliest.map_or(closes_at, |earliest| earliest.max(closes_at)));
        }
        if self.open.records.checkpoints.len() >= BATCH_CHECKPOINTS
            || self.open.raw_bytes >= self.bounds.raw_bytes
        {
            return self.close(now);
        }
        Ok(())
    }
}

/// Length of a field of this length: its tag of one byte, and its length before it.
fn framed(length: usize) -> usize {
    1 + prost::length_delimiter_len(length) + length
}

#[cfg(test)]
mod tests;
