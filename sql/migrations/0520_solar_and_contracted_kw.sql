-- migrate:up
-- Installed solar capacity and contracted demand, by which published tariffs charge.
ALTER TABLE ref.service_attributes DROP CONSTRAINT service_attributes_attribute_check;
ALTER TABLE ref.service_attributes ADD CONSTRAINT service_attributes_attribute_check CHECK (attribute IN ('meter_size', 'jurisdiction',
    'rate_code', 'budget_per_day', 'winter_average_per_day', 'dwelling_units', 'stormwater_units', 'lamps', 'solar_kw', 'contract_kw',
    'tax_exempt', 'totals_into', 'deducts_from'));
COMMENT ON COLUMN ref.service_attributes.attribute IS 'what is said of it: meter_size, jurisdiction, rate_code, budget_per_day, winter_average_per_day, dwelling_units, stormwater_units, lamps, solar_kw (installed), contract_kw (agreed demand), tax_exempt (true: a certificate is on file), totals_into (its usage is billed at the service point named) or deducts_from (its usage is taken off that of the service point named)';

-- migrate:down
DO $$ BEGIN RAISE EXCEPTION 'migrations go forward only: restore a backup'; END $$;
