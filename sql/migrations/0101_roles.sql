-- migrate:up
-- The database roles. They are the server's and not the database's: another database of this server may have made them,
-- or be making them now. None of them can log in. What each may do is in postgres/privileges.toml, applied after every
-- migration; the rights on schema ledger are granted by the migration that makes it.
--
-- meter_ledger_owner owns the ledger's tables, and no log-in may act as it. meter_ledger_writer appends entries,
-- meter_ledger_sequencer orders them, meter_ledger_eraser erases personal data behind one, meter_auditor reads
-- everything. Members of these do not inherit.
--
-- meter_ingest, meter_billing, meter_notary, meter_shadow and meter_migration are what the stages act as, meter_finance
-- what people's jobs do. meter_notary is a role apart from those that write reads and charges, so that they cannot
-- order the log. meter_migration moves the migration's stage back and never forward. meter_console keeps Dagster's own
-- storage. meter_analyst asks the views of schema analyst. meter_backup reads every table for pg_dump: the owner's own
-- pg_dump is refused by the ledger's guards. meter_owner deploys.
DO $roles$
DECLARE
    wanted record;
BEGIN
    FOR wanted IN
        SELECT name, ' NOINHERIT' AS how FROM unnest(ARRAY['meter_ledger_owner', 'meter_ledger_writer', 'meter_ledger_sequencer',
            'meter_ledger_eraser', 'meter_auditor']) AS name
        UNION ALL
        SELECT name, '' FROM unnest(ARRAY['meter_owner', 'meter_ingest', 'meter_billing', 'meter_finance', 'meter_notary', 'meter_shadow',
            'meter_migration', 'meter_console', 'meter_analyst', 'meter_backup']) AS name
    LOOP
        BEGIN
            IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted.name) THEN
                EXECUTE format('CREATE ROLE %I NOLOGIN%s', wanted.name, wanted.how);
            END IF;
        EXCEPTION
            WHEN duplicate_object OR unique_violation THEN NULL;
            WHEN insufficient_privilege THEN
                RAISE EXCEPTION 'role % is missing and % may not make it', wanted.name, current_user
                    USING HINT = 'an administrator runs what this prints: meter-pipeline database roles --sql';
        END;
    END LOOP;
END
$roles$;

-- migrate:down
DO $$ BEGIN RAISE EXCEPTION 'migrations go forward only: restore a backup'; END $$;
