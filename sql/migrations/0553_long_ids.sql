-- migrate:up
-- Identifiers of the customer system and of meters are kept as they are: dots, slashes, underscores and blanks may stand inside.
DO $$
DECLARE
    found record;
BEGIN
    FOR found IN
        SELECT c.oid, c.conname, c.conrelid::regclass AS relation, pg_get_constraintdef(c.oid) AS definition
        FROM pg_constraint AS c JOIN pg_class AS r ON r.oid = c.conrelid JOIN pg_namespace AS n ON n.oid = r.relnamespace
        JOIN pg_attribute AS a ON a.attrelid = c.conrelid AND a.attnum = c.conkey[1]
        WHERE c.contype = 'c' AND n.nspname IN ('ref', 'migration') AND a.attname IN ('service_point_id', 'premise_id', 'meter_id', 'account_id')
            AND cardinality(c.conkey) = 1 AND pg_get_constraintdef(c.oid) LIKE '%[A-Z0-9-]{1,64}%'
    LOOP
        EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I, ADD CONSTRAINT %I %s', found.relation, found.conname, found.conname,
            replace(found.definition, '^[A-Z0-9-]{1,64}$', '^[A-Z0-9-]([A-Z0-9 ._/-]{0,62}[A-Z0-9-])?$'));
    END LOOP;
END
$$;

-- migrate:down
DO $$ BEGIN RAISE EXCEPTION 'migrations go forward only: restore a backup'; END $$;
