//! A journal in memory that can be told to fail.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use nodetap_aggregator::journal::lost::{Losses, Lost};
use nodetap_aggregator::journal::{
    Ahead, Appended, DeadLetter, Entry, Journal, JournalError, KeptLetter, LedgerChanges, LedgerKept,
    Letters, Position, RememberedLedger, Taken,
};
use nodetap_wire::{Checkpoint, LedgerEntry, Record, Shard};
use tokio::sync::watch;

#[derive(Clone)]
pub struct Memory {
    state: Arc<Mutex<State>>,
    head: watch::Sender<Position>,
    held: watch::Sender<bool>,
    stalls: watch::Sender<bool>,
    pub losses: Losses,
}

#[derive(Default)]
struct State {
    taken: Vec<Taken>,
    checkpoints: Vec<Checkpoint>,
    fails: bool,
    begun: usize,
    notes: usize,
    ledgers: BTreeMap<String, Ledger>,
}

#[derive(Default)]
struct Ledger {
    instance: String,
    sequence: u64,
    entries: BTreeMap<String, LedgerEntry>,
}

impl Memory {
    pub fn new() -> Self {
        Self {
            state: Arc::default(),
            head: watch::Sender::new(Position(0)),
            held: watch::Sender::new(false),
            stalls: watch::Sender::new(false),
            losses: Losses::default(),
        }
    }

    /// As it is when it is opened again, less its last records and the checkpoints that came with them.
    pub fn cut(&self, batches: usize) -> Self {
        let cut = Self::new();
        let taken: Vec<_> = self.state().taken.iter().take(batches).cloned().collect();
        for checkpoint in taken.iter().flat_map(|taken| &taken.checkpoints) {
            cut.state().checkpoints.retain(|known| known.shard != checkpoint.shard);
            cut.state().checkpoints.push(checkpoint.clone());
        }
        let records: usize = taken.iter().map(|taken| taken.records.len()).sum();
        cut.state().taken = taken;
        cut.head.send_replace(Position(records as u64));
        cut.losses.found(Position(records as u64), self.losses.total());
        cut
    }

    /// Batches that are durable.
    pub fn batches(&self) -> usize {
        self.state().taken.len()
    }

    pub fn fail(&self, fails: bool) {
        self.state().fails = fails;
    }

    /// While held, what it is given does not become durable.
    pub fn hold(&self, held: bool) {
        self.held.send_replace(held);
    }

    /// While it stalls, what is noted does not become durable.
    pub fn stall(&self, stalls: bool) {
        self.stalls.send_replace(stalls);
    }

    /// How often something was to be noted.
    pub fn notes(&self) -> usize {
        self.state().notes
    }

    /// Batches that it was given.
    pub fn begun(&self) -> usize {
        self.state().begun
    }

    pub fn nodes(&self) -> Vec<String> {
        self.state().taken.iter().map(|taken| taken.node.clone()).collect()
    }

    pub fn records(&self) -> Vec<Record> {
        self.state().taken.iter().flat_map(|taken| taken.records.clone()).collect()
    }

    pub fn stored(&self) -> Vec<Checkpoint> {
        self.state().checkpoints.clone()
    }

    /// Until it has so many records, those that came twice counted twice.
    pub async fn holds(&self, records: u64) {
        self.head.subscribe().wait_for(|head| head.0 >= records).await.unwrap();
    }

    /// As a journal whose file was lost.
    pub fn forget_ledgers(&self) {
        self.state().ledgers.clear();
    }

    /// Uids of the entries of a node's ledger, the node's own among them.
    pub fn ledger_of(&self, node: &str) -> Vec<String> {
        let state = self.state();
        state.ledgers.get(node).map(|ledger| ledger.entries.keys().cloned().collect()).unwrap_or_default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

impl State {
    fn change(&mut self, node: &str, changes: LedgerChanges) -> LedgerKept {
        let LedgerChanges { instance, sequence, first, entries } = changes;
        let known = self.ledgers.get(node).filter(|known| known.instance == instance);
        match known {
            Some(known) if sequence <= known.sequence => return LedgerKept::default(),
            None if !first => return LedgerKept { without_base: true, refused: 0 },
            _ => {}
        }
        let ledger = self.ledgers.entry(node.to_owned()).or_default();
        if first {
            ledger.entries.clear();
        }
        (ledger.instance, ledger.sequence) = (instance, sequence);
        for entry in entries {
            match entry.state.is_empty() {
                true => ledger.entries.remove(&entry.pod_uid),
                false => ledger.entries.insert(entry.pod_uid.clone(), entry),
            };
        }
        if ledger.entries.is_empty() {
            self.ledgers.remove(node);
        }
        LedgerKept::default()
    }
}

impl Journal for Memory {
    async fn append(&self, taken: Taken) -> Result<Appended, JournalError> {
        let new = taken.records.len();
        let mut ledger = LedgerKept::default();
        self.state().begun += 1;
        self.held.subscribe().wait_for(|held| !held).await.unwrap();
        {
            let mut state = self.state();
            if state.fails {
                return Err(JournalError::Storage("no space left on device".to_owned()));
            }
            for checkpoint in &taken.checkpoints {
                state.checkpoints.retain(|known| known.shard != checkpoint.shard);
                state.checkpoints.push(checkpoint.clone());
            }
            if let Some(changes) = &taken.ledger {
                ledger = state.change(&taken.node, changes.clone());
            }
            state.taken.push(taken);
        }
        self.head.send_modify(|head| head.0 += new as u64);
        Ok(Appended { head: *self.head.borrow(), new, duplicates: 0, ledger })
    }

    async fn read_from(&self, _: Position, _: usize) -> Result<Vec<Entry>, JournalError> {
        Err(JournalError::Stopped)
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

    async fn note(&self, given: Vec<Checkpoint>, gone: Vec<Shard>) -> Result<(), JournalError> {
        self.state().notes += 1;
        self.stalls.subscribe().wait_for(|stalls| !stalls).await.unwrap();
        let mut state = self.state();
        if state.fails {
            return Err(JournalError::Storage("no space left on device".to_owned()));
        }
        state.checkpoints.retain(|known| {
            let is_given = given.iter().any(|given| given.shard == known.shard);
            !is_given && known.shard.as_ref().is_none_or(|shard| !gone.contains(shard))
        });
        state.checkpoints.extend(given);
        Ok(())
    }

    async fn checkpoints(&self) -> Result<Vec<Checkpoint>, JournalError> {
        Ok(self.stored())
    }

    fn lost(&self) -> watch::Receiver<Lost> {
        self.losses.subscribe()
    }

    fn promised(&self, last: Position) {
        self.losses.promised(last);
    }

    async fn ledger(&self, node: &str) -> Result<RememberedLedger, JournalError> {
        let state = self.state();
        if state.fails {
            return Err(JournalError::Storage("input/output error".to_owned()));
        }
        let entries = state.ledgers.get(node).map(|ledger| ledger.entries.values().cloned().collect());
        Ok(RememberedLedger { entries: entries.unwrap_or_default(), partial: false })
    }

    fn remembers(&self, node: &str) -> bool {
        self.state().ledgers.contains_key(node)
    }
}
