//! The outbox as a state machine: batches in order, encoded once, held until they are acknowledged.
//!
//! Promises: batches leave in the order in which their records came, a checkpoint never before what it covers; nothing is let
//! go of but by its acknowledgement; what is held stays within the bounds plus one record of the largest size. Deaths have room
//! after events have none.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use nodetap_wire::frame::{self, Encoder, FrameError, RecordTooLong, Run};
use nodetap_wire::{Batch, Checkpoint, LedgerEntry, Record, Records, ledger, record};
use prost::Message;

use super::held::{Disk, Held, Load, Place, Policy, Recovered, Spill};
use super::{Mark, Taken, Told};

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
    /// As `age`, while nobody is there to send to: nobody waits for it either, and larger batches are fewer.
    pub away_age: Duration,
    /// Bytes in memory, with the open batch.
    pub memory_bytes: usize,
    /// Bytes in memory beyond those, for deaths alone.
    pub memory_reserve: usize,
    /// Bytes on the disk and in memory together.
    pub disk_bytes: usize,
    /// The last of those, which are for deaths alone.
    pub disk_reserve: usize,
    /// How long an acknowledgement is waited for before a batch of events is written to the disk.
    pub spill_after: Duration,
    /// Above this, what is on the disk is not in memory too.
    pub keep_bytes: usize,
}

/// Batches that are open, waiting, or on their way.
#[derive(Debug)]
pub struct Queue {
    bounds: Bounds,
    encoder: Encoder,
    open: Open,
    /// The records of the open batch. What it takes for them is kept for the next one.
    run: Run,
    held: Held,
    /// How many of `held` have been sent on the stream of now.
    sent: usize,
    /// The highest sequence sent on any stream: one that is sent again is at most this.
    sent_ever: u64,
    /// The batch that has to be safe, and who waits for it; in order. Each asker has one under way.
    marks: VecDeque<(u64, Mark)>,
    /// When the last batch of checkpoints alone was closed.
    checkpoints_closed: Option<Instant>,
    /// There is nobody to send to.
    away: bool,
    /// Everything is to be on the disk at once, if it is not acknowledged.
    hurried: bool,
}

/// The batch that is being filled.
#[derive(Debug, Default)]
struct Open {
    /// What goes with its records: checkpoints and entries of the ledger.
    beside: Records,
    raw_bytes: usize,
    deaths: bool,
    /// When its first record came.
    since: Option<Instant>,
    /// When its first checkpoint came.
    checkpoint_since: Option<Instant>,
    /// When its first entry of the ledger came.
    ledger_since: Option<Instant>,
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

/// Entries of the ledger in a batch: more than a whole ledger has, and with the checkpoints no more than `frame::decode` takes.
const BATCH_ENTRIES: usize = 3_000;
const _: () = assert!(ledger::MAX_ENTRIES < BATCH_ENTRIES);
const _: () = assert!(BATCH_ENTRIES + BATCH_CHECKPOINTS <= frame::MAX_RECORDS);

/// Of the largest batch, what is left for what comes beside: checkpoints.
const TOLD_SLACK: usize = 1 << 20;

// === impl Bounds ===

impl Default for Bounds {
    fn default() -> Self {
        Self {
            records: frame::BATCH_RECORDS,
            raw_bytes: frame::BATCH_RAW_BYTES,
            age: Duration::from_millis(50),
            checkpoint_interval: Duration::from_secs(5),
            away_age: Duration::from_secs(2),
            memory_bytes: 8 << 20,
            memory_reserve: 1 << 20,
            disk_bytes: 256 << 20,
            disk_reserve: 32 << 20,
            spill_after: Duration::from_millis(250),
            keep_bytes: 2 << 20,
        }
    }
}

impl Bounds {
    /// With so many bytes on the disk, an eighth of them for deaths alone.
    pub fn on_disk(bytes: usize) -> Self {
        Self { disk_bytes: bytes, disk_reserve: bytes / 8, ..Self::default() }
    }
}

// === impl Queue ===

impl Queue {
    /// An empty one; its first batch has sequence 1.
    pub fn new(bounds: Bounds) -> Self {
        let policy = Policy { spill_after: bounds.spill_after, keep_bytes: bounds.keep_bytes };
        Self {
            bounds,
            encoder: Encoder::default(),
            open: Open::default(),
            run: Run::default(),
            held: Held::new(policy),
            sent: 0,
            sent_ever: 0,
            marks: VecDeque::new(),
            checkpoints_closed: None,
            away: false,
            hurried: false,
        }
    }

