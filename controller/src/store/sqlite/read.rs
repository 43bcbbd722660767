//! Queries. Each sees one consistent view.

use fleetswap_trust::Versions;
use rusqlite::{Connection, OptionalExtension, Params, Row, params, types::Type};
use uuid::Uuid;

#[cfg(test)]
use crate::store::EventRow;
use crate::store::{
    AssignmentRow, DesiredRow, Generation, HostFacts, HostRow, ReleaseHead, ReleaseRow, ReportKey,
    ReportedRow, RequestRow, RolloutHostRow, RolloutPage, RolloutRow, Seen, Snapshot, StoreError,
};

/// The columns of a rollout, in the order in which [`rollout_row`] reads them.
const ROLLOUT: &str = "id, plugin, selector, from_release, to_release, state, \"trigger\", actor, reason,
    created_ms, ended_ms, doc, version";

/// The ids of the rollouts that a snapshot has: those that go on, and per assignment the newest and the newest that
/// succeeded. No other one may be pruned away either.
pub(super) const LIVE: &str = "SELECT id FROM rollouts WHERE ended_ms IS NULL
    UNION SELECT max(id) FROM rollouts GROUP BY plugin, selector
    UNION SELECT max(id) FROM rollouts WHERE state = 'SUCCEEDED' GROUP BY plugin, selector";

/// The columns of a release without its manifest.
const HEAD: &str = "release_id, plugin, version, revision, withdrawn, platforms";

/// Everything that is live.
pub(super) fn snapshot(db: &Connection) -> Result<Snapshot, StoreError> {
    let view = db.unchecked_transaction()?;
    let meta = |row: &Row<'_>| Ok((int(row, 0)?, int(row, 1)?, int(row, 2)?));
    let (epoch, next_rollout, elapsed_ms) =
        view.query_row("SELECT epoch, next_rollout, elapsed_ms FROM meta", [], meta)?;
    Ok(Snapshot {
        epoch,
        next_rollout,
        elapsed_ms,
        hosts: all(&view, "SELECT * FROM hosts ORDER BY host_id", [], host)?,
        desired: all(&view, "SELECT * FROM host_plugins_desired ORDER BY host_id, plugin", [], desired)?,
        reported: all(&view, "SELECT * FROM host_plugins_reported ORDER BY host_id, plugin", [], reported)?,
        assignments: all(&view, "SELECT * FROM assignments ORDER BY plugin, selector", [], assignment)?,
        rollouts: all(
            &view,
            &format!("SELECT {ROLLOUT} FROM rollouts WHERE id IN ({LIVE}) ORDER BY id"),
            [],
            rollout_row,
        )?,
        rollout_hosts: all(
            &view,
            &format!("SELECT * FROM rollout_hosts WHERE rollout IN ({LIVE}) ORDER BY rollout, host_id"),
            [],
            rollout_host,
        )?,
        releases: all(&view, &format!("SELECT {HEAD} FROM releases ORDER BY release_id"), [], release_head)?,
    })
}

/// One rollout with its hosts.
pub(super) fn rollout(
    db: &Connection,
    id: u64,
) -> Result<Option<(RolloutRow, Vec<RolloutHostRow>)>, StoreError> {
    let view = db.unchecked_transaction()?;
    let Ok(id) = i64::try_from(id) else { return Ok(None) };
    let sql = format!("SELECT {ROLLOUT} FROM rollouts WHERE id = ?1");
    let Some(row) = view.query_row(&sql, [id], rollout_row).optional()? else { return Ok(None) };
    let sql = "SELECT * FROM rollout_hosts WHERE rollout = ?1 ORDER BY host_id";
    Ok(Some((row, all(&view, sql, [id], rollout_host)?)))
}

