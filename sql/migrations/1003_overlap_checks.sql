-- migrate:up
-- Rows in force at the same time are refused as before, five times as fast. A GiST index is searched by comparing each
-- entry of a page: a text's comparison takes some twenty times as long as a number's. With the hash of the identity before
-- it, only the entries of one hash are compared. 100,000 installations: 1.1 s instead of 6.1; a million were five minutes
-- of a first import.
DO $$
DECLARE
    found record;
BEGIN
    FOR found IN SELECT conrelid::regclass AS named, conname, pg_get_constraintdef(oid) AS definition
        FROM pg_constraint WHERE contype = 'x' AND conrelid IN ('ref.service_points'::regclass, 'ref.service_attributes'::regclass,
            'ref.installations'::regclass, 'ref.agreements'::regclass, 'ref.account_values'::regclass, 'ref.channel_values'::regclass,
            'ref.meter_values'::regclass, 'ref.zone_members'::regclass) ORDER BY conrelid::regclass::text
    LOOP
        EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I, ADD CONSTRAINT %I %s', found.named, found.conname, found.conname,
            regexp_replace(found.definition, '^EXCLUDE USING gist \((\w+) WITH =',
                'EXCLUDE USING gist (hashtextextended(\1, 0) WITH =, \1 WITH ='));
    END LOOP;
END $$;

-- migrate:down
DO $$ BEGIN RAISE EXCEPTION 'migrations go forward only: restore a backup'; END $$;