    /// Whether one more event may be taken. Where not, whoever takes has to wait for an acknowledgement.
    pub fn has_room(&self) -> bool {
        self.fits(0, self.bounds.disk_reserve)
    }

    /// Whether one more death may be taken.
    pub fn has_room_for_deaths(&self) -> bool {
        self.fits(self.bounds.memory_reserve, 0)
    }

    /// Takes one.
    ///
    /// # Errors
    /// Where it can never be sent; the queue goes on without it.
    pub fn take(&mut self, now: Instant, taken: Taken) -> Result<(), Refused> {
        match taken {
            Taken::Record(record) => self.take_record(now, &record),
            Taken::Events(events) => self.take_events(now, &events),
            Taken::Checkpoint(checkpoint) => self.take_checkpoint(now, checkpoint),
            Taken::Told(told) => self.take_told(now, told),
            Taken::Mark(mark) => {
                let last = self.last_sequence() + u64::from(self.open.since.is_some());
                self.marks.push_back((last, mark));
                self.reach();
                Ok(())
            }
        }
    }

    /// When the open batch is to be closed; `None` where it may stay open.
    pub fn closes_at(&self) -> Option<Instant> {
        if let Some(since) = self.open.since {
            let patient = self.away && !self.open.deaths && !self.hurried;
            return Some(since + if patient { self.bounds.away_age } else { self.bounds.age });
        }
        if self.away {
            // The last checkpoint of each shard stands for all before it, and so does the last entry of each pod.
            return None;
        }
        let earliest = self.checkpoints_closed.map(|closed| closed + self.bounds.checkpoint_interval);
        let checkpoints = self.open.checkpoint_since.map(|since| since + self.bounds.age);
        let checkpoints = checkpoints.map(|at| earliest.map_or(at, |earliest| earliest.max(at)));
        let ledger = self.open.ledger_since.map(|since| since + self.bounds.age);
        checkpoints.into_iter().chain(ledger).min()
    }

    /// Closes the open batch where its time has come.
    ///
    /// # Errors
    /// Where it cannot be packed; its records are gone.
    pub fn close_due(&mut self, now: Instant) -> Result<(), Refused> {
        if self.closes_at().is_some_and(|at| at <= now) { self.close(now) } else { Ok(()) }
    }

    /// Closes the open batch, whatever its age.
    ///
    /// # Errors
    /// Where it cannot be packed; its records are gone.
    pub fn close(&mut self, now: Instant) -> Result<(), Refused> {
        let open = std::mem::take(&mut self.open);
        if open.is_empty() {
            return Ok(());
        }
        let records = self.run.len();
        if records == 0 && open.checkpoint_since.is_some() {
            self.checkpoints_closed = Some(now);
        }
        let batch = self
            .encoder
            .encode(self.held.next_sequence(), &mut self.run, &open.beside)
            .map_err(|error| Refused::Unpackable(records, error))?;
        self.held.push(now, &batch, open.deaths);
        Ok(())
    }

    /// The next batch to send, where fewer than `window` are on their way and its payload is in memory.
    pub fn send(&mut self, window: usize) -> Option<Outgoing> {
        if self.sent >= window {
            return None;
        }
        let batch = self.held.get(self.sent)?;
        self.sent += 1;
        let again = batch.sequence <= self.sent_ever;
        self.sent_ever = self.sent_ever.max(batch.sequence);
        Some(Outgoing { batch, again })
    }

    /// Whether [`send`](Self::send) would give one.
    pub fn can_send(&self, window: usize) -> bool {
        self.sent < window && self.held.get(self.sent).is_some()
    }

    /// Lets go of everything up to and with a sequence.
    ///
    /// # Errors
    /// Where that was not sent on this stream; nothing is let go of.
    pub fn acknowledge(&mut self, sequence: u64) -> Result<Acknowledged, NotSent> {
        let sent = self.before_first() + self.sent as u64;
        if sequence > sent {
            return Err(NotSent { sequence, sent });
        }
        let mut acknowledged = Acknowledged::default();
        while self.before_first() < sequence
            && let Some(records) = self.held.pop()
        {
            self.sent -= 1;
            acknowledged.batches += 1;
            acknowledged.records += records as usize;
        }
        self.reach();
        Ok(acknowledged)
    }

