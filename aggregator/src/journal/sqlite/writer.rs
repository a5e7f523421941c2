//! The journal's one writer: groups batches into transactions, starts a file a day or more, drops old ones, and puts those aside that
//! cannot be read. Owns everything that is written but cursors.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use nodetap_wire::{Record, record};
use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, oneshot, watch};

use super::cursors::{Cursors, KnownHead};
use super::day::{self, Insert};
use super::folder::{DayFile, Failure, Piece};
use super::lookup::{Earlier, Lookup};
use super::memory::{Memory, Staged};
use super::recent::Batch;
use super::{Settings, Shared, folder, retention};
use crate::enrich::Pods;
use crate::journal::metrics::{ErrorLabel, Failed, JournalMetrics, Kind, KindLabel};
use crate::journal::{Appended, Body, Entry, JournalError, Observer, Position, Taken};
use crate::merge::{self, Verdict};

/// Where a group is closed: an acknowledgement waits no longer for company, and a transaction grows no larger.
const GROUP_TIME: Duration = Duration::from_millis(5);
const GROUP_RECORDS: usize = 1_000;

/// How often files are measured and retention is applied.
const UPKEEP_EVERY: Duration = Duration::from_secs(30);

/// How often the last position is noted beside the cursors, so that a lost file is noticed.
const NOTE_EVERY: Duration = Duration::from_secs(1);

/// Positions reserved ahead, so that a file that is lost cannot make them repeat.
const RESERVE: u64 = 1_000_000;

/// What the writer is told.
#[derive(Debug)]
pub(super) enum Command {
    Append(Append),
    /// A reader found a file that cannot be read.
    SetAside(Failure),
    /// Ends the writer, once what came before is durable.
    Stop(oneshot::Sender<()>),
}

/// A batch, and who waits for it.
#[derive(Debug)]
pub(super) struct Append {
    pub(super) taken: Taken,
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
    pods: Pods,
    memory: Memory,
    cursors: Cursors,
    known: KnownHead,
    today: Option<Connection>,
    earlier: Vec<Earlier>,
    /// Oldest first; the last is the newest, which `today` writes to where it is open.
    files: Vec<DayFile>,
    generation: u64,
    /// The newest file is so large that another one is to follow it.
    is_large: bool,
}

/// What became of a group, one for each batch.
struct Done {
    staged: Staged,
    batches: Vec<DoneBatch>,
}

