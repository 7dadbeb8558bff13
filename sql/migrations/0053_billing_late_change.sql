-- migrate:up
-- Issued statements whose days moved under them, written in the transaction that moved them: an adjustment is proposed for each, whatever
-- becomes of the run in between.
CREATE TABLE billing.late_change (
    statement_id text COLLATE "C" NOT NULL REFERENCES billing.statement,
    billing_day date NOT NULL,
    service_point_id text COLLATE "C" NOT NULL,
    noticed_at timestamptz NOT NULL,
    PRIMARY KEY (statement_id, billing_day, service_point_id)
);
COMMENT ON TABLE billing.late_change IS 'Days that changed after a statement was issued from them and for which no adjustment has been worked out yet.';
COMMENT ON COLUMN billing.late_change.statement_id IS 'Statement issued.';
COMMENT ON COLUMN billing.late_change.billing_day IS 'Day that changed.';
COMMENT ON COLUMN billing.late_change.service_point_id IS 'Service point whose day it is.';
COMMENT ON COLUMN billing.late_change.noticed_at IS 'When, UTC.';
CREATE INDEX statement_segment_by_service_point ON billing.statement_segment (service_point_id, segment_start);

-- migrate:down
DROP INDEX billing.statement_segment_by_service_point;
DROP TABLE billing.late_change;
