//! The journal's folder: which files there are, what they take, and how a file that cannot be read is put aside.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::index::versions::Range;
use super::written;
use crate::journal::JournalError;
use crate::journal::metrics::Failed;

/// With less free bytes, a disk is full.
pub(super) const LEAST_FREE: u64 = 64 << 10;

/// The database of cursors and dead letters.
pub(super) const CURSORS: &str = "cursors.sqlite";

/// Which file of which day: a day has more than one where the first grows large.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Piece {
    /// `2026-07-01`
    pub(super) date: String,
    /// From 0, which its name leaves out.
    pub(super) number: u32,
}

/// A day's file, or a piece of it, and the positions in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DayFile {
    pub(super) path: PathBuf,
    pub(super) piece: Piece,
    /// The first position that it can hold.
    pub(super) first: u64,
    /// The last one that it holds; `u64::MAX` while it is being written.
    pub(super) last: u64,
    /// Tells it from a file of the same name that was put aside.
    pub(super) generation: u64,
}

/// The files that can be read now, oldest first: kept by the writer, looked at by readers.
#[derive(Clone, Debug, Default)]
pub(super) struct Files(Arc<RwLock<Vec<DayFile>>>);

/// A failure, and the file in which it happened.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) path: PathBuf,
    pub(super) error: rusqlite::Error,
    /// The segment of the index that alone is damaged.
    pub(super) segment: Option<Box<Range>>,
}

// === impl Files ===

impl Files {
    pub(super) fn snapshot(&self) -> Vec<DayFile> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set(&self, files: Vec<DayFile>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = files;
    }
}

// === impl Failure ===

impl Failure {
    pub(super) fn at(path: &Path) -> impl FnOnce(rusqlite::Error) -> Self + '_ {
        move |error| Self::new(path, error)
    }

    /// SQLite says of a page that the disk does not give that the file is damaged, which would cost all of the file: it is looked at
    /// whole first, and where it is well, or cannot be read, the disk has failed.
    pub(super) fn new(path: &Path, error: rusqlite::Error) -> Self {
        let said = error.sqlite_error_code() == Some(ErrorCode::DatabaseCorrupt);
        let error = match said && !is_damaged(path) {
            true => rusqlite::Error::SqliteFailure(
                rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_IOERR_READ),
                Some(format!("the disk does not give what is there: {error}")),
            ),
            false => error,
        };
        Self::of(path, error)
    }

    /// As it was told.
    pub(super) fn of(path: &Path, error: rusqlite::Error) -> Self {
        Self { path: path.to_owned(), error, segment: None }
    }

    /// Of what happened when a segment of the index was asked.
    pub(super) fn in_segment(path: &Path, range: Range, error: rusqlite::Error) -> Self {
        match written::is_malformed(&error) {
            true => Self { segment: Some(Box::new(range)), ..Self::of(path, error) },
            false => Self::new(path, error),
        }
    }

    /// Of a file that was read as it lay: the writer may have found room meanwhile, so that what looks damaged need not be.
    pub(super) fn of_as_it_lay(self) -> Self {
        let busy = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY);
        Self::of(&self.path, rusqlite::Error::SqliteFailure(busy, Some(self.error.to_string())))
    }

    pub(super) fn kind(&self) -> Failed {
        match self.error.sqlite_error_code() {
            _ if self.segment.is_some() => Failed::Segment,
            Some(ErrorCode::DiskFull) => Failed::Full,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Failed::Corrupt,
            // What was written has a shape or a type that is never written.
            None if !matches!(self.error, rusqlite::Error::SqliteFailure(..)) => Failed::Corrupt,
            // SQLite says only that a page could not be had, or that it could not make its shared memory.
            _ if free_bytes(&self.path).is_some_and(|free| free < LEAST_FREE) => Failed::Full,
            _ => Failed::Io,
        }
    }

    pub(super) fn into_error(self) -> JournalError {
        self.describe()
    }

    /// What went wrong, where, and the way out.
    pub(super) fn describe(&self) -> JournalError {
        let Self { path, error, segment: _ } = self;
        let (path, free) = (path.display(), free_bytes(path));
        JournalError::Storage(match (self.kind(), free) {
            (Failed::Full, Some(free)) => format!(
                "{path}: {error}: {free} bytes are free on its filesystem; make room there, lower journal.maxBytes, or give \
                 journal.path a larger volume"
            ),
            _ => format!("{path}: {error}"),
        })
    }
}

// === impl Piece ===

impl Piece {
    /// The first file of a day.
    pub(super) fn first_of(date: String) -> Self {
        Self { date, number: 0 }
    }

    /// The one after it, of the same day.
    pub(super) fn next(&self) -> Self {
        Self { date: self.date.clone(), number: self.number + 1 }
    }

    fn parse(name: &str) -> Option<Self> {
        let name = name.strip_prefix("journal-")?.strip_suffix(".sqlite")?;
        let piece = match name.split_once('.') {
            Some((date, number)) => Self { date: date.to_owned(), number: number.parse().ok()? },
            None => Self::first_of(name.to_owned()),
        };
        // Whatever reads as another's name is none.
        (end_of(&piece.date).is_some() && piece.to_string() == name).then_some(piece)
    }
}

impl fmt::Display for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.number {
            0 => f.write_str(&self.date),
            number => write!(f, "{}.{number}", self.date),
        }
    }
}

/// The file of a day, or a piece of it.
pub(super) fn day_path(folder: &Path, piece: impl fmt::Display) -> PathBuf {
    folder.join(format!("journal-{piece}.sqlite"))
}

/// The day of a time in UTC.
pub(super) fn date_of(ns: i64) -> String {
    let timestamp = Timestamp::from_nanosecond(i128::from(ns)).unwrap_or_default();
    timestamp.to_zoned(TimeZone::UTC).date().to_string()
}

