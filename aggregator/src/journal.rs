//! The durable log: everything taken, in the order of its taking; the cursors of those who read it; the watches' checkpoints.
//!
//! The trait is narrow on purpose (append, read from, commit), so that a replicated log can stand in for the embedded one.

pub mod facets;
pub mod gaps;
pub mod had;
pub mod lost;
pub mod metrics;
pub mod sqlite;
pub mod words;

use std::borrow::Cow;
use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use nodetap_wire::event::{Event, EventError, Outline};
use nodetap_wire::face::{Face, Object};
use nodetap_wire::{Checkpoint, ContainerDied, LedgerEntry, Record, Shard};
use tokio::sync::watch;

use self::gaps::Gaps;
use self::lost::Lost;

/// Place of an entry in the journal: grows by one with each, from 1. 0 is before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub u64);

/// What one batch of an agent brings.
#[derive(Clone, Debug, Default)]
pub struct Taken {
    /// The node whose agent sent it.
    pub node: String,
    /// Records in the order in which they were taken.
    pub records: Vec<Record>,
    /// What was read of those that are events, each at its record's place, so that nobody reads them again. There may be fewer.
    pub outlines: Vec<Option<Arc<Outline>>>,
    /// How far the watches have come with them.
    pub checkpoints: Vec<Checkpoint>,
    /// What the agent's ledger knows with them.
    pub ledger: Option<LedgerChanges>,
}

/// What a batch changes of what is remembered of its node's ledger.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LedgerChanges {
    /// Which process of the agent tells it.
    pub instance: String,
    /// Its batch: one that comes again brings nothing that is older than what is remembered.
    pub sequence: u64,
    /// The entries are all that there are; none: nothing is remembered any longer.
    pub first: bool,
    /// One without a state is to be forgotten.
    pub entries: Vec<LedgerEntry>,
}

/// What became of [`LedgerChanges`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LedgerKept {
    /// Nothing was remembered that they change: all is to be told again.
    pub without_base: bool,
    /// Entries that found no room.
    pub refused: usize,
}

/// What is remembered of a node's ledger.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RememberedLedger {
    /// None: nothing is.
    pub entries: Vec<LedgerEntry>,
    /// Some of it found no room.
    pub partial: bool,
}

/// What became of a batch, once it is durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Appended {
    /// The journal's last position after it.
    pub head: Position,
    /// Records that were new.
    pub new: usize,
    /// Records that the journal had already.
    pub duplicates: usize,
    /// What became of the changes of the ledger.
    pub ledger: LedgerKept,
}

/// One record of the journal.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Where it stands.
    pub position: Position,
    /// When it was journalled, in nanoseconds since 1970.
    pub taken_ns: i64,
    /// What it is.
    pub body: Body,
    /// What was read of an Event's JSON when it was taken, where that is still known.
    pub outline: Option<Arc<Outline>>,
    /// What was known of its object when it was journalled; for a death, always known.
    pub object: Option<Arc<Object>>,
    /// How often it happened since the state before.
    pub occurrences: u64,
}

/// The record itself.
#[derive(Clone, Debug)]
pub enum Body {
    /// An Event's JSON, as the API server sent it less `managedFields`. UTF-8 was checked on its way in.
    Event(Bytes),
    /// A container's death. Boxed: it is ten times the size of the other.
    Death(Box<ContainerDied>),
}

/// A record that a sink refused for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Which record.
    pub position: Position,
    /// Why, with what the sink answered.
    pub reason: String,
}

/// What a consumer has had of a row of positions although its cursor stands before them: a bit for each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ahead {
    /// Which row: positions divided by [`Ahead::POSITIONS`].
    pub chunk: u64,
    /// The lowest bit of the first word is the first position.
    pub bits: Box<[u64; Ahead::WORDS]>,
}

/// A dead letter as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptLetter {
    /// Whose cursor passed it.
    pub consumer: String,
    /// Which record, and why.
    pub letter: DeadLetter,
    /// When it was refused, in nanoseconds since 1970.
    pub at_ns: i64,
}

/// Which dead letters; all that holds must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Letters {
    /// This consumer's.
    pub consumer: Option<String>,
    /// Of this record.
    pub position: Option<Position>,
    /// With this in their reason, as it is spelled there.
    pub reason: Option<String>,
    /// Refused before this time, in nanoseconds since 1970.
    pub before_ns: Option<i64>,
    /// Those that follow this one, by consumer and position.
    pub after: Option<(String, Position)>,
}

/// Why the journal could not do it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum JournalError {
    /// The disk, or the database on it.
    #[error("journal: {0}")]
    Storage(String),
    /// Its thread has ended.
    #[error("the journal has stopped")]
    Stopped,
}

