-- migrate:up
-- Gas is sold by heat and metered by volume. A gas company states the heat content by zone and month, after the month, and corrects it. A service is
-- in the zone that its attribute heat_zone names; * is every service that names none.
-- Where no row of * holds, the tariff's own list does; a service whose own zone has no row in force waits.
CREATE TABLE ref.heat_contents (
    zone_id text COLLATE "C" NOT NULL CHECK (zone_id ~ '^([*]|[A-Z0-9-]{1,64})$'),
    valid_from date NOT NULL,
    valid_to date,
    therms_per_ccf numeric(18,6) NOT NULL CONSTRAINT heat_content_in_range CHECK (therms_per_ccf > 0 AND therms_per_ccf < 10),
    PRIMARY KEY (zone_id, valid_from),
    CHECK (valid_to IS NULL OR valid_to > valid_from),
    CONSTRAINT one_of_heat_contents_at_a_time EXCLUDE USING gist
        (zone_id WITH =, daterange(valid_from, valid_to) WITH &&) DEFERRABLE INITIALLY DEFERRED
);
COMMENT ON TABLE ref.heat_contents IS 'Heat content of gas by zone, dated. A row comes before the list of the tariff document.';
COMMENT ON COLUMN ref.heat_contents.zone_id IS 'zone of the gas network, as the attribute heat_zone of services names it; * for services without one';
COMMENT ON COLUMN ref.heat_contents.valid_from IS 'first billing day it holds';
COMMENT ON COLUMN ref.heat_contents.valid_to IS 'billing day from which it no longer holds; empty while it does';
COMMENT ON COLUMN ref.heat_contents.therms_per_ccf IS 'therms in 100 cubic feet as metered';
SELECT ref.keep_history('heat_contents');

CREATE OR REPLACE FUNCTION ref.guard_attribute() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
    declared text;
BEGIN
    IF NEW.attribute IN ('meter_size', 'jurisdiction', 'rate_code', 'budget_per_day', 'winter_average_per_day', 'dwelling_units', 'stormwater_units',
        'lamps', 'solar_kw', 'contract_kw', 'tax_exempt', 'totals_into', 'deducts_from', 'credits_to', 'heat_zone') THEN
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
COMMENT ON COLUMN ref.service_attributes.attribute IS 'what is said of it: meter_size, jurisdiction, rate_code, budget_per_day, winter_average_per_day, dwelling_units, stormwater_units, lamps, solar_kw (installed), contract_kw (agreed demand), tax_exempt (true: a certificate is on file), totals_into (its usage is billed at the service point named), deducts_from (its usage is taken off that of the service point named), credits_to (where the credit of its last bill goes: a service point of the account, or none), heat_zone (the zone of heat_contents that its gas is from), or a name of attribute_names';

-- migrate:down
DO $$ BEGIN RAISE EXCEPTION 'migrations go forward only: restore a backup'; END $$;
