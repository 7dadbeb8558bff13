-- migrate:up
-- A person corrects a register read as intervals are corrected: beside the raw read, proposed and approved where two are asked for, and taken back by a second fact.
ALTER TABLE vee.edit ADD COLUMN proposed boolean NOT NULL DEFAULT false;
ALTER TABLE vee.edit ADD COLUMN approved_by text COLLATE "C";
ALTER TABLE vee.edit ADD COLUMN approved_at timestamptz;
ALTER TABLE vee.edit ADD CHECK ((approved_by IS NULL) = (approved_at IS NULL));
ALTER TABLE vee.edit ADD CHECK (approved_by IS NULL OR (proposed AND approved_by <> edited_by));
COMMENT ON COLUMN vee.edit.proposed IS 'Whether it stands only once another person approved it.';
COMMENT ON COLUMN vee.edit.approved_by IS 'Who approved it; null while it waits, and where nobody has to.';
COMMENT ON COLUMN vee.edit.approved_at IS 'When, UTC.';

CREATE TABLE vee.register_edit (
    edit_id bigint PRIMARY KEY DEFAULT nextval(pg_get_serial_sequence('vee.edit', 'edit_id')),
    read_at timestamptz NOT NULL,
    billing_day date NOT NULL,
    value bigint,
    meter_id text COLLATE "C" NOT NULL,
    channel text COLLATE "C" NOT NULL,
    rules text[] NOT NULL,
    rules_version integer NOT NULL,
    reason text NOT NULL CHECK (reason <> ''),
    edited_by text COLLATE "C" NOT NULL CHECK (edited_by <> ''),
    edited_at timestamptz NOT NULL,
    proposed boolean NOT NULL DEFAULT false,
    approved_by text COLLATE "C",
    approved_at timestamptz,
    withdrawn_by text COLLATE "C",
    withdrawn_at timestamptz,
    CHECK ((approved_by IS NULL) = (approved_at IS NULL)),
    CHECK (approved_by IS NULL OR (proposed AND approved_by <> edited_by)),
    CHECK ((withdrawn_by IS NULL) = (withdrawn_at IS NULL))
);
CREATE INDEX register_edit_by_day ON vee.register_edit (billing_day) WHERE withdrawn_at IS NULL;
COMMENT ON TABLE vee.register_edit IS 'Register reads a person has corrected, refused or added. The raw read stays; the newest edit of an instant that stands is what the dial is taken to have shown.';
COMMENT ON COLUMN vee.register_edit.edit_id IS 'Number of the edit, from the same row of numbers as vee.edit.';
COMMENT ON COLUMN vee.register_edit.read_at IS 'Instant of the read, UTC.';
COMMENT ON COLUMN vee.register_edit.billing_day IS 'Day the read belongs to.';
COMMENT ON COLUMN vee.register_edit.value IS 'What the dial showed, in millionths of the base unit; null: the read is refused.';
COMMENT ON COLUMN vee.register_edit.meter_id IS 'Meter.';
COMMENT ON COLUMN vee.register_edit.channel IS 'Register channel.';
COMMENT ON COLUMN vee.register_edit.rules IS 'Rules that hit without refusing the edit.';
COMMENT ON COLUMN vee.register_edit.rules_version IS 'Version of the thresholds it was judged under.';
COMMENT ON COLUMN vee.register_edit.reason IS 'Why, in the person''s words.';
COMMENT ON COLUMN vee.register_edit.edited_by IS 'Who.';
COMMENT ON COLUMN vee.register_edit.edited_at IS 'When, UTC.';
COMMENT ON COLUMN vee.register_edit.proposed IS 'Whether it stands only once another person approved it.';
COMMENT ON COLUMN vee.register_edit.approved_by IS 'Who approved it; null while it waits, and where nobody has to.';
COMMENT ON COLUMN vee.register_edit.approved_at IS 'When, UTC.';
COMMENT ON COLUMN vee.register_edit.withdrawn_by IS 'Who took it back; null while it stands.';
COMMENT ON COLUMN vee.register_edit.withdrawn_at IS 'When, UTC.';

-- migrate:down
DROP TABLE vee.register_edit;
ALTER TABLE vee.edit DROP COLUMN proposed, DROP COLUMN approved_by, DROP COLUMN approved_at;
