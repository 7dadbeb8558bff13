-- migrate:up
-- The leaf of a changed reference row is over the columns that its ledger entry names. A column that is added to a table later is in no leaf from
-- before, so those leaves stay what they are. Roles that may not read the ledger read the names by this function.
CREATE FUNCTION ref.ledger_columns(entry bigint) RETURNS jsonb
LANGUAGE sql STABLE AS $function$
    SELECT convert_from(e.body, 'UTF8')::jsonb -> 'body' -> 'columns' FROM ledger.entry AS e WHERE e.entry_id = entry AND e.kind = 'reference_imported'
$function$;
COMMENT ON FUNCTION ref.ledger_columns IS 'By table the columns that the leaves of a ledger entry of changed reference rows are over; null for an entry that names none.';

-- migrate:down
DO $$ BEGIN RAISE EXCEPTION 'migrations go forward only: restore a backup'; END $$;
