-- migrate:up
-- meter_migration records whose bill a day was, delivers to the other side, and rolls back. It may set the stage's flag to stages where legacy has
-- authority and to no other: forward is for people, in finance's role.
DO $roles$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'meter_migration') THEN
        CREATE ROLE meter_migration NOLOGIN;
    END IF;
EXCEPTION
    -- Roles are the cluster's: another database of this server may be making it at this moment.
    WHEN duplicate_object OR unique_violation THEN NULL;
    WHEN insufficient_privilege THEN
        RAISE EXCEPTION 'role meter_migration is missing and % may not make it', current_user USING HINT = 'have a DBA run CREATE ROLE meter_migration NOLOGIN';
END
$roles$;

ALTER TABLE control.flag ENABLE ROW LEVEL SECURITY;
CREATE POLICY is_read ON control.flag FOR SELECT USING (true);
CREATE POLICY people_decide ON control.flag FOR ALL TO meter_finance, meter_owner USING (true) WITH CHECK (true);
CREATE POLICY migration_is_declared ON control.flag FOR INSERT TO meter_migration WITH CHECK (flag = 'migration_stage' AND value ->> 'stage' IN ('off', 'shadow', 'dual_write'));
CREATE POLICY migration_goes_back ON control.flag FOR UPDATE TO meter_migration
    USING (flag = 'migration_stage') WITH CHECK (flag = 'migration_stage' AND value ->> 'stage' IN ('shadow', 'dual_write'));

-- What was compared on both sides, and in how many bills: a figure that only one side has is no evidence of agreement.
ALTER TABLE migration.comparison_run ADD COLUMN bills bigint NOT NULL DEFAULT 0;
ALTER TABLE migration.comparison_run ADD COLUMN source text NOT NULL DEFAULT 'pipeline' CHECK (source IN ('pipeline', 'shadow'));
ALTER TABLE migration.comparison_run ADD COLUMN results_sha256 bytea CHECK (length(results_sha256) = 32);
COMMENT ON COLUMN migration.comparison_run.compared IS 'figures that both sides have';
COMMENT ON COLUMN migration.comparison_run.bills IS 'accounts whose total both sides have';
COMMENT ON COLUMN migration.comparison_run.source IS 'where our figures came from: the pipeline''s own tables or the shadow database';
COMMENT ON COLUMN migration.comparison_run.results_sha256 IS 'SHA-256 over our figures, sorted; null in runs before it was kept';

-- A rerun of a day's comparison takes the day's earlier differences away; by day and class is how people look.
CREATE INDEX comparison_of_rounding ON migration.comparison (billing_day) WHERE class = 'rounding';

-- A bill that is changed and changed back must reach the other side three times: what counts is that the last one sent is the last one written.
ALTER TABLE migration.outbox DROP CONSTRAINT outbox_billing_day_account_id_side_payload_sha256_key;
CREATE INDEX outbox_of_record ON migration.outbox (billing_day, account_id, side, outbox_id);

CREATE TABLE migration.customer_bill (
    billing_day date NOT NULL,
    account_id text COLLATE "C" NOT NULL CHECK (account_id ~ '^[A-Z0-9-]{1,32}$'),
    payload jsonb NOT NULL,
    payload_sha256 bytea NOT NULL CHECK (length(payload_sha256) = 32),
    received_at timestamptz NOT NULL,
    PRIMARY KEY (billing_day, account_id)
);
COMMENT ON TABLE migration.customer_bill IS 'What the legacy batch billed a customer for a day while it had authority: the new side''s copy, so that neither side lacks a record.';
COMMENT ON COLUMN migration.customer_bill.billing_day IS 'billing day';
COMMENT ON COLUMN migration.customer_bill.account_id IS 'account';
COMMENT ON COLUMN migration.customer_bill.payload IS 'the figures';
COMMENT ON COLUMN migration.customer_bill.payload_sha256 IS 'hash of the record';
COMMENT ON COLUMN migration.customer_bill.received_at IS 'when it was delivered, UTC';

-- migrate:down
DROP TABLE migration.customer_bill;
DROP INDEX migration.outbox_of_record;
ALTER TABLE migration.outbox ADD UNIQUE (billing_day, account_id, side, payload_sha256);
DROP INDEX migration.comparison_of_rounding;
ALTER TABLE migration.comparison_run DROP COLUMN results_sha256, DROP COLUMN source, DROP COLUMN bills;
DROP POLICY migration_goes_back ON control.flag;
DROP POLICY migration_is_declared ON control.flag;
DROP POLICY people_decide ON control.flag;
DROP POLICY is_read ON control.flag;
ALTER TABLE control.flag DISABLE ROW LEVEL SECURITY;
