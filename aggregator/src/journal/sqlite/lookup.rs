//! What merging asks: memory first, then the indexes of the files whose versions reach so far.

use std::path::{Path, PathBuf};

use nodetap_wire::EventSeen;
use rusqlite::Connection;

use super::folder::{self, Failure};
use super::index::stored::Segments;
use super::index::versions::{self, Range};
use super::memory::{Memory, Staged, version_of};
use super::recurrences::Recurrences;
use super::{day, deaths, hash, state};
use crate::merge::{DeathKey, Known};

/// A file as merging asks it.
#[derive(Debug)]
pub(super) struct Earlier {
    pub(super) path: PathBuf,
    pub(super) connection: Connection,
    pub(super) ranges: Vec<Range>,
}

/// The journal as of the transaction that is open.
pub(super) struct Lookup<'a> {
    pub(super) path: &'a PathBuf,
    pub(super) today: &'a Connection,
    /// Of today's segments.
    pub(super) ranges: &'a [Range],
    /// Counts that are not in today's table yet.
    pub(super) recurrences: &'a Recurrences,
    pub(super) earlier: &'a [Earlier],
    pub(super) memory: &'a Memory,
    pub(super) staged: &'a Staged,
}

// === impl Earlier ===

impl Earlier {
    /// Opens a file, and answers with the last position in it too.
    ///
    /// # Errors
    /// Where it cannot be read, or by nobody else meanwhile.
    pub(super) fn open(path: &Path) -> Result<(u64, Self), Failure> {
        let open = || {
            let (connection, is_as_it_lies) = folder::open_to_read(path)?;
            if is_as_it_lies && folder::has_log(path) {
                let full = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_FULL);
                let message = "no room to read it while others do".to_owned();
                return Err(rusqlite::Error::SqliteFailure(full, Some(message)));
            }
            let day::Extent { first, last } = day::extent(&connection)?;
            let ranges = Segments::read(&connection, first)?.ranges;
            Ok((last, Self { path: path.to_owned(), connection, ranges }))
        };
        open().map_err(Failure::at(path))
    }
}

// === impl Lookup ===

impl Lookup<'_> {
    fn files(&self) -> impl Iterator<Item = (&PathBuf, &Connection, &[Range])> {
        let today = (self.path, self.today, self.ranges);
        let earlier = self.earlier.iter();
        std::iter::once(today)
            .chain(earlier.map(|file| (&file.path, &file.connection, file.ranges.as_slice())))
    }
}

impl Known for Lookup<'_> {
    type Error = Failure;

    fn watermark(&self, namespace: &str) -> Option<&str> {
        let staged = self.staged.watermarks.get(namespace);
        staged.or_else(|| self.memory.watermarks.get(namespace)).map(String::as_str)
    }

    fn contains_event(&mut self, uid: &str, resource_version: &str) -> Result<bool, Failure> {
        let Some(version) = version_of(uid, resource_version) else {
            for (path, connection, _) in self.files() {
                if versions::contains_opaque(connection, uid, resource_version).map_err(Failure::at(path))? {
                    return Ok(true);
                }
            }
            return Ok(false);
        };
        if self.staged.versions.contains(&version) || self.memory.unindexed.contains(&version) {
            return Ok(true);
        }
        for (path, connection, ranges) in self.files() {
            let contained = versions::contains(connection, ranges, version);
            if contained.map_err(|(range, error)| Failure::in_segment(path, range, error))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn last_count(&mut self, event: &EventSeen) -> Result<Option<u64>, Failure> {
        let uid = hash::of(&[&event.uid]);
        let remembered = self.staged.counts.get(&uid).copied().or_else(|| self.memory.counts.get(uid));
        match remembered {
            Some(count) => Ok(Some(count)),
            // A count never falls: what counts more than a first state came after it, and none of that was forgotten.
            None if event.count <= 1 && self.memory.counts.has_all_after(&event.resource_version) => Ok(None),
            None => {
                let written = state::last_count(self.today, uid).map_err(Failure::at(self.path))?;
                Ok(written.max(self.recurrences.get(uid)))
            }
        }
    }

    fn contains_death(&mut self, death: &DeathKey<'_>) -> Result<bool, Failure> {
        for (path, connection, _) in self.files() {
            if deaths::contains(connection, death).map_err(Failure::at(path))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn dropped_ns(&self) -> Option<i64> {
        self.memory.dropped_ns
    }
}
