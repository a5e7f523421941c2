//! The index: for each segment of the log, which of its records have which facet.
//!
//! A segment covers up to 32,768 positions of one file. The one that grows is in memory; when it is full it is written into its file
//! beside the records: sorted terms with their records (`term`), when each record happened (`chunk`), and which states of
//! Events it holds (`version`). A term is a facet's value or a word. Nothing of a segment ever changes, so that writing it
//! is nearly free, whatever is in it; a question asks each segment, newest first, and stops where no older one can add.

pub(super) mod bits;
pub(super) mod builder;
pub(super) mod count;
pub(super) mod directory;
pub(super) mod indexer;
pub(super) mod plan;
pub(super) mod search;
pub(super) mod stored;
pub(super) mod term;
pub(super) mod terms;
pub(super) mod versions;

/// Positions that a segment covers. Twice as many made its terms twice as large in memory, and slower for the processor's caches.
pub(super) const SEGMENT: u64 = 1 << 15;

/// Offsets that there can be in a segment: they have 16 bits.
pub(super) const OFFSETS: usize = 1 << 16;

/// Records whose times lie in one blob.
pub(super) const CHUNK: usize = 1 << 12;

/// How far the index may be behind: two segments that are full or grow, and a half. What comes beyond waits, and is
/// refused if it waits long.
pub(super) const MOST_UNINDEXED: u64 = 5 * SEGMENT / 2;
