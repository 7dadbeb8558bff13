-- migrate:up
CREATE SCHEMA control;
COMMENT ON SCHEMA control IS 'Who may stop and start the work: the emergency pause, feature flags, dual control, and what was refused.';

-- One spelling of a person everywhere, so that "Ann", "ann " and a look-alike letter cannot be two people.
CREATE DOMAIN control.person_name AS text COLLATE "C" CHECK (VALUE ~ '^[a-z0-9][a-z0-9._@-]{0,63}$');
COMMENT ON DOMAIN control.person_name IS 'A person or service: lower-case ASCII, as the directory knows them.';

CREATE TABLE control.person (
    person control.person_name PRIMARY KEY,
    duties text[] NOT NULL CHECK (duties <@ ARRAY['operator', 'finance', 'engineer', 'auditor']),
    active boolean NOT NULL DEFAULT true,
    changed_by control.person_name NOT NULL,
    changed_at timestamptz NOT NULL,
    os_user text UNIQUE CHECK (os_user ~ '^[A-Za-z0-9_][A-Za-z0-9._@-]{0,63}$'),
    sessions_ended_at timestamptz
);
COMMENT ON TABLE control.person IS 'Who may ask and who may confirm. While it names nobody for a duty, any two different people may act, and the status says so.';
COMMENT ON COLUMN control.person.person IS 'the person';
COMMENT ON COLUMN control.person.duties IS 'operator raises and asks, finance asks and confirms, engineer changes flags, auditor reads';
COMMENT ON COLUMN control.person.active IS 'false: kept for the record, may no longer act';
COMMENT ON COLUMN control.person.changed_by IS 'who entered or changed the row';
COMMENT ON COLUMN control.person.changed_at IS 'when, UTC';
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

-- Dual control: a request, and at most one decision on it.
CREATE TABLE control.dual_request (
    request_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    action text NOT NULL CHECK (action ~ '^[a-z_]{1,40}$'),
    subject text NOT NULL CHECK (length(subject) BETWEEN 1 AND 200),
    body jsonb NOT NULL,
    digest bytea NOT NULL CHECK (length(digest) = 32),
    reason text NOT NULL CHECK (length(btrim(reason)) BETWEEN 1 AND 2000),
    requested_by control.person_name NOT NULL,
    requested_login name NOT NULL DEFAULT session_user,
    requested_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    CONSTRAINT dual_request_expires CHECK (expires_at > requested_at
        AND expires_at <= requested_at + interval '7 days'),
    UNIQUE (request_id, action, subject, requested_by, expires_at)
);
CREATE INDEX dual_request_subject ON control.dual_request (action, subject);
COMMENT ON TABLE control.dual_request IS 'What one person asks for and a second must confirm.';
COMMENT ON COLUMN control.dual_request.request_id IS 'number the second person names';
COMMENT ON COLUMN control.dual_request.action IS 'what is asked: resume, flag, cut_over ...';
COMMENT ON COLUMN control.dual_request.subject IS 'what it is asked for: pause:17, flag:migration_stage ...';
COMMENT ON COLUMN control.dual_request.body IS 'everything the second person confirms: checklist, values, hashes of reports';
COMMENT ON COLUMN control.dual_request.digest IS 'SHA-256 of action, subject and body in canonical JSON: what is confirmed is what was asked';
COMMENT ON COLUMN control.dual_request.reason IS 'why, in the words of the person asking';
COMMENT ON COLUMN control.dual_request.requested_by IS 'the person asking';
COMMENT ON COLUMN control.dual_request.requested_login IS 'database login of the session';
COMMENT ON COLUMN control.dual_request.requested_at IS 'when it was asked, UTC';
COMMENT ON COLUMN control.dual_request.expires_at IS 'from this instant on it can no longer be confirmed, UTC';

