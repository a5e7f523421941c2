//! Questions that are answered whole: a page of records, one record, counts.

use std::future::Future;
use std::time::Duration;

use http::StatusCode;
use nodetap_wire::time::format_ns;
use serde::Serialize;

use super::answer::{Answer, Refusal, json, whole};
use super::cursor::{Cursor, Wrong};
use super::parameters::Asked;
use super::{Service, place, rows};
use crate::history::query::{CountBy, Mark, Search};
use crate::history::{History, HistoryError, Page};
use crate::journal::{Journal, JournalError, Position};

/// Rows of a page, unless asked for.
const ROWS: usize = 100;

/// Bytes after which a page ends, whatever its rows.
const MAX_ANSWER: usize = 8 << 20;

/// Values, unless asked for.
const TOP: usize = 10;

/// Spans of time that are counted apart, where no beginning is asked for, and at most.
const STEPS: u32 = 500;
const MAX_STEPS: i128 = 1_000;

/// What a history may take longer than its deadline, which it looks at now and then.
pub(super) const GRACE: Duration = Duration::from_secs(2);

#[derive(Serialize)]
struct Counts {
    /// RFC 3339.
    since: Option<String>,
    until: Option<String>,
    counts: Vec<CountRow>,
}

#[derive(Serialize)]
struct CountRow {
    value: String,
    /// RFC 3339; left out where no step was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    records: u64,
    occurrences: u64,
}

impl<H: History + Journal> Service<H> {
    pub(super) async fn records(&self, mut asked: Asked) -> Result<Answer, Refusal> {
        let after = self.cursor(&mut asked)?;
        let _place = place(&self.queries, "questions", self.limits.queries, 1)?;
        let page = if self.is_asked(&asked) {
            let limit = asked.limit.unwrap_or(ROWS);
            let search =
                Search { filter: asked.filter.clone(), after, limit, deadline: self.limits.deadline };
            self.in_time(self.history.search(search)).await?
        } else {
            Page { head: *self.history.head().borrow(), ..Page::default() }
        };

        let mut body = b"{\"records\":[".to_vec();
        let (mut last, mut has_more, mut is_first) = (page.last, page.has_more, true);
        let mut unreadable = page.unreadable;
        self.metrics.leave_out(page.unreadable, page.last);
        for found in &page.found {
            match rows::of(&found.entry, &self.cluster) {
                Ok(row) => {
                    if !std::mem::take(&mut is_first) {
                        body.push(b',');
                    }
                    body.extend(row);
                }
                Err(error) => {
                    unreadable += 1;
                    self.metrics.leave_out_one(found.entry.position, &error);
                }
            }
            let this = Mark { time_ns: found.time_ns, position: found.entry.position };
            if body.len() >= MAX_ANSWER && last != Some(this) {
                (last, has_more) = (Some(this), true);
                break;
            }
        }
        let cursor = last.filter(|_| has_more).map(|after| {
            let (since_ns, until_ns) = (asked.filter.since_ns, asked.filter.until_ns);
            format!("\"{}\"", Cursor { after, since_ns, until_ns, fingerprint: asked.fingerprint }.encode())
        });
        let cursor = cursor.as_deref().unwrap_or("null");
        let head = page.head.0;
        let rest = format!("],\"cursor\":{cursor},\"head\":{head},\"unreadable\":{unreadable}}}\n");
        body.extend(rest.into_bytes());
        Ok(whole("application/json", body.into()))
    }

    pub(super) async fn record(&self, argument: &str) -> Result<Answer, Refusal> {
        let _place = place(&self.queries, "questions", self.limits.queries, 1)?;
        let Some(position) = argument.parse().ok().filter(|position| *position > 0) else {
            return Err(Refusal::parameter("position", argument, "expected a whole number from 1"));
        };
        let reading = async {
            let read = self.history.read_from(Position(position - 1), 1).await;
            read.map_err(storage)
        };
        let entries = self.in_time(reading).await?;
        let Some(entry) = entries.first().filter(|entry| entry.position == Position(position)) else {
            let message =
                "the journal has no record there: it was never written, or retention has dropped it";
            return Err(Refusal::new(StatusCode::NOT_FOUND, "position", message));
        };
        let row = rows::of(entry, &self.cluster).map_err(|error| {
            self.metrics.leave_out_one(entry.position, &error);
            Refusal::from(HistoryError::Storage(error.to_string()))
        })?;
        Ok(whole("application/json", row.into()))
    }

    pub(super) async fn counts(&self, mut asked: Asked, now_ns: i64) -> Result<Answer, Refusal> {
        if let Some(step) = asked.step {
            let until = asked.filter.until_ns.unwrap_or(now_ns);
            let all = i64::try_from((step * STEPS).as_nanos()).unwrap_or(i64::MAX);
            let since = *asked.filter.since_ns.get_or_insert(until.saturating_sub(all));
            let step_ns = i128::try_from(step.as_nanos()).unwrap_or(i128::MAX);
            let steps = (i128::from(until) - i128::from(since)) / step_ns;
            if steps > MAX_STEPS {
                let value = format!("{}s", step.as_secs());
                let expected = format!(
                    "since and until are {steps} steps apart: expected at most {MAX_STEPS}, by a longer step or a later since"
                );
                return Err(Refusal::parameter("step", &value, &expected));
            }
        }
        let _place = place(&self.queries, "questions", self.limits.queries, 1)?;
        let by = CountBy { field: asked.by, step: asked.step, top: asked.top.unwrap_or(TOP) };
        let counts = match self.is_asked(&asked) {
            true => self.in_time(self.history.count(asked.filter.clone(), by, self.limits.deadline)).await?,
            false => Vec::new(),
        };
        let row = |count: crate::history::query::Count| CountRow {
            value: if asked.by_cluster { self.cluster.to_string() } else { count.value },
            from: asked.step.and_then(|_| format_ns(count.from_ns)),
            records: count.records,
            occurrences: count.occurrences,
        };
        Ok(json(&Counts {
            since: asked.filter.since_ns.and_then(format_ns),
            until: asked.filter.until_ns.and_then(format_ns),
            counts: counts.into_iter().map(row).collect(),
        }))
    }

    /// Where the page begins. The range of time is as the first page had it.
    fn cursor(&self, asked: &mut Asked) -> Result<Option<Mark>, Refusal> {
        let Some(text) = &asked.cursor else { return Ok(None) };
        let cursor = Cursor::decode(text, asked.fingerprint).map_err(|wrong| {
            let expected = match wrong {
                Wrong::Forged => "expected a cursor as an answer has it: leave it out to begin anew",
                Wrong::Other => {
                    "the cursor is of another question: repeat the parameters that it was given for"
                }
            };
            Refusal::parameter("cursor", text, expected)
        })?;
        (asked.filter.since_ns, asked.filter.until_ns) = (cursor.since_ns, cursor.until_ns);
        Ok(Some(cursor.after))
    }

    /// What the history answers within its deadline.
    pub(super) async fn in_time<T>(
        &self,
        answering: impl Future<Output = Result<T, HistoryError>>,
    ) -> Result<T, Refusal> {
        let deadline = self.limits.deadline;
        match tokio::time::timeout(deadline + GRACE, answering).await {
            Ok(answer) => Ok(answer?),
            Err(_) => {
                let ms = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX);
                Err(HistoryError::Deadline(ms).into())
            }
        }
    }
}

pub(super) fn storage(error: JournalError) -> HistoryError {
    HistoryError::Storage(error.to_string())
}
