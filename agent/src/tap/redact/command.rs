//! `nodetap-agent redact FILE`: what redaction would do to a file, so that it can be tried before anything is sent.
//!
//! Takes a log as the runtime writes it (CRI) or plain text. A run of lines that is clean as a whole goes out as it is.

use std::io::{self, Read, Write};

use memchr::{memmem, memrchr};
use nodetap_wire::LogLine;

use super::hints::Suspect;
use super::{Counts, Redactor};

/// Lines are judged together up to here, as a key may be spread over several of them.
const BLOCK: usize = 64 * 1024;

/// A line, or a key, that is longer is judged in pieces.
const LINE: usize = 1 << 20;

/// Writes `from`, redacted, to `to`, and tells how many secrets of each kind were in it. Neither needs a buffer of its own for
/// reading; `to` is written to in small pieces.
///
/// # Errors
/// Where `from` cannot be read or `to` not be written.
pub fn redact(redactor: &Redactor, from: &mut impl Read, to: &mut impl Write) -> io::Result<Counts> {
    let mut counts = Counts::new();
    let mut block: Vec<u8> = Vec::with_capacity(2 * BLOCK);
    loop {
        let ended = from.by_ref().take(BLOCK as u64).read_to_end(&mut block)? == 0;
        let cut = if ended { block.len() } else { cut(&block) };
        let whole = block.get(..cut).unwrap_or_default();
        match std::str::from_utf8(whole) {
            Ok(text) => judge(redactor, text, to, &mut counts)?,
            Err(_) => judge(redactor, &String::from_utf8_lossy(whole), to, &mut counts)?,
        }
        block.drain(..cut);
        if ended {
            to.flush()?;
            return Ok(counts);
        }
    }
}

/// Where a block that goes on can be cut: behind a line, and not within what looks like a key. 0: it cannot yet.
fn cut(block: &[u8]) -> usize {
    const BEGIN: &[u8] = b"-----BEGIN ";
    let lines = memrchr(b'\n', block).map_or(0, |at| at + 1);
    let whole = block.get(..lines).unwrap_or_default();
    let is_open = memmem::find(whole, BEGIN).is_some()
        && memmem::rfind(whole, BEGIN) > memmem::rfind(whole, b"-----END ");
    if block.len() < LINE && (is_open || lines == 0) {
        return 0;
    }
    if lines > 0 {
        return lines;
    }
    // Not within a character: it has at most four bytes.
    let starts = block.iter().rev().take(4).position(|byte| byte & 0xc0 != 0x80);
    starts.map_or(block.len(), |back| block.len() - back - 1)
}

/// Looks closer at the lines that need it, and at all of them together where there may be a key.
fn judge(redactor: &Redactor, text: &str, to: &mut impl Write, counts: &mut Counts) -> io::Result<()> {
    let mut done = 0;
    while let Some(suspect) = redactor.suspect(text, done) {
        let Suspect::Line(at) = suspect else {
            return lines(redactor, text.get(done..).unwrap_or_default(), to, counts);
        };
        to.write_all(text.get(done..at.start).unwrap_or_default().as_bytes())?;
        let (head, _, said) = head(text.get(at.clone()).unwrap_or_default());
        // Its end stays outside: what a pattern takes up to there is no part of it.
        let (said, end) = said.strip_suffix('\n').map_or((said, ""), |said| (said, "\n"));
        to.write_all(head.as_bytes())?;
        to.write_all(redactor.text(said, counts).as_bytes())?;
        to.write_all(end.as_bytes())?;
        done = at.end;
    }
    to.write_all(text.get(done..).unwrap_or_default().as_bytes())
}

/// Lines of which some may be those of a key.
fn lines(redactor: &Redactor, text: &str, to: &mut impl Write, counts: &mut Counts) -> io::Result<()> {
    let (mut heads, mut lines) = (Vec::new(), Vec::new());
    for line in text.split_inclusive('\n') {
        let (line, end) = line.strip_suffix('\n').map_or((line, ""), |line| (line, "\n"));
        let (head, stderr, text) = head(line);
        heads.push((head, end));
        lines.push(LogLine { time_ns: 0, stderr, text: text.to_owned() });
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
