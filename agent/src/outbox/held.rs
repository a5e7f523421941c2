//! Batches that are closed and not acknowledged: what of them is in memory, what is on the disk, what is on its way.
//!
//! A batch is written only where its acknowledgement does not come soon, or at once where it holds a death; it leaves the memory
//! once it is on the disk and more waits than is sent next. Sequences have no gap: a batch that the disk lost is sent empty.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use nodetap_wire::{Batch, Records, frame};

/// What a batch costs beside its payload: its entry here and its header on the disk, rounded up, so that many small batches
/// are bounded too.
pub const OVERHEAD: usize = 512;

/// Where a batch stands on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// The segment's number.
    pub segment: u64,
    /// Where its entry begins, in bytes.
    pub offset: u32,
    /// Length of the entry in bytes, with its header.
    pub length: u32,
}

/// A batch that an earlier process left on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// Where it stands.
    pub place: Place,
    /// How many records it holds.
    pub records: u32,
    /// Length of its payload once decompressed.
    pub raw_bytes: u32,
    /// When it was closed, in nanoseconds since 1970.
    pub closed_ns: i64,
}

/// A batch to be written.
#[derive(Clone, Debug)]
pub struct Spill {
    /// What.
    pub batch: Batch,
    /// When it was closed.
    pub closed: Instant,
}

/// A batch to be read back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Its sequence now.
    pub sequence: u64,
    /// Where it stands.
    pub place: Place,
    /// It is of an earlier process, whose checkpoints say nothing any more.
    pub recovered: bool,
}

/// Whether there is a disk to write to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Disk {
    /// None, or one that fails.
    #[default]
    Unusable,
    /// One that takes what is written.
    Usable,
}

/// When batches are written, and how many bytes of them stay in memory.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// How long an acknowledgement is waited for.
    pub spill_after: Duration,
    /// Payloads that are on the disk too leave the memory above this.
    pub keep_bytes: usize,
}

/// The batches, oldest first.
#[derive(Debug)]
pub struct Held {
    policy: Policy,
    batches: VecDeque<One>,
    /// Sequence of the first of them, or of the next one.
    first: u64,
    memory_bytes: usize,
    bytes: usize,
    records: usize,
    on_disk: usize,
    disk: Disk,
    /// Nobody acknowledges for now: there is no use in waiting for it.
    away: bool,
    /// Below it nothing is to be written.
    unspilled_from: u64,
    /// Up to this sequence everything is acknowledged or on the disk.
    safe: u64,
    releases: Vec<Place>,
    loading: usize,
}

#[derive(Debug)]
struct One {
    records: u32,
    raw_bytes: u32,
    length: u32,
    deaths: bool,
    loading: bool,
    closed: Instant,
    payload: Option<Bytes>,
    kept: Kept,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kept {
    Memory,
    /// It is being written.
    Asked,
    Disk(Place),
    /// As `Disk`, of an earlier process.
    Recovered(Place),
}

// === impl Held ===

impl Held {
    /// None; the first one has sequence 1.
    pub fn new(policy: Policy) -> Self {
        Self {
            policy,
            batches: VecDeque::new(),
            first: 1,
            memory_bytes: 0,
            bytes: 0,
            records: 0,
            on_disk: 0,
            disk: Disk::default(),
            away: false,
            unspilled_from: 1,
            safe: 0,
            releases: Vec::new(),
            loading: 0,
        }
    }

    /// The sequence of the next batch.
    pub fn next_sequence(&self) -> u64 {
        self.first + self.batches.len() as u64
    }

    /// The sequence before the first one held.
    pub fn before_first(&self) -> u64 {
        self.first - 1
    }

    /// Takes a batch, whose sequence is the next.
    pub fn push(&mut self, now: Instant, batch: &Batch, deaths: bool) {
        self.memory_bytes += charged(batch.payload.len());
        self.add(One {
            records: batch.records,
            raw_bytes: batch.raw_bytes,
            // Bounded by `frame::MAX_MESSAGE_BYTES`.
            length: u32::try_from(batch.payload.len()).unwrap_or(u32::MAX),
            deaths,
            loading: false,
            closed: now,
            payload: Some(batch.payload.clone()),
            kept: Kept::Memory,
        });
    }

