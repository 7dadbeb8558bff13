-- migrate:up
-- Who may decide, enforced here whatever a caller says. control.may_decide is the one rule: once control.person names anybody, a name that is not
-- in it decides nothing. A threshold is read from the setting on the ledger, never from the row that asks.
ALTER TABLE control.person
    ADD COLUMN os_user text UNIQUE CHECK (os_user ~ '^[A-Za-z0-9_][A-Za-z0-9._@-]{0,63}$'),
    ADD COLUMN sessions_ended_at timestamptz;
COMMENT ON COLUMN control.person.os_user IS 'operating system user that proves this person at the command line; empty where a token does';
COMMENT ON COLUMN control.person.sessions_ended_at IS 'desk sessions begun before this instant are over: set when the person is deactivated, UTC';

CREATE TABLE control.shell (
    shell bytea PRIMARY KEY CHECK (length(shell) = 32),
    person control.person_name NOT NULL,
    first_at timestamptz NOT NULL
);
COMMENT ON TABLE control.shell IS 'Which person acts in a shell session: where two people are meant, one shell cannot be both.';
COMMENT ON COLUMN control.shell.shell IS 'SHA-256 of host, boot, session leader and its start';
COMMENT ON COLUMN control.shell.person IS 'who proved themself there first';
COMMENT ON COLUMN control.shell.first_at IS 'when, UTC';

CREATE TABLE control.sign_code (
    code_sha256 bytea PRIMARY KEY CHECK (length(code_sha256) = 32),
    person control.person_name NOT NULL,
    made_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL CHECK (expires_at > made_at AND expires_at <= made_at + interval '1 h')
);
COMMENT ON TABLE control.sign_code IS 'Codes by which a person proves themself in a job: made at the command line, good once and for minutes.';
COMMENT ON COLUMN control.sign_code.code_sha256 IS 'SHA-256 of the code';
COMMENT ON COLUMN control.sign_code.person IS 'who made it';
COMMENT ON COLUMN control.sign_code.made_at IS 'when, UTC';
COMMENT ON COLUMN control.sign_code.expires_at IS 'from this instant on it proves nothing, UTC';

CREATE TABLE control.sign_code_use (
    code_sha256 bytea PRIMARY KEY REFERENCES control.sign_code,
    used_at timestamptz NOT NULL
);
COMMENT ON TABLE control.sign_code_use IS 'Codes that were used: the key refuses a second use.';
COMMENT ON COLUMN control.sign_code_use.code_sha256 IS 'the code';
COMMENT ON COLUMN control.sign_code_use.used_at IS 'when, UTC';

CREATE FUNCTION control.may_decide(name text, wanted text[]) RETURNS boolean LANGUAGE sql STABLE SET search_path = pg_catalog AS $$
    SELECT NOT EXISTS (SELECT FROM control.person)
        OR EXISTS (
            SELECT FROM control.person AS p
            WHERE p.person::text = lower(btrim(name)) AND p.active
                AND (p.duties && wanted OR NOT EXISTS (SELECT FROM control.person AS q WHERE q.active AND q.duties && wanted)))
$$;
COMMENT ON FUNCTION control.may_decide IS 'Whether a name may take a decision that asks for one of these duties. While the register is empty any name may; while nobody holds any of the duties, any person of the register may.';

