//! The outbox as the link has it: the queue, and the disk that it spills to, or none.
//!
//! Owned by one task. [`Spool::drive`] hands the disk what is due, [`Spool::happened`] is what there is to wait for. A disk that
//! fails is tried again every few seconds; until then what is taken is in memory, within the bounds of the memory.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam_channel::TrySendError;
use nodetap_wire::time::now_ns;
use nodetap_wire::{Batch, HeldWatch, Record, record};
use tokio::time::{Instant, timeout};

use super::disk::{self, Answer, Command, Failure, Handle, Left};
use super::held::{Disk, Load, Spill};
use super::metrics::{DamageKind, DropReason, ErrorReason, Metrics};
use super::queue::{Acknowledged, Bounds, NotSent, Outgoing, Queue, Refused};
use super::{Taken, Told};

/// Between two attempts on a disk that failed.
const RETRY: Duration = Duration::from_secs(5);

/// A disk that takes longer for one group does not get on: what is taken meanwhile is in memory alone.
const STALLED: Duration = Duration::from_secs(10);

/// How long the start waits for what an earlier process left, so that it goes first: 256 MiB take a second.
const OPENING: Duration = Duration::from_secs(5);

/// How long the end waits for what is to be written.
const CLOSING: Duration = Duration::from_secs(2);

/// How often a batch is read that a failing disk does not give, before it is lost: ten minutes.
const READS: u32 = 120;

/// Batches that are sent one after the other, before an acknowledgement, are read back together.
const READ_AHEAD: usize = 16;

/// What the outbox is to be.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Its folder; none: in memory only.
    pub folder: Option<PathBuf>,
    /// Its bounds.
    pub bounds: Bounds,
}

/// The outbox.
#[derive(Debug)]
pub struct Spool {
    queue: Queue,
    disk: Option<Handle>,
    metrics: Metrics,
    /// What found no room on its way to the disk.
    spill: Option<Spill>,
    load: Option<Load>,
    /// What the disk did not give; bounded by what is read ahead.
    rereads: Vec<Reread>,
    releases: Vec<super::held::Place>,
    watches: Option<Vec<HeldWatch>>,
    /// Watches whose records an earlier process left.
    formerly: Vec<HeldWatch>,
    /// Sequences up to this one are of an earlier process.
    recovered_to: u64,
    retry_at: Option<Instant>,
    /// Since when writes wait for an answer, and how many of them.
    writing: Option<(Instant, usize)>,
    trying: bool,
    /// What was said last of whether the disk can be used.
    said: Option<Disk>,
    full_since: Option<Instant>,
    /// Facts of pods found no room: all of them are to be told again.
    facts_dropped: bool,
    /// Entries of the ledger found none.
    ledger_dropped: bool,
}

/// A batch that the disk did not give.
#[derive(Debug)]
struct Reread {
    load: Load,
    tries: u32,
    /// When it is asked for again; none: it is being read.
    at: Option<Instant>,
}

// === impl Spool ===

impl Spool {
    /// Opens it. Waits for what an earlier process left, within a bound; what comes later goes behind what is taken by then.
    pub async fn open(settings: Settings, metrics: Metrics) -> Self {
        let Settings { folder, bounds } = settings;
        let disk = folder.and_then(|folder| match disk::start(folder) {
            Ok(handle) => Some(handle),
            Err(error) => {
                metrics.failed(ErrorReason::io);
                tracing::error!(%error, "the outbox's thread cannot be started");
                None
            }
        });
        metrics.in_memory.set(1);
        let mut spool = Self {
            queue: Queue::new(bounds),
            disk,
            metrics,
            spill: None,
            load: None,
            rereads: Vec::new(),
            releases: Vec::new(),
            watches: None,
            formerly: Vec::new(),
            recovered_to: 0,
            retry_at: None,
            writing: None,
            trying: false,
            said: None,
            full_since: None,
            facts_dropped: false,
            ledger_dropped: false,
        };
        spool.queue.set_away(true);
        match &mut spool.disk {
            None => tracing::warn!(
                "the outbox is in memory only: what is not acknowledged goes with this process; give --state"
            ),
            Some(disk) => match timeout(OPENING, disk.answers.recv()).await {
                Ok(answer) => spool.answered(answer),
                Err(_) => {
                    tracing::warn!("the outbox's disk does not answer: the outbox is in memory until it does")
                }
            },
        }
        spool
    }

    /// Whether one more event may be taken.
    pub fn has_room(&self) -> bool {
        self.queue.has_room()
    }

