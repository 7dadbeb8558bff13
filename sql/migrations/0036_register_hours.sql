-- migrate:up
-- Which hours a time-of-use register counts: what estimates are scaled to it by, and its intervals checked against it.
CREATE TABLE ref.register_hours (
    head_end text COLLATE "C" NOT NULL CHECK (head_end ~ '^[A-Z0-9-]{1,32}$'),
    channel text COLLATE "C" NOT NULL CHECK (channel ~ '^[A-Z0-9-]{1,32}$'),
    days text NOT NULL CHECK (days IN ('all', 'workday', 'restday')),
    from_minute integer NOT NULL,
    to_minute integer NOT NULL,
    PRIMARY KEY (head_end, channel, days, from_minute)
);
COMMENT ON TABLE ref.register_hours IS 'Hours of local time that a time-of-use register of a head-end''s meters counts, minutes after midnight, end excluded. Rest days are weekends and holidays.';
COMMENT ON COLUMN ref.register_hours.head_end IS 'head-end whose meters are programmed so';
COMMENT ON COLUMN ref.register_hours.channel IS 'register that counts these hours';
COMMENT ON COLUMN ref.register_hours.days IS 'all days, workdays, or rest days: weekends and holidays';
COMMENT ON COLUMN ref.register_hours.from_minute IS 'first minute after local midnight';
COMMENT ON COLUMN ref.register_hours.to_minute IS 'minute after local midnight at which it stops; 1440 is midnight';

-- migrate:down
DROP TABLE ref.register_hours;
