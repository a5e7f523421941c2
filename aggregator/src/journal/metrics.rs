//! What the journal counts of itself.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// The journal's families. Clones share their values.
#[derive(Clone, Debug)]
pub struct JournalMetrics {
    /// Groups of batches made durable.
    pub commits: Counter,
    /// From the first batch of a group to its being durable, in seconds.
    pub commit_duration: Histogram,
    /// Records that were new.
    pub records: Family<KindLabel, Counter>,
    /// Records that were there already.
    pub duplicates: Family<DuplicateLabel, Counter>,
    /// Facts of pods, which are taken and not journalled.
    pub pod_facts: Counter,
    /// Facts of pods that a node sent of which another had announced the pod.
    pub pods_refused: Counter,
    /// Nodes of whose agent's ledger something is remembered.
    pub ledgers: Gauge,
    /// What is remembered of all of them, in bytes.
    pub ledger_bytes: Gauge,
    /// Records that no part of the index has yet.
    pub unindexed: Gauge,
    /// Records of a kind that only a newer agent knows, which were not kept.
    pub unknown: Counter,
    /// Batches that wait to be journalled.
    pub queue: Gauge,
    /// The last durable position.
    pub head: Gauge<u64, AtomicU64>,
    /// All files of the journal, in bytes.
    pub bytes: Gauge,
    /// Files: one a day, or more where a day's grows large.
    pub files: Gauge,
    /// When the oldest record was journalled, in seconds since 1970; 0: there is none.
    pub oldest: Gauge<f64, AtomicU64>,
    /// Files that could not be read and were put aside.
    pub set_aside: Counter,
    /// Records dropped with their files to stay within age and bytes.
    pub dropped: Family<DroppedLabel, Counter>,
    /// Of those, the ones that a consumer had not had yet.
    pub undelivered: Family<ConsumerLabel, Counter>,
    /// Dead letters that nobody can deliver again: retention dropped their records, or they were put aside with what was damaged.
    pub letters_forgotten: Family<ConsumerLabel, Counter>,
    /// Records that were durable and are gone with what was cut off, damaged or taken away, as far as is known.
    pub lost: Counter,
    /// What failed.
    pub errors: Family<ErrorLabel, Counter>,
}

/// Label: which kind of record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct KindLabel {
    /// `event` or `death`.
    pub kind: Kind,
}

/// Label: of which kind, and why it counts as there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct DuplicateLabel {
    /// `event` or `death`.
    pub kind: Kind,
    /// `identity` or `retention`.
    pub reason: Known,
}

/// Why a record counts as there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Known {
    /// It is there.
    Identity,
    /// A death from before what retention has dropped: it was there, as far as anybody can tell.
    Retention,
}

/// Kinds of records that are journalled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A state of an Event.
    Event,
    /// A container's death.
    Death,
}

/// Label: why records were dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct DroppedLabel {
    /// `age`, `bytes` or `full`.
    pub reason: Dropped,
}

/// Why retention dropped a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dropped {
    /// All in it is older than the journal keeps.
    Age,
    /// The journal is larger than it may be.
    Bytes,
    /// The disk was full before the journal was as large as it may be.
    Full,
}

/// Label: who did not get its records. Consumers are the configured sinks.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ConsumerLabel {
    /// Its name.
    pub consumer: String,
    /// `retention`; of dead letters also `damaged`.
    pub reason: &'static str,
}

/// Label: what failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ErrorLabel {
    /// `full`, `corrupt`, `record`, `index`, `segment` or `io`.
    pub reason: Failed,
}

/// Ways in which storage fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Failed {
    /// No room on the disk.
    Full,
    /// A file that is not what was written.
    Corrupt,
    /// A record that cannot be read as one; left out of what is read, each time.
    Record,
    /// The index is too far behind.
    Index,
    /// A part of the index that cannot be read; it is made anew from the records.
    Segment,
    /// Any other failure of the disk or the database.
    Io,
}

