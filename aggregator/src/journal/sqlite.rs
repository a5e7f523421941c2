//! The journal in SQLite: one file a day or more, one writer, open to the `sqlite3` shell.
//!
//! An append is answered once it is durable. A file that cannot be read is put aside and the rest is served; a disk without
//! room refuses appends by name until there is room. The newest file has the checkpoints, watermarks and recurrences, each
//! new one takes them over; cursors and dead letters are in `cursors.sqlite`.

mod asker;
mod block;
mod cursors;
mod day;
mod dead_letters;
mod deaths;
mod folder;
mod hash;
mod history;
mod index;
mod lanes;
mod ledgers;
mod log;
mod lookup;
mod memory;
pub mod offline;
mod reader;
mod recall;
mod recent;
mod recurrences;
mod retention;
mod state;
mod told;
mod varint;
mod writer;
mod written;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Sender, TrySendError, bounded};
use nodetap_wire::{Checkpoint, Record, Shard, ledger, record, time};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

use super::gaps::Gaps;
use super::lost::{Losses, Lost};
use super::metrics::JournalMetrics;
use super::{
    Ahead, Appended, DeadLetter, Entry, Journal, JournalError, KeptLetter, Letters, Observer, Position,
    RememberedLedger, Taken,
};
use crate::enrich;
use asker::{Asker, Question};
use block::{Objects, Unpacker};
use cursors::{Cursors, Request, Settled};
use index::directory::Directory;
use index::indexer::{self, Indexer};
use lanes::Lanes;
use memory::Memory;
use reader::{Read, Reader};
use recent::Recent;
use writer::{Append, Command, Writer};

/// Most bytes of bodies in one answer to a read.
const READ_BYTES: usize = 8 << 20;

/// Batches on their way to the disk take at most 16 MiB together, in places of 16 KiB: what waits longer stays with the
/// agents, who keep it until it is acknowledged.
const APPEND_PLACES: usize = 1_024;
const PLACE_BYTES: usize = 16 << 10;

/// Reads, and commits of cursors, that wait: one a sink is usual, and each waits for its answer.
const REQUEST_PLACES: usize = 256;

/// Two, so that a sink far behind does not hold up the next.
const READERS: usize = 2;

/// Questions to the history that are answered at one time, on as many threads, and those that wait for one: who comes beyond is
/// told to ask again.
const ASKERS: usize = 2;
const QUESTION_PLACES: usize = 32;

/// Longest wait for another connection's transaction: two connections write to the cursors, shortly.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// The present, in nanoseconds since 1970.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// How the journal is kept.
#[derive(Clone)]
pub struct Settings {
    /// Its folder; made where it is not there.
    pub path: PathBuf,
    /// How long records are kept, to the day.
    pub max_age: Duration,
    /// Most bytes on disk; the newest file is kept whatever it takes, and a file follows it at an eighth of them.
    pub max_bytes: u64,
    /// Whether a record that was acknowledged survives the loss of power.
    pub synchronous: Synchronous,
    /// Consumers that must deliver: what one of them has yet to deliver is not dropped for its age, only for bytes.
    pub required: Vec<String>,
    /// How much is remembered of pods.
    pub pods: enrich::Bounds,
    /// What tells the time.
    pub clock: Clock,
}

/// SQLite's `synchronous`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Synchronous {
    /// Each commit is on the disk: survives the loss of power.
    #[default]
    Full,
    /// Survives the end of the process, not the loss of power.
    Normal,
}

/// A handle of the journal. The threads end when the last one is dropped.
#[derive(Clone, Debug)]
pub struct SqliteJournal {
    writer: Sender<Command>,
    append_places: Arc<Semaphore>,
    readers: Sender<Read>,
    read_places: Arc<Semaphore>,
    cursors: Sender<Request>,
    cursor_places: Arc<Semaphore>,
    questions: Sender<Question>,
    question_places: Arc<Semaphore>,
    shared: Shared,
    head: watch::Receiver<Position>,
}