    /// The stream was cut: everything that is not acknowledged is to be sent again.
    pub fn rewind(&mut self) {
        self.sent = 0;
    }

    /// Whether there is nobody to send to.
    pub fn set_away(&mut self, away: bool) {
        self.away = away;
        self.held.set_away(away || self.hurried);
    }

    /// From now on everything is to be on the disk at once, if it is not acknowledged: the process is about to end.
    pub fn hurry(&mut self) {
        self.hurried = true;
        self.held.set_away(true);
    }

    /// Takes what an earlier process left on the disk, oldest first; it goes after what is held.
    pub fn recover(&mut self, now: Instant, now_ns: i64, left: Vec<Recovered>) {
        self.held.recover(now, now_ns, left);
    }

    /// Whether the disk takes what is written.
    pub fn set_disk(&mut self, disk: Disk) {
        self.held.set_disk(disk);
    }

    /// Whether the disk takes what is written.
    pub fn disk(&self) -> Disk {
        self.held.disk()
    }

    /// The next batch to be written to the disk now.
    pub fn spill(&mut self, now: Instant) -> Option<Spill> {
        self.held.spill(now)
    }

    /// When there is something to be written to the disk.
    pub fn next_spill(&self) -> Option<Instant> {
        self.held.next_spill()
    }

    /// A batch is on the disk.
    pub fn written(&mut self, sequence: u64, place: Place) {
        self.held.written(sequence, place, self.sent);
        self.reach();
    }

    /// A batch could not be written to the disk.
    pub fn not_written(&mut self, sequence: u64) {
        self.held.not_written(sequence);
    }

    /// The next batch to be read from the disk, of the `window` that are sent next, where there is somebody to send to.
    pub fn load(&mut self, window: usize) -> Option<Load> {
        if self.away { None } else { self.held.load(self.sent, window) }
    }

    /// A batch was read from the disk, or is lost there. Answers how many records are.
    pub fn loaded(&mut self, sequence: u64, batch: Option<Batch>) -> u32 {
        self.held.loaded(sequence, batch)
    }

    /// Places on the disk whose batches are acknowledged. Empties the list.
    pub fn releases(&mut self) -> Vec<Place> {
        self.held.releases()
    }

    /// Batches on their way.
    pub fn in_flight(&self) -> usize {
        self.sent
    }

    /// Bytes held, wherever they are, the open batch uncompressed.
    pub fn bytes(&self) -> usize {
        self.held.bytes() + self.open.raw_bytes
    }

    /// Bytes in memory, the open batch uncompressed.
    pub fn memory_bytes(&self) -> usize {
        self.held.memory_bytes() + self.open.raw_bytes
    }

    /// Records that are not acknowledged, those of the open batch among them.
    pub fn records(&self) -> usize {
        self.held.records() + self.run.len()
    }

    /// How many records a batch that is held has; 0 where it is not.
    pub fn records_of(&self, sequence: u64) -> u32 {
        self.held.records_of(sequence)
    }

    /// The sequence of the last batch that was closed.
    pub fn last_sequence(&self) -> u64 {
        self.held.next_sequence() - 1
    }

    /// Batches that are closed and not acknowledged: all of them, and those that are on the disk.
    pub fn batches(&self) -> (usize, usize) {
        (self.held.len(), self.held.on_disk())
    }

    /// Batches that would go with this process.
    pub fn unwritten(&self) -> usize {
        self.held.unwritten() + usize::from(self.open.since.is_some())
    }

    /// When the oldest batch that is not acknowledged was closed.
    pub fn oldest(&self) -> Option<Instant> {
        self.held.oldest()
    }

    /// Nothing is open and nothing is held.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty() && self.open.is_empty()
    }

    fn reach(&mut self) {
        let safe = self.held.safe_to();
        while let Some((_, mark)) = self.marks.pop_front_if(|(last, _)| *last <= safe) {
            mark.reach();
        }
    }

    fn before_first(&self) -> u64 {
        self.held.before_first()
    }

    fn fits(&self, memory_reserve: usize, disk_reserve: usize) -> bool {
        let Bounds { memory_bytes, disk_bytes, .. } = self.bounds;
        let disk = match self.held.disk() {
            Disk::Usable => self.bytes() < disk_bytes.saturating_sub(disk_reserve),
            Disk::Unusable => true,
        };
        disk && self.memory_bytes() < memory_bytes + memory_reserve
    }

