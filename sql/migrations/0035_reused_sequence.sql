-- migrate:up
-- A sequence number that one file used for two different values: the file's own fold keeps one of them, so the store would never know.
CREATE TABLE raw.reused_sequence (
    billing_day date NOT NULL,
    meter_id text COLLATE "C" NOT NULL,
    channel text COLLATE "C" NOT NULL,
    sha256 bytea NOT NULL REFERENCES raw.feed_file,
    reads integer NOT NULL CHECK (reads > 0),
    PRIMARY KEY (billing_day, meter_id, channel, sha256)
);
COMMENT ON TABLE raw.reused_sequence IS 'Channel-days of which a file gave one sequence number to different values: what validation reports as a reused sequence.';
COMMENT ON COLUMN raw.reused_sequence.billing_day IS 'The day.';
COMMENT ON COLUMN raw.reused_sequence.meter_id IS 'Meter.';
COMMENT ON COLUMN raw.reused_sequence.channel IS 'Channel.';
COMMENT ON COLUMN raw.reused_sequence.sha256 IS 'The file.';
COMMENT ON COLUMN raw.reused_sequence.reads IS 'Reads that lost to another of their own number.';

-- migrate:down
DROP TABLE raw.reused_sequence;