/// The folder, locked until it is dropped.
#[derive(Debug)]
struct FolderLock(std::fs::File);

/// What the writer shows to others.
#[derive(Clone, Debug, Default)]
struct Shared {
    files: folder::Files,
    directory: Directory,
    recent: Recent,
    losses: Losses,
    gaps: Gaps,
    checkpoints: Arc<Mutex<Vec<Checkpoint>>>,
    /// Nodes of whose ledger something is remembered.
    ledgers: Arc<Mutex<HashSet<String>>>,
    failure: Arc<Mutex<Option<JournalError>>>,
    lanes: Lanes,
    /// When the commit under way began, in nanoseconds since 1970; 0: there is none.
    commit_since: Arc<AtomicI64>,
}

// === impl SqliteJournal ===

impl SqliteJournal {
    /// Opens the journal and starts its threads. Blocks for the disk.
    ///
    /// # Errors
    /// Where the folder cannot be had, belongs to another process, or what is in it can neither be opened nor put aside; the
    /// message names the path and the way out.
    pub fn open(
        settings: Settings,
        metrics: JournalMetrics,
        observer: Box<dyn Observer>,
    ) -> Result<Self, JournalError> {
        let lock = lock(&settings)?;
        let shared = Shared { losses: Losses::new(metrics.lost.clone()), ..Shared::default() };
        let (to_head, head) = watch::channel(Position::default());
        // As many places as the semaphores in front have, so that sending never waits; a few more for the writer, which
        // readers tell of files that they cannot read.
        let (writer, commands) = bounded(APPEND_PLACES + READERS + ASKERS + 1);
        let (readers, reads) = bounded(REQUEST_PLACES);
        // One more, to be told to stop.
        let (cursors, requests) = bounded(REQUEST_PLACES + 1);
        let cursor_state = Cursors::new(&settings, metrics.clone());
        // A segment at a time, and what became of it; to be woken twice is to be woken once.
        let ((to_store, stores), (to_indexer, answers), (wake, wakes)) = (bounded(1), bounded(1), bounded(1));
        let state = Writer::open(
            settings.clone(),
            metrics.clone(),
            observer,
            shared.clone(),
            to_head,
            indexer::WriterEnds { stores, answers: to_indexer, wakes: wake.clone() },
            cursor_state.clone(),
        )?;
        let memory = |error: std::io::Error| JournalError::Storage(format!("zstd has no memory: {error}"));
        let indexer = Indexer::new(
            shared.files.clone(),
            shared.directory.clone(),
            shared.recent.clone(),
            head.clone(),
            (to_store, answers),
            writer.clone(),
            metrics.clone(),
        )
        .map_err(memory)?;
        // What a crash left is indexed before anything comes.
        let _ = wake.try_send(());
        spawn("journal-writer", move || state.run(&commands, lock))?;
        spawn("journal-indexer", move || indexer.run(&wakes))?;
        for number in 0..READERS {
            let reader = Reader {
                files: shared.files.clone(),
                metrics: metrics.clone(),
                writer: writer.clone(),
                connections: HashMap::new(),
                unpacker: Unpacker::new().map_err(memory)?,
                objects: Objects::default(),
            };
            let reads = reads.clone();
            spawn(&format!("journal-reader{number}"), move || reader.run(&reads))?;
        }
        let (questions, asked) = bounded(QUESTION_PLACES);
        for number in 0..ASKERS {
            let (files, directory) = (shared.files.clone(), shared.directory.clone());
            let asker = Asker::new(files, directory, head.clone(), metrics.clone(), writer.clone())
                .map_err(memory)?;
            let asked = asked.clone();
            spawn(&format!("journal-asker{number}"), move || asker.run(&asked))?;
        }
        spawn("journal-cursors", move || cursor_state.run(&requests))?;
        Ok(Self {
            writer,
            append_places: Arc::new(Semaphore::new(APPEND_PLACES)),
            readers,
            read_places: Arc::new(Semaphore::new(REQUEST_PLACES)),
            cursors,
            cursor_places: Arc::new(Semaphore::new(REQUEST_PLACES)),
            questions,
            question_places: Arc::new(Semaphore::new(QUESTION_PLACES)),
            shared,
            head,
        })
    }