/// When a day ends, in nanoseconds since 1970.
pub(super) fn end_of(date: &str) -> Option<i64> {
    let day: jiff::civil::Date = date.parse().ok()?;
    let end = day.tomorrow().ok()?.to_zoned(TimeZone::UTC).ok()?;
    i64::try_from(end.timestamp().as_nanosecond()).ok()
}

/// The files in a folder, oldest first.
pub(super) fn pieces(folder: &Path) -> io::Result<Vec<Piece>> {
    let mut pieces = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        pieces.extend(entry?.file_name().to_str().and_then(Piece::parse));
    }
    pieces.sort();
    Ok(pieces)
}

/// What is put aside, oldest first.
pub(super) fn set_aside_files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name().to_str().is_some_and(|name| name.contains(".sqlite.corrupt-")))
        .map(|entry| (entry.metadata().and_then(|data| data.modified()).ok(), entry.path()))
        .collect();
    files.sort();
    files.into_iter().map(|(_, path)| path).collect()
}

/// A file and what SQLite keeps beside it.
pub(super) fn companions(path: &Path) -> [PathBuf; 3] {
    ["", "-wal", "-shm"].map(|suffix| with_suffix(path, suffix))
}

/// What a database takes on the disk, in bytes.
pub(super) fn size_of(path: &Path) -> u64 {
    companions(path).iter().filter_map(|path| path.metadata().ok()).map(|data| data.len()).sum()
}

/// Removes a database.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    for path in companions(path) {
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Removes a database so that its room is free at once, even while a reader has it open: what that one reads now looks damaged,
/// and is not there.
pub(super) fn remove_at_once(path: &Path) -> io::Result<()> {
    let file = std::fs::OpenOptions::new().write(true).open(path);
    remove(path)?;
    match file {
        Ok(file) => file.set_len(0),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Gives a database another name, so that a new one can take its place and a person can look at it.
pub(super) fn set_aside(path: &Path, now_ns: i64) -> io::Result<PathBuf> {
    let mut seconds = now_ns / 1_000_000_000;
    let aside = loop {
        let aside = with_suffix(path, &format!(".corrupt-{seconds}"));
        if !aside.exists() {
            break aside;
        }
        seconds += 1;
    };
    for (from, to) in companions(path).iter().zip(companions(&aside)) {
        match std::fs::rename(from, to) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(aside)
}

/// Whether a database that can be read is not whole.
fn is_damaged(path: &Path) -> bool {
    let is_readable = || {
        companions(path).iter().all(|path| match std::fs::File::open(path) {
            Ok(mut file) => io::copy(&mut file, &mut io::sink()).is_ok(),
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        })
    };
    let is_whole = || {
        let (connection, _) = open_to_read(path)?;
        let found: String = connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
        Ok::<_, rusqlite::Error>(found == "ok")
    };
    // Before and after: what cannot be read in between looks damaged.
    is_readable() && !is_whole().unwrap_or(false) && is_readable()
}

/// Free bytes on the filesystem of a path, for those without privileges.
pub(super) fn free_bytes(path: &Path) -> Option<u64> {
    let folder = if path.is_dir() { path } else { path.parent()? };
    let filesystem = nix::sys::statvfs::statvfs(folder).ok()?;
    Some(filesystem.blocks_available().saturating_mul(filesystem.fragment_size()))
}

/// Whether nothing can be written to the filesystem of a path.
fn is_read_only(path: &Path) -> bool {
    nix::sys::statvfs::statvfs(path)
        .is_ok_and(|filesystem| filesystem.flags().contains(nix::sys::statvfs::FsFlags::ST_RDONLY))
}

/// Opens a database that is there, for reading. Where SQLite lacks the room for its shared memory, a file is read as it lies, and
/// where it has a log beside it, with that in memory of the process, while nobody else reads it: `true` then, to be let go of after it
/// was asked. `true` of a filesystem that is read-only too: SQLite shares that memory among the connections of a process, and while
/// one is left that may only read it, none writes.
pub(super) fn open_to_read(path: &Path) -> Result<(Connection, bool), rusqlite::Error> {
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    let open = |name: &str, is_alone: bool| {
        let connection = Connection::open_with_flags(name, flags)?;
        connection.busy_timeout(super::BUSY_TIMEOUT)?;
        if is_alone {
            // Before anything is read: SQLite shares no memory then.
            connection.query_row("PRAGMA locking_mode = EXCLUSIVE", [], |_| Ok(()))?;
        }
        connection.pragma_update(None, "query_only", true)?;
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
        Ok(connection)
    };
    let uri = uri(path);
    open(&uri, false).map(|connection| (connection, is_read_only(path))).or_else(|error: rusqlite::Error| {
        let is_corrupt =
            matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase));
        if is_corrupt || !path.exists() {
            return Err(error);
        }
        let opened =
            if has_log(path) { open(&uri, true) } else { open(&format!("{uri}?immutable=1"), false) };
        opened.map(|connection| (connection, true)).map_err(|_| error)
    })
}

/// Whether there is something in the log beside a database.
pub(super) fn has_log(path: &Path) -> bool {
    with_suffix(path, "-wal").metadata().is_ok_and(|data| data.len() > 0)
}

/// The path as SQLite's URI.
fn uri(path: &Path) -> String {
    use std::os::unix::ffi::OsStrExt;

    let mut uri = String::from("file:");
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' => {
                uri.push(char::from(*byte))
            }
            _ => uri += &format!("%{byte:02X}"),
        }
    }
    uri
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path.as_os_str());
    name.push(suffix);
    name.into()
}