CREATE FUNCTION control.adjustment_limit() RETURNS numeric LANGUAGE sql STABLE SET search_path = pg_catalog AS $$
    SELECT coalesce((SELECT (value #>> '{}')::numeric FROM control.flag WHERE flag = 'adjustment_threshold'), 50.00)
$$;
COMMENT ON FUNCTION control.adjustment_limit IS 'Sum of absolute amounts above which a second person decides an adjustment: the flag adjustment_threshold, which two people change on the ledger; 50.00 until they do.';

CREATE FUNCTION control.left_without_approval(statement text) RETURNS numeric LANGUAGE sql STABLE SET search_path = pg_catalog AS $$
    SELECT greatest(control.adjustment_limit() - coalesce(sum(gross), 0), 0) FROM billing.adjustment
    WHERE statement_id = statement AND status = 'posted' AND decided_by IS NULL
$$;
COMMENT ON FUNCTION control.left_without_approval IS 'What of a statement may still change hands without a second person.';

CREATE FUNCTION billing.guard_adjustment() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
    changed numeric;
BEGIN
    IF NEW.requested_by !~ '^[ -~]+$' OR NEW.decided_by !~ '^[ -~]+$' THEN
        RAISE EXCEPTION 'a name has letters that are not ASCII' USING ERRCODE = 'check_violation';
    END IF;
    IF TG_OP = 'INSERT' THEN
        IF NEW.status <> 'requested' THEN
            RAISE EXCEPTION 'an adjustment begins as requested' USING ERRCODE = 'check_violation';
        END IF;
        IF NEW.threshold > control.left_without_approval(NEW.statement_id) THEN
            RAISE EXCEPTION 'the threshold is % by the setting, not %', control.left_without_approval(NEW.statement_id), NEW.threshold
                USING ERRCODE = 'check_violation';
        END IF;
        RETURN NEW;
    END IF;
    IF (NEW.adjustment_id, NEW.statement_id, NEW.net, NEW.gross, NEW.approval_required, NEW.threshold, NEW.requested_by)
        IS DISTINCT FROM (OLD.adjustment_id, OLD.statement_id, OLD.net, OLD.gross, OLD.approval_required, OLD.threshold, OLD.requested_by) THEN
        RAISE EXCEPTION 'what an adjustment asks for does not change' USING ERRCODE = 'check_violation';
    END IF;
    IF NEW.decided_by IS DISTINCT FROM OLD.decided_by AND NOT control.may_decide(NEW.decided_by, ARRAY['finance']) THEN
        RAISE EXCEPTION '% may not decide an adjustment', NEW.decided_by USING ERRCODE = 'check_violation';
    END IF;
    IF NEW.status = 'posted' AND OLD.status <> 'posted' THEN
        SELECT coalesce(sum(abs(moved)), 0) INTO changed FROM (
            SELECT sum(amount) AS moved FROM billing.adjustment_line WHERE adjustment_id = NEW.adjustment_id
            GROUP BY service_point_id, tariff_id, tariff_version, segment_start, segment_end, line_key) AS by_line;
        IF changed > NEW.gross THEN
            RAISE EXCEPTION 'its lines move %, it says %', changed, NEW.gross USING ERRCODE = 'check_violation';
        END IF;
        IF NEW.decided_by IS NULL AND changed > control.left_without_approval(NEW.statement_id) THEN
            RAISE EXCEPTION 'a second person decides an adjustment of %', changed USING ERRCODE = 'check_violation';
        END IF;
    END IF;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION billing.guard_adjustment IS 'Trigger: threshold, amounts and names of an adjustment are what the setting, its lines and the register say.';
CREATE TRIGGER guard_adjustment BEFORE INSERT OR UPDATE ON billing.adjustment FOR EACH ROW EXECUTE FUNCTION billing.guard_adjustment();
ALTER TABLE billing.adjustment ENABLE ALWAYS TRIGGER guard_adjustment;

CREATE FUNCTION billing.guard_adjustment_line() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND (NEW.adjustment_id, NEW.line_no, NEW.action, NEW.service_point_id, NEW.line_key, NEW.quantity, NEW.amount)
        IS NOT DISTINCT FROM (OLD.adjustment_id, OLD.line_no, OLD.action, OLD.service_point_id, OLD.line_key, OLD.quantity, OLD.amount) THEN
        RETURN NEW;
    END IF;
    IF EXISTS (SELECT FROM billing.adjustment WHERE adjustment_id = NEW.adjustment_id AND status <> 'requested') THEN
        RAISE EXCEPTION 'adjustment % is decided: its lines stay as they are', NEW.adjustment_id USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION billing.guard_adjustment_line IS 'Trigger: lines are added to an adjustment only while it waits.';
CREATE TRIGGER guard_adjustment_line BEFORE INSERT OR UPDATE ON billing.adjustment_line FOR EACH ROW EXECUTE FUNCTION billing.guard_adjustment_line();

CREATE FUNCTION billing.guard_seal() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    IF NEW.status = 'sealed' AND NOT (control.may_decide(NEW.approved_by, ARRAY['finance']) AND control.may_decide(NEW.requested_by, ARRAY['finance'])) THEN
        RAISE EXCEPTION '% and % may not seal a month', NEW.requested_by, NEW.approved_by USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION billing.guard_seal IS 'Trigger: two people of finance seal a month.';
CREATE TRIGGER guard_seal BEFORE INSERT OR UPDATE ON billing.period FOR EACH ROW EXECUTE FUNCTION billing.guard_seal();

CREATE FUNCTION control.guard_request() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    IF NOT control.may_decide(NEW.requested_by, ARRAY['operator', 'finance', 'engineer', 'auditor']) THEN
        RAISE EXCEPTION '% is not in the register of people', NEW.requested_by USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION control.guard_request IS 'Trigger: only a person of the register asks.';
CREATE TRIGGER guard_request BEFORE INSERT ON control.dual_request FOR EACH ROW EXECUTE FUNCTION control.guard_request();

CREATE FUNCTION control.guard_decision() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
    wanted text[] := CASE WHEN NEW.action = 'flag' THEN ARRAY['finance', 'engineer'] ELSE ARRAY['finance'] END;
BEGIN
    IF NEW.decision = 'confirmed' AND NOT control.may_decide(NEW.decided_by, wanted) THEN
        RAISE EXCEPTION '% may not confirm %', NEW.decided_by, NEW.action USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION control.guard_decision IS 'Trigger: only a person of the register with the duty confirms.';
CREATE TRIGGER guard_decision BEFORE INSERT ON control.dual_decision FOR EACH ROW EXECUTE FUNCTION control.guard_decision();

-- A pause ends with its entry on the ledger, in the same transaction, or not at all. Definer: who ends it need not be able to read the ledger.
CREATE FUNCTION control.demand_resume_entry() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM ledger.entry AS e
        WHERE e.xid = pg_current_xact_id() AND e.kind = 'pause_cleared'
            AND (convert_from(e.body, 'UTF8')::jsonb -> 'body' ->> 'request') = NEW.resume_request::text) THEN
        RAISE EXCEPTION 'pause % cannot end without its entry on the ledger', NEW.pause_id USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION control.demand_resume_entry IS 'Trigger at commit: the end of a pause is on the ledger, written by the same transaction.';
CREATE CONSTRAINT TRIGGER ended_on_the_ledger AFTER UPDATE ON control.emergency_pause DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (NEW.state = 'resumed' AND OLD.state = 'paused') EXECUTE FUNCTION control.demand_resume_entry();
ALTER TABLE control.emergency_pause ENABLE ALWAYS TRIGGER ended_on_the_ledger;

-- Steps of the migration that make us bill stand on a confirmed request for exactly that step; the setting of the threshold on one for the flag.
-- A superuser may move the stage, as a superuser may switch off a trigger: the ledger shows what they did.
CREATE FUNCTION control.guard_flag() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
    stages text[] := ARRAY['off', 'shadow', 'dual_write', 'live', 'ramp_down', 'complete'];
    here integer := array_position(stages, coalesce(CASE WHEN TG_OP = 'UPDATE' THEN OLD.value ->> 'stage' END, 'off'));
    there integer := array_position(stages, NEW.value ->> 'stage');
BEGIN
    IF NEW.flag = 'adjustment_threshold' AND NEW.request IS NULL THEN
        RAISE EXCEPTION 'the threshold of adjustments is changed by two people' USING ERRCODE = 'check_violation';
    END IF;
    IF NEW.flag = 'migration_stage' AND NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) AND (
        (there = 1 AND here > 1) OR (there >= 4 AND there > here)
        OR (there >= 4 AND there = here AND TG_OP = 'UPDATE' AND (
            (NEW.value ->> 'basis_points')::integer > (OLD.value ->> 'basis_points')::integer
            OR NOT (OLD.value -> 'routes') @> (NEW.value -> 'routes')))) THEN
        IF NOT EXISTS (
            SELECT FROM control.dual_request AS q JOIN control.dual_decision AS d USING (request_id)
            WHERE q.action = 'cut_over' AND d.decision = 'confirmed' AND q.body -> 'to' = NEW.value
                AND (q.body ->> 'version')::integer = NEW.version - 1) THEN
            RAISE EXCEPTION 'a step of the migration that makes us bill takes two people' USING ERRCODE = 'check_violation';
        END IF;
    END IF;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION control.guard_flag IS 'Trigger: what two people must change, two people have confirmed, for this value and no other.';
CREATE TRIGGER guard_flag BEFORE INSERT OR UPDATE ON control.flag FOR EACH ROW EXECUTE FUNCTION control.guard_flag();

-- migrate:down
DROP TRIGGER guard_flag ON control.flag;
DROP FUNCTION control.guard_flag();
DROP TRIGGER ended_on_the_ledger ON control.emergency_pause;
DROP FUNCTION control.demand_resume_entry();
DROP TRIGGER guard_decision ON control.dual_decision;
DROP FUNCTION control.guard_decision();
DROP TRIGGER guard_request ON control.dual_request;
DROP FUNCTION control.guard_request();
DROP TRIGGER guard_seal ON billing.period;
DROP FUNCTION billing.guard_seal();
DROP TRIGGER guard_adjustment_line ON billing.adjustment_line;
DROP FUNCTION billing.guard_adjustment_line();
DROP TRIGGER guard_adjustment ON billing.adjustment;
DROP FUNCTION billing.guard_adjustment();
DROP FUNCTION control.left_without_approval(text);
DROP FUNCTION control.adjustment_limit();
DROP FUNCTION control.may_decide(text, text[]);
DROP TABLE control.sign_code_use, control.sign_code, control.shell;
ALTER TABLE control.person DROP COLUMN sessions_ended_at, DROP COLUMN os_user;
