//! The last lines of a container's log, from the files that the runtime writes below `/var/log/pods`.
//!
//! `NAMESPACE_POD_UID/CONTAINER/ORDINAL.log`, a line a record: `TIME stdout|stderr P|F TEXT` (CRI). Read from the end, in blocks, and
//! never further back than 256 KiB, however long the file or its lines. Files that were rotated are read on, newest first, the ones that
//! the kubelet has compressed (`.gz`) too.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nodetap_wire::{LogLine, time};

/// Lines of a death, at most.
pub const LINES: usize = 50;

/// Bytes of text of a death's lines, at most.
pub const BYTES: usize = 16 * 1024;

/// Read from the end of one file, at most: what fifty lines of a few records each take.
const WINDOW: u64 = 256 * 1024;

/// A rotated file is compressed as a whole, so its end is had by reading it from its start: up to this much of its text.
const INFLATED: u64 = 64 << 20;

/// Rotated files looked at: the kubelet keeps four beside the current one.
const ROTATED: usize = 8;

/// Read at once.
const BLOCK: u64 = 32 * 1024;

/// Whose log.
#[derive(Clone, Copy, Debug)]
pub struct Log<'a> {
    /// The pod's namespace.
    pub namespace: &'a str,
    /// The pod's name.
    pub pod: &'a str,
    /// The pod's uid, as the kubelet has it.
    pub pod_uid: &'a str,
    /// The container's name.
    pub container: &'a str,
    /// The instance.
    pub ordinal: u32,
}

/// Why there are no lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// The pod log folder is not there, or not given.
    NoFolder,
    /// The runtime has removed the file, or never made it.
    NoFile,
    /// It wrote nothing.
    Empty,
    /// It cannot be read.
    Unreadable,
    /// Its namespace is not to be read.
    OptedOut,
    /// A name that cannot be part of a path.
    Name,
    /// The API server does not let the agent read logs.
    Forbidden,
    /// The API server was asked as often as the agent may.
    Busy,
    /// What the API server gave could not be shown to be of the life that ended.
    OtherLife,
    /// The API server, or the kubelet behind it, did not give it.
    Unanswered,
    /// Longer than is taken of the API server, so that its end is not there.
    TooLong,
}

/// A record of the file, joined with the parts before it.
struct Joined {
    line: LogLine,
    open: bool,
}

// === impl Missing ===

impl Missing {
    /// As a label's value.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoFolder => "no_folder",
            Self::NoFile => "no_file",
            Self::Empty => "empty",
            Self::Unreadable => "unreadable",
            Self::OptedOut => "opted_out",
            Self::Name => "name",
            Self::Forbidden => "forbidden",
            Self::Busy => "busy",
            Self::OtherLife => "other_life",
            Self::Unanswered => "unanswered",
            Self::TooLong => "too_long",
        }
    }

    /// Whether a log that the folder does not give may be had elsewhere.
    pub(super) fn may_be_elsewhere(self) -> bool {
        matches!(self, Self::NoFolder | Self::NoFile | Self::Unreadable)
    }
}

// === impl Log ===

impl Log<'_> {
    /// The container's folder below `root`; `None` where a name is not one that Kubernetes gives.
    pub fn folder(&self, root: &Path) -> Option<PathBuf> {
        let parts = [self.namespace, self.pod, self.pod_uid, self.container];
        parts.iter().all(|part| is_plain(part)).then(|| {
            root.join(format!("{}_{}_{}", self.namespace, self.pod, self.pod_uid)).join(self.container)
        })
    }

    /// The last lines, oldest first: somewhat more than a death is to carry, so that [`fit`] cuts after redaction and not before.
    ///
    /// # Errors
    /// Why there are none.
    pub fn last_lines(&self, root: &Path) -> Result<Vec<LogLine>, Missing> {
        let folder = self.folder(root).ok_or(Missing::Name)?;
        if !root.is_dir() {
            return Err(Missing::NoFolder);
        }
        let name = format!("{}.log", self.ordinal);
        let current = open(&folder.join(&name)).and_then(|mut file| tail(&mut file));
        let mut lines = match current {
            Ok(lines) => lines,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(_) => return Err(Missing::Unreadable),
        };
        let rotated = rotated(&folder, &name);
        if lines.is_empty() && rotated.is_empty() && !folder.join(&name).exists() {
            return Err(Missing::NoFile);
        }
        for rotated in rotated {
            if enough(&lines) {
                break;
            }
            let is_compressed = rotated.extension().is_some_and(|extension| extension == "gz");
            let before = open(&rotated)
                .and_then(|mut file| if is_compressed { tail_of_gzip(file) } else { tail(&mut file) });
            // One that cannot be read ends it: what is before it does not belong to what is after it.
            let Ok(before) = before else { break };
            lines.splice(0..0, before);
        }
        if lines.is_empty() { Err(Missing::Empty) } else { Ok(lines) }
    }
}

/// Whether a name is one that Kubernetes gives, and so can be part of a path.
pub(super) fn is_plain(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with('.')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'))
}

/// Cuts to what a death carries: the last [`LINES`] lines and [`BYTES`] bytes; a line that is too long alone keeps its end.
pub fn fit(lines: &mut Vec<LogLine>) {
    if lines.len() > LINES {
        lines.drain(..lines.len() - LINES);
    }
    let mut bytes = 0;
    let mut first = lines.len();
    for (index, line) in lines.iter().enumerate().rev() {
        bytes += line.text.len();
        if bytes > BYTES {
            break;
        }
        first = index;
    }
    if first == lines.len()
        && let Some(last) = lines.last_mut()
    {
        cut(&mut last.text, BYTES);
        first = lines.len() - 1;
    }
    lines.drain(..first);
}