CREATE TABLE control.dual_decision (
    request_id bigint PRIMARY KEY,
    action text NOT NULL,
    subject text NOT NULL,
    requested_by control.person_name NOT NULL,
    expires_at timestamptz NOT NULL,
    decision text NOT NULL CHECK (decision IN ('confirmed', 'declined', 'withdrawn')),
    decided_by control.person_name NOT NULL,
    decided_login name NOT NULL DEFAULT session_user,
    decided_at timestamptz NOT NULL,
    reason text NOT NULL CHECK (length(btrim(reason)) BETWEEN 1 AND 2000),
    CONSTRAINT dual_decision_two_people CHECK (decision <> 'confirmed' OR decided_by <> requested_by),
    CONSTRAINT dual_decision_in_time CHECK (decision <> 'confirmed' OR decided_at < expires_at),
    CONSTRAINT dual_decision_of_its_request FOREIGN KEY (request_id, action, subject, requested_by, expires_at)
        REFERENCES control.dual_request (request_id, action, subject, requested_by, expires_at),
    UNIQUE (request_id, action, subject, decision)
);
COMMENT ON TABLE control.dual_decision IS 'The one decision on a request: a second one, or one by the person who asked, or a late one, is impossible here and not only in code.';
COMMENT ON COLUMN control.dual_decision.request_id IS 'the request; the key, so that a confirmation cannot be replayed';
COMMENT ON COLUMN control.dual_decision.action IS 'copied from the request, held by the foreign key';
COMMENT ON COLUMN control.dual_decision.subject IS 'copied from the request, held by the foreign key';
COMMENT ON COLUMN control.dual_decision.requested_by IS 'copied from the request, held by the foreign key';
COMMENT ON COLUMN control.dual_decision.expires_at IS 'copied from the request, held by the foreign key';
COMMENT ON COLUMN control.dual_decision.decision IS 'confirmed, declined by a second person, or withdrawn (by the asker, or because new evidence came)';
COMMENT ON COLUMN control.dual_decision.decided_by IS 'the second person, or the asker on a withdrawal';
COMMENT ON COLUMN control.dual_decision.decided_login IS 'database login of the session';
COMMENT ON COLUMN control.dual_decision.decided_at IS 'when, UTC';
COMMENT ON COLUMN control.dual_decision.reason IS 'why, in that person''s words';

CREATE TABLE control.emergency_pause (
    pause_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    scope text NOT NULL CHECK (scope IN ('all', 'commodity', 'head_end')),
    target text COLLATE "C",
    state text NOT NULL DEFAULT 'paused' CHECK (state IN ('paused', 'resumed')),
    reason text NOT NULL CHECK (length(btrim(reason)) BETWEEN 1 AND 2000),
    rule text CHECK (rule ~ '^[a-z_]{1,40}$'),
    evidence jsonb NOT NULL DEFAULT '{}',
    raised_by control.person_name NOT NULL,
    raised_login name NOT NULL DEFAULT session_user,
    raised_at timestamptz NOT NULL,
    resume_action text NOT NULL GENERATED ALWAYS AS ('resume'::text) STORED,
    resume_subject text NOT NULL GENERATED ALWAYS AS ('pause:' || (pause_id::text)) STORED,
    resume_request bigint,
    resume_decision text CHECK (resume_decision = 'confirmed'),
    resumed_at timestamptz,
    CONSTRAINT emergency_pause_target CHECK (
        (scope = 'all' AND target IS NULL)
        OR (scope = 'commodity' AND target IS NOT NULL AND target IN ('electricity', 'water', 'gas'))
        OR (scope = 'head_end' AND target IS NOT NULL AND target ~ '^[A-Z0-9-]{1,64}$')),
    CONSTRAINT emergency_pause_resumed_by_two CHECK (
        (state = 'resumed') = (resume_request IS NOT NULL AND resume_decision IS NOT NULL AND resumed_at IS NOT NULL)
        AND num_nonnulls(resume_request, resume_decision, resumed_at) IN (0, 3)),
    CONSTRAINT emergency_pause_confirmed FOREIGN KEY (resume_request, resume_action, resume_subject, resume_decision)
        REFERENCES control.dual_decision (request_id, action, subject, decision)
);
CREATE UNIQUE INDEX emergency_pause_active ON control.emergency_pause (scope, coalesce(target, ''))
    WHERE state = 'paused';
