//! The outbox's disk: its own thread, which writes in groups, reads back, and gives room back.
//!
//! Nothing waits for it: commands go through a bounded channel and are tried again where it is full, answers come back in order.
//! A disk that fails says so with a reason, and is tried again when it is asked to.

mod folder;
mod segment;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use crossbeam_channel::{Receiver, Sender, bounded};
use nodetap_wire::{Batch, HeldWatch, frame};
use tokio::sync::mpsc;

use self::folder::{Folder, OpenError, ReadError};
use super::held::{Load, Place, Recovered};
use super::metrics::ErrorReason;

/// Commands on their way: a batch waits in the queue as well as here, so a few groups are enough.
const COMMANDS: usize = 64;

/// One answer a command, and the one at the start.
const ANSWERS: usize = COMMANDS * 2;

/// What the disk is to do.
#[derive(Debug)]
pub(super) enum Command {
    /// Keep a batch, which was closed at a time in nanoseconds since 1970.
    Write(Batch, i64),
    /// Read one back.
    Read(Load),
    /// Give the room of these back.
    Release(Vec<Place>),
    /// Keep which watches this agent holds.
    Watches(Vec<HeldWatch>),
    /// Try whether the disk takes anything now.
    Try,
}

/// What the disk did.
#[derive(Debug)]
pub(super) enum Answer {
    /// It can be had, and this is what an earlier process left on it.
    Opened(Left),
    /// These batches are on it, with one sync.
    Written(Vec<(u64, Place)>),
    /// These batches were acknowledged before their turn came, or could not be written.
    NotWritten(Vec<u64>),
    /// A batch was read back; `None`: it is lost.
    Read(u64, Option<Batch>),
    /// A batch could not be read back now: the disk failed, and what is on it may be whole.
    Unread(Load),
    /// It failed.
    Failed(Failure),
    /// It takes what is written.
    Well,
    /// Bytes of all segments.
    Bytes(u64),
}

/// What an earlier process left.
#[derive(Debug, Default)]
pub(super) struct Left {
    pub(super) batches: Vec<Recovered>,
    pub(super) damaged: usize,
    pub(super) torn: usize,
    pub(super) watches: Vec<HeldWatch>,
}

/// A failure of the disk.
#[derive(Debug)]
pub(super) struct Failure {
    /// Under which label it is counted.
    pub(super) reason: ErrorReason,
    /// What was done, and what the system says.
    pub(super) message: String,
    /// Nothing can be written. Otherwise one thing failed.
    pub(super) unusable: bool,
}

/// The way to the thread, which ends when this is dropped.
#[derive(Debug)]
pub(super) struct Handle {
    pub(super) commands: Sender<Command>,
    pub(super) answers: mpsc::Receiver<Answer>,
    /// Sequences up to this one are acknowledged, and need not be written any more.
    pub(super) acknowledged: Arc<AtomicU64>,
}

struct Worker {
    path: PathBuf,
    folder: Option<Folder>,
    commands: Receiver<Command>,
    answers: mpsc::Sender<Answer>,
    acknowledged: Arc<AtomicU64>,
    bytes: u64,
}

/// Starts the thread. Its first answer is whether the disk can be had.
///
/// # Errors
/// Where no thread can be had.
pub(super) fn start(path: PathBuf) -> io::Result<Handle> {
    let (commands, received) = bounded(COMMANDS);
    let (answer, answers) = mpsc::channel(ANSWERS);
    let acknowledged = Arc::new(AtomicU64::new(0));
    let worker = Worker {
        path,
        folder: None,
        commands: received,
        answers: answer,
        acknowledged: Arc::clone(&acknowledged),
        bytes: 0,
    };
    thread::Builder::new().name("outbox-disk".to_owned()).spawn(move || worker.run())?;
    Ok(Handle { commands, answers, acknowledged })
}

// === impl Worker ===

impl Worker {
    fn run(mut self) {
        self.open();
        while let Ok(first) = self.commands.recv() {
            // All that waits is one group.
            let mut group = Vec::new();
            let waiting: Vec<Command> = self.commands.try_iter().take(COMMANDS).collect();
            for command in std::iter::once(first).chain(waiting) {
                if let Command::Write(batch, closed_ns) = command {
                    group.push((batch, closed_ns));
                    continue;
                }
                self.write(std::mem::take(&mut group));
                self.obey(command);
            }
            self.write(group);
            let bytes = self.folder.as_ref().map_or(0, Folder::bytes);
            if std::mem::replace(&mut self.bytes, bytes) != bytes {
                self.say(Answer::Bytes(bytes));
            }
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Write(..) => {}
            Command::Read(load) => self.read(load),
            Command::Release(places) => {
                if let Some(folder) = &mut self.folder
                    && let Err(error) = folder.release(&places)
                {
                    self.failed("giving room back", &error, false);
                }
            }
            Command::Watches(watches) => {
                if let Some(folder) = &self.folder
                    && let Err(error) = folder.keep_watches(&watches)
                {
                    self.failed("keeping which watches are held", &error, false);
                }
            }
            Command::Try => match &self.folder {
                None => self.open(),
                Some(folder) => match folder.probe() {
                    Ok(()) => self.say(Answer::Well),
                    Err(error) => self.failed("trying the disk", &error, true),
                },
            },
        }
    }

