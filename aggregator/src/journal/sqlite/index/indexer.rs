//! Reads the log behind the writer and builds the index. Writes nothing itself: a segment that is full goes to the writer.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError};
use rusqlite::Connection;
use tokio::sync::watch;

use super::builder::Builder;
use super::directory::{Directory, Span};
use super::stored::{Encoded, Merged, Meta};
use crate::journal::metrics::{ErrorLabel, Failed, JournalMetrics};
use crate::journal::sqlite::block::{BLOCK_BYTES, BLOCK_RECORDS, Malformed, Packer, Unpacker};
use crate::journal::sqlite::folder::{self, DayFile, Failure, Files};
use crate::journal::sqlite::log::{self, Head};
use crate::journal::sqlite::recent::Recent;
use crate::journal::sqlite::writer::Command;
use crate::journal::{JournalError, Position};

/// After this it looks again by itself, also where something failed.
const AGAIN: Duration = Duration::from_secs(1);

/// Blocks that are looked up at once.
const BLOCKS: usize = 64;

/// The writer's ends of what it shares with the indexer. Where to answer does not travel with a segment: a channel keeps what nobody
/// takes any more, and the answer to a segment that the writer left behind would be waited for without end.
pub(in super::super) struct WriterEnds {
    /// Segments to be written, one at a time.
    pub(in super::super) stores: Receiver<Box<Encoded>>,
    /// Whether the last one was.
    pub(in super::super) answers: Sender<Result<(), JournalError>>,
    pub(in super::super) wakes: Sender<()>,
}

/// The thread's state.
pub(in super::super) struct Indexer {
    pub(in super::super) files: Files,
    pub(in super::super) directory: Directory,
    /// The last entries, which need not be read.
    pub(in super::super) recent: Recent,
    pub(in super::super) head: watch::Receiver<Position>,
    pub(in super::super) stores: Sender<Box<Encoded>>,
    pub(in super::super) answers: Receiver<Result<(), JournalError>>,
    pub(in super::super) writer: Sender<Command>,
    pub(in super::super) metrics: JournalMetrics,
    /// By the file's generation.
    connections: HashMap<u64, Connection>,
    unpacker: Unpacker,
    storing: Option<Storing>,
    /// What it waits for was said.
    is_stuck: bool,
}

/// A segment that the writer was given.
struct Storing {
    sealed: Arc<Builder>,
    meta: Meta,
}

/// A block to be added to the segment that grows.
struct Growth<'a> {
    directory: &'a Directory,
    metrics: &'a JournalMetrics,
    file: &'a DayFile,
    head: Head,
}

/// Why it cannot go on now.
#[derive(Debug, thiserror::Error)]
enum Stuck {
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("{0}")]
    Memory(#[from] std::io::Error),
    #[error("the journal has stopped")]
    Stopped,
}

// === impl Indexer ===

impl Indexer {
    pub(in super::super) fn new(
        files: Files,
        directory: Directory,
        recent: Recent,
        head: watch::Receiver<Position>,
        (stores, answers): (Sender<Box<Encoded>>, Receiver<Result<(), JournalError>>),
        writer: Sender<Command>,
        metrics: JournalMetrics,
    ) -> std::io::Result<Self> {
        let unpacker = Unpacker::new()?;
        Ok(Self {
            files,
            directory,
            recent,
            head,
            stores,
            answers,
            writer,
            metrics,
            connections: HashMap::new(),
            unpacker,
            storing: None,
            is_stuck: false,
        })
    }

