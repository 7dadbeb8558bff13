-- migrate:up
-- Zones of the network, and what each received, passed on and metered, day by day.
CREATE TABLE ref.zones (
    zone_id text COLLATE "C" NOT NULL CHECK (zone_id ~ '^[A-Z0-9-]{1,64}$'),
    kind text NOT NULL CHECK (kind IN ('district', 'pressure_zone', 'feeder', 'transformer', 'gas_gate')),
    commodity text NOT NULL CHECK (commodity IN ('electricity', 'water', 'gas')),
    name text NOT NULL,
    parent_id text COLLATE "C" CHECK (parent_id ~ '^[A-Z0-9-]{1,64}$'),
    valid_from date NOT NULL,
    valid_to date,
    PRIMARY KEY (zone_id, valid_from),
    CHECK (valid_to IS NULL OR valid_to > valid_from)
);
COMMENT ON TABLE ref.zones IS 'Zones of the network whose supply is metered, in a tree: a zone holds the customers of the zones below it.';
COMMENT ON COLUMN ref.zones.zone_id IS 'zone of the network';
COMMENT ON COLUMN ref.zones.kind IS 'district (district metered area), pressure_zone, feeder, transformer or gas_gate';
COMMENT ON COLUMN ref.zones.commodity IS 'electricity, water or gas';
COMMENT ON COLUMN ref.zones.name IS 'what people call it';
COMMENT ON COLUMN ref.zones.parent_id IS 'the zone it is part of; empty at the top';
COMMENT ON COLUMN ref.zones.valid_from IS 'first billing day it holds';
COMMENT ON COLUMN ref.zones.valid_to IS 'billing day from which it no longer holds; empty while it does';
ALTER TABLE ref.zones ADD CONSTRAINT one_of_zones_at_a_time EXCLUDE USING gist
    (zone_id WITH =, daterange(valid_from, valid_to) WITH &&) DEFERRABLE INITIALLY DEFERRED;
SELECT ref.keep_history('zones');

CREATE TABLE ref.zone_members (
    service_point_id text COLLATE "C" NOT NULL CHECK (service_point_id ~ '^[A-Z0-9-]{1,64}$'),
    zone_id text COLLATE "C" NOT NULL CHECK (zone_id ~ '^[A-Z0-9-]{1,64}$'),
    valid_from date NOT NULL,
    valid_to date,
    PRIMARY KEY (service_point_id, valid_from),
    CHECK (valid_to IS NULL OR valid_to > valid_from)
);
COMMENT ON TABLE ref.zone_members IS 'Which zone a customer''s service point draws from; one at a time, the smallest that it is known of.';
COMMENT ON COLUMN ref.zone_members.service_point_id IS 'where the service is delivered and metered';
COMMENT ON COLUMN ref.zone_members.zone_id IS 'zone of the network';
COMMENT ON COLUMN ref.zone_members.valid_from IS 'first billing day it holds';
COMMENT ON COLUMN ref.zone_members.valid_to IS 'billing day from which it no longer holds; empty while it does';
ALTER TABLE ref.zone_members ADD CONSTRAINT one_of_zone_members_at_a_time EXCLUDE USING gist
    (service_point_id WITH =, daterange(valid_from, valid_to) WITH &&) DEFERRABLE INITIALLY DEFERRED;
SELECT ref.keep_history('zone_members');

CREATE TABLE ref.zone_supplies (
    zone_id text COLLATE "C" NOT NULL CHECK (zone_id ~ '^[A-Z0-9-]{1,64}$'),
    service_point_id text COLLATE "C" NOT NULL CHECK (service_point_id ~ '^[A-Z0-9-]{1,64}$'),
    direction text NOT NULL CHECK (direction IN ('in', 'out')),
    valid_from date NOT NULL,
    valid_to date,
    PRIMARY KEY (zone_id, service_point_id, valid_from),
    CHECK (valid_to IS NULL OR valid_to > valid_from)
);
COMMENT ON TABLE ref.zone_supplies IS 'Meters of what a zone receives (in) and passes on (out); a meter between two zones is out of one and in of the other.';
COMMENT ON COLUMN ref.zone_supplies.zone_id IS 'zone of the network';
COMMENT ON COLUMN ref.zone_supplies.service_point_id IS 'where the supply meter stands';
COMMENT ON COLUMN ref.zone_supplies.direction IS 'in: delivered into the zone; out: passed on to another';
COMMENT ON COLUMN ref.zone_supplies.valid_from IS 'first billing day it holds';
COMMENT ON COLUMN ref.zone_supplies.valid_to IS 'billing day from which it no longer holds; empty while it does';
ALTER TABLE ref.zone_supplies ADD CONSTRAINT one_of_zone_supplies_at_a_time EXCLUDE USING gist
    (zone_id WITH =, service_point_id WITH =, daterange(valid_from, valid_to) WITH &&) DEFERRABLE INITIALLY DEFERRED;
