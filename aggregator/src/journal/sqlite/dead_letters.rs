//! Dead letters: found and forgotten by whose they are, which record they are of, and why.

use rusqlite::{Connection, named_params};

use super::day::{signed, unsigned};
use crate::journal::{DeadLetter, KeptLetter, Letters, Position};

const WHERE: &str = "(:consumer IS NULL OR consumer = :consumer)
    AND (:position IS NULL OR position = :position)
    AND (:reason IS NULL OR instr(reason, :reason) > 0)
    AND (:before IS NULL OR at_ns < :before)
    AND (:after IS NULL OR (consumer, position) > (:after, :after_position))";

/// By consumer and position.
pub(super) fn read(
    connection: &Connection,
    letters: &Letters,
    limit: usize,
) -> Result<Vec<KeptLetter>, rusqlite::Error> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT consumer, position, reason, at_ns FROM dead_letter WHERE {WHERE} ORDER BY consumer, position LIMIT :limit"
    ))?;
    let after = letters.after.as_ref();
    let rows = statement.query_map(
        named_params! {
            ":consumer": letters.consumer,
            ":position": letters.position.map(|position| signed(position.0)),
            ":reason": letters.reason,
            ":before": letters.before_ns,
            ":after": after.map(|after| &after.0),
            ":after_position": after.map(|after| signed(after.1.0)),
            ":limit": i64::try_from(limit).unwrap_or(i64::MAX),
        },
        |row| {
            let letter = DeadLetter { position: Position(unsigned(row.get(1)?)), reason: row.get(2)? };
            Ok(KeptLetter { consumer: row.get(0)?, letter, at_ns: row.get(3)? })
        },
    )?;
    rows.collect()
}

/// How many there were.
pub(super) fn forget(connection: &Connection, letters: &Letters) -> Result<usize, rusqlite::Error> {
    let after = letters.after.as_ref();
    connection.prepare_cached(&format!("DELETE FROM dead_letter WHERE {WHERE}"))?.execute(named_params! {
        ":consumer": letters.consumer,
        ":position": letters.position.map(|position| signed(position.0)),
        ":reason": letters.reason,
        ":before": letters.before_ns,
        ":after": after.map(|after| &after.0),
        ":after_position": after.map(|after| signed(after.1.0)),
    })
}
