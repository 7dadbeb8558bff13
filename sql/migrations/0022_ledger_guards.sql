-- migrate:up
-- Prevention for honest roles and honest mistakes; the owner and a superuser are met by detection (signed checkpoints kept elsewhere).
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
GRANT INSERT (kind, body, leaf_hash, leaf_count, leaves, billing_day), SELECT (entry_id) ON ledger.entry TO meter_ledger_writer;
GRANT INSERT (payload_hash, salt, payload), SELECT (payload_hash) ON ledger.personal TO meter_ledger_writer;
GRANT SELECT (payload_hash, payload), UPDATE (salt, payload) ON ledger.personal TO meter_ledger_eraser;
GRANT INSERT (kind, body, leaf_hash, leaf_count, leaves, billing_day), SELECT (entry_id) ON ledger.entry TO meter_ledger_eraser;
GRANT SELECT ON ledger.entry, ledger.log, ledger.leaf, ledger.node, ledger.tree_head, ledger.checkpoint, ledger.cosignature, ledger.anchor
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
DO $undo$
DECLARE
    guarded regclass;
    policy record;
BEGIN
    IF NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
        EXECUTE format('GRANT meter_ledger_owner TO %I', current_user);
    END IF;
    EXECUTE format('ALTER SCHEMA ledger OWNER TO %I', current_user);
    FOR guarded IN SELECT oid FROM pg_class WHERE relnamespace = 'ledger'::regnamespace AND relkind = 'r' LOOP
        EXECUTE format('DROP TRIGGER only_grows ON %s', guarded);
        EXECUTE format('DROP TRIGGER never_truncated ON %s', guarded);
        FOR policy IN SELECT polname FROM pg_policy WHERE polrelid = guarded LOOP
            EXECUTE format('DROP POLICY %I ON %s', policy.polname, guarded);
        END LOOP;
        EXECUTE format('ALTER TABLE %s NO FORCE ROW LEVEL SECURITY, DISABLE ROW LEVEL SECURITY', guarded);
        EXECUTE format('ALTER TABLE %s OWNER TO %I', guarded, current_user);
    END LOOP;
    DROP FUNCTION ledger.refuse_change(), ledger.allow_only_erasure();
    REVOKE ALL ON ALL TABLES IN SCHEMA ledger FROM meter_ledger_writer, meter_ledger_sequencer, meter_ledger_eraser, meter_auditor;
    REVOKE ALL ON SCHEMA ledger FROM meter_ledger_writer, meter_ledger_sequencer, meter_ledger_eraser, meter_auditor;
END
$undo$;