SELECT ref.keep_history('zone_supplies');

CREATE TABLE ref.zone_unmetered (
    zone_id text COLLATE "C" NOT NULL CHECK (zone_id ~ '^[A-Z0-9-]{1,64}$'),
    purpose text NOT NULL,
    quantity_per_day numeric(18,6) NOT NULL CHECK (quantity_per_day > -1e12 AND quantity_per_day < 1e12),
    unit text NOT NULL,
    valid_from date NOT NULL,
    valid_to date,
    PRIMARY KEY (zone_id, purpose, valid_from),
    CHECK (valid_to IS NULL OR valid_to > valid_from)
);
COMMENT ON TABLE ref.zone_unmetered IS 'Authorised use that no meter counts, as declared: flushing, fire fighting, street lights.';
COMMENT ON COLUMN ref.zone_unmetered.zone_id IS 'zone of the network';
COMMENT ON COLUMN ref.zone_unmetered.purpose IS 'what it is used for';
COMMENT ON COLUMN ref.zone_unmetered.quantity_per_day IS 'quantity a day';
COMMENT ON COLUMN ref.zone_unmetered.unit IS 'unit of the quantity, as meters use it';
COMMENT ON COLUMN ref.zone_unmetered.valid_from IS 'first billing day it holds';
COMMENT ON COLUMN ref.zone_unmetered.valid_to IS 'billing day from which it no longer holds; empty while it does';
ALTER TABLE ref.zone_unmetered ADD CONSTRAINT one_of_zone_unmetered_at_a_time EXCLUDE USING gist
    (zone_id WITH =, purpose WITH =, daterange(valid_from, valid_to) WITH &&) DEFERRABLE INITIALLY DEFERRED;
SELECT ref.keep_history('zone_unmetered');

CREATE TABLE billing.zone_day (
    billing_day date NOT NULL,
    zone_id text COLLATE "C" NOT NULL,
    commodity text NOT NULL,
    unit text NOT NULL,
    delivered_in bigint,
    delivered_out bigint,
    metered bigint,
    unmetered bigint NOT NULL,
    difference bigint,
    uncertain bigint NOT NULL CHECK (uncertain >= 0),
    supplies integer NOT NULL CHECK (supplies >= 0),
    customers integer NOT NULL CHECK (customers >= 0),
    missing text NOT NULL,
    PRIMARY KEY (billing_day, zone_id),
    CONSTRAINT balance CHECK (difference = delivered_in - delivered_out - metered - unmetered),
    CONSTRAINT nothing_filled_in CHECK ((difference IS NULL) = (delivered_in IS NULL OR delivered_out IS NULL OR metered IS NULL))
);
COMMENT ON TABLE billing.zone_day IS 'A zone''s supply balance on a billing day, in millionths of its unit; null where a side is not known.';
COMMENT ON COLUMN billing.zone_day.billing_day IS 'Billing day: local civil day of the utility.';
COMMENT ON COLUMN billing.zone_day.zone_id IS 'Zone of the network.';
COMMENT ON COLUMN billing.zone_day.commodity IS 'Electricity, water or gas.';
COMMENT ON COLUMN billing.zone_day.unit IS 'M3 for water, else the unit of its meters.';
COMMENT ON COLUMN billing.zone_day.delivered_in IS 'Delivered into the zone.';
COMMENT ON COLUMN billing.zone_day.delivered_out IS 'Passed on to other zones.';
COMMENT ON COLUMN billing.zone_day.metered IS 'Metered at its customers, those of the zones below included.';
COMMENT ON COLUMN billing.zone_day.unmetered IS 'Authorised use that no meter counts, as declared.';
COMMENT ON COLUMN billing.zone_day.difference IS 'Delivered_in - delivered_out - metered - unmetered.';
COMMENT ON COLUMN billing.zone_day.uncertain IS 'The part of all sides that is estimated or a share of a register''s reading of several days.';
COMMENT ON COLUMN billing.zone_day.supplies IS 'Supply meters of the day.';
COMMENT ON COLUMN billing.zone_day.customers IS 'Customers'' service points of the day.';
COMMENT ON COLUMN billing.zone_day.missing IS 'What is not known, in words; empty where nothing is missing.'; 

CREATE VIEW analyst.zone_days AS
SELECT d.billing_day, d.zone_id, d.commodity, d.unit, d.delivered_in::numeric / 1000000 AS delivered_in, d.delivered_out::numeric / 1000000 AS delivered_out,
    d.metered::numeric / 1000000 AS metered, d.unmetered::numeric / 1000000 AS unmetered, d.difference::numeric / 1000000 AS difference,
    d.uncertain::numeric / 1000000 AS uncertain, d.supplies, d.customers, d.missing
