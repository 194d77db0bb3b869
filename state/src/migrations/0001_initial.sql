-- The first schema. STRICT tables; the CHECKs mirror the engine's enums, so a mistaken writer is refused by the file
-- itself. Hot rows are small: the plan and every payload live beside the row that each append updates, not in it.

CREATE TABLE environments (
    name       TEXT PRIMARY KEY NOT NULL,
    uid        TEXT NOT NULL UNIQUE,
    target     TEXT NOT NULL,
    held_by    TEXT REFERENCES runs (id) DEFERRABLE INITIALLY DEFERRED,
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE runs (
    number         INTEGER PRIMARY KEY,
    id             TEXT NOT NULL UNIQUE,
    workflow       TEXT NOT NULL,
    environment    TEXT NOT NULL REFERENCES environments (name),
    destroy        INTEGER NOT NULL CHECK (destroy IN (0, 1)),
    status         TEXT NOT NULL
                   CHECK (status IN ('running', 'parked', 'rolling-back', 'done', 'rolled-back', 'abandoned')),
    created_at     INTEGER NOT NULL,
    -- The journal's end: sequence and hash of the last event. Written with every append.
    head           INTEGER NOT NULL CHECK (head >= 0),
    head_hash      BLOB NOT NULL CHECK (length(head_hash) = 32),
    -- The lease. `lease_until_ms` is on the boot-time clock of boot `lease_boot`; of another boot it means nothing.
    epoch          INTEGER NOT NULL CHECK (epoch >= 1),
    owner          TEXT,
    owned_since    INTEGER,
    lease_boot     TEXT,
    lease_until_ms INTEGER,
    CHECK ((owner IS NULL) = (owned_since IS NULL)),
    CHECK ((owner IS NULL) = (lease_boot IS NULL)),
    CHECK ((owner IS NULL) = (lease_until_ms IS NULL))
) STRICT;

CREATE INDEX runs_by_environment ON runs (environment, number);

CREATE TABLE plans (
    run    INTEGER PRIMARY KEY REFERENCES runs (number),
    digest TEXT NOT NULL,
    body   BLOB NOT NULL,
    sha256 BLOB NOT NULL CHECK (length(sha256) = 32)
) STRICT;

CREATE TABLE run_states (
    run     INTEGER PRIMARY KEY REFERENCES runs (number),
    payload BLOB NOT NULL
) STRICT;

-- Rowid tables: a payload of kilobytes in a WITHOUT ROWID table costs four times as much.
CREATE TABLE events (
    id          INTEGER PRIMARY KEY,
    run         INTEGER NOT NULL REFERENCES runs (number),
    sequence    INTEGER NOT NULL CHECK (sequence >= 1),
    kind        TEXT NOT NULL CHECK (kind IN (
                    'run-started', 'step-recorded', 'owner-changed', 'direction-set', 'step-intended', 'step-noted',
                    'step-found', 'step-waiting', 'step-applied', 'step-verified', 'step-failed', 'step-skipped',
                    'undo-intended', 'undo-waiting', 'undo-failed', 'step-undone', 'step-kept', 'run-parked',
                    'run-resumed', 'run-finished')),
    step        TEXT,
    payload     BLOB NOT NULL,
    recorded_at INTEGER NOT NULL,
    hash        BLOB NOT NULL CHECK (length(hash) = 32),
    UNIQUE (run, sequence)
) STRICT;

CREATE TABLE step_states (
    id      INTEGER PRIMARY KEY,
    run     INTEGER NOT NULL REFERENCES runs (number),
    step    TEXT NOT NULL,
    state   TEXT NOT NULL CHECK (state IN (
                'pending', 'intended', 'waiting', 'applied', 'unknown', 'verified', 'failed', 'skipped', 'undoing',
                'undo-waiting', 'undo-unknown', 'undo-failed', 'undone', 'kept')),
    payload BLOB NOT NULL,
    UNIQUE (run, step)
) STRICT;

CREATE TABLE recorded_steps (
    id          INTEGER PRIMARY KEY,
    environment TEXT NOT NULL REFERENCES environments (uid),
    step        TEXT NOT NULL,
    kind        TEXT NOT NULL,
    settled     INTEGER NOT NULL CHECK (settled IN (0, 1)),
    run         TEXT NOT NULL,
    body        BLOB NOT NULL,
    UNIQUE (environment, step)
) STRICT;

CREATE TABLE generations (
    environment     TEXT NOT NULL REFERENCES environments (uid),
    step            TEXT NOT NULL,
    next_generation INTEGER NOT NULL CHECK (next_generation >= 0),
    PRIMARY KEY (environment, step)
) STRICT, WITHOUT ROWID;

CREATE TABLE secrets (
    id          INTEGER PRIMARY KEY,
    environment TEXT NOT NULL,
    name        TEXT NOT NULL,
    ciphertext  BLOB NOT NULL,
    created_at  INTEGER NOT NULL,
    UNIQUE (environment, name)
) STRICT;

CREATE TABLE secret_access (
    id          INTEGER PRIMARY KEY,
    environment TEXT NOT NULL,
    name        TEXT NOT NULL,
    who         TEXT NOT NULL,
    at          INTEGER NOT NULL
) STRICT;
