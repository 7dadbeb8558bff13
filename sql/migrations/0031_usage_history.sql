-- migrate:up
-- Daily usage of the whole city, one row per day: what high/low checks, average daily loads and baselines read in bulk. A month of 100,000
-- service points is 28 rows here and 2.8 million in vee.daily_usage, of which it is a copy made in the same transaction.
CREATE TABLE vee.usage_keys (
    keys_hash bytea PRIMARY KEY CHECK (length(keys_hash) = 32),
    service_point_id text[] NOT NULL,
    flow text[] NOT NULL,
    unit text[] NOT NULL
);
COMMENT ON TABLE vee.usage_keys IS 'Lists of service points, flows and units that days of vee.usage_block share.';
COMMENT ON COLUMN vee.usage_keys.keys_hash IS 'SHA-256 of the list.';
COMMENT ON COLUMN vee.usage_keys.service_point_id IS 'Service points, sorted with flow and unit.';
COMMENT ON COLUMN vee.usage_keys.flow IS 'Flow of each.';
COMMENT ON COLUMN vee.usage_keys.unit IS 'Unit of each.';

CREATE TABLE vee.usage_block (
    billing_day date PRIMARY KEY,
    keys_hash bytea NOT NULL REFERENCES vee.usage_keys,
    quantity_micro bigint[] NOT NULL,
    state smallint[] NOT NULL
);
COMMENT ON TABLE vee.usage_block IS 'vee.daily_usage of one day as arrays in the order of its keys.';
COMMENT ON COLUMN vee.usage_block.billing_day IS 'The day.';
COMMENT ON COLUMN vee.usage_block.keys_hash IS 'Whose usage: vee.usage_keys.';
COMMENT ON COLUMN vee.usage_block.quantity_micro IS 'Usage in millionths of the unit; -9223372036854775808 where nothing is known.';
COMMENT ON COLUMN vee.usage_block.state IS 'Bit 0: wholly actual; bit 1: a forward estimate that waits for its register.';

-- migrate:down
DROP TABLE vee.usage_block;
DROP TABLE vee.usage_keys;
