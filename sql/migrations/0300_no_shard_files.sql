-- migrate:up
-- A day's shards are validated within one process: steps of their own measured slower than days as partitions.
DROP TABLE vee.judged_shard;

-- migrate:down
CREATE TABLE vee.judged_shard (
    billing_day date NOT NULL,
    inputs bytea NOT NULL CHECK (length(inputs) = 32),
    file_sha256 bytea NOT NULL CHECK (length(file_sha256) = 32),
    judged_at timestamptz NOT NULL,
    PRIMARY KEY (billing_day, inputs)
);
