-- migrate:up
-- A change that waits explains no more than the amount by which it moved its bill, and a correction no more than it comes to.
ALTER TABLE billing.late_change ADD COLUMN energy_moved bigint, ADD COLUMN charge_moved bigint;
COMMENT ON COLUMN billing.late_change.energy_moved IS 'By how much the day''s usage of the statement''s account changed since, millionths of the tariff''s unit; null where it was noted before this column.';
COMMENT ON COLUMN billing.late_change.charge_moved IS 'By how much the charges of the statement''s period at the service point changed since, millionths of the currency; null as above.';

ALTER TABLE billing.adjustment ADD COLUMN sealed_days_due numeric(20,6), ADD COLUMN period_end_due numeric(20,6);
COMMENT ON COLUMN billing.adjustment.sealed_days_due IS 'What the corrected statement bills for days in sealed months beyond the charges that those days keep; null where it was asked for before this column.';
COMMENT ON COLUMN billing.adjustment.period_end_due IS 'What the corrected statement''s end adds to its days'' charges: minimum, credits, ratchets, rounding; null as above.';

-- migrate:down
ALTER TABLE billing.adjustment DROP COLUMN sealed_days_due, DROP COLUMN period_end_due;
ALTER TABLE billing.late_change DROP COLUMN energy_moved, DROP COLUMN charge_moved;
