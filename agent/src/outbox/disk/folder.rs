//! The outbox's folder: segment files, of which one is written and each is removed once all of its batches are acknowledged.
//!
//! A batch counts as written after `fdatasync`, one for all batches of a group. What fails leaves the group unwritten and the
//! segment alone: after a failed sync nobody can say what of it is on the disk.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use nodetap_wire::{Batch, HeldWatch, Hello};
use prost::Message;
use rustls::crypto::aws_lc_rs::default_provider;

use super::super::held::{Place, Recovered};
use super::segment::{self, Scan};
use crate::checksum::Checksum;

/// Where a segment ends. What is acknowledged is given back to the disk in pieces of this size.
const SEGMENT_BYTES: u32 = 4 << 20;

/// Longer than any segment: one more batch is written to one that is nearly full.
const LONGEST: u64 = 32 << 20;

/// Damaged segments that are kept to be looked at.
const DAMAGED_KEPT: usize = 2;

const LOCK: &str = "lock";
const WATCHES: &str = "watches";
const PROBE: &str = "probe";
const SUFFIX: &str = "outbox";
const DAMAGED_SUFFIX: &str = "damaged";

/// An open outbox.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    segments: BTreeMap<u64, Segment>,
    active: Option<u64>,
    next: u64,
    salt: u64,
    _lock: File,
}

#[derive(Debug)]
struct Segment {
    path: PathBuf,
    file: File,
    /// Drawn by the process that wrote it.
    salt: u64,
    /// Number of that process's first segment.
    process: u64,
    length: u32,
    /// Batches that are not acknowledged.
    live: usize,
    damaged: bool,
    /// Of an earlier process, or one that could not be written to: nothing is added.
    closed: bool,
}

/// What an earlier process left.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Batches that are whole, in the order of their sequences.
    pub(super) batches: Vec<Recovered>,
    /// Places that are not, and files that could not be read.
    pub(super) damaged: usize,
    /// Batches whose writing was cut short.
    pub(super) torn: usize,
    /// Watches that its agent held.
    pub(super) watches: Vec<HeldWatch>,
}

/// Why the folder cannot be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenError {
    #[error("another process uses {0}")]
    Locked(String),
    #[error("{0}: {1}")]
    Io(String, io::Error),
}

/// Why a batch could not be read back.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Damaged(#[from] segment::Damaged),
}

// === impl ReadError ===

impl ReadError {
    /// Whether the batch may be there still: a disk that fails now says nothing of what is on it.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::Io(error) => {
                !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof)
            }
            Self::Damaged(_) => false,
        }
    }
}

// === impl Folder ===

impl Folder {
    /// Opens a folder, which is made where it is not there, and reads what an earlier process left in it.
    pub(super) fn open(path: &Path) -> Result<(Self, Found), OpenError> {
        let failed = |error| OpenError::Io(path.display().to_string(), error);
        fs::create_dir_all(path).map_err(failed)?;
        let lock = create(&path.join(LOCK), false).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(OpenError::Locked(path.display().to_string())),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        let mut folder = Self {
            path: path.to_owned(),
            segments: BTreeMap::new(),
            active: None,
            next: 1,
            salt: random_salt(),
            _lock: lock,
        };
        let mut found = Found::default();
        let mut names = Vec::new();
        for entry in fs::read_dir(path).map_err(failed)? {
            names.push(entry.map_err(failed)?.path());
        }
        names.sort();
        let mut batches = Vec::new();
        for path in names {
            let Some((number, salt)) = name_of(&path) else { continue };
            folder.next = folder.next.max(number + 1);
            if let Err(error) = folder.take_up(&path, number, salt, &mut found, &mut batches) {
                found.damaged += 1;
                tracing::warn!(path = %path.display(), %error, "a segment of the outbox cannot be read: it is left where it is");
            }
        }
        // Batches with deaths are written before older ones without.
        batches.sort_by_key(|(process, sequence, _)| (*process, *sequence));
        found.batches = batches.into_iter().map(|(_, _, batch)| batch).collect();
        found.watches = folder.read_watches();
        Ok((folder, found))
    }

