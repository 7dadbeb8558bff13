-- migrate:up
-- A partition of a billing table holds one month, so whether a write to it is refused does not depend on its rows: one look at the month before
-- the statement. Transition tables kept a second copy of every row of a first load, on disk at 100,000 services. Writes through the parent are
-- still looked at row by row (0050), since a statement there may touch several months.
CREATE FUNCTION billing.refuse_sealed_month() RETURNS trigger LANGUAGE plpgsql AS $function$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(hashtext('billing.period'));
    IF EXISTS (SELECT FROM billing.period AS p WHERE p.month = TG_ARGV[0]::date AND p.status = 'sealed') THEN
        RAISE EXCEPTION 'period % is sealed: % on %.% refused', left(TG_ARGV[0], 7), TG_OP, TG_TABLE_SCHEMA, TG_TABLE_NAME
            USING ERRCODE = 'integrity_constraint_violation', HINT = 'Post an adjustment in the open period.';
    END IF;
    RETURN NULL;
END
$function$;
COMMENT ON FUNCTION billing.refuse_sealed_month IS 'Trigger on a month''s partition: refuses every change where the month is sealed.';

CREATE FUNCTION billing.guard_month(guarded regclass, month date) RETURNS void LANGUAGE plpgsql AS $function$
BEGIN
    EXECUTE format('CREATE TRIGGER sealed_month BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON %s FOR EACH STATEMENT EXECUTE FUNCTION billing.refuse_sealed_month(%L)', guarded, month);
    EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER sealed_month', guarded);
END
$function$;
COMMENT ON FUNCTION billing.guard_month IS 'Puts the sealed-month trigger on a table that holds one month.';

CREATE OR REPLACE FUNCTION billing.ensure_partitions(day date) RETURNS void LANGUAGE plpgsql AS $function$
DECLARE
    month date := date_trunc('month', day);
    parent text;
    partition text;
BEGIN
    FOREACH parent IN ARRAY ARRAY['determinant_day', 'charge_day'] LOOP
        partition := format('%s_%s', parent, to_char(month, 'YYYYMM'));
        IF to_regclass('billing.' || partition) IS NULL THEN
            PERFORM pg_advisory_xact_lock(hashtext('billing.partition'));
            IF to_regclass('billing.' || partition) IS NULL THEN
                EXECUTE format('CREATE TABLE billing.%I PARTITION OF billing.%I FOR VALUES FROM (%L) TO (%L)', partition, parent,
                    month, (month + interval '1 month')::date);
                PERFORM billing.guard_month(('billing.' || partition)::regclass, month);
            END IF;
        END IF;
    END LOOP;
END
$function$;

DO $do$
DECLARE
    held regclass;
    old text;
BEGIN
    FOR held IN SELECT inhrelid FROM pg_inherits WHERE inhparent IN ('billing.determinant_day'::regclass, 'billing.charge_day'::regclass) LOOP
        PERFORM billing.guard_month(held, to_date(right(held::text, 6), 'YYYYMM'));
        FOREACH old IN ARRAY ARRAY['sealed_insert', 'sealed_update_from', 'sealed_update_to', 'sealed_delete', 'sealed_truncate'] LOOP
            EXECUTE format('DROP TRIGGER %I ON %s', old, held);
        END LOOP;
    END LOOP;
END
$do$;

-- migrate:down
DO $do$
DECLARE
    held regclass;
BEGIN
    FOR held IN SELECT inhrelid FROM pg_inherits WHERE inhparent IN ('billing.determinant_day'::regclass, 'billing.charge_day'::regclass) LOOP
        PERFORM billing.guard_sealed(held, 'billing_day');
        EXECUTE format('DROP TRIGGER sealed_month ON %s', held);
    END LOOP;
END
$do$;
CREATE OR REPLACE FUNCTION billing.ensure_partitions(day date) RETURNS void LANGUAGE plpgsql AS $function$
DECLARE
    month date := date_trunc('month', day);
    parent text;
    partition text;
BEGIN
    FOREACH parent IN ARRAY ARRAY['determinant_day', 'charge_day'] LOOP
        partition := format('%s_%s', parent, to_char(month, 'YYYYMM'));
        IF to_regclass('billing.' || partition) IS NULL THEN
            PERFORM pg_advisory_xact_lock(hashtext('billing.partition'));
            IF to_regclass('billing.' || partition) IS NULL THEN
                EXECUTE format('CREATE TABLE billing.%I PARTITION OF billing.%I FOR VALUES FROM (%L) TO (%L)', partition, parent,
                    month, (month + interval '1 month')::date);
                PERFORM billing.guard_sealed(('billing.' || partition)::regclass, 'billing_day');
            END IF;
        END IF;
    END LOOP;
END
$function$;
DROP FUNCTION billing.guard_month(regclass, date);
DROP FUNCTION billing.refuse_sealed_month();
