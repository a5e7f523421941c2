//! How long files are kept: by age and by bytes, whole files, never the newest. A file that grows past an eighth of what
//! the journal may take is followed by another one of the same day, so that there is always one to drop.

use std::io;
use std::path::{Path, PathBuf};

use super::cursors::Cursors;
use super::folder::{DayFile, open_to_read};
use super::{Settings, folder, log};
use crate::journal::metrics::{ConsumerLabel, Dropped, DroppedLabel, JournalMetrics};

/// No file is closed for its size below this: an empty one takes a tenth of it.
const SMALLEST_PIECE: u64 = 1 << 20;

const SMALLEST_LOG: u64 = 256 << 10;
const LARGEST_LOG: u64 = 32 << 20;

/// One look at the files.
pub(super) struct Keep<'a> {
    pub(super) settings: &'a Settings,
    pub(super) metrics: &'a JournalMetrics,
    pub(super) now_ns: i64,
}

// === impl Keep ===

impl Keep<'_> {
    /// Decides what has to go, counts and logs it.
    pub(super) fn apply(&self, files: &[DayFile], cursors: &Cursors) -> Vec<PathBuf> {
        let aside = folder::set_aside_files(&self.settings.path);
        let aside_bytes: u64 =
            aside.iter().filter_map(|path| path.metadata().ok()).map(|data| data.len()).sum();
        let mut bytes = aside_bytes + files.iter().map(|file| folder::size_of(&file.path)).sum::<u64>();
        for path in aside {
            if bytes <= self.settings.max_bytes {
                break;
            }
            bytes -= path.metadata().map_or(0, |data| data.len());
            tracing::warn!(path = %path.display(), "journal drops a file that was put aside, to stay within its bytes");
            removed(&path, folder::remove(&path));
        }
        let Some((_, earlier)) = files.split_last() else { return Vec::new() };
        let mut dropped = Vec::new();
        for file in earlier {
            let max_age = i64::try_from(self.settings.max_age.as_nanos()).unwrap_or(i64::MAX);
            let is_old =
                folder::end_of(&file.piece.date).is_some_and(|end| end.saturating_add(max_age) < self.now_ns);
            let reason = match is_old {
                // Age alone does not cost a sink what it has yet to deliver.
                true if bytes <= self.settings.max_bytes && self.is_needed(file, cursors) => break,
                true => Dropped::Age,
                false if bytes > self.settings.max_bytes => Dropped::Bytes,
                false => break,
            };
            bytes = bytes.saturating_sub(folder::size_of(&file.path));
            self.count(file, reason, cursors);
            dropped.push(file.path.clone());
        }
        dropped
    }

    /// Whether one of those that must deliver has yet to deliver some of a file.
    fn is_needed(&self, file: &DayFile, cursors: &Cursors) -> bool {
        let required = &self.settings.required;
        if required.is_empty() {
            return false;
        }
        match cursors.all() {
            Ok(all) => required.iter().any(|consumer| {
                let position =
                    all.iter().find(|(name, _)| name == consumer).map_or(0, |(_, position)| *position);
                position < file.last
            }),
            // Whoever cannot be asked may need it.
            Err(_) => true,
        }
    }

    /// Whether a file is so large that the next record belongs in a new one: an eighth of its room.
    pub(super) fn is_large(&self, files: &[DayFile]) -> bool {
        let Some(newest) = files.last() else { return false };
        let most = (self.room(files) / 8).max(SMALLEST_PIECE);
        folder::size_of(&newest.path) > most
    }

    /// How large the log of a file may grow: moving it into the file takes as much again.
    pub(super) fn log_bytes(&self, files: &[DayFile]) -> u64 {
        (self.room(files) / 32).clamp(SMALLEST_LOG, LARGEST_LOG)
    }

    /// The journal's bytes, or what its volume has for it where that is less.
    fn room(&self, files: &[DayFile]) -> u64 {
        let bytes = files.iter().map(|file| folder::size_of(&file.path)).sum::<u64>();
        let room =
            folder::free_bytes(&self.settings.path).map_or(u64::MAX, |free| free.saturating_add(bytes));
        self.settings.max_bytes.min(room)
    }

    /// On a disk that is full: the oldest file, which makes room by going; never the newest. Counts and logs it.
    pub(super) fn make_room(&self, files: &[DayFile], cursors: &Cursors) -> Option<PathBuf> {
        let (_, earlier) = files.split_last()?;
        let oldest = earlier.first()?;
        self.count(oldest, Dropped::Full, cursors);
        Some(oldest.path.clone())
    }

    fn count(&self, file: &DayFile, reason: Dropped, cursors: &Cursors) {
        let records = records_after(file, file.first.saturating_sub(1));
        self.metrics.dropped.get_or_create(&DroppedLabel { reason }).inc_by(records);
        tracing::info!(path = %file.path.display(), records, ?reason, "journal drops a file");
        let all = match cursors.all() {
            Ok(all) => all,
            Err(failure) => {
                let error = failure.into_error();
                tracing::warn!(%error, "cursors could not be read: what was not delivered is not counted");
                return;
            }
        };
        for (consumer, position) in all {
            let after = position.max(file.first.saturating_sub(1));
            let had = match file.last > after {
                true => cursors.had_within(&consumer, after, file.last).unwrap_or(0),
                false => 0,
            };
            let undelivered =
                if file.last > after { records_after(file, after).saturating_sub(had) } else { 0 };
            if undelivered > 0 {
                tracing::error!(consumer, undelivered, "journal drops records before they were delivered");
                let label = ConsumerLabel { consumer, reason: "retention" };
                self.metrics.undelivered.get_or_create(&label).inc_by(undelivered);
            }
        }
    }

    /// Puts what there is into the gauges.
    pub(super) fn measure(&self, files: &[DayFile]) {
        let cursors = folder::size_of(&self.settings.path.join(folder::CURSORS));
        let bytes = cursors + files.iter().map(|file| folder::size_of(&file.path)).sum::<u64>();
        self.metrics.bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        self.metrics.files.set(i64::try_from(files.len()).unwrap_or(i64::MAX));
        let oldest = files.iter().find_map(|file| {
            let (connection, _) = open_to_read(&file.path).ok()?;
            log::taken_ns(&connection, false).ok()?
        });
        self.metrics.oldest.set(oldest.map_or(0.0, |ns| ns as f64 / 1e9));
    }
}

/// How many records a file has after a position, which are fewer than its positions where what came between was lost. Of one that
/// cannot be read: as many as there may be.
fn records_after(file: &DayFile, after: u64) -> u64 {
    let count = || log::records_after(&open_to_read(&file.path)?.0, after);
    count().unwrap_or_else(|_: rusqlite::Error| file.last.saturating_sub(after))
}

/// Says so where a file could not be removed.
pub(super) fn removed(path: &Path, result: io::Result<()>) {
    if let Err(error) = result {
        tracing::error!(path = %path.display(), %error, "journal file could not be removed");
    }
}
