-- Nothing is written twice any more. An event's place is its key, so there is no second index; the hash of the chain
-- stands under the last event of each append. A step's row names the events that its spec and outputs come from instead
-- of repeating them, and the environment's record names the run whose state of a step it is. All rows as they were: what
-- was written out stays written out.

CREATE TABLE events_3 (
    -- The run's number and the sequence in it.
    id          INTEGER PRIMARY KEY,
    run         INTEGER GENERATED ALWAYS AS (id >> 32) VIRTUAL,
    sequence    INTEGER GENERATED ALWAYS AS (id & 4294967295) VIRTUAL,
    kind        TEXT NOT NULL CHECK (kind IN (
                    'run-started', 'step-recorded', 'owner-changed', 'direction-set', 'step-intended', 'step-noted',
                    'step-found', 'step-waiting', 'step-applied', 'step-verified', 'step-failed', 'step-skipped',
                    'undo-intended', 'undo-waiting', 'undo-failed', 'step-undone', 'step-kept', 'step-forgotten',
                    'residue-surveyed', 'run-parked', 'run-resumed', 'run-finished')),
    step        TEXT,
    payload     BLOB NOT NULL,
    recorded_at INTEGER NOT NULL,
    -- Only under the last event of an append: the chain up to here.
    hash        BLOB CHECK (hash IS NULL OR length(hash) = 32),
    CHECK (id > 4294967296 AND (id & 4294967295) > 0)
) STRICT;
INSERT INTO events_3 (id, kind, step, payload, recorded_at, hash)
    SELECT (run << 32) + sequence, kind, step, payload, recorded_at, hash FROM events ORDER BY run, sequence;
DROP TABLE events;
ALTER TABLE events_3 RENAME TO events;

CREATE TABLE step_states_3 (
    run     INTEGER NOT NULL REFERENCES runs (number),
    step    TEXT NOT NULL,
    state   TEXT NOT NULL CHECK (state IN (
                'pending', 'intended', 'waiting', 'applied', 'unknown', 'verified', 'failed', 'skipped', 'undoing',
                'undo-waiting', 'undo-unknown', 'undo-failed', 'undone', 'kept', 'forgotten')),
    -- Sequences of the events that spec and outputs come from.
    intent  INTEGER CHECK (intent >= 1),
    outcome INTEGER CHECK (outcome >= 1),
    -- What these two do not tell.
    payload BLOB,
    -- Of everything above; rows of earlier versions have their sum in the payload, or none.
    sum     BLOB CHECK (sum IS NULL OR length(sum) = 8),
    PRIMARY KEY (run, step)
) STRICT, WITHOUT ROWID;
INSERT INTO step_states_3 (run, step, state, payload) SELECT run, step, state, payload FROM step_states;
DROP TABLE step_states;
ALTER TABLE step_states_3 RENAME TO step_states;

CREATE TABLE recorded_steps_3 (
    environment TEXT NOT NULL REFERENCES environments (uid),
    step        TEXT NOT NULL,
    run         TEXT NOT NULL,
    -- The record itself, where it is not the state of the step in that run.
    body        BLOB,
    sum         BLOB CHECK (sum IS NULL OR length(sum) = 8),
    PRIMARY KEY (environment, step)
) STRICT, WITHOUT ROWID;
INSERT INTO recorded_steps_3 (environment, step, run, body) SELECT environment, step, run, body FROM recorded_steps;
DROP TABLE recorded_steps;
ALTER TABLE recorded_steps_3 RENAME TO recorded_steps;
