//! Dead letters: found and forgotten by whose they are, which record they are of, and why. In steps, between which cursors are
//! served: there may be millions.

use rusqlite::{Connection, OptionalExtension, named_params, params};

use super::day::{signed, unsigned};
use crate::journal::{DeadLetter, KeptLetter, Letters, Position};

/// Letters that a step looks at.
pub(super) const STEP: usize = 256;

/// What follows every consumer's name.
const AFTER_ALL: &str = "\u{10FFFF}";

const WHERE: &str = "(consumer, position) > (:after, :after_position)
    AND (consumer, position) <= (:last, :last_position)
    AND (:consumer IS NULL OR consumer = :consumer)
    AND (:position IS NULL OR position = :position)
    AND (:reason IS NULL OR instr(reason, :reason) > 0)
    AND (:before IS NULL OR at_ns < :before)";

/// What a step came to.
#[derive(Debug)]
pub(super) struct Step<T> {
    pub(super) found: T,
    /// After which letter the next step goes on; none: it was the last.
    pub(super) next: Option<(String, Position)>,
}

/// The letters that a step looks at: after the first of these keys, up to the second.
struct Span {
    after: (String, i64),
    last: (String, i64),
    is_last: bool,
}

/// By consumer and position. At most `limit`, which ends a step early.
pub(super) fn read(
    connection: &Connection,
    letters: &Letters,
    limit: usize,
) -> Result<Step<Vec<KeptLetter>>, rusqlite::Error> {
    let span = Span::of(connection, letters)?;
    let mut statement = connection.prepare_cached(&format!(
        "SELECT consumer, position, reason, at_ns FROM dead_letter WHERE {WHERE} ORDER BY consumer, position LIMIT :limit"
    ))?;
    let rows = statement.query_map(
        named_params! {
            ":consumer": letters.consumer,
            ":position": letters.position.map(|position| signed(position.0)),
            ":reason": letters.reason,
            ":before": letters.before_ns,
            ":after": span.after.0,
            ":after_position": span.after.1,
            ":last": span.last.0,
            ":last_position": span.last.1,
            ":limit": i64::try_from(limit).unwrap_or(i64::MAX),
        },
        |row| {
            let letter = DeadLetter { position: Position(unsigned(row.get(1)?)), reason: row.get(2)? };
            Ok(KeptLetter { consumer: row.get(0)?, letter, at_ns: row.get(3)? })
        },
    )?;
    Ok(Step { found: rows.collect::<Result<_, _>>()?, next: span.next() })
}

/// How many there were.
pub(super) fn forget(connection: &Connection, letters: &Letters) -> Result<Step<usize>, rusqlite::Error> {
    let span = Span::of(connection, letters)?;
    let found = connection.prepare_cached(&format!("DELETE FROM dead_letter WHERE {WHERE}"))?.execute(
        named_params! {
            ":consumer": letters.consumer,
            ":position": letters.position.map(|position| signed(position.0)),
            ":reason": letters.reason,
            ":before": letters.before_ns,
            ":after": span.after.0,
            ":after_position": span.after.1,
            ":last": span.last.0,
            ":last_position": span.last.1,
        },
    )?;
    Ok(Step { found, next: span.next() })
}

/// Forgets those of records up to a position: how many of whom. A step's worth; nothing: there are no more.
pub(super) fn forget_up_to(
    connection: &Connection,
    position: u64,
) -> Result<Vec<(String, usize)>, rusqlite::Error> {
    let mut next = connection.prepare_cached("SELECT min(consumer) FROM dead_letter WHERE consumer > ?1")?;
    let mut last = connection.prepare_cached(
        "SELECT position FROM dead_letter WHERE consumer = ?1 AND position <= ?2 ORDER BY position LIMIT 1 OFFSET ?3",
    )?;
    let mut delete =
        connection.prepare_cached("DELETE FROM dead_letter WHERE consumer = ?1 AND position <= ?2")?;
    let (mut forgotten, mut left, mut consumer) = (Vec::new(), STEP, String::new());
    while left > 0
        && let Some(following) = next.query_row([&consumer], |row| row.get::<_, Option<String>>(0))?
    {
        consumer = following;
        let offset = i64::try_from(left - 1).unwrap_or(0);
        let end: Option<i64> =
            last.query_row(params![consumer, signed(position), offset], |row| row.get(0)).optional()?;
        let number = delete.execute(params![consumer, end.unwrap_or(signed(position))])?;
        left = left.saturating_sub(number);
        if number > 0 {
            forgotten.push((consumer.clone(), number));
        }
    }
    Ok(forgotten)
}

/// How many there are of whom.
pub(super) fn count(connection: &Connection) -> Result<Vec<(String, u64)>, rusqlite::Error> {
    let mut statement = connection.prepare("SELECT consumer, count(*) FROM dead_letter GROUP BY consumer")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, unsigned(row.get(1)?))))?;
    rows.collect()
}

// === impl Span ===

impl Span {
    fn of(connection: &Connection, letters: &Letters) -> Result<Self, rusqlite::Error> {
        let key = |(consumer, position): &(String, Position)| (consumer.clone(), signed(position.0));
        let mut after = letters.after.as_ref().map_or_else(|| (String::new(), -1), key);
        if let Some(consumer) = &letters.consumer {
            let position = letters.position.map(|position| signed(position.0));
            after = after.max((consumer.clone(), position.map_or(-1, |position| position - 1)));
            if let Some(position) = position {
                return Ok(Self { after, last: (consumer.clone(), position), is_last: true });
            }
        }
        let last = connection
            .prepare_cached(
                "SELECT consumer, position FROM dead_letter WHERE (consumer, position) > (?1, ?2)
                 ORDER BY consumer, position LIMIT 1 OFFSET ?3",
            )?
            .query_row(params![after.0, after.1, i64::try_from(STEP - 1).unwrap_or(0)], |row| {
                Ok((row.get::<_, String>(0)?, row.get(1)?))
            })
            .optional()?;
        let is_last = match (&last, &letters.consumer) {
            (Some((reached, _)), Some(consumer)) => reached > consumer,
            (Some(_), None) => false,
            (None, _) => true,
        };
        Ok(Self { after, last: last.unwrap_or_else(|| (AFTER_ALL.to_owned(), i64::MAX)), is_last })
    }

    fn next(self) -> Option<(String, Position)> {
        let (consumer, position) = self.last;
        (!self.is_last).then(|| (consumer, Position(unsigned(position))))
    }
}
