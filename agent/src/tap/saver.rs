//! The ledger on this node's disk, so that an agent that starts again repeats no death, loses none, and counts none as missed that it
//! has told: before a death is handed over, the ledger that calls it reported is written, and the death with it. It stays there until
//! all that was handed over before is safe; what an agent finds there when it starts, it tells again.
//!
//! `DIR/ledger` is one line that says what it is (`nodetap-ledger 1 crc32=... bytes=...`) and a JSON object. It is replaced whole by
//! a rename. A file that is torn, of another node or of another version is put aside as `ledger.bad`, counted, and begun anew: the
//! aggregator knows by their identities the deaths that are then told again.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use nodetap_wire::{ContainerDied, time};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep, timeout};

use super::ledger::{Ledger, NotALedger};
use super::metrics::Metrics;
use crate::checksum::Checksum;
use crate::outbox::{Closed, Intake, Mark, Taken};

/// Between two saves for which nothing waits.
const GAP: Duration = Duration::from_secs(1);

/// A death waits no longer than this for the disk: what it may then cost is a death that is counted as missed beside being told.
const PATIENCE: Duration = Duration::from_millis(250);

/// How often it is tried to give the disk's thread a file while it has another.
const LOOK: Duration = Duration::from_millis(5);

/// Deaths kept with the ledger, of 20 KiB at most: more are not on their way unless the outbox's disk has failed.
const UNTOLD: usize = 256;

/// A file that is larger is none of ours: 1,536 pods of a few containers stay far below.
const BYTES: u64 = 32 << 20;

const MAGIC: &str = "nodetap-ledger 1";
const NAME: &str = "ledger";

/// Why a file is not the ledger that was saved.
#[derive(Debug, thiserror::Error)]
pub enum Bad {
    /// Not begun by the line that says what it is, or of another version.
    #[error("it does not begin with `{MAGIC}`")]
    Foreign,
    /// Shorter or longer than it says.
    #[error("{found} bytes where {said} were written")]
    Torn {
        /// As its first line has it.
        said: u64,
        /// As it is.
        found: u64,
    },
    /// As long as it says, but not what was written.
    #[error("its checksum is not what its first line says")]
    Checksum,
    /// Whole, and yet no ledger of this node.
    #[error(transparent)]
    Ledger(#[from] NotALedger),
    /// The disk does not give it.
    #[error("it cannot be read: {0}")]
    Unreadable(#[from] io::Error),
}

/// Saves the ledger, ahead of the outbox.
#[derive(Debug)]
pub struct Saver {
    /// Room for one: a disk that is slower than [`GAP`] is given the newest.
    files: Sender<Save>,
    reached: watch::Sender<u64>,
    /// The last mark that was asked for.
    number: u64,
    /// Deaths that were handed over, each with the mark behind it.
    untold: VecDeque<(u64, ContainerDied)>,
    revision: u64,
    /// Not again before.
    not_before: Instant,
}

/// A file to be written, and who waits for it.
#[derive(Debug)]
struct Save {
    bytes: Vec<u8>,
    written: Option<oneshot::Sender<()>>,
}

// === impl Bad ===

impl Bad {
    /// As a label's value.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Foreign => "foreign",
            Self::Torn { .. } => "torn",
            Self::Checksum => "checksum",
            Self::Ledger(NotALedger::Node { .. }) => "node",
            Self::Ledger(NotALedger::Json(_)) => "content",
            Self::Unreadable(_) => "unreadable",
        }
    }
}

// === impl Saver ===

impl Saver {
    /// Reads the ledger of `node` from `folder`, and goes on saving it there. Blocks. Nothing on the disk keeps an agent from starting:
    /// where the folder cannot be made or written, the ledger is in memory alone, which is logged and counted.
    pub fn open(folder: &Path, node: &str, metrics: &Metrics) -> (Ledger, Self) {
        let path = folder.join(NAME);
        let ledger = match load(&path, node) {
            Ok(Some(ledger)) => {
                tracing::info!(file = %path.display(), pods = ledger.len(), "the ledger goes on from where it was");
                ledger
            }
            Ok(None) => Ledger::new(node, time::now_ns()),
            Err(error) => {
                metrics.ledger_set_aside(error.reason());
                let aside = path.with_extension("bad");
                let kept = fs::rename(&path, &aside).is_ok();
                tracing::warn!(file = %path.display(), %error, kept, "the ledger cannot be used and is begun anew");
                Ledger::new(node, time::now_ns())
            }
        };
        let (files, received) = bounded(1);
        let (path, metrics) = (path, metrics.clone());
        let writer = std::thread::Builder::new().name("ledger".into());
        if let Err(error) = writer.spawn(move || write_all(&received, &path, &metrics)) {
            tracing::warn!(%error, "no thread to save the ledger on: it is in memory alone");
        }
        let saver = Self {
            files,
            reached: watch::Sender::new(0),
            number: 0,
            untold: VecDeque::new(),
            revision: ledger.revision(),
            not_before: Instant::now(),
        };
        (ledger, saver)
    }

    /// Tells how far the marks have been reached.
    pub fn reached(&self) -> watch::Receiver<u64> {
        self.reached.subscribe()
    }

