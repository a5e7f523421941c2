//! A journal's folder as it lies, read beside an aggregator that runs or without one: exported, measured, verified. Writes
//! nothing, and takes no lock.

use std::fmt;
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::block::Unpacker;
use super::folder::{self, Failure};
use super::index::stored::{self, Segments};
use super::{day, log};
use crate::journal::{Entry, JournalError, Position};

/// What was found of one file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileReport {
    /// Which.
    pub path: PathBuf,
    /// On the disk, with SQLite's log, in bytes.
    pub bytes: u64,
    /// Its first position, and its last.
    pub positions: Option<(Position, Position)>,
    /// Records in it, and deaths among them.
    pub records: u64,
    /// Blocks that hold them.
    pub blocks: u64,
    /// Up to which position it is indexed on the disk; what follows is indexed in the aggregator's memory.
    pub indexed: Option<Position>,
    /// When its first and last record were taken, in nanoseconds since 1970.
    pub taken_ns: Option<(i64, i64)>,
    /// What is wrong with it, in words; nothing where it was only measured and could be read.
    pub problems: Vec<String>,
}

/// What could not be read.
#[derive(Debug, Default)]
pub struct LeftOut {
    /// Records of files that were read.
    pub records: u64,
    /// Files that could not be read, or not to their end, and why.
    pub files: Vec<JournalError>,
}

// === impl LeftOut ===

impl LeftOut {
    /// Whether everything was read.
    pub fn is_nothing(&self) -> bool {
        self.records == 0 && self.files.is_empty()
    }
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} records could not be read and are left out", self.records)?;
        self.files.iter().try_for_each(|error| write!(f, "; a file is not read to its end: {error}"))
    }
}

/// Reads all records after a position, in order, until told to stop. Answers with what could not be read.
///
/// # Errors
/// Where the folder cannot be read.
pub fn read(
    path: &Path,
    after: Position,
    mut tell: impl FnMut(Entry) -> bool,
) -> Result<LeftOut, JournalError> {
    let mut unpacker = unpacker()?;
    let mut left_out = LeftOut::default();
    for file in files(path)? {
        let mut goes_on = true;
        let read = read_file(&file, after, &mut unpacker, &mut left_out.records, |entry| {
            goes_on = tell(entry);
            goes_on
        });
        left_out.files.extend(read.err());
        if !goes_on {
            break;
        }
    }
    Ok(left_out)
}

fn read_file(
    file: &Path,
    after: Position,
    unpacker: &mut Unpacker,
    unreadable: &mut u64,
    mut tell: impl FnMut(Entry) -> bool,
) -> Result<(), JournalError> {
    let Some(connection) = open(file)? else { return Ok(()) };
    let mut goes_on = true;
    log::blocks(&connection, after.0, |head, packed| {
        match log::unpack(unpacker, head, packed) {
            Ok(records) => {
                for stored in records.iter().filter(|stored| stored.position > after.0) {
                    match stored.entry() {
                        Ok(entry) => goes_on = tell(entry),
                        Err(_) => *unreadable += 1,
                    }
                    if !goes_on {
                        break;
                    }
                }
            }
            Err(_) => *unreadable += head.records,
        }
        goes_on
    })
    .map_err(|error| Failure::of(file, error).into_error())
}

/// Measures the files; `verify` also reads every page and record of them.
///
/// # Errors
/// Where the folder cannot be read. What is wrong with a file is in its report.
pub fn report(path: &Path, verify: bool) -> Result<Vec<FileReport>, JournalError> {
    let mut unpacker = unpacker()?;
    let mut reports = Vec::new();
    let mut before: Option<Position> = None;
    for file in files(path)? {
        let mut report =
            FileReport { bytes: folder::size_of(&file), path: file.clone(), ..FileReport::default() };
        let looked = open(&file).and_then(|connection| {
            let Some(connection) = connection else {
                report.problems.push("was never finished: it is made again when it is needed".to_owned());
                return Ok(());
            };
            look(&connection, &mut unpacker, verify, &mut report)
                .map_err(|error| Failure::of(&file, error).into_error())
        });
        if let Err(error) = looked {
            report.problems.push(error.to_string());
        }
        if let Some((first, last)) = report.positions {
            if let Some(before) = before.filter(|before| before.0 >= first.0) {
                report
                    .problems
                    .push(format!("begins at {}, and the file before it ends at {}", first.0, before.0));
            }
            before = Some(last);
        }
        reports.push(report);
    }
    Ok(reports)
}

