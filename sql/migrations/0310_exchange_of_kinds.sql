-- migrate:up
-- An exchange may put two kinds of meter, or two units, into one service point's day.
ALTER TABLE vee.daily_usage DROP CONSTRAINT daily_usage_source_check;
ALTER TABLE vee.daily_usage ADD CONSTRAINT daily_usage_source_check CHECK (source IN ('interval', 'register', 'mixed'));
ALTER TABLE vee.daily_usage ADD COLUMN register_micro bigint;
COMMENT ON COLUMN vee.daily_usage.source IS 'interval: sum of validated intervals; register: register consumption shared over days; mixed: both, as after an exchange.';
COMMENT ON COLUMN vee.daily_usage.register_micro IS 'The part of a mixed day''s usage that registers alone make, in millionths of the unit; null elsewhere.';
ALTER TABLE vee.register_day ADD COLUMN usage_micro bigint;
COMMENT ON COLUMN vee.register_day.usage_micro IS 'What the day of a register-only meter was put at, estimates included, in millionths; null for registers beside intervals and where nothing is known.';
ALTER TABLE billing.determinant_day ADD COLUMN other_unit text NOT NULL DEFAULT '';
ALTER TABLE billing.determinant_day ADD COLUMN other_quantity bigint NOT NULL DEFAULT 0;
ALTER TABLE billing.determinant_day ADD COLUMN other_export bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN billing.determinant_day.other_unit IS 'Second base unit of the day, after an exchange of meters of different units; else empty.';
COMMENT ON COLUMN billing.determinant_day.other_quantity IS 'Validated usage in millionths of other_unit.';
COMMENT ON COLUMN billing.determinant_day.other_export IS 'Validated exports in millionths of other_unit.';

-- migrate:down
ALTER TABLE billing.determinant_day DROP COLUMN other_unit, DROP COLUMN other_quantity, DROP COLUMN other_export;
ALTER TABLE vee.register_day DROP COLUMN usage_micro;
ALTER TABLE vee.daily_usage DROP COLUMN register_micro;
ALTER TABLE vee.daily_usage DROP CONSTRAINT daily_usage_source_check;
ALTER TABLE vee.daily_usage ADD CONSTRAINT daily_usage_source_check CHECK (source IN ('interval', 'register'));
