-- migrate:up
-- The sum of a head-end's meters is the shape of its few largest: a whole-hour shift was lost in their noise. The mean of each meter's own day is not.
ALTER TABLE vee.group_day
    ADD COLUMN shape bigint[] NOT NULL DEFAULT '{}',
    ADD COLUMN shape_members integer NOT NULL DEFAULT 0,
    ADD COLUMN shifted_hours smallint NOT NULL DEFAULT 0;
COMMENT ON COLUMN vee.group_day.shape IS 'Sum by slot of each member''s share of its own day, in millionths: every meter weighs the same, however large.';
COMMENT ON COLUMN vee.group_day.shape_members IS 'Members in the shape: those that used something and ran backward nowhere.';
COMMENT ON COLUMN vee.group_day.shifted_hours IS 'Whole hours by which the day lies late against the head-end''s history; 0 where it does not. Shifted days are no history.';

-- migrate:down
ALTER TABLE vee.group_day DROP COLUMN shape, DROP COLUMN shape_members, DROP COLUMN shifted_hours;