FROM billing.zone_day AS d;
COMMENT ON VIEW analyst.zone_days IS 'Supply balance of each zone and day.';
COMMENT ON COLUMN analyst.zone_days.billing_day IS 'Civil day.';
COMMENT ON COLUMN analyst.zone_days.zone_id IS 'Zone of the network.';
COMMENT ON COLUMN analyst.zone_days.commodity IS 'Electricity, water or gas.';
COMMENT ON COLUMN analyst.zone_days.unit IS 'Unit.';
COMMENT ON COLUMN analyst.zone_days.delivered_in IS 'Delivered into the zone.';
COMMENT ON COLUMN analyst.zone_days.delivered_out IS 'Passed on to other zones.';
COMMENT ON COLUMN analyst.zone_days.metered IS 'Metered at its customers.';
COMMENT ON COLUMN analyst.zone_days.unmetered IS 'Authorised use that no meter counts.';
COMMENT ON COLUMN analyst.zone_days.difference IS 'What is left: losses, and what is wrong.';
COMMENT ON COLUMN analyst.zone_days.uncertain IS 'The part of all sides that is estimated.';
COMMENT ON COLUMN analyst.zone_days.supplies IS 'Supply meters.';
COMMENT ON COLUMN analyst.zone_days.customers IS 'Customers.';
COMMENT ON COLUMN analyst.zone_days.missing IS 'What is not known, in words.';

CREATE VIEW analyst.zone_months AS
SELECT date_trunc('month', d.billing_day)::date AS month, d.zone_id, d.commodity, d.unit, count(*)::integer AS days, count(d.difference)::integer AS days_known,
    sum(d.delivered_in - d.delivered_out) FILTER (WHERE d.difference IS NOT NULL)::numeric / 1000000 AS system_input,
    sum(d.metered) FILTER (WHERE d.difference IS NOT NULL)::numeric / 1000000 AS billed_metered,
    sum(d.unmetered) FILTER (WHERE d.difference IS NOT NULL)::numeric / 1000000 AS unbilled_unmetered,
    sum(d.difference)::numeric / 1000000 AS losses, sum(d.uncertain) FILTER (WHERE d.difference IS NOT NULL)::numeric / 1000000 AS uncertain,
    round(100.0 * sum(d.difference) / nullif(sum(d.delivered_in - d.delivered_out) FILTER (WHERE d.difference IS NOT NULL), 0), 2) AS losses_percent,
    string_agg(DISTINCT nullif(d.missing, ''), '; ') AS missing
FROM billing.zone_day AS d GROUP BY 1, 2, 3, 4;
COMMENT ON VIEW analyst.zone_months IS 'The months of zones, in the terms of AWWA M36; for gas losses are unaccounted-for gas, for electricity distribution loss. Days with an unknown side count nowhere.';
COMMENT ON COLUMN analyst.zone_months.month IS 'First day of the month.';
COMMENT ON COLUMN analyst.zone_months.zone_id IS 'Zone of the network.';
COMMENT ON COLUMN analyst.zone_months.commodity IS 'Electricity, water or gas.';
COMMENT ON COLUMN analyst.zone_months.unit IS 'Unit.';
COMMENT ON COLUMN analyst.zone_months.days IS 'Days of the month with a row.';
COMMENT ON COLUMN analyst.zone_months.days_known IS 'Those whose sides are all known.';
COMMENT ON COLUMN analyst.zone_months.system_input IS 'System input volume: delivered in less passed on.';
COMMENT ON COLUMN analyst.zone_months.billed_metered IS 'Metered at customers.';
COMMENT ON COLUMN analyst.zone_months.unbilled_unmetered IS 'Authorised use that no meter counts.';
COMMENT ON COLUMN analyst.zone_months.losses IS 'System input less authorised consumption: real and apparent losses together.';
COMMENT ON COLUMN analyst.zone_months.uncertain IS 'The part of all sides that is estimated.';
COMMENT ON COLUMN analyst.zone_months.losses_percent IS 'Losses in percent of the system input.';
COMMENT ON COLUMN analyst.zone_months.missing IS 'What was not known, in words.';

-- migrate:down
DROP VIEW analyst.zone_months;
DROP VIEW analyst.zone_days;
DROP TABLE billing.zone_day;
DROP FUNCTION ref.zone_unmetered_as_of(timestamptz);
DROP TABLE ref.zone_unmetered_version;
DROP TABLE ref.zone_unmetered;
DROP FUNCTION ref.zone_supplies_as_of(timestamptz);
DROP TABLE ref.zone_supplies_version;
DROP TABLE ref.zone_supplies;
DROP FUNCTION ref.zone_members_as_of(timestamptz);
DROP TABLE ref.zone_members_version;
DROP TABLE ref.zone_members;
DROP FUNCTION ref.zones_as_of(timestamptz);
DROP TABLE ref.zones_version;
DROP TABLE ref.zones;
