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
COMMENT ON COLUMN ref.register_hours.head_end IS 'head end (id)';
COMMENT ON COLUMN ref.register_hours.channel IS 'channel (id)';
COMMENT ON COLUMN ref.register_hours.days IS 'days (one of all, workday, restday)';
COMMENT ON COLUMN ref.register_hours.from_minute IS 'from minute (integer)';
COMMENT ON COLUMN ref.register_hours.to_minute IS 'to minute (integer)';

-- migrate:down
DROP TABLE ref.register_hours;
