//! A journal in memory.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use nodetap_wire::{Checkpoint, Shard};
use tokio::sync::watch;

use crate::journal::{
    Ahead, Appended, Body, DeadLetter, Entry, Journal, JournalError, KeptLetter, Letters, Position,
    RememberedLedger, Taken,
};

#[derive(Clone)]
pub struct Memory(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    head: watch::Sender<Position>,
    commits: watch::Sender<usize>,
    /// The last position that was given to a reader.
    read: watch::Sender<Position>,
}

#[derive(Default)]
struct State {
    entries: Vec<Entry>,
    cursors: HashMap<String, Position>,
    ahead: HashMap<(String, u64), Ahead>,
    dead: Vec<(String, DeadLetter)>,
    failing_commits: usize,
    dropped: u64,
    fails_reads: bool,
}

impl Memory {
    pub fn new() -> Self {
        let head = watch::Sender::new(Position(0));
        let read = watch::Sender::new(Position(0));
        Self(Arc::new(Inner { state: Mutex::default(), head, commits: watch::Sender::new(0), read }))
    }

    /// Takes an event about the pod `pod`; its message is `message`.
    pub fn event(&self, pod: &str, message: &str) -> Position {
        let position = self.0.state.lock().unwrap().entries.len() as u64 + 1;
        let json = serde_json::json!({
            "metadata": {"name": format!("{pod}.{position}"), "namespace": "shop", "uid": format!("u{position}"), "resourceVersion": position.to_string()},
            "involvedObject": {"kind": "Pod", "namespace": "shop", "name": pod, "uid": pod},
            "reason": "Started", "message": message, "type": "Normal", "count": 1,
            "lastTimestamp": "2026-11-21T10:00:00Z",
        });
        self.raw(json.to_string())
    }

    /// Takes bytes for an event's.
    pub fn raw(&self, json: impl Into<Bytes>) -> Position {
        let mut state = self.0.state.lock().unwrap();
        let position = Position(state.entries.len() as u64 + 1);
        let body = Body::Event(json.into());
        state.entries.push(Entry {
            position,
            taken_ns: nodetap_wire::time::now_ns(),
            body,
            outline: None,
            object: None,
            occurrences: 1,
        });
        self.0.head.send_replace(position);
        position
    }

    pub fn fail_commits(&self, times: usize) {
        self.0.state.lock().unwrap().failing_commits = times;
    }

    /// While it does, nothing can be read.
    pub fn fail_reads(&self, fails: bool) {
        self.0.state.lock().unwrap().fails_reads = fails;
    }

    /// Has all that it has journalled earlier by so much.
    pub fn age(&self, ns: i64) {
        self.0.state.lock().unwrap().entries.iter_mut().for_each(|entry| entry.taken_ns -= ns);
    }

    /// Retention: everything up to here is gone.
    pub fn drop_up_to(&self, position: u64) {
        self.0.state.lock().unwrap().dropped = position;
    }

    pub fn cursor_of(&self, sink: &str) -> Option<Position> {
        self.0.state.lock().unwrap().cursors.get(&format!("sink/{sink}")).copied()
    }

    pub fn set_cursor(&self, sink: &str, cursor: u64) {
        self.0.state.lock().unwrap().cursors.insert(format!("sink/{sink}"), Position(cursor));
    }

    pub fn dead(&self, sink: &str) -> Vec<(u64, String)> {
        let state = self.0.state.lock().unwrap();
        let of_sink = state.dead.iter().filter(|(consumer, _)| *consumer == format!("sink/{sink}"));
        of_sink.map(|(_, letter)| (letter.position.0, letter.reason.clone())).collect()
    }

    pub fn commits(&self) -> usize {
        *self.0.commits.borrow()
    }

    /// Waits until a sink's cursor is at `position`.
    pub async fn reached(&self, sink: &str, position: u64) {
        let mut commits = self.0.commits.subscribe();
        commits.wait_for(|_| self.cursor_of(sink) == Some(Position(position))).await.unwrap();
    }

    /// Waits until what is at `position` was read.
    pub async fn was_read(&self, position: Position) {
        self.0.read.subscribe().wait_for(|read| *read >= position).await.unwrap();
    }
}

impl Journal for Memory {
    async fn append(&self, _taken: Taken) -> Result<Appended, JournalError> {
        Err(JournalError::Storage("not for this test".to_owned()))
    }

