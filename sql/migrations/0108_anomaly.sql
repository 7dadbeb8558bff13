-- migrate:up
-- Expectations, flags and the queue in which people decide about them. No table here changes a billed quantity.
CREATE SCHEMA anomaly;
COMMENT ON SCHEMA anomaly IS 'Weather baselines, anomaly flags and the exception queue.';

CREATE TABLE anomaly.weather_day (
    station_id text COLLATE "C" NOT NULL CHECK (station_id ~ '^[A-Z0-9-]{1,64}$'),
    weather_day date NOT NULL,
    temperature_min_c double precision NOT NULL,
    temperature_max_c double precision NOT NULL,
    temperature_mean_c double precision NOT NULL,
    hours smallint,
    hourly_c real[],
    source text NOT NULL,
    loaded_at timestamptz NOT NULL,
    PRIMARY KEY (station_id, weather_day)
);
COMMENT ON TABLE anomaly.weather_day IS 'Temperatures of a billing day from a weather file; stands before ref.weather where both have the day.';
COMMENT ON COLUMN anomaly.weather_day.station_id IS 'Weather station.';
COMMENT ON COLUMN anomaly.weather_day.weather_day IS 'Billing day (an hourly source) or the station''s own day (a daily one).';
COMMENT ON COLUMN anomaly.weather_day.temperature_min_c IS 'Lowest temperature, °C.';
COMMENT ON COLUMN anomaly.weather_day.temperature_max_c IS 'Highest temperature, °C.';
COMMENT ON COLUMN anomaly.weather_day.temperature_mean_c IS 'Mean of the day''s hours, °C; (min + max) / 2 from a daily source without a mean.';
COMMENT ON COLUMN anomaly.weather_day.hours IS 'Hours it is made of, gaps of up to six hours filled; null from a daily source.';
COMMENT ON COLUMN anomaly.weather_day.hourly_c IS 'The day''s hours in order, °C, NaN where unknown; null from a daily source.';
COMMENT ON COLUMN anomaly.weather_day.source IS 'File and format it came from.';
COMMENT ON COLUMN anomaly.weather_day.loaded_at IS 'When it was loaded, UTC.';

CREATE TABLE anomaly.point_list (
    list_hash bytea NOT NULL CHECK (length(list_hash) = 32),
    points text NOT NULL,
    PRIMARY KEY (list_hash)
);
COMMENT ON TABLE anomaly.point_list IS 'Lists of service points, sorted, one a line: what the rows of anomaly.day_facts are about.';
COMMENT ON COLUMN anomaly.point_list.list_hash IS 'SHA-256 of the list.';
COMMENT ON COLUMN anomaly.point_list.points IS 'Service point ids, sorted, one a line.';

CREATE TABLE anomaly.day_facts (
    billing_day date NOT NULL,
    commodity text NOT NULL,
    unit text NOT NULL,
    points integer NOT NULL,
    list_hash bytea NOT NULL REFERENCES anomaly.point_list (list_hash),
    usage bytea NOT NULL,
    coverage bytea NOT NULL,
    signs bytea NOT NULL,
    export bytea,
    night bytea,
    sustained bytea,
    PRIMARY KEY (billing_day, commodity, unit)
);
COMMENT ON TABLE anomaly.day_facts IS 'What detection saw of a day, packed: a year of a city reads back in a second. Made from the validated day each time its flags are.';
COMMENT ON COLUMN anomaly.day_facts.billing_day IS 'The day.';
COMMENT ON COLUMN anomaly.day_facts.commodity IS 'electricity, water or gas.';
COMMENT ON COLUMN anomaly.day_facts.unit IS 'Base unit.';
COMMENT ON COLUMN anomaly.day_facts.points IS 'Number of service points, the length of every array.';
COMMENT ON COLUMN anomaly.day_facts.list_hash IS 'Which service points, in order.';
COMMENT ON COLUMN anomaly.day_facts.usage IS 'Little-endian float32: import in whole units, NaN where nothing is known. For detection only.';
COMMENT ON COLUMN anomaly.day_facts.coverage IS 'Bytes: percent of the slots that were actually read.';
COMMENT ON COLUMN anomaly.day_facts.signs IS 'Bytes: 1 disconnected or inactive, 2 account changed, 4 register went back, 8 ran backward, 16 outage flags.';
COMMENT ON COLUMN anomaly.day_facts.export IS 'Little-endian float32: export; null where nobody exports.';
COMMENT ON COLUMN anomaly.day_facts.night IS 'Little-endian float32: lowest hourly flow of the day (water), NaN where an hour is estimated or missing.';
COMMENT ON COLUMN anomaly.day_facts.sustained IS 'Little-endian float32: highest flow held for three hours (water).';