    /// Indexes what there is each time it is woken, until nobody can wake it any more.
    pub(in super::super) fn run(mut self, wakes: &Receiver<()>) {
        loop {
            match wakes.recv_timeout(AGAIN) {
                Ok(()) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            loop {
                match self.step() {
                    Ok(is_more) => {
                        // Of what the writer was given it says later whether it could.
                        self.is_stuck &= self.storing.is_some();
                        if !is_more {
                            break;
                        }
                    }
                    Err(Stuck::Stopped) => return,
                    Err(error) => {
                        if !self.is_stuck {
                            tracing::warn!(%error, "journal's index waits");
                        }
                        self.is_stuck = true;
                        break;
                    }
                }
            }
        }
    }

    /// Does a little; whether there may be more to do.
    fn step(&mut self) -> Result<bool, Stuck> {
        // While one segment is being written the next one grows, and what comes meanwhile is in memory still when it is looked at. There
        // are no more than these two.
        match self.sealed(|sealed| !sealed.is_anew) {
            Some(_) => self.wait_for_answer()?,
            None => self.take_answer()?,
        }
        // Only now, as files may have gone while it waited.
        let files = self.files.snapshot();
        self.connections.retain(|generation, _| files.iter().any(|file| file.generation == *generation));
        if let Some(sealed) = self.sealed(|sealed| !sealed.is_anew) {
            self.store(&sealed, &files)?;
            return Ok(true);
        }
        let head = self.head.borrow().0;
        let mut behind = 0;
        let mut todo = None;
        for file in &files {
            // Not there yet, or no more.
            let Some(covered) = self.directory.covered(file.generation) else { continue };
            let last = file.last.min(head);
            behind += last.saturating_sub(covered);
            if todo.is_none() && covered < last {
                todo = Some((file, covered, last));
            }
            if todo.is_none() && file.last != u64::MAX {
                // Nothing more comes to it.
                let is_sealed = self.directory.write(|state| {
                    let grown = state.growing.take_if(|growing| growing.generation == file.generation);
                    let grown = grown.filter(|grown| !grown.is_empty());
                    let is_sealed = grown.is_some();
                    state.sealed.extend(grown.map(Arc::new));
                    is_sealed
                });
                if is_sealed {
                    return Ok(true);
                }
            }
        }
        self.metrics.unindexed.set(i64::try_from(behind).unwrap_or(i64::MAX));
        match todo {
            Some((file, covered, last)) => self.index(file, covered, last).map(|()| true),
            None if self.storing.is_some() => self.wait_for_answer().map(|()| true),
            None => self.mend(&files),
        }
    }

    /// The first full segment that is such, and that the writer was not given.
    fn sealed(&self, is_such: impl Fn(&Builder) -> bool) -> Option<Arc<Builder>> {
        let is_given = |other: &Arc<Builder>| {
            self.storing.as_ref().is_some_and(|Storing { sealed, .. }| Arc::ptr_eq(other, sealed))
        };
        self.directory
            .read(|state| state.sealed.iter().find(|sealed| is_such(sealed) && !is_given(sealed)).cloned())
    }

    /// Adds what follows a position to the segment that grows.
    fn index(&mut self, file: &DayFile, covered: u64, last: u64) -> Result<(), Stuck> {
        let mut heads = with(&mut self.connections, &self.writer, file, |connection| {
            log::heads(connection, covered, BLOCKS)
        })?;
        heads.retain(|head| head.first <= last);
        if heads.is_empty() {
            // What was to be there is not: it cannot be indexed.
            self.directory.write(|state| state.covered.insert(file.generation, last));
            return Ok(());
        }
        for head in heads {
            let end = head.first + head.records.max(1) - 1;
            let growth = Growth { directory: &self.directory, metrics: &self.metrics, file, head };
            let is_full = match self.recent.batches(head.first, end) {
                Some(batches) => {
                    let entries = batches.iter().flat_map(|batch| batch.iter()).map(|(_, entry)| entry);
                    let of_block = entries.filter(|entry| (head.first..=end).contains(&entry.position.0));
                    growth.add(of_block.map(|entry| (entry.position.0, entry)), Builder::add_entry)
                }
                None => {
                    let packed = with(&mut self.connections, &self.writer, file, |connection| {
                        log::body(connection, head.first)
                    })?;
                    match log::unpack(&mut self.unpacker, head, &packed) {
                        Ok(records) => {
                            growth.add(records.iter().map(|stored| (stored.position, stored)), Builder::add)
                        }
                        Err(Malformed) => growth.pass(end),
                    }
                }
            };
            if is_full {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Makes a segment anew that cannot be read in its file; whether there was one. Where its file takes nothing, it stays in memory,
    /// and the other files' go on.
    fn mend(&mut self, files: &[DayFile]) -> Result<bool, Stuck> {
        if let Some(sealed) = self.sealed(|sealed| sealed.is_anew) {
            return self.store(&sealed, files).map(|()| true);
        }
        let Some(span) = self.directory.read(|state| state.damaged.first().copied()) else {
            return Ok(false);
        };
        let Some(file) = files.iter().find(|file| file.generation == span.generation) else {
            self.directory.write(|state| state.damaged.retain(|other| *other != span));
            return Ok(true);
        };
        let mut anew = Builder::new(span.generation, span.first);
        anew.is_anew = true;
        let mut rest = None;
        let unpacker = &mut self.unpacker;
        with(&mut self.connections, &self.writer, file, |connection| {
            log::blocks(connection, span.first.saturating_sub(1), |head, packed| {
                if head.first > span.last {
                    return false;
                }
                for stored in log::unpack(unpacker, head, packed).iter().flatten() {
                    if !(span.first..=span.last).contains(&stored.position) {
                        continue;
                    }
                    if anew.is_full_for(stored.position) {
                        rest = Some(Span { first: stored.position, ..span });
                        return false;
                    }
                    // What cannot be read was counted when it was indexed first.
                    let _ = anew.add(stored);
                }
                true
            })
        })?;
        // They are in the file, and newer ones may be.
        anew.recurrences.clear();
        self.directory.write(|state| {
            if state.damaged.contains(&span) {
                state.damaged.retain(|other| *other != span);
                state.damaged.extend(rest);
                state.sealed.extend((!anew.is_empty()).then(|| Arc::new(anew)));
            }
        });
        Ok(true)
    }

    /// Gives the writer a full segment.
    fn store(&mut self, sealed: &Arc<Builder>, files: &[DayFile]) -> Result<(), Stuck> {
        let file = files.iter().find(|file| file.generation == sealed.generation);
        if let Some(file) = file {
            let merged = self.merge(file, sealed)?;
            let encoded = Box::new(Encoded::new(sealed, merged)?);
            let meta = encoded.meta;
            self.stores.send(encoded).map_err(|_| Stuck::Stopped)?;
            self.storing = Some(Storing { sealed: sealed.clone(), meta });
            return Ok(());
        }
        self.directory.write(|state| state.sealed.retain(|other| !Arc::ptr_eq(other, sealed)));
        Ok(())
    }

    /// Waits for the writer to have written what it was given, and takes note of it.
    fn wait_for_answer(&mut self) -> Result<(), Stuck> {
        let Some(storing) = self.storing.take() else { return Ok(()) };
        let answer = self.answers.recv().map_err(|_| Stuck::Stopped)?;
        self.answered(&storing, answer)
    }

    /// Takes note of what the writer has written, if it has.
    fn take_answer(&mut self) -> Result<(), Stuck> {
        let Some(storing) = self.storing.take() else { return Ok(()) };
        match self.answers.try_recv() {
            Ok(answer) => self.answered(&storing, answer),
            Err(TryRecvError::Disconnected) => Err(Stuck::Stopped),
            Err(TryRecvError::Empty) => {
                self.storing = Some(storing);
                Ok(())
            }
        }
    }

    /// A segment that could not be written stays, and is the next that the writer is given.
    fn answered(&mut self, storing: &Storing, answer: Result<(), JournalError>) -> Result<(), Stuck> {
        answer?;
        self.is_stuck = false;
        let Storing { sealed, meta } = storing;
        self.directory.write(|state| {
            // One that the writer found damaged before this was known is made anew.
            if state.covered.contains_key(&sealed.generation) && !state.is_damaged(sealed) {
                state.stored.push((sealed.generation, *meta));
            }
            state.sealed.retain(|other| !Arc::ptr_eq(other, sealed));
        });
        Ok(())
    }

    /// Packs runs of small blocks anew, as slow times leave them.
    fn merge(&mut self, file: &DayFile, sealed: &Builder) -> Result<Vec<Merged>, Stuck> {
        let is_small = |head: &Head| {
            head.records as usize <= BLOCK_RECORDS / 2
                && head.bytes <= BLOCK_BYTES / 2
                && head.first >= sealed.first
                && head.first + head.records <= sealed.next()
        };
        let mut merged = Vec::new();
        let mut packer = Packer::new()?;
        for run in sealed.blocks.chunk_by(|left, right| is_small(left) && is_small(right)) {
            let (Some(first), Some(last)) = (run.first(), run.last()) else { continue };
            if run.len() < 2 {
                continue;
            }
            let end = last.first + last.records - 1;
            let mut blocks = Vec::new();
            let mut failed = None;
            let mut next = first.first;
            packer.clear();
            let mut unpacker = Unpacker::new()?;
            with(&mut self.connections, &self.writer, file, |connection| {
                log::blocks(connection, first.first - 1, |head, packed| {
                    if head.first > end {
                        return false;
                    }
                    let Ok(records) = log::unpack(&mut unpacker, head, packed) else {
                        failed = Some(Malformed);
                        return false;
                    };
                    for stored in &records {
                        // Positions in a block follow one another.
                        if stored.position != next {
                            failed = Some(Malformed);
                            return false;
                        }
                        next += 1;
                        packer.push(stored);
                        if packer.is_full() {
                            match packer.pack() {
                                Ok(block) => blocks.push(block),
                                Err(_) => failed = Some(Malformed),
                            }
                        }
                    }
                    failed.is_none()
                })
            })?;
            if !packer.is_empty() {
                blocks.push(packer.pack()?);
            }
            // What cannot be read stays as it lies.
            if failed.is_none() && next == end + 1 {
                merged.push(Merged { first: first.first, last: end, blocks });
            }
        }
        Ok(merged)
    }
}

/// Asks a file, whose connection is kept.
fn with<T>(
    connections: &mut HashMap<u64, Connection>,
    writer: &Sender<Command>,
    file: &DayFile,
    run: impl FnOnce(&Connection) -> Result<T, rusqlite::Error>,
) -> Result<T, Stuck> {
    let result = match connections.entry(file.generation) {
        Entry::Occupied(occupied) => run(occupied.get()),
        Entry::Vacant(vacant) => match folder::open_to_read(&file.path) {
            // Nothing of it is to be kept.
            Ok((connection, true)) => run(&connection),
            Ok((connection, false)) => run(vacant.insert(connection)),
            Err(error) => Err(error),
        },
    };
    result.map_err(|error| {
        connections.remove(&file.generation);
        let failure = Failure::new(&file.path, error);
        let told = failure.describe();
        if failure.kind() == Failed::Corrupt && file.path.exists() {
            // Where its queue is full, the next look finds the same.
            let _ = writer.try_send(Command::SetAside(failure));
        }
        told.into()
    })
}

// === impl Growth ===

impl Growth<'_> {
    /// Adds the records of the block that are not covered yet. Whether the segment is full.
    fn add<'t, T: 't>(
        &self,
        records: impl Iterator<Item = (u64, &'t T)>,
        add: impl Fn(&mut Builder, &T) -> Result<(), Malformed>,
    ) -> bool {
        let Self { directory, metrics, file, head } = self;
        directory.write(|state| {
            // Its file may have gone meanwhile.
            let Some(reached) = state.covered.get_mut(&file.generation) else { return false };
            for (position, record) in records {
                if position <= *reached {
                    continue;
                }
                let growing = state.growing.get_or_insert_with(|| Builder::new(file.generation, position));
                if growing.is_full_for(position) {
                    let grown = state.growing.take();
                    state.sealed.extend(grown.map(Arc::new));
                    return true;
                }
                if growing.blocks.last() != Some(head) {
                    growing.blocks.push(*head);
                }
                if add(growing, record).is_err() {
                    metrics.errors.get_or_create(&ErrorLabel { reason: Failed::Record }).inc();
                }
                *reached = position;
            }
            false
        })
    }

    /// Passes over the block, which cannot be read.
    fn pass(&self, end: u64) -> bool {
        let Self { directory, metrics, file, head } = self;
        tracing::error!(path = %file.path.display(), first = head.first, records = head.records, "records cannot be indexed");
        metrics.errors.get_or_create(&ErrorLabel { reason: Failed::Record }).inc_by(head.records);
        directory.write(|state| state.covered.insert(file.generation, end));
        false
    }
}

#[cfg(test)]
mod tests;
