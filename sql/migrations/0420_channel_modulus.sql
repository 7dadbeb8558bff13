-- migrate:up
-- A dial that starts again at another number than a power of ten: five digits that run to 59,999.
ALTER TABLE ref.channels ADD COLUMN modulus numeric(18,6) CHECK (modulus > 0 AND modulus <= 1e12);
COMMENT ON COLUMN ref.channels.modulus IS 'where the dial starts again at 0, in its own unit; empty: after its last digit. The file may lack the column';

-- A database that keeps the history of reference data already brings it to the new column.
DO $$
BEGIN
    IF to_regproc('ref.keep_history') IS NOT NULL THEN
        PERFORM ref.keep_history('channels');
    END IF;
END
$$;

-- migrate:down
ALTER TABLE ref.channels DROP COLUMN modulus;