/// A page of rollouts, newest first.
pub(super) fn rollouts(db: &Connection, page: &RolloutPage) -> Result<Vec<RolloutRow>, StoreError> {
    let before = page.before.and_then(|id| i64::try_from(id).ok()).unwrap_or(i64::MAX);
    let sql = format!(
        "SELECT {ROLLOUT} FROM rollouts WHERE id < ?1 AND (?2 IS NULL OR plugin = ?2) ORDER BY id DESC LIMIT ?3"
    );
    all(db, &sql, params![before, page.plugin, page.limit], rollout_row)
}

/// One release with its manifest.
pub(super) fn release(db: &Connection, release_id: &str) -> Result<Option<ReleaseRow>, StoreError> {
    let sql = format!("SELECT {HEAD}, manifest FROM releases WHERE release_id = ?1");
    Ok(db.query_row(&sql, [release_id], release_row).optional()?)
}

/// Releases of a plugin and version, highest revision first.
pub(super) fn releases_of(
    db: &Connection,
    (plugin, version): (&str, &str),
    limit: u32,
) -> Result<Vec<ReleaseRow>, StoreError> {
    let sql = format!(
        "SELECT {HEAD}, manifest FROM releases WHERE plugin = ?1 AND version = ?2 ORDER BY revision DESC LIMIT ?3"
    );
    all(db, &sql, params![plugin, version, limit], release_row)
}

/// The releases that were stored last, newest first.
pub(super) fn releases(db: &Connection, limit: u32) -> Result<Vec<ReleaseHead>, StoreError> {
    all(db, &format!("SELECT {HEAD} FROM releases ORDER BY seq DESC LIMIT ?1"), [limit], release_head)
}

/// The answer to an earlier request.
pub(super) fn request(db: &Connection, request_id: &str) -> Result<Option<RequestRow>, StoreError> {
    let sql = "SELECT request_id, fingerprint, response FROM requests WHERE request_id = ?1";
    let read = |row: &Row<'_>| {
        Ok(RequestRow { request_id: row.get(0)?, fingerprint: row.get(1)?, response: row.get(2)? })
    };
    Ok(db.query_row(sql, [request_id], read).optional()?)
}

/// The newest events, newest first.
#[cfg(test)]
pub(super) fn events(db: &Connection, limit: u32) -> Result<Vec<EventRow>, StoreError> {
    let sql = "SELECT at_ms, kind, subject, text FROM events ORDER BY seq DESC LIMIT ?1";
    all(db, sql, [limit], |row| {
        Ok(EventRow { at_ms: int(row, 0)?, kind: row.get(1)?, subject: row.get(2)?, text: row.get(3)? })
    })
}