struct DoneBatch {
    appended: Appended,
    entries: Batch,
    duplicates: Vec<usize>,
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
    ) -> Result<Self, JournalError> {
        let mut writer = Self {
            pods: Pods::new(settings.pods),
            cursors: Cursors::new(&settings.path, settings.synchronous),
            settings,
            metrics,
            observer,
            shared,
            head,
            memory: Memory::default(),
            known: KnownHead::default(),
            today: None,
            earlier: Vec::new(),
            files: Vec::new(),
            generation: 0,
            is_large: false,
        };
        writer.open_cursors()?;
        writer.open_files()?;
        if let Err(failure) = writer.ensure_today(writer.now_ns()) {
            let error = writer.failed(failure);
            if writer.files.is_empty() {
                return Err(error);
            }
            tracing::error!(%error, "journal cannot be written to, serving what it has");
        }
        writer.upkeep();
        Ok(writer)
    }

    /// Serves until the last handle of the journal is gone, or it is told to stop. Holds the folder's lock as long.
    pub(super) fn run(mut self, commands: &Receiver<Command>, lock: super::FolderLock) {
        let mut next_upkeep = Instant::now() + UPKEEP_EVERY;
        let stopped = loop {
            match commands.recv_timeout(NOTE_EVERY) {
                Ok(Command::Append(append)) => {
                    let Some(append) = self.admit(append) else { continue };
                    if let Some(stopped) = self.group(append, commands) {
                        break Some(stopped);
                    }
                }
                Ok(Command::SetAside(failure)) => self.set_aside(&failure),
                Ok(Command::Stop(stopped)) => break Some(stopped),
                Err(RecvTimeoutError::Timeout) => {
                    if self.known.committed != self.memory.head {
                        self.note_head();
                    }
                }
                Err(RecvTimeoutError::Disconnected) => break None,
            }
            if Instant::now() >= next_upkeep {
                self.note_head();
                self.upkeep();
                next_upkeep = Instant::now() + UPKEEP_EVERY;
            }
        };
        self.note_head();
        self.close_today();
        drop(lock);
        if let Some(stopped) = stopped {
            let _ = stopped.send(());
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
        self.commit(group, started);
        self.shared.commit_since.store(0, Ordering::Relaxed);
        match after {
            Some(Command::Stop(stopped)) => return Some(stopped),
            Some(Command::SetAside(failure)) => self.set_aside(&failure),
            Some(Command::Append(_)) | None => {}
        }
        None
    }

    fn commit(&mut self, group: Vec<Append>, started: Instant) {
        let now_ns = self.now_ns();
        let mut result = self.try_commit(&group, now_ns);
        // Each try can find one more file that cannot be read.
        for _ in 0..=self.files.len() {
            match &result {
                Err(failure) if failure.kind() == Failed::Corrupt => {
                    self.set_aside(failure);
                    result = self.try_commit(&group, now_ns);
                }
                _ => break,
            }
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
                self.shared.lanes.fail();
                for Append { answer, place, .. } in group {
                    drop(place);
                    let _ = answer.send(Err(error.clone()));
                }
            }
        }
    }

    fn try_commit(&mut self, group: &[Append], now_ns: i64) -> Result<Done, Failure> {
        self.ensure_today(now_ns)?;
        let records: usize = group.iter().map(|append| append.taken.records.len()).sum();
        self.reserve(records as u64)?;
        let Self { memory, pods, earlier, today, files, .. } = self;
        let (Some(today), Some(file)) = (today.as_ref(), files.last()) else {
            return Err(Failure { path: self.settings.path.clone(), error: rusqlite::Error::InvalidQuery });
        };
        let at = || Failure::at(&file.path);
        today.execute_batch("BEGIN IMMEDIATE").map_err(at())?;
        let transaction = Transaction { today, file, earlier, memory, now_ns };
        let done = transaction
            .write(group, pods)
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
        self.memory.apply(done.staged);
        self.shared.set_checkpoints(&self.memory);
        let mut told = Vec::with_capacity(group.len());
        let mut answers = Vec::with_capacity(group.len());
        for (Append { taken, bytes, answer, place, .. }, batch) in group.into_iter().zip(done.batches) {
            let DoneBatch { appended, entries, duplicates } = batch;
            let entries = Arc::new(entries);
            self.shared.recent.push(entries.clone(), bytes);
            told.push((taken, entries, duplicates));
            answers.push((appended, answer, place));
        }
        self.metrics.head.set(self.memory.head);
        self.head.send_if_modified(|head| {
            let before = std::mem::replace(head, Position(self.memory.head));
            before != *head
        });
        for (appended, answer, place) in answers {
            drop(place);
            // Who waited may have gone.
            let _ = answer.send(Ok(appended));
        }
        for (taken, entries, duplicates) in told {
            self.tell(&taken, &entries, &duplicates);
        }
    }

    fn tell(&mut self, taken: &Taken, entries: &[(usize, Entry)], duplicates: &[usize]) {
        let (mut events, mut deaths) = (0, 0);
        for (index, entry) in entries {
            match &entry.body {
                Body::Event(_) => events += 1,
                Body::Death(_) => deaths += 1,
            }
            if let Some(record) = taken.records.get(*index) {
                self.observer.appended(entry, record);
            }
        }
        let count = |family: &prometheus_client::metrics::family::Family<KindLabel, _>, kind, number: u64| {
            let counter: prometheus_client::metrics::counter::Counter =
                family.get_or_create_owned(&KindLabel { kind });
            counter.inc_by(number);
        };
        count(&self.metrics.records, Kind::Event, events);
        count(&self.metrics.records, Kind::Death, deaths);
        for record in duplicates.iter().filter_map(|index| taken.records.get(*index)) {
            let kind = match record.kind {
                Some(record::Kind::Death(_)) => Kind::Death,
                _ => Kind::Event,
            };
            count(&self.metrics.duplicates, kind, 1);
            self.observer.duplicate(record);
        }
        for record in &taken.records {
            match record.kind {
                Some(record::Kind::Pod(_)) => self.observer.pod(record),
                None => {
                    self.metrics.unknown.inc();
                }
                _ => {}
            }
        }
    }

    /// Sees to it that today's file is open.
    fn ensure_today(&mut self, now_ns: i64) -> Result<(), Failure> {
        if let Some(piece) = self.files.last().filter(|_| self.is_large).map(|newest| newest.piece.next()) {
            // Until it is measured again.
            self.is_large = false;
            match self.begin(piece, now_ns) {
                // Without room for another file, there may be some left in this one.
                Err(failure) if failure.kind() == Failed::Full && self.today.is_some() => {
                    let error = self.failed(failure);
                    tracing::warn!(%error, "journal's file is large, and there is no room for the next");
                }
                begun => return begun,
            }
        }
        let date = folder::date_of(now_ns);
        let newest = self.files.last().map(|newest| &newest.piece);
        // A clock that goes back does not open an old file again.
        if newest.is_some_and(|newest| newest.date >= date) && self.today.is_some() {
            return Ok(());
        }
        let newest = newest.filter(|newest| newest.date >= date).cloned();
        self.begin(newest.unwrap_or_else(|| Piece::first_of(date)), now_ns)
    }

    /// Opens a file to write to, the newest there is or one that follows it.
    fn begin(&mut self, piece: Piece, now_ns: i64) -> Result<(), Failure> {
        let newest = self.files.last();
        let path = folder::day_path(&self.settings.path, &piece);
        let at = || Failure::at(&path);
        let is_newest = newest.is_some_and(|newest| newest.piece == piece);
        let before = newest.filter(|_| !is_newest).cloned();
        let mut connection =
            day::open_to_write(&path, self.settings.synchronous, self.keep().log_bytes(&self.files))
                .map_err(at())?;
        if day::is_initialised(&connection).map_err(at())? {
            day::upgrade(&mut connection, now_ns).map_err(at())?;
        } else {
            self.memory.forget_watermarks(now_ns - day::WATERMARK_KEPT_NS);
            let state = before.as_ref().map(|before| before.path.as_path());
            let mut made = day::initialise(&mut connection, &self.memory, state, now_ns).map_err(at());
            if made.as_ref().is_err_and(|failure| failure.kind() == Failed::Corrupt) && state.is_some() {
                // It is the old file that cannot be read. Without its counts, an Event that goes on is counted anew once.
                made = day::initialise(&mut connection, &self.memory, None, now_ns).map_err(at());
            }
            made?;
            if let Err(error) = std::fs::File::open(&self.settings.path).and_then(|folder| folder.sync_all())
            {
                tracing::warn!(%error, path = %self.settings.path.display(), "folder could not be synced");
            }
        }
        self.close_today();
        self.today = Some(connection);
        if is_newest {
            return Ok(());
        }
        if let Some(before) = before {
            self.retire(&before.path);
        }
        tracing::info!(path = %path.display(), "journal goes on in a new file");
        self.add_file(path, piece, self.memory.head + 1, u64::MAX);
        self.upkeep();
        Ok(())
    }

    /// Makes the newest file so far an earlier one.
    fn retire(&mut self, path: &Path) {
        if let Some(file) = self.files.iter_mut().find(|file| file.path == path) {
            file.last = self.memory.head;
        }
        let open = || {
            let (connection, _) = folder::open_to_read(path)?;
            let last = day::extent(&connection)?.last;
            Ok::<_, rusqlite::Error>((last, Earlier::new(path.to_owned(), connection)?))
        };
        let (last, earlier) = match open() {
            Ok(opened) => opened,
            Err(error) => {
                let failure = Failure { path: path.to_owned(), error };
                tracing::error!(path = %path.display(), error = %failure.error, "journal file cannot be read");
                if failure.kind() == Failed::Corrupt {
                    // The new file is there already, and its state is whole.
                    self.files.retain(|file| file.path != path);
                    self.put_aside(path);
                }
                return;
            }
        };
        if let Some(file) = self.files.iter_mut().find(|file| file.path == path) {
            file.last = last;
        }
        self.earlier.retain(|earlier| earlier.path != path);
        self.earlier.push(earlier);
    }

    /// Moves the log of the file that is being written into it, and closes it.
    fn close_today(&mut self) {
        let Some(today) = self.today.take() else { return };
        if let Err(error) = today.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())) {
            // It stays beside the file, and is read with it.
            tracing::warn!(%error, "journal's log could not be moved into its file");
        }
    }

    fn add_file(&mut self, path: PathBuf, piece: Piece, first: u64, last: u64) {
        self.generation += 1;
        self.files.push(DayFile { path, piece, first, last, generation: self.generation });
        self.shared.files.set(self.files.clone());
    }

    /// Opens the cursors. Where that fails for want of room, what is there is read.
    fn open_cursors(&mut self) -> Result<(), JournalError> {
        let mut opened = self.cursors.open();
        if opened.as_ref().is_err_and(|failure| failure.kind() == Failed::Corrupt) {
            self.put_aside(self.cursors.path());
            opened = self.cursors.open();
        }
        self.known = match (opened, self.cursors.read_head()) {
            (_, Ok(known)) => known,
            (Err(failure), _) | (Ok(()), Err(failure)) => return Err(self.failed(failure)),
        };
        Ok(())
    }

    /// Opens the files that are there, newest first, and takes over the state of the newest that can be read.
    fn open_files(&mut self) -> Result<(), JournalError> {
        let folder = self.settings.path.clone();
        let pieces = folder::pieces(&folder).map_err(|error| {
            JournalError::Storage(format!(
                "{}: cannot be listed: {error}; set journal.path",
                folder.display()
            ))
        })?;
        let mut is_lost = false;
        let mut found = Vec::new();
        for piece in pieces.into_iter().rev() {
            let path = folder::day_path(&folder, &piece);
            match self.open_file(&path, found.len()) {
                Ok(Some((extent, connection))) => found.push((path, piece, extent, connection)),
                // Never finished: it is made when it is needed.
                Ok(None) => {}
                Err(failure) if failure.kind() == Failed::Corrupt => {
                    self.put_aside(&path);
                    is_lost = true;
                }
                Err(failure) => return Err(self.failed(failure)),
            }
        }
        found.reverse();
        let last = found.iter().map(|(_, _, extent, _)| extent.last).max().unwrap_or(0);
        is_lost |= last < self.known.committed;
        self.memory.head =
            if is_lost { last.max(self.known.reserved).max(self.known.committed) } else { last };
        if is_lost && self.memory.head > last {
            tracing::warn!(
                last,
                head = self.memory.head,
                "records are missing at the journal's end, positions go on above them"
            );
        }
        self.head.send_replace(Position(self.memory.head));
        self.metrics.head.set(self.memory.head);
        self.shared.set_checkpoints(&self.memory);
        let newest = found.len().saturating_sub(1);
        for (index, (path, piece, extent, connection)) in found.into_iter().enumerate() {
            self.add_file(
                path.clone(),
                piece,
                extent.first,
                if index == newest { u64::MAX } else { extent.last },
            );
            if index != newest {
                match Earlier::new(path.clone(), connection) {
                    Ok(earlier) => self.earlier.push(earlier),
                    Err(error) => self.set_aside(&Failure { path, error }),
                }
            }
        }
        Ok(())
    }

    /// Opens a file to read, and reads its state where no newer one can be. `None`: it has no tables yet.
    fn open_file(&mut self, path: &Path, newer: usize) -> Result<Option<(day::Extent, Connection)>, Failure> {
        let now_ns = self.now_ns();
        let mut open = || {
            let (connection, _) = folder::open_to_read(path)?;
            if !day::is_initialised(&connection)? {
                return Ok(None);
            }
            let extent = day::extent(&connection)?;
            if newer == 0 {
                day::read_state(&connection, &mut self.memory, now_ns)?;
            }
            // A file that began a moment ago says little of what was seen lately.
            if newer < 2 {
                day::read_counts(&connection, &mut self.memory, 100_000)?;
            }
            Ok(Some((extent, connection)))
        };
        open().map_err(Failure::at(path))
    }

    /// Puts a file aside in which something could not be read. A new one takes the place of the newest, without checkpoints:
    /// the watches that start after this list first, and find again what the API server still has.
    fn set_aside(&mut self, failure: &Failure) {
        if failure.path == self.cursors.path() {
            self.put_aside(&failure.path);
            self.cursors = Cursors::new(&self.settings.path, self.settings.synchronous);
            return;
        }
        let Some(index) = self.files.iter().position(|file| file.path == failure.path) else { return };
        tracing::error!(path = %failure.path.display(), error = %failure.error, "journal file cannot be read");
        if index + 1 == self.files.len() {
            self.today = None;
            self.memory.checkpoints.clear();
            self.shared.set_checkpoints(&self.memory);
            self.shared.resets.send_modify(|resets| *resets += 1);
        }
        self.earlier.retain(|earlier| earlier.path != failure.path);
        self.files.remove(index);
        self.shared.files.set(self.files.clone());
        self.put_aside(&failure.path);
        // What a file before it holds cannot have changed.
        if let Some(newest) = self.files.last_mut() {
            newest.last = newest.last.min(self.memory.head);
        }
    }

    fn put_aside(&self, path: &Path) {
        self.metrics.errors.get_or_create(&ErrorLabel { reason: Failed::Corrupt }).inc();
        match folder::set_aside(path, self.now_ns()) {
            Ok(aside) => {
                self.metrics.set_aside.inc();
                tracing::error!(path = %path.display(), aside = %aside.display(), "journal file put aside, the rest is served");
            }
            Err(error) => {
                tracing::error!(path = %path.display(), %error, "journal file could not be put aside")
            }
        }
    }

    /// Reserves positions, so that those given out are known even when their file is lost.
    fn reserve(&mut self, records: u64) -> Result<(), Failure> {
        let last = self.memory.head + records;
        if last <= self.known.reserved {
            return Ok(());
        }
        let known = KnownHead { committed: self.memory.head, reserved: last + RESERVE };
        self.cursors.write_head(known)?;
        self.known = known;
        Ok(())
    }

    fn note_head(&mut self) {
        let known = KnownHead { committed: self.memory.head, ..self.known };
        match self.cursors.write_head(known) {
            Ok(()) => self.known = known,
            Err(failure) if failure.kind() == Failed::Corrupt => self.set_aside(&failure),
            Err(failure) => {
                let error = self.failed(failure);
                tracing::warn!(%error, "the journal's last position could not be noted");
            }
        }
    }

    /// Applies retention and measures what is left.
    fn upkeep(&mut self) {
        let keep =
            retention::Keep { settings: &self.settings, metrics: &self.metrics, now_ns: self.now_ns() };
        let dropped = keep.apply(&self.files, &mut self.cursors);
        self.is_large = keep.is_large(&self.files);
        if !dropped.is_empty() {
            self.forget(&dropped);
            for path in &dropped {
                retention::removed(path, folder::remove(path));
            }
        }
        self.keep().measure(&self.files);
    }

    /// Drops the oldest file of a full disk. `false`: there is none but the newest.
    fn make_room(&mut self) -> bool {
        let keep =
            retention::Keep { settings: &self.settings, metrics: &self.metrics, now_ns: self.now_ns() };
        self.is_large = keep.is_large(&self.files);
        let Some(dropped) = keep.make_room(&self.files, &mut self.cursors) else { return false };
        self.forget(std::slice::from_ref(&dropped));
        retention::removed(&dropped, folder::remove_at_once(&dropped));
        true
    }

    fn forget(&mut self, dropped: &[PathBuf]) {
        self.files.retain(|file| !dropped.contains(&file.path));
        self.earlier.retain(|earlier| !dropped.contains(&earlier.path));
        // Readers let go of what is no longer listed; until then the disk keeps it for them.
        self.shared.files.set(self.files.clone());
    }

    fn keep(&self) -> retention::Keep<'_> {
        retention::Keep { settings: &self.settings, metrics: &self.metrics, now_ns: self.now_ns() }
    }

    fn failed(&self, failure: Failure) -> JournalError {
        self.metrics.errors.get_or_create(&ErrorLabel { reason: failure.kind() }).inc();
        failure.into_error()
    }

    fn now_ns(&self) -> i64 {
        (self.settings.clock)()
    }
}