    /// Writes batches and syncs them. Answers their places.
    pub(super) fn write(&mut self, batches: &[(&Batch, i64)]) -> io::Result<Vec<Place>> {
        let mut places = Vec::with_capacity(batches.len());
        let mut written = Vec::new();
        let begun = self.active.and_then(|number| self.segments.get(&number)).map(|segment| segment.length);
        let first = self.active;
        let result = batches.iter().try_for_each(|(batch, closed_ns)| {
            let number = self.writable()?;
            if written.last() != Some(&number) {
                written.push(number);
            }
            let segment = self.segments.get_mut(&number).ok_or(io::ErrorKind::NotFound)?;
            places.push(segment.append(number, batch, *closed_ns)?);
            io::Result::Ok(())
        });
        let synced = result.and_then(|()| {
            let files = written.iter().filter_map(|number| self.segments.get(number));
            files.map(|segment| segment.file.sync_data()).collect::<io::Result<Vec<()>>>()
        });
        match synced {
            Ok(_) => {
                for place in &places {
                    if let Some(segment) = self.segments.get_mut(&place.segment) {
                        segment.live += 1;
                    }
                }
                Ok(places)
            }
            Err(error) => {
                for number in written {
                    let Some(segment) = self.segments.get_mut(&number) else { continue };
                    segment.closed = true;
                    // What stands behind is not counted anywhere; found again, it would be a repeat and no harm.
                    let keep = begun.filter(|_| first == Some(number)).unwrap_or(0);
                    if segment.file.set_len(keep.into()).is_ok() {
                        segment.length = keep;
                    }
                    // What cannot be removed now is found and removed at the next start.
                    let _ = self.clear(number);
                }
                self.active = None;
                Err(error)
            }
        }
    }

    /// Reads a batch back; its sequence is the one that it was written with.
    pub(super) fn read(&self, place: Place) -> Result<Batch, ReadError> {
        let segment = self.segments.get(&place.segment).ok_or(io::Error::from(io::ErrorKind::NotFound))?;
        let mut bytes = vec![0; place.length as usize];
        segment.file.read_exact_at(&mut bytes, place.offset.into())?;
        Ok(segment::read(segment.salt, Bytes::from(bytes))?.1)
    }

    /// Gives the room of acknowledged batches back, as far as whole segments hold no others.
    pub(super) fn release(&mut self, places: &[Place]) -> io::Result<()> {
        let mut first_error = Ok(());
        for place in places {
            let Some(segment) = self.segments.get_mut(&place.segment) else { continue };
            segment.live = segment.live.saturating_sub(1);
        }
        let mut numbers: Vec<u64> = places.iter().map(|place| place.segment).collect();
        numbers.dedup();
        for number in numbers {
            first_error = first_error.and(self.clear(number));
        }
        first_error
    }

    /// Keeps which watches this agent holds, for the one that starts after it.
    pub(super) fn keep_watches(&self, watches: &[HeldWatch]) -> io::Result<()> {
        let message = Hello { held: watches.to_vec(), ..Hello::default() }.encode_to_vec();
        let temporary = self.path.join(format!("{WATCHES}.new"));
        let file = create(&temporary, true)?;
        file.write_all_at(&Checksum::of(&message).to_le_bytes(), 0)?;
        file.write_all_at(&message, 4)?;
        file.sync_data()?;
        fs::rename(&temporary, self.path.join(WATCHES))
    }

    /// Whether the disk takes and syncs what is written.
    pub(super) fn probe(&self) -> io::Result<()> {
        let path = self.path.join(PROBE);
        // As much as several batches, so that a disk that is full to the last page is not tried in vain over and over.
        let tried = create(&path, true)
            .and_then(|file| file.write_all_at(&[b'x'; 64 << 10], 0).and_then(|()| file.sync_data()));
        let removed = fs::remove_file(&path);
        tried.and(removed)
    }

    /// Bytes of all segments.
    pub(super) fn bytes(&self) -> u64 {
        self.segments.values().map(|segment| u64::from(segment.length)).sum()
    }

    fn writable(&mut self) -> io::Result<u64> {
        let fits = |segment: &&Segment| segment.length < SEGMENT_BYTES && !segment.closed;
        if let Some(number) = self.active
            && self.segments.get(&number).as_ref().is_some_and(fits)
        {
            return Ok(number);
        }
        let number = self.next;
        let salt = self.salt;
        let path = self.path.join(format!("{number:010}-{salt:016x}.{SUFFIX}"));
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        self.next += 1;
        // Without this a loss of power could take the name along, and with it what was synced.
        File::open(&self.path)?.sync_all()?;
        let process = number;
        let segment =
            Segment { path, file, salt, process, length: 0, live: 0, damaged: false, closed: false };
        self.segments.insert(number, segment);
        self.active = Some(number);
        Ok(number)
    }

