//! Answers questions to the history, on threads and connections of its own: what is indexed by its index, the rest by a look at
//! each record.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap, hash_map};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, oneshot, watch};

use super::block::Unpacker;
use super::folder::{self, DayFile, Failure, Files};
use super::index::count::{self, Counts, TooMany};
use super::index::directory::{Directory, Span};
use super::index::plan::Plan;
use super::index::search::{self, Interrupted, Scratch, Top};
use super::index::stored::{Meta, Stored};
use super::writer::Command;
use super::{log, written};
use crate::history::query::{Count, CountBy, Field, Filter, Found, Mark, Search};
use crate::history::{HistoryError, Page};
use crate::journal::facets::{Facets, Test};
use crate::journal::metrics::{ErrorLabel, Failed, JournalMetrics};
use crate::journal::sqlite::index::term;
use crate::journal::{Entry, Position};

/// Most answers of one page.
const MOST_FOUND: usize = 10_000;

/// A question, and who waits for its answer.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) asked: Asked,
    /// When it is too late.
    pub(super) until: Instant,
    /// The same, as it was given.
    pub(super) deadline: Duration,
    /// Its place among those that wait.
    pub(super) place: OwnedSemaphorePermit,
}

/// What is asked.
#[derive(Debug)]
pub(super) enum Asked {
    Search(Box<Search>, oneshot::Sender<Result<Page, HistoryError>>),
    Count(Box<Filter>, CountBy, oneshot::Sender<Result<Vec<Count>, HistoryError>>),
}

/// One thread's state.
pub(super) struct Asker {
    files: Files,
    directory: Directory,
    /// What has been acknowledged: no answer tells of more, or a tail that goes on from it would be ahead of the journal.
    head: watch::Receiver<Position>,
    metrics: JournalMetrics,
    writer: Sender<Command>,
    /// By the file's generation.
    connections: HashMap<u64, Connection>,
    unpacker: Unpacker,
    scratch: Scratch,
}

/// What the index does not have.
struct Rest {
    /// Of each file, up to where it is indexed.
    covered: HashMap<u64, u64>,
    /// The segments in files.
    stored: Vec<(u64, Meta)>,
    /// Where one cannot be read.
    damaged: Vec<Span>,
}

/// One file's failure, or too late.
enum Missed {
    Late,
    File(Failure),
}

/// Why there is no answer yet.
#[derive(Debug, thiserror::Error)]
enum Unanswered {
    #[error(transparent)]
    Error(#[from] HistoryError),
    #[error("a segment cannot be read, and is not asked again")]
    Again,
}

// === impl Unanswered ===

impl From<TooMany> for Unanswered {
    fn from(TooMany: TooMany) -> Self {
        Self::Error(HistoryError::TooMany)
    }
}

// === impl Asker ===

impl Asker {
    pub(super) fn new(
        files: Files,
        directory: Directory,
        head: watch::Receiver<Position>,
        metrics: JournalMetrics,
        writer: Sender<Command>,
    ) -> std::io::Result<Self> {
        let (unpacker, scratch) = (Unpacker::new()?, Scratch::new());
        let connections = HashMap::new();
        Ok(Self { files, directory, head, metrics, writer, connections, unpacker, scratch })
    }

    /// Serves until the last handle of the journal is gone.
    pub(super) fn run(mut self, questions: &Receiver<Question>) {
        while let Ok(Question { asked, until, deadline, place }) = questions.recv() {
            let late = HistoryError::Deadline(u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX));
            let files = self.files.snapshot();
            self.connections.retain(|generation, _| files.iter().any(|file| file.generation == *generation));
            // Who asked may have gone.
            match asked {
                Asked::Search(search, answer) if !answer.is_closed() => {
                    let found = self.answer(|asker| asker.search(&search, &files, until, &late));
                    drop(place);
                    let _ = answer.send(found);
                }
                Asked::Count(filter, by, answer) if !answer.is_closed() => {
                    let counted = self.answer(|asker| asker.count(&filter, &by, &files, until, &late));
                    drop(place);
                    let _ = answer.send(counted);
                }
                _ => {}
            }
        }
    }

    /// Asks until no segment is in the way: each time there is one fewer.
    fn answer<T>(
        &mut self,
        mut ask: impl FnMut(&mut Self) -> Result<T, Unanswered>,
    ) -> Result<T, HistoryError> {
        loop {
            match ask(self) {
                Ok(answer) => return Ok(answer),
                Err(Unanswered::Error(error)) => return Err(error),
                Err(Unanswered::Again) => {}
            }
        }
    }

