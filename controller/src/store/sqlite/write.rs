//! The rows of one change, written inside the writer's transaction.

use rusqlite::{Connection, ErrorCode, Params, params};
use uuid::Uuid;

use super::read::LIVE;
use crate::store::{
    AssignmentRow, Change, DesiredRow, EventRow, HostRow, ReleaseRow, ReportedRow, RequestRow,
    RolloutHostRow, RolloutRow, StoreError, rollout_name,
};

/// Answered requests that are kept; the oldest go first.
const REQUESTS_MAX: i64 = 10_000;

/// Events that are kept; the oldest go first.
const EVENTS_MAX: i64 = 100_000;

/// Rollouts that are kept, with their hosts; the oldest that have ended go first.
const ROLLOUTS_MAX: i64 = 10_000;

/// Writes every row of the change; the caller undoes all of them on an error.
pub(super) fn change(db: &Connection, change: &Change) -> Result<(), StoreError> {
    change.request.iter().try_for_each(|row| request(db, row))?;
    change.elapsed_ms.iter().try_for_each(|ms| elapsed(db, *ms))?;
    change.hosts.iter().try_for_each(|row| host(db, row))?;
    change.desired.iter().try_for_each(|row| desired(db, row))?;
    change.undesired.iter().try_for_each(|(host, plugin)| undesired(db, host, plugin))?;
    change.reported.iter().try_for_each(|row| reported(db, row))?;
    change.releases.iter().try_for_each(|row| release(db, row))?;
    change.assignments.iter().try_for_each(|row| assignment(db, row))?;
    change.rollouts.iter().try_for_each(|row| rollout(db, row))?;
    change.rollout_hosts.iter().try_for_each(|row| rollout_host(db, row))?;
    change.events.iter().try_for_each(|row| event(db, row))
}

fn elapsed(db: &Connection, ms: u64) -> Result<(), StoreError> {
    execute(db, "UPDATE meta SET elapsed_ms = max(elapsed_ms, ?1)", params![int(ms)?]).map(drop)
}

fn host(db: &Connection, row: &HostRow) -> Result<(), StoreError> {
    let labels = json(&row.labels)?;
    let (facts, seen) = (&row.facts, &row.seen);
    let changed = execute(
        db,
        "INSERT INTO hosts (host_id, name, labels, agent_version, platform, kernel, glibc, sandbox, boot_id,
                            first_seen_ms, epoch, n, session, seen_epoch, seen_n, seen_root, seen_timestamp,
                            seen_snapshot, seen_targets)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19)
         ON CONFLICT (host_id) DO UPDATE SET
            name = ?2, labels = ?3, agent_version = ?4, platform = ?5, kernel = ?6, glibc = ?7, sandbox = ?8,
            boot_id = ?9, epoch = ?11, n = ?12, session = ?13, seen_epoch = ?14, seen_n = ?15, seen_root = ?16,
            seen_timestamp = ?17, seen_snapshot = ?18, seen_targets = ?19
         WHERE (?11, ?12) >= (epoch, n) AND ?13 >= session",
        params![
            row.host_id.to_string(),
            row.name,
            labels,
            facts.agent_version,
            facts.platform,
            facts.kernel,
            facts.glibc,
            facts.sandbox,
            facts.boot_id,
            int(row.first_seen_ms)?,
            int(row.generation.epoch)?,
            int(row.generation.n)?,
            int(row.session)?,
            int(seen.generation.epoch)?,
            int(seen.generation.n)?,
            int(seen.metadata.root)?,
            int(seen.metadata.timestamp)?,
            int(seen.metadata.snapshot)?,
            int(seen.metadata.targets)?,
        ],
    )?;
    expect_one(changed, || format!("host {}", row.name))
}

