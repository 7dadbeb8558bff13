-- migrate:up
-- Reference data: schemas/reference.py is the source of the columns, reference_words.py of what they mean; a test
-- compares.
CREATE SCHEMA ref;
COMMENT ON SCHEMA ref IS 'Reference data, effective-dated: who is metered, by what, on which tariff.';

-- For the constraints named one_..._at_a_time, whoever writes: two agreements in force on a day billed a service twice,
-- two installations of a meter stopped the validation of a city. They are checked at the end of the transaction, so
-- that an import may move a date from one row to the next. btree_gist is a trusted extension: the owner of the database
-- may create it.
CREATE EXTENSION IF NOT EXISTS btree_gist WITH SCHEMA ref;

CREATE TABLE ref.weather_stations (
    station_id text COLLATE "C" NOT NULL CHECK (station_id ~ '^[A-Z0-9-]{1,64}$'),
    name text NOT NULL,
    latitude numeric(18,6) NOT NULL CHECK (latitude > -1e12 AND latitude < 1e12),
    longitude numeric(18,6) NOT NULL CHECK (longitude > -1e12 AND longitude < 1e12),
    PRIMARY KEY (station_id)
);
COMMENT ON TABLE ref.weather_stations IS 'Where temperatures are measured.';
COMMENT ON COLUMN ref.weather_stations.station_id IS 'weather station';
COMMENT ON COLUMN ref.weather_stations.name IS 'what people call it';
COMMENT ON COLUMN ref.weather_stations.latitude IS 'degrees north; the nearest station serves a service point that names none';
COMMENT ON COLUMN ref.weather_stations.longitude IS 'degrees east';

CREATE TABLE ref.weather (
    station_id text COLLATE "C" NOT NULL CHECK (station_id ~ '^[A-Z0-9-]{1,64}$'),
    weather_day date NOT NULL,
    temperature_min_c numeric(18,6) NOT NULL CHECK (temperature_min_c > -1e12 AND temperature_min_c < 1e12),
    temperature_max_c numeric(18,6) NOT NULL CHECK (temperature_max_c > -1e12 AND temperature_max_c < 1e12),
    temperature_mean_c numeric(18,6) CHECK (temperature_mean_c > -1e12 AND temperature_mean_c < 1e12),
    PRIMARY KEY (station_id, weather_day),
    FOREIGN KEY (station_id) REFERENCES ref.weather_stations (station_id) DEFERRABLE INITIALLY DEFERRED
);
COMMENT ON TABLE ref.weather IS 'Daily temperatures in degrees Celsius; the mean is (min + max) / 2 where a station reports none.';
COMMENT ON COLUMN ref.weather.station_id IS 'weather station';
COMMENT ON COLUMN ref.weather.weather_day IS 'the station''s day';
COMMENT ON COLUMN ref.weather.temperature_min_c IS 'lowest temperature of the day, °C';
COMMENT ON COLUMN ref.weather.temperature_max_c IS 'highest temperature of the day, °C';
COMMENT ON COLUMN ref.weather.temperature_mean_c IS 'mean of the day, °C; (min + max) / 2 where empty';

CREATE TABLE ref.holidays (
    holiday date NOT NULL,
    name text NOT NULL,
    PRIMARY KEY (holiday)
);
COMMENT ON TABLE ref.holidays IS 'Days that tariffs and like-day estimation treat as holidays.';
COMMENT ON COLUMN ref.holidays.holiday IS 'civil day in the utility''s zone';
COMMENT ON COLUMN ref.holidays.name IS 'what it is called';

CREATE TABLE ref.service_points (
    service_point_id text COLLATE "C" NOT NULL CHECK (service_point_id ~ '^[A-Z0-9-]{1,64}$'),
    commodity text NOT NULL CHECK (commodity IN ('electricity', 'water', 'gas')),
    premise_id text COLLATE "C" NOT NULL CHECK (premise_id ~ '^[A-Z0-9-]{1,64}$'),
    route text COLLATE "C" NOT NULL CHECK (route ~ '^[A-Z0-9-]{1,64}$'),
    customer_class text NOT NULL CHECK (customer_class IN ('residential', 'commercial', 'industrial', 'municipal')),
    latitude numeric(18,6) CHECK (latitude > -1e12 AND latitude < 1e12),
    longitude numeric(18,6) CHECK (longitude > -1e12 AND longitude < 1e12),
    station_id text COLLATE "C" CHECK (station_id ~ '^[A-Z0-9-]{1,64}$'),
    status text NOT NULL CHECK (status IN ('active', 'inactive', 'disconnected')),
    valid_from date NOT NULL,
    valid_to date,
    PRIMARY KEY (service_point_id, valid_from),
    FOREIGN KEY (station_id) REFERENCES ref.weather_stations (station_id) DEFERRABLE INITIALLY DEFERRED,
    CHECK (valid_to IS NULL OR valid_to > valid_from),
    CONSTRAINT one_status_at_a_time EXCLUDE USING gist
        (service_point_id WITH =, daterange(valid_from, valid_to) WITH &&) DEFERRABLE INITIALLY DEFERRED
);
COMMENT ON TABLE ref.service_points IS 'Where a service is delivered and metered. Status may change over time: one row per stretch.';
COMMENT ON COLUMN ref.service_points.service_point_id IS 'where the service is delivered and metered';
COMMENT ON COLUMN ref.service_points.commodity IS 'electricity, water or gas';
COMMENT ON COLUMN ref.service_points.premise_id IS 'the building or lot; service points of one premise share it';
COMMENT ON COLUMN ref.service_points.route IS 'reading route, for grouping';
COMMENT ON COLUMN ref.service_points.customer_class IS 'class that thresholds, class profiles and tariffs go by';
COMMENT ON COLUMN ref.service_points.latitude IS 'degrees north; for the nearest weather station';
COMMENT ON COLUMN ref.service_points.longitude IS 'degrees east';
COMMENT ON COLUMN ref.service_points.station_id IS 'weather station to use; empty takes the nearest';
COMMENT ON COLUMN ref.service_points.status IS 'active, inactive or disconnected: usage on the latter two is an exception';
COMMENT ON COLUMN ref.service_points.valid_from IS 'first billing day it holds';
COMMENT ON COLUMN ref.service_points.valid_to IS 'billing day from which it no longer holds; empty while it does';

