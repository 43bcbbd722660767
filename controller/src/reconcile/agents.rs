//! What agents say: hellos, reports, and the end of their streams.

use fleetswap_proto::Explained;
use fleetswap_rollout::{Generation, Reported};
use fleetswap_trust::Versions;

use super::{
    Reconciler, rows, unix_ms,
    world::{Entry, World, host_id},
};
use crate::{
    api::{Connected, HostIdentity, Session},
    convert::{self, Answer, Greeting, Said},
    store::{self, Change, EventRow, HostRow, ReportKey, ReportedRow, Seen},
};

/// A hello: everything that it says is durable before the stream counts.
pub(super) async fn connected(
    reconciler: &Reconciler,
    host: HostIdentity,
    greeting: Greeting,
) -> Result<Connected, Explained> {
    let _one_at_a_time = reconciler.writing.lock().await;
    let safe_mode = greeting.safe_mode;
    let (change, said) = greeted(reconciler, &host, greeting)?;
    let Some(row) = change.hosts.first().cloned() else { return Err(name_taken(&host)) };
    reconciler.commit(change).await?;
    let session = Session { host, number: row.session };
    let mut world = reconciler.world();
    let id = row.host_id;
    world.put_host(row, true);
    world.put_safe_mode(id, safe_mode);
    for (row, reported) in said {
        world.put_reported(row, reported);
    }
    let welcome = convert::welcome(world.fleet.epoch);
    // What the stream is sent comes from the plan that has seen this hello.
    let desired = reconciler.links().open(&session, unix_ms());
    drop(world);
    reconciler.wake();
    Ok(Connected { session, welcome, desired })
}

type Reports = Vec<(ReportedRow, Reported)>;

/// The rows of a hello, and what they mean. Notices a store that is behind.
fn greeted(
    reconciler: &Reconciler,
    host: &HostIdentity,
    greeting: Greeting,
) -> Result<(Change, Reports), Explained> {
    let mut world = reconciler.world();
    let is_other = |entry: &Entry| entry.row.name == host.name && entry.row.host_id != host.id;
    if world.hosts.values().any(is_other) {
        return Err(name_taken(host));
    }
    let Greeting { labels, facts, highest, metadata, safe_mode: _, said } = greeting;
    let known = world.hosts.get(&host_id(host.id)).map(|entry| entry.row.clone());
    let now_ms = unix_ms();
    let mut change = Change::default();
    if known.is_none() {
        change.events.push(joined(host, now_ms));
    }
    let row = HostRow {
        host_id: host.id,
        name: host.name.clone(),
        labels,
        facts,
        first_seen_ms: known.as_ref().map_or(now_ms, |row| row.first_seen_ms),
        generation: known.as_ref().map(|row| row.generation).unwrap_or_default(),
        session: known.as_ref().map_or(0, |row| row.session) + 1,
        seen: Seen { generation: rows::generation(highest), metadata },
    };
    if let Some(why) = behind(&row, *reconciler.versions.borrow()) {
        world.fall_behind(why);
    }
    let session = Session { host: host.clone(), number: row.session };
    let forgotten = forgotten(&world, host, &said, highest);
    let reports: Reports =
        said.into_iter().chain(forgotten).map(|said| reported_row(&session, 0, said)).collect();
    change.hosts.push(row);
    change.reported = reports.iter().map(|(row, _)| row.clone()).collect();
    Ok((change, reports))
}

/// A hello names every plugin that the host knows; of the others it has nothing any more.
fn forgotten(world: &World, host: &HostIdentity, said: &[Said], highest: Generation) -> Vec<Said> {
    let rows = world.hosts.get(&host_id(host.id)).into_iter().flat_map(|entry| entry.reported.keys());
    let is_named = |plugin: &str| said.iter().any(|said| said.plugin == plugin);
    rows.filter(|plugin| !is_named(plugin)).map(|plugin| convert::nothing_of(plugin, highest)).collect()
}

/// What a host was told or has seen beyond what this store knows of: then the store is an older copy. It is in the
/// host's row, so a controller that starts again over the same store knows it before the host is back.
pub(super) fn behind(host: &HostRow, published: Versions) -> Option<String> {
    let HostRow { name, generation, seen, .. } = host;
    if seen.generation > *generation {
        return Some(told_more(name, seen.generation, *generation));
    }
    let Versions { root, timestamp, snapshot, targets } = seen.metadata;
    let roles = [
        ("root", root, published.root),
        ("timestamp", timestamp, published.timestamp),
        ("snapshot", snapshot, published.snapshot),
        ("targets", targets, published.targets),
    ];
    let (role, seen, known) = roles.into_iter().find(|(_, seen, known)| seen > known)?;
    Some(format!("host {name} has seen {role} {seen}; this controller has {known}"))
}

fn told_more(name: &str, heard: store::Generation, known: store::Generation) -> String {
    let (heard, known) = (rows::core_generation(heard), rows::core_generation(known));
    format!("host {name} was told generation {heard}; this store knows of {known}")
}

fn joined(host: &HostIdentity, at_ms: u64) -> EventRow {
    let text = format!("{} joined", host.name);
    EventRow { at_ms, kind: "host_joined".to_owned(), subject: host.name.clone(), text }
}

fn name_taken(host: &HostIdentity) -> Explained {
    Explained::new(
        "HOST_NAME_TAKEN",
        format!("another host is called {}", host.name),
        "names are unique over the fleet, and another host id has joined under this one",
        "give this host another `name`; if it lost its state_dir, restore state_dir/host-id from a backup",
    )
}

/// The row of what a host says about a plugin.
fn reported_row(session: &Session, sequence: u64, said: Said) -> (ReportedRow, Reported) {
    let Said { plugin, reported, status } = said;
    let generation = rows::generation(reported.generation);
    let attempt = reported.trial.as_ref().map_or(0, |trial| trial.attempt);
    let key = ReportKey { generation, attempt, session: session.number, sequence };
    let active = reported.active.as_ref().map(|release| release.id.clone());
    (ReportedRow { host_id: session.host.id, plugin, key, active, status }, reported)
}

/// A report: durable when this returns. One of a replaced session, or one that came again, changes nothing.
pub(super) async fn report(
    reconciler: &Reconciler,
    session: &Session,
    answer: Answer,
) -> Result<(), Explained> {
    if !reconciler.links().is_current(session) {
        return Ok(());
    }
    let (row, reported) = {
        let mut world = reconciler.world();
        let told = world.hosts.get(&host_id(session.host.id)).map(|entry| entry.row.generation);
        let (told, heard) = (told.unwrap_or_default(), rows::generation(answer.said.reported.generation));
        if heard > told {
            world.fall_behind(told_more(&session.host.name, heard, told));
        }
        reported_row(session, answer.sequence, answer.said)
    };
    reconciler.store.commit(Change { reported: vec![row.clone()], ..Change::default() }).await?;
    reconciler.world().put_reported(row, reported);
    reconciler.links().heard(session, unix_ms());
    reconciler.wake();
    Ok(())
}

/// The end of a stream. The world stays locked meanwhile, as in [`connected`]: else a stream that opens between the two
/// steps would leave a connected host OFFLINE.
pub(super) fn gone(reconciler: &Reconciler, session: &Session) {
    let mut world = reconciler.world();
    if !reconciler.links().close(session) {
        return;
    }
    if let Some(host) = world.fleet.hosts.get_mut(&host_id(session.host.id)) {
        host.online = false;
    }
    drop(world);
    reconciler.wake();
}