    /// Why nothing could be kept when that was last tried, at the start, by an append or since by a look at the disk; `None` where it
    /// could. What readiness asks.
    pub fn failure(&self) -> Option<JournalError> {
        self.shared.failure()
    }

    /// Since when the commit under way has been running, in nanoseconds since 1970; `None` where there is none. A disk that
    /// hangs neither fails nor ends it.
    pub fn commit_since(&self) -> Option<i64> {
        Some(self.shared.commit_since.load(Ordering::Relaxed)).filter(|since| *since != 0)
    }

    /// Makes durable what was appended before, closes today's file and the cursors', and ends who writes to them: later appends and
    /// commits answer [`JournalError::Stopped`].
    pub async fn close(&self) {
        // With all places taken, nothing else is in the queues' way.
        let Ok(append) = place(&self.append_places, APPEND_PLACES).await else { return };
        let Ok(cursor) = place(&self.cursor_places, REQUEST_PLACES).await else { return };
        let (answer, stopped) = oneshot::channel();
        if self.writer.try_send(Command::Stop(answer)).is_ok() {
            // An error: it has ended already.
            let _ = stopped.await;
        }
        // Behind the writer, which notes its head there.
        let (answer, stopped) = oneshot::channel();
        if self.cursors.try_send(Request::Stop(answer)).is_ok() {
            let _ = stopped.await;
        }
        self.append_places.close();
        self.cursor_places.close();
        drop((append, cursor));
    }
}

impl SqliteJournal {
    async fn write(&self, taken: Taken, gone: Vec<Shard>) -> Result<Appended, JournalError> {
        // Before anything is waited for; held until the answer is here.
        let turn = self.shared.lanes.enter(&taken.node);
        let bytes = size(&taken);
        let place = place(&self.append_places, bytes.div_ceil(PLACE_BYTES)).await?;
        let (answer, answered) = oneshot::channel();
        let append = Append { taken, gone, bytes, failures: turn.failures(), answer, place };
        send(&self.writer, Command::Append(append))?;
        answered.await.map_err(|_| JournalError::Stopped)?
    }
}

impl Journal for SqliteJournal {
    async fn append(&self, taken: Taken) -> Result<Appended, JournalError> {
        self.write(taken, Vec::new()).await
    }

    async fn note(&self, given: Vec<Checkpoint>, gone: Vec<Shard>) -> Result<(), JournalError> {
        self.write(Taken { checkpoints: given, ..Taken::default() }, gone).await.map(drop)
    }

    async fn read_from(&self, after: Position, limit: usize) -> Result<Vec<Entry>, JournalError> {
        if let Some(entries) = self.shared.recent.read(after, limit, READ_BYTES) {
            return Ok(entries);
        }
        let place = place(&self.read_places, 1).await?;
        let (answer, answered) = oneshot::channel();
        send(&self.readers, Read { after, limit, answer, place })?;
        answered.await.map_err(|_| JournalError::Stopped)?
    }

    fn head(&self) -> watch::Receiver<Position> {
        self.head.clone()
    }

    async fn cursor(&self, consumer: &str) -> Result<Option<Position>, JournalError> {
        let place = place(&self.cursor_places, 1).await?;
        let (answer, answered) = oneshot::channel();
        send(&self.cursors, Request::Cursor { consumer: consumer.to_owned(), answer, place })?;
        answered.await.map_err(|_| JournalError::Stopped)?
    }

    async fn ahead(&self, consumer: &str) -> Result<Vec<Ahead>, JournalError> {
        let place = place(&self.cursor_places, 1).await?;
        let (answer, answered) = oneshot::channel();
        send(&self.cursors, Request::Ahead { consumer: consumer.to_owned(), answer, place })?;
        answered.await.map_err(|_| JournalError::Stopped)?
    }