CREATE TABLE anomaly.baseline_version (
    version text NOT NULL,
    as_of date NOT NULL,
    fitted_at timestamptz NOT NULL,
    first_day date NOT NULL,
    last_day date NOT NULL,
    points integer NOT NULL,
    own integer NOT NULL,
    content_hash bytea NOT NULL CHECK (length(content_hash) = 32),
    PRIMARY KEY (version)
);
CREATE INDEX baseline_version_by_day ON anomaly.baseline_version (as_of, fitted_at);
COMMENT ON TABLE anomaly.baseline_version IS 'Each refit of the baselines. Flags name the version they were judged by.';
COMMENT ON COLUMN anomaly.baseline_version.version IS 'As-of day and the first digits of the content hash: the same data give the same version.';
COMMENT ON COLUMN anomaly.baseline_version.as_of IS 'First billing day it may judge.';
COMMENT ON COLUMN anomaly.baseline_version.fitted_at IS 'When it was fitted, UTC.';
COMMENT ON COLUMN anomaly.baseline_version.first_day IS 'First day of usage it was fitted on.';
COMMENT ON COLUMN anomaly.baseline_version.last_day IS 'Last day of usage it was fitted on.';
COMMENT ON COLUMN anomaly.baseline_version.points IS 'Service points in it.';
COMMENT ON COLUMN anomaly.baseline_version.own IS 'Those with a model of their own; the rest have their class profile.';
COMMENT ON COLUMN anomaly.baseline_version.content_hash IS 'SHA-256 over its rows.';

