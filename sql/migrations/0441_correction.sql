-- migrate:up
-- Previews of corrections. What is approved is a digest: changes, days, statements and money as they were computed, and the state they stand on.
CREATE TABLE ref.correction (
    digest bytea NOT NULL CHECK (length(digest) = 32),
    source text NOT NULL,
    previewed_at timestamptz NOT NULL,
    state_sha256 bytea NOT NULL CHECK (length(state_sha256) = 32),
    changes jsonb NOT NULL,
    reached jsonb NOT NULL,
    summary jsonb NOT NULL,
    issued_money_changes boolean NOT NULL,
    applied_at timestamptz,
    PRIMARY KEY (digest)
);
COMMENT ON TABLE ref.correction IS 'Previewed corrections of reference data: what each would change, reach and cost, and whether it was made.';
COMMENT ON COLUMN ref.correction.digest IS 'SHA-256 over changes, days, statements, money and state_sha256: what people approve.';
COMMENT ON COLUMN ref.correction.source IS 'The folder it came from.';
COMMENT ON COLUMN ref.correction.previewed_at IS 'When it was computed, UTC.';
COMMENT ON COLUMN ref.correction.state_sha256 IS 'SHA-256 over the stored rows that the figures stand on; the correction is refused where they moved.';
COMMENT ON COLUMN ref.correction.changes IS 'Each changed row: table, old, new.';
COMMENT ON COLUMN ref.correction.reached IS 'Service points by billing day.';
COMMENT ON COLUMN ref.correction.summary IS 'What reference import --dry-run --json prints.';
COMMENT ON COLUMN ref.correction.issued_money_changes IS 'Whether statements that were issued come to something else: two people make it then.';
COMMENT ON COLUMN ref.correction.applied_at IS 'When it was made, UTC; null while it was only previewed.';

-- migrate:down
DROP TABLE ref.correction;
