-- migrate:up
-- Staged reads are made from the archived file and may be made again after reference data or a parser changed: the rows are then others than before,
-- and their numbers go on where the old ones ended, so that no claim of an old row covers a new one.
ALTER TABLE raw.feed_file_day ADD COLUMN first_row bigint NOT NULL DEFAULT 0 CHECK (first_row >= 0);
COMMENT ON COLUMN raw.feed_file_day.first_row IS 'Number of the first staged row; above 0 where the day was staged again after some rows had been loaded.';

-- One file under two head-ends is two files: four registers in a row are read by four declarations. The identity of a file stays one hash; the hash of
-- its bytes stands beside it.
ALTER TABLE raw.feed_file ADD COLUMN content_sha256 bytea;
UPDATE raw.feed_file SET content_sha256 = coalesce(decode(substring(archive_path FROM '([0-9a-f]{64})\.zst$'), 'hex'), sha256);
ALTER TABLE raw.feed_file ALTER COLUMN content_sha256 SET NOT NULL, ADD CHECK (length(content_sha256) = 32);
CREATE INDEX feed_file_by_content ON raw.feed_file (content_sha256);
COMMENT ON COLUMN raw.feed_file.sha256 IS 'Identity: SHA-256 of the bytes for the first head-end that offered them; for another, of "mp-file-1", head-end and that hash, joined by 0x1F; for a replayed dead letter see docs/ingest.md.';
COMMENT ON COLUMN raw.feed_file.content_sha256 IS 'SHA-256 of the file''s bytes, by which the archive keeps it.';

-- migrate:down
ALTER TABLE raw.feed_file DROP COLUMN content_sha256;
ALTER TABLE raw.feed_file_day DROP COLUMN first_row;
