-- migrate:up
CREATE SCHEMA ledger;
COMMENT ON SCHEMA ledger IS 'What happened, append-only: entries written in the transaction of the change they record, their order, signed checkpoints.';

CREATE TABLE ledger.entry (
    entry_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind text COLLATE "C" NOT NULL CHECK (kind IN (
        'received', 'ingested', 'duplicate', 'superseded', 'rejected', 'file_loaded', 'corrected', 'replayed',
        'dismissed',
        'reference_imported', 'validated', 'estimated', 'baselines_fitted', 'flagged', 'flag_decided', 'billed',
        'bill_issued', 'reconciled',
        'adjustment_requested', 'adjustment_approved', 'adjustment_refused', 'adjustment_posted', 'period_sealed',
        'pause_set', 'pause_requested_resume', 'pause_cleared', 'pause_refused', 'flag_flipped', 'traffic_shifted',
        'comparison',
        'migration_stage', 'cutover_signed',
        'tariff_version', 'rule_version', 'code_version', 'head_end_version',
        'key_rotation', 'privileges_checked', 'verified', 'erased'
    )),
    -- 65,535 bytes of body is what an entry bundle of the tlog-tiles format can carry.
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

-- The log: the order of entries, the tree over them, the signed checkpoints, and who cosigned.
CREATE TABLE ledger.log (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    log_id uuid NOT NULL DEFAULT gen_random_uuid(),
    origin text NOT NULL CHECK (origin ~ '^[a-z0-9][a-z0-9./-]{2,199}$'),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE ledger.log IS 'One row: which log this is. Another database is another log, never a fork of this one.';
COMMENT ON COLUMN ledger.log.one IS 'always true: one row';
COMMENT ON COLUMN ledger.log.log_id IS 'random identity of this log';
COMMENT ON COLUMN ledger.log.origin IS 'first line of every checkpoint and name of its key';
COMMENT ON COLUMN ledger.log.created_at IS 'when the first entry was sequenced, UTC';

CREATE TABLE ledger.leaf (
    leaf_index bigint PRIMARY KEY CHECK (leaf_index >= 0),
    entry_id bigint NOT NULL UNIQUE REFERENCES ledger.entry (entry_id),
    leaf_hash bytea NOT NULL CHECK (octet_length(leaf_hash) = 32)
);
COMMENT ON TABLE ledger.leaf IS 'An entry''s place in the log: contiguous from 0, given after commit by the one sequencer.';
COMMENT ON COLUMN ledger.leaf.leaf_index IS 'place in the log, from 0, no gaps';
COMMENT ON COLUMN ledger.leaf.entry_id IS 'the entry at this place';
COMMENT ON COLUMN ledger.leaf.leaf_hash IS 'RFC 6962 leaf hash of its body';

CREATE TABLE ledger.node (
    level smallint NOT NULL CHECK (level >= 8 AND level % 8 = 0),
    node_index bigint NOT NULL CHECK (node_index >= 0),
    node_hash bytea NOT NULL CHECK (octet_length(node_hash) = 32),
    PRIMARY KEY (level, node_index)
);
COMMENT ON TABLE ledger.node IS 'Roots of complete subtrees of 256, 65536, ... leaves (the tiles of the tlog-tiles format), so that a proof reads a few hundred hashes.';
COMMENT ON COLUMN ledger.node.level IS 'height in the tree, a multiple of 8';
COMMENT ON COLUMN ledger.node.node_index IS 'covers leaves from node_index * 2^level';
COMMENT ON COLUMN ledger.node.node_hash IS 'RFC 6962 hash of the subtree';

CREATE TABLE ledger.tree_head (
    tree_size bigint PRIMARY KEY CHECK (tree_size >= 0),
    root_hash bytea NOT NULL CHECK (octet_length(root_hash) = 32),
    horizon xid8 NOT NULL,
    cluster_id bigint NOT NULL,
    sequenced_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE ledger.tree_head IS 'The tree after each round of sequencing.';
COMMENT ON COLUMN ledger.tree_head.tree_size IS 'entries in the log';
COMMENT ON COLUMN ledger.tree_head.root_hash IS 'RFC 6962 root over them';
COMMENT ON COLUMN ledger.tree_head.horizon IS 'every entry of an older transaction is in the log';
COMMENT ON COLUMN ledger.tree_head.cluster_id IS 'system identifier of the server that gave the transaction ids: elsewhere they mean nothing';
COMMENT ON COLUMN ledger.tree_head.sequenced_at IS 'server clock, UTC';

CREATE TABLE ledger.checkpoint (
    tree_size bigint PRIMARY KEY REFERENCES ledger.tree_head (tree_size),
    note text NOT NULL CHECK (octet_length(note) < 65536),
    key_id text NOT NULL CHECK (key_id ~ '^[0-9a-f]{8}$'),
    signed_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE ledger.checkpoint IS 'Signed tree heads: C2SP tlog-checkpoint notes. The key is elsewhere.';
COMMENT ON COLUMN ledger.checkpoint.tree_size IS 'entries covered';
COMMENT ON COLUMN ledger.checkpoint.note IS 'the signed note, as published';
COMMENT ON COLUMN ledger.checkpoint.key_id IS 'first four bytes of the key''s id, hex';
COMMENT ON COLUMN ledger.checkpoint.signed_at IS 'server clock when it was stored, UTC';

CREATE TABLE ledger.cosignature (
    tree_size bigint NOT NULL REFERENCES ledger.checkpoint (tree_size),
    name text NOT NULL,
    key_id text NOT NULL CHECK (key_id ~ '^[0-9a-f]{8}$'),
    line text NOT NULL CHECK (octet_length(line) < 4096),
    received_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tree_size, key_id, line)
);
COMMENT ON TABLE ledger.cosignature IS 'What witnesses run by others said about a checkpoint.';
COMMENT ON COLUMN ledger.cosignature.tree_size IS 'the checkpoint';
COMMENT ON COLUMN ledger.cosignature.name IS 'the witness''s key name';
COMMENT ON COLUMN ledger.cosignature.key_id IS 'first four bytes of the witness''s key id, hex';
COMMENT ON COLUMN ledger.cosignature.line IS 'the signature line (C2SP tlog-cosignature v1)';
COMMENT ON COLUMN ledger.cosignature.received_at IS 'server clock, UTC';

CREATE TABLE ledger.anchor (
    tree_size bigint NOT NULL REFERENCES ledger.checkpoint (tree_size),
    kind text NOT NULL CHECK (kind IN ('rfc3161')),
    token bytea NOT NULL CHECK (octet_length(token) BETWEEN 1 AND 1048576),
    received_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tree_size, kind, received_at)
);
COMMENT ON TABLE ledger.anchor IS 'Time stamps by an outside authority over a checkpoint''s note.';
COMMENT ON COLUMN ledger.anchor.tree_size IS 'the checkpoint';
COMMENT ON COLUMN ledger.anchor.kind IS 'rfc3161: a TimeStampResp over SHA-256 of the note''s text';
COMMENT ON COLUMN ledger.anchor.token IS 'the authority''s answer, DER';
COMMENT ON COLUMN ledger.anchor.received_at IS 'server clock, UTC';

CREATE TABLE ledger.personal (
    payload_hash bytea PRIMARY KEY CHECK (octet_length(payload_hash) = 32),
    salt bytea CHECK (octet_length(salt) = 32),
    payload bytea,
    kept_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT personal_whole_or_erased CHECK ((salt IS NULL) = (payload IS NULL)),
    CONSTRAINT personal_hash_is_of_payload CHECK (salt IS NULL
        OR payload_hash = sha256('mp-salted/1'::bytea || '\x1f'::bytea || salt || payload))
);
COMMENT ON TABLE ledger.personal IS 'Payloads that hold personal data. Their salted hash is a leaf; erasing salt and payload leaves every proof as it was.';
COMMENT ON COLUMN ledger.personal.payload_hash IS 'SHA-256("mp-salted/1" 0x1F salt payload)';
COMMENT ON COLUMN ledger.personal.salt IS '32 random bytes, erased with the payload so that nobody can try values';
COMMENT ON COLUMN ledger.personal.payload IS 'the bytes; null once erased';
COMMENT ON COLUMN ledger.personal.kept_at IS 'server clock, UTC';

-- These guards stop every role and every mistake but those of the tables' owner and of a superuser. Their changes are
-- detected by the signed checkpoints that are kept elsewhere.
CREATE FUNCTION ledger.refuse_change() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    RAISE EXCEPTION '% on %.% is refused: the ledger only grows', TG_OP, TG_TABLE_SCHEMA, TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
END
$$;
COMMENT ON FUNCTION ledger.refuse_change IS 'Guard of every ledger table.';

CREATE FUNCTION ledger.allow_only_erasure() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND NEW.payload_hash = OLD.payload_hash AND NEW.kept_at = OLD.kept_at AND NEW.salt IS NULL AND NEW.payload IS NULL THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION '% on %.% is refused: personal data can be erased, not changed', TG_OP, TG_TABLE_SCHEMA, TG_TABLE_NAME
        USING ERRCODE = 'insufficient_privilege';
END
$$;
COMMENT ON FUNCTION ledger.allow_only_erasure IS 'Guard of ledger.personal: salt and payload may become null, nothing else may change.';

DO $guards$
DECLARE
    guarded regclass;
    guard text;
BEGIN
    -- The deployer must be able to hand the tables over. A superuser is; a CREATEROLE owner made the roles and may grant them to itself.
    -- From version 16 on, having made a role is membership without the right to act as it, so it is granted whatever pg_has_role says.
    IF NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
        EXECUTE format('GRANT meter_ledger_owner TO %I', current_user);
    END IF;
    EXECUTE 'GRANT USAGE, CREATE ON SCHEMA ledger TO meter_ledger_owner';
    FOREACH guarded IN ARRAY ARRAY['ledger.entry', 'ledger.log', 'ledger.leaf', 'ledger.node', 'ledger.tree_head', 'ledger.checkpoint',
        'ledger.cosignature', 'ledger.anchor', 'ledger.personal']::regclass[] LOOP
        guard := CASE WHEN guarded = 'ledger.personal'::regclass THEN 'allow_only_erasure' ELSE 'refuse_change' END;
        EXECUTE format('CREATE TRIGGER only_grows BEFORE UPDATE OR DELETE ON %s FOR EACH ROW EXECUTE FUNCTION ledger.%I()', guarded, guard);
        EXECUTE format('CREATE TRIGGER never_truncated BEFORE TRUNCATE ON %s FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change()', guarded);
        -- ALWAYS: session_replication_role = replica does not go round them.
        EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER only_grows, ENABLE ALWAYS TRIGGER never_truncated', guarded);
        EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', guarded);
        EXECUTE format('CREATE POLICY grows ON %s FOR INSERT WITH CHECK (true)', guarded);
        EXECUTE format('CREATE POLICY is_read ON %s FOR SELECT USING (true)', guarded);
        EXECUTE format('REVOKE ALL ON %s FROM PUBLIC', guarded);
    END LOOP;
    EXECUTE 'CREATE POLICY is_erased ON ledger.personal FOR UPDATE USING (true) WITH CHECK (salt IS NULL AND payload IS NULL)';
END
$guards$;

REVOKE ALL ON SCHEMA ledger FROM PUBLIC;

GRANT USAGE ON SCHEMA ledger TO meter_ledger_writer, meter_ledger_sequencer, meter_auditor, meter_ledger_eraser;

-- By column: GRANT INSERT on the table would let a writer choose ids, times and transaction (OVERRIDING SYSTEM VALUE).
GRANT INSERT (kind, body, leaf_hash, leaf_count, leaves, billing_day), SELECT (entry_id) ON ledger.entry
    TO meter_ledger_writer;

GRANT INSERT (payload_hash, salt, payload), SELECT (payload_hash) ON ledger.personal TO meter_ledger_writer;

GRANT SELECT (payload_hash, payload), UPDATE (salt, payload) ON ledger.personal TO meter_ledger_eraser;

GRANT INSERT (kind, body, leaf_hash, leaf_count, leaves, billing_day), SELECT (entry_id) ON ledger.entry
    TO meter_ledger_eraser;

GRANT SELECT ON ledger.entry, ledger.log, ledger.leaf, ledger.node, ledger.tree_head, ledger.checkpoint,
    ledger.cosignature, ledger.anchor
    TO meter_ledger_sequencer;

GRANT INSERT (origin) ON ledger.log TO meter_ledger_sequencer;

GRANT INSERT (leaf_index, entry_id, leaf_hash) ON ledger.leaf TO meter_ledger_sequencer;

GRANT INSERT (level, node_index, node_hash) ON ledger.node TO meter_ledger_sequencer;

GRANT INSERT (tree_size, root_hash, horizon, cluster_id) ON ledger.tree_head TO meter_ledger_sequencer;

GRANT INSERT (tree_size, note, key_id) ON ledger.checkpoint TO meter_ledger_sequencer;

GRANT INSERT (tree_size, name, key_id, line) ON ledger.cosignature TO meter_ledger_sequencer;

GRANT INSERT (tree_size, kind, token) ON ledger.anchor TO meter_ledger_sequencer;

GRANT SELECT ON ALL TABLES IN SCHEMA ledger TO meter_auditor;

DO $ownership$
DECLARE
    guarded regclass;
BEGIN
    FOREACH guarded IN ARRAY ARRAY['ledger.entry', 'ledger.log', 'ledger.leaf', 'ledger.node', 'ledger.tree_head', 'ledger.checkpoint',
        'ledger.cosignature', 'ledger.anchor', 'ledger.personal']::regclass[] LOOP
        EXECUTE format('ALTER TABLE %s OWNER TO meter_ledger_owner', guarded);
    END LOOP;
    ALTER FUNCTION ledger.refuse_change() OWNER TO meter_ledger_owner;
    ALTER FUNCTION ledger.allow_only_erasure() OWNER TO meter_ledger_owner;
    ALTER SCHEMA ledger OWNER TO meter_ledger_owner;
    REVOKE CREATE ON SCHEMA ledger FROM meter_ledger_owner;
    -- The deployer goes on as writer and sequencer, no longer as owner: a later migration of these tables must take that right again, in the open.
    IF NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
        EXECUTE format('GRANT meter_ledger_writer, meter_ledger_sequencer, meter_ledger_eraser, meter_auditor TO %I', current_user);
        EXECUTE format('REVOKE meter_ledger_owner FROM %I', current_user);
    END IF;
END
$ownership$;

-- migrate:down
DO $$ BEGIN RAISE EXCEPTION 'migrations go forward only: restore a backup'; END $$;
