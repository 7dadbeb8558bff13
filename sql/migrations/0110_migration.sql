-- migrate:up
CREATE SCHEMA migration;
COMMENT ON SCHEMA migration IS 'Leaving the legacy batch: its results, the comparison with ours, the gate, dual write. Audit tables: nothing here is billed.';

CREATE TABLE migration.legacy_run (
    billing_day date PRIMARY KEY,
    finished_at timestamptz NOT NULL,
    imported_at timestamptz NOT NULL,
    source text NOT NULL,
    figures bigint NOT NULL,
    content_sha256 bytea NOT NULL CHECK (length(content_sha256) = 32)
);
COMMENT ON TABLE migration.legacy_run IS 'A run of the legacy batch whose results were imported; a day without one is still under way.';
COMMENT ON COLUMN migration.legacy_run.billing_day IS 'billing day of the results';
COMMENT ON COLUMN migration.legacy_run.finished_at IS 'when the legacy batch finished it, UTC';
COMMENT ON COLUMN migration.legacy_run.imported_at IS 'when its results were imported, UTC';
COMMENT ON COLUMN migration.legacy_run.source IS 'file or table they came from';
COMMENT ON COLUMN migration.legacy_run.figures IS 'figures imported';
COMMENT ON COLUMN migration.legacy_run.content_sha256 IS 'SHA-256 over the figures, sorted';

CREATE TABLE migration.legacy_result (
    billing_day date NOT NULL,
    account_id text COLLATE "C" NOT NULL CHECK (length(account_id) BETWEEN 1 AND 64),
    level text NOT NULL CHECK (level IN ('read', 'usage', 'determinant', 'line', 'total')),
    code text NOT NULL CHECK (length(code) BETWEEN 1 AND 80),
    value bigint NOT NULL CHECK (value BETWEEN -1000000000000000000 AND 1000000000000000000),
    exact bigint,
    estimated boolean NOT NULL DEFAULT false,
    tariff_version integer,
    occurrence smallint NOT NULL DEFAULT 1 CHECK (occurrence > 0),
    PRIMARY KEY (billing_day, account_id, level, code, occurrence)
);
COMMENT ON TABLE migration.legacy_result IS 'What the legacy batch made of a billing day, figure by figure.';
COMMENT ON COLUMN migration.legacy_result.billing_day IS 'billing day';
COMMENT ON COLUMN migration.legacy_result.account_id IS 'account, as the side spells it';
COMMENT ON COLUMN migration.legacy_result.level IS 'read, usage, determinant, line or total';
COMMENT ON COLUMN migration.legacy_result.code IS 'which figure of the level';
COMMENT ON COLUMN migration.legacy_result.value IS 'the figure: micro base units, or millionths of the currency';
COMMENT ON COLUMN migration.legacy_result.exact IS 'before rounding, millionths, where the side knows it';
COMMENT ON COLUMN migration.legacy_result.estimated IS 'whether an estimate is in it';
COMMENT ON COLUMN migration.legacy_result.tariff_version IS 'tariff version it was made with';
COMMENT ON COLUMN migration.legacy_result.occurrence IS '1; more where the legacy batch has the same figure again';

CREATE TABLE migration.known_defect (
    defect_id text PRIMARY KEY CHECK (defect_id ~ '^[A-Z0-9-]{1,64}$'),
    levels text[] NOT NULL,
    codes text[] NOT NULL DEFAULT '{}',
    most bigint NOT NULL CHECK (most >= 0),
    first_day date,
    last_day date,
    reason text NOT NULL CHECK (length(btrim(reason)) > 0),
    recorded_by control.person_name NOT NULL,
    approver control.person_name NOT NULL,
    expires timestamptz NOT NULL,
    CONSTRAINT known_defect_two_people CHECK (approver <> recorded_by)
);
COMMENT ON TABLE migration.known_defect IS 'Defects of the legacy batch that are understood. Each expires, so that no difference is ignored for ever.';
COMMENT ON COLUMN migration.known_defect.defect_id IS 'name of the defect';
COMMENT ON COLUMN migration.known_defect.levels IS 'levels it touches';
COMMENT ON COLUMN migration.known_defect.codes IS 'codes it touches; empty: all';
COMMENT ON COLUMN migration.known_defect.most IS 'largest difference it explains, millionths';
COMMENT ON COLUMN migration.known_defect.first_day IS 'first billing day it explains, or null';
COMMENT ON COLUMN migration.known_defect.last_day IS 'last billing day it explains, or null';
COMMENT ON COLUMN migration.known_defect.reason IS 'what is wrong in the legacy batch';
COMMENT ON COLUMN migration.known_defect.recorded_by IS 'who recorded it';
COMMENT ON COLUMN migration.known_defect.approver IS 'who approved ignoring it';
COMMENT ON COLUMN migration.known_defect.expires IS 'until when, UTC';