fn desired(db: &Connection, row: &DesiredRow) -> Result<(), StoreError> {
    let changed = execute(
        db,
        "INSERT OR REPLACE INTO host_plugins_desired
            (host_id, plugin, release_id, rollout, attempt, rollback, epoch, n, min_healthy_ms, healthy_deadline_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        params![
            row.host_id.to_string(),
            row.plugin,
            row.release_id,
            row.rollout.map(int).transpose()?,
            row.attempt,
            row.rollback,
            int(row.generation.epoch)?,
            int(row.generation.n)?,
            int(row.min_healthy_ms)?,
            int(row.healthy_deadline_ms)?,
        ],
    )?;
    expect_one(changed, || format!("plugin {} of host {}", row.plugin, row.host_id))
}

fn undesired(db: &Connection, host: &Uuid, plugin: &str) -> Result<(), StoreError> {
    let sql = "DELETE FROM host_plugins_desired WHERE host_id = ?1 AND plugin = ?2";
    execute(db, sql, params![host.to_string(), plugin]).map(drop)
}

fn reported(db: &Connection, row: &ReportedRow) -> Result<(), StoreError> {
    let key = &row.key;
    execute(
        db,
        "INSERT INTO host_plugins_reported (host_id, plugin, epoch, n, attempt, session, sequence, active, status)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
         ON CONFLICT (host_id, plugin) DO UPDATE SET
            epoch = ?3, n = ?4, attempt = ?5, session = ?6, sequence = ?7, active = ?8, status = ?9
         WHERE (?6, ?7, ?3, ?4, ?5) > (session, sequence, epoch, n, attempt)",
        params![
            row.host_id.to_string(),
            row.plugin,
            int(key.generation.epoch)?,
            int(key.generation.n)?,
            key.attempt,
            int(key.session)?,
            int(key.sequence)?,
            row.active,
            row.status,
        ],
    )
    .map(drop)
}

fn assignment(db: &Connection, row: &AssignmentRow) -> Result<(), StoreError> {
    let history = json(&row.history.iter().take(AssignmentRow::HISTORY_MAX).collect::<Vec<_>>())?;
    let version = int(row.version)?;
    let (plugin, selector, release) = (&row.plugin, &row.selector, &row.release_id);
    let changed = if version == 0 {
        execute(
            db,
            "INSERT INTO assignments (plugin, selector, release_id, history, version) VALUES (?1, ?2, ?3, ?4, 1)",
            params![plugin, selector, release, history],
        )?
    } else {
        execute(
            db,
            "UPDATE assignments SET release_id = ?3, history = ?4, version = ?5 + 1
             WHERE plugin = ?1 AND selector = ?2 AND version = ?5",
            params![plugin, selector, release, history, version],
        )?
    };
    expect_one(changed, || format!("assignment {plugin} on {selector}"))
}

fn rollout(db: &Connection, row: &RolloutRow) -> Result<(), StoreError> {
    let (id, version) = (int(row.id)?, int(row.version)?);
    let ended = row.ended_ms.map(int).transpose()?;
    let changed = if version == 0 {
        start_rollout(db, row, id, ended)?
    } else {
        execute(
            db,
            "UPDATE rollouts SET state = ?3, ended_ms = ?4, doc = ?5, version = ?2 + 1
             WHERE id = ?1 AND version = ?2",
            params![id, version, row.state, ended, row.doc],
        )?
    };
    expect_one(changed, || format!("rollout {}", rollout_name(row.id)))
}

fn start_rollout(
    db: &Connection,
    row: &RolloutRow,
    id: i64,
    ended: Option<i64>,
) -> Result<usize, StoreError> {
    // The number is taken from the counter, so that it is never given twice, not even after a row was pruned.
    let counted = "UPDATE meta SET next_rollout = ?1 + 1 WHERE one = 1 AND next_rollout = ?1";
    expect_one(execute(db, counted, params![id])?, || format!("rollout {}", rollout_name(row.id)))?;
    let old = format!("DELETE FROM rollouts WHERE id <= ?1 - ?2 AND id NOT IN ({LIVE})");
    execute(db, &old, params![id, ROLLOUTS_MAX])?;
    execute(
        db,
        "INSERT INTO rollouts (id, plugin, selector, from_release, to_release, state, \"trigger\", actor, reason,
                               created_ms, ended_ms, doc, version)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, 1)",
        params![
            id,
            row.plugin,
            row.selector,
            row.from,
            row.to,
            row.state,
            row.trigger,
            row.actor,
            row.reason,
            int(row.created_ms)?,
            ended,
            row.doc,
        ],
    )
}

fn rollout_host(db: &Connection, row: &RolloutHostRow) -> Result<(), StoreError> {
    execute(
        db,
        "INSERT OR REPLACE INTO rollout_hosts (rollout, host_id, state, doc) VALUES (?1, ?2, ?3, ?4)",
        params![int(row.rollout)?, row.host_id.to_string(), row.state, row.doc],
    )
    .map(drop)
}

fn release(db: &Connection, row: &ReleaseRow) -> Result<(), StoreError> {
    let head = &row.head;
    execute(
        db,
        "INSERT INTO releases (release_id, plugin, version, revision, withdrawn, platforms, manifest)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
         ON CONFLICT (release_id) DO UPDATE SET withdrawn = ?5",
        params![
            head.release_id,
            head.plugin,
            head.version,
            int(head.revision)?,
            head.withdrawn,
            json(&head.platforms)?,
            row.manifest,
        ],
    )
    .map(drop)
}

fn request(db: &Connection, row: &RequestRow) -> Result<(), StoreError> {
    let changed = execute(
        db,
        "INSERT INTO requests (request_id, fingerprint, response) VALUES (?1, ?2, ?3)",
        params![row.request_id, row.fingerprint, row.response],
    )?;
    expect_one(changed, || format!("request {}", row.request_id))?;
    prune(db, "DELETE FROM requests WHERE seq <= (SELECT max(seq) FROM requests) - ?1", REQUESTS_MAX)
}

fn event(db: &Connection, row: &EventRow) -> Result<(), StoreError> {
    execute(
        db,
        "INSERT INTO events (at_ms, kind, subject, text) VALUES (?1, ?2, ?3, ?4)",
        params![int(row.at_ms)?, row.kind, row.subject, row.text],
    )?;
    prune(db, "DELETE FROM events WHERE seq <= (SELECT max(seq) FROM events) - ?1", EVENTS_MAX)
}

fn prune(db: &Connection, sql: &str, keep: i64) -> Result<(), StoreError> {
    execute(db, sql, params![keep]).map(drop)
}

/// Runs one statement; a taken key counts as no row changed.
fn execute(db: &Connection, sql: &str, values: impl Params) -> Result<usize, StoreError> {
    match db.prepare_cached(sql)?.execute(values) {
        Err(rusqlite::Error::SqliteFailure(failure, text))
            if failure.code == ErrorCode::ConstraintViolation =>
        {
            tracing::debug!(text, "a constraint of the store refused a row");
            Ok(0)
        }
        other => Ok(other?),
    }
}

fn expect_one(changed: usize, row: impl FnOnce() -> String) -> Result<(), StoreError> {
    if changed == 1 { Ok(()) } else { Err(StoreError::Conflict { row: row() }) }
}

/// SQLite's integers have a sign.
fn int(value: u64) -> Result<i64, StoreError> {
    i64::try_from(value).map_err(|_| StoreError::Unfit(format!("the number {value} is too great")))
}

fn json(value: &impl serde::Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Unfit(error.to_string()))
}
