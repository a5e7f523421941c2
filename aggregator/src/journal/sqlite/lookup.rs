//! What merging asks: memory first, then the newest file, then the earlier ones that retention keeps.

use std::path::PathBuf;

use rusqlite::Connection;
use rusqlite::types::Value;

use super::day::{self, Version};
use super::folder::Failure;
use super::memory::{Memory, Staged};
use crate::merge::{DeathKey, Known};

/// A file of an earlier day.
#[derive(Debug)]
pub(super) struct Earlier {
    pub(super) path: PathBuf,
    connection: Connection,
    versions: Option<(Value, Value)>,
}

/// The journal as of the transaction that is open.
pub(super) struct Lookup<'a> {
    pub(super) path: &'a PathBuf,
    pub(super) today: &'a Connection,
    pub(super) earlier: &'a [Earlier],
    pub(super) memory: &'a Memory,
    pub(super) staged: &'a Staged,
}

// === impl Earlier ===

impl Earlier {
    pub(super) fn new(path: PathBuf, connection: Connection) -> Result<Self, rusqlite::Error> {
        let versions = day::version_range(&connection)?;
        Ok(Self { path, connection, versions })
    }

    fn can_hold(&self, version: &Version<'_>) -> bool {
        match (&self.versions, version.number()) {
            (None, _) => false,
            // In SQLite's order every number comes before any text.
            (Some((Value::Integer(first), Value::Integer(last))), number) => {
                number.is_some_and(|number| (*first..=*last).contains(&number))
            }
            (Some(_), _) => true,
        }
    }
}

// === impl Lookup ===

impl Known for Lookup<'_> {
    type Error = Failure;

    fn watermark(&self, namespace: &str) -> Option<&str> {
        let staged = self.staged.watermarks.get(namespace);
        staged.or_else(|| self.memory.watermarks.get(namespace)).map(String::as_str)
    }

    fn contains_event(&mut self, uid: &str, resource_version: &str) -> Result<bool, Failure> {
        if day::contains_event(self.today, uid, resource_version).map_err(Failure::at(self.path))? {
            return Ok(true);
        }
        for earlier in self.earlier.iter().filter(|earlier| earlier.can_hold(&Version(resource_version))) {
            if day::contains_event(&earlier.connection, uid, resource_version)
                .map_err(Failure::at(&earlier.path))?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn last_count(&mut self, uid: &str) -> Result<Option<u64>, Failure> {
        let remembered = self.staged.counts.get(uid).copied().or_else(|| self.memory.counts.get(uid));
        match remembered {
            Some(count) => Ok(Some(count)),
            None => day::last_count(self.today, uid).map_err(Failure::at(self.path)),
        }
    }

    fn contains_death(&mut self, death: &DeathKey<'_>) -> Result<bool, Failure> {
        if day::contains_death(self.today, death).map_err(Failure::at(self.path))? {
            return Ok(true);
        }
        for earlier in self.earlier {
            if day::contains_death(&earlier.connection, death).map_err(Failure::at(&earlier.path))? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
