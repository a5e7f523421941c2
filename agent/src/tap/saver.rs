//! The ledger on this node's disk: written when everything that it calls reported is safe, so that an agent that starts again
//! repeats no death and loses none.
//!
//! `DIR/ledger` is one line that says what it is (`nodetap-ledger 1 crc32=... bytes=...`) and a JSON object. It is replaced whole by
//! a rename. A file that is torn, of another node or of another version is put aside as `ledger.bad`, counted, and begun anew: the
//! aggregator knows by their identities the deaths that are then told again.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use nodetap_wire::time;
use tokio::sync::watch;
use tokio::time::Instant;

use super::ledger::{Ledger, NotALedger};
use super::metrics::Metrics;
use crate::checksum::Checksum;
use crate::outbox::{Closed, Intake, Mark, Taken};

/// Between two saves: what died since is told again, and known again.
const GAP: Duration = Duration::from_secs(1);

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

/// Saves the ledger, behind the outbox.
#[derive(Debug)]
pub struct Saver {
    /// Room for one: a disk that is slower than [`GAP`] is given the newest.
    files: Sender<Vec<u8>>,
    reached: watch::Sender<u64>,
    /// The last mark that was asked for.
    number: u64,
    /// What is to be written once its mark is reached.
    waiting: Option<Vec<u8>>,
    /// What the ledger was when it was last taken.
    revision: u64,
    /// Not again before.
    not_before: Instant,
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
            waiting: None,
            revision: ledger.revision(),
            not_before: Instant::now(),
        };
        (ledger, saver)
    }

    /// Tells how far the marks have been reached.
    pub fn reached(&self) -> watch::Receiver<u64> {
        self.reached.subscribe()
    }

    /// When to call [`Self::take`]; `None`: not before something happens.
    pub fn due(&self, ledger: &Ledger) -> Option<Instant> {
        (self.waiting.is_none() && ledger.revision() != self.revision).then_some(self.not_before)
    }

    /// Takes the ledger as it is, and asks to be told when all that it calls reported is safe.
    ///
    /// # Errors
    /// Where the outbox has ended.
    pub async fn take(&mut self, ledger: &Ledger, intake: &Intake) -> Result<(), Closed> {
        self.not_before = Instant::now() + GAP;
        self.revision = ledger.revision();
        self.number += 1;
        self.waiting = Some(encode(&ledger.save()));
        intake.take(Taken::Mark(Mark { number: self.number, reached: self.reached.clone() })).await
    }

    /// All before a mark is safe: what was taken with it may be written.
    pub fn reach(&mut self, number: u64) {
        if number < self.number {
            return;
        }
        let Some(bytes) = self.waiting.take() else { return };
        if let Err(TrySendError::Full(_)) = self.files.try_send(bytes) {
            // The disk is behind: taken anew, and newer, after the gap.
            self.revision = u64::MAX;
        }
    }
}

/// The thread of the disk: ends with the saver.
fn write_all(files: &Receiver<Vec<u8>>, path: &Path, metrics: &Metrics) {
    let mut said = false;
    for bytes in files {
        match replace(path, &bytes) {
            Ok(()) => {
                metrics.ledger_saved(bytes.len());
                said = false;
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