-- Counts what was compared on both sides, and in how many bills: a figure that only one side has is no evidence of
-- agreement.
CREATE TABLE migration.comparison_run (
    run_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    billing_day date NOT NULL,
    mode text NOT NULL CHECK (mode IN ('live', 'replay', 'legacy_twice')),
    compared_at timestamptz NOT NULL,
    compared bigint NOT NULL,
    blocking bigint NOT NULL,
    net_money bigint NOT NULL,
    absolute_money bigint NOT NULL,
    configuration text NOT NULL,
    cycle_id text,
    coverage jsonb NOT NULL DEFAULT '{}',
    summary jsonb NOT NULL,
    bills bigint NOT NULL DEFAULT 0,
    source text NOT NULL DEFAULT 'pipeline' CHECK (source IN ('pipeline', 'shadow')),
    results_sha256 bytea CHECK (length(results_sha256) = 32)
);
COMMENT ON TABLE migration.comparison_run IS 'One comparison of a billing day: figures, blocking differences, money.';
COMMENT ON COLUMN migration.comparison_run.run_id IS 'number of the comparison';
COMMENT ON COLUMN migration.comparison_run.billing_day IS 'billing day compared';
COMMENT ON COLUMN migration.comparison_run.mode IS 'live; replay of a past day; or the legacy batch against itself';
COMMENT ON COLUMN migration.comparison_run.compared_at IS 'when, UTC';
COMMENT ON COLUMN migration.comparison_run.compared IS 'figures that both sides have';
COMMENT ON COLUMN migration.comparison_run.blocking IS 'figures of a class that resets the gate';
COMMENT ON COLUMN migration.comparison_run.net_money IS 'sum of the totals'' differences, millionths of the currency';
COMMENT ON COLUMN migration.comparison_run.absolute_money IS 'sum of their absolute differences';
COMMENT ON COLUMN migration.comparison_run.configuration IS 'hash of tariffs, rules and code the day was made with';
COMMENT ON COLUMN migration.comparison_run.cycle_id IS 'billing cycle a replay completes, or null';
COMMENT ON COLUMN migration.comparison_run.coverage IS 'comparisons by stratum';
COMMENT ON COLUMN migration.comparison_run.summary IS 'figures and money by level and class';
COMMENT ON COLUMN migration.comparison_run.bills IS 'accounts whose total both sides have';
COMMENT ON COLUMN migration.comparison_run.source IS 'where our figures came from: the pipeline''s own tables or the shadow database';
COMMENT ON COLUMN migration.comparison_run.results_sha256 IS 'SHA-256 over our figures, sorted; null in runs before it was kept';

-- run_id is no foreign key: a bad day has a hundred thousand differences, and looking up the run of each took 0.4 s a
-- day. The run is written by the same transaction and is never deleted.
CREATE TABLE migration.comparison (
    billing_day date NOT NULL,
    account_id text COLLATE "C" NOT NULL CHECK (length(account_id) BETWEEN 1 AND 64),
    level text NOT NULL CHECK (level IN ('read', 'usage', 'determinant', 'line', 'total')),
    code text NOT NULL,
    new_value bigint,
    legacy_value bigint,
    difference bigint NOT NULL,
    class text NOT NULL CHECK (class IN ('within_tolerance', 'rounding', 'timing', 'missing_new', 'missing_legacy',
        'duplicate_legacy', 'estimate_vs_actual', 'tariff_version', 'known_legacy_defect', 'key_mismatch',
        'unexplained')),
    cause text,
    run_id bigint NOT NULL,
    PRIMARY KEY (billing_day, account_id, level, code)
);
CREATE INDEX comparison_by_class ON migration.comparison (class, billing_day);
-- Running a day's comparison again takes the day's earlier differences away; people look by day and class.
CREATE INDEX comparison_of_rounding ON migration.comparison (billing_day) WHERE class = 'rounding';
COMMENT ON TABLE migration.comparison IS 'The differences of the latest comparison of a billing day; a figure that matches is only counted.';
COMMENT ON COLUMN migration.comparison.billing_day IS 'billing day';
COMMENT ON COLUMN migration.comparison.account_id IS 'account';
COMMENT ON COLUMN migration.comparison.level IS 'level of the figure';
COMMENT ON COLUMN migration.comparison.code IS 'which figure';
COMMENT ON COLUMN migration.comparison.new_value IS 'our figure, or null';
COMMENT ON COLUMN migration.comparison.legacy_value IS 'the legacy batch''s, or null';
COMMENT ON COLUMN migration.comparison.difference IS 'new less legacy';
COMMENT ON COLUMN migration.comparison.class IS 'why they differ';
COMMENT ON COLUMN migration.comparison.cause IS 'the defect, or that a total follows its lines';
COMMENT ON COLUMN migration.comparison.run_id IS 'comparison that found it';

CREATE TABLE migration.event (
    at timestamptz NOT NULL,
    what text NOT NULL,
    PRIMARY KEY (at, what)
);
COMMENT ON TABLE migration.event IS 'What reset the gate''s clock: a pause, a changed configuration, a step of the migration.';
COMMENT ON COLUMN migration.event.at IS 'when, UTC';
COMMENT ON COLUMN migration.event.what IS 'what happened';

