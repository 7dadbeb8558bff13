-- migrate:up
-- Files of shards that steps of their own judged lie in a folder shared between machines. Who may write there is not thereby one who may validate: the
-- stage takes a file only where its hash was left here, in the role that validates.
CREATE TABLE vee.judged_shard (
    billing_day date NOT NULL,
    inputs bytea NOT NULL CHECK (length(inputs) = 32),
    file_sha256 bytea NOT NULL CHECK (length(file_sha256) = 32),
    judged_at timestamptz NOT NULL,
    PRIMARY KEY (billing_day, inputs)
);
COMMENT ON TABLE vee.judged_shard IS 'Shards of a billing day that were judged beforehand and wait as files for the stage that writes the day, which takes these rows away.';
COMMENT ON COLUMN vee.judged_shard.billing_day IS 'The day.';
COMMENT ON COLUMN vee.judged_shard.inputs IS 'SHA-256 of what the judgement stands on; the name of the file.';
COMMENT ON COLUMN vee.judged_shard.file_sha256 IS 'SHA-256 of the file: another one is not read.';
COMMENT ON COLUMN vee.judged_shard.judged_at IS 'When it was judged, UTC.';

-- migrate:down
DROP TABLE vee.judged_shard;
