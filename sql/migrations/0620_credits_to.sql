-- migrate:up
-- Where an account has several services that could take the credit of a last bill, an attribute names one.
CREATE OR REPLACE FUNCTION ref.guard_attribute() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
    declared text;
BEGIN
    IF NEW.attribute IN ('meter_size', 'jurisdiction', 'rate_code', 'budget_per_day', 'winter_average_per_day', 'dwelling_units', 'stormwater_units',
        'lamps', 'solar_kw', 'contract_kw', 'tax_exempt', 'totals_into', 'deducts_from', 'credits_to') THEN
        RETURN NEW;
    END IF;
    SELECT kind INTO declared FROM ref.attribute_names WHERE attribute = NEW.attribute;
    IF declared IS NULL THEN
        RAISE EXCEPTION 'attribute % is not declared', NEW.attribute USING ERRCODE = 'foreign_key_violation', TABLE = 'service_attributes',
            DETAIL = 'attribute ' || NEW.attribute || ' of ' || NEW.service_point_id || ' is not declared: add it to attribute_names.csv';
    END IF;
    IF declared = 'count' AND NEW.value !~ '^[0-9]{1,8}(\.[0-9]{1,6})?$' THEN
        RAISE EXCEPTION '% is no count', NEW.value USING ERRCODE = 'foreign_key_violation', TABLE = 'service_attributes',
            DETAIL = NEW.attribute || ' of ' || NEW.service_point_id || ' is ' || left(NEW.value, 40) || ', not a count';
    END IF;
    RETURN NEW;
END
$$;
COMMENT ON COLUMN ref.service_attributes.attribute IS 'what is said of it: meter_size, jurisdiction, rate_code, budget_per_day, winter_average_per_day, dwelling_units, stormwater_units, lamps, solar_kw (installed), contract_kw (agreed demand), tax_exempt (true: a certificate is on file), totals_into (its usage is billed at the service point named), deducts_from (its usage is taken off that of the service point named), credits_to (where the credit of its last bill goes: a service point of the account, or none), or a name of attribute_names';

-- migrate:down
DO $$ BEGIN RAISE EXCEPTION 'migrations go forward only: restore a backup'; END $$;
