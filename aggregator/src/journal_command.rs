//! `nodetap-aggregator journal`: the journal's folder read from the command line, beside an aggregator that runs or without one.

use std::io::{self, Write};
use std::path::Path;

use nodetap_wire::time;

use crate::journal::sqlite::offline::{self, FileReport, LeftOut};
use crate::journal::{JournalError, Position};

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// What is printed goes nowhere.
    #[error("cannot be written: {0}")]
    Output(#[from] io::Error),
    /// Not all of it could be read.
    #[error("{0}")]
    Unreadable(LeftOut),
    /// Something is wrong with it.
    #[error("{0} problems were found")]
    Problems(usize),
}

/// Prints the records after a position as JSON, one a line, as sinks get them. With `positions`, each is within an object that
/// also says where it stands and when it was taken.
///
/// # Errors
/// Where the journal cannot be read or the output takes no more; where records could not be read, after the others.
pub fn export(
    folder: &Path,
    cluster: &str,
    after: Position,
    positions: bool,
    out: &mut impl Write,
) -> Result<(), CommandError> {
    let (mut failed, mut faceless) = (Ok(()), 0);
    let mut left_out = offline::read(folder, after, |entry| {
        let Ok(face) = entry.face(cluster) else {
            faceless += 1;
            return true;
        };
        let printed = match positions {
            false => serde_json::to_writer(&mut *out, &face).map_err(io::Error::from),
            true => {
                let (position, taken_ns, time_ns) = (entry.position.0, entry.taken_ns, face.time_ns);
                write!(out, r#"{{"position":{position},"takenNs":{taken_ns},"timeNs":{time_ns},"record":"#)
                    .and_then(|()| serde_json::to_writer(&mut *out, &face).map_err(io::Error::from))
                    .and_then(|()| out.write_all(b"}"))
            }
        };
        failed = printed.and_then(|()| out.write_all(b"\n"));
        failed.is_ok()
    })?;
    match failed {
        // Who reads has enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
        failed => failed?,
    }
    out.flush()?;
    left_out.records += faceless;
    if left_out.is_nothing() { Ok(()) } else { Err(CommandError::Unreadable(left_out)) }
}

/// Prints what the files hold.
///
/// # Errors
/// Where the folder cannot be read.
pub fn stat(folder: &Path, out: &mut impl Write) -> Result<(), CommandError> {
    let reports = offline::report(folder, false)?;
    print(&reports, out)
}

/// Reads every page, record and index, and prints what is wrong.
///
/// # Errors
/// Where the folder cannot be read, or something is wrong.
pub fn verify(folder: &Path, out: &mut impl Write) -> Result<(), CommandError> {
    let reports = offline::report(folder, true)?;
    print(&reports, out)?;
    match reports.iter().map(|report| report.problems.len()).sum() {
        0 => Ok(()),
        problems => Err(CommandError::Problems(problems)),
    }
}

fn print(reports: &[FileReport], out: &mut impl Write) -> Result<(), CommandError> {
    let (mut records, mut bytes) = (0, 0);
    for report in reports {
        records += report.records;
        bytes += report.bytes;
        let path = report.path.display();
        write!(
            out,
            "{path}: {} records in {} blocks, {} bytes",
            report.records, report.blocks, report.bytes
        )?;
        if let Some((first, last)) = report.positions {
            write!(out, ", positions {} to {}", first.0, last.0)?;
        }
        if let Some(indexed) = report.indexed {
            write!(out, ", indexed to {}", indexed.0)?;
        }
        if let Some((first, last)) = report.taken_ns {
            let at = |ns| time::format_ns(ns).unwrap_or_default();
            write!(out, ", taken {} to {}", at(first), at(last))?;
        }
        writeln!(out)?;
        for problem in &report.problems {
            writeln!(out, "  {problem}")?;
        }
    }
    let each = bytes.checked_div(records).unwrap_or(0);
    writeln!(out, "{} files, {records} records, {bytes} bytes, {each} a record", reports.len())?;
    Ok(())
}
