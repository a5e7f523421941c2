//! Cursors and dead letters: a database of their own, which outlives the days' files, on a thread of its own, so that a sink's
//! commit does not wait for records.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};
use rusqlite::{Connection, OptionalExtension, params};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::day::{signed, unsigned};
use super::dead_letters::Step;
use super::folder::Failure;
use super::written::is_written;
use super::{Settings, Synchronous, dead_letters, folder, hash};
use crate::journal::had::Had;
use crate::journal::metrics::{ConsumerLabel, ErrorLabel, Failed, JournalMetrics};
use crate::journal::{Ahead, DeadLetter, JournalError, KeptLetter, Letters, Position};

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS cursor (
    consumer TEXT PRIMARY KEY,
    position INTEGER NOT NULL,
    digest INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS dead_letter (
    consumer TEXT NOT NULL,
    position INTEGER NOT NULL,
    reason TEXT NOT NULL,
    at_ns INTEGER NOT NULL,
    PRIMARY KEY (consumer, position)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS ahead (
    consumer TEXT NOT NULL,
    chunk INTEGER NOT NULL,
    bits BLOB NOT NULL,
    PRIMARY KEY (consumer, chunk)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS head (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    committed INTEGER NOT NULL,
    reserved INTEGER NOT NULL,
    digest INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS gap (after INTEGER PRIMARY KEY, last INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS loss (id INTEGER PRIMARY KEY CHECK (id = 1), times INTEGER NOT NULL);
";

/// Most commits in one transaction: there is one a sink at a time.
const GROUP: usize = 256;

/// How often it is looked whether records of dead letters are gone, while nobody asks for anything.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What a consumer asks.
#[derive(Debug)]
pub(super) enum Request {
    Cursor {
        consumer: String,
        answer: oneshot::Sender<Result<Option<Position>, JournalError>>,
        /// Its place in the queue.
        place: OwnedSemaphorePermit,
    },
    Ahead {
        consumer: String,
        answer: oneshot::Sender<Result<Vec<Ahead>, JournalError>>,
        /// Its place in the queue.
        place: OwnedSemaphorePermit,
    },
    Commit {
        consumer: String,
        settled: Settled,
        answer: oneshot::Sender<Result<(), JournalError>>,
        /// Its place in the queue.
        place: OwnedSemaphorePermit,
    },
    All {
        answer: oneshot::Sender<Result<Vec<(String, Position)>, JournalError>>,
        /// Its place in the queue.
        place: OwnedSemaphorePermit,
    },
    Letters {
        letters: Letters,
        limit: usize,
        answer: oneshot::Sender<Result<Step<Vec<KeptLetter>>, JournalError>>,
        /// Its place in the queue.
        place: OwnedSemaphorePermit,
    },
    Forget {
        letters: Letters,
        answer: oneshot::Sender<Result<Step<usize>, JournalError>>,
        /// Its place in the queue.
        place: OwnedSemaphorePermit,
    },
    /// Ends the thread, once the database is closed.
    Stop(oneshot::Sender<()>),
}

/// What a consumer is done with.
#[derive(Debug)]
pub(super) struct Settled {
    pub(super) cursor: Position,
    pub(super) ahead: Vec<Ahead>,
    pub(super) dead: Vec<DeadLetter>,
}

/// The database, opened when it is needed and again after it failed. Clones share the one connection to it, so that nobody
/// writes on into a file that was put aside.
#[derive(Clone)]
pub(super) struct Cursors {
    path: PathBuf,
    synchronous: Synchronous,
    metrics: JournalMetrics,
    clock: super::Clock,
    /// Who has a cursor from the first on in a database that is begun anew, and so misses nothing by its being new.
    required: Arc<[String]>,
    /// Begun anew after the one before it was put aside; what those cursors are is not told yet.
    anew: Arc<AtomicBool>,
    /// Up to where the journal has no record any more.
    gone: Arc<AtomicU64>,
    connection: Arc<Mutex<Option<Connection>>>,
}

/// Up to where positions may have been given out, whatever the files say, and how often what was written is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct KnownHead {
    /// Certainly given out.
    pub(super) committed: u64,
    /// Certainly not given out beyond.
    pub(super) reserved: u64,
    /// How often records were lost.
    pub(super) losses: u64,
}

// === impl Cursors ===

impl Cursors {
    pub(super) fn new(settings: &Settings, metrics: JournalMetrics) -> Self {
        Self {
            path: settings.path.join(folder::CURSORS),
            synchronous: settings.synchronous,
            metrics,
            clock: settings.clock.clone(),
            required: settings.required.clone().into(),
            anew: Arc::default(),
            gone: Arc::default(),
            connection: Arc::default(),
        }
    }

    /// What is known of the head, without making anything.
    pub(super) fn read_head(&self) -> Result<KnownHead, Failure> {
        let read = || {
            let (connection, _) = folder::open_to_read(&self.path)?;
            let head = head(&connection)?;
            let cursor = cursors(&connection)?.into_iter().map(|(_, position)| position).max();
            let given = head.committed.max(cursor.unwrap_or(0));
            // A table that is damaged says nothing; who needs it finds out.
            let given = given.max(ahead_of_all(&connection).unwrap_or(0));
            let losses =
                connection.query_row("SELECT times FROM loss", [], |row| row.get(0)).map_or(0, unsigned);
            Ok(KnownHead { committed: given, losses, ..head })
        };
        read().map_err(Failure::at(&self.path))
    }

    /// Positions that were never given: after one, and up to another. A table that cannot be read says nothing.
    pub(super) fn read_gaps(&self) -> Vec<(u64, u64)> {
        let read = || -> Result<Vec<_>, rusqlite::Error> {
            let (connection, _) = folder::open_to_read(&self.path)?;
            let mut statement = connection.prepare("SELECT after, last FROM gap")?;
            let rows = statement.query_map([], |row| Ok((unsigned(row.get(0)?), unsigned(row.get(1)?))))?;
            rows.collect()
        };
        read().unwrap_or_default()
    }

    /// Notes positions that were never given, and forgets those before the first that there is.
    pub(super) fn write_gap(&self, (after, last): (u64, u64), first: u64) -> Result<(), Failure> {
        self.with(|connection| {
            let transaction = connection.transaction()?;
            transaction.execute("DELETE FROM gap WHERE last < ?1", [signed(first)])?;
            transaction
                .execute("INSERT OR REPLACE INTO gap VALUES (?1, ?2)", [signed(after), signed(last)])?;
            transaction.commit()
        })
    }

    pub(super) fn write_head(&self, head: KnownHead) -> Result<(), Failure> {
        self.with(|connection| {
            let transaction = connection.transaction()?;
            let (committed, reserved) = (signed(head.committed), signed(head.reserved));
            transaction.prepare_cached("INSERT OR REPLACE INTO head VALUES (1, ?1, ?2, ?3)")?.execute([
                committed,
                reserved,
                hash::digest(&[committed, reserved]),
            ])?;
            transaction
                .prepare_cached("INSERT OR REPLACE INTO loss VALUES (1, ?1)")?
                .execute([signed(head.losses)])?;
            transaction.commit()
        })
    }

    /// All cursors.
    pub(super) fn all(&self) -> Result<Vec<(String, u64)>, Failure> {
        self.with(|connection| cursors(connection))
    }

    /// Opens it, and makes it where it is not there. Looks at the cursors themselves: their table can be damaged alone.
    pub(super) fn open(&self) -> Result<(), Failure> {
        self.with(|connection| {
            cursors(connection)?;
            head(connection).map(drop)
        })
    }

    /// Runs something on the database. One that cannot be read is put aside, and begun anew.
    fn with<T>(&self, run: impl Fn(&mut Connection) -> Result<T, rusqlite::Error>) -> Result<T, Failure> {
        let mut place = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let mut attempt = || {
            let mut connection = match place.take() {
                Some(connection) => connection,
                None => self.connect()?,
            };
            let result = run(&mut connection)?;
            *place = Some(connection);
            Ok(result)
        };
        let failure = match attempt().map_err(Failure::at(&self.path)) {
            Err(failure) if failure.kind() == Failed::Corrupt => failure,
            result => return result,
        };
        self.metrics.errors.get_or_create(&ErrorLabel { reason: Failed::Corrupt }).inc();
        match folder::set_aside(&self.path, (self.clock)()) {
            Ok(aside) => {
                self.metrics.set_aside.inc();
                let path = self.path.display();
                tracing::error!(%path, aside = %aside.display(), error = %failure.error, "cursors cannot be read: put aside with the dead letters beside them; sinks begin with the oldest record");
                self.anew.store(true, Ordering::Relaxed);
                self.count_lost_letters(&aside);
                attempt().map_err(Failure::at(&self.path))
            }
            Err(error) => {
                tracing::error!(path = %self.path.display(), %error, "cursors could not be put aside");
                Err(failure)
            }
        }
    }

    fn connect(&self) -> Result<Connection, rusqlite::Error> {
        let mut connection = Connection::open(&self.path)?;
        connection.busy_timeout(super::BUSY_TIMEOUT)?;
        connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
        connection.pragma_update(None, "synchronous", self.synchronous.name())?;
        connection.execute_batch(&format!("BEGIN IMMEDIATE; {SCHEMA} COMMIT;"))?;
        let is_early: bool = connection.query_row(
            "SELECT count(*) = 0 FROM pragma_table_info('cursor') WHERE name = 'digest'",
            [],
            |row| row.get(0),
        )?;
        if is_early {
            let message = "its tables came before the first release, and are not read".to_owned();
            let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_NOTADB);
            return Err(rusqlite::Error::SqliteFailure(code, Some(message)));
        }
        if self.anew.load(Ordering::Relaxed) {
            let transaction = connection.transaction()?;
            for consumer in &*self.required {
                if cursor(&transaction, consumer)?.is_none() {
                    write_cursor(&transaction, consumer, 0)?;
                }
            }
            transaction.commit()?;
        }
        Ok(connection)
    }

    /// Counts dead letters that are put aside, as far as they can be read.
    fn count_lost_letters(&self, aside: &Path) {
        let letters =
            folder::open_to_read(aside).and_then(|(connection, _)| dead_letters::count(&connection));
        for (consumer, number) in letters.unwrap_or_default() {
            tracing::error!(consumer, letters = number, "dead letters are put aside with the cursors");
            let label = ConsumerLabel { consumer, reason: "damaged" };
            self.metrics.letters_forgotten.get_or_create(&label).inc_by(number);
        }
    }

    /// The journal has no record up to here any more, so that nobody can deliver a dead letter of one.
    pub(super) fn gone_up_to(&self, position: u64) {
        self.gone.fetch_max(position, Ordering::Relaxed);
    }

    /// Forgets some of the dead letters whose records are gone; false: there are no more, or it failed.
    fn forget_gone(&self, position: u64) -> bool {
        let forgotten = match self.with(|connection| {
            let transaction = connection.transaction()?;
            let forgotten = dead_letters::forget_up_to(&transaction, position)?;
            transaction.commit()?;
            Ok(forgotten)
        }) {
            Ok(forgotten) => forgotten,
            Err(failure) => {
                let error = self.failed(failure);
                tracing::warn!(%error, "dead letters whose records are gone cannot be forgotten");
                return false;
            }
        };
        for (consumer, letters) in &forgotten {
            tracing::warn!(
                consumer,
                letters,
                "dead letters are forgotten: the journal dropped their records"
            );
            let label = ConsumerLabel { consumer: consumer.clone(), reason: "retention" };
            self.metrics.letters_forgotten.get_or_create(&label).inc_by(*letters as u64);
        }
        !forgotten.is_empty()
    }

    /// Puts cursors that were begun anew before the oldest record that there is: what is gone by now may have been delivered.
    pub(super) fn begin_after(&self, dropped: u64) -> Result<(), Failure> {
        if self.anew.load(Ordering::Relaxed) {
            self.with(|connection| {
                let transaction = connection.transaction()?;
                let before = cursors(&transaction)?.into_iter().filter(|(_, position)| *position < dropped);
                for (consumer, _) in before {
                    write_cursor(&transaction, &consumer, dropped)?;
                }
                transaction.commit()
            })?;
            self.anew.store(false, Ordering::Relaxed);
        }
        Ok(())
    }

    fn cursor(&self, consumer: &str) -> Result<Option<Position>, Failure> {
        self.with(|connection| Ok(cursor(connection, consumer)?.map(Position)))
    }

    fn ahead(&self, consumer: &str) -> Result<Vec<Ahead>, Failure> {
        self.with(|connection| {
            let mut statement =
                connection.prepare_cached("SELECT chunk, bits FROM ahead WHERE consumer = ?1")?;
            let rows = statement.query_map([consumer], |row| {
                // One that is damaged says nothing: what it held is delivered again.
                let chunk = unsigned(row.get(0)?);
                let bits = words(chunk, row.get_ref(1)?.as_blob()?);
                Ok(Ahead { chunk, bits: bits.unwrap_or_else(|| Box::new([0; Ahead::WORDS])) })
            })?;
            rows.collect()
        })
    }

    /// How many records a consumer has had of those after a position and up to another, beyond its cursor.
    pub(super) fn had_within(&self, consumer: &str, after: u64, last: u64) -> Result<u64, Failure> {
        let ahead = self.ahead(consumer)?;
        Ok(Had::load(ahead, Position(after)).within(Position(after), Position(last)))
    }

    fn commit(&self, group: &[(String, Settled)], now_ns: i64) -> Result<(), Failure> {
        self.with(|connection| {
            let transaction = connection.transaction()?;
            for (consumer, Settled { cursor, ahead, dead }) in group {
                write_cursor(&transaction, consumer, cursor.0)?;
                for ahead in ahead {
                    transaction
                        .prepare_cached("INSERT OR REPLACE INTO ahead VALUES (?1, ?2, ?3)")?
                        .execute(params![consumer, signed(ahead.chunk), bytes(ahead)])?;
                }
                transaction
                    .prepare_cached("DELETE FROM ahead WHERE consumer = ?1 AND chunk < ?2")?
                    .execute(params![consumer, signed(cursor.0 / Ahead::POSITIONS)])?;
                for letter in dead {
                    transaction
                        .prepare_cached("INSERT OR REPLACE INTO dead_letter VALUES (?1, ?2, ?3, ?4)")?
                        .execute(params![consumer, signed(letter.position.0), letter.reason, now_ns])?;
                }
            }
            transaction.commit()
        })
    }

    /// Serves consumers until the last handle of the journal is gone, or it is told to stop.
    pub(super) fn run(self, requests: &Receiver<Request>) {
        let stopped = self.serve(requests);
        // SQLite moves the log into the file. Who ends the process meanwhile leaves a log without what it is read by.
        drop(self);
        if let Some(stopped) = stopped {
            let _ = stopped.send(());
        }
    }

    /// Answers with whom to tell that the database is closed.
    fn serve(&self, requests: &Receiver<Request>) -> Option<oneshot::Sender<()>> {
        // Up to where dead letters are forgotten.
        let mut forgotten = 0;
        loop {
            let gone = self.gone.load(Ordering::Relaxed);
            let patience = if gone > forgotten { Duration::ZERO } else { LOOK_EVERY };
            let request = match requests.recv_timeout(patience) {
                Ok(request) => request,
                Err(RecvTimeoutError::Timeout) => {
                    if gone > forgotten && !self.forget_gone(gone) {
                        forgotten = gone;
                    }
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => return None,
            };
            let mut stopped = None;
            let mut group = Vec::new();
            let mut answers = Vec::new();
            let mut next = Some(request);
            while let Some(request) = next.take() {
                match request {
                    Request::Cursor { consumer, answer, place } => {
                        let result = self.cursor(&consumer).map_err(|failure| self.failed(failure));
                        drop(place);
                        // Who asked may have gone.
                        let _ = answer.send(result);
                    }
                    Request::All { answer, place } => {
                        let result = self.all().map_err(|failure| self.failed(failure));
                        drop(place);
                        let position = |(consumer, position)| (consumer, Position(position));
                        let _ = answer.send(result.map(|all| all.into_iter().map(position).collect()));
                    }
                    Request::Letters { letters, limit, answer, place } => {
                        let result = self.with(|connection| dead_letters::read(connection, &letters, limit));
                        drop(place);
                        let _ = answer.send(result.map_err(|failure| self.failed(failure)));
                    }
                    Request::Forget { letters, answer, place } => {
                        let result = self.with(|connection| dead_letters::forget(connection, &letters));
                        drop(place);
                        let _ = answer.send(result.map_err(|failure| self.failed(failure)));
                    }
                    Request::Ahead { consumer, answer, place } => {
                        let result = self.ahead(&consumer).map_err(|failure| self.failed(failure));
                        drop(place);
                        let _ = answer.send(result);
                    }
                    Request::Commit { consumer, settled, answer, place } => {
                        group.push((consumer, settled));
                        answers.push((answer, place));
                    }
                    Request::Stop(answer) => {
                        stopped = Some(answer);
                        break;
                    }
                }
                if group.len() < GROUP {
                    next = requests.try_recv().ok();
                }
            }
            if !group.is_empty() {
                let result = self.commit(&group, (self.clock)()).map_err(|failure| self.failed(failure));
                for (answer, place) in answers {
                    drop(place);
                    let _ = answer.send(result.clone());
                }
            }
            if stopped.is_some() {
                return stopped;
            }
        }
    }

    fn failed(&self, failure: Failure) -> JournalError {
        self.metrics.errors.get_or_create(&ErrorLabel { reason: failure.kind() }).inc();
        failure.into_error()
    }
}

/// The last position that a consumer was given beyond its cursor: it was there, whatever the files say, and is nobody else's.
fn ahead_of_all(connection: &Connection) -> Result<u64, rusqlite::Error> {
    let letter: Option<i64> =
        connection.query_row("SELECT max(position) FROM dead_letter", [], |row| row.get(0))?;
    let mut statement =
        connection.prepare("SELECT chunk, bits FROM ahead WHERE chunk = (SELECT max(chunk) FROM ahead)")?;
    let mut rows = statement.query([])?;
    let mut last = letter.map_or(0, unsigned);
    while let Some(row) = rows.next()? {
        let chunk = unsigned(row.get(0)?);
        let Some(bits) = words(chunk, row.get_ref(1)?.as_blob()?) else { continue };
        let had = Had::load(vec![Ahead { chunk, bits }], Position(0));
        last = last.max(had.last().map_or(0, |had| had.0));
    }
    Ok(last)
}

/// What stands of the head, but for the losses.
fn head(connection: &Connection) -> Result<KnownHead, rusqlite::Error> {
    let mut statement = connection.prepare_cached("SELECT committed, reserved, digest FROM head")?;
    let head = statement.query_row([], |row| {
        let (committed, reserved) = (row.get(0)?, row.get(1)?);
        is_written(row.get(2)?, hash::digest(&[committed, reserved]), "the head")?;
        Ok(KnownHead { committed: unsigned(committed), reserved: unsigned(reserved), losses: 0 })
    });
    Ok(head.optional()?.unwrap_or_default())
}

/// All cursors. One that is not what was written is not one to go on from: records would be passed over.
fn cursors(connection: &Connection) -> Result<Vec<(String, u64)>, rusqlite::Error> {
    let mut statement = connection.prepare_cached("SELECT consumer, position, digest FROM cursor")?;
    let rows = statement.query_map([], |row| {
        let (consumer, position) = (row.get::<_, String>(0)?, unsigned(row.get(1)?));
        is_written(row.get(2)?, hash::row(&[&consumer], signed(position)), "a cursor")?;
        Ok((consumer, position))
    })?;
    rows.collect()
}

fn cursor(connection: &Connection, consumer: &str) -> Result<Option<u64>, rusqlite::Error> {
    connection
        .prepare_cached("SELECT position, digest FROM cursor WHERE consumer = ?1")?
        .query_row([consumer], |row| {
            let position = unsigned(row.get(0)?);
            is_written(row.get(1)?, hash::row(&[consumer], signed(position)), "a cursor")?;
            Ok(position)
        })
        .optional()
}

fn write_cursor(connection: &Connection, consumer: &str, position: u64) -> Result<(), rusqlite::Error> {
    connection.prepare_cached("INSERT OR REPLACE INTO cursor VALUES (?1, ?2, ?3)")?.execute(params![
        consumer,
        signed(position),
        hash::row(&[consumer], signed(position))
    ])?;
    Ok(())
}

/// The bits of a row of positions, and their digest behind them.
fn bytes(ahead: &Ahead) -> Vec<u8> {
    let digest = bits_digest(ahead.chunk, &ahead.bits[..]);
    ahead.bits.iter().chain([&digest]).flat_map(|word| word.to_le_bytes()).collect()
}

/// The bits of a row of positions; none: it is not what was written.
fn words(chunk: u64, bytes: &[u8]) -> Option<Box<[u64; Ahead::WORDS]>> {
    let (words, rest) = bytes.as_chunks::<8>();
    let words: Vec<u64> = words.iter().map(|word| u64::from_le_bytes(*word)).collect();
    let (digest, words) = words.split_last()?;
    let is_whole = rest.is_empty() && *digest == bits_digest(chunk, words);
    words.to_vec().into_boxed_slice().try_into().ok().filter(|_| is_whole)
}

fn bits_digest(chunk: u64, words: &[u64]) -> u64 {
    let numbers: Vec<i64> = [chunk].iter().chain(words).map(|word| word.cast_signed()).collect();
    hash::digest(&numbers).cast_unsigned()
}
