-- migrate:up
-- A customer whose certificate of exemption is on file owes no tax that honours it.
ALTER TABLE ref.service_attributes DROP CONSTRAINT service_attributes_attribute_check;
ALTER TABLE ref.service_attributes ADD CONSTRAINT service_attributes_attribute_check CHECK (attribute IN ('meter_size', 'jurisdiction',
    'rate_code', 'budget_per_day', 'winter_average_per_day', 'dwelling_units', 'stormwater_units', 'lamps', 'tax_exempt'));
COMMENT ON COLUMN ref.service_attributes.attribute IS 'what is said of it: meter_size, jurisdiction, rate_code, budget_per_day, winter_average_per_day, dwelling_units, stormwater_units, lamps or tax_exempt (true: a certificate is on file)';

-- migrate:down
ALTER TABLE ref.service_attributes DROP CONSTRAINT service_attributes_attribute_check;
ALTER TABLE ref.service_attributes ADD CONSTRAINT service_attributes_attribute_check CHECK (attribute IN ('meter_size', 'jurisdiction',
    'rate_code', 'budget_per_day', 'winter_average_per_day', 'dwelling_units', 'stormwater_units', 'lamps'));
COMMENT ON COLUMN ref.service_attributes.attribute IS 'what is said of it: meter_size, jurisdiction, rate_code, budget_per_day, winter_average_per_day, dwelling_units, stormwater_units or lamps';
