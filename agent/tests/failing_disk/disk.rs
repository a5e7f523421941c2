//! A filesystem in memory that fails when it is told to, and forgets what a loss of power takes: by FUSE.
//!
//! What a file holds in the page cache, and what of it is on the disk, are two things: a sync that succeeds makes them one, and
//! one that fails leaves the disk as it was and takes what was not written for written, as Linux does. So what is written after
//! a failed sync into the same pages is there after a loss of power, and what was written before it is not. Names are durable at once.
//!
//! It is served by a process of its own, this test's program started again. In one process with its user it stands still now and
//! then: SQLite unmaps its shared memory, the kernel writes that back through FUSE under the process's `mmap_lock`, and the thread
//! that would answer needs the same lock.

#![allow(
    unreachable_pub,
    dead_code,
    clippy::cast_possible_truncation,
    clippy::print_stderr,
    clippy::unwrap_used
)]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use prost::Message;

const NOW: Duration = Duration::ZERO;
const BLOCK: u64 = 4096;

/// Where to mount, for the process that serves it.
const SERVE: &str = "NODETAP_SERVES_THE_DISK_AT";
/// Its test, which that process runs.
const SERVER: &str = "disk::serves_the_disk_of_the_process_that_started_it";

/// What fails with `EIO`.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Faults {
    #[prost(bool, tag = "1")]
    pub read: bool,
    #[prost(bool, tag = "2")]
    pub write: bool,
    #[prost(bool, tag = "3")]
    pub sync: bool,
}

/// Files, as programs see them and as they are on the disk.
#[derive(Clone, Message)]
pub struct Contents {
    #[prost(btree_map = "uint64, message", tag = "1")]
    files: BTreeMap<u64, File>,
    #[prost(btree_map = "string, uint64", tag = "2")]
    names: BTreeMap<String, u64>,
    #[prost(uint64, tag = "3")]
    last: u64,
    #[prost(message, required, tag = "4")]
    faults: Faults,
    /// Requests that were answered with an error.
    #[prost(uint64, tag = "5")]
    failed: u64,
}

#[derive(Clone, PartialEq, Message)]
struct File {
    #[prost(bytes = "vec", tag = "1")]
    cached: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    durable: Vec<u8>,
    #[prost(message, repeated, tag = "3")]
    dirty: Vec<Pages>,
}

/// Bytes from, and up to.
#[derive(Clone, Copy, PartialEq, Message)]
struct Pages {
    #[prost(uint64, tag = "1")]
    start: u64,
    #[prost(uint64, tag = "2")]
    end: u64,
}

/// What the serving process is asked; it answers with its contents.
#[derive(Clone, Copy, Message)]
struct Ask {
    /// From now on.
    #[prost(message, optional, tag = "1")]
    faults: Option<Faults>,
    /// Whether the files are wanted, too.
    #[prost(bool, tag = "2")]
    files: bool,
}

/// What the serving process says first.
#[derive(Clone, Message)]
struct Mounted {
    #[prost(string, optional, tag = "1")]
    error: Option<String>,
}

/// It, mounted.
pub struct Disk {
    folder: tempfile::TempDir,
    asked: Mutex<Link>,
}

/// Messages to the other process and from it.
struct Link(BufReader<UnixStream>);

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

// === impl Link ===

impl Link {
    fn send(&mut self, message: &impl Message) -> io::Result<()> {
        self.0.get_mut().write_all(&message.encode_length_delimited_to_vec())
    }

    /// `UnexpectedEof` where the other one has gone.
    fn receive<M: Message + Default>(&mut self) -> io::Result<M> {
        let mut prefix = Vec::new();
        while prefix.last().is_none_or(|byte| byte & 0x80 != 0) {
            let byte = *self.0.fill_buf()?.first().ok_or(io::ErrorKind::UnexpectedEof)?;
            self.0.consume(1);
            prefix.push(byte);
        }
        let mut message = vec![0; prost::decode_length_delimiter(&*prefix).unwrap()];
        io::Read::read_exact(&mut self.0, &mut message)?;
        Ok(M::decode(&*message).unwrap())
    }
}

