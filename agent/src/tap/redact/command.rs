//! `nodetap-agent redact FILE`: what redaction would do to a file, so that it can be tried before anything is sent.
//!
//! Takes a log as the runtime writes it (CRI) or plain text. A run of lines that is clean as a whole goes out as it is.

use std::io::{self, BufRead, Write};

use memchr::memmem;
use nodetap_wire::LogLine;

use super::{Counts, Redactor};

/// Lines are judged together up to here, as a key may be spread over several of them.
const BLOCK: usize = 64 * 1024;

/// A line that is longer is judged in pieces.
const LINE: usize = 1 << 20;

/// Writes `from`, redacted, to `to`, and tells how many secrets of each kind were in it.
///
/// # Errors
/// Where `from` cannot be read or `to` not be written.
pub fn redact(redactor: &Redactor, from: &mut impl BufRead, to: &mut impl Write) -> io::Result<Counts> {
    let mut counts = Counts::new();
    let mut block: Vec<u8> = Vec::with_capacity(2 * BLOCK);
    loop {
        let ended = fill(from, &mut block)?;
        if block.is_empty() {
            return Ok(counts);
        }
        match std::str::from_utf8(&block) {
            Ok(text) if redactor.is_clean(text) => to.write_all(&block)?,
            Ok(text) => lines(redactor, text, to, &mut counts)?,
            Err(_) => lines(redactor, &String::from_utf8_lossy(&block), to, &mut counts)?,
        }
        if ended {
            to.flush()?;
            return Ok(counts);
        }
        block.clear();
    }
}

/// Whole lines, and some [`BLOCK`] of them; a block never ends within what looks like a key. Whether there is no more.
fn fill(from: &mut impl BufRead, block: &mut Vec<u8>) -> io::Result<bool> {
    let mut in_key = None;
    loop {
        let start = block.len();
        if io::Read::take(&mut *from, LINE as u64).read_until(b'\n', block)? == 0 {
            return Ok(true);
        }
        if block.len() < BLOCK {
            continue;
        }
        let line = block.get(start..).unwrap_or_default();
        let open = match in_key {
            None => memmem::rfind(block, b"-----BEGIN ") > memmem::rfind(block, b"-----END "),
            Some(()) => memmem::find(line, b"-----END ").is_none(),
        };
        if !open || block.len() >= LINE {
            return Ok(false);
        }
        in_key = Some(());
    }
}

fn lines(redactor: &Redactor, text: &str, to: &mut impl Write, counts: &mut Counts) -> io::Result<()> {
    let split = text.split_inclusive('\n').map(|line| {
        let (line, end) = line.strip_suffix('\n').map_or((line, ""), |line| (line, "\n"));
        let (head, stderr, text) = head(line);
        (head, end, LogLine { time_ns: 0, stderr, text: text.to_owned() })
    });
    let mut heads = Vec::new();
    let mut lines = Vec::new();
    for (head, end, line) in split {
        heads.push((head, end));
        lines.push(line);
    }
    redactor.lines(&mut lines, counts);
    for ((head, end), line) in heads.into_iter().zip(lines) {
        to.write_all(head.as_bytes())?;
        to.write_all(line.text.as_bytes())?;
        to.write_all(end.as_bytes())?;
    }
    Ok(())
}

/// Time, stream and tags of a CRI line, empty where it is none; whether it is of stderr; and the text.
fn head(line: &str) -> (&str, bool, &str) {
    let mut spaces = line.match_indices(' ').map(|(at, _)| at);
    if line.starts_with(|first: char| first.is_ascii_digit())
        && let (Some(first), Some(second), Some(third)) = (spaces.next(), spaces.next(), spaces.next())
        && let Some(stream @ ("stdout" | "stderr")) = line.get(first + 1..second)
        && line.get(second + 1..third).is_some_and(|tags| tags.starts_with(['F', 'P']))
        && let Some((head, text)) = line.split_at_checked(third + 1)
    {
        return (head, stream == "stderr", text);
    }
    ("", false, line)
}

#[cfg(test)]
mod tests;