CREATE TABLE anomaly.baseline (
    hdd_balance_f double precision,
    cdd_balance_f double precision,
    intercept double precision NOT NULL,
    hdd_beta double precision NOT NULL,
    cdd_beta double precision NOT NULL,
    weekend double precision NOT NULL,
    holiday double precision NOT NULL,
    r2 double precision,
    adj_r2 double precision,
    sigma double precision,
    robust_sigma double precision,
    low_f double precision NOT NULL,
    high_f double precision NOT NULL,
    days integer NOT NULL,
    version text NOT NULL REFERENCES anomaly.baseline_version (version),
    service_point_id text COLLATE "C" NOT NULL,
    unit text NOT NULL,
    commodity text NOT NULL,
    station_id text COLLATE "C" NOT NULL,
    model text NOT NULL CHECK (model IN ('hdd_cdd', 'hdd', 'cdd', 'intercept')),
    status text NOT NULL CHECK (status IN ('caltrack', 'provisional', 'class_profile')),
    hourly boolean NOT NULL DEFAULT false,
    PRIMARY KEY (version, service_point_id, unit)
);
COMMENT ON TABLE anomaly.baseline IS 'What a service point is expected to use at a temperature: intercept + hdd_beta * max(0, hdd_balance - t) + cdd_beta * max(0, t - cdd_balance) a day.';
COMMENT ON COLUMN anomaly.baseline.hdd_balance_f IS 'Heating balance point, °F; null without a heating term.';
COMMENT ON COLUMN anomaly.baseline.cdd_balance_f IS 'Cooling balance point, °F; null without a cooling term.';
COMMENT ON COLUMN anomaly.baseline.intercept IS 'Units a day whatever the weather.';
COMMENT ON COLUMN anomaly.baseline.hdd_beta IS 'Units per heating degree day °F.';
COMMENT ON COLUMN anomaly.baseline.cdd_beta IS 'Units per cooling degree day °F.';
COMMENT ON COLUMN anomaly.baseline.weekend IS 'Units more on Saturdays and Sundays, where that earned its place (BIC).';
COMMENT ON COLUMN anomaly.baseline.holiday IS 'Units more on holidays, likewise.';
COMMENT ON COLUMN anomaly.baseline.r2 IS 'Share of the variance explained.';
COMMENT ON COLUMN anomaly.baseline.adj_r2 IS 'R2 adjusted for the number of terms: what the model was chosen by.';
COMMENT ON COLUMN anomaly.baseline.sigma IS 'Residual standard deviation, n - p degrees of freedom, units a day.';
COMMENT ON COLUMN anomaly.baseline.robust_sigma IS 'The same from the median absolute deviation, which a spike does not widen.';
COMMENT ON COLUMN anomaly.baseline.low_f IS 'Coldest daily mean the model may speak about, °F.';
COMMENT ON COLUMN anomaly.baseline.high_f IS 'Warmest, °F.';
COMMENT ON COLUMN anomaly.baseline.days IS 'Measured days it was fitted on.';
COMMENT ON COLUMN anomaly.baseline.version IS 'Refit it belongs to.';
COMMENT ON COLUMN anomaly.baseline.service_point_id IS 'Service point.';
COMMENT ON COLUMN anomaly.baseline.unit IS 'Unit of usage.';
COMMENT ON COLUMN anomaly.baseline.commodity IS 'electricity, water or gas.';
COMMENT ON COLUMN anomaly.baseline.station_id IS 'Weather station.';
COMMENT ON COLUMN anomaly.baseline.model IS 'Terms of the model.';
COMMENT ON COLUMN anomaly.baseline.status IS 'caltrack: a full year with at most 10 % missing; provisional: 60 days or more; class_profile: fewer, its class stands in.';
COMMENT ON COLUMN anomaly.baseline.hourly IS 'Degree hours rather than degree days: kept where the station has hours and they fit better (adjusted R2).';

CREATE TABLE anomaly.flag (
    expected double precision,
    observed double precision,
    confidence double precision NOT NULL CHECK (confidence BETWEEN 0 AND 1),
    billing_day date NOT NULL,
    kind text NOT NULL,
    service_point_id text COLLATE "C" NOT NULL,
    group_id text COLLATE "C" NOT NULL,
    commodity text NOT NULL,
    unit text NOT NULL,
    severity text NOT NULL CHECK (severity IN ('inform', 'warn', 'severe')),
    evidence jsonb NOT NULL,
    baseline_version text,
    case_id text,
    PRIMARY KEY (billing_day, kind, service_point_id, group_id, unit),
    CHECK ((service_point_id = '') <> (group_id = ''))
);
CREATE INDEX flag_by_point ON anomaly.flag (service_point_id, billing_day);
-- A case shows its flags by day: without this index each look reads every flag.
CREATE INDEX flag_by_case ON anomaly.flag (case_id, billing_day) WHERE case_id IS NOT NULL;
COMMENT ON TABLE anomaly.flag IS 'Findings about a billing day. Derived anew, the same, whenever the day is judged again.';
COMMENT ON COLUMN anomaly.flag.expected IS 'What was expected, in unit; null where no expectation applies.';
COMMENT ON COLUMN anomaly.flag.observed IS 'What was observed, in unit; null where nothing came.';
COMMENT ON COLUMN anomaly.flag.confidence IS 'How sure the rule is: one half at its threshold.';
COMMENT ON COLUMN anomaly.flag.billing_day IS 'Day found on.';
COMMENT ON COLUMN anomaly.flag.kind IS 'Kind, from the closed list.';
COMMENT ON COLUMN anomaly.flag.service_point_id IS 'Service point, empty for a group.';
COMMENT ON COLUMN anomaly.flag.group_id IS 'Collector or head-end, empty for a service point.';
COMMENT ON COLUMN anomaly.flag.commodity IS 'electricity, water or gas.';
COMMENT ON COLUMN anomaly.flag.unit IS 'Unit of expected and observed.';
COMMENT ON COLUMN anomaly.flag.severity IS 'inform, warn or severe.';
COMMENT ON COLUMN anomaly.flag.evidence IS 'The figures the rule looked at.';
COMMENT ON COLUMN anomaly.flag.baseline_version IS 'Baselines the day was judged by; null where there were none.';
COMMENT ON COLUMN anomaly.flag.case_id IS 'Case it is part of; null where its kind opens none.';

