-- migrate:up
-- Attributes of services are an open set: those that the utility declares stand beside the ones that every tariff knows.
CREATE TABLE ref.attribute_names (
    attribute text NOT NULL PRIMARY KEY CHECK (attribute ~ '^[a-z][a-z0-9_]{0,39}$'),
    kind text NOT NULL CHECK (kind IN ('count', 'text')),
    about text NOT NULL
);
COMMENT ON TABLE ref.attribute_names IS 'Attributes of services that the utility declares: counts of what is charged by the unit (equivalent residential units, carts, street lights by type), and texts that charges differ by.';
COMMENT ON COLUMN ref.attribute_names.attribute IS 'name: small letters, digits and _';
COMMENT ON COLUMN ref.attribute_names.kind IS 'count (a number of units, at most six decimals) or text';
COMMENT ON COLUMN ref.attribute_names.about IS 'what it says';
SELECT ref.keep_history('attribute_names');

ALTER TABLE ref.service_attributes DROP CONSTRAINT service_attributes_attribute_check;
COMMENT ON COLUMN ref.service_attributes.attribute IS 'what is said of it: meter_size, jurisdiction, rate_code, budget_per_day, winter_average_per_day, dwelling_units, stormwater_units, lamps, solar_kw (installed), contract_kw (agreed demand), tax_exempt (true: a certificate is on file), totals_into (its usage is billed at the service point named), deducts_from (its usage is taken off that of the service point named), or a name of attribute_names';

CREATE FUNCTION ref.guard_attribute() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
    declared text;
BEGIN
    IF NEW.attribute IN ('meter_size', 'jurisdiction', 'rate_code', 'budget_per_day', 'winter_average_per_day', 'dwelling_units', 'stormwater_units',
        'lamps', 'solar_kw', 'contract_kw', 'tax_exempt', 'totals_into', 'deducts_from') THEN
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
COMMENT ON FUNCTION ref.guard_attribute IS 'Trigger: an attribute of a service is one that every tariff knows or one that is declared, and a count is a number.';
CREATE TRIGGER guard_attribute BEFORE INSERT OR UPDATE ON ref.service_attributes FOR EACH ROW EXECUTE FUNCTION ref.guard_attribute();

CREATE FUNCTION ref.guard_attribute_name() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    IF EXISTS (SELECT FROM ref.service_attributes WHERE attribute = OLD.attribute) AND (TG_OP = 'DELETE' OR NEW.attribute <> OLD.attribute) THEN
        RAISE EXCEPTION 'services have attribute %', OLD.attribute USING ERRCODE = 'foreign_key_violation', TABLE = 'attribute_names',
            DETAIL = 'services have attribute ' || OLD.attribute || ': end their rows first';
    END IF;
    IF TG_OP = 'DELETE' THEN
        RETURN OLD;
    END IF;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION ref.guard_attribute_name IS 'Trigger: a declared attribute stays while a service has it.';
CREATE TRIGGER guard_attribute_name BEFORE UPDATE OR DELETE ON ref.attribute_names FOR EACH ROW EXECUTE FUNCTION ref.guard_attribute_name();

-- migrate:down
DO $$ BEGIN RAISE EXCEPTION 'migrations go forward only: restore a backup'; END $$;
