//! Names, number and age of rotated files, as lumberjack has them: `name-2006-01-02T15-04-05.000.ext`, in UTC.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

const FORMAT: &str = "%Y-%m-%dT%H-%M-%S%.3f";

/// When a file is rotated, and what becomes of the rotated ones.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rotation {
    /// A file grows to no more than this; a longer line is alone in its file.
    pub(super) max_bytes: u64,
    /// Older ones are removed; none: never.
    pub(super) max_age: Option<Duration>,
    /// More than these are removed, oldest first; none: never.
    pub(super) max_backups: Option<usize>,
}

/// The rotated files of a path, newest first.
pub(super) fn backups(path: &Path) -> io::Result<Vec<(Timestamp, PathBuf)>> {
    let (folder, stem, extension) = parts(path);
    let mut found = Vec::new();
    for entry in fs::read_dir(&folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let time = name
            .to_str()
            .and_then(|name| name.strip_prefix(&format!("{stem}-"))?.strip_suffix(&extension))
            .and_then(|time| DateTime::strptime(FORMAT, time).ok()?.to_zoned(TimeZone::UTC).ok());
        if let Some(time) = time {
            found.push((time.timestamp(), entry.path()));
        }
    }
    found.sort_by(|(one, _), (other, _)| other.cmp(one));
    Ok(found)
}

/// A name for the file as it is rotated now; one that no file has yet.
pub(super) fn backup_name(path: &Path, now: Timestamp) -> PathBuf {
    let (folder, stem, extension) = parts(path);
    let mut at = now;
    loop {
        let time = at.strftime(FORMAT);
        let name = folder.join(format!("{stem}-{time}{extension}"));
        // Two rotations in a millisecond: lumberjack overwrites the first.
        if !name.exists() {
            return name;
        }
        match at.checked_add(Duration::from_millis(1)) {
            Ok(later) => at = later,
            Err(_) => return name,
        }
    }
}

// === impl Rotation ===

impl Rotation {
    /// Removes the rotated files that are too many or too old.
    pub(super) fn clean(self, path: &Path, now: Timestamp) -> io::Result<()> {
        let oldest = self.max_age.and_then(|age| now.checked_sub(age).ok());
        for (index, (time, backup)) in backups(path)?.into_iter().enumerate() {
            let too_many = self.max_backups.is_some_and(|most| index >= most);
            if too_many || oldest.is_some_and(|oldest| time < oldest) {
                fs::remove_file(&backup)?;
            }
        }
        Ok(())
    }
}

/// Folder, name up to the extension, extension with its dot.
fn parts(path: &Path) -> (PathBuf, String, String) {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let text = |part: Option<&std::ffi::OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
    let extension =
        path.extension().map_or(String::new(), |extension| format!(".{}", extension.to_string_lossy()));
    (folder.to_owned(), text(path.file_stem()), extension)
}