    fn search(
        &mut self,
        search: &Search,
        files: &[DayFile],
        until: Instant,
        late: &HistoryError,
    ) -> Result<Page, Unanswered> {
        let Search { filter, after, limit, deadline: _ } = search.clone();
        let limit = limit.min(MOST_FOUND);
        let test = Test::new(filter)?;
        let plan = Plan::new(&test, after, until);
        // One more tells whether more may follow.
        let mut top = Top::new(limit + 1);
        let mut scratch = std::mem::replace(&mut self.scratch, Scratch::new());
        let rest =
            self.in_memory(files, |segment| search::search(segment, &plan, &mut scratch, &mut top), late)?;
        let mut stored = rest.stored.clone();
        stored.sort_unstable_by_key(|(_, meta)| std::cmp::Reverse((meta.max_ns, meta.first)));
        for (generation, meta) in stored {
            if !top.admits(meta.max_ns) {
                break;
            }
            self.in_file(files, generation, meta, late, |segment| {
                search::search(segment, &plan, &mut scratch, &mut top)
            })?;
        }
        self.scratch = scratch;
        let head = self.scan(files, &rest, until, late, |position, facets, _| {
            let mark = Mark { time_ns: facets.time_ns, position: Position(position) };
            if plan.within.has(mark) && test.matches(facets) {
                top.push(mark);
            }
        })?;
        let mut marks = top.into_marks();
        let has_more = marks.len() > limit;
        marks.truncate(limit);
        let (found, unreadable) = self.fetch(&marks, files, until, late)?;
        Ok(Page { found, last: marks.last().copied(), unreadable, has_more, head: Position(head) })
    }

    fn count(
        &mut self,
        filter: &Filter,
        by: &CountBy,
        files: &[DayFile],
        until: Instant,
        late: &HistoryError,
    ) -> Result<Vec<Count>, Unanswered> {
        let test = Test::new(filter.clone())?;
        let plan = Plan::new(&test, None, until);
        let mut counts = Counts::new(by);
        let mut scratch = std::mem::replace(&mut self.scratch, Scratch::new());
        let rest =
            self.in_memory(files, |segment| count::count(segment, &plan, &mut scratch, &mut counts), late)?;
        for (generation, meta) in &rest.stored {
            self.in_file(files, *generation, *meta, late, |segment| {
                count::count(segment, &plan, &mut scratch, &mut counts)
            })?;
            counts.check()?;
        }
        self.scratch = scratch;
        self.scan(files, &rest, until, late, |position, facets, occurrences| {
            let mark = Mark { time_ns: facets.time_ns, position: Position(position) };
            if plan.within.has(mark) && test.matches(facets) {
                for value in values(facets, by.field) {
                    counts.add(&value, facets.time_ns, occurrences);
                }
            }
        })?;
        counts.check()?;
        Ok(counts.into_counts())
    }

    /// Asks the segments in memory. Answers with what else there is. A file that began only now is left to the next question.
    fn in_memory(
        &self,
        files: &[DayFile],
        mut ask: impl FnMut(&mut &super::index::builder::Builder) -> Result<(), Interrupted>,
        late: &HistoryError,
    ) -> Result<Rest, HistoryError> {
        let is_listed = |generation| files.iter().any(|file| file.generation == generation);
        let (asked, sealed, rest) = self.directory.read(|state| {
            let growing = state.growing.as_ref().filter(|growing| is_listed(growing.generation));
            let asked = growing.map_or(Ok(()), |mut growing| ask(&mut growing));
            let rest = Rest {
                covered: state.covered.clone(),
                stored: state.stored.clone(),
                damaged: state.unindexed(),
            };
            (asked, state.sealed.clone(), rest)
        });
        let told = |interrupted| match interrupted {
            Interrupted::Late => late.clone(),
            Interrupted::Failed(error) => HistoryError::Storage(error.to_string()),
        };
        asked.map_err(told)?;
        for sealed in sealed.into_iter().filter(|sealed| is_listed(sealed.generation)) {
            ask(&mut &*sealed).map_err(told)?;
        }
        Ok(rest)
    }

