-- migrate:up
-- Billing days whose retention is over are detached, kept as Parquet and dropped.
CREATE SCHEMA archive;
COMMENT ON SCHEMA archive IS 'Which billing days of which tables lie in Parquet files instead of partitions, and what they hold to the byte.';

CREATE TABLE archive.day_table (
    billing_day date NOT NULL,
    table_name text COLLATE "C" NOT NULL,
    state text NOT NULL CHECK (state IN ('archived', 'restored')),
    rows bigint NOT NULL CHECK (rows >= 0),
    bytes bigint NOT NULL CHECK (bytes > 0),
    columns text[] NOT NULL,
    folder text NOT NULL,
    file text NOT NULL,
    file_sha256 bytea NOT NULL CHECK (length(file_sha256) = 32),
    content_sha256 bytea NOT NULL CHECK (length(content_sha256) = 32),
    archived_at timestamptz NOT NULL,
    changed_at timestamptz NOT NULL,
    ledger_entry bigint NOT NULL,
    PRIMARY KEY (billing_day, table_name)
);
COMMENT ON TABLE archive.day_table IS 'A billing day of a table that was written to Parquet. While archived, no partition of the day exists and none can be made.';
COMMENT ON COLUMN archive.day_table.billing_day IS 'The day.';
COMMENT ON COLUMN archive.day_table.table_name IS 'The partitioned table, with its schema.';
COMMENT ON COLUMN archive.day_table.state IS 'archived: the rows are in the file only; restored: they are in a partition again.';
COMMENT ON COLUMN archive.day_table.rows IS 'Rows in the file.';
COMMENT ON COLUMN archive.day_table.bytes IS 'Size of the file.';
COMMENT ON COLUMN archive.day_table.columns IS 'Its columns, in the order in which the content is hashed.';
COMMENT ON COLUMN archive.day_table.folder IS 'Folder of the archive, as this deployment mounts it.';
COMMENT ON COLUMN archive.day_table.file IS 'The file, below the folder.';
COMMENT ON COLUMN archive.day_table.file_sha256 IS 'SHA-256 of the file.';
COMMENT ON COLUMN archive.day_table.content_sha256 IS 'SHA-256 of the rows as COPY (SELECT columns ORDER BY primary key) TO STDOUT (FORMAT binary) gives them.';
COMMENT ON COLUMN archive.day_table.archived_at IS 'When the partition was dropped, UTC.';
COMMENT ON COLUMN archive.day_table.changed_at IS 'When the state last changed, UTC.';
COMMENT ON COLUMN archive.day_table.ledger_entry IS 'Entry that names the file and its hashes.';

CREATE FUNCTION archive.drop_partition(parent regclass, day date) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    space text := (SELECT n.nspname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE c.oid = parent);
    name text := (SELECT c.relname FROM pg_class AS c WHERE c.oid = parent);
    part text := name || '_' || to_char(day, 'YYYYMMDD');
    wanted bigint;
    held bigint;
BEGIN
    -- Only what this very transaction put on record goes, and only if every row of it is in the file.
    SELECT a.rows INTO wanted FROM archive.day_table AS a
    WHERE a.billing_day = day AND a.table_name = space || '.' || name AND a.state = 'archived' AND a.xmin = pg_current_xact_id()::xid;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'billing day % of %.% was not archived by this transaction', day, space, name;
    END IF;
    EXECUTE format('SELECT count(*) FROM %I.%I', space, part) INTO held;
    IF held <> wanted THEN
        RAISE EXCEPTION 'billing day % of %.% has % rows, its file %', day, space, name, held, wanted;
    END IF;
    EXECUTE format('ALTER TABLE %I.%I DETACH PARTITION %I.%I', space, name, space, part);
    EXECUTE format('DROP TABLE %I.%I', space, part);
END
$$;
COMMENT ON FUNCTION archive.drop_partition IS 'Detach and drop the partition of a day that the caller''s transaction archived.';

-- migrate:down
DO $$ BEGIN RAISE EXCEPTION 'migrations go forward only: restore a backup'; END $$;