    /// Takes one. A death that not even the reserve has room for is dropped; events are not to be taken then.
    pub fn take(&mut self, taken: Taken) {
        let taken = match taken {
            Taken::Told(told) => return self.take_told(told),
            taken => taken,
        };
        let kind = match &taken {
            Taken::Record(Record { kind }) => kind.as_ref(),
            Taken::Events(_) | Taken::Checkpoint(_) | Taken::Mark(_) | Taken::Told(_) => None,
        };
        match kind {
            Some(record::Kind::Death(_)) if !self.queue.has_room_for_deaths() => {
                self.metrics.gone(DropReason::full, 1);
                return;
            }
            // Where they are of use again, they are told again.
            Some(record::Kind::Pod(_)) if !self.queue.has_room() => {
                self.facts_dropped = true;
                return;
            }
            _ => {}
        }
        let refused = self.queue.take(now(), taken);
        self.refused(refused);
    }

    /// Entries that find no room go with the deaths beside them, which are counted.
    fn take_told(&mut self, told: Told) {
        let has_room = match told.records.len() {
            0 => self.queue.has_room(),
            _ => self.queue.has_room_for_deaths(),
        };
        if !has_room {
            self.ledger_dropped |= !told.ledger.is_empty();
            self.metrics.gone(DropReason::full, told.records.len() as u64);
            return;
        }
        let refused = self.queue.take(now(), Taken::Told(told));
        self.refused(refused);
    }

    /// Whether entries of the ledger were dropped since this was last asked, and there is room for all of it now.
    pub fn take_ledger_dropped(&mut self) -> bool {
        self.queue.has_room() && std::mem::take(&mut self.ledger_dropped)
    }

    /// Whether facts of pods were dropped since this was last asked, and there is room for them now.
    pub fn take_facts_dropped(&mut self) -> bool {
        self.queue.has_room() && std::mem::take(&mut self.facts_dropped)
    }

    /// Closes the open batch where its time has come.
    pub fn close_due(&mut self) {
        let refused = self.queue.close_due(now());
        self.refused(refused);
    }

    /// Closes the open batch, and has everything that is not acknowledged on the disk at once: the process is about to end.
    pub fn close(&mut self) {
        self.queue.hurry();
        let refused = self.queue.close(now());
        self.refused(refused);
    }

    /// The next batch to send.
    pub fn send(&mut self, window: usize) -> Option<Outgoing> {
        self.queue.send(window)
    }

    /// Whether [`send`](Self::send) would give one.
    pub fn can_send(&self, window: usize) -> bool {
        self.queue.can_send(window)
    }

    /// Lets go of everything up to and with a sequence.
    ///
    /// # Errors
    /// Where that was not sent on this stream; nothing is let go of.
    pub fn acknowledge(&mut self, sequence: u64) -> Result<Acknowledged, NotSent> {
        let acknowledged = self.queue.acknowledge(sequence)?;
        if let Some(disk) = &self.disk {
            disk.acknowledged.fetch_max(sequence, Ordering::Relaxed);
        }
        if sequence >= self.recovered_to {
            self.formerly.clear();
        }
        Ok(acknowledged)
    }

    /// A stream is open: everything that is not acknowledged is to be sent on it.
    pub fn opened(&mut self) {
        self.queue.rewind();
        self.queue.set_away(false);
    }

    /// There is no stream.
    pub fn lost(&mut self) {
        self.queue.set_away(true);
    }

    /// Watches of an earlier process whose records are among what is held.
    pub fn formerly(&self) -> &[HeldWatch] {
        &self.formerly
    }

    /// Which watches this agent holds, for the process after this one.
    pub fn hold(&mut self, watches: Vec<HeldWatch>) {
        self.watches = Some(watches);
    }

    /// Records that are not acknowledged.
    pub fn records(&self) -> usize {
        self.queue.records()
    }

    /// Nothing is held.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// When [`drive`](Self::drive) and [`close_due`](Self::close_due) have something to do.
    pub fn wakes_at(&self) -> Option<Instant> {
        // A disk that has no room for more commands says when it has.
        let spill = if self.spill.is_some() { None } else { self.queue.next_spill() };
        let closes = self.queue.closes_at();
        let stalled = self.writing.map(|(since, _)| since + STALLED).filter(|_| self.retry_at.is_none());
        let due = closes.into_iter().chain(spill).map(Instant::from_std);
        let rereads = self.rereads.iter().filter_map(|reread| reread.at);
        due.chain(self.retry_at).chain(stalled).chain(rereads).min()
    }

