//! `stdout`: one JSON object a line, for whoever collects a container's output.

use std::io::{self, Write};

use super::lines::{LIMITS, Line, LineSink, WriteLines};

/// Writes to the process's standard output.
#[derive(Debug, Default)]
struct Stdout {
    /// What of the batch was written before it failed, so that its next try goes on from there.
    written: usize,
}

/// The sink of a `stdout` receiver.
///
/// # Errors
/// Where there is no thread to be had.
pub fn sink(name: &str) -> io::Result<LineSink> {
    LineSink::new(name, LIMITS, Stdout::default())
}

// === impl Stdout ===

impl WriteLines for Stdout {
    fn write(&mut self, lines: &[Line]) -> io::Result<()> {
        // Held for the batch: no line of another sink, or of the log, cuts into one of ours.
        write_on(&mut io::stdout().lock(), &mut self.written, lines)
    }
}

/// Writes lines from byte `written` of the batch on, and keeps how far it came.
#[expect(clippy::disallowed_methods, reason = "how far a failed write came is what is asked for")]
fn write_on(out: &mut impl Write, written: &mut usize, lines: &[Line]) -> io::Result<()> {
    let mut text = Vec::with_capacity(lines.iter().map(|line| line.body.len() + 1).sum());
    for line in lines {
        text.extend_from_slice(&line.body);
        text.push(b'\n');
    }
    while let Some(rest) = text.get(*written..).filter(|rest| !rest.is_empty()) {
        match out.write(rest) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(bytes) => *written += bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    *written = 0;
    out.flush()
}

#[cfg(test)]
mod tests;