/// A durable log with cursors.
pub trait Journal: Clone + Send + Sync + 'static {
    /// Merges and keeps what was taken. Answers once it is durable.
    ///
    /// Appends of one node are kept in the order of their first poll, and one that fails, fails those behind it that began
    /// before the failure was received: what comes later, a checkpoint above all, is never durable without what came before.
    fn append(&self, taken: Taken) -> impl Future<Output = Result<Appended, JournalError>> + Send;

    /// At most `limit` entries after a position, in order. Skips what retention has dropped.
    fn read_from(
        &self,
        after: Position,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<Entry>, JournalError>> + Send;

    /// The last durable position; changes with every commit.
    fn head(&self) -> watch::Receiver<Position>;

    /// How far a consumer has come; `None` for one never seen before.
    fn cursor(&self, consumer: &str) -> impl Future<Output = Result<Option<Position>, JournalError>> + Send;

    /// What a consumer has had beyond its cursor.
    fn ahead(&self, consumer: &str) -> impl Future<Output = Result<Vec<Ahead>, JournalError>> + Send;

    /// Moves a consumer's cursor, keeps what it has had beyond that where it changed, and what it could not deliver: all or nothing.
    fn settle(
        &self,
        consumer: &str,
        cursor: Position,
        ahead: Vec<Ahead>,
        dead: Vec<DeadLetter>,
    ) -> impl Future<Output = Result<(), JournalError>> + Send;

    /// [`settle`](Journal::settle) of a consumer that has had nothing beyond its cursor.
    fn commit(
        &self,
        consumer: &str,
        cursor: Position,
        dead: Vec<DeadLetter>,
    ) -> impl Future<Output = Result<(), JournalError>> + Send {
        self.settle(consumer, cursor, Vec::new(), dead)
    }

    /// All cursors.
    fn cursors(&self) -> impl Future<Output = Result<Vec<(String, Position)>, JournalError>> + Send;

    /// At most `limit` dead letters, by consumer and position.
    fn dead_letters(
        &self,
        letters: Letters,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<KeptLetter>, JournalError>> + Send;

    /// Forgets dead letters; how many there were.
    fn forget_dead_letters(
        &self,
        letters: Letters,
    ) -> impl Future<Output = Result<usize, JournalError>> + Send;

    /// Keeps the epochs that are about to be given, with where each goes on from, and forgets the checkpoints of shards that are no
    /// more. Answers once it is durable, so that no epoch is given twice whenever the aggregator ends.
    fn note(
        &self,
        given: Vec<Checkpoint>,
        gone: Vec<Shard>,
    ) -> impl Future<Output = Result<(), JournalError>> + Send;

    /// The last checkpoint of each shard.
    fn checkpoints(&self) -> impl Future<Output = Result<Vec<Checkpoint>, JournalError>> + Send;

    /// What is known to be lost of what was durable; changes when it is more. A log that is kept elsewhere too loses nothing.
    fn lost(&self) -> watch::Receiver<Lost> {
        watch::channel(Lost::default()).1
    }

    /// Positions that were never given. A log that is kept elsewhere too has none.
    fn gaps(&self) -> Gaps {
        Gaps::default()
    }

    /// Somebody was told, before this journal was opened, that it is durable up to here.
    fn promised(&self, _: Position) {}

    /// What is remembered of the ledger of a node's agent, with everything that was appended before this was first polled.
    fn ledger(&self, node: &str) -> impl Future<Output = Result<RememberedLedger, JournalError>> + Send;

    /// Whether anything is.
    fn remembers(&self, node: &str) -> bool;
}

/// Told of every record by the journal's own thread, once it is durable. Must not block: nothing is journalled meanwhile.
pub trait Observer: Send + 'static {
    /// A record that was new, and the entry that it became.
    fn appended(&mut self, entry: &Entry, record: &Record);

    /// A record that the journal had already.
    fn duplicate(&mut self, record: &Record);
}

// === impl Ahead ===

impl Ahead {
    /// Positions in a row.
    pub const POSITIONS: u64 = 4_096;
    /// Words of their bits.
    pub const WORDS: usize = 64;
}

// === impl Observer ===

impl Observer for () {
    fn appended(&mut self, _: &Entry, _: &Record) {}

    fn duplicate(&mut self, _: &Record) {}
}

// === impl Entry ===

impl Entry {
    /// Its face, for routes and sinks.
    ///
    /// # Errors
    /// Where the journal's bytes are not the Event that was put there.
    pub fn face<'a>(&'a self, cluster: &'a str) -> Result<Face<'a>, EventError> {
        match &self.body {
            Body::Event(json) => {
                Ok(Face::of_event(self.event(json)?, cluster, self.object.as_deref(), self.occurrences))
            }
            Body::Death(death) => {
                static NOTHING: std::sync::LazyLock<Object> = std::sync::LazyLock::new(Object::default);
                Ok(Face::of_death(death, cluster, self.object.as_deref().unwrap_or(&NOTHING)))
            }
        }
    }

    /// The names of its object's owners.
    fn owners(&self) -> Vec<Cow<'_, str>> {
        let owners = self.object.iter().flat_map(|object| &object.owners);
        owners.map(|owner| Cow::Borrowed(owner.name.as_str())).collect()
    }

    /// The Event of its body, which is read only where nobody did before.
    fn event<'a>(&'a self, json: &'a [u8]) -> Result<Event<'a>, EventError> {
        Event::read(json, self.outline.as_deref())
    }
}
