-- migrate:up
-- Roles are the cluster's, not the database's: another database of this server may have made them, at this very moment even. What each may do
-- is in meter_pipeline/store/privileges.toml, applied after every migration.
DO $roles$
DECLARE
    wanted text;
BEGIN
    FOREACH wanted IN ARRAY ARRAY['meter_owner', 'meter_ingest', 'meter_billing', 'meter_finance'] LOOP
        BEGIN
            IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted) THEN
                EXECUTE format('CREATE ROLE %I NOLOGIN', wanted);
            END IF;
        EXCEPTION
            WHEN duplicate_object OR unique_violation THEN NULL;
            WHEN insufficient_privilege THEN
                RAISE EXCEPTION 'role % is missing and % may not make it', wanted, current_user
                    USING HINT = 'have a DBA run CREATE ROLE meter_owner NOLOGIN; and the same for meter_ingest, meter_billing, meter_finance';
        END;
    END LOOP;
END
$roles$;

-- Services take a request back when new evidence comes; only finance decides.
ALTER TABLE control.dual_decision ENABLE ROW LEVEL SECURITY;
CREATE POLICY is_read ON control.dual_decision FOR SELECT USING (true);
CREATE POLICY finance_decides ON control.dual_decision FOR INSERT TO meter_finance WITH CHECK (true);
CREATE POLICY services_withdraw ON control.dual_decision FOR INSERT TO meter_ingest, meter_billing WITH CHECK (decision = 'withdrawn');

-- migrate:down
DROP POLICY services_withdraw ON control.dual_decision;
DROP POLICY finance_decides ON control.dual_decision;
DROP POLICY is_read ON control.dual_decision;
ALTER TABLE control.dual_decision DISABLE ROW LEVEL SECURITY;