COMMENT ON TABLE control.emergency_pause IS 'EMERGENCY_PAUSE: every writer looks here before each batch. At most one pause in force per scope; it ends only by a resume two people stand for.';
COMMENT ON COLUMN control.emergency_pause.pause_id IS 'number of the pause';
COMMENT ON COLUMN control.emergency_pause.scope IS 'what it holds: all work, one commodity, one head-end';
COMMENT ON COLUMN control.emergency_pause.target IS 'the commodity or head-end; empty for all';
COMMENT ON COLUMN control.emergency_pause.state IS 'paused: in force; resumed: over';
COMMENT ON COLUMN control.emergency_pause.reason IS 'why it was raised';
COMMENT ON COLUMN control.emergency_pause.rule IS 'the rule that raised it by itself; empty when a person did';
COMMENT ON COLUMN control.emergency_pause.evidence IS 'what was seen: figures, limits, files, threshold version';
COMMENT ON COLUMN control.emergency_pause.raised_by IS 'person or service that raised it';
COMMENT ON COLUMN control.emergency_pause.raised_login IS 'database login of the session';
COMMENT ON COLUMN control.emergency_pause.raised_at IS 'when, UTC';
COMMENT ON COLUMN control.emergency_pause.resume_action IS 'always resume: half of the key of the confirmation that ends it';
COMMENT ON COLUMN control.emergency_pause.resume_subject IS 'pause:<id>: so that a confirmation for another pause cannot end this one';
COMMENT ON COLUMN control.emergency_pause.resume_request IS 'the confirmed request that ended it';
COMMENT ON COLUMN control.emergency_pause.resume_decision IS 'always confirmed: the other half of that key';
COMMENT ON COLUMN control.emergency_pause.resumed_at IS 'when it ended, UTC';

CREATE TABLE control.pause_evidence (
    evidence_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    pause_id bigint NOT NULL REFERENCES control.emergency_pause,
    reason text NOT NULL CHECK (length(btrim(reason)) BETWEEN 1 AND 2000),
    rule text CHECK (rule ~ '^[a-z_]{1,40}$'),
    evidence jsonb NOT NULL,
    raised_by control.person_name NOT NULL,
    raised_at timestamptz NOT NULL
);
CREATE INDEX pause_evidence_pause ON control.pause_evidence (pause_id);
COMMENT ON TABLE control.pause_evidence IS 'Further reasons that came while a pause was in force. Each withdraws a pending request to resume: what was checked then is no longer all there is.';
COMMENT ON COLUMN control.pause_evidence.evidence_id IS 'number';
COMMENT ON COLUMN control.pause_evidence.pause_id IS 'the pause in force';
COMMENT ON COLUMN control.pause_evidence.reason IS 'why it would have been raised';
COMMENT ON COLUMN control.pause_evidence.rule IS 'the rule; empty when a person did';
COMMENT ON COLUMN control.pause_evidence.evidence IS 'what was seen';
COMMENT ON COLUMN control.pause_evidence.raised_by IS 'person or service';
COMMENT ON COLUMN control.pause_evidence.raised_at IS 'when, UTC';

CREATE TABLE control.refusal (
    refusal_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    refused_at timestamptz NOT NULL,
    action text NOT NULL,
    subject text NOT NULL,
    actor text NOT NULL CHECK (length(actor) <= 200),
    login name NOT NULL DEFAULT session_user,
    code text NOT NULL CHECK (code ~ '^[a-z_]{1,40}$'),
    detail text NOT NULL
);
COMMENT ON TABLE control.refusal IS 'Every steering action that was refused: who tried what, and why not.';
COMMENT ON COLUMN control.refusal.refusal_id IS 'number';
COMMENT ON COLUMN control.refusal.refused_at IS 'when, UTC';
COMMENT ON COLUMN control.refusal.action IS 'what was tried';
COMMENT ON COLUMN control.refusal.subject IS 'on what';
COMMENT ON COLUMN control.refusal.actor IS 'the name given, as given';
COMMENT ON COLUMN control.refusal.login IS 'database login of the session';
COMMENT ON COLUMN control.refusal.code IS 'the reason as a code: same_person, expired, replayed ...';
COMMENT ON COLUMN control.refusal.detail IS 'the reason in words';