CREATE TABLE ref.service_attributes (
    service_point_id text COLLATE "C" NOT NULL CHECK (service_point_id ~ '^[A-Z0-9-]{1,64}$'),
    attribute text NOT NULL CHECK (attribute IN ('meter_size', 'jurisdiction', 'rate_code', 'budget_per_day',
        'winter_average_per_day', 'dwelling_units', 'stormwater_units', 'lamps', 'tax_exempt', 'totals_into',
        'deducts_from')),
    value text NOT NULL,
    valid_from date NOT NULL,
    valid_to date,
    PRIMARY KEY (service_point_id, attribute, valid_from),
    CHECK (valid_to IS NULL OR valid_to > valid_from),
    CONSTRAINT one_value_at_a_time EXCLUDE USING gist
        (service_point_id WITH =, attribute WITH =, daterange(valid_from, valid_to) WITH &&)
        DEFERRABLE INITIALLY DEFERRED
);
COMMENT ON TABLE ref.service_attributes IS 'What a tariff may ask of a service beyond its class, effective-dated.';
COMMENT ON COLUMN ref.service_attributes.service_point_id IS 'where the service is delivered and metered';
COMMENT ON COLUMN ref.service_attributes.attribute IS 'what is said of it: meter_size, jurisdiction, rate_code, budget_per_day, winter_average_per_day, dwelling_units, stormwater_units, lamps, tax_exempt (true: a certificate is on file), totals_into (its usage is billed at the service point named) or deducts_from (its usage is taken off that of the service point named)';
COMMENT ON COLUMN ref.service_attributes.value IS 'its value';
COMMENT ON COLUMN ref.service_attributes.valid_from IS 'first billing day it holds';
COMMENT ON COLUMN ref.service_attributes.valid_to IS 'billing day from which it no longer holds; empty while it does';

CREATE TABLE ref.meters (
    meter_id text COLLATE "C" NOT NULL CHECK (meter_id ~ '^[A-Z0-9-]{1,64}$'),
    commodity text NOT NULL CHECK (commodity IN ('electricity', 'water', 'gas')),
    head_end text COLLATE "C" NOT NULL CHECK (head_end ~ '^[A-Z0-9-]{1,64}$'),
    model text,
    collector_id text COLLATE "C" CHECK (collector_id ~ '^[A-Z0-9-]{1,64}$'),
    PRIMARY KEY (meter_id)
);
CREATE INDEX meters_by_head_end ON ref.meters (head_end);
COMMENT ON TABLE ref.meters IS 'A device. Its channels and installations are apart.';
COMMENT ON COLUMN ref.meters.meter_id IS 'the device, as its head-end names it';
COMMENT ON COLUMN ref.meters.commodity IS 'electricity, water or gas';
COMMENT ON COLUMN ref.meters.head_end IS 'head-end whose files carry its reads';
COMMENT ON COLUMN ref.meters.model IS 'make and model, for people';
COMMENT ON COLUMN ref.meters.collector_id IS 'radio collector it speaks through: silent together, they are one dropout';

CREATE TABLE ref.channels (
    meter_id text COLLATE "C" NOT NULL CHECK (meter_id ~ '^[A-Z0-9-]{1,64}$'),
    channel text COLLATE "C" NOT NULL CHECK (channel ~ '^[A-Z0-9-]{1,64}$'),
    kind text NOT NULL CHECK (kind IN ('interval', 'register')),
    unit text NOT NULL,
    interval_minutes integer,
    flow text NOT NULL CHECK (flow IN ('import', 'export', 'net', 'other')),
    multiplier numeric(18,6) NOT NULL CHECK (multiplier > -1e12 AND multiplier < 1e12),
    dials integer,
    decimals integer,
    sums_to text COLLATE "C" CHECK (sums_to ~ '^[A-Z0-9-]{1,64}$'),
    billed boolean NOT NULL,
    modulus numeric(18,6) CHECK (modulus > 0 AND modulus <= 1e12),
    PRIMARY KEY (meter_id, channel),
    FOREIGN KEY (meter_id) REFERENCES ref.meters (meter_id) DEFERRABLE INITIALLY DEFERRED
);
COMMENT ON TABLE ref.channels IS 'What a meter measures. The sums_to of a register channel names the interval channel whose sum its difference must equal; dials and decimals are its digits before and after the point; multiplier applies to the dial (CT and PT ratio), not to intervals.';
COMMENT ON COLUMN ref.channels.meter_id IS 'the device, as its head-end names it';
COMMENT ON COLUMN ref.channels.channel IS 'what of the meter is measured, as its files name it (E1, B1, R1)';
COMMENT ON COLUMN ref.channels.kind IS 'interval: a value per slot; register: a dial';
COMMENT ON COLUMN ref.channels.unit IS 'unit its files are in; converted to a base unit';
COMMENT ON COLUMN ref.channels.interval_minutes IS 'length of an interval; empty for a register';
COMMENT ON COLUMN ref.channels.flow IS 'import is used, export is delivered back, net is import less export in each interval, other is not energy';
COMMENT ON COLUMN ref.channels.multiplier IS 'factor of the dial (CT and PT ratio), not of intervals';
COMMENT ON COLUMN ref.channels.dials IS 'digits before the point, for rollover; empty where unknown';
COMMENT ON COLUMN ref.channels.decimals IS 'digits after the point';
COMMENT ON COLUMN ref.channels.sums_to IS 'interval channel whose sum the dial''s difference must equal';
COMMENT ON COLUMN ref.channels.billed IS 'whether the channel counts for the bill';
COMMENT ON COLUMN ref.channels.modulus IS 'where the dial starts again at 0, in its own unit; empty: after its last digit. The file may lack the column';