CREATE TABLE migration.gate_report (
    sha256 text PRIMARY KEY CHECK (sha256 ~ '^[0-9a-f]{64}$'),
    at timestamptz NOT NULL,
    green boolean NOT NULL,
    document jsonb NOT NULL
);
COMMENT ON TABLE migration.gate_report IS 'Every report of the gate that was made, by its hash: what two people sign is one of these.';
COMMENT ON COLUMN migration.gate_report.sha256 IS 'hash of the document';
COMMENT ON COLUMN migration.gate_report.at IS 'instant it speaks of, UTC';
COMMENT ON COLUMN migration.gate_report.green IS 'whether every condition was met';
COMMENT ON COLUMN migration.gate_report.document IS 'the report';

CREATE TABLE migration.authority (
    billing_day date NOT NULL,
    account_id text COLLATE "C" NOT NULL CHECK (account_id ~ '^[A-Z0-9-]{1,64}$'),
    authority text NOT NULL CHECK (authority IN ('legacy', 'new')),
    stage text NOT NULL,
    flag_version bigint NOT NULL,
    payload_sha256 bytea NOT NULL CHECK (length(payload_sha256) = 32),
    decided_at timestamptz NOT NULL,
    PRIMARY KEY (billing_day, account_id)
);
COMMENT ON TABLE migration.authority IS 'Which side''s bill is the customer''s, record by record, decided in the transaction that wrote it.';
COMMENT ON COLUMN migration.authority.billing_day IS 'billing day';
COMMENT ON COLUMN migration.authority.account_id IS 'account';
COMMENT ON COLUMN migration.authority.authority IS 'the one side that counts';
COMMENT ON COLUMN migration.authority.stage IS 'stage of the migration it was decided under';
COMMENT ON COLUMN migration.authority.flag_version IS 'version of the stage flag it was decided under';
COMMENT ON COLUMN migration.authority.payload_sha256 IS 'hash of what was written';
COMMENT ON COLUMN migration.authority.decided_at IS 'when, UTC';

-- A bill that is changed and changed back must reach the other side three times, so the same payload may stand here
-- again: what counts is that the last one sent is the last one written.
CREATE TABLE migration.outbox (
    outbox_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    billing_day date NOT NULL,
    account_id text COLLATE "C" NOT NULL CHECK (account_id ~ '^[A-Z0-9-]{1,64}$'),
    side text NOT NULL CHECK (side IN ('legacy', 'new')),
    payload jsonb NOT NULL,
    payload_sha256 bytea NOT NULL CHECK (length(payload_sha256) = 32),
    written_at timestamptz NOT NULL,
    delivered_at timestamptz,
    attempts integer NOT NULL DEFAULT 0
);
CREATE INDEX outbox_waiting ON migration.outbox (outbox_id) WHERE delivered_at IS NULL;
CREATE INDEX outbox_of_record ON migration.outbox (billing_day, account_id, side, outbox_id);
COMMENT ON TABLE migration.outbox IS 'Records for the other side, written in the transaction of the record itself and delivered after it: never two independent commits.';
COMMENT ON COLUMN migration.outbox.outbox_id IS 'order of delivery';
COMMENT ON COLUMN migration.outbox.billing_day IS 'billing day';
COMMENT ON COLUMN migration.outbox.account_id IS 'account';
COMMENT ON COLUMN migration.outbox.side IS 'the side it is for';
COMMENT ON COLUMN migration.outbox.payload IS 'the record';
COMMENT ON COLUMN migration.outbox.payload_sha256 IS 'hash of the record: a second delivery is recognised by it';
COMMENT ON COLUMN migration.outbox.written_at IS 'when, UTC';
COMMENT ON COLUMN migration.outbox.delivered_at IS 'when the other side had it, UTC; null while it waits';
COMMENT ON COLUMN migration.outbox.attempts IS 'deliveries tried';

CREATE TABLE migration.customer_bill (
    billing_day date NOT NULL,
    account_id text COLLATE "C" NOT NULL CHECK (account_id ~ '^[A-Z0-9-]{1,64}$'),
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

-- Billing asks whose bill an account's period is inside the transaction that issues its statements, and holds the stage
-- until that commits: a change of stage waits for it. SELECT FOR SHARE needs a right to UPDATE that billing must not
-- have, so it asks through the owner's function.
CREATE FUNCTION migration.stage_in_force() RETURNS jsonb LANGUAGE sql VOLATILE AS $$
    SELECT value FROM control.flag WHERE flag = 'migration_stage' FOR SHARE
$$;
COMMENT ON FUNCTION migration.stage_in_force() IS 'The migration''s stage, routes and share, held for share until the transaction ends; null where none was ever declared.';

-- migrate:down
DO $$ BEGIN RAISE EXCEPTION 'migrations go forward only: restore a backup'; END $$;
