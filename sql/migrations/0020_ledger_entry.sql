-- migrate:up
-- Roles are the cluster's, not the database's: another database of this server may have made them, at this very moment even.
DO $roles$
DECLARE
    wanted text;
BEGIN
    FOREACH wanted IN ARRAY ARRAY['meter_ledger_owner', 'meter_ledger_writer', 'meter_ledger_sequencer', 'meter_ledger_eraser', 'meter_auditor'] LOOP
        BEGIN
            IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted) THEN
                EXECUTE format('CREATE ROLE %I NOLOGIN NOINHERIT', wanted);
            END IF;
        EXCEPTION WHEN duplicate_object OR unique_violation THEN
            NULL;
        END;
    END LOOP;
END
$roles$;

CREATE SCHEMA ledger;
COMMENT ON SCHEMA ledger IS 'What happened, append-only: entries written in the transaction of the change they record, their order, signed checkpoints.';

CREATE TABLE ledger.entry (
    entry_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind text COLLATE "C" NOT NULL CHECK (kind IN (
        'received', 'ingested', 'duplicate', 'superseded', 'rejected', 'file_loaded', 'corrected', 'replayed', 'dismissed',
        'reference_imported', 'validated', 'estimated', 'baselines_fitted', 'flagged', 'flag_decided', 'billed', 'bill_issued', 'reconciled',
        'adjustment_requested', 'adjustment_approved', 'adjustment_refused', 'adjustment_posted', 'period_sealed',
        'pause_set', 'pause_requested_resume', 'pause_cleared', 'pause_refused', 'flag_flipped', 'traffic_shifted', 'comparison',
        'migration_stage', 'cutover_signed',
        'tariff_version', 'rule_version', 'code_version', 'head_end_version',
        'key_rotation', 'privileges_checked', 'verified', 'erased'
    )),
    body bytea NOT NULL CHECK (octet_length(body) BETWEEN 2 AND 65535),
    leaf_hash bytea NOT NULL,
    leaf_count integer NOT NULL DEFAULT 0,
    leaves bytea,
    billing_day date,
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    recorded_by name NOT NULL DEFAULT session_user,
    CONSTRAINT entry_leaf_hash_is_of_body CHECK (leaf_hash = sha256('\x00'::bytea || body)),
    CONSTRAINT entry_leaves_are_hashes CHECK (coalesce(octet_length(leaves), 0) = 32 * leaf_count)
);
-- 65,535 bytes of body is what an entry bundle of the tlog-tiles format can carry.
-- Hashes do not compress: keep the server from trying.
ALTER TABLE ledger.entry ALTER COLUMN leaves SET STORAGE EXTERNAL;
CREATE INDEX entry_xid ON ledger.entry (xid);
CREATE INDEX entry_billing_day ON ledger.entry (billing_day, kind) WHERE billing_day IS NOT NULL;
COMMENT ON TABLE ledger.entry IS 'One row per recorded change. Ids may have gaps (a rollback leaves one); the order that counts is ledger.leaf.';
COMMENT ON COLUMN ledger.entry.entry_id IS 'staging id, given by the server';
COMMENT ON COLUMN ledger.entry.kind IS 'what happened; the closed list of ledger/kinds.py';
COMMENT ON COLUMN ledger.entry.body IS 'canonical UTF-8 JSON exactly as hashed';
COMMENT ON COLUMN ledger.entry.leaf_hash IS 'SHA-256(0x00 || body), RFC 6962';
COMMENT ON COLUMN ledger.entry.leaf_count IS 'number of payload hashes beside the entry';
COMMENT ON COLUMN ledger.entry.leaves IS 'payload hashes end to end, 32 bytes each; their RFC 6962 root is in the body';
COMMENT ON COLUMN ledger.entry.billing_day IS 'the body''s own billing_day, repeated so that a day''s entries are found without reading bodies';
COMMENT ON COLUMN ledger.entry.xid IS 'transaction that wrote the change, for the sequencer';
COMMENT ON COLUMN ledger.entry.recorded_at IS 'server clock at the insert, UTC; evidence beside the time in the body';
COMMENT ON COLUMN ledger.entry.recorded_by IS 'database user of the session, whatever role it assumed';

-- migrate:down
DROP SCHEMA ledger CASCADE;