-- The hours that a time-of-use register counts: estimates are scaled to it over them, and its intervals are checked
-- against it.
CREATE TABLE ref.register_hours (
    head_end text COLLATE "C" NOT NULL CHECK (head_end ~ '^[A-Z0-9-]{1,64}$'),
    channel text COLLATE "C" NOT NULL CHECK (channel ~ '^[A-Z0-9-]{1,64}$'),
    days text NOT NULL CHECK (days IN ('all', 'workday', 'restday')),
    from_minute integer NOT NULL,
    to_minute integer NOT NULL,
    PRIMARY KEY (head_end, channel, days, from_minute)
);
COMMENT ON TABLE ref.register_hours IS 'Hours of local time that a time-of-use register of a head-end''s meters counts, minutes after midnight, end excluded. Rest days are weekends and holidays.';
COMMENT ON COLUMN ref.register_hours.head_end IS 'head-end whose meters are programmed so';
COMMENT ON COLUMN ref.register_hours.channel IS 'register that counts these hours';
COMMENT ON COLUMN ref.register_hours.days IS 'all days, workdays, or rest days: weekends and holidays';
COMMENT ON COLUMN ref.register_hours.from_minute IS 'first minute after local midnight';
COMMENT ON COLUMN ref.register_hours.to_minute IS 'minute after local midnight at which it stops; 1440 is midnight';

CREATE TABLE ref.installations (
    service_point_id text COLLATE "C" NOT NULL CHECK (service_point_id ~ '^[A-Z0-9-]{1,64}$'),
    meter_id text COLLATE "C" NOT NULL CHECK (meter_id ~ '^[A-Z0-9-]{1,64}$'),
    installed_at timestamptz NOT NULL,
    removed_at timestamptz,
    install_read numeric(18,6) CHECK (install_read > -1e12 AND install_read < 1e12),
    removal_read numeric(18,6) CHECK (removal_read > -1e12 AND removal_read < 1e12),
    PRIMARY KEY (meter_id, installed_at),
    FOREIGN KEY (meter_id) REFERENCES ref.meters (meter_id) DEFERRABLE INITIALLY DEFERRED,
    CONSTRAINT one_place_at_a_time EXCLUDE USING gist
        (meter_id WITH =, tstzrange(installed_at, removed_at) WITH &&) DEFERRABLE INITIALLY DEFERRED
);
CREATE INDEX installations_by_service_point ON ref.installations (service_point_id, installed_at);
COMMENT ON TABLE ref.installations IS 'Which meter stands at which service point, from when to when, with the billed register''s dial at both ends.';
COMMENT ON COLUMN ref.installations.service_point_id IS 'where the service is delivered and metered';
COMMENT ON COLUMN ref.installations.meter_id IS 'the device, as its head-end names it';
COMMENT ON COLUMN ref.installations.installed_at IS 'instant from which the meter stands there, UTC';
COMMENT ON COLUMN ref.installations.removed_at IS 'instant at which it was taken away, UTC; empty while it stands';
COMMENT ON COLUMN ref.installations.install_read IS 'billed register''s dial when it was installed';
COMMENT ON COLUMN ref.installations.removal_read IS 'billed register''s dial when it was taken away';

CREATE TABLE ref.accounts (
    account_id text COLLATE "C" NOT NULL CHECK (account_id ~ '^[A-Z0-9-]{1,64}$'),
    customer_class text NOT NULL CHECK (customer_class IN ('residential', 'commercial', 'industrial', 'municipal')),
    opened date NOT NULL,
    closed date,
    PRIMARY KEY (account_id)
);
COMMENT ON TABLE ref.accounts IS 'Who is billed, by a pseudonym: names and addresses stay in the customer system.';
COMMENT ON COLUMN ref.accounts.account_id IS 'who is billed, by pseudonym';
COMMENT ON COLUMN ref.accounts.customer_class IS 'class that thresholds, class profiles and tariffs go by';
COMMENT ON COLUMN ref.accounts.opened IS 'first billing day of the account';
COMMENT ON COLUMN ref.accounts.closed IS 'billing day from which it is closed; empty while open';

CREATE TABLE ref.agreements (
    account_id text COLLATE "C" NOT NULL CHECK (account_id ~ '^[A-Z0-9-]{1,64}$'),
    service_point_id text COLLATE "C" NOT NULL CHECK (service_point_id ~ '^[A-Z0-9-]{1,64}$'),
    tariff_id text COLLATE "C" NOT NULL CHECK (tariff_id ~ '^[A-Z0-9-]{1,64}$'),
    cycle_id text COLLATE "C" NOT NULL CHECK (cycle_id ~ '^[A-Z0-9-]{1,64}$'),
    valid_from date NOT NULL,
    valid_to date,
    PRIMARY KEY (service_point_id, valid_from),
    FOREIGN KEY (account_id) REFERENCES ref.accounts (account_id) DEFERRABLE INITIALLY DEFERRED,
    CHECK (valid_to IS NULL OR valid_to > valid_from),
    CONSTRAINT one_agreement_at_a_time EXCLUDE USING gist
        (service_point_id WITH =, daterange(valid_from, valid_to) WITH &&) DEFERRABLE INITIALLY DEFERRED
);
CREATE INDEX agreements_by_account ON ref.agreements (account_id, valid_from);
COMMENT ON TABLE ref.agreements IS 'Which account pays for which service point, on which tariff and cycle, from which billing day.';
COMMENT ON COLUMN ref.agreements.account_id IS 'account that pays';
COMMENT ON COLUMN ref.agreements.service_point_id IS 'where the service is delivered and metered';
COMMENT ON COLUMN ref.agreements.tariff_id IS 'tariff it is charged on';
COMMENT ON COLUMN ref.agreements.cycle_id IS 'billing cycle it is billed in';
COMMENT ON COLUMN ref.agreements.valid_from IS 'first billing day it holds';
COMMENT ON COLUMN ref.agreements.valid_to IS 'billing day from which it no longer holds; empty while it does';

