-- migrate:up
-- Billing asks whose bill an account's period is inside the transaction that issues its statements, and holds the stage until that commits: a flip
-- waits for it. SELECT FOR SHARE needs a right to UPDATE that billing must not have, so it asks through the owner's function.
CREATE FUNCTION migration.stage_in_force() RETURNS jsonb LANGUAGE sql VOLATILE AS $$
    SELECT value FROM control.flag WHERE flag = 'migration_stage' FOR SHARE
$$;
COMMENT ON FUNCTION migration.stage_in_force() IS 'The migration''s stage, routes and share, held for share until the transaction ends; null where none was ever declared.';
ALTER TABLE billing.statement_exception DROP CONSTRAINT statement_exception_reason_check,
    ADD CONSTRAINT statement_exception_reason_check CHECK (reason IN ('days_missing', 'held', 'not_charged', 'estimate_streak', 'billed_by_legacy'));
COMMENT ON COLUMN billing.statement_exception.reason IS 'days_missing, held (an anomaly case), not_charged, billed_by_legacy (a migration is under way and legacy has authority over the account), or estimate_streak (issued, but look).';

-- migrate:down
DELETE FROM billing.statement_exception WHERE reason = 'billed_by_legacy';
ALTER TABLE billing.statement_exception DROP CONSTRAINT statement_exception_reason_check,
    ADD CONSTRAINT statement_exception_reason_check CHECK (reason IN ('days_missing', 'held', 'not_charged', 'estimate_streak'));
COMMENT ON COLUMN billing.statement_exception.reason IS 'days_missing, held (an anomaly case), not_charged, or estimate_streak (issued, but look).';
DROP FUNCTION migration.stage_in_force();
