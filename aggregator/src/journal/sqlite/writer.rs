//! The journal's one writer: groups batches into transactions, starts a file a day or more, drops old ones, and puts those aside that
//! cannot be read. Owns everything that is written but cursors; a segment of the index comes to it ready.

mod files;
mod transaction;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, TrySendError};
use nodetap_wire::{Shard, record};
use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, oneshot, watch};

use self::transaction::{Done, DoneBatch, Transaction};
use super::block::Packer;
use super::cursors::{Cursors, KnownHead};
use super::folder::{self, DayFile, Failure};
use super::index::MOST_UNINDEXED;
use super::index::indexer;
use super::index::versions::Range;
use super::ledgers;
use super::lookup::Earlier;
use super::memory::Memory;
use super::recurrences::Recurrences;
use super::told::Told;
use super::{Settings, Shared, state};
use crate::enrich::Pods;
use crate::journal::metrics::{DuplicateLabel, ErrorLabel, Failed, JournalMetrics, Kind, KindLabel, Known};
use crate::journal::{Appended, Body, Entry, JournalError, Observer, Position, RememberedLedger, Taken};

/// Where a group is closed: an acknowledgement waits no longer for company, and a transaction grows no larger.
const GROUP_TIME: Duration = Duration::from_millis(5);
const GROUP_RECORDS: usize = 4_096;

/// How often files are measured and retention is applied.
const UPKEEP_EVERY: Duration = Duration::from_secs(30);

/// How often the last position is noted beside the cursors, so that a lost file is noticed.
const NOTE_EVERY: Duration = Duration::from_secs(1);

/// How long a group waits for an index that is too far behind, before it is refused.
const INDEX_TIME: Duration = Duration::from_secs(2);

/// How far the index may be behind where a group is taken.
const MOST_TAKEN_UNINDEXED: u64 = MOST_UNINDEXED - GROUP_RECORDS as u64;

/// Positions reserved ahead, so that a file that is lost cannot make them repeat.
const RESERVE: u64 = 1_000_000;

/// What the writer is told.
#[derive(Debug)]
pub(super) enum Command {
    Append(Append),
    /// An agent has no ledger: what is remembered of it, behind what was appended before.
    Recall {
        node: String,
        answer: oneshot::Sender<Result<RememberedLedger, JournalError>>,
        /// Its place in the queue.
        place: OwnedSemaphorePermit,
    },
    /// A reader found a file that cannot be read.
    SetAside(Failure),
    /// Ends the writer, once what came before is durable.
    Stop(oneshot::Sender<()>),
}

/// A batch, and who waits for it.
#[derive(Debug)]
pub(super) struct Append {
    pub(super) taken: Taken,
    /// Shards whose checkpoints go.
    pub(super) gone: Vec<Shard>,
    /// About what it takes in memory.
    pub(super) bytes: usize,
    /// How many appends had failed when its node's lane began.
    pub(super) failures: u64,
    pub(super) answer: oneshot::Sender<Result<Appended, JournalError>>,
    /// Its place in the queue, held until it is durable.
    pub(super) place: OwnedSemaphorePermit,
}

/// The thread's state.
pub(super) struct Writer {
    settings: Settings,
    metrics: JournalMetrics,
    observer: Box<dyn Observer>,
    shared: Shared,
    head: watch::Sender<Position>,
    indexer: indexer::WriterEnds,
    pods: Pods,
    memory: Memory,
    packer: Packer,
    cursors: Cursors,
    known: KnownHead,
    told: Told,
    /// Where positions go on above what was lost: nothing stands there before the first record.
    raised: u64,
    today: Option<Connection>,
    /// The versions of the segments of the newest file.
    ranges: Vec<Range>,
    /// Counts on their way into the newest file's table.
    recurrences: Recurrences,
    earlier: Vec<Earlier>,
    /// Oldest first; the last is the newest, which `today` writes to where it is open.
    files: Vec<DayFile>,
    generation: u64,
    /// Records of each file that no segment has, by the file's generation.
    unindexed: HashMap<u64, u64>,
    /// The newest file is so large that another one is to follow it.
    is_large: bool,
    /// What the last group that was not kept takes: with less room, there is none for it.
    refused_bytes: u64,
}

