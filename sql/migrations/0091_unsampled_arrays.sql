-- migrate:up
-- The arrays of a day's tables are left out of the planner's statistics: no query's plan asks for them, and sorting a sample of 30,000 vectors for
-- their most common elements was half of the processor time that autovacuum took from the day it had just seen loaded (0.65 s a table, 0.29 without).
CREATE FUNCTION raw.leave_arrays_unsampled(part regclass) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    listed text := (
        SELECT string_agg(format('ALTER COLUMN %I SET STATISTICS 0', a.attname), ', ') FROM pg_attribute AS a
        WHERE a.attrelid = part AND a.attnum > 0 AND NOT a.attisdropped
            AND a.atttypid IN ('smallint[]'::regtype, 'integer[]'::regtype, 'bigint[]'::regtype));
BEGIN
    IF listed IS NOT NULL THEN
        EXECUTE format('ALTER TABLE %s %s', part, listed);
    END IF;
END
$$;
COMMENT ON FUNCTION raw.leave_arrays_unsampled IS 'Leave the arrays of whole numbers of a table out of ANALYZE.';

-- The functions that make days' tables call it. They are rewritten where they stand, and so keep the owner, rights and search path that a
-- deployment with roles gave them.
DO $do$
DECLARE
    was text := pg_get_functiondef('raw.open_partition(regclass, date)'::regprocedure);
    is_now text := replace(was, $old$    RETURN 'created';
END$old$, $new$    PERFORM raw.leave_arrays_unsampled(format('%I.%I', space, part)::regclass);
    RETURN 'created';
END$new$);
    held regclass;
BEGIN
    ASSERT is_now <> was, 'raw.open_partition is not as 0090 left it';
    EXECUTE is_now;
    was := pg_get_functiondef('billing.ensure_partitions(date)'::regprocedure);
    is_now := replace(was, $old$                PERFORM billing.guard_month($old$, $new$                PERFORM raw.leave_arrays_unsampled(('billing.' || partition)::regclass);
                PERFORM billing.guard_month($new$);
    ASSERT is_now <> was, 'billing.ensure_partitions is not as 0055 left it';
    EXECUTE is_now;
    FOR held IN SELECT i.inhrelid FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
        WHERE c.relkind = 'r' AND c.relnamespace IN ('raw'::regnamespace, 'vee'::regnamespace, 'billing'::regnamespace) LOOP
        PERFORM raw.leave_arrays_unsampled(held);
    END LOOP;
END
$do$;

-- migrate:down
DO $do$
DECLARE
    held record;
BEGIN
    EXECUTE replace(pg_get_functiondef('raw.open_partition(regclass, date)'::regprocedure),
        E'    PERFORM raw.leave_arrays_unsampled(format(''%I.%I'', space, part)::regclass);\n', '');
    EXECUTE replace(pg_get_functiondef('billing.ensure_partitions(date)'::regprocedure),
        E'                PERFORM raw.leave_arrays_unsampled((''billing.'' || partition)::regclass);\n', '');
    FOR held IN SELECT a.attrelid::regclass AS part, a.attname FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid
        WHERE a.attstattarget = 0 AND c.relnamespace IN ('raw'::regnamespace, 'vee'::regnamespace, 'billing'::regnamespace) LOOP
        EXECUTE format('ALTER TABLE %s ALTER COLUMN %I SET STATISTICS -1', held.part, held.attname);
    END LOOP;
END
$do$;
DROP FUNCTION raw.leave_arrays_unsampled(regclass);