    async fn read_from(&self, after: Position, limit: usize) -> Result<Vec<Entry>, JournalError> {
        let state = self.0.state.lock().unwrap();
        if state.fails_reads {
            return Err(JournalError::Storage("input/output error".to_owned()));
        }
        let after = after.0.max(state.dropped) as usize;
        let entries: Vec<Entry> = state.entries.iter().skip(after).take(limit).cloned().collect();
        if let Some(last) = entries.last() {
            self.0.read.send_replace(last.position);
        }
        Ok(entries)
    }

    fn head(&self) -> watch::Receiver<Position> {
        self.0.head.subscribe()
    }

    async fn cursor(&self, consumer: &str) -> Result<Option<Position>, JournalError> {
        Ok(self.0.state.lock().unwrap().cursors.get(consumer).copied())
    }

    async fn ahead(&self, consumer: &str) -> Result<Vec<Ahead>, JournalError> {
        let state = self.0.state.lock().unwrap();
        let of_consumer = state.ahead.iter().filter(|((of, _), _)| of == consumer);
        Ok(of_consumer.map(|(_, ahead)| ahead.clone()).collect())
    }

    async fn settle(
        &self,
        consumer: &str,
        cursor: Position,
        ahead: Vec<Ahead>,
        dead: Vec<DeadLetter>,
    ) -> Result<(), JournalError> {
        {
            let mut state = self.0.state.lock().unwrap();
            if state.failing_commits > 0 {
                state.failing_commits -= 1;
                return Err(JournalError::Storage("disk full".to_owned()));
            }
            state.cursors.insert(consumer.to_owned(), cursor);
            state.ahead.extend(ahead.into_iter().map(|ahead| ((consumer.to_owned(), ahead.chunk), ahead)));
            state.ahead.retain(|(of, chunk), _| of != consumer || *chunk >= cursor.0 / Ahead::POSITIONS);
            for letter in dead {
                state.dead.retain(|(other, known)| other != consumer || known.position != letter.position);
                state.dead.push((consumer.to_owned(), letter));
            }
        }
        self.0.commits.send_modify(|commits| *commits += 1);
        Ok(())
    }

    async fn cursors(&self) -> Result<Vec<(String, Position)>, JournalError> {
        Ok(self.0.state.lock().unwrap().cursors.clone().into_iter().collect())
    }

    async fn dead_letters(&self, letters: Letters, limit: usize) -> Result<Vec<KeptLetter>, JournalError> {
        let state = self.0.state.lock().unwrap();
        let mut found: Vec<_> = state.dead.iter().filter(|dead| is_among(&letters, dead)).cloned().collect();
        found.sort_by_key(|(consumer, letter)| (consumer.clone(), letter.position));
        found.truncate(limit);
        Ok(found.into_iter().map(|(consumer, letter)| KeptLetter { consumer, letter, at_ns: 0 }).collect())
    }

    async fn forget_dead_letters(&self, letters: Letters) -> Result<usize, JournalError> {
        let forgotten = {
            let mut state = self.0.state.lock().unwrap();
            let before = state.dead.len();
            state.dead.retain(|dead| !is_among(&letters, dead));
            before - state.dead.len()
        };
        self.0.commits.send_modify(|_| {});
        Ok(forgotten)
    }

    async fn note(&self, _: Vec<Checkpoint>, _: Vec<Shard>) -> Result<(), JournalError> {
        Err(JournalError::Stopped)
    }

    async fn checkpoints(&self) -> Result<Vec<Checkpoint>, JournalError> {
        Ok(Vec::new())
    }

    async fn ledger(&self, _: &str) -> Result<RememberedLedger, JournalError> {
        Err(JournalError::Stopped)
    }

    fn remembers(&self, _: &str) -> bool {
        false
    }
}

fn is_among(letters: &Letters, (consumer, letter): &(String, DeadLetter)) -> bool {
    letters.consumer.as_ref().is_none_or(|wanted| wanted == consumer)
        && letters.position.is_none_or(|wanted| wanted == letter.position)
        && letters.reason.as_ref().is_none_or(|wanted| letter.reason.contains(wanted))
        && letters.after.as_ref().is_none_or(|after| (consumer, letter.position) > (&after.0, after.1))
}