    /// Empties or removes a segment in which nothing is live.
    fn clear(&mut self, number: u64) -> io::Result<()> {
        let Some(segment) = self.segments.get_mut(&number).filter(|segment| segment.live == 0) else {
            return Ok(());
        };
        if self.active == Some(number) && !segment.closed {
            segment.file.set_len(0)?;
            segment.length = 0;
            return Ok(());
        }
        let Some(segment) = self.segments.remove(&number) else { return Ok(()) };
        if !segment.damaged {
            return fs::remove_file(&segment.path);
        }
        fs::rename(&segment.path, segment.path.with_extension(DAMAGED_SUFFIX))?;
        let mut damaged = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            damaged.push(entry?.path());
        }
        damaged.retain(|path| path.extension().is_some_and(|extension| extension == DAMAGED_SUFFIX));
        damaged.sort();
        let surplus = damaged.len().saturating_sub(DAMAGED_KEPT);
        damaged.iter().take(surplus).try_for_each(fs::remove_file)
    }

    fn take_up(
        &mut self,
        path: &Path,
        number: u64,
        salt: u64,
        found: &mut Found,
        batches: &mut Vec<(u64, u64, Recovered)>,
    ) -> io::Result<()> {
        let file = File::open(path)?;
        let size = file.metadata()?.len();
        if size > LONGEST {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("{size} bytes")));
        }
        let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
        file.read_exact_at(&mut bytes, 0)?;
        let Scan { entries, damaged, torn } = segment::scan(salt, &bytes);
        for range in &damaged {
            tracing::warn!(path = %path.display(), from = range.start, to = range.end, "a batch of the outbox is damaged: it is set aside");
        }
        found.damaged += damaged.len();
        found.torn += usize::from(torn.is_some());
        if let Some(torn) = &torn {
            let cut =
                OpenOptions::new().write(true).open(path).and_then(|file| file.set_len(torn.start as u64));
            tracing::info!(path = %path.display(), at = torn.start, cut = cut.is_ok(), "the outbox's last write was cut short by the end of its process");
        }
        let live = entries.iter().filter(|(_, header)| header.records > 0).count();
        let process =
            self.segments.values().find(|segment| segment.salt == salt).map_or(number, |one| one.process);
        for (range, header) in entries {
            let (Ok(offset), Ok(length)) = (u32::try_from(range.start), u32::try_from(range.len())) else {
                continue;
            };
            if header.records == 0 {
                continue;
            }
            let place = Place { segment: number, offset, length };
            let segment::Header { records, raw_bytes, closed_ns, sequence, .. } = header;
            batches.push((process, sequence, Recovered { place, records, raw_bytes, closed_ns }));
        }
        let length = u32::try_from(size).unwrap_or(u32::MAX);
        let damaged = !damaged.is_empty();
        let segment =
            Segment { path: path.to_owned(), file, salt, process, length, live, damaged, closed: true };
        self.segments.insert(number, segment);
        if live == 0
            && let Err(error) = self.clear(number)
        {
            tracing::debug!(path = %path.display(), %error, "an empty segment stays");
        }
        Ok(())
    }

    fn read_watches(&self) -> Vec<HeldWatch> {
        let bytes = fs::read(self.path.join(WATCHES)).unwrap_or_default();
        let Some((checksum, message)) = bytes.split_first_chunk::<4>() else { return Vec::new() };
        if Checksum::of(message) != u32::from_le_bytes(*checksum) {
            return Vec::new();
        }
        Hello::decode(message).map(|hello| hello.held).unwrap_or_default()
    }
}

// === impl Segment ===

impl Segment {
    fn append(&mut self, number: u64, batch: &Batch, closed_ns: i64) -> io::Result<Place> {
        let header = segment::header(self.salt, batch, closed_ns).ok_or(io::ErrorKind::InvalidInput)?;
        let offset = self.length;
        let length = (header.len() + batch.payload.len()) as u64;
        let length = u32::try_from(length).map_err(|_| io::ErrorKind::InvalidInput)?;
        self.file.write_all_at(&header, offset.into())?;
        self.file.write_all_at(&batch.payload, u64::from(offset) + header.len() as u64)?;
        self.length = offset + length;
        Ok(Place { segment: number, offset, length })
    }
}

/// Log lines and events may be secret: nobody else on the node is to read them.
fn create(path: &Path, truncate: bool) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(truncate).mode(0o600).open(path)
}

fn random_salt() -> u64 {
    let mut bytes = [0; 8];
    // Without randomness a salt is still one that no payload was made for.
    if default_provider().secure_random.fill(&mut bytes).is_err() {
        return nodetap_wire::time::now_ns().unsigned_abs();
    }
    u64::from_le_bytes(bytes)
}

fn name_of(path: &Path) -> Option<(u64, u64)> {
    let stem = path.file_name()?.to_str()?.strip_suffix(SUFFIX)?.strip_suffix('.')?;
    let (number, salt) = stem.split_once('-')?;
    Some((number.parse().ok()?, u64::from_str_radix(salt, 16).ok()?))
}

#[cfg(test)]
mod tests;