CREATE TABLE anomaly.flag_run (
    billing_day date NOT NULL,
    judged_at timestamptz NOT NULL,
    points integer NOT NULL,
    flags integer NOT NULL,
    weather text NOT NULL CHECK (weather IN ('complete', 'partial', 'missing')),
    baseline_version text,
    content_hash bytea NOT NULL CHECK (length(content_hash) = 32),
    PRIMARY KEY (billing_day)
);
COMMENT ON TABLE anomaly.flag_run IS 'Days judged, and whether the weather was there: a day without it is judged again when it comes.';
COMMENT ON COLUMN anomaly.flag_run.billing_day IS 'The day.';
COMMENT ON COLUMN anomaly.flag_run.judged_at IS 'When its present flags were made, UTC.';
COMMENT ON COLUMN anomaly.flag_run.points IS 'Service points judged.';
COMMENT ON COLUMN anomaly.flag_run.flags IS 'Flags raised.';
COMMENT ON COLUMN anomaly.flag_run.weather IS 'complete, partial or missing: flags that need the weather wait for it; billing never does.';
COMMENT ON COLUMN anomaly.flag_run.baseline_version IS 'Baselines used.';
COMMENT ON COLUMN anomaly.flag_run.content_hash IS 'SHA-256 over the flags.';

-- Wrong data that a person confirmed stay held until they are corrected.
CREATE TABLE anomaly.exception_case (
    first_day date NOT NULL,
    last_day date NOT NULL,
    days integer NOT NULL CHECK (days > 0),
    opened_at timestamptz NOT NULL,
    decided_at timestamptz,
    confidence double precision NOT NULL CHECK (confidence BETWEEN 0 AND 1),
    hold boolean NOT NULL,
    case_id text NOT NULL,
    family text NOT NULL,
    kind text NOT NULL,
    subject text COLLATE "C" NOT NULL,
    service_point_id text COLLATE "C" NOT NULL,
    commodity text NOT NULL,
    severity text NOT NULL CHECK (severity IN ('inform', 'warn', 'severe')),
    state text NOT NULL CHECK (state IN ('open', 'assigned', 'confirmed', 'dismissed', 'expired')),
    assigned_to text,
    decided_by text,
    reason text,
    PRIMARY KEY (case_id),
    CHECK (first_day <= last_day),
    CHECK ((state IN ('confirmed', 'dismissed')) = (decided_by IS NOT NULL)),
    CONSTRAINT exception_case_hold
        CHECK (NOT hold OR state IN ('open', 'assigned') OR (state = 'confirmed' AND family = 'validation'))
);
CREATE INDEX exception_case_by_subject ON anomaly.exception_case (subject, family);
CREATE INDEX exception_case_held ON anomaly.exception_case (service_point_id) WHERE hold;
-- Indexes in the order in which the finance desk pages through: a page costs the same wherever it begins.
CREATE INDEX exception_case_newest ON anomaly.exception_case (last_day DESC, case_id);
CREATE INDEX exception_case_undecided ON anomaly.exception_case (last_day DESC, case_id)
    WHERE state IN ('open', 'assigned');
CREATE INDEX exception_case_by_state ON anomaly.exception_case (state, last_day DESC, case_id);
CREATE INDEX exception_case_by_kind ON anomaly.exception_case (kind, last_day DESC, case_id);
CREATE INDEX exception_case_by_point ON anomaly.exception_case (service_point_id, last_day DESC, case_id);
CREATE INDEX exception_case_by_assignee ON anomaly.exception_case (assigned_to, last_day DESC, case_id)
    WHERE assigned_to IS NOT NULL;