/// A transaction that is open, and what its records are judged by.
struct Transaction<'a> {
    today: &'a Connection,
    file: &'a DayFile,
    earlier: &'a [Earlier],
    memory: &'a Memory,
    now_ns: i64,
}

// === impl Transaction ===

impl Transaction<'_> {
    fn write(&self, group: &[Append], pods: &mut Pods) -> Result<Done, Failure> {
        let at = || Failure::at(&self.file.path);
        let mut insert = Insert::prepare(self.today).map_err(at())?;
        let mut staged = Staged { head: self.memory.head, now_ns: self.now_ns, ..Staged::default() };
        let mut batches = Vec::with_capacity(group.len());
        for append in group {
            let mut batch = DoneBatch {
                appended: Appended::default(),
                entries: Vec::with_capacity(append.taken.records.len()),
                duplicates: Vec::new(),
            };
            for (index, record) in append.taken.records.iter().enumerate() {
                self.write_record(record, index, &mut insert, &mut staged, pods, &mut batch)?;
            }
            for checkpoint in &append.taken.checkpoints {
                staged.checkpoint(self.memory, checkpoint);
            }
            batch.appended = Appended {
                head: Position(staged.head),
                new: batch.entries.len(),
                duplicates: batch.duplicates.len(),
            };
            batches.push(batch);
        }
        for (namespace, version) in &staged.watermarks {
            day::write_watermark(self.today, namespace, version, self.now_ns).map_err(at())?;
        }
        for (shard, checkpoint) in &staged.checkpoints {
            day::write_checkpoint(self.today, shard, checkpoint).map_err(at())?;
        }
        for (uid, count) in staged.counts.iter().filter(|(_, count)| **count > 1) {
            day::write_recurrence(self.today, uid, *count, self.now_ns).map_err(at())?;
        }
        Ok(Done { staged, batches })
    }

    fn write_record(
        &self,
        record: &Record,
        index: usize,
        insert: &mut Insert<'_>,
        staged: &mut Staged,
        pods: &mut Pods,
        batch: &mut DoneBatch,
    ) -> Result<(), Failure> {
        let at = || Failure::at(&self.file.path);
        let position = staged.head + 1;
        let mut known = Lookup {
            path: &self.file.path,
            today: self.today,
            earlier: self.earlier,
            memory: self.memory,
            staged,
        };
        let (verdict, body, object) = match &record.kind {
            Some(record::Kind::Event(event)) => {
                pods.explainer.learn(event);
                let verdict = merge::judge_event(event, &mut known)?;
                let Verdict::New { occurrences, count } = verdict else {
                    batch.duplicates.push(index);
                    return Ok(());
                };
                let facts = pods.get(&event.object_uid);
                let json = facts.as_ref().map(|facts| facts.json.as_str());
                insert.event(position, self.now_ns, event, occurrences, json).map_err(at())?;
                staged.raise(self.memory, &event.namespace, &event.resource_version);
                staged.counts.insert(event.uid.clone(), count);
                (verdict, Body::Event(event.raw.clone()), facts.map(|facts| facts.object.clone()))
            }
            Some(record::Kind::Death(death)) => {
                let verdict = merge::judge_death(death, &mut known)?;
                if verdict == Verdict::Duplicate {
                    batch.duplicates.push(index);
                    return Ok(());
                }
                let death = pods.explainer.explained(death);
                insert.death(position, self.now_ns, &death).map_err(at())?;
                let object = death.object();
                (verdict, Body::Death(Box::new(death)), Some(object))
            }
            Some(record::Kind::Pod(facts)) => {
                pods.learn(facts.clone());
                return Ok(());
            }
            // A kind that a newer agent knows.
            None => return Ok(()),
        };
        let Verdict::New { occurrences, .. } = verdict else { return Ok(()) };
        staged.head = position;
        let entry = Entry { position: Position(position), taken_ns: self.now_ns, body, object, occurrences };
        batch.entries.push((index, entry));
        Ok(())
    }
}
