-- migrate:up
-- What a corrected bill stands on. A statement keeps its segments for ever (billing.statement_segment); an adjustment keeps those of the statement
-- as it is after it, so that the quantity of a corrected bill is stored and need not be guessed from its lines: riders, tiers and capped blocks
-- count the same units several times or not at all.
CREATE TABLE billing.adjustment_segment (
    adjustment_id text COLLATE "C" NOT NULL REFERENCES billing.adjustment,
    service_point_id text COLLATE "C" NOT NULL,
    tariff_id text COLLATE "C" NOT NULL,
    tariff_version integer NOT NULL,
    segment_start date NOT NULL,
    segment_end date NOT NULL,
    days integer NOT NULL,
    unit text NOT NULL,
    energy bigint[] NOT NULL,
    peaks bigint[] NOT NULL,
    carry_out bigint[] NOT NULL,
    posting_month date NOT NULL,
    PRIMARY KEY (adjustment_id, service_point_id, segment_start)
);
COMMENT ON TABLE billing.adjustment_segment IS 'What a statement''s lines stand on after an adjustment: all its segments, none where nothing is left of it.';
COMMENT ON COLUMN billing.adjustment_segment.adjustment_id IS 'Adjustment.';
COMMENT ON COLUMN billing.adjustment_segment.service_point_id IS 'Service point.';
COMMENT ON COLUMN billing.adjustment_segment.tariff_id IS 'Tariff.';
COMMENT ON COLUMN billing.adjustment_segment.tariff_version IS 'Version.';
COMMENT ON COLUMN billing.adjustment_segment.segment_start IS 'First day.';
COMMENT ON COLUMN billing.adjustment_segment.segment_end IS 'Day after the last.';
COMMENT ON COLUMN billing.adjustment_segment.days IS 'Days of the stretch up to the segment''s end.';
COMMENT ON COLUMN billing.adjustment_segment.unit IS 'Unit of energy.';
COMMENT ON COLUMN billing.adjustment_segment.energy IS 'Usage of the segment per period, millionths of unit.';
COMMENT ON COLUMN billing.adjustment_segment.peaks IS 'Highest demand up to the segment''s end per register.';
COMMENT ON COLUMN billing.adjustment_segment.carry_out IS 'Net metering credit that goes on, per period.';
COMMENT ON COLUMN billing.adjustment_segment.posting_month IS 'Accounting month.';
CREATE INDEX adjustment_segment_by_service_point ON billing.adjustment_segment (service_point_id, segment_start);
SELECT billing.guard_sealed('billing.adjustment_segment', 'posting_month');

ALTER TABLE billing.adjustment ADD COLUMN restated boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN billing.adjustment.restated IS 'Whether its segments are in billing.adjustment_segment; false for adjustments asked for before that table.';

-- Segments as they count now: those of the last posted adjustment that restated them, else those the statement was issued with.
CREATE VIEW billing.segment_in_effect AS
WITH last AS (
    SELECT DISTINCT ON (a.statement_id) a.statement_id, a.adjustment_id FROM billing.adjustment AS a
    WHERE a.status = 'posted' AND a.restated ORDER BY a.statement_id, a.posted_at DESC, length(a.adjustment_id) DESC, a.adjustment_id DESC
)
SELECT g.statement_id, NULL::text AS adjustment_id, g.service_point_id, g.tariff_id, g.tariff_version, g.segment_start, g.segment_end, g.unit, g.energy
FROM billing.statement_segment AS g WHERE NOT EXISTS (SELECT FROM last WHERE last.statement_id = g.statement_id)
UNION ALL
SELECT last.statement_id, g.adjustment_id, g.service_point_id, g.tariff_id, g.tariff_version, g.segment_start, g.segment_end, g.unit, g.energy
FROM billing.adjustment_segment AS g JOIN last USING (adjustment_id);
COMMENT ON VIEW billing.segment_in_effect IS 'The segments bills stand on now: of the last posted adjustment that restated them, else as issued.';
COMMENT ON COLUMN billing.segment_in_effect.statement_id IS 'Statement.';
COMMENT ON COLUMN billing.segment_in_effect.adjustment_id IS 'Adjustment it comes from; null for the statement as issued.';
COMMENT ON COLUMN billing.segment_in_effect.service_point_id IS 'Service point.';
COMMENT ON COLUMN billing.segment_in_effect.tariff_id IS 'Tariff.';
COMMENT ON COLUMN billing.segment_in_effect.tariff_version IS 'Version.';
COMMENT ON COLUMN billing.segment_in_effect.segment_start IS 'First day.';
COMMENT ON COLUMN billing.segment_in_effect.segment_end IS 'Day after the last.';
COMMENT ON COLUMN billing.segment_in_effect.unit IS 'Unit of energy.';
COMMENT ON COLUMN billing.segment_in_effect.energy IS 'Usage of the segment per period, millionths of unit.';

-- migrate:down
DROP VIEW billing.segment_in_effect;
DROP TABLE billing.adjustment_segment;
ALTER TABLE billing.adjustment DROP COLUMN restated;