    async fn settle(
        &self,
        consumer: &str,
        cursor: Position,
        ahead: Vec<Ahead>,
        dead: Vec<DeadLetter>,
    ) -> Result<(), JournalError> {
        let place = place(&self.cursor_places, 1).await?;
        let (answer, answered) = oneshot::channel();
        let settled = Settled { cursor, ahead, dead };
        send(&self.cursors, Request::Commit { consumer: consumer.to_owned(), settled, answer, place })?;
        answered.await.map_err(|_| JournalError::Stopped)?
    }

    async fn cursors(&self) -> Result<Vec<(String, Position)>, JournalError> {
        let place = place(&self.cursor_places, 1).await?;
        let (answer, answered) = oneshot::channel();
        send(&self.cursors, Request::All { answer, place })?;
        answered.await.map_err(|_| JournalError::Stopped)?
    }

    async fn dead_letters(
        &self,
        mut letters: Letters,
        limit: usize,
    ) -> Result<Vec<KeptLetter>, JournalError> {
        let mut found = Vec::new();
        while found.len() < limit {
            let place = place(&self.cursor_places, 1).await?;
            let (answer, answered) = oneshot::channel();
            let (step, limit) = (letters.clone(), limit - found.len());
            send(&self.cursors, Request::Letters { letters: step, limit, answer, place })?;
            let step = answered.await.map_err(|_| JournalError::Stopped)??;
            found.extend(step.found);
            let Some(next) = step.next else { break };
            letters.after = Some(next);
        }
        Ok(found)
    }

    async fn forget_dead_letters(&self, mut letters: Letters) -> Result<usize, JournalError> {
        let mut forgotten = 0;
        loop {
            let place = place(&self.cursor_places, 1).await?;
            let (answer, answered) = oneshot::channel();
            send(&self.cursors, Request::Forget { letters: letters.clone(), answer, place })?;
            let step = answered.await.map_err(|_| JournalError::Stopped)??;
            forgotten += step.found;
            let Some(next) = step.next else { return Ok(forgotten) };
            letters.after = Some(next);
        }
    }

    async fn checkpoints(&self) -> Result<Vec<Checkpoint>, JournalError> {
        Ok(self.shared.checkpoints.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    fn lost(&self) -> watch::Receiver<Lost> {
        self.shared.losses.subscribe()
    }

    fn gaps(&self) -> Gaps {
        self.shared.gaps.clone()
    }

    fn promised(&self, last: Position) {
        self.shared.losses.promised(last);
    }

    async fn ledger(&self, node: &str) -> Result<RememberedLedger, JournalError> {
        let place = place(&self.append_places, 1).await?;
        let (answer, answered) = oneshot::channel();
        send(&self.writer, Command::Recall { node: node.to_owned(), answer, place })?;
        answered.await.map_err(|_| JournalError::Stopped)?
    }

    fn remembers(&self, node: &str) -> bool {
        self.shared.ledgers.lock().unwrap_or_else(PoisonError::into_inner).contains(node)
    }
}

// === impl FolderLock ===

impl Drop for FolderLock {
    fn drop(&mut self) {
        // Closing is not enough: a process that is being forked holds the same lock until it has started its program. Where
        // the filesystem knows no locks, there is none to let go of.
        let _ = self.0.unlock();
    }
}

// === impl Shared ===

impl Shared {
    fn set_checkpoints(&self, memory: &Memory) {
        let checkpoints = memory.checkpoints.values().cloned().collect();
        *self.checkpoints.lock().unwrap_or_else(PoisonError::into_inner) = checkpoints;
    }

    fn set_ledgers(&self, memory: &Memory) {
        let nodes = memory.ledgers.nodes().cloned().collect();
        *self.ledgers.lock().unwrap_or_else(PoisonError::into_inner) = nodes;
    }

    fn set_ledger(&self, node: &str, is_remembered: bool) {
        let mut nodes = self.ledgers.lock().unwrap_or_else(PoisonError::into_inner);
        if !is_remembered {
            nodes.remove(node);
        } else if !nodes.contains(node) {
            nodes.insert(node.to_owned());
        }
    }

    fn failure(&self) -> Option<JournalError> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_failure(&self, failure: Option<JournalError>) {
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = failure;
    }
}

// === impl Synchronous ===

impl Synchronous {
    fn name(self) -> &'static str {
        match self {
            Self::Full => "FULL",
            Self::Normal => "NORMAL",
        }
    }
}

// === impl Settings ===

impl Settings {
    /// Seven days or 10 GiB in a folder.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            max_age: Duration::from_secs(7 * 86_400),
            max_bytes: 10 << 30,
            synchronous: Synchronous::Full,
            required: Vec::new(),
            pods: enrich::Bounds::default(),
            clock: Arc::new(time::now_ns),
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, max_age, max_bytes, synchronous, required, pods, clock: _ } = self;
        f.debug_struct("Settings")
            .field("path", path)
            .field("max_age", max_age)
            .field("max_bytes", max_bytes)
            .field("synchronous", synchronous)
            .field("required", required)
            .field("pods", pods)
            .finish_non_exhaustive()
    }
}