// === impl Disk ===

impl Disk {
    /// Mounts; `None`, loudly and to `ci/test`, where this user may not.
    pub fn mount(contents: Contents) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut server = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", SERVER])
            .env(SERVE, folder.path())
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::spawn(move || server.wait());
        let mut link = Link(BufReader::new(ours));
        link.send(&contents).unwrap();
        let mounted: Mounted = link.receive().unwrap();
        match mounted.error {
            None => Some(Self { folder, asked: Mutex::new(link) }),
            Some(error) => {
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
        self.ask(Ask { faults: Some(faults), files: false });
    }

    pub fn faults(&self) -> Faults {
        self.ask(Ask { faults: None, files: false }).faults
    }

    /// How many requests it has failed.
    pub fn failed(&self) -> u64 {
        self.ask(Ask { faults: None, files: false }).failed
    }

    pub fn contents(&self) -> Contents {
        self.ask(Ask { faults: None, files: true })
    }

    fn ask(&self, ask: Ask) -> Contents {
        let mut link = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        link.send(&ask).and_then(|()| link.receive()).expect("the process that serves the disk is there")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Threads of what was on it may have its files open, and mapped, for a moment more: it is taken from its place, and served
        // until the last of them is closed.
        let _ = Command::new("umount").arg("-l").arg(self.folder.path()).output();
    }
}

/// Nothing, but in the process that `Disk::mount` starts: there it serves until the other one has let go of the disk and its files.
#[test]
fn serves_the_disk_of_the_process_that_started_it() {
    let Some(folder) = std::env::var_os(SERVE) else { return };
    let stream = UnixStream::from(io::stdin().as_fd().try_clone_to_owned().unwrap());
    let mut link = Link(BufReader::new(stream));
    let contents = Arc::new(Mutex::new(link.receive::<Contents>().unwrap()));
    let mounted = fuser::spawn_mount(Served(Arc::clone(&contents)), &folder, &Config::default());
    link.send(&Mounted { error: mounted.as_ref().err().map(ToString::to_string) }).unwrap();
    while let Ok(Ask { faults, files }) = link.receive() {
        let answer = {
            let mut contents = lock(&contents);
            contents.faults = faults.unwrap_or(contents.faults);
            if files {
                contents.clone()
            } else {
                Contents { faults: contents.faults, failed: contents.failed, ..Contents::default() }
            }
        };
        link.send(&answer).unwrap();
    }
    // Where the other one was killed, it is in its place still.
    let _ = Command::new("umount").arg("-l").arg(&folder).output();
    if let Ok(session) = mounted {
        session.join().unwrap();
    }
}

fn lock(contents: &Mutex<Contents>) -> MutexGuard<'_, Contents> {
    contents.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The page cache is here, and not in the kernel; but SQLite's shared memory must be mapped.
fn caching(name: &OsStr) -> FopenFlags {
    match name.as_encoded_bytes().ends_with(b"-shm") {
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
        match contents.names.get(&*name.to_string_lossy()).and_then(|ino| contents.attributes(*ino)) {
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
        contents.names.insert(name.to_string_lossy().into_owned(), ino);
        contents.files.insert(ino, File::default());
        match contents.attributes(ino) {
            Some(attributes) => reply.created(&NOW, &attributes, Generation(0), FileHandle(0), caching(name)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn open(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let contents = self.contents();
        let name = contents.names.iter().find(|(_, of)| **of == ino.0).map(|(name, _)| name.clone());
        reply.opened(FileHandle(0), caching(OsStr::new(&name.unwrap_or_default())));
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
        file.dirty.push(Pages { start: offset / BLOCK * BLOCK, end: (end as u64).next_multiple_of(BLOCK) });
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
            let end = (pages.end as usize).min(file.cached.len());
            let start = (pages.start as usize).min(end);
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
        match contents.names.remove(&*name.to_string_lossy()) {
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
        match contents.names.remove(&*name.to_string_lossy()) {
            Some(ino) => {
                contents.names.insert(new.to_string_lossy().into_owned(), ino);
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
