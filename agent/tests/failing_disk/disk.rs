//! A filesystem in memory that fails when it is told to, and forgets what a loss of power takes: by FUSE.
//!
//! What a file holds in the page cache, and what of it is on the disk, are two things: a sync that succeeds makes them one, and
//! one that fails leaves the disk as it was and takes what was not written for written, as Linux does. So what is written after
//! a failed sync into the same pages is there after a loss of power, and what was written before it is not. Names are durable at once.

#![allow(
    unreachable_pub,
    dead_code,
    clippy::cast_possible_truncation,
    clippy::print_stderr,
    clippy::unwrap_used
)]

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    BackgroundSession, BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow,
    WriteFlags,
};

const NOW: Duration = Duration::ZERO;
const BLOCK: u64 = 4096;

/// What fails with `EIO`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    pub read: bool,
    pub write: bool,
    pub sync: bool,
}

/// Files, as programs see them and as they are on the disk.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    files: BTreeMap<u64, File>,
    names: BTreeMap<OsString, u64>,
    last: u64,
    faults: Faults,
    /// Requests that were answered with an error.
    failed: u64,
}

#[derive(Clone, Debug, Default)]
struct File {
    cached: Vec<u8>,
    durable: Vec<u8>,
    dirty: Vec<Range<usize>>,
}

/// It, mounted.
pub struct Disk {
    contents: Arc<Mutex<Contents>>,
    folder: tempfile::TempDir,
    /// None: unmounted.
    session: Option<BackgroundSession>,
}

struct Served(Arc<Mutex<Contents>>);

// === impl Contents ===

impl Contents {
    /// What is left when the power goes.
    pub fn after_power_loss(&self) -> Self {
        let mut contents = Self { faults: Faults::default(), failed: 0, ..self.clone() };
        for file in contents.files.values_mut() {
            file.cached = file.durable.clone();
            file.dirty.clear();
        }
        contents
    }

    /// What is left when the processes are killed: the page cache.
    pub fn after_kill(&self) -> Self {
        self.clone()
    }

    fn attributes(&self, ino: u64) -> Option<FileAttr> {
        let (kind, size) = match ino {
            1 => (FileType::Directory, 0),
            _ => (FileType::RegularFile, self.files.get(&ino)?.cached.len() as u64),
        };
        let owner = std::fs::metadata("/proc/self").ok()?;
        Some(FileAttr {
            ino: INodeNo(ino),
            size,
            blocks: size.div_ceil(512),
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind,
            perm: if ino == 1 { 0o755 } else { 0o600 },
            nlink: 1,
            uid: owner.uid(),
            gid: owner.gid(),
            rdev: 0,
            blksize: 4096,
            flags: 0,
        })
    }

    /// Fails where it is to.
    fn fail(&mut self, fails: bool) -> bool {
        self.failed += u64::from(fails);
        fails
    }
}

/// Says it, loudly and to `ci/test`.
pub fn not_run(what: &str) {
    eprintln!("NOT RUN: {what}");
    if let Some(list) = std::env::var_os("NODETAP_NOT_RUN") {
        let mut list = std::fs::OpenOptions::new().create(true).append(true).open(list).unwrap();
        std::io::Write::write_all(&mut list, format!("{what}\n").as_bytes()).unwrap();
    }
}

// === impl Disk ===

impl Disk {
    /// Mounts; `None`, loudly and to `ci/test`, where this user may not.
    pub fn mount(contents: Contents) -> Option<Self> {
        let contents = Arc::new(Mutex::new(contents));
        let folder = tempfile::tempdir().unwrap();
        let served = Served(Arc::clone(&contents));
        match fuser::spawn_mount(served, folder.path(), &Config::default()) {
            Ok(session) => Some(Self { contents, folder, session: Some(session) }),
            Err(error) => {
                not_run(&format!(
                    "a disk that answers EIO: this user may not mount a FUSE filesystem ({error})"
                ));
                None
            }
        }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn set(&self, faults: Faults) {
        lock(&self.contents).faults = faults;
    }

    pub fn faults(&self) -> Faults {
        lock(&self.contents).faults
    }

    /// How many requests it has failed.
    pub fn failed(&self) -> u64 {
        lock(&self.contents).failed
    }

    pub fn contents(&self) -> Contents {
        lock(&self.contents).clone()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Threads of what was on it may have its files open for a moment more: by force, what they wait for is answered with an error,
        // so that none waits for a server that ends with it.
        for how in ["-f", "-l"] {
            let _ = Command::new("umount").arg(how).arg(self.folder.path()).output();
        }
        std::mem::forget(self.session.take());
    }
}

fn lock(contents: &Mutex<Contents>) -> MutexGuard<'_, Contents> {
    contents.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The page cache is here, and not in the kernel; but SQLite's shared memory must be mapped.
fn caching(name: &OsStr) -> FopenFlags {
    match name.to_string_lossy().ends_with("-shm") {
        true => FopenFlags::empty(),
        false => FopenFlags::FOPEN_DIRECT_IO,
    }
}

// === impl Filesystem for Served ===

impl Served {
    fn contents(&self) -> MutexGuard<'_, Contents> {
        lock(&self.0)
    }
}

