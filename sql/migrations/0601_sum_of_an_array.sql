-- migrate:up
-- A subquery over unnest keeps a query from running on more than one core; a function does not.
CREATE FUNCTION billing.sum_of(numbers bigint[]) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (SELECT coalesce(sum(n), 0)::bigint FROM unnest(numbers) AS n);
COMMENT ON FUNCTION billing.sum_of(bigint[]) IS 'The sum of an array''s elements, 0 of an empty one.';

-- migrate:down
DO $$ BEGIN RAISE EXCEPTION 'migrations go forward only: restore a backup'; END $$;