CREATE TABLE ref.billing_cycles (
    cycle_id text COLLATE "C" NOT NULL CHECK (cycle_id ~ '^[A-Z0-9-]{1,64}$'),
    period_start date NOT NULL,
    period_end date NOT NULL,
    PRIMARY KEY (cycle_id, period_start),
    CONSTRAINT one_period_at_a_time EXCLUDE USING gist
        (cycle_id WITH =, daterange(period_start, period_end) WITH &&) DEFERRABLE INITIALLY DEFERRED
);
COMMENT ON TABLE ref.billing_cycles IS 'Periods of a billing cycle, end excluded.';
COMMENT ON COLUMN ref.billing_cycles.cycle_id IS 'group of accounts billed on the same days';
COMMENT ON COLUMN ref.billing_cycles.period_start IS 'first billing day of the period';
COMMENT ON COLUMN ref.billing_cycles.period_end IS 'billing day after its last';

CREATE TABLE ref.tariffs (
    tariff_id text COLLATE "C" NOT NULL CHECK (tariff_id ~ '^[A-Z0-9-]{1,64}$'),
    commodity text NOT NULL CHECK (commodity IN ('electricity', 'water', 'gas')),
    version integer NOT NULL,
    valid_from date NOT NULL,
    valid_to date,
    document text NOT NULL,
    PRIMARY KEY (tariff_id, version),
    CHECK (valid_to IS NULL OR valid_to > valid_from),
    CONSTRAINT one_version_at_a_time EXCLUDE USING gist
        (tariff_id WITH =, daterange(valid_from, valid_to) WITH &&) DEFERRABLE INITIALLY DEFERRED
);
COMMENT ON TABLE ref.tariffs IS 'Versions of a tariff; document is a file under tariffs/ beside this table.';
COMMENT ON COLUMN ref.tariffs.tariff_id IS 'tariff';
COMMENT ON COLUMN ref.tariffs.commodity IS 'electricity, water or gas';
COMMENT ON COLUMN ref.tariffs.version IS 'number of the version, from 1';
COMMENT ON COLUMN ref.tariffs.valid_from IS 'first billing day it holds';
COMMENT ON COLUMN ref.tariffs.valid_to IS 'billing day from which it no longer holds; empty while it does';
COMMENT ON COLUMN ref.tariffs.document IS 'file under tariffs/ that says what it charges';

CREATE TABLE ref.tariff_document (
    tariff_id text COLLATE "C" NOT NULL,
    version integer NOT NULL,
    body jsonb NOT NULL,
    sha256 bytea NOT NULL CHECK (length(sha256) = 32),
    PRIMARY KEY (tariff_id, version)
);
COMMENT ON TABLE ref.tariff_document IS 'The tariff documents as published, by version, with the hash of the file.';
COMMENT ON COLUMN ref.tariff_document.tariff_id IS 'tariff id (id)';
COMMENT ON COLUMN ref.tariff_document.version IS 'version (integer)';
COMMENT ON COLUMN ref.tariff_document.body IS 'The document.';
COMMENT ON COLUMN ref.tariff_document.sha256 IS 'SHA-256 of the file as imported.';

CREATE TABLE ref.revenue_accounts (
    commodity text NOT NULL CHECK (commodity IN ('electricity', 'water', 'gas', '*')),
    customer_class text NOT NULL CHECK (
        customer_class IN ('residential', 'commercial', 'industrial', 'municipal', '*')),
    component text NOT NULL,
    revenue_account text NOT NULL,
    receivable_account text NOT NULL,
    valid_from date NOT NULL,
    valid_to date,
    PRIMARY KEY (commodity, customer_class, component, valid_from),
    CHECK (valid_to IS NULL OR valid_to > valid_from),
    CONSTRAINT one_account_at_a_time EXCLUDE USING gist
        (commodity WITH =, customer_class WITH =, component WITH =, daterange(valid_from, valid_to) WITH &&)
        DEFERRABLE INITIALLY DEFERRED
);
COMMENT ON TABLE ref.revenue_accounts IS 'Accounts of the general ledger that unbilled revenue is booked to. * stands for every other value: a row that names a component comes before one that names a commodity, and that before one that names a class.';
COMMENT ON COLUMN ref.revenue_accounts.commodity IS 'electricity, water or gas; * every other one';
COMMENT ON COLUMN ref.revenue_accounts.customer_class IS 'class of the account; * every other one';
COMMENT ON COLUMN ref.revenue_accounts.component IS 'component of the charge (energy, fixed, demand_flat, demand_tou, rider, tax, minimum, credit); * every other one';
COMMENT ON COLUMN ref.revenue_accounts.revenue_account IS 'account that is credited, in the general ledger''s own code';
COMMENT ON COLUMN ref.revenue_accounts.receivable_account IS 'account of unbilled receivables that is debited';
COMMENT ON COLUMN ref.revenue_accounts.valid_from IS 'first billing day it holds';
COMMENT ON COLUMN ref.revenue_accounts.valid_to IS 'billing day from which it no longer holds; empty while it does';