    fn open(&mut self) {
        match Folder::open(&self.path) {
            Ok((folder, found)) => {
                self.folder = Some(folder);
                let folder::Found { batches, damaged, torn, watches } = found;
                self.say(Answer::Opened(Left { batches, damaged, torn, watches }));
                // What cannot be written is to be found now, and not in an outage.
                self.obey(Command::Try);
            }
            Err(error) => {
                let reason = match &error {
                    OpenError::Locked(_) => ErrorReason::locked,
                    OpenError::Io(_, error) => reason(error),
                };
                self.say(Answer::Failed(Failure { reason, message: error.to_string(), unusable: true }));
            }
        }
    }

    fn write(&mut self, mut group: Vec<(Batch, i64)>) {
        if group.is_empty() {
            return;
        }
        let acknowledged = self.acknowledged.load(Ordering::Relaxed);
        let done = group.iter().map(|(batch, _)| batch.sequence).filter(|sequence| *sequence <= acknowledged);
        let mut not_written: Vec<u64> = done.collect();
        group.retain(|(batch, _)| batch.sequence > acknowledged);
        let batches: Vec<(&Batch, i64)> =
            group.iter().map(|(batch, closed_ns)| (batch, *closed_ns)).collect();
        let sequences = group.iter().map(|(batch, _)| batch.sequence);
        let written = match &mut self.folder {
            Some(folder) if !batches.is_empty() => Some(folder.write(&batches)),
            Some(_) => None,
            None => Some(Err(io::Error::from(io::ErrorKind::NotFound))),
        };
        match written {
            Some(Ok(places)) => self.say(Answer::Written(sequences.zip(places).collect())),
            Some(Err(error)) => {
                not_written.extend(sequences);
                self.failed("writing", &error, true);
            }
            None => {}
        }
        if !not_written.is_empty() {
            self.say(Answer::NotWritten(not_written));
        }
    }

    fn read(&mut self, load: Load) {
        let Load { sequence, place, recovered } = load;
        let read = match &self.folder {
            Some(folder) => folder.read(place),
            None => Err(ReadError::Io(io::ErrorKind::NotFound.into())),
        };
        let batch = match read {
            Ok(batch) => resequenced(batch, sequence, recovered),
            Err(error) => {
                let reason = match &error {
                    ReadError::Io(error) => reason(error),
                    ReadError::Damaged(_) => ErrorReason::damaged,
                };
                let message = format!("reading segment {} at {}: {error}", place.segment, place.offset);
                self.say(Answer::Failed(Failure { reason, message, unusable: false }));
                if error.may_pass() {
                    return self.say(Answer::Unread(load));
                }
                None
            }
        };
        self.say(Answer::Read(sequence, batch));
    }

    fn failed(&self, what: &str, error: &io::Error, unusable: bool) {
        let message = format!("{what} in {}: {error}", self.path.display());
        self.say(Answer::Failed(Failure { reason: reason(error), message, unusable }));
    }

    fn say(&self, answer: Answer) {
        // Nobody listens any more where the link has ended.
        let _ = self.answers.blocking_send(answer);
    }
}

/// With its sequence of now. Of an earlier process without its checkpoints: whoever holds those watches now has others, and what
/// went before such a batch may never have been written. And without what that one's ledger knew: this one tells all of its own.
fn resequenced(batch: Batch, sequence: u64, recovered: bool) -> Option<Batch> {
    if !recovered {
        return Some(Batch { sequence, ..batch });
    }
    let mut records = frame::decode(&batch).ok()?;
    if records.checkpoints.is_empty() && records.ledger.is_empty() {
        return Some(Batch { sequence, ..batch });
    }
    records.checkpoints.clear();
    records.ledger.clear();
    records.ledger_first = false;
    frame::encode(sequence, &records).ok()
}

fn reason(error: &io::Error) -> ErrorReason {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorReason::no_space,
        io::ErrorKind::ReadOnlyFilesystem => ErrorReason::read_only,
        io::ErrorKind::PermissionDenied => ErrorReason::denied,
        _ => ErrorReason::io,
    }
}

#[cfg(test)]
mod tests;
