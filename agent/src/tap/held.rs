//! Logs of containers that have just ended, held open: the kubelet unlinks the log of a pod that is deleted before anybody can have
//! seen the death, and a descriptor opened before still reads.

use std::collections::VecDeque;
use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nodetap_wire::LogLine;

use super::ledger::LogSeen;
use super::logs;

/// Descriptors held: more than the containers of a full node that end at once.
const FILES: usize = 256;

/// A death is seen within seconds of the end, or not at all.
const HELD: Duration = Duration::from_secs(60);

/// The descriptors. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Held {
    files: Arc<Mutex<VecDeque<(LogSeen, Instant, File)>>>,
}

// === impl Held ===

impl Held {
    /// A container's log was closed: its container has ended. One that cannot be opened was unlinked already, or is no log.
    pub(super) fn closed(&self, log: LogSeen, path: &Path) {
        let Ok(file) = logs::open(path) else { return };
        let mut files = self.lock();
        files.retain(|(held, since, _)| *held != log && since.elapsed() < HELD);
        if files.len() >= FILES {
            files.pop_front();
        }
        files.push_back((log, Instant::now(), file));
    }

    /// The last lines of a log that is held, which is then let go of.
    pub(super) fn last_lines(&self, log: &LogSeen) -> Option<Vec<LogLine>> {
        let mut file = {
            let mut files = self.lock();
            let index = files.iter().position(|(held, _, _)| held == log)?;
            files.remove(index)?.2
        };
        logs::tail(&mut file).ok().filter(|lines| !lines.is_empty())
    }

    /// Lets go of a log, and of those that nobody has asked for.
    pub(super) fn release(&self, log: &LogSeen) {
        self.lock().retain(|(held, since, _)| held != log && since.elapsed() < HELD);
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(LogSeen, Instant, File)>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
