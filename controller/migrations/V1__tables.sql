-- The first schema. Numbers are non-negative; times are unix milliseconds; ids of hosts are UUIDs as text.
CREATE TABLE meta (
    one          INTEGER PRIMARY KEY CHECK (one = 1),
    epoch        INTEGER NOT NULL,
    next_rollout INTEGER NOT NULL,
    elapsed_ms   INTEGER NOT NULL
) STRICT;
INSERT INTO meta (one, epoch, next_rollout, elapsed_ms) VALUES (1, 1, 1, 0);

CREATE TABLE hosts (
    host_id       TEXT PRIMARY KEY,
    name          TEXT NOT NULL UNIQUE,
    labels        TEXT NOT NULL,
    agent_version TEXT NOT NULL,
    platform      TEXT NOT NULL,
    kernel        TEXT NOT NULL,
    glibc         TEXT NOT NULL,
    sandbox       TEXT NOT NULL,
    boot_id       TEXT NOT NULL,
    first_seen_ms INTEGER NOT NULL,
    epoch         INTEGER NOT NULL,
    n             INTEGER NOT NULL,
    session       INTEGER NOT NULL,
    -- What the host's newest hello had seen: its generation, and the versions of the four roles.
    seen_epoch     INTEGER NOT NULL,
    seen_n         INTEGER NOT NULL,
    seen_root      INTEGER NOT NULL,
    seen_timestamp INTEGER NOT NULL,
    seen_snapshot  INTEGER NOT NULL,
    seen_targets   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- What was, or will be, sent to a host about a plugin.
CREATE TABLE host_plugins_desired (
    host_id             TEXT NOT NULL REFERENCES hosts (host_id),
    plugin              TEXT NOT NULL,
    release_id          TEXT,
    rollout             INTEGER,
    attempt             INTEGER NOT NULL,
    rollback            INTEGER NOT NULL,
    epoch               INTEGER NOT NULL,
    n                   INTEGER NOT NULL,
    min_healthy_ms      INTEGER NOT NULL,
    healthy_deadline_ms INTEGER NOT NULL,
    PRIMARY KEY (host_id, plugin)
) STRICT, WITHOUT ROWID;

-- What a host last said about a plugin; only a greater key replaces it.
CREATE TABLE host_plugins_reported (
    host_id  TEXT NOT NULL REFERENCES hosts (host_id),
    plugin   TEXT NOT NULL,
    epoch    INTEGER NOT NULL,
    n        INTEGER NOT NULL,
    attempt  INTEGER NOT NULL,
    session  INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    active   TEXT,
    status   BLOB NOT NULL,
    PRIMARY KEY (host_id, plugin)
) STRICT, WITHOUT ROWID;

CREATE TABLE assignments (
    plugin     TEXT NOT NULL,
    selector   TEXT NOT NULL,
    release_id TEXT,
    history    TEXT NOT NULL,
    version    INTEGER NOT NULL,
    PRIMARY KEY (plugin, selector)
) STRICT, WITHOUT ROWID;

CREATE TABLE rollouts (
    id           INTEGER PRIMARY KEY,
    plugin       TEXT NOT NULL,
    selector     TEXT NOT NULL,
    from_release TEXT,
    to_release   TEXT,
    state        TEXT NOT NULL,
    "trigger"    TEXT NOT NULL,
    actor        TEXT NOT NULL,
    reason       TEXT NOT NULL,
    created_ms   INTEGER NOT NULL,
    ended_ms     INTEGER,
    doc          TEXT NOT NULL,
    version      INTEGER NOT NULL
) STRICT;
CREATE INDEX rollouts_unfinished ON rollouts (id) WHERE ended_ms IS NULL;
CREATE INDEX rollouts_by_plugin ON rollouts (plugin, id);
CREATE INDEX rollouts_by_assignment ON rollouts (plugin, selector, state, id);

CREATE TABLE rollout_hosts (
    rollout INTEGER NOT NULL REFERENCES rollouts (id) ON DELETE CASCADE,
    host_id TEXT NOT NULL,
    state   TEXT NOT NULL,
    doc     TEXT NOT NULL,
    PRIMARY KEY (rollout, host_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE releases (
    seq        INTEGER PRIMARY KEY AUTOINCREMENT,
    release_id TEXT NOT NULL UNIQUE,
    plugin     TEXT NOT NULL,
    version    TEXT NOT NULL,
    revision   INTEGER NOT NULL,
    withdrawn  INTEGER NOT NULL,
    platforms  TEXT NOT NULL,
    manifest   BLOB NOT NULL
) STRICT;
CREATE INDEX releases_by_version ON releases (plugin, version, revision);

CREATE TABLE requests (
    seq         INTEGER PRIMARY KEY AUTOINCREMENT,
    request_id  TEXT NOT NULL UNIQUE,
    fingerprint TEXT NOT NULL,
    response    BLOB NOT NULL
) STRICT;

CREATE TABLE events (
    seq     INTEGER PRIMARY KEY AUTOINCREMENT,
    at_ms   INTEGER NOT NULL,
    kind    TEXT NOT NULL,
    subject TEXT NOT NULL,
    text    TEXT NOT NULL
) STRICT;

-- The format version, which a program reads before it touches anything else.
PRAGMA user_version = 1;
