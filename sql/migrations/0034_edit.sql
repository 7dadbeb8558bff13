-- migrate:up
-- What people put in the place of a read: kept apart from it, applied with every validation of the day, never to be rewritten.
CREATE TABLE vee.edit (
    edit_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    billing_day date NOT NULL,
    meter_id text COLLATE "C" NOT NULL,
    channel text COLLATE "C" NOT NULL,
    interval_minutes smallint NOT NULL,
    first_slot smallint NOT NULL CHECK (first_slot >= 1),
    values bigint[] NOT NULL CHECK (array_length(values, 1) > 0),
    rules text[] NOT NULL,
    rules_version integer NOT NULL,
    reason text NOT NULL CHECK (reason <> ''),
    edited_by text COLLATE "C" NOT NULL CHECK (edited_by <> ''),
    edited_at timestamptz NOT NULL,
    withdrawn_by text COLLATE "C",
    withdrawn_at timestamptz,
    CHECK ((withdrawn_by IS NULL) = (withdrawn_at IS NULL))
);
CREATE INDEX edit_by_day ON vee.edit (billing_day) WHERE withdrawn_at IS NULL;
COMMENT ON TABLE vee.edit IS 'Intervals a person has overridden. The raw read stays; the newest edit of a slot that was not withdrawn stands in the validated day.';
COMMENT ON COLUMN vee.edit.edit_id IS 'Number of the edit.';
COMMENT ON COLUMN vee.edit.billing_day IS 'The day edited.';
COMMENT ON COLUMN vee.edit.meter_id IS 'Meter.';
COMMENT ON COLUMN vee.edit.channel IS 'Channel.';
COMMENT ON COLUMN vee.edit.interval_minutes IS 'Length of an interval in minutes.';
COMMENT ON COLUMN vee.edit.first_slot IS 'First slot edited, from 1.';
COMMENT ON COLUMN vee.edit.values IS 'Millionths of the unit by slot from the first; -9223372036854775808: the read is refused and the slot estimated.';
COMMENT ON COLUMN vee.edit.rules IS 'Rules of the manual override set that hit without refusing the edit.';
COMMENT ON COLUMN vee.edit.rules_version IS 'Version of the thresholds it was judged under.';
COMMENT ON COLUMN vee.edit.reason IS 'Why, in the person''s words.';
COMMENT ON COLUMN vee.edit.edited_by IS 'Who.';
COMMENT ON COLUMN vee.edit.edited_at IS 'When, UTC.';
COMMENT ON COLUMN vee.edit.withdrawn_by IS 'Who took it back; null while it stands.';
COMMENT ON COLUMN vee.edit.withdrawn_at IS 'When, UTC.';

-- migrate:down
DROP TABLE vee.edit;
