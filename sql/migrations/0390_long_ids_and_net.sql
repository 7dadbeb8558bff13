-- migrate:up

-- Metering points of Austria and Germany have 33 characters (19 of 52 grid operators' exports), so ids may have 64.
-- Every CHECK that holds the old length is made again with the new one; partitions follow their parents.
DO $$
DECLARE
    held record;
BEGIN
    FOR held IN
        SELECT c.conrelid::regclass AS relation, c.conname AS name, pg_get_constraintdef(c.oid) AS definition
        FROM pg_constraint AS c
        WHERE c.contype = 'c' AND c.conparentid = 0 AND c.coninhcount = 0 AND c.conrelid <> 0
            AND pg_get_constraintdef(c.oid) LIKE '%[A-Z0-9-]{1,32}%'
        ORDER BY 1, 2
    LOOP
        EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', held.relation, held.name);
        EXECUTE format('ALTER TABLE %s ADD CONSTRAINT %I %s', held.relation, held.name, replace(held.definition, '{1,32}', '{1,64}'));
    END LOOP;
END
$$;

-- A net channel gives import less export in each interval, and is neither.
DO $$
DECLARE
    name text;
BEGIN
    FOR name IN
        SELECT conname FROM pg_constraint
        WHERE conrelid = 'ref.channels'::regclass AND contype = 'c' AND pg_get_constraintdef(oid) LIKE '%export%'
    LOOP
        EXECUTE format('ALTER TABLE ref.channels DROP CONSTRAINT %I', name);
    END LOOP;
END
$$;
ALTER TABLE ref.channels ADD CONSTRAINT channels_flow_check CHECK (flow IN ('import', 'export', 'net', 'other'));
COMMENT ON COLUMN ref.channels.flow IS 'import is used, export is delivered back, net is import less export in each interval, other is not energy';
COMMENT ON COLUMN vee.interval_day.flow IS 'import, export, net or other.';
COMMENT ON COLUMN vee.daily_usage.flow IS 'import, export, net or other.';
COMMENT ON COLUMN vee.group_day.flow IS 'import, export, net or other.';
COMMENT ON COLUMN vee.interval.flow IS 'import, export, net or other.';
COMMENT ON COLUMN analyst.intervals.flow IS 'import: delivered to the customer; export: taken back; net: import less export.';
COMMENT ON COLUMN analyst.usage.flow IS 'import, export or net.';

-- migrate:down
