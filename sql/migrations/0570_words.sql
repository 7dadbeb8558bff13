-- migrate:up
-- Comments that still said what columns held in an earlier version, or named a module that is gone.
COMMENT ON TABLE raw.interval_day IS 'Day vectors: the current raw intervals of a meter''s channel on a billing day. Where several payloads came, all of them merged (see raw.interval_payload).';
COMMENT ON COLUMN raw.interval_day.source_version IS 'Version the source gave the leading payload; orders payloads of one condition rank (ingest/merge_versions.py).';
COMMENT ON COLUMN raw.interval_day.payloads IS 'How many distinct payloads the row is merged from.';
COMMENT ON TABLE raw.interval_payload IS 'Every distinct payload of a meter''s channel-day that got more than one; raw.interval_day holds them merged. A channel-day with one payload is only there.';
COMMENT ON COLUMN raw.interval_payload.source_version IS 'Version the source gave the payload; orders payloads of one condition rank (ingest/merge_versions.py).';
COMMENT ON COLUMN raw.interval_payload.read_time IS 'When the head-end took the payload, UTC; orders payloads of one rank and version.';
COMMENT ON COLUMN raw.interval_payload.quality IS 'Quality code shared by every present slot (raw.quality_flag, _method, _reason, _espi read it); A and F outrank S, S outranks E; codes above 32767 are stored less 65536.';
COMMENT ON COLUMN raw.interval_payload.head_end IS 'Head-end that sent the payload.';
COMMENT ON COLUMN raw.interval_payload.payload_hash IS 'SHA-256 of the payload''s canonical bytes: its leaf in the ledger.';
COMMENT ON COLUMN raw.register_read.source_version IS 'Version the source gave the winning payload; orders payloads of one condition rank (ingest/merge_versions.py).';
COMMENT ON COLUMN raw.register_payload.source_version IS 'Version the source gave the payload; orders payloads of one condition rank (ingest/merge_versions.py).';
COMMENT ON COLUMN raw.register_payload.read_time IS 'When the head-end took the payload, UTC; orders payloads of one rank and version.';
COMMENT ON TABLE raw.stated_difference IS 'Periods for which a file states another consumption than the two dials it gives: the dials are billed, and a person looks.';
COMMENT ON COLUMN vee.interval_day_version.flow IS 'import, export, net or other.';
COMMENT ON COLUMN anomaly.day_facts.export IS 'Little-endian float32: export; null where no service point exports.';
COMMENT ON TABLE billing.reconciliation IS 'Each reconciliation check between one stage and the next, per billing day: what was expected, what is there, and the named cause of any difference.';
COMMENT ON VIEW analyst.reconciliation IS 'Each reconciliation check between a step and the one before: a difference has a named cause or is open.';

-- migrate:down
DO $$ BEGIN RAISE EXCEPTION 'migrations go forward only: restore a backup'; END $$;
