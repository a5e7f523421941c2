//! Whether what stands in a row is what was written there: SQLite keeps no checksums, and knows nothing of what is in a blob.

use rusqlite::types::Type;

/// What stands in a row is not what was written.
pub(super) fn malformed(what: &str) -> rusqlite::Error {
    // Of no column in particular.
    rusqlite::Error::FromSqlConversionFailure(
        usize::MAX,
        Type::Blob,
        format!("{what}: not what was written").into(),
    )
}

/// Whether it is what stands in a row that is damaged, of what happened when it was asked. Its file can be well.
pub(super) fn is_malformed(error: &rusqlite::Error) -> bool {
    !matches!(error, rusqlite::Error::SqliteFailure(..))
}

/// A bit that is flipped in a number is found by its row's digest alone.
pub(super) fn is_written(digest: i64, expected: i64, what: &str) -> Result<(), rusqlite::Error> {
    if digest == expected { Ok(()) } else { Err(malformed(what)) }
}