    /// Takes what an earlier process left, oldest first.
    pub fn recover(&mut self, now: Instant, now_ns: i64, left: Vec<Recovered>) {
        for Recovered { place, records, raw_bytes, closed_ns } in left {
            let age = Duration::from_nanos(u64::try_from(now_ns.saturating_sub(closed_ns)).unwrap_or(0));
            self.on_disk += 1;
            self.add(One {
                records,
                raw_bytes,
                length: place.length,
                deaths: false,
                loading: false,
                closed: now.checked_sub(age).unwrap_or(now),
                payload: None,
                kept: Kept::Recovered(place),
            });
        }
    }

    /// The batch at a place in the order, where its payload is in memory.
    pub fn get(&self, at: usize) -> Option<Batch> {
        let one = self.batches.get(at)?;
        Some(one.batch(self.first + at as u64, one.payload.clone()?))
    }

    /// Lets go of the first one. Answers how many records it held.
    pub fn pop(&mut self) -> Option<u32> {
        let one = self.batches.pop_front()?;
        self.first += 1;
        self.forget_payload(one.payload.as_ref());
        self.bytes -= charged(one.length as usize);
        self.records -= one.records as usize;
        if one.loading {
            self.loading -= 1;
            self.memory_bytes -= charged(one.length as usize);
        }
        if let Kept::Disk(place) | Kept::Recovered(place) = one.kept {
            self.on_disk -= 1;
            self.releases.push(place);
        }
        Some(one.records)
    }

    /// Whether anybody can acknowledge now.
    pub fn set_away(&mut self, away: bool) {
        self.away = away;
    }

    /// Whether the disk takes what is written.
    pub fn set_disk(&mut self, disk: Disk) {
        self.disk = disk;
        self.unspilled_from = self.first;
    }

    /// Whether the disk takes what is written.
    pub fn disk(&self) -> Disk {
        self.disk
    }

    /// The next batch to be written now.
    pub fn spill(&mut self, now: Instant) -> Option<Spill> {
        if self.disk == Disk::Unusable {
            return None;
        }
        self.unspilled_from = self.unspilled_from.max(self.first);
        let mut at = self.index(self.unspilled_from)?;
        while self.batches.get(at).is_some_and(|one| !one.is_unspilled()) {
            at += 1;
            self.unspilled_from += 1;
        }
        let due = |one: &One| one.is_unspilled() && self.spill_at(one) <= now;
        let at = (at..self.batches.len()).find(|at| self.batches.get(*at).is_some_and(due))?;
        let sequence = self.first + at as u64;
        let one = self.batches.get_mut(at)?;
        one.kept = Kept::Asked;
        Some(Spill { batch: one.batch(sequence, one.payload.clone()?), closed: one.closed })
    }

    /// When [`spill`](Self::spill) gives the next one, as far as is known.
    pub fn next_spill(&self) -> Option<Instant> {
        if self.disk == Disk::Unusable {
            return None;
        }
        let from = self.index(self.unspilled_from.max(self.first))?;
        // Those behind the first were closed later; deaths are written as soon as they are closed.
        self.batches.range(from..).find(|one| one.is_unspilled()).map(|one| self.spill_at(one))
    }

    /// How many batches are neither on the disk nor of checkpoints alone.
    pub fn unwritten(&self) -> usize {
        self.batches
            .iter()
            .filter(|one| one.records > 0 && matches!(one.kept, Kept::Memory | Kept::Asked))
            .count()
    }

    /// A batch is on the disk. `sent` of those held are on their way.
    pub fn written(&mut self, sequence: u64, place: Place, sent: usize) {
        let crowded = self.memory_bytes > self.policy.keep_bytes;
        let Some(at) = self.index(sequence) else { return self.releases.push(place) };
        let Some(one) = self.batches.get_mut(at) else { return self.releases.push(place) };
        one.kept = Kept::Disk(place);
        self.on_disk += 1;
        if crowded && at >= sent {
            let payload = one.payload.take();
            self.forget_payload(payload.as_ref());
        }
    }

    /// A batch could not be written.
    pub fn not_written(&mut self, sequence: u64) {
        if let Some(one) = self.index(sequence).and_then(|at| self.batches.get_mut(at)) {
            one.kept = Kept::Memory;
            self.unspilled_from = self.unspilled_from.min(sequence);
        }
    }

