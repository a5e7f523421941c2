//! Reads entries from the files, on threads and connections of its own.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crossbeam_channel::{Receiver, Sender};
use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::block::{Objects, Unpacker};
use super::folder::{DayFile, Failure, Files};
use super::log::{self, LeftOut};
use super::writer::Command;
use super::{READ_BYTES, folder};
use crate::journal;
use crate::journal::metrics::{ErrorLabel, Failed, JournalMetrics};
use crate::journal::{JournalError, Position};

/// What is to be read.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) after: Position,
    pub(super) limit: usize,
    pub(super) answer: oneshot::Sender<Result<Vec<journal::Entry>, JournalError>>,
    /// Its place in the queue.
    pub(super) place: OwnedSemaphorePermit,
}

/// One thread's connections.
pub(super) struct Reader {
    pub(super) files: Files,
    pub(super) metrics: JournalMetrics,
    pub(super) writer: Sender<Command>,
    /// By the file's generation.
    pub(super) connections: HashMap<u64, Connection>,
    pub(super) unpacker: Unpacker,
    pub(super) objects: Objects,
}

// === impl Reader ===

impl Reader {
    /// Serves until the last handle of the journal is gone.
    pub(super) fn run(mut self, reads: &Receiver<Read>) {
        while let Ok(Read { after, limit, answer, place }) = reads.recv() {
            let result = self.read(after, limit);
            drop(place);
            // Who asked may have gone.
            let _ = answer.send(result);
        }
    }

    fn read(&mut self, after: Position, limit: usize) -> Result<Vec<journal::Entry>, JournalError> {
        let files = self.files.snapshot();
        self.connections.retain(|generation, _| files.iter().any(|file| file.generation == *generation));
        let mut entries = Vec::new();
        let mut bytes = READ_BYTES;
        for file in files.iter().filter(|file| file.last > after.0) {
            if entries.len() >= limit || bytes == 0 {
                break;
            }
            let Err(failure) = self.read_file(file, after, limit, &mut bytes, &mut entries) else { continue };
            self.connections.remove(&file.generation);
            if !file.path.exists() {
                // Retention was faster.
                continue;
            }
            let reason = failure.kind();
            self.metrics.errors.get_or_create(&ErrorLabel { reason }).inc();
            if reason != Failed::Corrupt {
                return if entries.is_empty() { Err(failure.into_error()) } else { Ok(entries) };
            }
            // What was read of it is good. The writer puts the file aside; where its queue is full, the next read asks again.
            let _ = self.writer.try_send(Command::SetAside(failure));
        }
        Ok(entries)
    }

    fn read_file(
        &mut self,
        file: &DayFile,
        after: Position,
        limit: usize,
        bytes: &mut usize,
        entries: &mut Vec<journal::Entry>,
    ) -> Result<(), Failure> {
        if let Entry::Vacant(place) = self.connections.entry(file.generation) {
            let (connection, is_as_it_lay) =
                folder::open_to_read(&file.path).map_err(Failure::at(&file.path))?;
            if is_as_it_lay {
                // Good for once.
                let malformed = log::read(
                    &connection,
                    (&mut self.unpacker, &mut self.objects),
                    after.0,
                    limit,
                    bytes,
                    entries,
                )
                .map_err(|error| Failure::of(&file.path, error).of_as_it_lay())?;
                self.leave_out(file, &malformed);
                return Ok(());
            }
            place.insert(connection);
        }
        let Some(connection) = self.connections.get(&file.generation) else { return Ok(()) };
        let malformed =
            log::read(connection, (&mut self.unpacker, &mut self.objects), after.0, limit, bytes, entries)
                .map_err(Failure::at(&file.path))?;
        self.leave_out(file, &malformed);
        Ok(())
    }

    fn leave_out(&self, file: &DayFile, malformed: &[LeftOut]) {
        let Some(first) = malformed.first() else { return };
        let label = ErrorLabel { reason: Failed::Record };
        let records: u64 = malformed.iter().map(|left_out| left_out.records).sum();
        self.metrics.errors.get_or_create(&label).inc_by(records);
        let path = file.path.display();
        tracing::error!(%path, records, first = first.position().0, "records cannot be read, left out");
    }
}