// === impl Writer ===

impl Writer {
    /// Opens what is there, and today's file.
    pub(super) fn open(
        settings: Settings,
        metrics: JournalMetrics,
        observer: Box<dyn Observer>,
        shared: Shared,
        head: watch::Sender<Position>,
        indexer: indexer::WriterEnds,
        cursors: Cursors,
    ) -> Result<Self, JournalError> {
        let packer = Packer::new().map_err(|error| {
            JournalError::Storage(format!("zstd has no memory to compress with: {error}"))
        })?;
        let mut writer = Self {
            pods: Pods::new(settings.pods),
            told: Told::new(&settings.path),
            packer,
            cursors,
            settings,
            metrics,
            observer,
            shared,
            head,
            indexer,
            memory: Memory::default(),
            known: KnownHead::default(),
            raised: 0,
            today: None,
            ranges: Vec::new(),
            recurrences: Recurrences::default(),
            earlier: Vec::new(),
            files: Vec::new(),
            generation: 0,
            unindexed: HashMap::new(),
            is_large: false,
            refused_bytes: 0,
        };
        writer.open_cursors()?;
        writer.open_files()?;
        if let Err(failure) = writer.prove() {
            let error = writer.failed(failure);
            if writer.files.is_empty() {
                return Err(error);
            }
            tracing::error!(%error, "journal cannot be written to, serving what it has");
            writer.shared.set_failure(Some(error));
        }
        if writer.shared.losses.subscribe().borrow().holes > 0 {
            writer.write_checkpoints();
        }
        writer.upkeep();
        Ok(writer)
    }

    /// Serves until the last handle of the journal is gone, or it is told to stop. Holds the folder's lock as long.
    pub(super) fn run(mut self, commands: &Receiver<Command>, lock: super::FolderLock) {
        let mut next_upkeep = Instant::now() + UPKEEP_EVERY;
        let stores = self.indexer.stores.clone();
        let stopped = loop {
            crossbeam_channel::select! {
                recv(commands) -> command => match command {
                    Ok(Command::Append(append)) => {
                        let Some(append) = self.admit(append) else { continue };
                        if let Some(stopped) = self.group(append, commands) {
                            break Some(stopped);
                        }
                    }
                    Ok(Command::Recall { node, answer, place }) => {
                        drop(place);
                        // Who asked may have gone.
                        let _ = answer.send(self.recall(&node));
                    }
                    Ok(Command::SetAside(failure)) => self.set_aside(&failure),
                    Ok(Command::Stop(stopped)) => break Some(stopped),
                    Err(_) => break None,
                },
                recv(stores) -> encoded => {
                    if let Ok(encoded) = encoded {
                        self.store(&encoded);
                    }
                }
                default(NOTE_EVERY) => {
                    if self.shared.failure().is_some() {
                        self.prove_again();
                    }
                    if self.known.committed != self.committed() {
                        self.note_head();
                    }
                }
            }
            if Instant::now() >= next_upkeep {
                self.note_head();
                self.upkeep();
                next_upkeep = Instant::now() + UPKEEP_EVERY;
            }
        };
        self.note_head();
        self.close_today();
        if self.memory.head > self.raised {
            self.told.close(self.memory.head);
        }
        drop((self, lock));
        if let Some(stopped) = stopped {
            let _ = stopped.send(());
        }
    }

    /// Whether something could be kept: writes to all that a commit writes to. A full disk's oldest file goes for what is to be kept,
    /// and not for this.
    fn prove(&mut self) -> Result<(), Failure> {
        let now_ns = self.now_ns();
        let proved = self.ensure_today(now_ns).and_then(|()| {
            self.ensure_earlier()?;
            self.cursors.write_head(self.known)?;
            let (Some(today), Some(file)) = (&self.today, self.files.last()) else { return Ok(()) };
            state::write_proved(today, now_ns).map_err(Failure::at(&file.path))
        });
        match proved {
            Err(failure) if failure.kind() == Failed::Full && self.files.len() > 1 => Ok(()),
            proved => proved,
        }
    }

