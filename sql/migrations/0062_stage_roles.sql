-- migrate:up
-- meter_notary sequences, signs and verifies the ledger after a billing day's work: the auditor writes nothing, and nobody who writes reads or
-- charges may order the log. meter_shadow compares with the legacy batch: it reads everything and writes the comparison's own tables.
-- meter_console keeps Dagster's own storage, and is all that the web server and the daemon are.
DO $roles$
DECLARE
    wanted text;
BEGIN
    FOREACH wanted IN ARRAY ARRAY['meter_notary', 'meter_shadow', 'meter_console'] LOOP
        BEGIN
            IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted) THEN
                EXECUTE format('CREATE ROLE %I NOLOGIN', wanted);
            END IF;
        EXCEPTION
            -- Roles are the cluster's: another database of this server may be making it at this moment.
            WHEN duplicate_object OR unique_violation THEN NULL;
            WHEN insufficient_privilege THEN
                RAISE EXCEPTION 'role % is missing and % may not make it', wanted, current_user
                    USING HINT = 'have a DBA run CREATE ROLE meter_notary NOLOGIN; and the same for meter_shadow, meter_console';
        END;
    END LOOP;
END
$roles$;

-- migrate:down
-- The roles stay: they are the cluster's, and another database may use them.
SELECT 1;
