//! A history of any journal, without an index: each question reads the journal from its beginning, as a sink does.
//!
//! What an index answers is measured against it. Memory holds the answer alone; the time that a question may take bounds how
//! much is read.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use nodetap_wire::face::Face;
use tokio::sync::watch;
use tokio::time::Instant;

use super::filter::time_ns;
use super::query::{Count, CountBy, Filter, Found, Mark, Search};
use super::{History, HistoryError, Page};
use crate::journal::{
    Appended, DeadLetter, Entry, Journal, JournalError, KeptLetter, Letters, Position, Taken,
};

/// Entries of one read.
const BATCH: usize = 500;

/// Answers questions by reading a journal.
#[derive(Clone, Debug)]
pub struct Scan<J>(pub J);

// === impl Scan ===

impl<J: Journal> Scan<J> {
    /// Shows every entry that a filter lets through, and answers with the last position looked at.
    async fn each(
        &self,
        filter: &Filter,
        deadline: Duration,
        mut show: impl FnMut(&Entry, &Face<'_>) + Send,
    ) -> Result<Position, HistoryError> {
        let begun = Instant::now();
        let end = *self.0.head().borrow();
        let mut position = Position(0);
        while position < end {
            if begun.elapsed() > deadline {
                return Err(HistoryError::Deadline(u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX)));
            }
            let entries = self.0.read_from(position, BATCH).await;
            let entries = entries.map_err(|error| HistoryError::Storage(error.to_string()))?;
            let Some(last) = entries.last() else { break };
            position = last.position;
            for entry in entries.iter().filter(|entry| entry.position <= end) {
                // One that cannot be read is nothing that a filter lets through.
                let Ok(face) = entry.face("") else { continue };
                if filter.matches(entry, &face) {
                    show(entry, &face);
                }
            }
        }
        Ok(end)
    }
}

impl<J: Journal> History for Scan<J> {
    async fn search(&self, search: Search) -> Result<Page, HistoryError> {
        let Search { filter, after, limit, deadline } = search;
        // Oldest first, so that what is too many goes from the front.
        let mut newest: BTreeMap<Mark, Found> = BTreeMap::new();
        let head = self
            .each(&filter, deadline, |entry, face| {
                let mark = Mark { time_ns: time_ns(entry, face), position: entry.position };
                let comes_after = after.is_none_or(|after| mark < after);
                let has_room = newest.len() <= limit;
                if comes_after
                    && (has_room || newest.first_key_value().is_some_and(|(first, _)| mark > *first))
                {
                    newest.insert(mark, Found { time_ns: mark.time_ns, entry: entry.clone() });
                    if newest.len() > limit.saturating_add(1) {
                        newest.pop_first();
                    }
                }
            })
            .await?;
        let has_more = newest.len() > limit;
        let found = newest.into_values().rev().take(limit).collect();
        Ok(Page { found, has_more, head })
    }

    async fn count(
        &self,
        filter: Filter,
        by: CountBy,
        deadline: Duration,
    ) -> Result<Vec<Count>, HistoryError> {
        let step = by.step.map_or(0, |step| i64::try_from(step.as_nanos()).unwrap_or(i64::MAX));
        let mut values: HashMap<String, BTreeMap<i64, (u64, u64)>> = HashMap::new();
        self.each(&filter, deadline, |entry, face| {
            let value = by.field.map(|field| field.value(face).into_owned()).unwrap_or_default();
            let time_ns = time_ns(entry, face);
            let from_ns = if step == 0 { 0 } else { time_ns.div_euclid(step).saturating_mul(step) };
            let (records, occurrences) = values.entry(value).or_default().entry(from_ns).or_default();
            *records += 1;
            *occurrences = occurrences.saturating_add(entry.occurrences);
        })
        .await?;
        let mut values: Vec<_> = values.into_iter().collect();
        let records = |spans: &BTreeMap<i64, (u64, u64)>| spans.values().map(|span| span.0).sum::<u64>();
        values.sort_by_cached_key(|(value, spans)| (Reverse(records(spans)), value.clone()));
        if by.top > 0 {
            values.truncate(by.top);
        }
        let counts = values.into_iter().flat_map(|(value, spans)| {
            spans.into_iter().map(move |(from_ns, (records, occurrences))| Count {
                value: value.clone(),
                from_ns,
                records,
                occurrences,
            })
        });
        Ok(counts.collect())
    }
}

impl<J: Journal> Journal for Scan<J> {
    async fn append(&self, taken: Taken) -> Result<Appended, JournalError> {
        self.0.append(taken).await
    }

    async fn read_from(&self, after: Position, limit: usize) -> Result<Vec<Entry>, JournalError> {
        self.0.read_from(after, limit).await
    }

    fn head(&self) -> watch::Receiver<Position> {
        self.0.head()
    }

    async fn cursor(&self, consumer: &str) -> Result<Option<Position>, JournalError> {
        self.0.cursor(consumer).await
    }

    async fn commit(
        &self,
        consumer: &str,
        cursor: Position,
        dead: Vec<DeadLetter>,
    ) -> Result<(), JournalError> {
        self.0.commit(consumer, cursor, dead).await
    }

    async fn cursors(&self) -> Result<Vec<(String, Position)>, JournalError> {
        self.0.cursors().await
    }

    async fn dead_letters(&self, letters: Letters, limit: usize) -> Result<Vec<KeptLetter>, JournalError> {
        self.0.dead_letters(letters, limit).await
    }

    async fn forget_dead_letters(&self, letters: Letters) -> Result<usize, JournalError> {
        self.0.forget_dead_letters(letters).await
    }

    async fn checkpoints(&self) -> Result<Vec<nodetap_wire::Checkpoint>, JournalError> {
        self.0.checkpoints().await
    }
}

#[cfg(test)]
mod tests;
