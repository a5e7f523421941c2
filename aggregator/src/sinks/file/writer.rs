//! The file itself: opened, repaired, written, synced, rotated.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::at;
use super::repair::{Known, TAIL, cut_torn_line, tail};
use super::rotate::{Rotation, backup_name, backups};
use crate::sinks::lines::{Failed, Line, WriteLines};

/// Lines after which what was in the file before it was opened cannot come again: more than two batches.
const REMEMBER: usize = 8192;

/// Bytes written at once: what fits into a core's cache is copied once more for less than what has gone from there.
const PIECE: usize = 256 << 10;

/// Writes lines to a path.
pub(super) struct FileWriter {
    name: String,
    path: PathBuf,
    rotation: Rotation,
    open: Option<Open>,
    known: Known,
    /// Lines asked for since `known` was read.
    asked: usize,
    /// Which file is to be cut to which length before a line in it is believed: its sync failed, and it could not be cut then.
    doubtful: Option<Doubtful>,
    /// Makes what was written durable.
    sync: fn(&File) -> io::Result<()>,
}

#[derive(Clone, Copy)]
struct Doubtful {
    device: u64,
    inode: u64,
    length: u64,
}

struct Open {
    file: File,
    /// None: no regular file, such as `/dev/stdout`: never repaired, synced or rotated.
    regular: Option<Regular>,
}

struct Regular {
    /// What of it is on the disk.
    length: u64,
    /// What was written behind that and not yet synced.
    unsynced: u64,
    device: u64,
    inode: u64,
    mode: u32,
}

// === impl FileWriter ===

impl FileWriter {
    pub(super) fn new(name: &str, path: &Path, rotation: Rotation) -> Self {
        Self {
            name: name.to_owned(),
            path: path.to_owned(),
            rotation,
            open: None,
            known: Known::default(),
            asked: 0,
            doubtful: None,
            sync: File::sync_data,
        }
    }