    fn take_record(&mut self, now: Instant, record: &Record) -> Result<(), Refused> {
        self.put_record(now, record)?;
        self.close_full(now)
    }

    /// Takes events into as many batches as if each had come alone.
    fn take_events(&mut self, now: Instant, events: &Run) -> Result<(), Refused> {
        let mut taken = 0;
        let mut refused = Ok(());
        while taken < events.len() {
            let records = self.bounds.records.saturating_sub(self.run.len());
            let bytes = self.bounds.raw_bytes.saturating_sub(self.open.raw_bytes);
            let before = self.run.bytes();
            taken += self.run.put_some(events, taken, records, bytes);
            self.open.since.get_or_insert(now);
            self.open.raw_bytes += self.run.bytes() - before;
            refused = refused.and(self.close_full(now));
        }
        refused
    }

    fn close_full(&mut self, now: Instant) -> Result<(), Refused> {
        if self.run.len() >= self.bounds.records || self.open.raw_bytes >= self.bounds.raw_bytes {
            return self.close(now);
        }
        Ok(())
    }

    fn put_record(&mut self, now: Instant, record: &Record) -> Result<(), Refused> {
        if record.kind.is_none() {
            return Err(Refused::Empty);
        }
        let before = self.run.bytes();
        self.run.put(record).map_err(|RecordTooLong(length)| Refused::TooLarge(length))?;
        self.open.since.get_or_insert(now);
        self.open.deaths |= matches!(record.kind, Some(record::Kind::Death(_)));
        self.open.raw_bytes += self.run.bytes() - before;
        Ok(())
    }

    /// Takes deaths and entries of the ledger into one batch.
    fn take_told(&mut self, now: Instant, told: Told) -> Result<(), Refused> {
        let Told { records, ledger: entries, first } = told;
        let bytes: usize = records.iter().map(|record| framed(record.encoded_len())).sum::<usize>()
            + entries.iter().map(|entry| framed(entry.encoded_len())).sum::<usize>();
        let is_large = self.open.raw_bytes + bytes > frame::MAX_RAW_BYTES - TOLD_SLACK;
        let is_long = self.open.beside.ledger.len() + entries.len() > BATCH_ENTRIES
            || self.run.len() + records.len() > frame::MAX_RECORDS;
        let mut refused = if is_large || is_long { self.close(now) } else { Ok(()) };
        if first {
            let before = std::mem::take(&mut self.open.beside.ledger);
            self.open.raw_bytes -= before.iter().map(|entry| framed(entry.encoded_len())).sum::<usize>();
            self.open.beside.ledger_first = true;
        }
        for entry in entries {
            self.open.ledger_since.get_or_insert(now);
            self.put_entry(entry, first);
        }
        for record in records {
            refused = refused.and(self.put_record(now, &record));
        }
        refused.and(self.close_full(now))
    }

    /// The last of a pod stands for those before it. `first`: there is none before it.
    fn put_entry(&mut self, entry: LedgerEntry, first: bool) {
        let Open { beside, raw_bytes, .. } = &mut self.open;
        *raw_bytes += framed(entry.encoded_len());
        let mut known = beside.ledger.iter_mut().filter(|_| !first);
        match known.find(|known| known.pod_uid == entry.pod_uid) {
            Some(known) => {
                *raw_bytes -= framed(known.encoded_len());
                *known = entry;
            }
            None => beside.ledger.push(entry),
        }
    }

    fn take_checkpoint(&mut self, now: Instant, checkpoint: Checkpoint) -> Result<(), Refused> {
        let length = framed(checkpoint.encoded_len());
        if length > frame::MAX_SMALL_RECORD_BYTES {
            return Err(Refused::TooLarge(length));
        }
        let checkpoints = &mut self.open.beside.checkpoints;
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
        self.open.checkpoint_since.get_or_insert(now);
        if self.open.beside.checkpoints.len() >= BATCH_CHECKPOINTS
            || self.open.raw_bytes >= self.bounds.raw_bytes
        {
            return self.close(now);
        }
        Ok(())
    }
}

// === impl Open ===

impl Open {
    fn is_empty(&self) -> bool {
        self.since.is_none() && self.checkpoint_since.is_none() && self.ledger_since.is_none()
    }
}

/// Length of a field of this length: its tag of one byte, and its length before it.
fn framed(length: usize) -> usize {
    1 + prost::length_delimiter_len(length) + length
}

#[cfg(test)]
mod tests;
