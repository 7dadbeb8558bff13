-- migrate:up
-- A claim keyed by its first row alone let a batch and its own half both be claimed: [0,84) and [42,84) have other first rows. Seen on a COMMIT that
-- hung while its link was reset: 158 rows for 84 keys, and a day that could never be attached. Claims of one file, day and kind now exclude
-- each other wherever their rows overlap.
--
-- The range of one text stands for "the same file, day and kind" in the GiST index: equality of bytea and date there would need an extension.
CREATE TYPE raw.claim_range AS RANGE (subtype = text, collation = "C", multirange_type_name = raw.claim_multirange);
COMMENT ON TYPE raw.claim_range IS 'One text as a range, so that an exclusion constraint can compare it without an extension.';

CREATE FUNCTION raw.claim_of(sha256 bytea, billing_day date, kind text) RETURNS raw.claim_range LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT raw.claim_range(k, k, '[]') FROM (SELECT encode(sha256, 'hex') || ' ' || (billing_day - DATE '2000-01-01')::text || ' ' || kind) AS made (k)
$$;
COMMENT ON FUNCTION raw.claim_of IS 'The file, day and kind of a claim as one text, the bounds of a range.';

ALTER TABLE raw.load_batch ADD CONSTRAINT load_batch_rows_claimed_once
    EXCLUDE USING gist (raw.claim_of(sha256, billing_day, kind) WITH &&, rows WITH &&);

-- migrate:down
ALTER TABLE raw.load_batch DROP CONSTRAINT load_batch_rows_claimed_once;
DROP FUNCTION raw.claim_of;
DROP TYPE raw.claim_range;
