-- migrate:up
-- A run for some service points of a day judges them against their classes as the whole day saw them.
CREATE TABLE vee.class_movement (
    billing_day date PRIMARY KEY,
    movement jsonb NOT NULL
);
COMMENT ON TABLE vee.class_movement IS 'How each class of meters moved on a day, against which high and low usage is judged. Written when the day is validated whole; a run for some of its service points takes it as stored.';
COMMENT ON COLUMN vee.class_movement.billing_day IS 'The day.';
COMMENT ON COLUMN vee.class_movement.movement IS 'classes: interval minutes (0: registers), unit, flow, class, use today, usual use, members, and by earlier day members and the sum of their shares; paces: week, unit, flow, class, movement and pace of registers read less than daily.';

-- migrate:down
DO $$ BEGIN RAISE EXCEPTION 'migrations go forward only: restore a backup'; END $$;