macro_rules! label_values {
    ($($label:ty: $($variant:ident = $value:literal),+;)+) => {
        $(impl EncodeLabelValue for $label {
            fn encode(
                &self,
                encoder: &mut prometheus_client::encoding::LabelValueEncoder<'_>,
            ) -> Result<(), std::fmt::Error> {
                EncodeLabelValue::encode(&match self { $(Self::$variant => $value),+ }, encoder)
            }
        })+
    };
}

label_values! {
    Kind: Event = "event", Death = "death";
    Dropped: Age = "age", Bytes = "bytes", Full = "full";
    Failed: Full = "full", Corrupt = "corrupt", Record = "record", Index = "index", Segment = "segment", Io = "io";
    Known: Identity = "identity", Retention = "retention";
}

// === impl JournalMetrics ===

impl JournalMetrics {
    /// Adds the families to a registry.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "nodetap_pod_facts_taken",
            "Facts of pods, which are not journalled",
            self.pod_facts.clone(),
        );
        let registry = registry.sub_registry_with_prefix("nodetap_journal");
        registry.register("commits", "Groups of batches made durable", self.commits.clone());
        registry.register_with_unit(
            "commit_duration",
            "From the first batch of a group to its being durable",
            Unit::Seconds,
            self.commit_duration.clone(),
        );
        registry.register("records", "Records journalled", self.records.clone());
        registry.register("duplicates", "Records that the journal had already", self.duplicates.clone());
        registry.register(
            "unknown_records",
            "Records of a kind that only a newer agent knows, which were not kept",
            self.unknown.clone(),
        );
        registry.register(
            "pod_facts_refused",
            "Facts of pods that a node sent of which another had announced the pod",
            self.pods_refused.clone(),
        );
        registry.register(
            "ledgers",
            "Nodes of whose agent's ledger of deaths something is remembered",
            self.ledgers.clone(),
        );
        registry.register_with_unit(
            "ledgers",
            "What is remembered of all of them",
            Unit::Bytes,
            self.ledger_bytes.clone(),
        );
        registry.register(
            "unindexed_records",
            "Records that no part of the index has yet: a question looks at each of them",
            self.unindexed.clone(),
        );
        registry.register("queue_batches", "Batches that wait to be journalled", self.queue.clone());
        registry.register("head_position", "The last durable position", self.head.clone());
        registry.register_with_unit("disk", "All files of the journal", Unit::Bytes, self.bytes.clone());
        registry.register("files", "Files of the journal", self.files.clone());
        registry.register(
            "oldest_record_timestamp_seconds",
            "When the oldest record was journalled, since 1970; 0 where there is none",
            self.oldest.clone(),
        );
        registry.register(
            "files_set_aside",
            "Files that could not be read and were put aside",
            self.set_aside.clone(),
        );
        registry.register("dropped_records", "Records dropped by retention", self.dropped.clone());
        registry.register(
            "undelivered_records",
            "Records that retention dropped before a consumer had them",
            self.undelivered.clone(),
        );
        registry.register(
            "dead_letters_forgotten",
            "Dead letters that nobody can deliver again: their records are dropped, or they are put aside with damaged cursors",
            self.letters_forgotten.clone(),
        );
        registry.register(
            "lost_records",
            "Records that were durable and are gone with what was cut off, damaged or taken away, as far as is known",
            self.lost.clone(),
        );
        registry.register("errors", "Failures of the disk or the database", self.errors.clone());
    }
}

impl Default for JournalMetrics {
    fn default() -> Self {
        let buckets = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];
        Self {
            commits: Counter::default(),
            commit_duration: Histogram::new(buckets),
            records: Family::default(),
            duplicates: Family::default(),
            pod_facts: Counter::default(),
            pods_refused: Counter::default(),
            ledgers: Gauge::default(),
            ledger_bytes: Gauge::default(),
            unindexed: Gauge::default(),
            unknown: Counter::default(),
            queue: Gauge::default(),
            head: Gauge::default(),
            bytes: Gauge::default(),
            files: Gauge::default(),
            oldest: Gauge::default(),
            set_aside: Counter::default(),
            dropped: Family::default(),
            undelivered: Family::default(),
            letters_forgotten: Family::default(),
            lost: Counter::default(),
            errors: Family::default(),
        }
    }
}

#[cfg(test)]
mod tests;
