//! The file that the file sink writes: how many records are in it, and which.

use std::fs::File;
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::delivered::Delivered;

/// A file of a record a line that grows.
#[derive(Debug)]
pub(crate) struct Records {
    path: PathBuf,
    open: Option<File>,
    lines: usize,
    buffer: Vec<u8>,
}

/// Enough that system calls do not count, and little enough that what was copied is still in the cache when it is looked at.
const BUFFER: usize = 256 * 1024;

// === impl Records ===

impl Records {
    /// Of a file that need not be there yet.
    pub(crate) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), open: None, lines: 0, buffer: vec![0; BUFFER] }
    }

    /// How many there are by now; only what came since the last time is read.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) fn count(&mut self) -> anyhow::Result<usize> {
        let file = match &mut self.open {
            Some(file) => file,
            None => match File::open(&self.path) {
                Ok(file) => self.open.insert(file),
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(0),
                Err(error) => {
                    return Err(error).with_context(|| format!("cannot read {}", self.path.display()));
                }
            },
        };
        loop {
            let read = file.read(&mut self.buffer)?;
            if read == 0 {
                return Ok(self.lines);
            }
            self.lines += memchr::memchr_iter(b'\n', self.buffer.get(..read).unwrap_or_default()).count();
        }
    }

    /// Which there are.
    ///
    /// # Errors
    /// It cannot be read, or a line is no JSON.
    pub(crate) fn read(&self) -> anyhow::Result<Delivered> {
        let mut delivered = Delivered::default();
        let file = File::open(&self.path).with_context(|| format!("cannot read {}", self.path.display()))?;
        for (number, line) in BufReader::with_capacity(BUFFER, file).lines().enumerate() {
            let record = serde_json::from_str(&line?)
                .with_context(|| format!("line {} of {}", number + 1, self.path.display()))?;
            delivered.take(&record);
        }
        Ok(delivered)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use std::io::Write as _;

    use super::*;

    #[test]
    fn whole_lines_are_counted_as_they_come_and_repeats_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("records.json");
        let mut records = Records::new(&path);
        assert_eq!(records.count().unwrap(), 0);
        let mut file = File::create(&path).unwrap();
        let line = br#"{"metadata": {"uid": "u", "resourceVersion": "7"}}"#;
        file.write_all(line).unwrap();
        assert_eq!(records.count().unwrap(), 0);
        file.write_all(b"\n").unwrap();
        file.write_all(line).unwrap();
        file.write_all(b"\n").unwrap();
        assert_eq!(records.count().unwrap(), 2);
        assert_eq!(records.read().unwrap().counts(), (1, 1));
    }
}
