//! `stdout`: one JSON object a line, for whoever collects a container's output.
//!
//! A line that a pipe took a part of is finished before any other is begun, whoever writes next, so that every line is whole and none
//! is written twice.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::{Mutex, PoisonError};

use nodetap_wire::SharedStr;

use super::lines::{Failed, LIMITS, Line, LineSink, WriteLines};

/// What is to be written of a line that was begun; there is one standard output for all receivers.
static REST: Mutex<Vec<u8>> = Mutex::new(Vec::new());

/// Lines begun and not asked for again yet: one of each lane and one of dead letters. More than that are of batches that nobody
/// tries again.
const BEGUN: usize = 4;

/// Writes to the process's standard output.
#[derive(Debug, Default)]
struct Stdout {
    /// Ids of lines whose first part was written: what is left of them goes before whatever comes next, and they are not written again.
    begun: VecDeque<SharedStr>,
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
    fn write(&mut self, lines: &[Line]) -> Result<(), Failed> {
        // Held for the batch: no line of another sink, or of the log, cuts into one of ours.
        let mut locked = io::stdout().lock();
        locked.flush()?;
        // Past its buffer: what stands there came nowhere yet.
        let mut out = File::from(locked.as_fd().try_clone_to_owned()?);
        let mut rest = REST.lock().unwrap_or_else(PoisonError::into_inner);
        self.write_on(&mut out, &mut rest, lines)
    }
}

impl Stdout {
    /// Writes lines behind what is left of one that was begun.
    fn write_on(&mut self, out: &mut impl Write, rest: &mut Vec<u8>, lines: &[Line]) -> Result<(), Failed> {
        write_all(out, rest)?;
        let mut text = Vec::with_capacity(lines.iter().map(|line| line.body.len() + 1).sum());
        // Where each line ends.
        let mut ends = Vec::with_capacity(lines.len());
        let mut finished = VecDeque::new();
        for (index, line) in lines.iter().enumerate() {
            if let Some(place) = self.begun.iter().position(|id| *id == line.id) {
                finished.extend(self.begun.remove(place).map(|id| (index, id)));
            } else {
                text.extend_from_slice(&line.body);
                text.push(b'\n');
            }
            ends.push(text.len());
        }
        let all = text.len();
        let Err(error) = write_all(out, &mut text) else { return Ok(()) };
        let came = all - text.len();
        let written = ends.iter().take_while(|end| **end <= came).count();
        let start = written.checked_sub(1).and_then(|last| ends.get(last)).map_or(0, |end| *end);
        // Those will be asked for again.
        self.begun.extend(finished.into_iter().filter(|(index, _)| *index >= written).map(|(_, id)| id));
        if came > start
            && let (Some(line), Some(end)) = (lines.get(written), ends.get(written))
        {
            text.truncate(end - came);
            *rest = text;
            self.begun.push_back(line.id.clone());
        }
        while self.begun.len() > BEGUN {
            self.begun.pop_front();
        }
        Err(Failed { written, error })
    }
}

/// Writes all of a text, and takes from its front what was written.
#[expect(clippy::disallowed_methods, reason = "how far a failed write came is what is asked for")]
fn write_all(out: &mut impl Write, text: &mut Vec<u8>) -> io::Result<()> {
    let mut written = 0;
    let result = loop {
        let Some(rest) = text.get(written..).filter(|rest| !rest.is_empty()) else { break Ok(()) };
        match out.write(rest) {
            Ok(0) => break Err(io::ErrorKind::WriteZero.into()),
            Ok(bytes) => written += bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => break Err(error),
        }
    };
    text.drain(..written);
    result
}

#[cfg(test)]
mod tests;