    /// Looks whether what could not be done can be done now. Who is not ready is perhaps sent nothing by which that would be found.
    fn prove_again(&mut self) {
        let wanted = folder::LEAST_FREE.saturating_add(self.refused_bytes);
        let is_full = folder::free_bytes(&self.settings.path).is_some_and(|free| free < wanted);
        if self.unindexed() > MOST_TAKEN_UNINDEXED || (is_full && self.files.len() < 2) {
            return;
        }
        match self.prove() {
            Ok(()) => {
                self.shared.set_failure(None);
                tracing::info!("journal can be written to again");
            }
            Err(failure) if failure.kind() == Failed::Corrupt => self.set_aside(&failure),
            Err(failure) => {
                if failure.kind() != Failed::Full {
                    self.today = None;
                }
                self.shared.set_failure(Some(failure.into_error()));
            }
        }
    }

    /// Refuses what may be behind an append that failed.
    fn admit(&self, append: Append) -> Option<Append> {
        if !self.shared.lanes.is_behind(append.failures) {
            return Some(append);
        }
        let Append { answer, place, .. } = append;
        drop(place);
        let error = "a batch before this one was not kept; send both again";
        let _ = answer.send(Err(JournalError::Storage(error.to_owned())));
        None
    }

    /// Gathers what comes within a moment and makes it durable. Answers with whom to tell that the journal has stopped.
    fn group(&mut self, first: Append, commands: &Receiver<Command>) -> Option<oneshot::Sender<()>> {
        let started = Instant::now();
        let deadline = started + GROUP_TIME;
        let mut records = first.taken.records.len();
        let mut group = vec![first];
        let mut after = None;
        while records < GROUP_RECORDS {
            match commands.recv_deadline(deadline) {
                Ok(Command::Append(append)) => {
                    let Some(append) = self.admit(append) else { continue };
                    records += append.taken.records.len();
                    group.push(append);
                }
                Ok(other) => {
                    after = Some(other);
                    break;
                }
                Err(_) => break,
            }
        }
        self.metrics.queue.set(i64::try_from(commands.len()).unwrap_or(i64::MAX));
        self.shared.commit_since.store(self.now_ns(), Ordering::Relaxed);
        match self.wait_for_index() {
            Ok(()) => self.commit(group, started),
            Err(error) => self.refuse(group, &error),
        }
        self.shared.commit_since.store(0, Ordering::Relaxed);
        match after {
            Some(Command::Stop(stopped)) => return Some(stopped),
            Some(Command::Recall { node, answer, place }) => {
                drop(place);
                let _ = answer.send(self.recall(&node));
            }
            Some(Command::SetAside(failure)) => self.set_aside(&failure),
            Some(Command::Append(_)) | None => {}
        }
        None
    }

    /// What is remembered of a node's ledger.
    fn recall(&mut self, node: &str) -> Result<RememberedLedger, JournalError> {
        if self.memory.ledgers.get(node).is_none() {
            return Ok(RememberedLedger::default());
        }
        let read = self.ensure_today(self.now_ns()).and_then(|()| {
            let (Some(today), Some(file)) = (self.today.as_ref(), self.files.last()) else {
                return Ok(RememberedLedger::default());
            };
            ledgers::recall(today, &self.memory.ledgers, node).map_err(Failure::at(&file.path))
        });
        read.map_err(|failure| {
            if failure.kind() == Failed::Corrupt {
                self.set_aside(&failure);
            }
            self.failed(failure)
        })
    }

    /// Writes the segments that are ready, and waits for the next where the index is too far behind.
    fn wait_for_index(&mut self) -> Result<(), JournalError> {
        let until = Instant::now() + INDEX_TIME;
        loop {
            while let Ok(encoded) = self.indexer.stores.try_recv() {
                self.store(&encoded);
            }
            let behind = self.unindexed();
            if behind <= MOST_TAKEN_UNINDEXED {
                return Ok(());
            }
            match self.indexer.stores.recv_deadline(until) {
                Ok(encoded) => self.store(&encoded),
                Err(_) => {
                    return Err(JournalError::Storage(format!(
                        "its index is {behind} records behind, and nothing is taken until it has come on; where that lasts, \
                         the log says what it waits for"
                    )));
                }
            }
        }
    }

