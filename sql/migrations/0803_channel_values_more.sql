-- migrate:up
-- Unit and interval length of an interval channel, and the channel that a register must add up to, may change while the meter stays: it is programmed
-- anew. A register's unit is no value of a day: a difference of reads in two units is no usage, so that a removal and an installation stand between them.
ALTER TABLE ref.channel_values ADD COLUMN unit text;
ALTER TABLE ref.channel_values ADD COLUMN interval_minutes integer CHECK (interval_minutes BETWEEN 1 AND 1440);
ALTER TABLE ref.channel_values ADD COLUMN sums_to text COLLATE "C" CHECK (sums_to ~ '^[A-Z0-9-]{1,64}$');
COMMENT ON COLUMN ref.channel_values.unit IS 'unit of an interval channel on these days; empty: as channels says';
COMMENT ON COLUMN ref.channel_values.interval_minutes IS 'length of its intervals on these days; empty: as channels says';
COMMENT ON COLUMN ref.channel_values.sums_to IS 'interval channel that a register must add up to on these days, - for no channel; empty: as channels says';
SELECT ref.keep_history('channel_values');

CREATE FUNCTION ref.guard_channel_value() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
    found text;
BEGIN
    SELECT kind INTO found FROM ref.channels WHERE meter_id = NEW.meter_id AND channel = NEW.channel;
    IF found = 'register' AND (NEW.unit IS NOT NULL OR NEW.interval_minutes IS NOT NULL) THEN
        RAISE EXCEPTION 'a register has one unit' USING ERRCODE = 'foreign_key_violation', TABLE = 'channel_values',
            DETAIL = NEW.meter_id || ' ' || NEW.channel || ' is a register: unit and interval_minutes are of interval channels. A register that counts in '
                'another unit is another channel, from a removal read and an installation read on';
    END IF;
    IF found = 'interval' AND NEW.sums_to IS NOT NULL THEN
        RAISE EXCEPTION 'an interval channel sums to nothing' USING ERRCODE = 'foreign_key_violation', TABLE = 'channel_values',
            DETAIL = NEW.meter_id || ' ' || NEW.channel || ' is an interval channel: sums_to is of the register that must add up to it';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER guard_channel_value BEFORE INSERT OR UPDATE ON ref.channel_values FOR EACH ROW EXECUTE FUNCTION ref.guard_channel_value();
COMMENT ON FUNCTION ref.guard_channel_value IS 'Refuses dated values that a channel of this kind does not have.';

-- migrate:down
DO $$ BEGIN RAISE EXCEPTION 'migrations go forward only: restore a backup'; END $$;