CREATE TABLE control.flag (
    flag text COLLATE "C" PRIMARY KEY CHECK (flag ~ '^[a-z][a-z0-9_.-]{0,63}$'),
    value jsonb NOT NULL,
    version integer NOT NULL CHECK (version >= 1),
    changed_by control.person_name NOT NULL,
    changed_at timestamptz NOT NULL,
    reason text NOT NULL CHECK (length(btrim(reason)) BETWEEN 1 AND 2000),
    dual boolean NOT NULL DEFAULT false,
    action text NOT NULL GENERATED ALWAYS AS ('flag'::text) STORED,
    subject text NOT NULL GENERATED ALWAYS AS ('flag:' || flag) STORED,
    request bigint,
    decision text CHECK (decision = 'confirmed'),
    CONSTRAINT flag_dual_means_two CHECK (NOT dual OR (request IS NOT NULL AND decision IS NOT NULL)),
    CONSTRAINT flag_request_whole CHECK ((request IS NULL) = (decision IS NULL)),
    CONSTRAINT flag_confirmed FOREIGN KEY (request, action, subject, decision)
        REFERENCES control.dual_decision (request_id, action, subject, decision)
);
COMMENT ON TABLE control.flag IS 'Feature flags in force: read in the transaction they steer.';
COMMENT ON COLUMN control.flag.flag IS 'name';
COMMENT ON COLUMN control.flag.value IS 'value in force';
COMMENT ON COLUMN control.flag.version IS 'counts its changes; a change names the version it replaces';
COMMENT ON COLUMN control.flag.changed_by IS 'who made the last change; the second person where two are needed';
COMMENT ON COLUMN control.flag.changed_at IS 'when, UTC';
COMMENT ON COLUMN control.flag.reason IS 'why';
COMMENT ON COLUMN control.flag.dual IS 'this value was one that only two people may set';
COMMENT ON COLUMN control.flag.action IS 'always flag: part of the key of its confirmation';
COMMENT ON COLUMN control.flag.subject IS 'flag:<name>: part of the key of its confirmation';
COMMENT ON COLUMN control.flag.request IS 'the confirmed request behind it';
COMMENT ON COLUMN control.flag.decision IS 'always confirmed';

CREATE TABLE control.flag_change (
    flag text COLLATE "C" NOT NULL,
    version integer NOT NULL,
    value jsonb NOT NULL,
    changed_by control.person_name NOT NULL,
    changed_at timestamptz NOT NULL,
    reason text NOT NULL,
    request bigint REFERENCES control.dual_decision,
    PRIMARY KEY (flag, version)
);
COMMENT ON TABLE control.flag_change IS 'Every value a flag ever had.';
COMMENT ON COLUMN control.flag_change.flag IS 'name';
COMMENT ON COLUMN control.flag_change.version IS 'version';
COMMENT ON COLUMN control.flag_change.value IS 'value from then on';
COMMENT ON COLUMN control.flag_change.changed_by IS 'who';
COMMENT ON COLUMN control.flag_change.changed_at IS 'when, UTC';
COMMENT ON COLUMN control.flag_change.reason IS 'why';
COMMENT ON COLUMN control.flag_change.request IS 'the confirmed request behind it, where two people were needed';

CREATE TABLE control.presence (
    run_id text PRIMARY KEY,
    host text NOT NULL,
    process_id integer NOT NULL,
    started_at timestamptz NOT NULL,
    seen_at timestamptz NOT NULL,
    waiting_since timestamptz,
    ended_at timestamptz
);
COMMENT ON TABLE control.presence IS 'Heartbeats of the runs: a run that is started and silent has lost its worker.';
COMMENT ON COLUMN control.presence.run_id IS 'Dagster run';
COMMENT ON COLUMN control.presence.host IS 'machine of the worker';
COMMENT ON COLUMN control.presence.process_id IS 'its process';
COMMENT ON COLUMN control.presence.started_at IS 'first heartbeat, server clock, UTC';
COMMENT ON COLUMN control.presence.seen_at IS 'last heartbeat, server clock, UTC';
COMMENT ON COLUMN control.presence.waiting_since IS 'set while it waits for a pause to end';
COMMENT ON COLUMN control.presence.ended_at IS 'set when it left in good order';