COMMENT ON TABLE anomaly.exception_case IS 'The exception queue: one matter about one subject, however many days it lasts.';
COMMENT ON COLUMN anomaly.exception_case.first_day IS 'First flagged billing day.';
COMMENT ON COLUMN anomaly.exception_case.last_day IS 'Last flagged billing day.';
COMMENT ON COLUMN anomaly.exception_case.days IS 'Flagged billing days.';
COMMENT ON COLUMN anomaly.exception_case.opened_at IS 'When it was opened, UTC.';
COMMENT ON COLUMN anomaly.exception_case.decided_at IS 'When it was confirmed, dismissed or expired, UTC.';
COMMENT ON COLUMN anomaly.exception_case.confidence IS 'Highest confidence of its flags.';
COMMENT ON COLUMN anomaly.exception_case.hold IS 'Whether the bill of its days waits for the decision.';
COMMENT ON COLUMN anomaly.exception_case.case_id IS 'Family, subject and the day it was opened with.';
COMMENT ON COLUMN anomaly.exception_case.family IS 'Kinds of one family about one subject are one matter.';
COMMENT ON COLUMN anomaly.exception_case.kind IS 'Kind of the latest flag.';
COMMENT ON COLUMN anomaly.exception_case.subject IS 'Service point, collector or head-end.';
COMMENT ON COLUMN anomaly.exception_case.service_point_id IS 'The service point, empty for a group.';
COMMENT ON COLUMN anomaly.exception_case.commodity IS 'electricity, water or gas.';
COMMENT ON COLUMN anomaly.exception_case.severity IS 'Highest severity of its flags.';
COMMENT ON COLUMN anomaly.exception_case.state IS 'open, assigned, confirmed, dismissed or expired.';
COMMENT ON COLUMN anomaly.exception_case.assigned_to IS 'Who works on it.';
COMMENT ON COLUMN anomaly.exception_case.decided_by IS 'Who confirmed or dismissed it.';
COMMENT ON COLUMN anomaly.exception_case.reason IS 'Why, in the decider''s words.';

CREATE TABLE anomaly.validation_finding (
    first_seen timestamptz NOT NULL,
    released_at timestamptz,
    billing_day date NOT NULL,
    service_point_id text COLLATE "C" NOT NULL CHECK (service_point_id <> ''),
    kind text NOT NULL,
    meter_id text COLLATE "C" NOT NULL,
    channel text COLLATE "C" NOT NULL,
    severity text NOT NULL CHECK (severity IN ('inform', 'warn', 'fail')),
    action text NOT NULL CHECK (action IN ('hold', 'estimate', 'bill')),
    detail text NOT NULL,
    case_id text,
    released_by text,
    reason text,
    PRIMARY KEY (service_point_id, billing_day, kind, meter_id, channel),
    CHECK ((released_at IS NULL) = (released_by IS NULL) AND (released_at IS NULL) = (reason IS NULL))
);
CREATE INDEX validation_finding_by_day ON anomaly.validation_finding (billing_day);
CREATE INDEX validation_finding_held ON anomaly.validation_finding (service_point_id, billing_day)
    WHERE action = 'hold' AND released_at IS NULL;
COMMENT ON TABLE anomaly.validation_finding IS 'Findings of validation that are in the exception queue, and who released which for billing as they stand. One whose figures change is held anew; what was released before is in the ledger.';
COMMENT ON COLUMN anomaly.validation_finding.first_seen IS 'When it was first found, UTC.';
COMMENT ON COLUMN anomaly.validation_finding.released_at IS 'When a person released it, UTC; null where it stands.';
COMMENT ON COLUMN anomaly.validation_finding.billing_day IS 'Day.';
COMMENT ON COLUMN anomaly.validation_finding.service_point_id IS 'Service point.';
COMMENT ON COLUMN anomaly.validation_finding.kind IS 'Validation rule that hit.';
COMMENT ON COLUMN anomaly.validation_finding.meter_id IS 'Meter, empty where it concerns the whole service point.';
COMMENT ON COLUMN anomaly.validation_finding.channel IS 'Channel, empty likewise.';
COMMENT ON COLUMN anomaly.validation_finding.severity IS 'inform, warn or fail.';
COMMENT ON COLUMN anomaly.validation_finding.action IS 'hold, estimate or bill.';
COMMENT ON COLUMN anomaly.validation_finding.detail IS 'What exactly, with its figures: a release is for these figures.';
COMMENT ON COLUMN anomaly.validation_finding.case_id IS 'Case it is part of.';
COMMENT ON COLUMN anomaly.validation_finding.released_by IS 'Who released it.';
COMMENT ON COLUMN anomaly.validation_finding.reason IS 'Why.';

