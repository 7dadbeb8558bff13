-- migrate:up
-- The stage that imports reference data checks that every changed row has its leaf, and may not read the ledger: this function reads it for the
-- roles that postgres/privileges.toml names, and gives the hashes of imports alone.
CREATE FUNCTION ref.ledger_leaves(entry bigint) RETURNS bytea
LANGUAGE sql STABLE AS $function$
    SELECT e.leaves FROM ledger.entry AS e WHERE e.entry_id = entry AND e.kind = 'reference_imported'
$function$;
COMMENT ON FUNCTION ref.ledger_leaves IS 'The leaves of a ledger entry of changed reference rows, end to end; null for another entry.';

-- migrate:down
DROP FUNCTION ref.ledger_leaves(bigint);