CREATE TABLE ref.winter_average_rules (
    customer_class text NOT NULL CHECK (
        customer_class IN ('residential', 'commercial', 'industrial', 'municipal', '*')),
    months text NOT NULL,
    drop_high integer NOT NULL,
    drop_low integer NOT NULL,
    least_periods integer NOT NULL,
    default_per_day numeric(18,6) CHECK (default_per_day > -1e12 AND default_per_day < 1e12),
    valid_from date NOT NULL,
    valid_to date,
    PRIMARY KEY (customer_class, valid_from),
    CHECK (valid_to IS NULL OR valid_to > valid_from),
    CONSTRAINT one_rule_at_a_time EXCLUDE USING gist
        (customer_class WITH =, daterange(valid_from, valid_to) WITH &&) DEFERRABLE INITIALLY DEFERRED,
    CONSTRAINT leaves_something CHECK (drop_high >= 0 AND drop_low >= 0 AND least_periods > 0)
);
COMMENT ON TABLE ref.winter_average_rules IS 'How a service''s winter average is worked out, by customer class; * is every class without a rule of its own.';
COMMENT ON COLUMN ref.winter_average_rules.customer_class IS 'class of the account; * every other one';
COMMENT ON COLUMN ref.winter_average_rules.months IS 'months whose billing periods count, by the month of a period''s last day: numbers from 1 to 12, with blanks between';
COMMENT ON COLUMN ref.winter_average_rules.drop_high IS 'how many of the highest periods are left out';
COMMENT ON COLUMN ref.winter_average_rules.drop_low IS 'how many of the lowest periods are left out';
COMMENT ON COLUMN ref.winter_average_rules.least_periods IS 'periods that must be left for an average; else the default holds';
COMMENT ON COLUMN ref.winter_average_rules.default_per_day IS 'quantity a day, in the unit of the service''s tariff, where too few periods are left; empty: none';
COMMENT ON COLUMN ref.winter_average_rules.valid_from IS 'first billing day it holds';
COMMENT ON COLUMN ref.winter_average_rules.valid_to IS 'billing day from which it no longer holds; empty while it does';

CREATE TABLE ref.zones (
    zone_id text COLLATE "C" NOT NULL CHECK (zone_id ~ '^[A-Z0-9-]{1,64}$'),
    kind text NOT NULL CHECK (kind IN ('district', 'pressure_zone', 'feeder', 'transformer', 'gas_gate')),
    commodity text NOT NULL CHECK (commodity IN ('electricity', 'water', 'gas')),
    name text NOT NULL,
    parent_id text COLLATE "C" CHECK (parent_id ~ '^[A-Z0-9-]{1,64}$'),
    valid_from date NOT NULL,
    valid_to date,
    PRIMARY KEY (zone_id, valid_from),
    CHECK (valid_to IS NULL OR valid_to > valid_from),
    CONSTRAINT one_of_zones_at_a_time EXCLUDE USING gist
        (zone_id WITH =, daterange(valid_from, valid_to) WITH &&) DEFERRABLE INITIALLY DEFERRED
);
COMMENT ON TABLE ref.zones IS 'Zones of the network whose supply is metered, in a tree: a zone holds the customers of the zones below it.';
COMMENT ON COLUMN ref.zones.zone_id IS 'zone of the network';
COMMENT ON COLUMN ref.zones.kind IS 'district (district metered area), pressure_zone, feeder, transformer or gas_gate';
COMMENT ON COLUMN ref.zones.commodity IS 'electricity, water or gas';
COMMENT ON COLUMN ref.zones.name IS 'what people call it';
COMMENT ON COLUMN ref.zones.parent_id IS 'the zone it is part of; empty at the top';
COMMENT ON COLUMN ref.zones.valid_from IS 'first billing day it holds';
COMMENT ON COLUMN ref.zones.valid_to IS 'billing day from which it no longer holds; empty while it does';

CREATE TABLE ref.zone_members (
    service_point_id text COLLATE "C" NOT NULL CHECK (service_point_id ~ '^[A-Z0-9-]{1,64}$'),
    zone_id text COLLATE "C" NOT NULL CHECK (zone_id ~ '^[A-Z0-9-]{1,64}$'),
    valid_from date NOT NULL,
    valid_to date,
    PRIMARY KEY (service_point_id, valid_from),
    CHECK (valid_to IS NULL OR valid_to > valid_from),
    CONSTRAINT one_of_zone_members_at_a_time EXCLUDE USING gist
        (service_point_id WITH =, daterange(valid_from, valid_to) WITH &&) DEFERRABLE INITIALLY DEFERRED
);
COMMENT ON TABLE ref.zone_members IS 'Which zone a customer''s service point draws from; one at a time, the smallest that it is known of.';
COMMENT ON COLUMN ref.zone_members.service_point_id IS 'where the service is delivered and metered';
COMMENT ON COLUMN ref.zone_members.zone_id IS 'zone of the network';
COMMENT ON COLUMN ref.zone_members.valid_from IS 'first billing day it holds';
COMMENT ON COLUMN ref.zone_members.valid_to IS 'billing day from which it no longer holds; empty while it does';

CREATE TABLE ref.zone_supplies (
    zone_id text COLLATE "C" NOT NULL CHECK (zone_id ~ '^[A-Z0-9-]{1,64}$'),
    service_point_id text COLLATE "C" NOT NULL CHECK (service_point_id ~ '^[A-Z0-9-]{1,64}$'),
    direction text NOT NULL CHECK (direction IN ('in', 'out')),
    valid_from date NOT NULL,
    valid_to date,
    PRIMARY KEY (zone_id, service_point_id, valid_from),
    CHECK (valid_to IS NULL OR valid_to > valid_from),
    CONSTRAINT one_of_zone_supplies_at_a_time EXCLUDE USING gist
        (zone_id WITH =, service_point_id WITH =, daterange(valid_from, valid_to) WITH &&) DEFERRABLE INITIALLY DEFERRED
);
COMMENT ON TABLE ref.zone_supplies IS 'Meters of what a zone receives (in) and passes on (out); a meter between two zones is out of one and in of the other.';
COMMENT ON COLUMN ref.zone_supplies.zone_id IS 'zone of the network';
COMMENT ON COLUMN ref.zone_supplies.service_point_id IS 'where the supply meter stands';
COMMENT ON COLUMN ref.zone_supplies.direction IS 'in: delivered into the zone; out: passed on to another';
COMMENT ON COLUMN ref.zone_supplies.valid_from IS 'first billing day it holds';
COMMENT ON COLUMN ref.zone_supplies.valid_to IS 'billing day from which it no longer holds; empty while it does';

