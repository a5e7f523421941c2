//! A node's folder of pod logs, in the layout and the format of the kubelet and the CRI:
//! `<namespace>_<pod>_<uid>/<container>/<restartCount>.log`.
//!
//! Of a container's generations the running one and the one before are kept.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

/// The logs of one container.
#[derive(Debug)]
pub(super) struct Logs(PathBuf);

/// A longer line is written in parts, as containerd and CRI-O do.
const PART: usize = 16 * 1024;

// === impl Logs ===

impl Logs {
    pub(super) fn new(node: &Path, namespace: &str, pod: &str, uid: &str, container: &str) -> Self {
        Self(node.join(format!("{namespace}_{pod}_{uid}")).join(container))
    }

    /// Begins a generation's file, and unlinks what is older than the generation before.
    pub(super) fn begin(&self, generation: u32) -> io::Result<()> {
        fs::create_dir_all(&self.0)?;
        fs::File::create(self.file(generation))?;
        for entry in fs::read_dir(&self.0)? {
            let path = entry?.path();
            let of =
                path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse::<u32>().ok());
            if of.is_some_and(|of| of + 1 < generation) {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    /// Appends lines to a generation's file.
    pub(super) fn append<'a>(
        &self,
        generation: u32,
        stream: &str,
        lines: impl Iterator<Item = &'a str>,
    ) -> io::Result<()> {
        let mut text = Vec::new();
        for line in lines {
            let at = format!("{:.9}", Timestamp::now());
            let mut rest = line;
            loop {
                let end = rest.floor_char_boundary(PART);
                let (part, after) = rest.split_at(end);
                let tag = if after.is_empty() { 'F' } else { 'P' };
                writeln!(text, "{at} {stream} {tag} {part}")?;
                if after.is_empty() {
                    break;
                }
                rest = after;
            }
        }
        let mut file = OpenOptions::new().append(true).open(self.file(generation))?;
        file.write_all(&text)
    }

    /// A generation's lines: time and text, parts joined.
    pub(super) fn read(&self, generation: u32) -> io::Result<Vec<(String, String)>> {
        let text = fs::read_to_string(self.file(generation))?;
        let mut lines: Vec<(String, String)> = Vec::new();
        let mut partial = false;
        for line in text.lines() {
            let mut fields = line.splitn(4, ' ');
            let (at, _, tag, rest) = (fields.next(), fields.next(), fields.next(), fields.next());
            let rest = rest.unwrap_or_default();
            match lines.last_mut() {
                Some((_, whole)) if partial => whole.push_str(rest),
                _ => lines.push((at.unwrap_or_default().to_owned(), rest.to_owned())),
            }
            partial = tag == Some("P");
        }
        Ok(lines)
    }

    /// What a kubelet answers of a generation's file: of its last records, which need not begin a line, their text, joined where a line
    /// goes on; the time stands before what begins a line. Source: `ReadLogs` in `k8s.io/cri-client/pkg/logs`.
    pub(super) fn answer(
        &self,
        generation: u32,
        tail: Option<usize>,
        timestamps: bool,
    ) -> io::Result<String> {
        let text = fs::read_to_string(self.file(generation))?;
        let records: Vec<&str> = text.lines().collect();
        let skipped = tail.map_or(0, |tail| records.len().saturating_sub(tail));
        let (mut answer, mut begins) = (String::new(), true);
        for record in records.into_iter().skip(skipped) {
            let mut fields = record.splitn(4, ' ');
            let (at, _, tag, rest) = (fields.next(), fields.next(), fields.next(), fields.next());
            if timestamps && begins {
                answer.push_str(at.unwrap_or_default());
                answer.push(' ');
            }
            answer.push_str(rest.unwrap_or_default());
            begins = tag != Some("P");
            if begins {
                answer.push('\n');
            }
        }
        Ok(answer)
    }

    /// The file of one generation.
    pub(super) fn file(&self, generation: u32) -> PathBuf {
        self.0.join(format!("{generation}.log"))
    }
}

/// Removes all logs of a pod.
pub(super) fn remove(node: &Path, namespace: &str, pod: &str, uid: &str) -> io::Result<()> {
    match fs::remove_dir_all(node.join(format!("{namespace}_{pod}_{uid}"))) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}
