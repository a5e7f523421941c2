//! Questions to the journal: what happened, when, to whom, how often.
//!
//! What can be asked is plain data ([`query`]), so that the store answers it with its indexes, the live tail with a test of each
//! new entry, and both mean the same.

pub mod api;
pub mod filter;
pub mod query;

#[cfg(test)]
#[allow(dead_code, reason = "each history has a test of its own that uses it")]
pub(crate) mod conformance;

use std::future::Future;

use self::query::{Count, CountBy, Filter, Found, Mark, Search};
use crate::journal::Position;

/// A page of answers.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// Newest first by the time at which they happened, and by position where that is the same.
    pub found: Vec<Found>,
    /// The last one of the page in the order of answers, whether or not it could be read: the next page begins after it.
    pub last: Option<Mark>,
    /// Records of the page that are in the index and cannot be read any more: they are left out of `found`.
    pub unreadable: u64,
    /// More may follow after `last`.
    pub has_more: bool,
    /// The last position that the answer takes into account: a live tail that starts after it misses nothing.
    pub head: Position,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HistoryError {
    /// The question takes longer than it may.
    #[error("not answered within {0} ms: narrow the time range, or add a filter")]
    Deadline(u64),
    /// As many questions as are taken at one time are being answered.
    #[error("too many questions at one time: ask again")]
    Busy,
    /// The text to search for cannot be understood.
    #[error("text: {0}")]
    Text(String),
    /// The counts would take more memory than they may.
    #[error(
        "more values and spans of time than are counted at one time: count by another field, or ask for a longer step, a shorter time range, or more filters"
    )]
    TooMany,
    /// The disk, or the database on it.
    #[error("history: {0}")]
    Storage(String),
}

/// A journal that can be searched.
pub trait History: Clone + Send + Sync + 'static {
    /// The newest records that a filter lets through.
    ///
    /// # Errors
    /// Where it cannot be answered within the search's deadline, or at all.
    fn search(&self, search: Search) -> impl Future<Output = Result<Page, HistoryError>> + Send;

    /// How many records, and how many occurrences, a filter lets through, by field and time.
    ///
    /// # Errors
    /// As [`search`](Self::search).
    fn count(
        &self,
        filter: Filter,
        by: CountBy,
        deadline: std::time::Duration,
    ) -> impl Future<Output = Result<Vec<Count>, HistoryError>> + Send;
}
