-- migrate:up
-- What a channel measures may change while its meter stays: a current transformer is exchanged, a pulse weight was programmed wrong from a day on.
-- ref.channels says what holds for the meter's whole life; a row here says otherwise for a stretch of billing days.
CREATE TABLE ref.channel_values (
    meter_id text COLLATE "C" NOT NULL CHECK (meter_id ~ '^[A-Z0-9-]{1,64}$'),
    channel text COLLATE "C" NOT NULL CHECK (channel ~ '^[A-Z0-9-]{1,64}$'),
    valid_from date NOT NULL,
    valid_to date,
    multiplier numeric(18,6) CHECK (multiplier > 0 AND multiplier <= 1000000),
    dials integer CHECK (dials BETWEEN 1 AND 18),
    decimals integer CHECK (decimals BETWEEN 0 AND 6),
    flow text CHECK (flow IN ('import', 'export', 'net', 'other')),
    billed boolean,
    PRIMARY KEY (meter_id, channel, valid_from),
    FOREIGN KEY (meter_id, channel) REFERENCES ref.channels (meter_id, channel) DEFERRABLE INITIALLY DEFERRED,
    CHECK (valid_to IS NULL OR valid_to > valid_from),
    CONSTRAINT one_of_channel_values_at_a_time EXCLUDE USING gist
        (meter_id WITH =, channel WITH =, daterange(valid_from, valid_to) WITH &&) DEFERRABLE INITIALLY DEFERRED
);
COMMENT ON TABLE ref.channel_values IS 'What of a channel is otherwise on a stretch of billing days: an empty value is as channels says. The multiplier is that of the dial, or, for an interval channel, the factor of its intervals, which is 1 on other days.';
COMMENT ON COLUMN ref.channel_values.meter_id IS 'the device, as its head-end names it';
COMMENT ON COLUMN ref.channel_values.channel IS 'channel of the meter';
COMMENT ON COLUMN ref.channel_values.valid_from IS 'first billing day it holds';
COMMENT ON COLUMN ref.channel_values.valid_to IS 'billing day from which it no longer holds; empty while it does';
COMMENT ON COLUMN ref.channel_values.multiplier IS 'factor of the dial, or of the intervals of an interval channel (CT and PT ratio, pulse weight); empty: as channels says';
COMMENT ON COLUMN ref.channel_values.dials IS 'digits before the point; empty: as channels says';
COMMENT ON COLUMN ref.channel_values.decimals IS 'digits after the point; empty: as channels says';
COMMENT ON COLUMN ref.channel_values.flow IS 'direction on these days; empty: as channels says';
COMMENT ON COLUMN ref.channel_values.billed IS 'whether the channel counts for the bill on these days; empty: as channels says';
SELECT ref.keep_history('channel_values');

-- migrate:down
DO $$ BEGIN RAISE EXCEPTION 'migrations go forward only: restore a backup'; END $$;