    /// The next batch to be read back, of those that are sent next.
    pub fn load(&mut self, sent: usize, window: usize) -> Option<Load> {
        let missing = |one: &One| one.payload.is_none() && !one.loading;
        let end = self.batches.len().min(window);
        let at = (sent..end).find(|at| self.batches.get(*at).is_some_and(missing))?;
        if self.memory_bytes >= self.policy.keep_bytes && (at > sent || self.loading > 0) {
            return None;
        }
        let sequence = self.first + at as u64;
        let one = self.batches.get_mut(at)?;
        let (place, recovered) = match one.kept {
            Kept::Disk(place) => (place, false),
            Kept::Recovered(place) => (place, true),
            Kept::Memory | Kept::Asked => return None,
        };
        one.loading = true;
        self.loading += 1;
        self.memory_bytes += charged(one.length as usize);
        Some(Load { sequence, place, recovered })
    }

    /// A batch was read back; `None`: the disk has lost it, and an empty one takes its place. Answers how many records are gone.
    pub fn loaded(&mut self, sequence: u64, batch: Option<Batch>) -> u32 {
        let Some(one) = self.index(sequence).and_then(|at| self.batches.get_mut(at)) else { return 0 };
        if std::mem::take(&mut one.loading) {
            self.loading -= 1;
            self.memory_bytes -= charged(one.length as usize);
        }
        let before = one.records;
        let batch = batch.or_else(|| frame::encode(sequence, &Records::default()).ok()).unwrap_or_default();
        one.records = batch.records;
        one.raw_bytes = batch.raw_bytes;
        self.memory_bytes += charged(batch.payload.len());
        one.payload = Some(batch.payload);
        let gone = before.saturating_sub(batch.records);
        self.records -= gone as usize;
        gone
    }

    /// The sequence up to which everything is acknowledged or on the disk. Checkpoints alone need not be.
    pub fn safe_to(&mut self) -> u64 {
        self.safe = self.safe.max(self.before_first());
        let is_safe = |one: &One| one.records == 0 || matches!(one.kept, Kept::Disk(_) | Kept::Recovered(_));
        while self.index(self.safe + 1).and_then(|at| self.batches.get(at)).is_some_and(is_safe) {
            self.safe += 1;
        }
        self.safe
    }

    /// Places whose batches are acknowledged. Empties the list.
    pub fn releases(&mut self) -> Vec<Place> {
        std::mem::take(&mut self.releases)
    }

    /// Batches.
    pub fn len(&self) -> usize {
        self.batches.len()
    }

    /// None is held.
    pub fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// Records in them.
    pub fn records(&self) -> usize {
        self.records
    }

    /// How many records one of them has; 0 where it is not held.
    pub fn records_of(&self, sequence: u64) -> u32 {
        self.index(sequence).and_then(|at| self.batches.get(at)).map_or(0, |one| one.records)
    }

    /// Bytes of all of them, wherever they are, with their overhead.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes of the payloads in memory, with their overhead.
    pub fn memory_bytes(&self) -> usize {
        self.memory_bytes
    }

    /// Batches that are on the disk.
    pub fn on_disk(&self) -> usize {
        self.on_disk
    }

    /// When the oldest one was closed.
    pub fn oldest(&self) -> Option<Instant> {
        self.batches.front().map(|one| one.closed)
    }

    fn add(&mut self, one: One) {
        self.bytes += charged(one.length as usize);
        self.records += one.records as usize;
        self.batches.push_back(one);
    }

    fn spill_at(&self, one: &One) -> Instant {
        if one.deaths || self.away { one.closed } else { one.closed + self.policy.spill_after }
    }

    fn index(&self, sequence: u64) -> Option<usize> {
        let at = usize::try_from(sequence.checked_sub(self.first)?).ok()?;
        (at < self.batches.len()).then_some(at)
    }

    fn forget_payload(&mut self, payload: Option<&Bytes>) {
        self.memory_bytes -= payload.map_or(0, |payload| charged(payload.len()));
    }
}

// === impl One ===

impl One {
    fn batch(&self, sequence: u64, payload: Bytes) -> Batch {
        Batch { sequence, records: self.records, raw_bytes: self.raw_bytes, payload }
    }

    /// Checkpoints alone are not written: a process that starts again does not go by them.
    fn is_unspilled(&self) -> bool {
        self.kept == Kept::Memory && self.records > 0
    }
}

fn charged(length: usize) -> usize {
    length + OVERHEAD
}