/// Keeps the end of `text`, at most `bytes` of it, with a sign that there was more.
fn cut(text: &mut String, bytes: usize) {
    const CUT: &str = "...";
    if text.len() <= bytes {
        return;
    }
    let mut at = text.len() - bytes.saturating_sub(CUT.len());
    while !text.is_char_boundary(at) {
        at += 1;
    }
    text.replace_range(..at, CUT);
}

/// Never a symbolic link, a pipe or a device: the folder is written by the runtime alone, and this stays so if it is not.
pub(super) fn open(path: &Path) -> io::Result<File> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"))
    }
}

/// The predecessors of a log that was rotated, newest first: `0.log.20261122-001500`, and `0.log.20261122-001500.gz` once compressed.
fn rotated(folder: &Path, name: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut found: Vec<String> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|entry| {
            entry.strip_prefix(name).and_then(|rest| rest.strip_prefix('.')).is_some_and(|stamp| {
                let stamp = stamp.strip_suffix(".gz").unwrap_or(stamp);
                !stamp.is_empty() && stamp.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-')
            })
        })
        .collect();
    found.sort_unstable_by(|one, other| other.cmp(one));
    // While it is being compressed both are there.
    found.dedup_by(|plain, compressed| compressed.strip_suffix(".gz") == Some(plain));
    found.truncate(ROTATED);
    found.into_iter().map(|name| folder.join(name)).collect()
}

/// The lines at the end of a compressed file.
fn tail_of_gzip(file: File) -> io::Result<Vec<LogLine>> {
    let mut text = flate2::read::MultiGzDecoder::new(io::BufReader::new(file)).take(INFLATED);
    let most = usize::try_from(WINDOW).unwrap_or(usize::MAX);
    let mut window = Vec::with_capacity(2 * most);
    let mut is_cut = false;
    while text.by_ref().take(WINDOW).read_to_end(&mut window)? > 0 {
        if window.len() > most {
            window.drain(..window.len() - most);
            is_cut = true;
        }
    }
    Ok(join(&window, is_cut))
}

/// The lines at the end of a file.
pub(super) fn tail(file: &mut File) -> io::Result<Vec<LogLine>> {
    let end = file.seek(SeekFrom::End(0))?;
    let mut start = end;
    let mut window: Vec<u8> = Vec::new();
    loop {
        let block = BLOCK.min(start).min(WINDOW - (end - start));
        if block == 0 {
            break;
        }
        start -= block;
        file.seek(SeekFrom::Start(start))?;
        let mut bytes = Vec::with_capacity(usize::try_from(block).unwrap_or_default() + window.len());
        file.by_ref().take(block).read_to_end(&mut bytes)?;
        bytes.append(&mut window);
        window = bytes;
        // One more than is wanted, since the first may be cut.
        if memchr::memchr_iter(b'\n', &window).count() > LINES + 10 && enough(&join(&window, start > 0)) {
            break;
        }
    }
    Ok(join(&window, start > 0))
}

fn enough(lines: &[LogLine]) -> bool {
    lines.len() > LINES + 5 || lines.iter().map(|line| line.text.len()).sum::<usize>() > 2 * BYTES
}

/// Joins the records of a window; the first is left out where it is `cut`, unless nothing else is there.
fn join(window: &[u8], cut: bool) -> Vec<LogLine> {
    let mut records = window.split(|byte| *byte == b'\n');
    if cut && memchr::memchr(b'\n', window).is_some_and(|at| at + 1 < window.len()) {
        records.next();
    }
    let mut joined: Vec<Joined> = Vec::new();
    for record in records.filter(|record| !record.is_empty()) {
        let (time_ns, stderr, partial, text) = parse(record);
        let text = String::from_utf8_lossy(text);
        let open = joined.iter_mut().rev().find(|line| line.open && line.line.stderr == stderr);
        if let Some(before) = open {
            before.line.text.push_str(&text);
            before.open = partial;
            if before.line.text.len() > 4 * BYTES {
                self::cut(&mut before.line.text, 2 * BYTES);
            }
        } else {
            joined.push(Joined { line: LogLine { time_ns, stderr, text: text.into_owned() }, open: partial });
        }
    }
    for line in &mut joined {
        self::cut(&mut line.line.text, 2 * BYTES);
    }
    joined.into_iter().map(|joined| joined.line).collect()
}

/// Time, whether it is stderr, whether more of the line follows, and the text. What is not CRI is text as it is.
fn parse(record: &[u8]) -> (i64, bool, bool, &[u8]) {
    let mut parts = record.splitn(4, |byte| *byte == b' ');
    if let (Some(stamp), Some(stream), Some(tags)) = (parts.next(), parts.next(), parts.next())
        && let Some(time_ns) = std::str::from_utf8(stamp).ok().and_then(time::parse_ns)
        && matches!(stream, b"stdout" | b"stderr")
    {
        let partial = tags.split(|byte| *byte == b':').next() == Some(b"P".as_slice());
        return (time_ns, stream == b"stderr", partial, parts.next().unwrap_or_default());
    }
    (0, false, false, record)
}

#[cfg(test)]
mod tests;