CREATE TABLE control.notification (
    notification_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    dedupe_key text NOT NULL UNIQUE CHECK (length(dedupe_key) BETWEEN 1 AND 300),
    severity text NOT NULL CHECK (severity IN ('info', 'warning', 'critical')),
    title text NOT NULL,
    body text NOT NULL,
    created_at timestamptz NOT NULL,
    delivered jsonb NOT NULL DEFAULT '{}',
    attempts integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz,
    last_error text
);
CREATE INDEX notification_due ON control.notification (next_attempt_at) WHERE next_attempt_at IS NOT NULL;
COMMENT ON TABLE control.notification IS 'Alerts to people: kept until every channel has taken them, each said once.';
COMMENT ON COLUMN control.notification.notification_id IS 'number';
COMMENT ON COLUMN control.notification.dedupe_key IS 'what it is about; the same trouble is told once';
COMMENT ON COLUMN control.notification.severity IS 'info, warning or critical';
COMMENT ON COLUMN control.notification.title IS 'one line';
COMMENT ON COLUMN control.notification.body IS 'what happened and what to do next';
COMMENT ON COLUMN control.notification.created_at IS 'when, UTC';
COMMENT ON COLUMN control.notification.delivered IS 'by channel: when it was taken';
COMMENT ON COLUMN control.notification.attempts IS 'how often it was tried';
COMMENT ON COLUMN control.notification.next_attempt_at IS 'when to try again; empty when done or given up';
COMMENT ON COLUMN control.notification.last_error IS 'why the last try failed';

CREATE TABLE control.observation (
    kind text NOT NULL CHECK (kind ~ '^[a-z_]{1,40}$'),
    subject text NOT NULL,
    observed_at timestamptz NOT NULL,
    figures jsonb NOT NULL,
    PRIMARY KEY (kind, subject)
);
COMMENT ON TABLE control.observation IS 'The latest figure of a kind that no other table keeps (ledger verification, reconciliation variance), for the rules and the metrics.';
COMMENT ON COLUMN control.observation.kind IS 'what was observed';
COMMENT ON COLUMN control.observation.subject IS 'of what: a billing day, a file, the ledger';
COMMENT ON COLUMN control.observation.observed_at IS 'when, UTC';
COMMENT ON COLUMN control.observation.figures IS 'the figures';

-- The one rule of who decides, enforced here whatever a caller says: when control.person names anybody, a name that is
-- not in it decides nothing. The threshold of adjustments is read from the flag, which is on the ledger, never from the
-- row that asks.
CREATE FUNCTION control.may_decide(name text, wanted text[]) RETURNS boolean
    LANGUAGE sql STABLE SET search_path = pg_catalog AS $$
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

-- Decisions are never changed. These triggers bind every role but a superuser; the ledger shows what the owner did all
-- the same.
CREATE FUNCTION control.refuse_change() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    RAISE EXCEPTION '% on %.% is not allowed: its rows are a record', TG_OP, TG_TABLE_SCHEMA, TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
END $$;
COMMENT ON FUNCTION control.refuse_change() IS 'Trigger: append-only.';

CREATE FUNCTION control.guard_request() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    IF NOT control.may_decide(NEW.requested_by, ARRAY['operator', 'finance', 'engineer', 'auditor']) THEN
        RAISE EXCEPTION '% is not in the register of people', NEW.requested_by USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION control.guard_request IS 'Trigger: only a person of the register asks.';
CREATE TRIGGER guard_request BEFORE INSERT ON control.dual_request FOR EACH ROW
    EXECUTE FUNCTION control.guard_request();

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
CREATE TRIGGER guard_decision BEFORE INSERT ON control.dual_decision FOR EACH ROW
    EXECUTE FUNCTION control.guard_decision();