    /// Opens the path, cuts off a torn line, makes durable what is there, and reads which records that is.
    fn open(&mut self) -> io::Result<Open> {
        if let Some(folder) = self.path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            DirBuilder::new().recursive(true).mode(0o755).create(folder)?;
        }
        let regular = fs::metadata(&self.path).map_or(true, |metadata| metadata.is_file());
        let file = options(0o600).read(regular).create(regular).open(&self.path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Ok(Open { file, regular: None });
        }
        if metadata.len() == 0 {
            self.sync_folder()?;
        }
        let synced = self
            .doubtful
            .filter(|doubtful| doubtful.device == metadata.dev() && doubtful.inode == metadata.ino())
            .filter(|doubtful| doubtful.length < metadata.len());
        if let Some(Doubtful { length, .. }) = synced {
            // A sync that failed once may succeed later without having written what the first did not.
            file.set_len(length)?;
        }
        self.doubtful = None;
        let length = synced.map_or(metadata.len(), |doubtful| doubtful.length);
        let (torn, length) = cut_torn_line(&file, length)?;
        if torn > 0 {
            tracing::warn!(sink = self.name, path = %self.path.display(), bytes = torn, "cut off a line that was not whole");
        }
        self.known = Known::default();
        self.asked = 0;
        // A process that was killed before its sync left lines that are in memory alone.
        (self.sync)(&file)?;
        self.known.add(&tail(&file, length, TAIL)?);
        if length < TAIL
            && let Some((_, newest)) = backups(&self.path)?.first()
        {
            let file = File::open(newest)?;
            (self.sync)(&file)?;
            self.known.add(&tail(&file, file.metadata()?.len(), TAIL - length)?);
        }
        self.clean();
        Ok(Open { file, regular: Some(Regular::new(&metadata, length)) })
    }

    /// Whether the path still names the file that is open: somebody may have moved or removed it.
    fn is_current(&self) -> bool {
        let Some(open) = &self.open else { return false };
        let Some(regular) = &open.regular else { return true };
        fs::metadata(&self.path)
            .is_ok_and(|metadata| metadata.dev() == regular.device && metadata.ino() == regular.inode)
    }

    fn append(&mut self, lines: &[Line]) -> io::Result<()> {
        if !self.is_current() {
            self.open = None;
            self.open = Some(self.open()?);
        }
        let bytes = lines.iter().map(|line| line.body.len() + 1).sum::<usize>();
        let mut text = Vec::with_capacity(bytes.min(PIECE));
        let mut repeats = 0;
        for line in lines {
            self.asked += 1;
            if self.known.take(&line.id) {
                repeats += 1;
                continue;
            }
            let length = line.body.len() as u64 + 1;
            if self.is_full(text.len() as u64, length) {
                self.put(&mut text)?;
                self.rotate()?;
            } else if text.len() + line.body.len() >= PIECE {
                self.write_on(&mut text)?;
            }
            text.extend_from_slice(&line.body);
            text.push(b'\n');
        }
        self.put(&mut text)?;
        if self.asked > REMEMBER {
            self.known = Known::default();
        }
        if repeats > 0 {
            tracing::info!(sink = self.name, records = repeats, "left out records that the file has already");
        }
        Ok(())
    }

    /// Whether `more` bytes are too many for the file with `pending` bytes that are still to be written.
    fn is_full(&self, pending: u64, more: u64) -> bool {
        let regular = self.open.as_ref().and_then(|open| open.regular.as_ref());
        regular.is_some_and(|regular| {
            let length = regular.length + regular.unsynced + pending;
            length > 0 && length + more > self.rotation.max_bytes
        })
    }

    /// Writes and syncs.
    fn put(&mut self, text: &mut Vec<u8>) -> io::Result<()> {
        self.write_on(text)?;
        let Some(Open { file, regular: Some(regular) }) = &mut self.open else { return Ok(()) };
        if regular.unsynced == 0 {
            return Ok(());
        }
        let synced = (self.sync)(file);
        if synced.is_ok() {
            regular.length += regular.unsynced;
            regular.unsynced = 0;
        }
        synced
    }

    /// Writes what is to be synced with what follows.
    fn write_on(&mut self, text: &mut Vec<u8>) -> io::Result<()> {
        let Some(open) = self.open.as_mut().filter(|_| !text.is_empty()) else { return Ok(()) };
        let written = open.file.write_all(text);
        if let Some(regular) = &mut open.regular {
            regular.unsynced += text.len() as u64;
        }
        text.clear();
        written
    }

    /// After a failure: closes the file, as long as it was when it was last synced; if that fails too, it is cut before it is read.
    fn give_up(&mut self) {
        let Some(Open { file, regular: Some(regular) }) = self.open.take() else { return };
        if regular.unsynced > 0 && file.set_len(regular.length).is_err() {
            let Regular { device, inode, length, .. } = regular;
            self.doubtful = Some(Doubtful { device, inode, length });
        }
    }

    fn rotate(&mut self) -> io::Result<()> {
        let Some(regular) = self.open.take().and_then(|open| open.regular) else { return Ok(()) };
        fs::rename(&self.path, backup_name(&self.path, Timestamp::now()))?;
        let file = options(regular.mode).read(true).create(true).open(&self.path)?;
        let metadata = file.metadata()?;
        self.open = Some(Open { file, regular: Some(Regular::new(&metadata, metadata.len())) });
        self.sync_folder()?;
        self.clean();
        Ok(())
    }

    /// So that names, too, survive a crash.
    fn sync_folder(&self) -> io::Result<()> {
        let folder =
            self.path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder)?.sync_all()
    }

    fn clean(&self) {
        // Not a reason to stop writing.
        if let Err(error) = self.rotation.clean(&self.path, Timestamp::now()) {
            tracing::warn!(sink = self.name, path = %self.path.display(), %error, "cannot remove rotated files");
        }
    }
}

impl WriteLines for FileWriter {
    fn write(&mut self, lines: &[Line]) -> Result<(), Failed> {
        self.append(lines).map_err(|error| {
            self.give_up();
            at(&self.path, &error).into()
        })
    }
}

// === impl Regular ===

impl Regular {
    fn new(metadata: &fs::Metadata, length: u64) -> Self {
        Self {
            length,
            unsynced: 0,
            device: metadata.dev(),
            inode: metadata.ino(),
            mode: metadata.permissions().mode() & 0o777,
        }
    }
}

fn options(mode: u32) -> OpenOptions {
    let mut options = OpenOptions::new();
    options.append(true).mode(mode);
    options
}

#[cfg(test)]
mod tests;
