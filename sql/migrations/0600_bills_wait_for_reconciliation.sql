-- migrate:up
-- A day of a service that does not reconcile holds the bill of its account; the rest of the city is billed.
ALTER TABLE billing.statement_exception DROP CONSTRAINT statement_exception_reason_check;
ALTER TABLE billing.statement_exception ADD CONSTRAINT statement_exception_reason_check CHECK (reason IN ('days_missing', 'held', 'not_charged',
    'estimate_streak', 'billed_by_legacy', 'true_up_waiting', 'earlier_statement', 'set_aside', 'not_reconciled'));
COMMENT ON COLUMN billing.statement_exception.reason IS 'days_missing, held (an anomaly case), not_charged (a day could not be priced or has no usage), not_reconciled (a reconciliation check of a day is open for the service), true_up_waiting (a day will be validated again), earlier_statement (the one before it waits), set_aside (its pricing failed), billed_by_legacy (legacy has authority over the account), or estimate_streak (issued, but look).';
COMMENT ON COLUMN billing.reconciliation.subject IS 'File, billing cycle, or the service point of an open cause; all for the rest of the day.';

-- The services that the open causes of a day are about. An open cause names its service point; a file that does not add up is about every service
-- of its head-end, because nobody knows which of its reads is missing; usage that is billed at another service point is about that one too. Rows of
-- before open causes named their service are about everyone (all).
CREATE VIEW billing.open_service AS
WITH open AS (SELECT billing_day, joint, subject FROM billing.reconciliation WHERE cause = 'open'),
named AS (
    SELECT billing_day, joint, subject AS service_point_id FROM open WHERE joint NOT IN ('file_to_reads', 'lines_to_statement', 'statement_to_ledger')
    UNION SELECT o.billing_day, o.joint, v.service_point_id FROM open AS o JOIN raw.feed_file AS f ON encode(f.sha256, 'hex') = o.subject
        JOIN vee.interval_day AS v ON v.billing_day = o.billing_day AND v.head_end = f.head_end WHERE o.joint = 'file_to_reads'
    UNION SELECT o.billing_day, o.joint, i.service_point_id FROM open AS o JOIN raw.feed_file AS f ON encode(f.sha256, 'hex') = o.subject
        JOIN raw.register_read AS r ON r.billing_day = o.billing_day AND r.head_end = f.head_end JOIN ref.installations AS i ON i.meter_id = r.meter_id
        WHERE o.joint = 'file_to_reads' AND i.installed_at <= r.read_at AND (i.removed_at IS NULL OR i.removed_at >= r.read_at)
)
SELECT billing_day, joint, service_point_id FROM named
UNION SELECT n.billing_day, n.joint, upper(btrim(a.value)) FROM named AS n JOIN ref.service_attributes AS a USING (service_point_id)
    WHERE a.attribute IN ('totals_into', 'deducts_from') AND a.valid_from <= n.billing_day AND (a.valid_to IS NULL OR a.valid_to > n.billing_day);
COMMENT ON VIEW billing.open_service IS 'Service points that an open reconciliation check of a day is about: their bills and corrections wait. The service point all is everyone.';
COMMENT ON COLUMN billing.open_service.billing_day IS 'Day.';
COMMENT ON COLUMN billing.open_service.joint IS 'Reconciliation check that is open.';
COMMENT ON COLUMN billing.open_service.service_point_id IS 'Service point.';
CREATE INDEX reconciliation_open ON billing.reconciliation (billing_day) WHERE cause = 'open';

-- migrate:down
DO $$ BEGIN RAISE EXCEPTION 'migrations go forward only: restore a backup'; END $$;