    /// When to call [`Self::save`]; `None`: not before something happens.
    pub fn due(&self, ledger: &Ledger) -> Option<Instant> {
        (ledger.revision() != self.revision).then_some(self.not_before)
    }

    /// Writes the ledger as it is, with what may not have arrived; nobody waits for it. `waiting`: deaths that are still to be handed
    /// over.
    pub fn save<'a>(&mut self, ledger: &Ledger, waiting: impl Iterator<Item = &'a ContainerDied>) {
        let write = Save { bytes: self.bytes(ledger, waiting), written: None };
        if let Err(TrySendError::Full(_)) = self.files.try_send(write) {
            // The disk is behind: taken anew, and newer, after the gap.
            self.revision = u64::MAX;
        }
    }

    /// Writes the ledger and the deaths that are about to be handed over with it, and waits for the disk, within a bound.
    pub async fn keep<'a>(
        &mut self,
        ledger: &Ledger,
        deaths: &[ContainerDied],
        waiting: impl Iterator<Item = &'a ContainerDied>,
    ) {
        self.untold.extend(deaths.iter().map(|death| (self.number + 1, death.clone())));
        let over = self.untold.len().saturating_sub(UNTOLD);
        self.untold.drain(..over);
        let (written, on_disk) = oneshot::channel();
        let mut write = Save { bytes: self.bytes(ledger, waiting), written: Some(written) };
        let files = &self.files;
        let writing = async {
            while let Err(TrySendError::Full(back)) = files.try_send(write) {
                write = back;
                sleep(LOOK).await;
            }
            // A disk that fails has said so.
            let _ = on_disk.await;
        };
        if timeout(PATIENCE, writing).await.is_err() {
            self.revision = u64::MAX;
        }
    }

    /// Asks to be told when what was handed over up to now is safe.
    ///
    /// # Errors
    /// Where the outbox has ended.
    pub async fn mark(&mut self, intake: &Intake) -> Result<(), Closed> {
        self.number += 1;
        intake.take(Taken::Mark(Mark { number: self.number, reached: self.reached.clone() })).await
    }

    /// All before a mark is safe, and need not be told again.
    pub fn reach(&mut self, number: u64) {
        let before = self.untold.len();
        while self.untold.front().is_some_and(|(mark, _)| *mark <= number) {
            self.untold.pop_front();
        }
        if self.untold.len() < before {
            self.revision = u64::MAX;
        }
    }

    /// The file as it is to be, taken as written.
    fn bytes<'a>(&mut self, ledger: &Ledger, waiting: impl Iterator<Item = &'a ContainerDied>) -> Vec<u8> {
        self.not_before = Instant::now() + GAP;
        self.revision = ledger.revision();
        let mut untold: Vec<&ContainerDied> = self.untold.iter().map(|(_, death)| death).collect();
        for death in waiting {
            untold.push(death);
        }
        encode(&ledger.save(&untold))
    }
}

/// The thread of the disk: ends with the saver.
fn write_all(files: &Receiver<Save>, path: &Path, metrics: &Metrics) {
    let mut said = false;
    for Save { bytes, written } in files {
        match replace(path, &bytes) {
            Ok(()) => {
                metrics.ledger_saved(bytes.len());
                said = false;
                if let Some(written) = written {
                    // Who waited may have had enough.
                    let _ = written.send(());
                }
            }
            Err(error) => {
                metrics.ledger_not_saved();
                if !said {
                    tracing::warn!(
                        file = %path.display(), %error,
                        "the ledger cannot be saved: an agent that starts again now tells recent deaths again"
                    );
                }
                said = true;
            }
        }
    }
}

/// Whole or not at all, whatever happens in between.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let new: PathBuf = path.with_extension("new");
    let open = || OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new);
    let mut file = match open() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(folder)?;
            open()?
        }
        opened => opened?,
    };
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    File::open(folder)?.sync_all()
}

fn load(path: &Path, node: &str) -> Result<Option<Ledger>, Bad> {
    let mut bytes = Vec::new();
    match File::open(path) {
        Ok(file) => file.take(BYTES).read_to_end(&mut bytes)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    Ok(Some(Ledger::restore(node, decode(&bytes)?)?))
}

fn encode(json: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{MAGIC} crc32={:08x} bytes={}\n", Checksum::of(json), json.len()).into_bytes();
    bytes.extend_from_slice(json);
    bytes
}

fn decode(bytes: &[u8]) -> Result<&[u8], Bad> {
    let end = memchr::memchr(b'\n', bytes).ok_or(Bad::Foreign)?;
    let (line, rest) = bytes.split_at(end);
    let json = rest.get(1..).unwrap_or_default();
    let said = std::str::from_utf8(line).ok().and_then(|line| line.strip_prefix(MAGIC));
    let (checksum, length) = said
        .and_then(|said| said.strip_prefix(" crc32=")?.split_once(" bytes="))
        .and_then(|(checksum, length)| Some((u32::from_str_radix(checksum, 16).ok()?, length.parse().ok()?)))
        .ok_or(Bad::Foreign)?;
    let found = json.len() as u64;
    if found != length {
        return Err(Bad::Torn { said: length, found });
    }
    if Checksum::of(json) != checksum {
        return Err(Bad::Checksum);
    }
    Ok(json)
}

#[cfg(test)]
mod tests;
