-- migrate:up
-- Reference data: schemas/reference.py is the source of the columns; a test holds the two together.
CREATE SCHEMA ref;
COMMENT ON SCHEMA ref IS 'Reference data, effective-dated: who is metered, by what, on which tariff.';

CREATE TABLE ref.weather_stations (
    station_id text COLLATE "C" NOT NULL CHECK (station_id ~ '^[A-Z0-9-]{1,32}$'),
    name text NOT NULL,
    latitude numeric(18,6) NOT NULL CHECK (latitude > -1e12 AND latitude < 1e12),
    longitude numeric(18,6) NOT NULL CHECK (longitude > -1e12 AND longitude < 1e12),
    PRIMARY KEY (station_id)
);
COMMENT ON TABLE ref.weather_stations IS 'Where temperatures are measured.';
COMMENT ON COLUMN ref.weather_stations.station_id IS 'station id (id)';
COMMENT ON COLUMN ref.weather_stations.name IS 'name (text)';
COMMENT ON COLUMN ref.weather_stations.latitude IS 'latitude (decimal)';
COMMENT ON COLUMN ref.weather_stations.longitude IS 'longitude (decimal)';

CREATE TABLE ref.weather (
    station_id text COLLATE "C" NOT NULL CHECK (station_id ~ '^[A-Z0-9-]{1,32}$'),
    weather_day date NOT NULL,
    temperature_min_c numeric(18,6) NOT NULL CHECK (temperature_min_c > -1e12 AND temperature_min_c < 1e12),
    temperature_max_c numeric(18,6) NOT NULL CHECK (temperature_max_c > -1e12 AND temperature_max_c < 1e12),
    temperature_mean_c numeric(18,6) CHECK (temperature_mean_c > -1e12 AND temperature_mean_c < 1e12),
    PRIMARY KEY (station_id, weather_day),
    FOREIGN KEY (station_id) REFERENCES ref.weather_stations (station_id) DEFERRABLE INITIALLY DEFERRED
);
COMMENT ON TABLE ref.weather IS 'Daily temperatures in degrees Celsius; the mean is (min + max) / 2 where a station reports none.';
COMMENT ON COLUMN ref.weather.station_id IS 'station id (id)';
COMMENT ON COLUMN ref.weather.weather_day IS 'weather day (date)';
COMMENT ON COLUMN ref.weather.temperature_min_c IS 'temperature min c (decimal)';
COMMENT ON COLUMN ref.weather.temperature_max_c IS 'temperature max c (decimal)';
COMMENT ON COLUMN ref.weather.temperature_mean_c IS 'temperature mean c (decimal, may be empty)';

CREATE TABLE ref.holidays (
    holiday date NOT NULL,
    name text NOT NULL,
    PRIMARY KEY (holiday)
);
COMMENT ON TABLE ref.holidays IS 'Days that tariffs and like-day estimation treat as holidays.';
COMMENT ON COLUMN ref.holidays.holiday IS 'holiday (date)';
COMMENT ON COLUMN ref.holidays.name IS 'name (text)';

CREATE TABLE ref.service_points (
    service_point_id text COLLATE "C" NOT NULL CHECK (service_point_id ~ '^[A-Z0-9-]{1,32}$'),
    commodity text NOT NULL CHECK (commodity IN ('electricity', 'water', 'gas')),
    premise_id text COLLATE "C" NOT NULL CHECK (premise_id ~ '^[A-Z0-9-]{1,32}$'),
    route text COLLATE "C" NOT NULL CHECK (route ~ '^[A-Z0-9-]{1,32}$'),
    customer_class text NOT NULL CHECK (customer_class IN ('residential', 'commercial', 'industrial', 'municipal')),
    latitude numeric(18,6) CHECK (latitude > -1e12 AND latitude < 1e12),
    longitude numeric(18,6) CHECK (longitude > -1e12 AND longitude < 1e12),
    station_id text COLLATE "C" CHECK (station_id ~ '^[A-Z0-9-]{1,32}$'),
    status text NOT NULL CHECK (status IN ('active', 'inactive', 'disconnected')),
    valid_from date NOT NULL,
    valid_to date,
    PRIMARY KEY (service_point_id, valid_from),
    FOREIGN KEY (station_id) REFERENCES ref.weather_stations (station_id) DEFERRABLE INITIALLY DEFERRED,
    CHECK (valid_to IS NULL OR valid_to > valid_from)
);
COMMENT ON TABLE ref.service_points IS 'Where a service is delivered and metered. Status may change over time: one row per stretch.';
COMMENT ON COLUMN ref.service_points.service_point_id IS 'service point id (id)';
COMMENT ON COLUMN ref.service_points.commodity IS 'commodity (one of electricity, water, gas)';
COMMENT ON COLUMN ref.service_points.premise_id IS 'premise id (id)';
COMMENT ON COLUMN ref.service_points.route IS 'route (id)';
COMMENT ON COLUMN ref.service_points.customer_class IS 'customer class (one of residential, commercial, industrial, municipal)';
COMMENT ON COLUMN ref.service_points.latitude IS 'latitude (decimal, may be empty)';
COMMENT ON COLUMN ref.service_points.longitude IS 'longitude (decimal, may be empty)';
COMMENT ON COLUMN ref.service_points.station_id IS 'station id (id, may be empty)';
COMMENT ON COLUMN ref.service_points.status IS 'status (one of active, inactive, disconnected)';
COMMENT ON COLUMN ref.service_points.valid_from IS 'valid from (date)';
COMMENT ON COLUMN ref.service_points.valid_to IS 'valid to (date, may be empty)';

