//! Lines out of the chunks of a body, wherever the chunks are cut.
//!
//! A line that passes the bound is never held: it is skipped to its end and announced by its length. Lines that lie
//! whole in one chunk are not copied.

use bytes::Bytes;

/// What is kept of the buffer once a long line is done with: a few mean events.
const KEPT_BYTES: usize = 16 << 10;

/// One line, without its line feed.
#[derive(Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// A whole one.
    Whole(&'a [u8]),
    /// One that passed the bound, and how long it was in bytes.
    TooLong(usize),
}

/// Splits a body into lines.
#[derive(Debug)]
pub struct Lines {
    bound: usize,
    chunk: Bytes,
    /// Where the next line starts in `chunk`.
    at: usize,
    /// The beginning of a line whose end is in no chunk yet.
    partial: Vec<u8>,
    /// What has passed of a line that is too long.
    skipped: Option<usize>,
    /// `partial` holds a line that was given out.
    given: bool,
}

// === impl Lines ===

impl Lines {
    /// Lines of at most `bound` bytes.
    pub fn new(bound: usize) -> Self {
        Self { bound, chunk: Bytes::new(), at: 0, partial: Vec::new(), skipped: None, given: false }
    }

    /// Takes the next chunk. Whoever calls has taken every line of the one before.
    pub fn push(&mut self, chunk: Bytes) {
        self.forget_given();
        let rest = self.chunk.slice(self.at..);
        self.keep(&rest);
        self.chunk = chunk;
        self.at = 0;
    }

    /// The next whole line; `None` until another chunk is pushed. Empty lines are left out.
    pub fn next_line(&mut self) -> Option<Line<'_>> {
        self.forget_given();
        loop {
            let start = self.at;
            let Some(length) = memchr::memchr(b'\n', self.chunk.get(start..)?) else {
                let rest = self.chunk.slice(start..);
                self.at = self.chunk.len();
                self.keep(&rest);
                // What was cut off is in `partial` now: a large chunk is not held for it.
                self.chunk = Bytes::new();
                self.at = 0;
                return None;
            };
            let end = start + length;
            self.at = end + 1;
            if let Some(skipped) = self.skipped.take() {
                return Some(Line::TooLong(skipped + length));
            }
            if self.partial.len() + length > self.bound {
                let whole = self.partial.len() + length;
                self.give_back();
                return Some(Line::TooLong(whole));
            }
            if !self.partial.is_empty() {
                let end_of_line = self.chunk.slice(start..end);
                self.partial.extend_from_slice(&end_of_line);
                self.given = true;
                return Some(Line::Whole(&self.partial));
            }
            if length > 0 {
                return self.chunk.get(start..end).map(Line::Whole);
            }
        }
    }

    /// Bytes of a line that was cut off by the end of the body.
    pub fn unfinished(&self) -> usize {
        match (self.skipped, self.given) {
            (Some(skipped), _) => skipped,
            (None, true) => 0,
            (None, false) => self.partial.len(),
        }
    }

    /// Bytes held.
    pub fn held(&self) -> usize {
        self.partial.capacity()
    }

    fn keep(&mut self, piece: &[u8]) {
        match &mut self.skipped {
            Some(skipped) => *skipped += piece.len(),
            None if self.partial.len() + piece.len() > self.bound => {
                self.skipped = Some(self.partial.len() + piece.len());
                self.give_back();
            }
            None => self.partial.extend_from_slice(piece),
        }
    }

    fn forget_given(&mut self) {
        if self.given {
            self.given = false;
            self.give_back();
        }
    }

    fn give_back(&mut self) {
        self.partial.clear();
        self.partial.shrink_to(KEPT_BYTES);
    }
}

#[cfg(test)]
mod tests;
