-- Two new facts (a search for residue, a step struck off the record), one new state of a step, and the steps that were
-- struck off. A CHECK cannot be changed in place: the two tables are made again, row by row as they were.

CREATE TABLE events_2 (
    id          INTEGER PRIMARY KEY,
    run         INTEGER NOT NULL REFERENCES runs (number),
    sequence    INTEGER NOT NULL CHECK (sequence >= 1),
    kind        TEXT NOT NULL CHECK (kind IN (
                    'run-started', 'step-recorded', 'owner-changed', 'direction-set', 'step-intended', 'step-noted',
                    'step-found', 'step-waiting', 'step-applied', 'step-verified', 'step-failed', 'step-skipped',
                    'undo-intended', 'undo-waiting', 'undo-failed', 'step-undone', 'step-kept', 'step-forgotten',
                    'residue-surveyed', 'run-parked', 'run-resumed', 'run-finished')),
    step        TEXT,
    payload     BLOB NOT NULL,
    recorded_at INTEGER NOT NULL,
    hash        BLOB NOT NULL CHECK (length(hash) = 32),
    UNIQUE (run, sequence)
) STRICT;
INSERT INTO events_2 (id, run, sequence, kind, step, payload, recorded_at, hash)
    SELECT id, run, sequence, kind, step, payload, recorded_at, hash FROM events ORDER BY id;
DROP TABLE events;
ALTER TABLE events_2 RENAME TO events;

CREATE TABLE step_states_2 (
    id      INTEGER PRIMARY KEY,
    run     INTEGER NOT NULL REFERENCES runs (number),
    step    TEXT NOT NULL,
    state   TEXT NOT NULL CHECK (state IN (
                'pending', 'intended', 'waiting', 'applied', 'unknown', 'verified', 'failed', 'skipped', 'undoing',
                'undo-waiting', 'undo-unknown', 'undo-failed', 'undone', 'kept', 'forgotten')),
    payload BLOB NOT NULL,
    UNIQUE (run, step)
) STRICT;
INSERT INTO step_states_2 (id, run, step, state, payload)
    SELECT id, run, step, state, payload FROM step_states ORDER BY id;
DROP TABLE step_states;
ALTER TABLE step_states_2 RENAME TO step_states;

-- Struck off by the operator: what is left of it is not held against a rollback.
CREATE TABLE forgotten_steps (
    environment TEXT NOT NULL REFERENCES environments (uid),
    step        TEXT NOT NULL,
    run         INTEGER NOT NULL REFERENCES runs (number),
    PRIMARY KEY (environment, step)
) STRICT, WITHOUT ROWID;