/// Makes the folder and takes its lock, so that no two processes write one journal.
fn lock(settings: &Settings) -> Result<FolderLock, JournalError> {
    let path = settings.path.display();
    std::fs::create_dir_all(&settings.path).map_err(|error| {
        JournalError::Storage(format!(
            "{path}: cannot be made: {error}; set journal.path to a folder on a volume"
        ))
    })?;
    let folder = std::fs::File::open(&settings.path).map_err(|error| {
        JournalError::Storage(format!("{path}: cannot be opened: {error}; set journal.path"))
    })?;
    match folder.try_lock() {
        Ok(()) => Ok(FolderLock(folder)),
        Err(std::fs::TryLockError::WouldBlock) => Err(JournalError::Storage(format!(
            "{path}: in use by another process; end it, or set journal.path to a folder of its own"
        ))),
        // A filesystem without locks: SQLite's own keep the files whole.
        Err(std::fs::TryLockError::Error(error)) => {
            tracing::warn!(%path, %error, "journal's folder cannot be locked");
            Ok(FolderLock(folder))
        }
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), JournalError> {
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(run)
        .map(drop)
        .map_err(|error| JournalError::Storage(format!("thread {name} cannot be started: {error}")))
}

async fn place(places: &Arc<Semaphore>, number: usize) -> Result<OwnedSemaphorePermit, JournalError> {
    let number = u32::try_from(number.clamp(1, APPEND_PLACES)).unwrap_or(u32::MAX);
    places.clone().acquire_many_owned(number).await.map_err(|_| JournalError::Stopped)
}

fn send<T>(sender: &Sender<T>, message: T) -> Result<(), JournalError> {
    sender.try_send(message).map_err(|error| match error {
        TrySendError::Disconnected(_) => JournalError::Stopped,
        TrySendError::Full(_) => JournalError::Storage("more requests than places".to_owned()),
    })
}

/// About what a batch takes in memory, in bytes.
fn size(taken: &Taken) -> usize {
    let record = |record: &Record| match &record.kind {
        Some(record::Kind::Event(event)) => 512 + event.raw.len(),
        Some(record::Kind::Death(death)) => {
            2_048
                + death.message.len()
                + death.last_lines.iter().map(|line| 64 + line.text.len()).sum::<usize>()
        }
        Some(record::Kind::Pod(_)) => 2_048,
        None => 0,
    };
    let entries = taken.ledger.iter().flat_map(|ledger| &ledger.entries);
    let ledger: usize = entries.map(|entry| ledger::ENTRY_BYTES + entry.state.len()).sum();
    taken.records.iter().map(record).sum::<usize>() + ledger
}

#[cfg(test)]
mod tests;
