-- The tables of schemas 1 and 2 in the shape of schema 3, for whoever only reads: views of this connection that hide them.

CREATE TEMP VIEW events AS
    SELECT (run << 32) + sequence AS id, run, sequence, kind, step, payload, recorded_at, hash FROM main.events;
CREATE TEMP VIEW step_states AS
    SELECT run, step, state, NULL AS intent, NULL AS outcome, payload, NULL AS sum FROM main.step_states;
CREATE TEMP VIEW recorded_steps AS
    SELECT environment, step, run, body, NULL AS sum FROM main.recorded_steps;
