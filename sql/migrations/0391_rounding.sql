-- migrate:up
-- What a declared rounding did to the reads of a file: quantities are kept to a millionth of their unit, and a gas file in 10^-8 therm or a double's
-- residue (3.2269999999999186) has more digits. The sum per channel is kept, so that the file's own total can be told from the stored one.
CREATE TABLE raw.rounding (
    sha256 bytea NOT NULL REFERENCES raw.feed_file,
    meter_id text COLLATE "C" NOT NULL,
    channel text COLLATE "C" NOT NULL,
    difference_micro numeric NOT NULL,
    PRIMARY KEY (sha256, meter_id, channel)
);
COMMENT ON TABLE raw.rounding IS 'What a declared rounding did to the reads of a file, by channel.';
COMMENT ON COLUMN raw.rounding.sha256 IS 'The file.';
COMMENT ON COLUMN raw.rounding.meter_id IS 'Meter.';
COMMENT ON COLUMN raw.rounding.channel IS 'Channel or register.';
COMMENT ON COLUMN raw.rounding.difference_micro IS 'Sum of the stored values less the sum of the file''s own, in millionths of the base unit, to twelve places.';

-- migrate:down
DROP TABLE raw.rounding;
