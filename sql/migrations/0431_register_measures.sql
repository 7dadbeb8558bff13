-- migrate:up
-- A tariff's registers count kVA, kVAr, kVArh and blocks of the day beside kW.
COMMENT ON COLUMN billing.determinant_day.peaks IS 'what each register measured, millionths of kW, kVA, kVAr or kVArh, or of the unit in a block of the day';

-- migrate:down
COMMENT ON COLUMN billing.determinant_day.peaks IS 'Highest demand per register, millionths of a kW.';
