-- migrate:up
-- Days that a register read asks to have validated again: a read closes the days since the one before it, which were estimated until then.
CREATE TABLE vee.true_up (
    billing_day date NOT NULL,
    read_day date NOT NULL,
    evidence bytea NOT NULL CHECK (length(evidence) = 32),
    registers integer NOT NULL CHECK (registers > 0),
    requested_at timestamptz NOT NULL,
    done_at timestamptz,
    PRIMARY KEY (billing_day, read_day, evidence)
);
CREATE INDEX true_up_waiting ON vee.true_up (billing_day) WHERE done_at IS NULL;
COMMENT ON TABLE vee.true_up IS 'Requests to validate a day again because a register read of another day changed what it used. The same finding asks once.';
COMMENT ON COLUMN vee.true_up.billing_day IS 'The day to validate again.';
COMMENT ON COLUMN vee.true_up.read_day IS 'The day whose register reads ask for it.';
COMMENT ON COLUMN vee.true_up.evidence IS 'SHA-256 over the registers concerned and what they now say the day used.';
COMMENT ON COLUMN vee.true_up.registers IS 'How many registers say something new of the day.';
COMMENT ON COLUMN vee.true_up.requested_at IS 'When it was found, UTC.';
COMMENT ON COLUMN vee.true_up.done_at IS 'When a validation of the day that had begun after the request was written, UTC; null while it waits.';

-- migrate:down
DROP TABLE vee.true_up;