CREATE VIEW anomaly.temperature AS
SELECT station_id, weather_day, temperature_mean_c, 'file' AS source FROM anomaly.weather_day
UNION ALL
SELECT r.station_id, r.weather_day,
    coalesce(r.temperature_mean_c, (r.temperature_min_c + r.temperature_max_c) / 2)::double precision, 'reference'
FROM ref.weather AS r
WHERE NOT EXISTS (SELECT 1 FROM anomaly.weather_day AS w
    WHERE w.station_id = r.station_id AND w.weather_day = r.weather_day);
COMMENT ON VIEW anomaly.temperature IS 'The mean temperature of every station and day that is known.';
COMMENT ON COLUMN anomaly.temperature.station_id IS 'Weather station.';
COMMENT ON COLUMN anomaly.temperature.weather_day IS 'Day.';
COMMENT ON COLUMN anomaly.temperature.temperature_mean_c IS 'Mean temperature, °C.';
COMMENT ON COLUMN anomaly.temperature.source IS 'file: anomaly.weather_day; reference: ref.weather.';

-- A case of validation holds exactly the days that still fail; any other case the days from its first to its last.
CREATE VIEW anomaly.bill_hold AS
SELECT c.service_point_id, c.first_day, c.last_day, c.case_id, c.kind, c.state FROM anomaly.exception_case AS c
WHERE c.hold AND c.family <> 'validation'
UNION ALL
SELECT f.service_point_id, f.billing_day, f.billing_day, coalesce(f.case_id, ''), f.kind, 'open'
FROM anomaly.validation_finding AS f
WHERE f.action = 'hold' AND f.released_at IS NULL;
COMMENT ON VIEW anomaly.bill_hold IS 'Service points whose bill for these days waits for a decision about a case.';
COMMENT ON COLUMN anomaly.bill_hold.service_point_id IS 'Service point.';
COMMENT ON COLUMN anomaly.bill_hold.first_day IS 'First day held.';
COMMENT ON COLUMN anomaly.bill_hold.last_day IS 'Last day held.';
COMMENT ON COLUMN anomaly.bill_hold.case_id IS 'Case that holds.';
COMMENT ON COLUMN anomaly.bill_hold.kind IS 'Kind of the case, or the validation rule that failed.';
COMMENT ON COLUMN anomaly.bill_hold.state IS 'open or assigned; open for a finding of validation, whose case may be confirmed while its data wait to be corrected.';

-- A decision about wrong data says nothing about how a customer's usage scatters.
CREATE VIEW anomaly.decisions_by_point AS
SELECT service_point_id, count(*) FILTER (WHERE state = 'confirmed') AS confirmed,
    count(*) FILTER (WHERE state = 'dismissed') AS dismissed
FROM anomaly.exception_case WHERE service_point_id <> '' AND state IN ('confirmed', 'dismissed')
    AND family <> 'validation'
GROUP BY service_point_id;
COMMENT ON VIEW anomaly.decisions_by_point IS 'What people decided about each service point: from these counts its thresholds are widened or narrowed.';
COMMENT ON COLUMN anomaly.decisions_by_point.service_point_id IS 'Service point.';
COMMENT ON COLUMN anomaly.decisions_by_point.confirmed IS 'Cases confirmed.';
COMMENT ON COLUMN anomaly.decisions_by_point.dismissed IS 'Cases dismissed.';

-- migrate:down
DO $$ BEGIN RAISE EXCEPTION 'migrations go forward only: restore a backup'; END $$;
