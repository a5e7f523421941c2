//! `file`: one JSON object a line, rotated by size, as lumberjack does it.
//!
//! A batch is on the disk before its cursor is committed. Every line is whole: what a crash left of a last line is cut off
//! before the first line is written. And every line is there once: a record that a crash caught between disk and cursor is
//! known again by the `id` in its line, for as long as the layout keeps that.

use std::io;
use std::path::Path;

use self::rotate::Rotation;
use self::writer::FileWriter;
use super::lines::{LIMITS, LineSink};
use crate::config::receivers::FileConfig;

mod repair;
mod rotate;
mod writer;

/// The sink of a `file` receiver. The file is opened with the first batch, and again after whatever fails.
///
/// # Errors
/// Where there is no thread to be had.
pub fn sink(name: &str, config: &FileConfig) -> io::Result<LineSink> {
    let rotation =
        Rotation { max_bytes: config.max_bytes, max_age: config.max_age, max_backups: config.max_backups };
    LineSink::new(name, LIMITS, FileWriter::new(name, &config.path, rotation))
}

/// An error with the path that it is about.
fn at(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests;