CREATE TABLE ref.meters (
    meter_id text COLLATE "C" NOT NULL CHECK (meter_id ~ '^[A-Z0-9-]{1,32}$'),
    commodity text NOT NULL CHECK (commodity IN ('electricity', 'water', 'gas')),
    head_end text COLLATE "C" NOT NULL CHECK (head_end ~ '^[A-Z0-9-]{1,32}$'),
    model text,
    collector_id text COLLATE "C" CHECK (collector_id ~ '^[A-Z0-9-]{1,32}$'),
    PRIMARY KEY (meter_id)
);
COMMENT ON TABLE ref.meters IS 'A device. Its channels and installations are apart.';
COMMENT ON COLUMN ref.meters.meter_id IS 'meter id (id)';
COMMENT ON COLUMN ref.meters.commodity IS 'commodity (one of electricity, water, gas)';
COMMENT ON COLUMN ref.meters.head_end IS 'head end (id)';
COMMENT ON COLUMN ref.meters.model IS 'model (text, may be empty)';
COMMENT ON COLUMN ref.meters.collector_id IS 'collector id (id, may be empty)';

CREATE TABLE ref.channels (
    meter_id text COLLATE "C" NOT NULL CHECK (meter_id ~ '^[A-Z0-9-]{1,32}$'),
    channel text COLLATE "C" NOT NULL CHECK (channel ~ '^[A-Z0-9-]{1,32}$'),
    kind text NOT NULL CHECK (kind IN ('interval', 'register')),
    unit text NOT NULL,
    interval_minutes integer,
    flow text NOT NULL CHECK (flow IN ('import', 'export', 'other')),
    multiplier numeric(18,6) NOT NULL CHECK (multiplier > -1e12 AND multiplier < 1e12),
    dials integer,
    decimals integer,
    sums_to text COLLATE "C" CHECK (sums_to ~ '^[A-Z0-9-]{1,32}$'),
    billed boolean NOT NULL,
    PRIMARY KEY (meter_id, channel),
    FOREIGN KEY (meter_id) REFERENCES ref.meters (meter_id) DEFERRABLE INITIALLY DEFERRED
);
COMMENT ON TABLE ref.channels IS 'What a meter measures. The sums_to of a register channel names the interval channel whose sum its difference must equal; dials and decimals are its digits before and after the point; multiplier applies to the dial (CT and PT ratio), not to intervals.';
COMMENT ON COLUMN ref.channels.meter_id IS 'meter id (id)';
COMMENT ON COLUMN ref.channels.channel IS 'channel (id)';
COMMENT ON COLUMN ref.channels.kind IS 'kind (one of interval, register)';
COMMENT ON COLUMN ref.channels.unit IS 'unit (text)';
COMMENT ON COLUMN ref.channels.interval_minutes IS 'interval minutes (integer, may be empty)';
COMMENT ON COLUMN ref.channels.flow IS 'flow (one of import, export, other)';
COMMENT ON COLUMN ref.channels.multiplier IS 'multiplier (decimal)';
COMMENT ON COLUMN ref.channels.dials IS 'dials (integer, may be empty)';
COMMENT ON COLUMN ref.channels.decimals IS 'decimals (integer, may be empty)';
COMMENT ON COLUMN ref.channels.sums_to IS 'sums to (id, may be empty)';
COMMENT ON COLUMN ref.channels.billed IS 'billed (boolean)';

CREATE TABLE ref.installations (
    service_point_id text COLLATE "C" NOT NULL CHECK (service_point_id ~ '^[A-Z0-9-]{1,32}$'),
    meter_id text COLLATE "C" NOT NULL CHECK (meter_id ~ '^[A-Z0-9-]{1,32}$'),
    installed_at timestamptz NOT NULL,
    removed_at timestamptz,
    install_read numeric(18,6) CHECK (install_read > -1e12 AND install_read < 1e12),
    removal_read numeric(18,6) CHECK (removal_read > -1e12 AND removal_read < 1e12),
    PRIMARY KEY (meter_id, installed_at),
    FOREIGN KEY (meter_id) REFERENCES ref.meters (meter_id) DEFERRABLE INITIALLY DEFERRED
);
COMMENT ON TABLE ref.installations IS 'Which meter stands at which service point, from when to when, with the billed register''s dial at both ends.';
COMMENT ON COLUMN ref.installations.service_point_id IS 'service point id (id)';
COMMENT ON COLUMN ref.installations.meter_id IS 'meter id (id)';
COMMENT ON COLUMN ref.installations.installed_at IS 'installed at (instant)';
COMMENT ON COLUMN ref.installations.removed_at IS 'removed at (instant, may be empty)';
COMMENT ON COLUMN ref.installations.install_read IS 'install read (decimal, may be empty)';
COMMENT ON COLUMN ref.installations.removal_read IS 'removal read (decimal, may be empty)';

