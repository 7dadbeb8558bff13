-- migrate:up
-- What happens to the bill when a validation rule hits. Each finding of a day carries the action that the utility's policy gave it; a held bill waits until
-- the data are right or a person releases what was found.
ALTER TABLE vee.exception ADD COLUMN action text NOT NULL DEFAULT 'bill' CHECK (action IN ('hold', 'estimate', 'bill'));
COMMENT ON COLUMN vee.exception.action IS 'What the policy in force on the day does: hold the bill, bill an estimate, or bill the value and say so.';

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
CREATE INDEX validation_finding_held ON anomaly.validation_finding (service_point_id, billing_day) WHERE action = 'hold' AND released_at IS NULL;
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

-- Which days of a service are held, and by what. A case of validation holds exactly the days that still fail; any other case the days from its first
-- to its last.
CREATE OR REPLACE VIEW anomaly.bill_hold AS
SELECT c.service_point_id, c.first_day, c.last_day, c.case_id, c.kind, c.state FROM anomaly.exception_case AS c
WHERE c.hold AND c.family <> 'validation'
UNION ALL
SELECT f.service_point_id, f.billing_day, f.billing_day, coalesce(f.case_id, ''), f.kind, 'open' FROM anomaly.validation_finding AS f
WHERE f.action = 'hold' AND f.released_at IS NULL;
COMMENT ON COLUMN anomaly.bill_hold.kind IS 'Kind of the case, or the validation rule that failed.';
COMMENT ON COLUMN anomaly.bill_hold.state IS 'open or assigned; open for a finding of validation, whose case may be confirmed while its data wait to be corrected.';

-- A decision about wrong data says nothing about how a customer's usage scatters.
CREATE OR REPLACE VIEW anomaly.decisions_by_point AS
SELECT service_point_id, count(*) FILTER (WHERE state = 'confirmed') AS confirmed, count(*) FILTER (WHERE state = 'dismissed') AS dismissed
FROM anomaly.exception_case WHERE service_point_id <> '' AND state IN ('confirmed', 'dismissed') AND family <> 'validation' GROUP BY service_point_id;

-- Wrong data that a person confirmed stay held until they are corrected.
ALTER TABLE anomaly.exception_case DROP CONSTRAINT exception_case_check2;
ALTER TABLE anomaly.exception_case ADD CONSTRAINT exception_case_hold
    CHECK (NOT hold OR state IN ('open', 'assigned') OR (state = 'confirmed' AND family = 'validation'));

-- migrate:down
ALTER TABLE anomaly.exception_case DROP CONSTRAINT exception_case_hold;
UPDATE anomaly.exception_case SET hold = false WHERE state = 'confirmed';
ALTER TABLE anomaly.exception_case ADD CONSTRAINT exception_case_check2 CHECK (NOT hold OR state IN ('open', 'assigned'));
CREATE OR REPLACE VIEW anomaly.decisions_by_point AS
SELECT service_point_id, count(*) FILTER (WHERE state = 'confirmed') AS confirmed, count(*) FILTER (WHERE state = 'dismissed') AS dismissed
FROM anomaly.exception_case WHERE service_point_id <> '' AND state IN ('confirmed', 'dismissed') GROUP BY service_point_id;
CREATE OR REPLACE VIEW anomaly.bill_hold AS
SELECT c.service_point_id, c.first_day, c.last_day, c.case_id, c.kind, c.state FROM anomaly.exception_case AS c WHERE c.hold;
DROP TABLE anomaly.validation_finding;
ALTER TABLE vee.exception DROP COLUMN action;
