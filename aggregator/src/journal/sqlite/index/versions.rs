//! Which states of Events a file holds: each segment's, in the order of their resourceVersions.

use rusqlite::{Connection, params};

use super::stored::unpack;
use crate::journal::sqlite::block::Unpacker;
use crate::journal::sqlite::day::{signed, unsigned};
use crate::journal::sqlite::memory::Version;
use crate::journal::sqlite::varint;
use crate::journal::sqlite::written::malformed;

/// States whose versions lie in one blob.
const BLOB: usize = 512;

/// The versions of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Range {
    /// The segment's first position, and its last.
    pub(in super::super) segment: u64,
    pub(in super::super) last: u64,
    pub(in super::super) min: u64,
    pub(in super::super) max: u64,
}

/// A blob, and the first version in it.
#[derive(Debug)]
pub(in super::super) struct Blob {
    pub(in super::super) first: u64,
    pub(in super::super) raw: Vec<u8>,
}

/// Encodes the versions of a segment.
pub(in super::super) fn encode(mut versions: Vec<Version>) -> Vec<Blob> {
    versions.sort_unstable();
    let mut blobs = Vec::new();
    let mut rest = versions.as_slice();
    while !rest.is_empty() {
        let mut end = BLOB.min(rest.len());
        // States of one version stay together, so that a version is looked for in one blob.
        while end < rest.len() && rest.get(end).map(|next| next.0) == rest.get(end - 1).map(|last| last.0) {
            end += 1;
        }
        let (these, others) = rest.split_at(end);
        let first = these.first().map_or(0, |version| version.0);
        let mut raw = Vec::with_capacity(these.len() * 10 + 20);
        varint::put(&mut raw, first);
        varint::put(&mut raw, others.first().map_or(u64::MAX, |version| version.0));
        let mut before = first;
        for (version, _) in these {
            varint::put(&mut raw, version - before);
            before = *version;
        }
        raw.extend(these.iter().flat_map(|(_, uid)| uid.to_le_bytes()));
        blobs.push(Blob { first, raw });
        rest = others;
    }
    blobs
}

/// Whether a state is in one of the segments of a file. What fails says in which.
pub(in super::super) fn contains(
    connection: &Connection,
    ranges: &[Range],
    version: Version,
) -> Result<bool, (Range, rusqlite::Error)> {
    let mut within = ranges.iter().filter(|range| (range.min..=range.max).contains(&version.0));
    within
        .find_map(|range| match is_in(connection, range, version) {
            Ok(false) => None,
            Ok(true) => Some(Ok(true)),
            Err(error) => Some(Err((*range, error))),
        })
        .unwrap_or(Ok(false))
}

fn is_in(connection: &Connection, range: &Range, version: Version) -> Result<bool, rusqlite::Error> {
    let mut statement = connection.prepare_cached(
        "SELECT first, bytes, versions FROM version WHERE segment = ?1 AND first <= ?2 ORDER BY first DESC LIMIT 1",
    )?;
    let mut unpacker = Unpacker::new().map_err(|_| malformed("versions"))?;
    let found = statement.query_row(params![signed(range.segment), signed(version.0)], |row| {
        let raw = unpack(&mut unpacker, row.get_ref(2)?.as_blob()?, row.get(1)?, "versions")?;
        has(unsigned(row.get(0)?), raw, version).ok_or_else(|| malformed("versions"))
    });
    match found {
        // The first blob begins with the lowest.
        Err(rusqlite::Error::QueryReturnedNoRows) => Err(malformed("versions")),
        found => found,
    }
}

/// Reads every blob of a segment.
pub(in super::super) fn verify(
    connection: &Connection,
    unpacker: &mut Unpacker,
    segment: u64,
) -> Result<(), rusqlite::Error> {
    let mut statement =
        connection.prepare("SELECT first, bytes, versions FROM version WHERE segment = ?1 ORDER BY first")?;
    let mut rows = statement.query([signed(segment)])?;
    while let Some(row) = rows.next()? {
        let first = unsigned(row.get(0)?);
        let raw = unpack(unpacker, row.get_ref(2)?.as_blob()?, row.get(1)?, "versions")?;
        has(first, raw, (first, 0)).ok_or_else(|| malformed("versions"))?;
    }
    Ok(())
}

/// Whether a state is in the blob that begins with `first`. `None`: it is not the blob in which it would be.
fn has(first: u64, mut raw: &[u8], version: Version) -> Option<bool> {
    let (begins, next) = (varint::take(&mut raw)?, varint::take(&mut raw)?);
    if begins != first || version.0 >= next {
        return None;
    }
    // Each has a byte or more for its version and eight for its uid: how many there are follows from where both meet.
    let mut numbers = raw;
    let mut at = first;
    let mut found = Vec::new();
    let mut count = 0;
    while numbers.len() > count * 8 {
        at = at.checked_add(varint::take(&mut numbers)?)?;
        if at == version.0 {
            found.push(count);
        }
        count += 1;
    }
    if numbers.len() != count * 8 {
        return None;
    }
    let uid = |index: usize| numbers.get(index * 8..index * 8 + 8);
    Some(found.into_iter().any(|index| uid(index) == Some(&version.1.to_le_bytes())))
}

/// Whether a state with an opaque resourceVersion is in a file.
pub(in super::super) fn contains_opaque(
    connection: &Connection,
    uid: &str,
    version: &str,
) -> Result<bool, rusqlite::Error> {
    connection
        .prepare_cached("SELECT 1 FROM opaque_version WHERE uid = ?1 AND resource_version = ?2")?
        .exists([uid, version])
}

/// Notes a state with an opaque resourceVersion.
pub(in super::super) fn insert_opaque(
    connection: &Connection,
    uid: &str,
    version: &str,
) -> Result<(), rusqlite::Error> {
    connection
        .prepare_cached("INSERT OR IGNORE INTO opaque_version VALUES (?1, ?2)")?
        .execute([uid, version])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn every_state_is_found_in_its_blob_and_no_other() {
        // Some share a version, over what would be the end of a blob.
        let versions: Vec<_> =
            (0..2_000_u64).map(|n| (100 + n * 7 / 3 - n % 3, n.wrapping_mul(0x9e37_79b9))).collect();
        let blobs = encode(versions.clone());
        assert!(blobs.len() > 2);
        let find = |version: Version| {
            let blob = blobs.iter().rev().find(|blob| blob.first <= version.0)?;
            has(blob.first, &blob.raw, version)
        };
        for version in versions {
            assert_eq!(find(version), Some(true), "{version:?}");
            assert_eq!(find((version.0, version.1 ^ 1)), Some(false), "{version:?}");
        }
        assert_eq!(has(0, &[1, 2], (1, 0)), None);
    }
}