CREATE TABLE ref.zone_unmetered (
    zone_id text COLLATE "C" NOT NULL CHECK (zone_id ~ '^[A-Z0-9-]{1,64}$'),
    purpose text NOT NULL,
    quantity_per_day numeric(18,6) NOT NULL CHECK (quantity_per_day > -1e12 AND quantity_per_day < 1e12),
    unit text NOT NULL,
    valid_from date NOT NULL,
    valid_to date,
    PRIMARY KEY (zone_id, purpose, valid_from),
    CHECK (valid_to IS NULL OR valid_to > valid_from),
    CONSTRAINT one_of_zone_unmetered_at_a_time EXCLUDE USING gist
        (zone_id WITH =, purpose WITH =, daterange(valid_from, valid_to) WITH &&) DEFERRABLE INITIALLY DEFERRED
);
COMMENT ON TABLE ref.zone_unmetered IS 'Authorised use that no meter counts, as declared: flushing, fire fighting, street lights.';
COMMENT ON COLUMN ref.zone_unmetered.zone_id IS 'zone of the network';
COMMENT ON COLUMN ref.zone_unmetered.purpose IS 'what it is used for';
COMMENT ON COLUMN ref.zone_unmetered.quantity_per_day IS 'quantity a day';
COMMENT ON COLUMN ref.zone_unmetered.unit IS 'unit of the quantity, as meters use it';
COMMENT ON COLUMN ref.zone_unmetered.valid_from IS 'first billing day it holds';
COMMENT ON COLUMN ref.zone_unmetered.valid_to IS 'billing day from which it no longer holds; empty while it does';

-- Imports, and corrections of what was imported.

CREATE TABLE ref.import (
    imported_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    content_sha256 bytea NOT NULL CHECK (length(content_sha256) = 32),
    source text NOT NULL,
    rows jsonb NOT NULL,
    PRIMARY KEY (imported_at, content_sha256)
);
COMMENT ON TABLE ref.import IS 'Every accepted import of reference data: what it held.';
COMMENT ON COLUMN ref.import.imported_at IS 'When it was committed, UTC.';
COMMENT ON COLUMN ref.import.content_sha256 IS 'SHA-256 over the tables as imported.';
COMMENT ON COLUMN ref.import.source IS 'The folder or file it came from.';
COMMENT ON COLUMN ref.import.rows IS 'Rows by table.';

-- People approve a digest: over the changes, days, statements and money as they were computed, and the state they stand
-- on.
CREATE TABLE ref.correction (
    digest bytea NOT NULL CHECK (length(digest) = 32),
    source text NOT NULL,
    previewed_at timestamptz NOT NULL,
    state_sha256 bytea NOT NULL CHECK (length(state_sha256) = 32),
    changes jsonb NOT NULL,
    reached jsonb NOT NULL,
    summary jsonb NOT NULL,
    issued_money_changes boolean NOT NULL,
    applied_at timestamptz,
    PRIMARY KEY (digest)
);
COMMENT ON TABLE ref.correction IS 'Previewed corrections of reference data: what each would change, reach and cost, and whether it was made.';
COMMENT ON COLUMN ref.correction.digest IS 'SHA-256 over changes, days, statements, money and state_sha256: what people approve.';
COMMENT ON COLUMN ref.correction.source IS 'The folder it came from.';
COMMENT ON COLUMN ref.correction.previewed_at IS 'When it was computed, UTC.';
COMMENT ON COLUMN ref.correction.state_sha256 IS 'SHA-256 over the stored rows that the figures stand on; the correction is refused where they moved.';
COMMENT ON COLUMN ref.correction.changes IS 'Each changed row: table, old, new.';
COMMENT ON COLUMN ref.correction.reached IS 'Service points by billing day.';
COMMENT ON COLUMN ref.correction.summary IS 'What reference import --dry-run --json prints.';
COMMENT ON COLUMN ref.correction.issued_money_changes IS 'Whether statements that were issued come to something else: two people make it then.';
COMMENT ON COLUMN ref.correction.applied_at IS 'When it was made, UTC; null while it was only previewed.';

CREATE TABLE ref.change_set (
    known_from timestamptz NOT NULL,
    ledger_entry bigint NOT NULL,
    made_by text NOT NULL,
    source text NOT NULL,
    reason text NOT NULL,
    rows integer NOT NULL CHECK (rows > 0),
    PRIMARY KEY (known_from)
);
COMMENT ON TABLE ref.change_set IS 'Every transaction that changed reference data: when it became known, who made it, and the ledger entry with a leaf for each changed row.';
COMMENT ON COLUMN ref.change_set.known_from IS 'The record time of its rows, UTC: known_from of those it wrote, known_until of those it replaced.';
COMMENT ON COLUMN ref.change_set.ledger_entry IS 'Its ledger entry (ledger.entry.entry_id).';
COMMENT ON COLUMN ref.change_set.made_by IS 'The person, or the database user of an import without a name.';
COMMENT ON COLUMN ref.change_set.source IS 'The folder, file or command it came from.';
COMMENT ON COLUMN ref.change_set.reason IS 'Why, where a person said so.';
COMMENT ON COLUMN ref.change_set.rows IS 'How many rows changed: the number of leaves.';