CREATE FUNCTION control.guard_pause() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    IF OLD.state = 'resumed' OR (NEW.pause_id, NEW.scope, NEW.target, NEW.reason, NEW.rule, NEW.evidence, NEW.raised_by, NEW.raised_login, NEW.raised_at)
        IS DISTINCT FROM (OLD.pause_id, OLD.scope, OLD.target, OLD.reason, OLD.rule, OLD.evidence, OLD.raised_by, OLD.raised_login, OLD.raised_at) THEN
        RAISE EXCEPTION 'a pause can only be ended, once' USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END $$;
COMMENT ON FUNCTION control.guard_pause() IS 'Trigger: the facts of a pause do not change; it can be ended once.';
CREATE TRIGGER guard_update BEFORE UPDATE ON control.emergency_pause FOR EACH ROW
    EXECUTE FUNCTION control.guard_pause();
ALTER TABLE control.emergency_pause ENABLE ALWAYS TRIGGER guard_update;

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['dual_request', 'dual_decision', 'pause_evidence', 'refusal', 'flag_change'] LOOP
        EXECUTE format('CREATE TRIGGER guard_change BEFORE UPDATE OR DELETE ON control.%I FOR EACH ROW EXECUTE FUNCTION control.refuse_change()', name);
        EXECUTE format('ALTER TABLE control.%I ENABLE ALWAYS TRIGGER guard_change', name);
    END LOOP;
    FOREACH name IN ARRAY ARRAY['emergency_pause', 'flag'] LOOP
        EXECUTE format('CREATE TRIGGER guard_delete BEFORE DELETE ON control.%I FOR EACH ROW EXECUTE FUNCTION control.refuse_change()', name);
        EXECUTE format('ALTER TABLE control.%I ENABLE ALWAYS TRIGGER guard_delete', name);
    END LOOP;
    FOREACH name IN ARRAY ARRAY['emergency_pause', 'dual_request', 'dual_decision', 'pause_evidence', 'refusal', 'flag', 'flag_change'] LOOP
        EXECUTE format('CREATE TRIGGER guard_truncate BEFORE TRUNCATE ON control.%I EXECUTE FUNCTION control.refuse_change()', name);
        EXECUTE format('ALTER TABLE control.%I ENABLE ALWAYS TRIGGER guard_truncate', name);
    END LOOP;
END $$;

-- Services may withdraw a request when new evidence comes; only finance decides.
ALTER TABLE control.dual_decision ENABLE ROW LEVEL SECURITY;
CREATE POLICY is_read ON control.dual_decision FOR SELECT USING (true);
CREATE POLICY finance_decides ON control.dual_decision FOR INSERT TO meter_finance WITH CHECK (true);
CREATE POLICY services_withdraw ON control.dual_decision FOR INSERT TO meter_ingest, meter_billing
    WITH CHECK (decision = 'withdrawn');

-- meter_migration records whose bill a day was, delivers to the other side, and rolls back. It may set the stage's flag
-- to stages where legacy has authority and to no other: forward is for people, in finance's role.
ALTER TABLE control.flag ENABLE ROW LEVEL SECURITY;
CREATE POLICY is_read ON control.flag FOR SELECT USING (true);
CREATE POLICY people_decide ON control.flag FOR ALL TO meter_finance, meter_owner USING (true) WITH CHECK (true);
CREATE POLICY migration_is_declared ON control.flag FOR INSERT TO meter_migration
    WITH CHECK (flag = 'migration_stage' AND value ->> 'stage' IN ('off', 'shadow', 'dual_write'));
CREATE POLICY migration_goes_back ON control.flag FOR UPDATE TO meter_migration
    USING (flag = 'migration_stage')
    WITH CHECK (flag = 'migration_stage' AND value ->> 'stage' IN ('shadow', 'dual_write'));

-- A pause ends with its entry on the ledger, in the same transaction, or not at all. SECURITY DEFINER: the role that
-- ends it need not be able to read the ledger.
CREATE FUNCTION control.demand_resume_entry() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
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

-- A step of the migration that makes us bill needs a confirmed request for exactly that step; the threshold of
-- adjustments needs one for the flag. A superuser may move the stage, as a superuser may switch off a trigger: the
-- ledger shows what they did.
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
DO $$ BEGIN RAISE EXCEPTION 'migrations go forward only: restore a backup'; END $$;
