-- migrate:up
-- meter_backup reads every table and writes nothing: what pg_dump needs. The owner's own pg_dump is refused by the ledger's guards, and a right granted to
-- it by hand is a deviation that raises the pause. The ledger is read through meter_auditor, so that no object of the ledger is altered here (an altered
-- one is a deviation until somebody accepts it): the value of its one sequence is left out of a dump and set again when the dump is restored.
DO $roles$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'meter_backup') THEN
        CREATE ROLE meter_backup NOLOGIN;
    END IF;
EXCEPTION
    -- Roles are the cluster's: another database of this server may be making it at this moment.
    WHEN duplicate_object OR unique_violation THEN NULL;
    WHEN insufficient_privilege THEN
        RAISE EXCEPTION 'role meter_backup is missing and % may not make it', current_user
            USING HINT = 'an administrator runs what this prints: meter-pipeline database roles --sql';
END
$roles$;

-- migrate:down
-- The role stays: it is the cluster's, and another database may use it.
SELECT 1;