    fn commit(&mut self, group: Vec<Append>, started: Instant) {
        let now_ns = self.now_ns();
        let mut result = self.try_commit(&group, now_ns);
        // Each try can find one more file that cannot be read, or a part of an index, which is not asked again.
        let mut tries = self.files.len() + 1;
        while let Err(failure) = &result {
            result = match failure.kind() {
                Failed::Segment => {
                    self.forget_segment(failure).and_then(|()| self.try_commit(&group, now_ns))
                }
                Failed::Corrupt if tries > 0 => {
                    tries -= 1;
                    self.set_aside(failure);
                    self.try_commit(&group, now_ns)
                }
                _ => break,
            };
        }
        if result.as_ref().is_err_and(|failure| failure.kind() == Failed::Full) && self.make_room() {
            result = self.try_commit(&group, now_ns);
        }
        match result {
            Ok(done) => {
                self.shared.set_failure(None);
                self.metrics.commits.inc();
                self.metrics.commit_duration.observe(started.elapsed().as_secs_f64());
                self.publish(group, done);
            }
            Err(failure) => {
                let is_full = failure.kind() == Failed::Full;
                let error = self.failed(failure);
                tracing::error!(%error, batches = group.len(), "journal could not keep what was taken");
                self.shared.set_failure(Some(error.clone()));
                if !is_full {
                    // Whatever it is, a file opened anew may be without it.
                    self.today = None;
                }
                self.refused_bytes = group.iter().map(|append| append.bytes as u64).sum();
                self.answer_failed(group, &error);
            }
        }
    }

    fn refuse(&mut self, group: Vec<Append>, error: &JournalError) {
        self.metrics.errors.get_or_create(&ErrorLabel { reason: Failed::Index }).inc();
        tracing::error!(%error, batches = group.len(), "journal could not keep what was taken");
        self.shared.set_failure(Some(error.clone()));
        self.answer_failed(group, error);
    }

    fn answer_failed(&self, group: Vec<Append>, error: &JournalError) {
        self.shared.lanes.fail();
        for Append { answer, place, .. } in group {
            drop(place);
            let _ = answer.send(Err(error.clone()));
        }
    }

    fn try_commit(&mut self, group: &[Append], now_ns: i64) -> Result<Done, Failure> {
        self.ensure_today(now_ns)?;
        self.ensure_earlier()?;
        let records: usize = group.iter().map(|append| append.taken.records.len()).sum();
        self.reserve(records as u64)?;
        let Self { memory, pods, packer, ranges, recurrences, earlier, today, files, .. } = self;
        let (Some(today), Some(file)) = (today.as_ref(), files.last()) else {
            return Err(Failure::of(&self.settings.path, rusqlite::Error::InvalidQuery));
        };
        let at = || Failure::at(&file.path);
        today.execute_batch("BEGIN IMMEDIATE").map_err(at())?;
        let transaction = Transaction { today, file, ranges, recurrences, earlier, memory, now_ns };
        let done = transaction
            .write(group, pods, packer)
            .and_then(|done| today.execute_batch("COMMIT").map_err(at()).map(|()| done));
        if done.is_err() && !today.is_autocommit() {
            // SQLite may have done so by itself; where it cannot, the connection is closed and the next one does.
            if today.execute_batch("ROLLBACK").is_err() {
                self.today = None;
            }
        }
        done
    }

    /// Tells everybody of what has become durable.
    fn publish(&mut self, group: Vec<Append>, done: Done) {
        if done.staged.head > self.memory.head {
            self.told.write(done.staged.head);
        }
        self.add_unindexed(done.staged.head - self.memory.head);
        for (node, base) in &done.staged.ledgers {
            self.shared.set_ledger(node, base.is_some());
        }
        self.memory.apply(done.staged);
        self.shared.set_checkpoints(&self.memory);
        self.measure_ledgers();
        let mut told = Vec::with_capacity(group.len());
        let mut answers = Vec::with_capacity(group.len());
        for (Append { taken, bytes, answer, place, .. }, batch) in group.into_iter().zip(done.batches) {
            let DoneBatch { appended, entries, duplicates, forgotten, refused } = batch;
            let entries = Arc::new(entries);
            self.shared.recent.push(entries.clone(), bytes);
            self.metrics.pods_refused.inc_by(refused);
            self.count(&taken, &entries, &duplicates, &forgotten);
            told.push((taken, entries, duplicates, forgotten));
            answers.push((appended, answer, place));
        }
        self.metrics.head.set(self.memory.head);
        self.head.send_if_modified(|head| {
            let before = std::mem::replace(head, Position(self.memory.head));
            before != *head
        });
        if let Err(TrySendError::Disconnected(())) = self.indexer.wakes.try_send(()) {
            tracing::error!("journal's indexer has ended");
        }
        for (appended, answer, place) in answers {
            drop(place);
            // Who waited may have gone.
            let _ = answer.send(Ok(appended));
        }
        for (taken, entries, duplicates, forgotten) in told {
            self.tell(&taken, &entries, &duplicates, &forgotten);
        }
    }

