//! How much is remembered of an agent's ledger, and how a state is packed: an aggregator keeps it as it came, for 5,000 nodes.
//!
//! Both sides hold to the same bounds, so that nothing is sent that is not kept.

use std::fmt;

use bytes::Bytes;

/// Entries of one node: pods that run, pods that are gone and still known, and the node's own. A node runs 110 to 500 pods.
pub const MAX_ENTRIES: usize = 2_048;

/// Bytes of one entry's state: a pod of 512 containers, or one whose deaths wait for their last lines.
pub const MAX_ENTRY_BYTES: usize = 256 << 10;

/// Bytes that an entry takes in memory beside its state, about.
pub const ENTRY_BYTES: usize = 128;

/// Bytes of a pod's uid: 36, and of a static pod 32.
pub const MAX_UID_BYTES: usize = 128;

/// Bytes of all states of one node. A pod of two containers takes about 300.
pub const MAX_NODE_BYTES: usize = 2 << 20;

/// Bytes of states in one frame of what is remembered.
pub const FRAME_BYTES: usize = 512 << 10;

/// Most bytes of a state once unpacked.
pub const MAX_UNPACKED_BYTES: usize = 4 << 20;

/// Small, and half of it hexadecimal digits: what costs more finds no more.
const COMPRESSION_LEVEL: i32 = 1;

/// Packs states. What it takes for that it keeps for the next one.
pub struct Packer(zstd::bulk::Compressor<'static>);

// === impl Packer ===

impl Packer {
    /// # Errors
    /// Where zstd has no memory.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self(zstd::bulk::Compressor::new(COMPRESSION_LEVEL)?))
    }

    /// # Errors
    /// Where zstd has no memory.
    pub fn pack(&mut self, state: &[u8]) -> std::io::Result<Bytes> {
        self.0.compress(state).map(Bytes::from)
    }
}

impl fmt::Debug for Packer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Packer").finish_non_exhaustive()
    }
}

/// Unpacks a state.
///
/// # Errors
/// Where it was not packed, or is longer than [`MAX_UNPACKED_BYTES`].
pub fn unpack(state: &[u8]) -> std::io::Result<Vec<u8>> {
    let length = zstd::zstd_safe::get_frame_content_size(state).ok().flatten();
    let length = length.and_then(|length| usize::try_from(length).ok());
    match length.filter(|length| *length <= MAX_UNPACKED_BYTES) {
        Some(length) => zstd::bulk::decompress(state, length),
        None => {
            Err(std::io::Error::new(std::io::ErrorKind::InvalidData, "not a packed state, or too long a one"))
        }
    }
}

#[cfg(test)]
mod tests;
