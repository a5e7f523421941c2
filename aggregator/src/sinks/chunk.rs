//! Where what is rendered for a sink lies: bodies and names of records that follow each other share memory, a chunk at a time.
//!
//! An allocation for each was a twentieth of what an event costs, above all where a sink's thread lets go of what another made. A
//! chunk lives as long as anything in it: whoever holds one record of many holds a chunk for it, and chunks are small.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};
use nodetap_wire::SharedStr;

use super::encode::{EncodeError, escape_as_go};

/// Room for about six common records. What a sink has before it takes as much for each at most, and for a longer one its length.
const CHUNK: usize = 8 << 10;

/// Of what one record is written into before it is copied, what is kept.
const KEPT: usize = 64 << 10;

/// Takes what is rendered.
#[derive(Default)]
pub struct Chunk {
    /// Written first, because nobody knows before how long it is.
    written: Vec<u8>,
    room: BytesMut,
}

// === impl Chunk ===

impl Chunk {
    /// Takes JSON, escaped as Go escapes it.
    ///
    /// # Errors
    /// As `write`.
    pub fn json(
        &mut self,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), EncodeError>,
    ) -> Result<Bytes, EncodeError> {
        self.written.clear();
        self.written.shrink_to(KEPT);
        write(&mut self.written)?;
        self.make_room(self.written.len());
        escape_as_go(&self.written, &mut self.room);
        let json = self.room.split().freeze();
        if self.room.capacity() > CHUNK {
            // What escapes made longer has grown beyond it: what comes next would hold all of that.
            self.room = BytesMut::new();
        }
        Ok(json)
    }

    /// Takes a text.
    pub fn text(&mut self, text: &str) -> SharedStr {
        self.make_room(text.len());
        self.room.put_slice(text.as_bytes());
        // It is text, and would be again if it were looked at as something else.
        SharedStr::try_from(self.room.split().freeze()).unwrap_or_default()
    }

    fn make_room(&mut self, bytes: usize) {
        if self.room.capacity() < bytes {
            self.room = BytesMut::with_capacity(bytes.max(CHUNK));
        }
    }
}

impl Clone for Chunk {
    /// With memory of its own.
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl fmt::Debug for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chunk").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn what_follows_each_other_shares_memory_and_is_what_was_written() {
        let mut chunk = Chunk::default();
        let write = |text: &'static str| {
            move |json: &mut Vec<u8>| {
                json.extend_from_slice(text.as_bytes());
                Ok(())
            }
        };
        let name = chunk.text("größer");
        let body = chunk.json(write("\"a<b\"")).unwrap();
        assert_eq!((&*name, &*body), ("größer", &b"\"a\\u003cb\""[..]));
        assert_eq!(name.bytes().as_ptr_range().end, body.as_ptr(), "one behind the other");
        let large = "x".repeat(3 * CHUNK);
        assert_eq!(&*chunk.text(&large), large);
        let escaped = |json: &mut Vec<u8>| {
            json.resize(3 * CHUNK, b'<');
            Ok(())
        };
        let json = chunk.json(escaped).unwrap();
        assert!(json.len() > 3 * CHUNK && chunk.room.capacity() <= CHUNK, "nothing is put behind it");
        assert_eq!((&*name, &*chunk.text("")), ("größer", ""));
    }

    #[test]
    fn a_chunk_is_no_larger_than_it_says_however_much_was_rendered() {
        let mut chunk = Chunk::default();
        for _ in 0..10 * CHUNK / 1_000 {
            chunk.text(&"x".repeat(1_000));
            assert!(chunk.room.capacity() <= CHUNK);
        }
    }
}
