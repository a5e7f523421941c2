//! The writer's files: which is written, which follow, what is put aside, what retention drops.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::Writer;
use crate::journal::gaps::Gaps;
use crate::journal::lost::What;
use crate::journal::metrics::{ErrorLabel, Failed};
use crate::journal::sqlite::folder::{self, DayFile, Failure, Piece};
use crate::journal::sqlite::index::directory::Span;
use crate::journal::sqlite::index::stored::{Encoded, Segments};
use crate::journal::sqlite::lookup::Earlier;
use crate::journal::sqlite::memory::version_number;
use crate::journal::sqlite::recurrences::Recurrences;
use crate::journal::sqlite::{day, ledgers, log, recall, retention, state};
use crate::journal::{JournalError, Position};

/// Of a file that begins where another ended, the counts of so many last records are remembered.
const RECALLED: u64 = 50_000;

/// A file that was there when the journal was opened.
struct Found {
    path: PathBuf,
    piece: Piece,
    extent: day::Extent,
    /// Up to where it is indexed.
    covered: u64,
    /// Its records that are not.
    unindexed: u64,
    segments: Segments,
    /// None: nobody else could read it meanwhile.
    connection: Option<Connection>,
}

// === impl Writer ===

impl Writer {
    /// Sees to it that today's file is open.
    pub(super) fn ensure_today(&mut self, now_ns: i64) -> Result<(), Failure> {
        if let Some(piece) = self.files.last().filter(|_| self.is_large).map(|newest| newest.piece.next()) {
            // Until it is measured again.
            self.is_large = false;
            match self.begin(piece, now_ns) {
                // Without room for another file, there may be some left in this one.
                Err(failure) if failure.kind() == Failed::Full && self.today.is_some() => {
                    let error = self.failed(failure);
                    tracing::warn!(%error, "journal's file is large, and there is no room for the next");
                }
                begun => return begun,
            }
        }
        let date = folder::date_of(now_ns);
        let newest = self.files.last().map(|newest| &newest.piece);
        // A clock that goes back does not open an old file again.
        if newest.is_some_and(|newest| newest.date >= date) && self.today.is_some() {
            return Ok(());
        }
        let newest = newest.filter(|newest| newest.date >= date).cloned();
        self.begin(newest.unwrap_or_else(|| Piece::first_of(date)), now_ns)
    }

    /// Opens a file to write to, the newest there is or one that follows it.
    fn begin(&mut self, piece: Piece, now_ns: i64) -> Result<(), Failure> {
        if self.today.is_none() {
            self.settle_newest(now_ns)?;
        }
        let newest = self.files.last();
        let path = folder::day_path(&self.settings.path, &piece);
        let at = || Failure::at(&path);
        let is_newest = newest.is_some_and(|newest| newest.piece == piece);
        let before = newest.filter(|_| !is_newest).cloned();
        let first = newest.filter(|_| is_newest).map_or(self.memory.head + 1, |newest| newest.first);
        let mut connection =
            day::open_to_write(&path, self.settings.synchronous, self.keep().log_bytes(&self.files))
                .map_err(at())?;
        if !day::is_initialised(&connection).map_err(at())? {
            self.memory.forget_watermarks(now_ns - state::WATERMARK_KEPT_NS);
            self.memory.ledgers.forget(now_ns - ledgers::KEPT_NS);
            if before.is_none() {
                self.memory.ledgers.clear();
            }
            let state = before.as_ref().map(|before| before.path.as_path());
            let mut made = day::initialise(&mut connection, &self.memory, state, now_ns).map_err(at());
            if made.as_ref().is_err_and(|failure| failure.kind() == Failed::Corrupt) && state.is_some() {
                // It is the old file that cannot be read. Without its counts, an Event that goes on is counted anew once; agents tell
                // their ledgers again.
                self.memory.ledgers.clear();
                made = day::initialise(&mut connection, &self.memory, None, now_ns).map_err(at());
            }
            made?;
            if let Err(error) = std::fs::File::open(&self.settings.path).and_then(|folder| folder.sync_all())
            {
                tracing::warn!(%error, path = %self.settings.path.display(), "folder could not be synced");
            }
        }
        if is_newest {
            ledgers::prepare(&connection, &self.memory.ledgers).map_err(at())?;
        }
        self.shared.set_ledgers(&self.memory);
        self.measure_ledgers();
        self.close_today();
        self.ranges = Segments::read(&connection, first).map_err(at())?.ranges;
        self.recurrences = Recurrences::load(&connection).map_err(at())?;
        self.today = Some(connection);
        if is_newest {
            // It may have been an earlier one while the one after it was put aside.
            if let Some(newest) = self.files.last_mut() {
                newest.last = u64::MAX;
            }
            self.earlier.retain(|earlier| earlier.path != path);
            self.files_changed();
            return Ok(());
        }
        if let Some(before) = before {
            self.retire(&before.path);
        }
        tracing::info!(path = %path.display(), "journal goes on in a new file");
        self.add_file(path, piece, (self.memory.head + 1, u64::MAX), self.memory.head, &Segments::default());
        self.upkeep();
        Ok(())
    }

