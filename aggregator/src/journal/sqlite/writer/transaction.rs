//! One transaction: a group of batches judged, packed and written, with the state that goes with them.

use std::sync::Arc;

use nodetap_wire::event::Outline;
use nodetap_wire::face::Object;
use nodetap_wire::{Record, record};
use rusqlite::Connection;

use super::Append;
use crate::enrich::{Learnt, Pods};
use crate::journal::sqlite::block::{Packer, Stored};
use crate::journal::sqlite::folder::{DayFile, Failure};
use crate::journal::sqlite::index::versions::{self, Range};
use crate::journal::sqlite::lookup::{Earlier, Lookup};
use crate::journal::sqlite::memory::{Memory, Staged, version_number};
use crate::journal::sqlite::recent::Batch;
use crate::journal::sqlite::recurrences::Recurrences;
use crate::journal::sqlite::{deaths, hash, ledgers, log, state};
use crate::journal::{Appended, Body, Entry, LedgerKept, Position};
use crate::merge::{self, Verdict};

/// What became of a group, one for each batch.
pub(super) struct Done {
    pub(super) staged: Staged,
    pub(super) batches: Vec<DoneBatch>,
}

pub(super) struct DoneBatch {
    pub(super) appended: Appended,
    pub(super) entries: Batch,
    /// Places in the batch of those that the journal had already.
    pub(super) duplicates: Vec<usize>,
    /// Of the deaths that happened before what retention has dropped.
    pub(super) forgotten: Vec<usize>,
    /// Facts of pods that another node had announced.
    pub(super) refused: u64,
}

/// A transaction that is open, and what its records are judged by.
pub(super) struct Transaction<'a> {
    pub(super) today: &'a Connection,
    pub(super) file: &'a DayFile,
    pub(super) ranges: &'a [Range],
    pub(super) recurrences: &'a Recurrences,
    pub(super) earlier: &'a [Earlier],
    pub(super) memory: &'a Memory,
    pub(super) now_ns: i64,
}

// === impl Transaction ===

