//! What an agent may say: each record against the node that its certificate names, and against itself.
//!
//! A record that may not be is left out with its reason; the rest of the batch is taken.

use std::sync::Arc;

use nodetap_wire::event::{Event, EventError, Outline};
use nodetap_wire::{
    Checkpoint, ContainerDied, EventSeen, PodFacts, Record, Records, SharedStr, frame, record,
};

use crate::assign::plan::{Holdings, Verdict};
use crate::journal::{LedgerChanges, Taken};

/// Who sent a batch.
#[derive(Clone, Copy, Debug)]
pub struct Sender<'a> {
    /// The node that the certificate names.
    pub node: &'a str,
    /// The node holds or held a watch of events.
    pub has_held: bool,
}

/// Why a record is not taken.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// A death on a node that the certificate does not name.
    #[error(
        "a death on node `{claimed}` from the agent of node `{node}`: an agent speaks for its own node alone"
    )]
    OtherNode {
        /// What the record says.
        claimed: String,
        /// What the certificate says.
        node: String,
    },
    /// An event from an agent that never watched any.
    #[error("an event from the agent of node `{0}`, which was given no watch")]
    NoWatch(String),
    /// No kind, or one of a newer agent.
    #[error("a record of a kind that this aggregator does not know: is the agent newer than it?")]
    UnknownKind,
    /// A field that identifies the record is empty.
    #[error("{kind} without {field}")]
    NoIdentity {
        /// Which record.
        kind: &'static str,
        /// Which field.
        field: &'static str,
    },
    /// Longer than any event.
    #[error("an event of {0} bytes: at most {max} are taken", max = frame::MAX_EVENT_BYTES)]
    TooLong(usize),
    /// Not UTF-8.
    #[error("an event whose JSON is not UTF-8 at byte {0}")]
    NotUtf8(usize),
    /// Not an Event's JSON.
    #[error("an event that cannot be read: {0}")]
    NotEvent(#[from] EventError),
    /// The JSON says otherwise than the fields beside it.
    #[error("an event whose JSON has {field} `{found}`, but `{said}` stands beside it")]
    Contradicts {
        /// Which field.
        field: &'static str,
        /// What stands beside it.
        said: String,
        /// What the JSON has.
        found: String,
    },
}

/// What is left of a batch.
#[derive(Debug, Default)]
pub struct Checked {
    /// For the journal.
    pub taken: Taken,
    /// What was left out.
    pub refused: Vec<Refused>,
    /// Checkpoints left out because their epoch is over.
    pub old_checkpoints: usize,
    /// Checkpoints left out because their sender does not hold the shard.
    pub foreign_checkpoints: usize,
}

/// Longest excerpt of what an agent sent in a message of ours.
const EXCERPT: usize = 80;

/// Checks a batch.
pub fn batch(sender: Sender<'_>, holdings: &Holdings, batch: Records) -> Checked {
    let mut checked = Checked::default();
    sender.node.clone_into(&mut checked.taken.node);
    let mut records = batch.records;
    checked.taken.outlines.reserve_exact(records.len());
    records.retain(|record| match check_record(sender, record) {
        Ok(outline) => {
            checked.taken.outlines.push(outline.map(Arc::new));
            true
        }
        Err(refused) => {
            checked.refused.push(refused);
            false
        }
    });
    checked.taken.records = records;
    if batch.ledger_first || !batch.ledger.is_empty() {
        // It carries no node either: the journal has it under the sender's alone.
        let (first, entries) = (batch.ledger_first, batch.ledger);
        checked.taken.ledger = Some(LedgerChanges { first, entries, ..LedgerChanges::default() });
    }
    for checkpoint in batch.checkpoints {
        match judge(sender, holdings, &checkpoint) {
            Verdict::Accepted => checked.taken.checkpoints.push(checkpoint),
            Verdict::OldEpoch => checked.old_checkpoints += 1,
            Verdict::NotHolder => checked.foreign_checkpoints += 1,
        }
    }
    checked
}

/// Checks one record. Answers with what was read of an event's JSON.
///
/// # Errors
/// Where it may not be taken.
pub fn check_record(sender: Sender<'_>, record: &Record) -> Result<Option<Outline>, Refused> {
    match &record.kind {
        Some(record::Kind::Event(event)) => self::event(sender, event),
        Some(record::Kind::Death(death)) => self::death(sender, death).map(|()| None),
        Some(record::Kind::Pod(facts)) => self::facts(facts).map(|()| None),
        None => Err(Refused::UnknownKind),
    }
}

fn event(sender: Sender<'_>, event: &EventSeen) -> Result<Option<Outline>, Refused> {
    if !sender.has_held {
        return Err(Refused::NoWatch(sender.node.to_owned()));
    }
    identity("an event", [("uid", &event.uid), ("resourceVersion", &event.resource_version)])?;
    if event.raw.len() > frame::MAX_EVENT_BYTES {
        return Err(Refused::TooLong(event.raw.len()));
    }
    let json =
        SharedStr::try_from(event.raw.clone()).map_err(|error| Refused::NotUtf8(error.valid_up_to()))?;
    let parsed = Event::parse(&json)?;
    same("metadata.uid", &event.uid, &parsed.metadata.uid.0)?;
    same("metadata.resourceVersion", &event.resource_version, &parsed.metadata.resource_version.0)?;
    same("metadata.namespace", &event.namespace, &parsed.metadata.namespace.0)?;
    Ok(Outline::of(&parsed, &json))
}

fn death(sender: Sender<'_>, death: &ContainerDied) -> Result<(), Refused> {
    if death.node != sender.node {
        return Err(Refused::OtherNode { claimed: excerpt(&death.node), node: sender.node.to_owned() });
    }
    let fields: [(&'static str, &str); 4] = [
        ("namespace", &death.namespace),
        ("pod", &death.pod),
        ("uid", &death.pod_uid),
        ("container", &death.container),
    ];
    identity("a death", fields)
}

/// They carry no node: what they say reaches only records of the pod uid that they name.
fn facts(facts: &PodFacts) -> Result<(), Refused> {
    identity("facts of a pod", [("uid", &facts.uid)])
}

fn judge(sender: Sender<'_>, holdings: &Holdings, checkpoint: &Checkpoint) -> Verdict {
    if checkpoint.resource_version.is_empty() {
        return Verdict::NotHolder;
    }
    holdings.judge(sender.node, checkpoint)
}

fn identity<const N: usize>(kind: &'static str, fields: [(&'static str, &str); N]) -> Result<(), Refused> {
    match fields.iter().find(|(_, value)| value.is_empty()) {
        Some((field, _)) => Err(Refused::NoIdentity { kind, field }),
        None => Ok(()),
    }
}

fn same(field: &'static str, said: &str, found: &str) -> Result<(), Refused> {
    if said == found {
        return Ok(());
    }
    Err(Refused::Contradicts { field, said: excerpt(said), found: excerpt(found) })
}

fn excerpt(text: &str) -> String {
    text.chars().filter(|character| !character.is_control()).take(EXCERPT).collect()
}

#[cfg(test)]
mod tests;