    /// Sees to it that the newest file holds what was acknowledged and nothing else, and holds it on the disk, before anything is
    /// written behind it. A commit whose sync failed is found again in SQLite's log when that is opened anew, and may be there in the
    /// page cache alone: the kernel takes what it could not write for written. So all of the log is moved into the file, which writes
    /// it once more, and what nobody was told is kept is taken out.
    fn settle_newest(&mut self, now_ns: i64) -> Result<(), Failure> {
        let Some(newest) = self.files.last() else { return Ok(()) };
        let (path, head) = (&newest.path, self.memory.head);
        let mut is_taken_back = false;
        let mut settle = || {
            let log_bytes = self.keep().log_bytes(&self.files);
            let mut connection = day::open_to_write(path, self.settings.synchronous, log_bytes)?;
            if !day::is_initialised(&connection)? {
                return Ok(0);
            }
            let is_busy: bool =
                connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
            if is_busy {
                let busy = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY);
                return Err(rusqlite::Error::SqliteFailure(busy, Some("its log is being read".to_owned())));
            }
            let last = day::extent(&connection)?.last;
            if last > head {
                is_taken_back = true;
                day::take_back(&mut connection, &self.memory, now_ns)?;
            }
            Ok(last.saturating_sub(head))
        };
        let records = settle().map_err(Failure::at(path))?;
        if is_taken_back {
            self.memory.ledgers.clear();
        }
        if records > 0 {
            tracing::warn!(path = %path.display(), records, "records whose commit had failed were in the file, and are taken out: they are sent again");
        }
        Ok(())
    }

    /// Makes the newest file so far an earlier one. It is opened as such at once where it can be: what retention drops next tells from
    /// when it was.
    fn retire(&mut self, path: &Path) {
        if let Some(file) = self.files.iter_mut().find(|file| file.path == path) {
            file.last = self.memory.head;
        }
        match Earlier::open(path) {
            Ok((last, earlier)) => {
                if let Some(file) = self.files.iter_mut().find(|file| file.path == path) {
                    file.last = last;
                }
                self.earlier.retain(|earlier| earlier.path != path);
                self.earlier.push(earlier);
            }
            Err(failure) if failure.kind() == Failed::Corrupt => {
                tracing::error!(path = %path.display(), error = %failure.error, "journal file cannot be read");
                // The new file is there already, and its state is whole.
                if let Some(index) = self.files.iter().position(|file| file.path == path) {
                    self.give_up(index);
                }
            }
            // Tried again before anything is judged.
            Err(failure) => {
                let error = self.failed(failure);
                tracing::error!(%error, "journal file cannot be asked for duplicates");
            }
        }
        self.files_changed();
    }

    /// Sees to it that every earlier file can be asked: one that is not would let in again what it has.
    pub(super) fn ensure_earlier(&mut self) -> Result<(), Failure> {
        let Some((_, older)) = self.files.split_last() else { return Ok(()) };
        let missing =
            older.iter().filter(|file| self.earlier.iter().all(|earlier| earlier.path != file.path));
        for path in missing.map(|file| file.path.clone()).collect::<Vec<_>>() {
            let (_, earlier) = Earlier::open(&path)?;
            self.earlier.push(earlier);
        }
        Ok(())
    }

    /// Moves the log of the file that is being written into it, and closes it.
    pub(super) fn close_today(&mut self) {
        let Some(today) = self.today.take() else { return };
        checkpoint(&today);
    }

    fn add_file(
        &mut self,
        path: PathBuf,
        piece: Piece,
        (first, last): (u64, u64),
        covered: u64,
        segments: &Segments,
    ) {
        self.generation += 1;
        self.shared.directory.add(self.generation, covered, segments);
        self.files.push(DayFile { path, piece, first, last, generation: self.generation });
        self.shared.files.set(self.files.clone());
    }

    /// Opens the cursors. Where that fails for want of room, what is there is read.
    pub(super) fn open_cursors(&mut self) -> Result<(), JournalError> {
        let opened = self.cursors.open();
        self.known = match (opened, self.cursors.read_head()) {
            (_, Ok(known)) => known,
            (Err(failure), _) | (Ok(()), Err(failure)) => return Err(self.failed(failure)),
        };
        Ok(())
    }

    /// Opens the files that are there, newest first, and takes over the state of the newest that can be read.
    pub(super) fn open_files(&mut self) -> Result<(), JournalError> {
        let folder = self.settings.path.clone();
        let pieces = folder::pieces(&folder).map_err(|error| {
            JournalError::Storage(format!(
                "{}: cannot be listed: {error}; set journal.path",
                folder.display()
            ))
        })?;
        let mut is_lost = false;
        let mut is_hole = false;
        // Of those put aside, how many newer ones there are.
        let mut aside = BTreeSet::new();
        let mut found = Vec::new();
        for piece in pieces.into_iter().rev() {
            let path = folder::day_path(&folder, &piece);
            let is_recent = self.is_recent(&piece);
            match self.open_file(&path, piece, found.len()) {
                Ok(Some(file)) => found.push(file),
                // Never finished: it is made when it is needed.
                Ok(None) => {}
                Err(failure) if failure.kind() == Failed::Corrupt => {
                    tracing::error!(path = %path.display(), error = %failure.error, "journal file cannot be read");
                    self.put_aside(&path);
                    is_lost = true;
                    is_hole |= is_recent && !found.is_empty();
                    aside.insert(found.len());
                }
                Err(failure) => return Err(self.failed(failure)),
            }
        }
        found.reverse();
        for (after, last) in self.cursors.read_gaps() {
            self.shared.gaps.add(Position(after), Position(last));
        }
        let last = found.iter().map(|found| found.extent.last).max().unwrap_or(0);
        let told = self.told.read();
        self.known.committed = self.known.committed.max(told.unwrap_or(0));
        // A machine that ended as well may have taken the end of the log with it, and who was told of a position keeps it: a tail's reader.
        let may_be_lost = told.is_none() && last < self.known.reserved;
        is_lost |= last < self.known.committed;
        self.shared.losses.found(Position(last), self.known.losses);
        self.shared.losses.promised(Position(self.known.committed));
        let is_newest_lost = aside.contains(&0);
        for newer in aside {
            let what = match newer {
                0 => What::End,
                _ if is_hole => What::Hole,
                _ => What::Old,
            };
            self.shared.losses.lose(between(&found, newer, &self.shared.gaps), what);
        }
        if is_lost {
            // The file that was put aside says nothing of it at another start.
            self.note_head();
        }
        if is_hole {
            self.list_again();
        }
        if is_newest_lost || last < self.known.committed {
            // The ledgers of an older file call fewer deaths reported than were.
            self.memory.ledgers.clear();
        }
        self.memory.head = match is_lost || may_be_lost {
            true => last.max(self.known.reserved).max(self.known.committed),
            false => last,
        };
        let head = self.memory.head;
        if head > last {
            self.raised = head;
            let gap = (last.max(self.known.committed), head);
            self.shared.gaps.add(Position(gap.0), Position(gap.1));
            let first = found.first().map_or(0, |oldest| oldest.extent.first);
            if let Err(failure) = self.cursors.write_gap(gap, first) {
                // Known until the next start, which counts it among what is missing.
                let error = self.failed(failure);
                tracing::warn!(%error, "which positions were never given could not be noted");
            }
            match is_lost {
                true => tracing::warn!(
                    last,
                    head,
                    "records are missing at the journal's end, positions go on above them"
                ),
                false => tracing::warn!(
                    last,
                    head,
                    "the journal was not closed before the machine ended: positions go on above all that may have been given"
                ),
            }
        }
        let highest = self.memory.watermarks.values().filter_map(|version| version_number(version)).max();
        self.memory.counts.begin(highest.unwrap_or(0));
        self.head.send_replace(Position(self.memory.head));
        self.metrics.head.set(self.memory.head);
        self.shared.set_checkpoints(&self.memory);
        let newest = found.len().saturating_sub(1);
        for (index, file) in found.into_iter().enumerate() {
            let Found { path, piece, extent, covered, unindexed, segments, connection } = file;
            let last = if index == newest { u64::MAX } else { extent.last };
            self.add_file(path.clone(), piece, (extent.first, last), covered, &segments);
            self.add_unindexed(unindexed);
            if let Some(connection) = connection.filter(|_| index != newest) {
                self.earlier.push(Earlier { path, connection, ranges: segments.ranges });
            }
        }
        Ok(())
    }

    /// Opens a file to read, and reads its state where no newer one can be. `None`: it has no tables yet, and no other one follows it.
    fn open_file(&mut self, path: &Path, piece: Piece, newer: usize) -> Result<Option<Found>, Failure> {
        let mut open = || {
            let (connection, is_as_it_lies) = folder::open_to_read(path)?;
            if !day::is_initialised(&connection)? {
                return if newer == 0 { Ok(None) } else { Err(day::cut_off()) };
            }
            let extent = day::extent(&connection)?;
            if newer == 0 {
                state::read(&connection, &mut self.memory)?;
            }
            let segments = Segments::read(&connection, extent.first)?;
            let covered = segments.covered().unwrap_or(extent.first.saturating_sub(1));
            // What the index does not have is known by memory alone. A file that began a moment ago says little of what was
            // seen lately.
            let recalled = if newer < 2 { extent.last.saturating_sub(RECALLED) } else { u64::MAX };
            let from = covered.min(recalled.max(extent.first.saturating_sub(1)));
            for (first, last) in &segments.holes {
                let before = first.saturating_sub(1);
                recall::read(&connection, (before, *last), before, &mut self.memory)?;
            }
            let unindexed = recall::read(&connection, (from, u64::MAX), covered, &mut self.memory)?;
            let piece = piece.clone();
            let connection = Some(connection).filter(|_| !(is_as_it_lies && folder::has_log(path)));
            Ok(Some(Found { path: path.to_owned(), piece, extent, covered, unindexed, segments, connection }))
        };
        open().map_err(Failure::at(path))
    }

    /// Has a segment of the index made anew whose versions cannot be read: until then, which states its records are is remembered.
    pub(super) fn forget_segment(&mut self, failure: &Failure) -> Result<(), Failure> {
        let file = self.files.iter().find(|file| file.path == failure.path);
        let (Some(file), Some(range)) = (file, &failure.segment) else {
            self.earlier.retain(|earlier| earlier.path != failure.path);
            return Ok(());
        };
        let (first, last) = (range.segment, range.last);
        tracing::error!(path = %file.path.display(), first, last, error = %failure.error, "a part of the index cannot be read, and is made anew");
        self.metrics.errors.get_or_create(&ErrorLabel { reason: Failed::Segment }).inc();
        let before = first.saturating_sub(1);
        folder::open_to_read(&file.path)
            .and_then(|(connection, _)| recall::read(&connection, (before, last), before, &mut self.memory))
            .map_err(Failure::at(&file.path))?;
        self.shared.directory.damage(Span { generation: file.generation, first, last });
        let earlier = self.earlier.iter_mut().filter(|earlier| earlier.path == failure.path);
        for ranges in earlier.map(|earlier| &mut earlier.ranges).chain([&mut self.ranges]) {
            ranges.retain(|other| other.segment != first);
        }
        Ok(())
    }

    /// Puts a file aside in which something could not be read. A new one takes the place of the newest.
    pub(super) fn set_aside(&mut self, failure: &Failure) {
        let Some(index) = self.files.iter().position(|file| file.path == failure.path) else { return };
        tracing::error!(path = %failure.path.display(), error = %failure.error, "journal file cannot be read");
        if index + 1 == self.files.len() {
            self.today = None;
            self.ranges.clear();
            self.memory.ledgers.clear();
            self.shared.set_ledgers(&self.memory);
            self.recurrences = Recurrences::default();
        }
        self.give_up(index);
    }

    fn give_up(&mut self, index: usize) {
        let file = self.files.remove(index);
        self.earlier.retain(|earlier| earlier.path != file.path);
        self.lose(&file);
        self.unindexed.remove(&file.generation);
        self.memory.unindexed.forget(file.first, file.last);
        self.files_changed();
        self.put_aside(&file.path);
    }

    /// A file is gone. The watches that run now list again, so that what was lost is taken again where it still is.
    fn lose(&mut self, file: &DayFile) {
        let (before, last) = (file.first.saturating_sub(1), file.last.min(self.memory.head));
        let never = self.shared.gaps.within(Position(before), Position(last));
        let records = last.saturating_sub(before).saturating_sub(never);
        let is_recent = self.is_recent(&file.piece);
        if is_recent {
            self.list_again();
        }
        self.shared.losses.lose(records, if is_recent { What::Hole } else { What::Old });
        self.note_head();
    }

    /// Whether an API server may still have what is in a file.
    fn is_recent(&self, piece: &Piece) -> bool {
        folder::end_of(&piece.date)
            .is_none_or(|end| end.saturating_add(state::WATERMARK_KEPT_NS) > self.now_ns())
    }

    /// No watch is to go on from a checkpoint that is beyond what was lost, were it only after another start. Epochs stay.
    fn list_again(&mut self) {
        for checkpoint in self.memory.checkpoints.values_mut() {
            checkpoint.resource_version.clear();
        }
        self.shared.set_checkpoints(&self.memory);
        if self.today.is_some() {
            self.write_checkpoints();
        }
    }

    /// Writes the checkpoints as they are remembered.
    pub(super) fn write_checkpoints(&self) {
        let Some(today) = &self.today else { return };
        let write = || {
            let transaction = today.unchecked_transaction()?;
            for (shard, checkpoint) in &self.memory.checkpoints {
                state::write_checkpoint(&transaction, shard, checkpoint)?;
            }
            transaction.commit()
        };
        if let Err(error) = write() {
            // Known until the next start, and by then to those who hold the watches.
            tracing::warn!(%error, "that the watches are to list again could not be noted");
        }
    }

    fn put_aside(&self, path: &Path) {
        self.metrics.errors.get_or_create(&ErrorLabel { reason: Failed::Corrupt }).inc();
        match folder::set_aside(path, self.now_ns()) {
            Ok(aside) => {
                self.metrics.set_aside.inc();
                tracing::error!(path = %path.display(), aside = %aside.display(), "journal file put aside, the rest is served");
            }
            Err(error) => {
                tracing::error!(path = %path.display(), %error, "journal file could not be put aside")
            }
        }
    }

    /// Applies retention and measures what is left.
    pub(super) fn upkeep(&mut self) {
        let oldest = self.files.first().map_or(0, |file| file.first.saturating_sub(1));
        if let Err(failure) = self.cursors.begin_after(oldest) {
            let error = self.failed(failure);
            tracing::warn!(%error, "cursors that were begun anew could not be put before the oldest record");
        }
        let keep =
            retention::Keep { settings: &self.settings, metrics: &self.metrics, now_ns: self.now_ns() };
        let dropped = keep.apply(&self.files, &self.cursors);
        self.is_large = keep.is_large(&self.files);
        if !dropped.is_empty() {
            self.note_dropped(&dropped);
            self.forget(&dropped);
            for path in &dropped {
                retention::removed(path, folder::remove(path));
            }
        }
        self.cursors.gone_up_to(self.files.first().map_or(0, |file| file.first.saturating_sub(1)));
        self.keep().measure(&self.files);
    }

    /// Drops the oldest file of a full disk. `false`: there is none but the newest.
    pub(super) fn make_room(&mut self) -> bool {
        let keep =
            retention::Keep { settings: &self.settings, metrics: &self.metrics, now_ns: self.now_ns() };
        self.is_large = keep.is_large(&self.files);
        let Some(dropped) = keep.make_room(&self.files, &self.cursors) else { return false };
        self.note_dropped(std::slice::from_ref(&dropped));
        self.forget(std::slice::from_ref(&dropped));
        retention::removed(&dropped, folder::remove_at_once(&dropped));
        true
    }

    /// Remembers up to when records are gone, so that a death from before is not taken for new.
    fn note_dropped(&mut self, dropped: &[PathBuf]) {
        let last = self.earlier.iter().filter(|earlier| dropped.contains(&earlier.path));
        let last = last.filter_map(|earlier| log::taken_ns(&earlier.connection, true).ok().flatten()).max();
        let Some(last) = last.filter(|last| self.memory.dropped_ns.is_none_or(|before| *last > before))
        else {
            return;
        };
        self.memory.dropped_ns = Some(last);
        let written = self.today.as_ref().map_or(Ok(()), |today| state::write_dropped(today, last));
        if let Err(error) = written {
            // On a full disk it is known until the next start.
            tracing::warn!(%error, "up to when records were dropped could not be noted");
        }
    }

    fn forget(&mut self, dropped: &[PathBuf]) {
        for file in self.files.iter().filter(|file| dropped.contains(&file.path)) {
            self.unindexed.remove(&file.generation);
            self.memory.unindexed.forget(file.first, file.last);
        }
        self.files.retain(|file| !dropped.contains(&file.path));
        self.earlier.retain(|earlier| !dropped.contains(&earlier.path));
        // Readers let go of what is no longer listed; until then the disk keeps it for them.
        self.files_changed();
    }

    fn files_changed(&self) {
        self.shared.files.set(self.files.clone());
        let generations: Vec<_> = self.files.iter().map(|file| file.generation).collect();
        self.shared.directory.keep(&generations);
    }

    /// How many records no segment has that is written.
    pub(super) fn unindexed(&self) -> u64 {
        self.unindexed.values().sum()
    }

    /// Counts records that were added to the newest file.
    pub(super) fn add_unindexed(&mut self, records: u64) {
        let Some(newest) = self.files.last() else { return };
        *self.unindexed.entry(newest.generation).or_default() += records;
    }

    /// Writes a segment of the index.
    pub(super) fn store(&mut self, encoded: &Encoded) {
        let result = self.try_store(encoded).map_err(|failure| {
            let is_corrupt = failure.kind() == Failed::Corrupt;
            let error = failure.describe();
            match is_corrupt {
                true => self.set_aside(&failure),
                false => drop(self.failed(failure)),
            }
            error
        });
        // The indexer may have ended. Until it has taken this, it gives no other.
        let _ = self.indexer.answers.try_send(result);
    }

    fn try_store(&mut self, encoded: &Encoded) -> Result<(), Failure> {
        let Some(file) = self.files.iter().find(|file| file.generation == encoded.generation).cloned() else {
            return Ok(());
        };
        let now_ns = self.now_ns();
        let at = || Failure::at(&file.path);
        let is_newest = self.files.last().is_some_and(|newest| newest.generation == file.generation);
        if is_newest && self.today.is_none() {
            self.ensure_today(now_ns)?;
        }
        let counts = &encoded.recurrences;
        let write_counts = |transaction: &Connection| {
            let mut counts = counts.iter();
            counts.try_for_each(|(uid, count)| state::write_recurrence(transaction, *uid, *count, now_ns))
        };
        let is_newest = self.files.last().is_some_and(|newest| newest.generation == file.generation);
        match self.today.as_mut().filter(|_| is_newest) {
            Some(today) => {
                let mut write = || {
                    let transaction = today.transaction()?;
                    encoded.write(&transaction)?;
                    self.recurrences.write(&transaction, counts, now_ns)?;
                    transaction.commit()
                };
                write().map_err(at())?;
                self.recurrences.written(counts, now_ns);
                self.ranges.retain(|range| range.segment != encoded.range.segment);
                self.ranges.push(encoded.range);
            }
            None => {
                let log_bytes = self.keep().log_bytes(&self.files);
                let mut connection =
                    day::open_to_write(&file.path, self.settings.synchronous, log_bytes).map_err(at())?;
                let mut write = || {
                    let transaction = connection.transaction()?;
                    encoded.write(&transaction)?;
                    write_counts(&transaction)?;
                    transaction.commit()
                };
                write().map_err(at())?;
                checkpoint(&connection);
                if let Some(earlier) = self.earlier.iter_mut().find(|earlier| earlier.path == file.path) {
                    earlier.ranges.retain(|range| range.segment != encoded.range.segment);
                    earlier.ranges.push(encoded.range);
                }
                // The file that follows took over what there was when it began.
                if let Some(today) = self.today.as_mut() {
                    let mut write = || {
                        let transaction = today.transaction()?;
                        write_counts(&transaction)?;
                        transaction.commit()
                    };
                    if let Err(error) = write() {
                        tracing::warn!(%error, "counts of Events could not be carried into the next file");
                    }
                }
            }
        }
        self.memory.unindexed.forget(encoded.meta.first, encoded.meta.last);
        let stored = encoded.meta.last + 1 - encoded.meta.first;
        // What is made anew was counted when it was made first.
        if !encoded.is_anew
            && let Some(unindexed) = self.unindexed.get_mut(&encoded.generation)
        {
            *unindexed = unindexed.saturating_sub(stored);
        }
        Ok(())
    }

    fn keep(&self) -> retention::Keep<'_> {
        retention::Keep { settings: &self.settings, metrics: &self.metrics, now_ns: self.now_ns() }
    }
}

/// How many records are missing before the newest so many files; those before the oldest file are not known.
fn between(found: &[Found], newest: usize, gaps: &Gaps) -> u64 {
    let Some(index) = found.len().checked_sub(newest).filter(|index| *index > 0) else { return 0 };
    match (found.get(index - 1), found.get(index)) {
        (Some(before), Some(after)) => {
            let (before, after) = (before.extent.last, after.extent.first.saturating_sub(1));
            after.saturating_sub(before + gaps.within(Position(before), Position(after)))
        }
        _ => 0,
    }
}

/// Moves SQLite's log into the file.
fn checkpoint(connection: &Connection) {
    if let Err(error) = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())) {
        // It stays beside the file, and is read with it.
        tracing::warn!(%error, "journal's log could not be moved into its file");
    }
}