    /// Counts what became of a batch. Before anybody is told: what was taken is never more than what is counted here.
    fn count(&self, taken: &Taken, entries: &[(usize, Entry)], duplicates: &[usize], forgotten: &[usize]) {
        let deaths = entries.iter().filter(|(_, entry)| matches!(entry.body, Body::Death(_))).count() as u64;
        let events = entries.len() as u64 - deaths;
        self.metrics.records.get_or_create(&KindLabel { kind: Kind::Event }).inc_by(events);
        self.metrics.records.get_or_create(&KindLabel { kind: Kind::Death }).inc_by(deaths);
        for (indexes, reason) in [(duplicates, Known::Identity), (forgotten, Known::Retention)] {
            for record in indexes.iter().filter_map(|index| taken.records.get(*index)) {
                let kind = match record.kind {
                    Some(record::Kind::Death(_)) => Kind::Death,
                    _ => Kind::Event,
                };
                self.metrics.duplicates.get_or_create(&DuplicateLabel { kind, reason }).inc();
            }
        }
        for record in &taken.records {
            match record.kind {
                Some(record::Kind::Pod(_)) => {
                    self.metrics.pod_facts.inc();
                }
                None => {
                    self.metrics.unknown.inc();
                }
                _ => {}
            }
        }
    }

    fn tell(&mut self, taken: &Taken, entries: &[(usize, Entry)], duplicates: &[usize], forgotten: &[usize]) {
        for (index, entry) in entries {
            if let Some(record) = taken.records.get(*index) {
                self.observer.appended(entry, record);
            }
        }
        for record in duplicates.iter().chain(forgotten).filter_map(|index| taken.records.get(*index)) {
            self.observer.duplicate(record);
        }
    }

    pub(super) fn measure_ledgers(&self) {
        let number = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        self.metrics.ledgers.set(number(self.memory.ledgers.len()));
        self.metrics.ledger_bytes.set(number(self.memory.ledgers.bytes()));
    }

    /// Reserves positions, so that those given out are known even when their file is lost. What was lost before is remembered with them:
    /// until something is written behind it, another start finds it again.
    fn reserve(&mut self, records: u64) -> Result<(), Failure> {
        let last = self.memory.head + records;
        let losses = self.shared.losses.total();
        if last <= self.known.reserved && losses == self.known.losses {
            return Ok(());
        }
        let reserved = if last <= self.known.reserved { self.known.reserved } else { last + RESERVE };
        let known = KnownHead { committed: self.committed(), reserved, losses };
        self.cursors.write_head(known)?;
        self.known = known;
        Ok(())
    }

    /// The last position that was certainly given out.
    fn committed(&self) -> u64 {
        if self.memory.head == self.raised { self.known.committed } else { self.memory.head }
    }

    fn note_head(&mut self) {
        let known =
            KnownHead { committed: self.committed(), losses: self.shared.losses.total(), ..self.known };
        match self.cursors.write_head(known) {
            Ok(()) => self.known = known,
            Err(failure) => {
                let error = self.failed(failure);
                tracing::warn!(%error, "the journal's last position could not be noted");
            }
        }
    }

    fn failed(&self, failure: Failure) -> JournalError {
        self.metrics.errors.get_or_create(&ErrorLabel { reason: failure.kind() }).inc();
        failure.into_error()
    }

    fn now_ns(&self) -> i64 {
        (self.settings.clock)()
    }
}
