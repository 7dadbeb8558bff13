-- migrate:up
-- Billing days that left the database: made ahead of their day, and detached, kept as Parquet and dropped when their retention is over.
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

-- As before, and: an empty table that was made ahead counts as created, since nothing of a killed run lies in it; a day that is archived is refused.
-- Replacing a function makes it its caller's again: a deployment with roles gave this one its owner's rights, which are put back.
DO $replace$
DECLARE
    definer boolean := (SELECT prosecdef FROM pg_proc WHERE oid = 'raw.open_partition(regclass, date)'::regprocedure);
BEGIN
    EXECUTE $outer$
CREATE OR REPLACE FUNCTION raw.open_partition(parent regclass, day date) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    space text := (SELECT n.nspname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE c.oid = parent);
    part text := raw.partition_name(parent, day);
    found oid;
    filled boolean;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended(space || '.' || part, 0));
    found := to_regclass(format('%I.%I', space, part));
    IF found IS NOT NULL THEN
        IF EXISTS (SELECT FROM pg_inherits WHERE inhrelid = found) THEN
            RETURN 'attached';
        END IF;
        EXECUTE format('SELECT EXISTS (SELECT FROM %I.%I)', space, part) INTO filled;
        RETURN CASE WHEN filled THEN 'open' ELSE 'created' END;
    END IF;
    IF EXISTS (SELECT FROM archive.day_table AS a WHERE a.billing_day = day AND a.state = 'archived'
        AND a.table_name = space || '.' || (SELECT c.relname FROM pg_class AS c WHERE c.oid = parent)) THEN
        RAISE EXCEPTION 'billing day % of % is archived', day, parent
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = format('meter-pipeline partitions restore --day %s', day);
    END IF;
    -- Rows of 288 five-minute slots are over 2 kB: kept in the page, uncompressed, they load and read at the speed of the rest.
    EXECUTE format(
        'CREATE TABLE %I.%I (LIKE %s INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING STORAGE, CONSTRAINT %I CHECK (billing_day >= %L AND billing_day < %L)) WITH (toast_tuple_target = 8160)',
        space, part, parent, part || '_day', day, day + 1);
    EXECUTE format('COMMENT ON TABLE %I.%I IS %L', space, part, 'Billing day ' || day || ' of ' || parent);
    RETURN 'created';
END
$$
    $outer$;
    IF definer THEN
        ALTER FUNCTION raw.open_partition(regclass, date) SECURITY DEFINER SET search_path = pg_catalog;
    END IF;
END
$replace$;
COMMENT ON FUNCTION raw.open_partition IS 'Make the table of a day, unattached. Answers created (made now, or ahead and still empty), open (holds rows, not attached) or attached.';

-- migrate:down
DO $replace$
BEGIN
    EXECUTE $outer$
CREATE OR REPLACE FUNCTION raw.open_partition(parent regclass, day date) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    space text := (SELECT n.nspname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE c.oid = parent);
    part text := raw.partition_name(parent, day);
    found oid;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended(space || '.' || part, 0));
    found := to_regclass(format('%I.%I', space, part));
    IF found IS NOT NULL THEN
        RETURN CASE WHEN EXISTS (SELECT FROM pg_inherits WHERE inhrelid = found) THEN 'attached' ELSE 'open' END;
    END IF;
    EXECUTE format(
        'CREATE TABLE %I.%I (LIKE %s INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING STORAGE, CONSTRAINT %I CHECK (billing_day >= %L AND billing_day < %L)) WITH (toast_tuple_target = 8160)',
        space, part, parent, part || '_day', day, day + 1);
    EXECUTE format('COMMENT ON TABLE %I.%I IS %L', space, part, 'Billing day ' || day || ' of ' || parent);
    RETURN 'created';
END
$$
    $outer$;
END
$replace$;
DROP SCHEMA archive CASCADE;