CREATE TABLE ref.billing_cycles (
    cycle_id text COLLATE "C" NOT NULL CHECK (cycle_id ~ '^[A-Z0-9-]{1,32}$'),
    period_start date NOT NULL,
    period_end date NOT NULL,
    PRIMARY KEY (cycle_id, period_start)
);
COMMENT ON TABLE ref.billing_cycles IS 'Periods of a billing cycle, end excluded.';
COMMENT ON COLUMN ref.billing_cycles.cycle_id IS 'cycle id (id)';
COMMENT ON COLUMN ref.billing_cycles.period_start IS 'period start (date)';
COMMENT ON COLUMN ref.billing_cycles.period_end IS 'period end (date)';

CREATE TABLE ref.tariffs (
    tariff_id text COLLATE "C" NOT NULL CHECK (tariff_id ~ '^[A-Z0-9-]{1,32}$'),
    commodity text NOT NULL CHECK (commodity IN ('electricity', 'water', 'gas')),
    version integer NOT NULL,
    valid_from date NOT NULL,
    valid_to date,
    document text NOT NULL,
    PRIMARY KEY (tariff_id, version),
    CHECK (valid_to IS NULL OR valid_to > valid_from)
);
COMMENT ON TABLE ref.tariffs IS 'Versions of a tariff; document is a file under tariffs/ beside this table.';
COMMENT ON COLUMN ref.tariffs.tariff_id IS 'tariff id (id)';
COMMENT ON COLUMN ref.tariffs.commodity IS 'commodity (one of electricity, water, gas)';
COMMENT ON COLUMN ref.tariffs.version IS 'version (integer)';
COMMENT ON COLUMN ref.tariffs.valid_from IS 'valid from (date)';
COMMENT ON COLUMN ref.tariffs.valid_to IS 'valid to (date, may be empty)';
COMMENT ON COLUMN ref.tariffs.document IS 'document (text)';

CREATE TABLE ref.accounts (
    account_id text COLLATE "C" NOT NULL CHECK (account_id ~ '^[A-Z0-9-]{1,32}$'),
    customer_class text NOT NULL CHECK (customer_class IN ('residential', 'commercial', 'industrial', 'municipal')),
    opened date NOT NULL,
    closed date,
    PRIMARY KEY (account_id)
);
COMMENT ON TABLE ref.accounts IS 'Who is billed, by a pseudonym: names and addresses stay in the customer system.';
COMMENT ON COLUMN ref.accounts.account_id IS 'account id (id)';
COMMENT ON COLUMN ref.accounts.customer_class IS 'customer class (one of residential, commercial, industrial, municipal)';
COMMENT ON COLUMN ref.accounts.opened IS 'opened (date)';
COMMENT ON COLUMN ref.accounts.closed IS 'closed (date, may be empty)';

CREATE TABLE ref.agreements (
    account_id text COLLATE "C" NOT NULL CHECK (account_id ~ '^[A-Z0-9-]{1,32}$'),
    service_point_id text COLLATE "C" NOT NULL CHECK (service_point_id ~ '^[A-Z0-9-]{1,32}$'),
    tariff_id text COLLATE "C" NOT NULL CHECK (tariff_id ~ '^[A-Z0-9-]{1,32}$'),
    cycle_id text COLLATE "C" NOT NULL CHECK (cycle_id ~ '^[A-Z0-9-]{1,32}$'),
    valid_from date NOT NULL,
    valid_to date,
    PRIMARY KEY (service_point_id, valid_from),
    FOREIGN KEY (account_id) REFERENCES ref.accounts (account_id) DEFERRABLE INITIALLY DEFERRED,
    CHECK (valid_to IS NULL OR valid_to > valid_from)
);
COMMENT ON TABLE ref.agreements IS 'Which account pays for which service point, on which tariff and cycle, from which billing day.';
COMMENT ON COLUMN ref.agreements.account_id IS 'account id (id)';
COMMENT ON COLUMN ref.agreements.service_point_id IS 'service point id (id)';
COMMENT ON COLUMN ref.agreements.tariff_id IS 'tariff id (id)';
COMMENT ON COLUMN ref.agreements.cycle_id IS 'cycle id (id)';
COMMENT ON COLUMN ref.agreements.valid_from IS 'valid from (date)';
COMMENT ON COLUMN ref.agreements.valid_to IS 'valid to (date, may be empty)';

CREATE INDEX installations_by_service_point ON ref.installations (service_point_id, installed_at);
CREATE INDEX agreements_by_account ON ref.agreements (account_id, valid_from);
CREATE INDEX meters_by_head_end ON ref.meters (head_end);

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

-- migrate:down
DROP SCHEMA ref CASCADE;
