-- migrate:up
-- What a corrected bill hands on reaches the bills after it.
ALTER TABLE billing.adjustment_segment ADD COLUMN credit_out bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN billing.adjustment_segment.credit_out IS 'Money credit for exports that goes on, millionths of the currency.';

CREATE VIEW billing.effective_segment AS
WITH last AS (
    SELECT DISTINCT ON (a.statement_id) a.statement_id, a.adjustment_id FROM billing.adjustment AS a
    WHERE a.status = 'posted' AND a.restated ORDER BY a.statement_id, a.posted_at DESC, length(a.adjustment_id) DESC, a.adjustment_id DESC
)
SELECT s.statement_id, s.service_point_id, s.tariff_id, s.tariff_version, s.segment_start, s.segment_end, s.energy, s.peaks, s.carry_out, s.credit_out
FROM billing.statement_segment AS s WHERE NOT EXISTS (SELECT FROM last AS l WHERE l.statement_id = s.statement_id)
UNION ALL
SELECT l.statement_id, g.service_point_id, g.tariff_id, g.tariff_version, g.segment_start, g.segment_end, g.energy, g.peaks, g.carry_out, g.credit_out
FROM last AS l JOIN billing.adjustment_segment AS g USING (adjustment_id);
COMMENT ON VIEW billing.effective_segment IS 'What statements hand on now: usage, peaks and credits of their own segments, or of those of the adjustment that was posted last.';
COMMENT ON COLUMN billing.effective_segment.statement_id IS 'Statement.';
COMMENT ON COLUMN billing.effective_segment.service_point_id IS 'Service point.';
COMMENT ON COLUMN billing.effective_segment.tariff_id IS 'Tariff.';
COMMENT ON COLUMN billing.effective_segment.tariff_version IS 'Version.';
COMMENT ON COLUMN billing.effective_segment.segment_start IS 'First day.';
COMMENT ON COLUMN billing.effective_segment.segment_end IS 'Day after the last.';
COMMENT ON COLUMN billing.effective_segment.energy IS 'Usage of the segment per period, millionths of unit.';
COMMENT ON COLUMN billing.effective_segment.peaks IS 'Highest demand up to the segment''s end per register.';
COMMENT ON COLUMN billing.effective_segment.carry_out IS 'Net metering credit that goes on, per period.';
COMMENT ON COLUMN billing.effective_segment.credit_out IS 'Money credit for exports that goes on, millionths of the currency.';

-- migrate:down
DROP VIEW billing.effective_segment;
ALTER TABLE billing.adjustment_segment DROP COLUMN credit_out;
