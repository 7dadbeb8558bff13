-- migrate:up
-- Which of several payloads wins is decided by condition rank before version, so that a newer estimate never takes the place of an actual; the words
-- of 0010 said "newest". A day folded before this keeps its row until its next payload comes: what was billed from it stands.
COMMENT ON COLUMN raw.interval_day.source_version IS 'Version the source gave the leading payload; orders payloads of one condition rank (ingest/fold.py).';
COMMENT ON COLUMN raw.interval_day.read_time IS 'When the head-end took the leading payload, UTC; orders payloads of one rank and version.';
COMMENT ON COLUMN raw.interval_day.head_end IS 'Head-end that sent the leading payload.';
COMMENT ON COLUMN raw.interval_day.payload_hash IS 'SHA-256 of the leading payload''s canonical bytes: its leaf in the ledger.';
COMMENT ON COLUMN raw.interval_day.quality IS 'Quality code shared by every present slot (raw.quality_flag, _method, _reason, _espi read it); A and F outrank S, S outranks E; codes above 32767 are stored less 65536.';
COMMENT ON COLUMN raw.register_read.source_version IS 'Version the source gave the winning payload; orders payloads of one condition rank (ingest/fold.py).';
COMMENT ON COLUMN raw.register_read.read_time IS 'When the head-end took the winning payload, UTC; orders payloads of one rank and version.';
COMMENT ON COLUMN raw.interval.source_version IS 'Version of the leading payload of the channel-day.';
COMMENT ON COLUMN raw.interval.read_time IS 'When the head-end took the leading payload, UTC.';
COMMENT ON COLUMN raw.interval.head_end IS 'Head-end of the leading payload.';
COMMENT ON COLUMN raw.interval.payload_hash IS 'Ledger leaf of the leading payload.';

-- migrate:down
