-- migrate:up
-- What only waits does not count: a newer proposal takes the place of one that nobody has decided yet.
ALTER TABLE billing.adjustment DROP CONSTRAINT adjustment_status_check,
    ADD CONSTRAINT adjustment_status_check CHECK (status IN ('requested', 'approved', 'refused', 'posted', 'superseded')),
    ADD COLUMN superseded_by text COLLATE "C" REFERENCES billing.adjustment,
    ADD COLUMN superseded_at timestamptz;
COMMENT ON COLUMN billing.adjustment.status IS 'requested, approved, refused, posted, superseded (its statement changed again before anybody decided).';
COMMENT ON COLUMN billing.adjustment.superseded_by IS 'Adjustment asked for in its place; null where nothing was left to correct.';
COMMENT ON COLUMN billing.adjustment.superseded_at IS 'When, UTC.';

ALTER TABLE billing.late_change ADD COLUMN waits_for text;
COMMENT ON COLUMN billing.late_change.waits_for IS 'Why no adjustment is worked out yet, as last tried; null where it was not tried.';

-- Which services a request to validate a day again concerns: their bills wait for it, nobody else's.
ALTER TABLE vee.true_up ADD COLUMN service_points text[] COLLATE "C";
COMMENT ON COLUMN vee.true_up.service_points IS 'Service points whose usage of the day will change; null where the request does not say (it then concerns everyone''s).';

ALTER TABLE billing.determinant_revision ADD COLUMN exceptions jsonb;
COMMENT ON COLUMN billing.determinant_revision.exceptions IS 'What stands against billing the day as it would be now: [[reason, detail], ...]; null where revisions did not keep it.';

ALTER TABLE billing.statement ADD COLUMN sealed_days_due numeric(20,6);
COMMENT ON COLUMN billing.statement.sealed_days_due IS 'What later reads of days in a sealed month changed: those days keep their sealed charges, the statement bills the corrected ones.';

ALTER TABLE billing.statement_exception DROP CONSTRAINT statement_exception_reason_check,
    ADD CONSTRAINT statement_exception_reason_check CHECK (reason IN ('days_missing', 'held', 'not_charged', 'estimate_streak', 'billed_by_legacy',
        'true_up_waiting', 'earlier_statement', 'set_aside'));
COMMENT ON COLUMN billing.statement_exception.reason IS 'days_missing, held (an anomaly case), not_charged (a day could not be priced or has no usage), true_up_waiting (a day will be validated again), earlier_statement (the one before it waits), set_aside (its pricing failed), billed_by_legacy (legacy has authority over the account), or estimate_streak (issued, but look).';

-- A tariff version that something was billed with keeps its document, whoever writes.
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
CREATE TRIGGER keep_used_document BEFORE UPDATE OR DELETE ON ref.tariff_document FOR EACH ROW EXECUTE FUNCTION ref.keep_used_document();
ALTER TABLE ref.tariff_document ENABLE ALWAYS TRIGGER keep_used_document;

-- migrate:down
DROP TRIGGER keep_used_document ON ref.tariff_document;
DROP FUNCTION ref.keep_used_document();
DELETE FROM billing.statement_exception WHERE reason IN ('true_up_waiting', 'earlier_statement', 'set_aside');
ALTER TABLE billing.statement_exception DROP CONSTRAINT statement_exception_reason_check,
    ADD CONSTRAINT statement_exception_reason_check CHECK (reason IN ('days_missing', 'held', 'not_charged', 'estimate_streak', 'billed_by_legacy'));
COMMENT ON COLUMN billing.statement_exception.reason IS 'days_missing, held (an anomaly case), not_charged, billed_by_legacy (a migration is under way and legacy has authority over the account), or estimate_streak (issued, but look).';
ALTER TABLE billing.determinant_revision DROP COLUMN exceptions;
ALTER TABLE billing.statement DROP COLUMN sealed_days_due;
ALTER TABLE vee.true_up DROP COLUMN service_points;
ALTER TABLE billing.late_change DROP COLUMN waits_for;
UPDATE billing.adjustment SET status = 'refused' WHERE status = 'superseded';
ALTER TABLE billing.adjustment DROP COLUMN superseded_by, DROP COLUMN superseded_at, DROP CONSTRAINT adjustment_status_check,
    ADD CONSTRAINT adjustment_status_check CHECK (status IN ('requested', 'approved', 'refused', 'posted'));