-- The same as meter_pipeline.sharding.shard_of: the first four bytes of the id's MD5, big-endian, modulo the number of
-- shards.
CREATE FUNCTION ref.shard_of(id text, shards integer) RETURNS integer
    LANGUAGE sql IMMUTABLE PARALLEL SAFE STRICT
    RETURN (('x' || substr(md5(id), 1, 8))::bit(32)::bigint & 4294967295) % shards;
COMMENT ON FUNCTION ref.shard_of IS 'Shard (0 to shards - 1) of a service point id; a stable hash, the same as in Python.';

-- A tariff version that a bill was made with keeps its document, whoever writes.
CREATE FUNCTION ref.keep_used_document() RETURNS trigger LANGUAGE plpgsql AS $function$
BEGIN
    IF EXISTS (SELECT FROM billing.tariff_version AS v WHERE v.tariff_id = OLD.tariff_id AND v.version = OLD.version AND v.document_sha256 = OLD.sha256)
        AND (TG_OP = 'DELETE' OR NEW.sha256 <> OLD.sha256 OR NEW.tariff_id <> OLD.tariff_id OR NEW.version <> OLD.version) THEN
        RAISE EXCEPTION '% version % was billed with: its document cannot change', OLD.tariff_id, OLD.version
            USING ERRCODE = 'integrity_constraint_violation', HINT = 'Publish a new version.';
    END IF;
    RETURN CASE WHEN TG_OP = 'DELETE' THEN OLD ELSE NEW END;
END
$function$;
COMMENT ON FUNCTION ref.keep_used_document IS 'Trigger: refuses another document under a tariff version that bills were made with.';
CREATE TRIGGER keep_used_document BEFORE UPDATE OR DELETE ON ref.tariff_document FOR EACH ROW
    EXECUTE FUNCTION ref.keep_used_document();
ALTER TABLE ref.tariff_document ENABLE ALWAYS TRIGGER keep_used_document;

-- Record time. ref.NAME holds what is true as far as is known now; known_from says since when it is known. A row that
-- is changed or taken out goes to ref.NAME_version with the instant until which it was known. Triggers write it, so
-- that no statement can change a row without its old one being kept.

-- One writer at a time, and record times that only grow, so that what was known at an instant never changes afterwards.
CREATE FUNCTION ref.record_time() RETURNS timestamptz LANGUAGE plpgsql AS $$
DECLARE
    held text := current_setting('meter_pipeline.record_time', true);
    made timestamptz;
BEGIN
    IF held <> '' THEN
        RETURN held::timestamptz;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtextextended('meter_pipeline reference data', 0));
    SELECT greatest(clock_timestamp(), max(known_from) + interval '1 microsecond') INTO made FROM ref.change_set;
    PERFORM set_config('meter_pipeline.record_time', made::text, true);
    RETURN made;
END
$$;
COMMENT ON FUNCTION ref.record_time IS 'The record time of this transaction: the same for all its rows, later than that of every transaction before.';

CREATE FUNCTION ref.keep_version() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    made timestamptz;
BEGIN
    IF TG_OP = 'UPDATE' THEN
        NEW.known_from := OLD.known_from;
        IF NEW IS NOT DISTINCT FROM OLD THEN
            RETURN NULL;
        END IF;
    END IF;
    made := ref.record_time();
    IF TG_OP <> 'INSERT' AND OLD.known_from < made THEN
        EXECUTE format('INSERT INTO ref.%I SELECT (jsonb_populate_record(NULL::ref.%1$I, to_jsonb($1) || jsonb_build_object(''known_until'', $2))).*',
            TG_TABLE_NAME || '_version') USING OLD, made;
    END IF;
    IF TG_OP = 'DELETE' THEN
        RETURN OLD;
    END IF;
    NEW.known_from := made;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION ref.keep_version IS 'Keeps the old row of a change as a version, and stamps the new one with its record time.';

CREATE FUNCTION ref.refuse_history_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'ref.% keeps what was known: its rows are never changed', TG_TABLE_NAME;
END
$$;
COMMENT ON FUNCTION ref.refuse_history_change IS 'Versions are append-only.';