impl Filesystem for Served {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let contents = self.contents();
        match contents.names.get(name).and_then(|ino| contents.attributes(*ino)) {
            Some(attributes) => reply.entry(&NOW, &attributes, Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.contents().attributes(ino.0) {
            Some(attributes) => reply.attr(&NOW, &attributes),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mut contents = self.contents();
        let fails = size.is_some() && contents.faults.write;
        if contents.fail(fails) {
            return reply.error(Errno::EIO);
        }
        if let (Some(size), Some(file)) = (size, contents.files.get_mut(&ino.0)) {
            file.cached.resize(size as usize, 0);
        }
        match contents.attributes(ino.0) {
            Some(attributes) => reply.attr(&NOW, &attributes),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn create(
        &self,
        _: &Request,
        _: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        let mut contents = self.contents();
        let fails = contents.faults.write;
        if contents.fail(fails) {
            return reply.error(Errno::EIO);
        }
        contents.last = contents.last.max(1) + 1;
        let ino = contents.last;
        contents.names.insert(name.to_owned(), ino);
        contents.files.insert(ino, File::default());
        match contents.attributes(ino) {
            Some(attributes) => reply.created(&NOW, &attributes, Generation(0), FileHandle(0), caching(name)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn open(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let contents = self.contents();
        let name = contents.names.iter().find(|(_, of)| **of == ino.0).map(|(name, _)| name.clone());
        reply.opened(FileHandle(0), caching(&name.unwrap_or_default()));
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let mut contents = self.contents();
        let fails = contents.faults.read;
        if contents.fail(fails) {
            return reply.error(Errno::EIO);
        }
        match contents.files.get(&ino.0) {
            Some(file) => {
                let start = (offset as usize).min(file.cached.len());
                let end = (start + size as usize).min(file.cached.len());
                reply.data(&file.cached[start..end]);
            }
            None => reply.error(Errno::ENOENT),
        }
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let mut contents = self.contents();
        let fails = contents.faults.write;
        if contents.fail(fails) {
            return reply.error(Errno::EIO);
        }
        let Some(file) = contents.files.get_mut(&ino.0) else { return reply.error(Errno::ENOENT) };
        let (start, end) = (offset as usize, offset as usize + data.len());
        if file.cached.len() < end {
            file.cached.resize(end, 0);
        }
        file.cached[start..end].copy_from_slice(data);
        // Whole pages are written.
        let pages = start / 4096 * 4096..end.next_multiple_of(4096);
        file.dirty.push(pages);
        reply.written(data.len() as u32);
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let mut contents = self.contents();
        let fails = contents.faults.sync;
        let failed = contents.fail(fails);
        let Some(file) = contents.files.get_mut(&ino.0) else { return reply.error(Errno::ENOENT) };
        let dirty = std::mem::take(&mut file.dirty);
        if failed {
            return reply.error(Errno::EIO);
        }
        file.durable.resize(file.cached.len(), 0);
        for pages in dirty {
            let end = pages.end.min(file.cached.len());
            let start = pages.start.min(end);
            file.durable[start..end].copy_from_slice(&file.cached[start..end]);
        }
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let mut contents = self.contents();
        let fails = contents.faults.sync;
        if contents.fail(fails) { reply.error(Errno::EIO) } else { reply.ok() }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn unlink(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let mut contents = self.contents();
        let fails = contents.faults.write;
        if contents.fail(fails) {
            return reply.error(Errno::EIO);
        }
        // Who has it open goes on.
        match contents.names.remove(name) {
            Some(_) => reply.ok(),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn rename(
        &self,
        _: &Request,
        _: INodeNo,
        name: &OsStr,
        _: INodeNo,
        new: &OsStr,
        _: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let mut contents = self.contents();
        let fails = contents.faults.write;
        if contents.fail(fails) {
            return reply.error(Errno::EIO);
        }
        match contents.names.remove(name) {
            Some(ino) => {
                contents.names.insert(new.to_owned(), ino);
                reply.ok();
            }
            None => reply.error(Errno::ENOENT),
        }
    }

    fn readdir(&self, _: &Request, _: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let contents = self.contents();
        for (index, (name, ino)) in contents.names.iter().enumerate().skip(offset as usize) {
            if reply.add(INodeNo(*ino), index as u64 + 1, FileType::RegularFile, name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let blocks = (1 << 30) / BLOCK;
        reply.statfs(blocks, blocks, blocks, 1 << 20, 1 << 20, BLOCK as u32, 255, BLOCK as u32);
    }
}