    /// Hands the disk what is due.
    pub fn drive(&mut self) {
        let Some(disk) = &self.disk else { return };
        let now = Instant::now();
        if self.writing.is_some_and(|(since, _)| now >= since + STALLED) && self.retry_at.is_none() {
            let message = format!("no answer to a write for {} s", STALLED.as_secs());
            self.failed(&Failure { reason: ErrorReason::stalled, message, unusable: true });
            return;
        }
        self.releases.append(&mut self.queue.releases());
        if !self.releases.is_empty() {
            let command = Command::Release(std::mem::take(&mut self.releases));
            if let Err(TrySendError::Full(Command::Release(places))) = disk.commands.try_send(command) {
                self.releases = places;
                return;
            }
        }
        if let Some(watches) = self.watches.take()
            && let Err(TrySendError::Full(Command::Watches(watches))) =
                disk.commands.try_send(Command::Watches(watches))
        {
            self.watches = Some(watches);
            return;
        }
        for reread in self.rereads.iter_mut().filter(|reread| reread.at.is_some_and(|at| at <= now)) {
            if disk.commands.try_send(Command::Read(reread.load)).is_err() {
                return;
            }
            reread.at = None;
        }
        while let Some(load) = self.load.take().or_else(|| self.queue.load(READ_AHEAD)) {
            if let Err(TrySendError::Full(_)) = disk.commands.try_send(Command::Read(load)) {
                self.load = Some(load);
                return;
            }
        }
        while let Some(spill) = self.spill.take().or_else(|| self.queue.spill(now.into_std())) {
            let age = now.into_std().saturating_duration_since(spill.closed);
            let closed_ns = now_ns().saturating_sub(i64::try_from(age.as_nanos()).unwrap_or(0));
            let command = Command::Write(spill.batch.clone(), closed_ns);
            if let Err(TrySendError::Full(_)) = disk.commands.try_send(command) {
                self.spill = Some(spill);
                return;
            }
            let (_, writes) = self.writing.get_or_insert((now, 0));
            *writes += 1;
        }
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = Some(now + RETRY);
            // One that did not answer the last one is not asked again.
            if !self.trying && disk.commands.try_send(Command::Try).is_ok() {
                self.trying = true;
            }
        }
    }

    /// Waits for what the disk has to say. May be dropped and called again.
    pub async fn happened(&mut self) {
        let Some(disk) = &mut self.disk else { return std::future::pending().await };
        let answer = disk.answers.recv().await;
        self.answered(answer);
        // What else it said meanwhile costs no turn of its own.
        while let Some(answer) = self.disk.as_mut().and_then(|disk| disk.answers.try_recv().ok()) {
            self.answered(Some(answer));
        }
    }

    /// Has everything written that is not acknowledged, within a bound, and ends the disk's thread.
    pub async fn end(mut self) {
        self.close();
        let written = async {
            while self.queue.disk() == Disk::Usable && self.queue.unwritten() > 0 {
                self.drive();
                self.happened().await;
            }
            // Not to be sent again by the process that comes next.
            self.drive();
        };
        let in_time = timeout(CLOSING, written).await.is_ok();
        let records = self.queue.records();
        let (batches, on_disk) = self.queue.batches();
        if records > 0 {
            tracing::warn!(
                records,
                batches,
                on_disk,
                in_time,
                "stopping before the aggregator acknowledged everything"
            );
        }
        if let Some(Handle { commands, mut answers, .. }) = self.disk.take() {
            drop(commands);
            let ended = async { while answers.recv().await.is_some() {} };
            // A disk that hangs is not waited for.
            let _ = timeout(CLOSING, ended).await;
        }
    }

    /// Says how it fares. Answers whether it is full.
    pub fn observe(&mut self) -> bool {
        let number = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        self.metrics.bytes.set(number(self.queue.bytes()));
        self.metrics.records.set(number(self.queue.records()));
        self.metrics.batches.set(number(self.queue.batches().0));
        let oldest = self.queue.oldest().map(|closed| now().saturating_duration_since(closed));
        let oldest = oldest.map_or(0, |age| {
            now_ns()
                .saturating_sub(i64::try_from(age.as_nanos()).unwrap_or(i64::MAX))
                .div_euclid(1_000_000_000)
        });
        self.metrics.oldest.set(oldest);
        let full = !self.queue.has_room();
        let now = Instant::now();
        if let Some(since) = self.full_since {
            self.metrics.full.inc_by(now.duration_since(since).as_secs_f64());
        }
        if full && self.full_since.is_none() {
            tracing::warn!(
                bytes = self.queue.bytes(),
                "the outbox is full: the watches wait, and deaths have its reserve"
            );
        }
        self.full_since = full.then_some(now);
        full
    }

    fn refused(&mut self, refused: Result<(), Refused>) {
        if let Err(error) = refused {
            // What went with it is not known, and is told again where it is of use.
            self.ledger_dropped |= matches!(error, Refused::Unpackable(..));
            self.metrics.count(&error);
            tracing::warn!(%error, "a record is not sent");
        }
    }

    fn answered(&mut self, answer: Option<Answer>) {
        match answer {
            Some(Answer::Opened(left)) => {
                self.recover(left);
                self.well();
            }
            Some(Answer::Written(places)) => {
                self.metrics.syncs.inc();
                self.wrote(places.len());
                for (sequence, place) in places {
                    self.metrics.spilled_batches.inc();
                    self.metrics.spilled_records.inc_by(u64::from(self.queue.records_of(sequence)));
                    self.queue.written(sequence, place);
                }
                if self.queue.disk() == Disk::Unusable {
                    self.well();
                }
            }
            Some(Answer::NotWritten(sequences)) => {
                self.wrote(sequences.len());
                sequences.into_iter().for_each(|sequence| self.queue.not_written(sequence));
            }
            Some(Answer::Read(sequence, batch)) => self.read(sequence, batch),
            Some(Answer::Unread(load)) => self.unread(load),
            Some(Answer::Failed(failure)) => {
                self.trying = false;
                self.failed(&failure);
            }
            Some(Answer::Well) => {
                self.trying = false;
                self.well();
            }
            Some(Answer::Bytes(bytes)) => {
                self.metrics.disk_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
            }
            None => {
                let message = "its thread has ended".to_owned();
                self.failed(&Failure { reason: ErrorReason::io, message, unusable: true });
                self.disk = None;
            }
        }
    }

    fn read(&mut self, sequence: u64, batch: Option<Batch>) {
        self.rereads.retain(|reread| reread.load.sequence != sequence);
        self.metrics.read_back.inc();
        let gone = self.queue.loaded(sequence, batch);
        if gone > 0 {
            self.metrics.gone(DropReason::unreadable, u64::from(gone));
            tracing::error!(records = gone, "records of the outbox cannot be read back: they are lost");
        }
    }

    fn unread(&mut self, load: Load) {
        let at = Some(Instant::now() + RETRY);
        let tries = match self.rereads.iter_mut().find(|reread| reread.load == load) {
            Some(reread) => {
                reread.tries += 1;
                reread.at = at;
                reread.tries
            }
            None => {
                self.rereads.push(Reread { load, tries: 1, at });
                1
            }
        };
        if tries >= READS {
            self.read(load.sequence, None);
        }
    }

    fn recover(&mut self, left: Left) {
        let Left { batches, damaged, torn, watches } = left;
        self.metrics.found(DamageKind::torn, torn);
        self.metrics.found(DamageKind::damaged, damaged);
        if batches.is_empty() {
            return;
        }
        let records: u64 = batches.iter().map(|batch| u64::from(batch.records)).sum();
        tracing::info!(
            records,
            batches = batches.len(),
            damaged,
            torn,
            "records of an earlier process are in the outbox"
        );
        self.metrics.recovered.inc_by(records);
        self.formerly = watches;
        self.queue.recover(now(), now_ns(), batches);
        self.recovered_to = self.queue.last_sequence();
    }

    fn wrote(&mut self, answered: usize) {
        // The clock begins anew with each answer: a slow disk gets on.
        self.writing = self
            .writing
            .map(|(_, writes)| (Instant::now(), writes.saturating_sub(answered)))
            .filter(|(_, writes)| *writes > 0);
    }

    fn failed(&mut self, failure: &Failure) {
        let Failure { reason, message, unusable } = failure;
        self.metrics.failed(*reason);
        if !unusable {
            tracing::warn!(?reason, message, "the outbox's disk failed");
            return;
        }
        self.retry_at.get_or_insert(Instant::now() + RETRY);
        self.metrics.in_memory.set(1);
        if self.said.replace(Disk::Unusable) != Some(Disk::Unusable) {
            tracing::warn!(?reason, message, retry_every = ?RETRY, "the outbox is in memory until its disk can be used");
        }
        self.queue.set_disk(Disk::Unusable);
    }

    fn well(&mut self) {
        self.retry_at = None;
        self.metrics.in_memory.set(0);
        if self.said.replace(Disk::Usable) != Some(Disk::Usable) {
            tracing::info!("the outbox is on the disk");
        }
        if self.queue.disk() == Disk::Unusable {
            self.queue.set_disk(Disk::Usable);
        }
    }
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}

#[cfg(test)]
mod tests;