fn all<T>(
    db: &Connection,
    sql: &str,
    values: impl Params,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Vec<T>, StoreError> {
    Ok(db.prepare_cached(sql)?.query_map(values, read)?.collect::<Result<_, _>>()?)
}

fn host(row: &Row<'_>) -> rusqlite::Result<HostRow> {
    Ok(HostRow {
        host_id: uuid(row, "host_id")?,
        name: row.get("name")?,
        labels: json(row, "labels")?,
        facts: HostFacts {
            agent_version: row.get("agent_version")?,
            platform: row.get("platform")?,
            kernel: row.get("kernel")?,
            glibc: row.get("glibc")?,
            sandbox: row.get("sandbox")?,
            boot_id: row.get("boot_id")?,
        },
        first_seen_ms: named(row, "first_seen_ms")?,
        generation: generation(row)?,
        session: named(row, "session")?,
        seen: seen(row)?,
    })
}

fn seen(row: &Row<'_>) -> rusqlite::Result<Seen> {
    Ok(Seen {
        generation: Generation { epoch: named(row, "seen_epoch")?, n: named(row, "seen_n")? },
        metadata: Versions {
            root: named(row, "seen_root")?,
            timestamp: named(row, "seen_timestamp")?,
            snapshot: named(row, "seen_snapshot")?,
            targets: named(row, "seen_targets")?,
        },
    })
}

fn desired(row: &Row<'_>) -> rusqlite::Result<DesiredRow> {
    Ok(DesiredRow {
        host_id: uuid(row, "host_id")?,
        plugin: row.get("plugin")?,
        release_id: row.get("release_id")?,
        rollout: row.get::<_, Option<i64>>("rollout")?.map(|id| positive(id, 3)).transpose()?,
        attempt: row.get("attempt")?,
        rollback: row.get("rollback")?,
        generation: generation(row)?,
        min_healthy_ms: named(row, "min_healthy_ms")?,
        healthy_deadline_ms: named(row, "healthy_deadline_ms")?,
    })
}

fn reported(row: &Row<'_>) -> rusqlite::Result<ReportedRow> {
    Ok(ReportedRow {
        host_id: uuid(row, "host_id")?,
        plugin: row.get("plugin")?,
        key: ReportKey {
            generation: generation(row)?,
            attempt: row.get("attempt")?,
            session: named(row, "session")?,
            sequence: named(row, "sequence")?,
        },
        active: row.get("active")?,
        status: row.get("status")?,
    })
}

fn assignment(row: &Row<'_>) -> rusqlite::Result<AssignmentRow> {
    Ok(AssignmentRow {
        plugin: row.get("plugin")?,
        selector: row.get("selector")?,
        release_id: row.get("release_id")?,
        history: json(row, "history")?,
        version: named(row, "version")?,
    })
}

fn rollout_row(row: &Row<'_>) -> rusqlite::Result<RolloutRow> {
    Ok(RolloutRow {
        id: int(row, 0)?,
        plugin: row.get(1)?,
        selector: row.get(2)?,
        from: row.get(3)?,
        to: row.get(4)?,
        state: row.get(5)?,
        trigger: row.get(6)?,
        actor: row.get(7)?,
        reason: row.get(8)?,
        created_ms: int(row, 9)?,
        ended_ms: row.get::<_, Option<i64>>(10)?.map(|at| positive(at, 10)).transpose()?,
        doc: row.get(11)?,
        version: int(row, 12)?,
    })
}

fn rollout_host(row: &Row<'_>) -> rusqlite::Result<RolloutHostRow> {
    Ok(RolloutHostRow {
        rollout: named(row, "rollout")?,
        host_id: uuid(row, "host_id")?,
        state: row.get("state")?,
        doc: row.get("doc")?,
    })
}

fn release_head(row: &Row<'_>) -> rusqlite::Result<ReleaseHead> {
    Ok(ReleaseHead {
        release_id: row.get(0)?,
        plugin: row.get(1)?,
        version: row.get(2)?,
        revision: int(row, 3)?,
        withdrawn: row.get(4)?,
        platforms: json(row, "platforms")?,
    })
}

fn release_row(row: &Row<'_>) -> rusqlite::Result<ReleaseRow> {
    Ok(ReleaseRow { head: release_head(row)?, manifest: row.get("manifest")? })
}

fn generation(row: &Row<'_>) -> rusqlite::Result<Generation> {
    Ok(Generation { epoch: named(row, "epoch")?, n: named(row, "n")? })
}

fn named(row: &Row<'_>, column: &str) -> rusqlite::Result<u64> {
    int(row, row.as_ref().column_index(column)?)
}

fn int(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    positive(row.get(column)?, column)
}

fn positive(value: i64, column: usize) -> rusqlite::Result<u64> {
    u64::try_from(value).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, value))
}

fn uuid(row: &Row<'_>, column: &str) -> rusqlite::Result<Uuid> {
    let text: String = row.get(column)?;
    Uuid::try_parse(&text).map_err(|error| unreadable(Type::Text, error))
}

fn json<T: serde::de::DeserializeOwned>(row: &Row<'_>, column: &str) -> rusqlite::Result<T> {
    let text: String = row.get(column)?;
    serde_json::from_str(&text).map_err(|error| unreadable(Type::Text, error))
}

fn unreadable(kind: Type, error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, kind, Box::new(error))
}