-- Makes the history of a reference table, or brings it to columns that were added to the table: a migration that adds
-- one calls it again.
CREATE FUNCTION ref.keep_history(named text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    version text := named || '_version';
    listed text;
    keys text;
    added record;
BEGIN
    IF to_regclass(format('ref.%I', version)) IS NULL THEN
        EXECUTE format('ALTER TABLE ref.%I ADD COLUMN known_from timestamptz NOT NULL DEFAULT timestamptz ''2000-01-01 00:00:00Z''', named);
        EXECUTE format('COMMENT ON COLUMN ref.%I.known_from IS %L', named, 'record time: since when the row is known as it is, UTC; 2000 for rows from before history was kept');
        EXECUTE format('CREATE TABLE ref.%I (LIKE ref.%I INCLUDING COMMENTS)', version, named);
        EXECUTE format('ALTER TABLE ref.%I ADD COLUMN known_until timestamptz NOT NULL, ADD CHECK (known_until > known_from)', version);
        EXECUTE format('COMMENT ON COLUMN ref.%I.known_until IS %L', version, 'record time at which the row was changed or taken out, UTC');
        EXECUTE format('COMMENT ON TABLE ref.%I IS %L', version, format('Rows of ref.%s as they were known before; ref.%1$s_as_of(instant) puts them together.', named));
        SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY k.n) INTO keys FROM pg_constraint AS c, unnest(c.conkey) WITH ORDINALITY AS k (column_no, n),
            pg_attribute AS a WHERE c.conrelid = format('ref.%I', named)::regclass AND c.contype = 'p' AND a.attrelid = c.conrelid AND a.attnum = k.column_no;
        EXECUTE format('ALTER TABLE ref.%I ADD PRIMARY KEY (%s, known_from)', version, keys);
        EXECUTE format('CREATE INDEX ON ref.%I (known_until)', version);
        EXECUTE format('CREATE TRIGGER keep_version BEFORE INSERT OR UPDATE OR DELETE ON ref.%I FOR EACH ROW EXECUTE FUNCTION ref.keep_version()', named);
        EXECUTE format('CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON ref.%I FOR EACH STATEMENT EXECUTE FUNCTION ref.refuse_history_change()', named);
        EXECUTE format('CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ref.%I FOR EACH STATEMENT EXECUTE FUNCTION ref.refuse_history_change()', version);
    END IF;
    FOR added IN
        SELECT a.attname AS name, format_type(a.atttypid, a.atttypmod) AS kind, col_description(a.attrelid, a.attnum) AS about FROM pg_attribute AS a
        WHERE a.attrelid = format('ref.%I', named)::regclass AND a.attnum > 0 AND NOT a.attisdropped AND NOT EXISTS
            (SELECT FROM pg_attribute AS v WHERE v.attrelid = format('ref.%I', version)::regclass AND v.attname = a.attname AND NOT v.attisdropped)
    LOOP
        EXECUTE format('ALTER TABLE ref.%I ADD COLUMN %I %s', version, added.name, added.kind);
        EXECUTE format('COMMENT ON COLUMN ref.%I.%I IS %L', version, added.name, added.about);
    END LOOP;
    SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) INTO listed FROM pg_attribute
        WHERE attrelid = format('ref.%I', named)::regclass AND attnum > 0 AND NOT attisdropped;
    EXECUTE format('CREATE OR REPLACE FUNCTION ref.%I(instant timestamptz) RETURNS SETOF ref.%I LANGUAGE sql STABLE AS %L', named || '_as_of', named, format(
        'SELECT %1$s FROM ref.%2$I WHERE known_from <= instant UNION ALL SELECT %1$s FROM ref.%3$I WHERE known_from <= instant AND known_until > instant', listed, named, version));
    EXECUTE format('COMMENT ON FUNCTION ref.%I IS %L', named || '_as_of', format('The rows of ref.%s as they were known at an instant.', named));
END
$$;
COMMENT ON FUNCTION ref.keep_history IS 'Gives a reference table record time: its versions, its triggers and its as_of function.';

DO $$
DECLARE
    named text;
BEGIN
    FOREACH named IN ARRAY ARRAY['weather_stations', 'weather', 'holidays', 'service_points', 'service_attributes', 'meters', 'channels',
        'register_hours', 'installations', 'accounts', 'agreements', 'billing_cycles', 'tariffs', 'tariff_document', 'revenue_accounts',
        'winter_average_rules', 'zones', 'zone_members', 'zone_supplies', 'zone_unmetered'] LOOP
        PERFORM ref.keep_history(named);
    END LOOP;
END
$$;

-- The rows that a transaction changed: the old version that ended and the new one that began at its record time. The
-- ledger holds a leaf for each: SHA-256 of the JSON text of table, old row and new row, each with its record time.
CREATE FUNCTION ref.changes_at(instant timestamptz) RETURNS TABLE (table_name text, old jsonb, new jsonb, leaf bytea)
    LANGUAGE plpgsql STABLE AS $$
DECLARE
    named text;
    keys text;
BEGIN
    FOR named IN SELECT c.relname FROM pg_class AS c WHERE c.relnamespace = 'ref'::regnamespace AND c.relkind = 'r'
        AND to_regclass(format('ref.%I', c.relname || '_version')) IS NOT NULL ORDER BY c.relname COLLATE "C"
    LOOP
        SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY k.n) INTO keys FROM pg_constraint AS c, unnest(c.conkey) WITH ORDINALITY AS k (column_no, n),
            pg_attribute AS a WHERE c.conrelid = format('ref.%I', named)::regclass AND c.contype = 'p' AND a.attrelid = c.conrelid AND a.attnum = k.column_no;
        RETURN QUERY EXECUTE format(
            'SELECT %1$L, o.row, n.row, sha256(convert_to(jsonb_build_object(''table'', %1$L, ''old'', o.row, ''new'', n.row)::text, ''UTF8'')) '
            'FROM (SELECT %3$s, to_jsonb(v) - ''known_until'' AS row FROM ref.%2$I AS v WHERE known_until = $1) AS o '
            'FULL JOIN (SELECT %3$s, to_jsonb(t) AS row FROM ref.%4$I AS t WHERE known_from = $1 UNION ALL '
            'SELECT %3$s, to_jsonb(v) - ''known_until'' FROM ref.%2$I AS v WHERE known_from = $1) AS n USING (%3$s) ORDER BY %3$s',
            named, named || '_version', keys, named) USING instant;
    END LOOP;
END
$$;
COMMENT ON FUNCTION ref.changes_at IS 'The rows that a transaction changed, by its record time: table, old row, new row, and the leaf of the ledger over them.';

-- The stage that imports reference data checks that every changed row has its leaf, and may not read the ledger: this
-- function reads it for the roles that postgres/privileges.toml names, and gives the hashes of imports alone.
CREATE FUNCTION ref.ledger_leaves(entry bigint) RETURNS bytea
LANGUAGE sql STABLE AS $function$
    SELECT e.leaves FROM ledger.entry AS e WHERE e.entry_id = entry AND e.kind = 'reference_imported'
$function$;
COMMENT ON FUNCTION ref.ledger_leaves IS 'The leaves of a ledger entry of changed reference rows, end to end; null for another entry.';

-- migrate:down
DO $$ BEGIN RAISE EXCEPTION 'migrations go forward only: restore a backup'; END $$;
