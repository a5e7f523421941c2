//! A journal in memory that can be searched, held, and told to fail or to forget.

use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use nodetap_aggregator::history::filter::time_ns;
use nodetap_aggregator::history::query::{Count, CountBy, Filter, Found, Mark, Search};
use nodetap_aggregator::history::{History, HistoryError, Page};
use nodetap_aggregator::journal::facets::{Facets, Test};
use nodetap_aggregator::journal::{
    Ahead, Appended, Body, DeadLetter, Entry, Journal, JournalError, KeptLetter, Letters, Position,
    RememberedLedger, Taken,
};
use nodetap_wire::face::Object;
use nodetap_wire::{Checkpoint, Shard};
use tokio::sync::{Semaphore, watch};

#[derive(Clone)]
pub struct Store {
    state: Arc<Mutex<State>>,
    head: watch::Sender<Position>,
    held: watch::Sender<bool>,
    /// Each read of the journal takes one.
    reads: Arc<Semaphore>,
}

struct State {
    entries: Vec<Entry>,
    damaged: RangeInclusive<u64>,
    fails: Option<HistoryError>,
    fails_after: Option<usize>,
    asked: usize,
}

impl Store {
    pub fn new() -> Self {
        let state = State {
            entries: Vec::new(),
            damaged: RangeInclusive::new(1, 0),
            fails: None,
            fails_after: None,
            asked: 0,
        };
        let reads = Arc::new(Semaphore::new(Semaphore::MAX_PERMITS));
        Self {
            state: Arc::new(Mutex::new(state)),
            head: watch::Sender::new(Position(0)),
            held: watch::Sender::new(false),
            reads,
        }
    }

    /// Puts a record at the next position.
    pub fn put(&self, body: Body, object: Option<Object>) -> u64 {
        let mut position = 0;
        self.head.send_modify(|head| {
            head.0 += 1;
            position = head.0;
            let taken_ns = 1_767_225_600_000_000_000;
            let entry = Entry {
                position: *head,
                taken_ns,
                body,
                outline: None,
                object: object.map(Arc::new),
                occurrences: 1,
            };
            self.state().entries.push(entry);
        });
        position
    }

    /// While held, no question is answered.
    pub fn hold(&self, held: bool) {
        self.held.send_replace(held);
    }

    /// No read of the journal is answered from here on, but so many of those that [`let_read`](Self::let_read) lets.
    pub fn hold_reads(&self) {
        self.reads.forget_permits(Semaphore::MAX_PERMITS);
    }

    pub fn let_read(&self, reads: usize) {
        self.reads.add_permits(reads);
    }

    pub fn fail(&self, error: Option<HistoryError>) {
        self.state().fails = error;
    }

    /// Fails the searches after so many.
    pub fn fail_after(&self, searches: usize) {
        self.state().fails_after = Some(searches);
    }

    /// Questions that were begun.
    pub fn asked(&self) -> usize {
        self.state().asked
    }

    /// As retention does.
    pub fn forget_up_to(&self, position: u64) {
        self.state().entries.retain(|entry| entry.position.0 > position);
    }

    /// Has these in the index, and cannot read them any more.
    pub fn damage(&self, positions: RangeInclusive<u64>) {
        self.state().damaged = positions;
    }

