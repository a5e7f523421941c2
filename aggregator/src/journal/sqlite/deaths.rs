//! Deaths as rows of their own: how one is known again, and what a person reads with the `sqlite3` shell.

use nodetap_wire::ContainerDied;
use rusqlite::{Connection, params};

use super::day::signed;
use crate::journal::facets::Facets;
use crate::merge::DeathKey;

/// Writes a death's row.
pub(super) fn insert(
    connection: &Connection,
    position: u64,
    taken_ns: i64,
    death: &ContainerDied,
) -> Result<(), rusqlite::Error> {
    let DeathKey { pod_uid, container, container_id, ordinal } = DeathKey::of(death);
    let facets = Facets::of_death(death, taken_ns);
    connection
        .prepare_cached("INSERT INTO death VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)")?
        .execute(params![
            signed(position),
            taken_ns,
            facets.time_ns,
            death.namespace,
            death.pod,
            pod_uid,
            death.node,
            container,
            container_id,
            ordinal,
            death.exit_code,
            facets.reason,
        ])?;
    Ok(())
}

/// Whether a death is in a file.
pub(super) fn contains(connection: &Connection, death: &DeathKey<'_>) -> Result<bool, rusqlite::Error> {
    let DeathKey { pod_uid, container, container_id, ordinal } = death;
    if container_id.is_empty() {
        let mut statement = connection
            .prepare_cached("SELECT 1 FROM death WHERE uid = ?1 AND container = ?2 AND ordinal = ?3")?;
        return statement.exists(params![pod_uid, container, ordinal]);
    }
    let mut statement = connection.prepare_cached(
        "SELECT 1 FROM death WHERE uid = ?1 AND container = ?2
         AND (container_id = ?3 OR (container_id = '' AND ordinal = ?4))",
    )?;
    statement.exists(params![pod_uid, container, container_id, ordinal])
}
