-- migrate:up
-- What a service pays for each of: dwellings behind one meter, stormwater units, lamps without a meter.
ALTER TABLE ref.service_attributes DROP CONSTRAINT service_attributes_attribute_check;
ALTER TABLE ref.service_attributes ADD CONSTRAINT service_attributes_attribute_check CHECK (attribute IN ('meter_size', 'jurisdiction',
    'rate_code', 'budget_per_day', 'winter_average_per_day', 'dwelling_units', 'stormwater_units', 'lamps'));
COMMENT ON COLUMN ref.service_attributes.attribute IS 'what is said of it: meter_size, jurisdiction, rate_code, budget_per_day, winter_average_per_day, dwelling_units, stormwater_units or lamps';

-- migrate:down
ALTER TABLE ref.service_attributes DROP CONSTRAINT service_attributes_attribute_check;
ALTER TABLE ref.service_attributes ADD CONSTRAINT service_attributes_attribute_check CHECK (attribute IN ('meter_size', 'jurisdiction',
    'rate_code', 'budget_per_day', 'winter_average_per_day'));
COMMENT ON COLUMN ref.service_attributes.attribute IS 'what is said of it: meter_size, jurisdiction, rate_code, budget_per_day or winter_average_per_day';