    async fn found(&self, filter: &Filter) -> Result<Vec<Found>, HistoryError> {
        self.state().asked += 1;
        self.held.subscribe().wait_for(|held| !held).await.unwrap();
        let state = self.state();
        if let Some(error) = state.fails.clone() {
            return Err(error);
        }
        if state.fails_after.is_some_and(|most| state.asked > most) {
            return Err(HistoryError::Storage("disk I/O error".to_owned()));
        }
        let test = Test::new(filter.clone())?;
        let mut found: Vec<Found> = state
            .entries
            .iter()
            .filter_map(|entry| {
                let face = entry.face("c").unwrap();
                let time_ns = time_ns(entry, &face);
                test.matches(&Facets::of(entry).unwrap()).then(|| Found { time_ns, entry: entry.clone() })
            })
            .collect();
        found.sort_by_key(|one| std::cmp::Reverse((one.time_ns, one.entry.position)));
        Ok(found)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

impl History for Store {
    async fn search(&self, search: Search) -> Result<Page, HistoryError> {
        let mut found = self.found(&search.filter).await?;
        let mark = |one: &Found| Mark { time_ns: one.time_ns, position: one.entry.position };
        found.retain(|one| search.after.is_none_or(|after| mark(one) < after));
        let has_more = found.len() > search.limit;
        found.truncate(search.limit);
        let last = found.last().map(mark);
        let all = found.len();
        let damaged = self.state().damaged.clone();
        found.retain(|one| !damaged.contains(&one.entry.position.0));
        let unreadable = (all - found.len()) as u64;
        Ok(Page { found, last, unreadable, has_more, head: *self.head.borrow() })
    }

    async fn count(&self, filter: Filter, by: CountBy, _: Duration) -> Result<Vec<Count>, HistoryError> {
        let mut counts: Vec<Count> = Vec::new();
        for found in self.found(&filter).await? {
            let face = found.entry.face("c").unwrap();
            let values = by.field.map_or_else(|| vec!["".into()], |field| field.values(&face));
            let step = by.step.map_or(0, |step| step.as_nanos() as i64);
            let from_ns = if step == 0 { 0 } else { found.time_ns.div_euclid(step) * step };
            for value in values {
                let occurrences = found.entry.occurrences;
                match counts.iter_mut().find(|count| count.value == value && count.from_ns == from_ns) {
                    Some(count) => {
                        count.records += 1;
                        count.occurrences += occurrences;
                    }
                    None => {
                        let value = value.into_owned();
                        counts.push(Count { value, from_ns, records: 1, occurrences });
                    }
                }
            }
        }
        counts.sort_by_key(|count| std::cmp::Reverse(count.records));
        if by.top > 0 {
            counts.truncate(by.top);
        }
        Ok(counts)
    }
}

impl Journal for Store {
    async fn append(&self, _: Taken) -> Result<Appended, JournalError> {
        Err(JournalError::Stopped)
    }

    async fn read_from(&self, after: Position, limit: usize) -> Result<Vec<Entry>, JournalError> {
        self.reads.acquire().await.unwrap().forget();
        let state = self.state();
        let is_there = |entry: &&Entry| entry.position > after && !state.damaged.contains(&entry.position.0);
        Ok(state.entries.iter().filter(is_there).take(limit).cloned().collect())
    }

    fn head(&self) -> watch::Receiver<Position> {
        self.head.subscribe()
    }

    async fn cursor(&self, _: &str) -> Result<Option<Position>, JournalError> {
        Err(JournalError::Stopped)
    }

    async fn ahead(&self, _: &str) -> Result<Vec<Ahead>, JournalError> {
        Ok(Vec::new())
    }

    async fn settle(
        &self,
        _: &str,
        _: Position,
        _: Vec<Ahead>,
        _: Vec<DeadLetter>,
    ) -> Result<(), JournalError> {
        Err(JournalError::Stopped)
    }

    async fn cursors(&self) -> Result<Vec<(String, Position)>, JournalError> {
        Err(JournalError::Stopped)
    }

    async fn dead_letters(&self, _: Letters, _: usize) -> Result<Vec<KeptLetter>, JournalError> {
        Err(JournalError::Stopped)
    }

    async fn forget_dead_letters(&self, _: Letters) -> Result<usize, JournalError> {
        Err(JournalError::Stopped)
    }

    async fn note(&self, _: Vec<Checkpoint>, _: Vec<Shard>) -> Result<(), JournalError> {
        Err(JournalError::Stopped)
    }

    async fn checkpoints(&self) -> Result<Vec<Checkpoint>, JournalError> {
        Err(JournalError::Stopped)
    }

    async fn ledger(&self, _: &str) -> Result<RememberedLedger, JournalError> {
        Err(JournalError::Stopped)
    }

    fn remembers(&self, _: &str) -> bool {
        false
    }
}