impl Transaction<'_> {
    pub(super) fn write(
        &self,
        group: &[Append],
        pods: &mut Pods,
        packer: &mut Packer,
    ) -> Result<Done, Failure> {
        let at = || Failure::at(&self.file.path);
        packer.clear();
        let records = group.iter().map(|append| append.taken.records.len()).sum();
        let mut staged = Staged::behind(self.memory.head, self.now_ns, records);
        let mut batches = Vec::with_capacity(group.len());
        for append in group {
            let mut batch = DoneBatch {
                appended: Appended::default(),
                entries: Vec::with_capacity(append.taken.records.len()),
                duplicates: Vec::new(),
                forgotten: Vec::new(),
                refused: 0,
            };
            for (index, record) in append.taken.records.iter().enumerate() {
                let outline = append.taken.outlines.get(index).cloned().flatten();
                self.write_record(
                    (record, outline),
                    (index, &append.taken.node),
                    &mut staged,
                    (pods, packer),
                    &mut batch,
                )?;
            }
            for shard in &append.gone {
                staged.forget(shard);
            }
            for checkpoint in &append.taken.checkpoints {
                staged.checkpoint(self.memory, checkpoint);
            }
            let ledger = self.write_ledger(append, &mut staged).map_err(at())?;
            batch.appended = Appended {
                ledger,
                head: Position(staged.head),
                new: batch.entries.len(),
                duplicates: batch.duplicates.len() + batch.forgotten.len(),
            };
            batches.push(batch);
        }
        self.close_block(packer)?;
        for (namespace, version) in &staged.watermarks {
            state::write_watermark(self.today, namespace, version, self.now_ns).map_err(at())?;
        }
        for shard in &staged.gone {
            state::forget_checkpoint(self.today, shard).map_err(at())?;
        }
        for (shard, checkpoint) in &staged.checkpoints {
            state::write_checkpoint(self.today, shard, checkpoint).map_err(at())?;
        }
        Ok(Done { staged, batches })
    }

    fn write_ledger(&self, append: &Append, staged: &mut Staged) -> Result<LedgerKept, rusqlite::Error> {
        let Some(changes) = &append.taken.ledger else { return Ok(LedgerKept::default()) };
        let node = &append.taken.node;
        let base = match staged.ledgers.get(node) {
            Some(staged) => staged.as_ref(),
            None => self.memory.ledgers.get(node),
        };
        let (base, kept) = ledgers::write(self.today, base, node, changes, self.now_ns)?;
        staged.ledgers.insert(node.clone(), base);
        Ok(kept)
    }

    fn write_record(
        &self,
        (record, outline): (&Record, Option<Arc<Outline>>),
        (index, node): (usize, &str),
        staged: &mut Staged,
        (pods, packer): (&mut Pods, &mut Packer),
        batch: &mut DoneBatch,
    ) -> Result<(), Failure> {
        let at = || Failure::at(&self.file.path);
        let position = staged.head + 1;
        let mut known = Lookup {
            path: &self.file.path,
            today: self.today,
            ranges: self.ranges,
            recurrences: self.recurrences,
            earlier: self.earlier,
            memory: self.memory,
            staged,
        };
        let stored = Stored {
            position,
            taken_ns: self.now_ns,
            occurrences: 1,
            is_death: false,
            body: &[],
            facts: None,
        };
        let (occurrences, body, object): (u64, Body, Option<Arc<Object>>) = match &record.kind {
            Some(record::Kind::Event(event)) => {
                pods.explainer.learn(event, outline.as_deref());
                let Verdict::New { occurrences, count } = merge::judge_event(event, &mut known)? else {
                    batch.duplicates.push(index);
                    return Ok(());
                };
                let facts = pods.get(&event.object_uid);
                let json = facts.as_ref().map(|facts| facts.json.as_bytes());
                packer.push(&Stored { occurrences, body: &event.raw, facts: json, ..stored });
                let uid = hash::of(&[&event.uid]);
                match version_number(&event.resource_version) {
                    Some(number) => staged.version((number, uid), position),
                    None => versions::insert_opaque(self.today, &event.uid, &event.resource_version)
                        .map_err(at())?,
                }
                staged.raise(self.memory, &event.namespace, &event.resource_version);
                staged.counts.insert(uid, count);
                (occurrences, Body::Event(event.raw.clone()), facts.map(|facts| facts.object.clone()))
            }
            Some(record::Kind::Death(death)) => {
                match merge::judge_death(death, &mut known)? {
                    Verdict::New { .. } => {}
                    Verdict::Duplicate => {
                        batch.duplicates.push(index);
                        return Ok(());
                    }
                    Verdict::Forgotten => {
                        batch.forgotten.push(index);
                        return Ok(());
                    }
                }
                let death = pods.explainer.explained(death);
                let json = serde_json::to_vec(&death)
                    .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
                    .map_err(at())?;
                packer.push(&Stored { is_death: true, body: &json, ..stored });
                deaths::insert(self.today, position, self.now_ns, &death).map_err(at())?;
                let object = death.object();
                (1, Body::Death(Box::new(death)), Some(Arc::new(object)))
            }
            Some(record::Kind::Pod(facts)) => {
                if pods.learn(facts.clone(), node) == Learnt::Refused {
                    batch.refused += 1;
                }
                return Ok(());
            }
            // A kind that a newer agent knows.
            None => return Ok(()),
        };
        staged.head = position;
        let entry =
            Entry { position: Position(position), taken_ns: self.now_ns, body, outline, object, occurrences };
        batch.entries.push((index, entry));
        if packer.is_full() {
            self.close_block(packer)?;
        }
        Ok(())
    }

    fn close_block(&self, packer: &mut Packer) -> Result<(), Failure> {
        if packer.is_empty() {
            return Ok(());
        }
        let block = packer
            .pack()
            .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
            .and_then(|block| log::insert(self.today, &block));
        block.map_err(Failure::at(&self.file.path))
    }
}