    /// Asks a segment in its file. A file that has gone has none.
    fn in_file(
        &mut self,
        files: &[DayFile],
        generation: u64,
        meta: Meta,
        late: &HistoryError,
        ask: impl FnOnce(&mut Stored<'_>) -> Result<(), Interrupted>,
    ) -> Result<(), Unanswered> {
        let Some(file) = files.iter().find(|file| file.generation == generation) else { return Ok(()) };
        let asked = self.with(file, late, |connection, unpacker| {
            match ask(&mut Stored { connection, unpacker, meta }) {
                Ok(()) => Ok(None),
                Err(Interrupted::Late) => Err(Missed::Late),
                Err(Interrupted::Failed(error)) if written::is_malformed(&error) => Ok(Some(error)),
                Err(Interrupted::Failed(error)) => Err(Missed::File(Failure::new(&file.path, error))),
            }
        })?;
        let Some(error) = asked.flatten() else { return Ok(()) };
        if !file.path.exists() {
            // Cut off for the sake of its room.
            return Ok(());
        }
        tracing::error!(path = %file.path.display(), first = meta.first, last = meta.last, %error, "a part of the index cannot be read, and is made anew");
        self.metrics.errors.get_or_create(&ErrorLabel { reason: Failed::Segment }).inc();
        self.directory.damage(Span { generation, first: meta.first, last: meta.last });
        Err(Unanswered::Again)
    }

    /// Looks at the records that the index does not have, all of them: the writer waits before there are more than
    /// [`MOST_UNINDEXED`](super::index::MOST_UNINDEXED), and a segment that cannot be read is soon there again. Answers with the last
    /// position that is taken into account.
    fn scan(
        &mut self,
        files: &[DayFile],
        rest: &Rest,
        until: Instant,
        late: &HistoryError,
        mut tell: impl FnMut(u64, &Facets<'_>, u64),
    ) -> Result<u64, HistoryError> {
        let mut head = 0;
        let acknowledged = self.head.borrow().0;
        for file in files {
            let Some(covered) = rest.covered.get(&file.generation).copied() else { continue };
            head = head.max(covered);
            for span in rest.damaged.iter().filter(|span| span.generation == file.generation) {
                self.look(file, (span.first.saturating_sub(1), span.last), until, late, &mut tell)?;
            }
            if covered < file.last {
                head = head.max(self.look(file, (covered, acknowledged), until, late, &mut tell)?);
            }
        }
        Ok(head)
    }

    /// Looks at the records after a position, up to another. Answers with the last that there was.
    fn look(
        &mut self,
        file: &DayFile,
        (after, last): (u64, u64),
        until: Instant,
        late: &HistoryError,
        tell: &mut impl FnMut(u64, &Facets<'_>, u64),
    ) -> Result<u64, HistoryError> {
        let reached = self.with(file, late, |connection, unpacker| {
            let mut reached = after;
            let mut is_late = false;
            log::blocks(connection, after, |block, packed| {
                if block.first > last {
                    return false;
                }
                reached = (block.first + block.records - 1).min(last);
                for stored in log::unpack(unpacker, block, packed).iter().flatten() {
                    let Ok(entry) = stored.entry() else { continue };
                    let Ok(facets) = Facets::of(&entry) else { continue };
                    if (after + 1..=last).contains(&stored.position) {
                        tell(stored.position, &facets, stored.occurrences);
                    }
                }
                is_late = Instant::now() >= until;
                !is_late
            })
            .map_err(|error| Missed::File(Failure::new(&file.path, error)))?;
            if is_late { Err(Missed::Late) } else { Ok(reached) }
        })?;
        Ok(reached.unwrap_or(0))
    }

    /// Reads the records of marks, in their order, and counts those that are there and cannot be read. What retention has taken
    /// meanwhile is left out.
    fn fetch(
        &mut self,
        marks: &[Mark],
        files: &[DayFile],
        until: Instant,
        late: &HistoryError,
    ) -> Result<(Vec<Found>, u64), HistoryError> {
        let mut by_position: Vec<_> = marks.iter().map(|mark| mark.position.0).collect();
        by_position.sort_unstable();
        let mut entries: HashMap<u64, Entry> = HashMap::with_capacity(marks.len());
        let mut unreadable = 0;
        let mut wanted = by_position.as_slice();
        for file in files {
            let Some((first, _)) = wanted.split_first() else { break };
            if *first > file.last {
                continue;
            }
            let (these, others) = wanted.split_at(wanted.partition_point(|position| *position <= file.last));
            wanted = others;
            self.with(file, late, |connection, unpacker| {
                let wanted = these.len() as u64;
                let before = entries.len() as u64 + unreadable;
                let mut these = these;
                while let Some((first, _)) = these.split_first() {
                    if Instant::now() >= until {
                        return Err(Missed::Late);
                    }
                    let mut end = *first;
                    log::blocks(connection, first - 1, |block, packed| {
                        let last = block.first + block.records - 1;
                        end = end.max(last);
                        let Ok(records) = log::unpack(unpacker, block, packed) else {
                            unreadable += these.partition_point(|position| *position <= last) as u64;
                            return false;
                        };
                        for stored in records {
                            if these.binary_search(&stored.position).is_err() {
                                continue;
                            }
                            match stored.entry() {
                                Ok(entry) => drop(entries.insert(stored.position, entry)),
                                Err(_) => unreadable += 1,
                            }
                        }
                        false
                    })
                    .map_err(|error| Missed::File(Failure::new(&file.path, error)))?;
                    these = these.split_at(these.partition_point(|position| *position <= end)).1;
                }
                let missing = wanted.saturating_sub(entries.len() as u64 + unreadable - before);
                if missing > 0 {
                    // The index knows them, and SQLite does not find them.
                    let failure = Failure::new(&file.path, log::not_found(*first));
                    if failure.kind() == Failed::Corrupt {
                        return Err(Missed::File(failure));
                    }
                    unreadable += missing;
                }
                Ok(())
            })?;
        }
        let found = marks.iter().filter_map(|mark| {
            Some(Found { time_ns: mark.time_ns, entry: entries.remove(&mark.position.0)? })
        });
        Ok((found.collect(), unreadable))
    }

    /// Asks a file. `None`: it is no longer there.
    fn with<T>(
        &mut self,
        file: &DayFile,
        late: &HistoryError,
        ask: impl FnOnce(&Connection, &mut Unpacker) -> Result<T, Missed>,
    ) -> Result<Option<T>, HistoryError> {
        let asked = match self.connections.entry(file.generation) {
            hash_map::Entry::Occupied(occupied) => ask(occupied.get(), &mut self.unpacker),
            hash_map::Entry::Vacant(vacant) => match folder::open_to_read(&file.path) {
                // Good for once: what the writer adds when it finds room is not seen by it.
                Ok((connection, true)) => {
                    ask(&connection, &mut self.unpacker).map_err(|missed| match missed {
                        Missed::File(failure) => Missed::File(failure.of_as_it_lay()),
                        Missed::Late => Missed::Late,
                    })
                }
                Ok((connection, false)) => ask(vacant.insert(connection), &mut self.unpacker),
                Err(error) => Err(Missed::File(Failure::new(&file.path, error))),
            },
        };
        match asked {
            Ok(answer) => Ok(Some(answer)),
            Err(Missed::Late) => Err(late.clone()),
            Err(Missed::File(failure)) => {
                self.connections.remove(&file.generation);
                if !file.path.exists() {
                    // Retention was faster.
                    return Ok(None);
                }
                self.metrics.errors.get_or_create(&ErrorLabel { reason: failure.kind() }).inc();
                let told = HistoryError::Storage(failure.describe().to_string());
                if failure.kind() == Failed::Corrupt {
                    // The writer puts it aside, and the next question is answered without it.
                    let _ = self.writer.try_send(Command::SetAside(failure));
                }
                Err(told)
            }
        }
    }
}

/// The values by which a record is counted.
fn values<'a>(facets: &'a Facets<'_>, field: Option<Field>) -> Vec<Cow<'a, str>> {
    let value: &str = match field {
        None => "",
        Some(Field::Record) => term::record(facets.record),
        Some(Field::Namespace) => &facets.namespace,
        Some(Field::ObjectKind) => &facets.object_kind,
        Some(Field::Object) => &facets.object,
        Some(Field::Node) => &facets.node,
        Some(Field::Reason) => &facets.reason,
        Some(Field::Type) => &facets.r#type,
        Some(Field::Owner) if !facets.owners.is_empty() => {
            let names: BTreeSet<&str> = facets.owners.iter().map(AsRef::as_ref).collect();
            return names.into_iter().map(Cow::Borrowed).collect();
        }
        Some(Field::Owner) => "",
        Some(Field::Container) => &facets.container,
        Some(Field::ExitCode) => {
            let code = facets.exit_code.map(|code| Cow::Owned(code.to_string()));
            return vec![code.unwrap_or_default()];
        }
    };
    vec![Cow::Borrowed(value)]
}
