-- migrate:up
-- A utility imports its whole export every night, and most nights nothing changed: 100,000 meters took 20 s to read, check
-- and compare. The same files, with no change of reference data since, are now known by their hash.
CREATE TABLE ref.imported_folder (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    files_sha256 bytea NOT NULL CHECK (length(files_sha256) = 32),
    last_change text NOT NULL,
    rows jsonb NOT NULL
);
COMMENT ON TABLE ref.imported_folder IS 'The folder that was imported last, so that the same files are not read again. One row.';
COMMENT ON COLUMN ref.imported_folder.only_row IS 'Always true: the table has one row.';
COMMENT ON COLUMN ref.imported_folder.files_sha256 IS 'SHA-256 over the version of the program and the names and bytes of the folder''s files.';
COMMENT ON COLUMN ref.imported_folder.last_change IS 'Record time of the last change of reference data after the import, as text.';
COMMENT ON COLUMN ref.imported_folder.rows IS 'Rows by table.';

-- migrate:down
DO $$ BEGIN RAISE EXCEPTION 'migrations go forward only: restore a backup'; END $$;
