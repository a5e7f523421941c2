//! What a crash left: a last line that is not whole, and records that are in the file but not behind the cursor.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use serde::Deserialize;

/// How far back the end of the last whole line is looked for. Larger than any record.
const MAX_TORN: u64 = 16 << 20;
/// How much of a file's end is read for the ids in it. Twice a batch, and the largest line.
pub(super) const TAIL: u64 = 4 << 20;

/// Ids of lines that are there already, and how often.
#[derive(Debug, Default)]
pub(super) struct Known {
    ids: HashMap<String, u32>,
}

#[derive(Deserialize)]
struct HasId {
    id: String,
}

/// Cuts off a last line that has no newline; its length in bytes. Gives the file's length after it.
pub(super) fn cut_torn_line(file: &File, length: u64) -> io::Result<(u64, u64)> {
    let mut end = length;
    let mut chunk = vec![0; 64 << 10];
    while end > 0 && length - end <= MAX_TORN {
        let start = end.saturating_sub(chunk.len() as u64);
        let part = &mut chunk[..usize::try_from(end - start).unwrap_or(0)];
        file.read_exact_at(part, start)?;
        if let Some(newline) = part.iter().rposition(|byte| *byte == b'\n') {
            end = start + newline as u64 + 1;
            break;
        }
        end = start;
    }
    if end == length {
        return Ok((0, length));
    }
    if length - end > MAX_TORN {
        return Err(io::Error::other("its last line is longer than 16 MiB: this is no file of lines"));
    }
    file.set_len(end)?;
    file.sync_data()?;
    Ok((length - end, end))
}

/// The last bytes of a file, from the start of a line on.
pub(super) fn tail(file: &File, length: u64, bytes: u64) -> io::Result<Vec<u8>> {
    let start = length.saturating_sub(bytes);
    let mut text = vec![0; usize::try_from(length - start).unwrap_or(0)];
    file.read_exact_at(&mut text, start)?;
    if start > 0 {
        let first = text.iter().position(|byte| *byte == b'\n').map_or(text.len(), |newline| newline + 1);
        text.drain(..first);
    }
    Ok(text)
}

// === impl Known ===

impl Known {
    /// Takes the ids of lines; lines that have none are passed over.
    pub(super) fn add(&mut self, lines: &[u8]) {
        for line in lines.split(|byte| *byte == b'\n') {
            if let Ok(HasId { id }) = serde_json::from_slice(line) {
                *self.ids.entry(id).or_default() += 1;
            }
        }
    }

    /// Whether a line of this id is there that no earlier call has answered for.
    pub(super) fn take(&mut self, id: &str) -> bool {
        match self.ids.get_mut(id) {
            Some(1) => self.ids.remove(id).is_some(),
            Some(times) => {
                *times -= 1;
                true
            }
            None => false,
        }
    }
}
