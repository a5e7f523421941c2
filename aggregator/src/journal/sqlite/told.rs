//! The last position that anybody was told of, beside the files: what a log that is torn does not say.
//!
//! Written with each commit, before anybody is told, and not synced: it outlives whatever ends the process while the machine goes on.
//! What a machine left that has started anew since says nothing, unless the journal was closed in good order.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::hash;

/// Its name in the journal's folder.
pub(super) const FILE: &str = "head";

/// Tells one run of the machine from the next.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// In the place of the machine's run: the journal was closed, and the file is on the disk.
const CLOSED: &str = "closed";

/// The file.
#[derive(Debug)]
pub(super) struct Told {
    path: PathBuf,
    /// None: it cannot be had, and nothing is noted.
    boot: Option<String>,
    file: Option<File>,
    /// What was there before is no longer on the disk.
    is_begun: bool,
    is_failing: bool,
}

// === impl Told ===

impl Told {
    pub(super) fn new(folder: &Path) -> Self {
        let boot = std::fs::read_to_string(BOOT_ID).ok().map(|boot| boot.trim().to_owned());
        Self::of_boot(folder, boot.filter(|boot| !boot.is_empty()))
    }

    fn of_boot(folder: &Path, boot: Option<String>) -> Self {
        Self { path: folder.join(FILE), boot, file: None, is_begun: false, is_failing: false }
    }

    /// The last position that anybody can have been told of; `None`: nobody knows.
    pub(super) fn read(&self) -> Option<u64> {
        let text = std::fs::read_to_string(&self.path).ok()?;
        let (said, sum) = text.trim_end().rsplit_once(' ')?;
        let (run, position) = said.split_once(' ')?;
        let is_whole = sum == format!("{:016x}", hash::of(&[said]));
        let holds = run == CLOSED || Some(run) == self.boot.as_deref();
        position.parse().ok().filter(|_| is_whole && holds)
    }

    /// Somebody is about to be told of a position.
    pub(super) fn write(&mut self, position: u64) {
        let Some(boot) = self.boot.take() else { return };
        // Once: that the journal was closed before is not to be found again by a machine that starts anew.
        let written = self.put(&boot, position, !self.is_begun);
        self.boot = Some(boot);
        self.is_begun |= written.is_ok();
        self.done(written);
    }

    /// The journal is closed, and nobody was told of more.
    pub(super) fn close(&mut self, position: u64) {
        let written = self.put(CLOSED, position, true);
        self.done(written);
    }

    fn put(&mut self, run: &str, position: u64, is_synced: bool) -> io::Result<()> {
        let said = format!("{run} {position:020}");
        // As long whatever it says of one run of the machine, and never longer for what was there before.
        let line = format!("{:<80}\n", format!("{said} {:016x}", hash::of(&[&said])));
        let file = match self.file.take() {
            Some(file) => file,
            None => OpenOptions::new().write(true).create(true).truncate(false).open(&self.path)?,
        };
        file.write_all_at(line.as_bytes(), 0)?;
        if is_synced {
            file.sync_all()?;
        }
        self.file = Some(file);
        Ok(())
    }

    /// One that says too little is not to be believed.
    fn done(&mut self, written: io::Result<()>) {
        let Err(error) = written else {
            self.is_failing = false;
            return;
        };
        if !std::mem::replace(&mut self.is_failing, true) {
            let path = self.path.display();
            tracing::warn!(%path, %error, "the journal's last position could not be noted: positions are left out after a kill");
        }
        // Where that fails too, the disk takes no records either.
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests;