fn look(
    connection: &Connection,
    unpacker: &mut Unpacker,
    verify: bool,
    report: &mut FileReport,
) -> Result<(), rusqlite::Error> {
    let (records, blocks, first): (i64, i64, Option<i64>) = connection.query_row(
        "SELECT coalesce(sum(records), 0), count(*), min(first) FROM block",
        [],
        |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
    )?;
    (report.records, report.blocks) = (day::unsigned(records), day::unsigned(blocks));
    report.positions = first
        .zip(log::last(connection)?)
        .map(|(first, last)| (Position(day::unsigned(first)), Position(last)));
    let first = report.positions.map_or(0, |(first, _)| first.0);
    let segments = Segments::read(connection, first)?;
    report.indexed = segments.covered().map(Position);
    report.taken_ns = log::taken_ns(connection, false)?.zip(log::taken_ns(connection, true)?);
    if !verify {
        return Ok(());
    }
    let mut statement = connection.prepare("PRAGMA integrity_check(10)")?;
    let rows = statement.query_map([], |row| row.get::<_, String>(0))?;
    for row in rows {
        let found = row?;
        if found != "ok" {
            report.problems.push(format!("SQLite: {found}"));
        }
    }
    let mut next = None;
    let mut unindexed = 0;
    log::blocks(connection, 0, |head, packed| {
        let end = head.first + head.records;
        if next.is_some_and(|next| head.first < next) {
            report.problems.push(format!("the block at {} begins before the one before it ends", head.first));
        }
        next = Some(end);
        match log::unpack(unpacker, head, packed) {
            Ok(records) => {
                let bad = records.iter().filter(|stored| {
                    !stored.entry().is_ok_and(|entry| crate::journal::facets::Facets::of(&entry).is_ok())
                });
                for stored in bad {
                    report.problems.push(format!("the record at {} cannot be read", stored.position));
                }
                // Positions that were never given are in no segment either.
                unindexed += records.iter().filter(|stored| segments.misses(stored.position)).count();
            }
            Err(_) => report.problems.push(format!(
                "the records from {} to {} cannot be read",
                head.first,
                end.saturating_sub(1)
            )),
        }
        true
    })?;
    if unindexed > 0 {
        report.problems.push(format!("the index has not {unindexed} of the records: it is made anew"));
    }
    for meta in segments.metas {
        if let Err(error) = stored::verify(connection, unpacker, meta) {
            report.problems.push(format!("the index from {} to {}: {error}", meta.first, meta.last));
        }
    }
    Ok(())
}

fn unpacker() -> Result<Unpacker, JournalError> {
    Unpacker::new().map_err(|error| JournalError::Storage(format!("zstd has no memory: {error}")))
}

fn files(path: &Path) -> Result<Vec<PathBuf>, JournalError> {
    let pieces = folder::pieces(path).map_err(|error| {
        JournalError::Storage(format!(
            "{}: cannot be listed: {error}; name the folder of journal.path",
            path.display()
        ))
    })?;
    Ok(pieces.into_iter().map(|piece| folder::day_path(path, piece)).collect())
}

/// `None`: a file that was never finished.
fn open(path: &Path) -> Result<Option<Connection>, JournalError> {
    let open = || {
        let (connection, _) = folder::open_to_read(path)?;
        if !day::is_initialised(&connection)? {
            return Ok(None);
        }
        day::extent(&connection)?;
        Ok(Some(connection))
    };
    open().map_err(|error| Failure::of(path, error).into_error())
}
