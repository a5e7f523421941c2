//! How long files are kept: by age and by bytes, whole files, never the newest.

use std::path::PathBuf;

use super::cursors::Cursors;
use super::folder::{DayFile, open_to_read};
use super::{Settings, day, folder};
use crate::journal::metrics::{ConsumerLabel, Dropped, DroppedLabel, JournalMetrics};

/// One look at the files.
pub(super) struct Keep<'a> {
    pub(super) settings: &'a Settings,
    pub(super) metrics: &'a JournalMetrics,
    pub(super) now_ns: i64,
}

// === impl Keep ===

impl Keep<'_> {
    /// Decides what has to go, counts and logs it.
    pub(super) fn apply(&self, files: &[DayFile], cursors: &mut Cursors) -> Vec<PathBuf> {
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
            self.remove(&[path]);
        }
        let Some((_, earlier)) = files.split_last() else { return Vec::new() };
        let mut dropped = Vec::new();
        for file in earlier {
            let max_age = i64::try_from(self.settings.max_age.as_nanos()).unwrap_or(i64::MAX);
            let is_old =
                folder::end_of(&file.date).is_some_and(|end| end.saturating_add(max_age) < self.now_ns);
            let reason = match is_old {
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

    fn count(&self, file: &DayFile, reason: Dropped, cursors: &mut Cursors) {
        let records = file.last.saturating_add(1).saturating_sub(file.first);
        self.metrics.dropped.get_or_create(&DroppedLabel { reason }).inc_by(records);
        tracing::info!(path = %file.path.display(), records, ?reason, "journal drops a file");
        let cursors = match cursors.all() {
            Ok(cursors) => cursors,
            Err(failure) => {
                let error = failure.into_error();
                tracing::warn!(%error, "cursors could not be read: what was not delivered is not counted");
                return;
            }
        };
        for (consumer, position) in cursors {
            let undelivered = file.last.saturating_sub(position.max(file.first.saturating_sub(1)));
            if undelivered > 0 {
                tracing::error!(consumer, undelivered, "journal drops records before they were delivered");
                let label = ConsumerLabel { consumer, reason: "retention" };
                self.metrics.undelivered.get_or_create(&label).inc_by(undelivered);
            }
        }
    }

    /// Removes files.
    pub(super) fn remove(&self, paths: &[PathBuf]) {
        for path in paths {
            if let Err(error) = folder::remove(path) {
                tracing::error!(path = %path.display(), %error, "journal file could not be removed");
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
            day::first_taken_ns(&connection).ok()?
        });
        self.metrics.oldest.set(oldest.map_or(0.0, |ns| ns as f64 / 1e9));
    }
}
