-- migrate:up
-- Reads as they arrived, each exactly once. Intervals are day vectors: one row per meter, channel and billing day.
-- Register reads are rows.
CREATE SCHEMA raw;
COMMENT ON SCHEMA raw IS 'Meter reads as they arrived: never edited, every version kept, exactly once.';

-- Claims of one file, day and kind exclude each other where their rows overlap (raw.load_batch). Keyed by its first row
-- alone, a batch and its own half could both be claimed: [0,84) and [42,84) have other first rows. Seen on a COMMIT
-- that hung while its link was reset: 158 rows for 84 keys, and a day that could not be attached.

-- A range of one text stands for "the same file, day and kind" in the GiST index: equality of bytea and date there
-- would need an extension.
CREATE TYPE raw.claim_range AS RANGE (subtype = text, collation = "C", multirange_type_name = raw.claim_multirange);
COMMENT ON TYPE raw.claim_range IS 'One text as a range, so that an exclusion constraint can compare it without an extension.';

CREATE FUNCTION raw.claim_of(sha256 bytea, billing_day date, kind text) RETURNS raw.claim_range
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT raw.claim_range(k, k, '[]') FROM (SELECT encode(sha256, 'hex') || ' ' || (billing_day - DATE '2000-01-01')::text || ' ' || kind) AS made (k)
$$;
COMMENT ON FUNCTION raw.claim_of IS 'The file, day and kind of a claim as one text, the bounds of a range.';

-- Columns of a day vector stand 8-byte ones first, so that no row carries padding.
CREATE TABLE raw.interval_day (
    starts_at timestamptz NOT NULL,
    source_version bigint NOT NULL,
    read_time timestamptz,
    billing_day date NOT NULL,
    sequence integer NOT NULL,
    sequence_step integer NOT NULL DEFAULT 0,
    interval_minutes smallint NOT NULL,
    slots smallint NOT NULL,
    scale smallint NOT NULL,
    quality smallint NOT NULL,
    payloads smallint NOT NULL DEFAULT 1,
    meter_id text COLLATE "C" NOT NULL,
    channel text COLLATE "C" NOT NULL,
    unit text NOT NULL,
    head_end text NOT NULL,
    payload_hash bytea NOT NULL,
    values integer[],
    wide_values bigint[],
    qualities smallint[],
    sequences integer[],
    offsets smallint[],
    PRIMARY KEY (billing_day, meter_id, channel),
    CHECK (interval_minutes BETWEEN 1 AND 1440 AND slots BETWEEN 1 AND 1500 AND scale BETWEEN 0 AND 6 AND payloads > 0),
    CHECK (length(payload_hash) = 32),
    CHECK (coalesce(array_length(values, 1), 0) + coalesce(array_length(wide_values, 1), 0) = slots)
) PARTITION BY RANGE (billing_day);
COMMENT ON TABLE raw.interval_day IS 'Day vectors: the current raw intervals of a meter''s channel on a billing day. Where several payloads came, the fold of all of them (see raw.interval_payload).';
COMMENT ON COLUMN raw.interval_day.starts_at IS 'UTC instant at which the billing day, and so slot 1, begins.';
COMMENT ON COLUMN raw.interval_day.source_version IS 'Version the source gave the leading payload; orders payloads of one condition rank (ingest/fold.py).';
COMMENT ON COLUMN raw.interval_day.read_time IS 'When the head-end took the leading payload, UTC; orders payloads of one rank and version.';
COMMENT ON COLUMN raw.interval_day.billing_day IS 'Local civil day that holds the start of every interval in the row.';
COMMENT ON COLUMN raw.interval_day.sequence IS 'Sequence number of slot 1; of slot k it is sequence + (k - 1) * sequence_step, unless sequences says otherwise.';
COMMENT ON COLUMN raw.interval_day.sequence_step IS 'Difference of sequence numbers from slot to slot; 0 where all are equal.';
COMMENT ON COLUMN raw.interval_day.interval_minutes IS 'Length of an interval in minutes.';
COMMENT ON COLUMN raw.interval_day.slots IS 'Number of intervals in this billing day: 96 quarter-hours, 92 or 100 when clocks change.';
COMMENT ON COLUMN raw.interval_day.scale IS 'Decimals of the stored integers: quantity = integer * 10^-scale base units.';
COMMENT ON COLUMN raw.interval_day.quality IS 'Quality code shared by every present slot (raw.quality_flag, _method, _reason, _espi read it); A and F outrank S, S outranks E; codes above 32767 are stored less 65536.';
COMMENT ON COLUMN raw.interval_day.payloads IS 'How many distinct payloads the row is folded from.';
COMMENT ON COLUMN raw.interval_day.meter_id IS 'Meter.';
COMMENT ON COLUMN raw.interval_day.channel IS 'Channel of the meter.';
COMMENT ON COLUMN raw.interval_day.unit IS 'Base unit of the quantities (kWh, m3, gal, ft3 ...).';
COMMENT ON COLUMN raw.interval_day.head_end IS 'Head-end that sent the leading payload.';
COMMENT ON COLUMN raw.interval_day.payload_hash IS 'SHA-256 of the leading payload''s canonical bytes: its leaf in the ledger.';
COMMENT ON COLUMN raw.interval_day.values IS 'Scaled integers by slot; -2147483648 where no read came. Null where wide_values holds them.';
COMMENT ON COLUMN raw.interval_day.wide_values IS 'The same where 32 bits are too few; -9223372036854775808 where no read came.';
COMMENT ON COLUMN raw.interval_day.qualities IS 'Quality code by slot, only where slots differ.';
COMMENT ON COLUMN raw.interval_day.sequences IS 'Sequence number by slot, only where they follow no rule.';
COMMENT ON COLUMN raw.interval_day.offsets IS 'Seconds that a read''s own stamp lay behind its slot''s start, only where a clock was off the grid.';

CREATE TABLE raw.interval_payload (
    LIKE raw.interval_day INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING COMMENTS,
    PRIMARY KEY (billing_day, meter_id, channel, payload_hash)
) PARTITION BY RANGE (billing_day);
COMMENT ON TABLE raw.interval_payload IS 'Every distinct payload of a meter''s channel-day that got more than one; raw.interval_day holds the fold. A channel-day with one payload is only there.';
COMMENT ON COLUMN raw.interval_payload.source_version IS 'Version the source gave the newest payload; orders versions first.';
COMMENT ON COLUMN raw.interval_payload.read_time IS 'When the head-end took the newest payload, UTC; orders versions second.';
COMMENT ON COLUMN raw.interval_payload.head_end IS 'Head-end that sent the newest payload.';
COMMENT ON COLUMN raw.interval_payload.payload_hash IS 'SHA-256 of the newest payload''s canonical bytes: its leaf in the ledger.';
COMMENT ON COLUMN raw.interval_payload.quality IS 'Quality code shared by every present slot (raw.quality_flag, _method, _reason, _espi read it); codes above 32767 are stored less 65536.';

CREATE TABLE raw.register_read (
    read_at timestamptz NOT NULL,
    -- A plant's register in watt hours may stand above 10^10 units: all that 64 bits of millionths hold is legal.
    value bigint NOT NULL CHECK (value BETWEEN -9000000000000000000 AND 9000000000000000000),
    source_version bigint NOT NULL,
    read_time timestamptz,
    billing_day date NOT NULL,
    sequence integer NOT NULL,
    quality smallint NOT NULL,
    payloads smallint NOT NULL DEFAULT 1,
    meter_id text COLLATE "C" NOT NULL,
    channel text COLLATE "C" NOT NULL,
    unit text NOT NULL,
    head_end text NOT NULL,
    payload_hash bytea NOT NULL CHECK (length(payload_hash) = 32),
    idempotency_key bytea NOT NULL CHECK (length(idempotency_key) = 32),
    PRIMARY KEY (billing_day, meter_id, channel, read_at),
    UNIQUE (idempotency_key, channel, billing_day)
) PARTITION BY RANGE (billing_day);
COMMENT ON TABLE raw.register_read IS 'Readings of cumulative registers, one row each: the dial, not the consumption.';
COMMENT ON COLUMN raw.register_read.read_at IS 'Instant of the reading, UTC.';
COMMENT ON COLUMN raw.register_read.value IS 'The dial in millionths of the base unit.';
COMMENT ON COLUMN raw.register_read.source_version IS 'Version the source gave the winning payload; orders payloads of one condition rank (ingest/fold.py).';
COMMENT ON COLUMN raw.register_read.read_time IS 'When the head-end took the winning payload, UTC; orders payloads of one rank and version.';
COMMENT ON COLUMN raw.register_read.billing_day IS 'Billing day whose (start, end] holds the reading: one exactly at midnight closes the day before.';
COMMENT ON COLUMN raw.register_read.sequence IS 'Sequence number the source gave the reading; orders versions third.';
COMMENT ON COLUMN raw.register_read.quality IS 'Quality code; codes above 32767 are stored less 65536.';
COMMENT ON COLUMN raw.register_read.payloads IS 'How many distinct payloads came for this reading; the winner is here, all are in raw.register_payload.';
COMMENT ON COLUMN raw.register_read.meter_id IS 'Meter.';
COMMENT ON COLUMN raw.register_read.channel IS 'Channel of the meter.';
COMMENT ON COLUMN raw.register_read.unit IS 'Base unit.';
COMMENT ON COLUMN raw.register_read.head_end IS 'Head-end that sent it.';
COMMENT ON COLUMN raw.register_read.payload_hash IS 'SHA-256 of the payload''s canonical bytes: its leaf in the ledger.';
COMMENT ON COLUMN raw.register_read.idempotency_key IS 'raw.idempotency_key(meter_id, read_at, sequence), stored because here a row is a read.';

CREATE TABLE raw.register_payload (
    LIKE raw.register_read INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING COMMENTS,
    PRIMARY KEY (billing_day, meter_id, channel, read_at, payload_hash)
) PARTITION BY RANGE (billing_day);
ALTER TABLE raw.register_payload RENAME CONSTRAINT register_read_value_check TO register_payload_value_check;
COMMENT ON TABLE raw.register_payload IS 'Every distinct payload of a register reading that got more than one.';
COMMENT ON COLUMN raw.register_payload.source_version IS 'Version the source gave the winning payload; orders versions first.';
COMMENT ON COLUMN raw.register_payload.read_time IS 'When the head-end took the winning payload, UTC; orders versions second.';

-- Files, and what became of their reads.

-- A file that two head-ends offer is two files: four registers in a row are read by four declarations. sha256
-- identifies the file, content_sha256 is the hash of its bytes.
CREATE TABLE raw.feed_file (
    sha256 bytea PRIMARY KEY CHECK (length(sha256) = 32),
    file_name text NOT NULL,
    head_end text NOT NULL,
    commodity text NOT NULL,
    file_format text NOT NULL,
    bytes bigint NOT NULL,
    archive_path text NOT NULL,
    landed_at timestamptz NOT NULL,
    received bigint NOT NULL,
    rejected bigint NOT NULL,
    dead_letters bigint NOT NULL,
    refused text,
    run_id text,
    replay_of bytea,
    ledger_entry bigint,
    content_sha256 bytea NOT NULL CHECK (length(content_sha256) = 32)
);
CREATE INDEX feed_file_by_content ON raw.feed_file (content_sha256);
COMMENT ON TABLE raw.feed_file IS 'Every distinct file that arrived, by the hash of its bytes.';
COMMENT ON COLUMN raw.feed_file.sha256 IS 'Identity: SHA-256 of the bytes for the first head-end that offered them; for another, of "mp-file-1", head-end and that hash, joined by 0x1F; for a replayed dead letter see docs/ingest.md.';
COMMENT ON COLUMN raw.feed_file.file_name IS 'Name it first arrived under.';
COMMENT ON COLUMN raw.feed_file.head_end IS 'Head-end whose declaration read it.';
COMMENT ON COLUMN raw.feed_file.commodity IS 'Commodity its head-end declares; a pause of that commodity holds it.';
COMMENT ON COLUMN raw.feed_file.file_format IS 'Format it was read as.';
COMMENT ON COLUMN raw.feed_file.bytes IS 'Its size.';
COMMENT ON COLUMN raw.feed_file.archive_path IS 'Where its compressed copy lies, below the archive folder.';
COMMENT ON COLUMN raw.feed_file.landed_at IS 'When it was registered, UTC.';
COMMENT ON COLUMN raw.feed_file.received IS 'Reads it offered, good or not.';
COMMENT ON COLUMN raw.feed_file.rejected IS 'Reads rejected when it was landed.';
COMMENT ON COLUMN raw.feed_file.dead_letters IS 'Dead letters written for it when it was landed.';
COMMENT ON COLUMN raw.feed_file.refused IS 'Why the whole file could not be read, or null.';
COMMENT ON COLUMN raw.feed_file.run_id IS 'Run that landed it.';
COMMENT ON COLUMN raw.feed_file.replay_of IS 'Dead letter that it replays, or null for a file of a head-end.';
COMMENT ON COLUMN raw.feed_file.ledger_entry IS 'Ledger entry that recorded it.';
COMMENT ON COLUMN raw.feed_file.content_sha256 IS 'SHA-256 of the file''s bytes, by which the archive keeps it.';

CREATE TABLE raw.feed_file_arrival (
    sha256 bytea NOT NULL REFERENCES raw.feed_file,
    file_name text NOT NULL,
    first_seen timestamptz NOT NULL,
    last_seen timestamptz NOT NULL,
    times integer NOT NULL DEFAULT 1,
    duplicate boolean NOT NULL,
    bytes bigint NOT NULL,
    modified_ns bigint NOT NULL,
    PRIMARY KEY (sha256, file_name)
);
CREATE INDEX feed_file_arrival_by_name ON raw.feed_file_arrival (file_name);
COMMENT ON TABLE raw.feed_file_arrival IS 'Every name under which a file''s bytes arrived. All but the first are duplicates and load nothing.';
COMMENT ON COLUMN raw.feed_file_arrival.sha256 IS 'The file.';
COMMENT ON COLUMN raw.feed_file_arrival.file_name IS 'Name it arrived under.';
COMMENT ON COLUMN raw.feed_file_arrival.first_seen IS 'First time, UTC.';
COMMENT ON COLUMN raw.feed_file_arrival.last_seen IS 'Latest time, UTC.';
COMMENT ON COLUMN raw.feed_file_arrival.times IS 'How often it was landed under this name.';
COMMENT ON COLUMN raw.feed_file_arrival.duplicate IS 'Whether the bytes were already known under another name.';
COMMENT ON COLUMN raw.feed_file_arrival.bytes IS 'Its size when last seen.';
COMMENT ON COLUMN raw.feed_file_arrival.modified_ns IS 'Its modification time when last seen, nanoseconds since 1970: with name and size it tells a new file without reading it.';

-- Staged reads may be made again from the archived file after reference data or a parser changed. The rows are then
-- others than before, and their numbers go on where the old ones ended, so that no claim of an old row covers a new
-- one.
CREATE TABLE raw.feed_file_day (
    sha256 bytea NOT NULL REFERENCES raw.feed_file,
    billing_day date NOT NULL,
    staged_path text NOT NULL,
    staged_sha256 bytea NOT NULL,
    received bigint NOT NULL,
    interval_rows bigint NOT NULL,
    register_rows bigint NOT NULL,
    duplicate_in_file bigint NOT NULL,
    superseded_in_file bigint NOT NULL,
    accepted bigint,
    duplicate bigint,
    superseded bigint,
    rejected bigint,
    loaded_at timestamptz,
    first_row bigint NOT NULL DEFAULT 0 CHECK (first_row >= 0),
    PRIMARY KEY (sha256, billing_day)
);
CREATE INDEX feed_file_day_staged ON raw.feed_file_day (billing_day) WHERE loaded_at IS NULL;
CREATE INDEX feed_file_day_by_day ON raw.feed_file_day (billing_day);
COMMENT ON TABLE raw.feed_file_day IS 'Which billing days a file touches, and what became of its reads there: received = accepted + duplicate + superseded + rejected once loaded.';
COMMENT ON COLUMN raw.feed_file_day.sha256 IS 'The file.';
COMMENT ON COLUMN raw.feed_file_day.billing_day IS 'The day.';
COMMENT ON COLUMN raw.feed_file_day.staged_path IS 'Where its parsed reads of the day wait, below the staging folder.';
COMMENT ON COLUMN raw.feed_file_day.staged_sha256 IS 'SHA-256 over the staged payload hashes, so that a re-made staging file is known to be the same.';
COMMENT ON COLUMN raw.feed_file_day.received IS 'Reads of the file that fall in the day.';
COMMENT ON COLUMN raw.feed_file_day.interval_rows IS 'Interval payloads staged.';
COMMENT ON COLUMN raw.feed_file_day.register_rows IS 'Register payloads staged.';
COMMENT ON COLUMN raw.feed_file_day.duplicate_in_file IS 'Reads that repeat another of the same file.';
COMMENT ON COLUMN raw.feed_file_day.superseded_in_file IS 'Reads that lost to a later one of the same file and version.';
COMMENT ON COLUMN raw.feed_file_day.accepted IS 'Reads now in the store because of this file; null until loaded.';
COMMENT ON COLUMN raw.feed_file_day.duplicate IS 'Reads that said what the store or the file had already.';
COMMENT ON COLUMN raw.feed_file_day.superseded IS 'Reads that lost to a version the store or the file had already.';
COMMENT ON COLUMN raw.feed_file_day.rejected IS 'Reads the database refused on loading; each is in a dead letter.';
COMMENT ON COLUMN raw.feed_file_day.loaded_at IS 'When the day''s reads of the file were all in, UTC; null while they wait.';
COMMENT ON COLUMN raw.feed_file_day.first_row IS 'Number of the first staged row; above 0 where the day was staged again after some rows had been loaded.';

CREATE TABLE raw.load_batch (
    sha256 bytea NOT NULL,
    billing_day date NOT NULL,
    kind text NOT NULL CHECK (kind IN ('interval', 'register')),
    first_row bigint NOT NULL,
    rows int8multirange NOT NULL CHECK (NOT isempty(rows) AND lower(rows) = first_row),
    accepted bigint NOT NULL DEFAULT 0,
    duplicate bigint NOT NULL DEFAULT 0,
    superseded bigint NOT NULL DEFAULT 0,
    rejected bigint NOT NULL DEFAULT 0,
    ledger_entries bigint[] NOT NULL DEFAULT '{}',
    PRIMARY KEY (sha256, billing_day, kind, first_row),
    CONSTRAINT load_batch_rows_claimed_once
        EXCLUDE USING gist (raw.claim_of(sha256, billing_day, kind) WITH &&, rows WITH &&)
);
COMMENT ON TABLE raw.load_batch IS 'Which staged rows of a file and day are committed. Written first in each batch''s transaction: a retry after a lost reply finds it and does nothing.';
COMMENT ON COLUMN raw.load_batch.sha256 IS 'The file.';
COMMENT ON COLUMN raw.load_batch.billing_day IS 'The day.';
COMMENT ON COLUMN raw.load_batch.kind IS 'interval or register.';
COMMENT ON COLUMN raw.load_batch.first_row IS 'Least staged row of the batch, from 0.';
COMMENT ON COLUMN raw.load_batch.rows IS 'Its staged rows.';
COMMENT ON COLUMN raw.load_batch.accepted IS 'Reads accepted.';
COMMENT ON COLUMN raw.load_batch.duplicate IS 'Reads already there.';
COMMENT ON COLUMN raw.load_batch.superseded IS 'Reads that lost to what was there.';
COMMENT ON COLUMN raw.load_batch.rejected IS 'Reads the database refused.';
COMMENT ON COLUMN raw.load_batch.ledger_entries IS 'Ledger entries of the batch.';

-- A dead letter's leaf in the ledger is a salted hash: its bytes may name a person, and can then be erased with every
-- proof still valid.
CREATE TABLE raw.dead_letter (
    dead_letter_key bytea PRIMARY KEY CHECK (length(dead_letter_key) = 32),
    file_sha256 bytea NOT NULL CHECK (length(file_sha256) = 32),
    file_name text NOT NULL,
    head_end text NOT NULL,
    file_format text NOT NULL,
    line bigint,
    byte_offset bigint,
    raw bytea NOT NULL,
    raw_format text NOT NULL CHECK (raw_format IN ('source', 'canonical', 'file')),
    reasons jsonb NOT NULL CHECK (jsonb_typeof(reasons) = 'array' AND jsonb_array_length(reasons) > 0),
    reads bigint NOT NULL CHECK (reads >= 0),
    meter_id text COLLATE "C",
    channel text COLLATE "C",
    rule_version text NOT NULL,
    run_id text,
    first_seen timestamptz NOT NULL,
    last_seen timestamptz NOT NULL,
    times integer NOT NULL DEFAULT 1,
    status text NOT NULL DEFAULT 'open' CHECK (status IN ('open', 'corrected', 'replayed', 'dismissed')),
    corrected_raw bytea,
    changed_by text,
    changed_at timestamptz,
    change_reason text,
    replay_sha256 bytea,
    leaf bytea NOT NULL CHECK (length(leaf) = 32),
    salt bytea CHECK (length(salt) = 32),
    corrected_leaf bytea CHECK (length(corrected_leaf) = 32),
    erased_at timestamptz,
    erased_by text,
    CHECK (status = 'open' OR (changed_by IS NOT NULL AND changed_at IS NOT NULL)),
    CHECK (status NOT IN ('corrected', 'dismissed') OR change_reason IS NOT NULL),
    CHECK ((status = 'replayed') = (replay_sha256 IS NOT NULL)),
    CONSTRAINT dead_letter_leaf_is_of_raw CHECK (salt IS NULL
        OR leaf = sha256('mp-salted/1'::bytea || '\x1f'::bytea || salt || raw)),
    CONSTRAINT dead_letter_erased_whole CHECK (erased_at IS NULL
        OR (erased_by IS NOT NULL AND salt IS NULL AND raw = '' AND corrected_raw IS NULL
            AND status IN ('replayed', 'dismissed')))
);
CREATE INDEX dead_letter_open ON raw.dead_letter (first_seen) WHERE status IN ('open', 'corrected');
CREATE INDEX dead_letter_by_file ON raw.dead_letter (file_sha256);
CREATE INDEX dead_letter_oldest ON raw.dead_letter (first_seen, dead_letter_key);
CREATE INDEX dead_letter_unsettled ON raw.dead_letter (first_seen, dead_letter_key)
    WHERE status IN ('open', 'corrected');
CREATE INDEX dead_letter_by_head_end ON raw.dead_letter (head_end, first_seen, dead_letter_key);
CREATE INDEX dead_letter_by_reason ON raw.dead_letter USING gin (reasons jsonb_path_ops);
-- A key is given by its first digits.
CREATE INDEX dead_letter_by_prefix ON raw.dead_letter (encode(dead_letter_key, 'hex') text_pattern_ops);
COMMENT ON TABLE raw.dead_letter IS 'What could not be read or accepted, with everything needed to see why, correct it and replay it once.';
COMMENT ON COLUMN raw.dead_letter.dead_letter_key IS 'Idempotency key of the rejected payload: SHA-256 over file hash, line, byte offset and raw bytes.';
COMMENT ON COLUMN raw.dead_letter.file_sha256 IS 'File it came from.';
COMMENT ON COLUMN raw.dead_letter.file_name IS 'Name of that file.';
COMMENT ON COLUMN raw.dead_letter.head_end IS 'Head-end.';
COMMENT ON COLUMN raw.dead_letter.file_format IS 'Format the file was read as.';
COMMENT ON COLUMN raw.dead_letter.line IS 'Line (or element) of the file, from 1.';
COMMENT ON COLUMN raw.dead_letter.byte_offset IS 'Where it begins in the file, where known.';
COMMENT ON COLUMN raw.dead_letter.raw IS 'The bytes as they came, or the reads in canonical form where a whole payload was rejected after parsing.';
COMMENT ON COLUMN raw.dead_letter.raw_format IS 'source: bytes of the file''s own format; canonical: one JSON object of the payload''s stored columns; file: the whole file was refused and raw holds its beginning.';
COMMENT ON COLUMN raw.dead_letter.reasons IS 'Every reason: [{"code", "detail"}].';
COMMENT ON COLUMN raw.dead_letter.reads IS 'How many reads it held.';
COMMENT ON COLUMN raw.dead_letter.meter_id IS 'Meter it names, where that could be read.';
COMMENT ON COLUMN raw.dead_letter.channel IS 'Channel it names, where that could be read.';
COMMENT ON COLUMN raw.dead_letter.rule_version IS 'Version of the rules that rejected it.';
COMMENT ON COLUMN raw.dead_letter.run_id IS 'Run that rejected it first.';
COMMENT ON COLUMN raw.dead_letter.first_seen IS 'First time, UTC.';
COMMENT ON COLUMN raw.dead_letter.last_seen IS 'Latest time, UTC.';
COMMENT ON COLUMN raw.dead_letter.times IS 'How often it was rejected.';
COMMENT ON COLUMN raw.dead_letter.status IS 'open, corrected (waits for replay), replayed or dismissed.';
COMMENT ON COLUMN raw.dead_letter.corrected_raw IS 'What it should have said.';
COMMENT ON COLUMN raw.dead_letter.changed_by IS 'Who corrected, replayed or dismissed it.';
COMMENT ON COLUMN raw.dead_letter.changed_at IS 'When, UTC.';
COMMENT ON COLUMN raw.dead_letter.change_reason IS 'Why.';
COMMENT ON COLUMN raw.dead_letter.replay_sha256 IS 'The file made of it when it was replayed: its reads are accounted for there.';
COMMENT ON COLUMN raw.dead_letter.leaf IS 'Its leaf in the ledger: SHA-256("mp-salted/1" 0x1F salt raw).';
COMMENT ON COLUMN raw.dead_letter.salt IS '32 random bytes, erased with the content so that nobody can try values.';
COMMENT ON COLUMN raw.dead_letter.corrected_leaf IS 'Leaf of the correction, kept in ledger.personal.';
COMMENT ON COLUMN raw.dead_letter.erased_at IS 'When its content was erased, UTC.';
COMMENT ON COLUMN raw.dead_letter.erased_by IS 'Who asked for that.';

-- Of two values with one sequence number in one file, the file's own merge keeps one, so that the store alone would not
-- know of the other.
CREATE TABLE raw.reused_sequence (
    billing_day date NOT NULL,
    meter_id text COLLATE "C" NOT NULL,
    channel text COLLATE "C" NOT NULL,
    sha256 bytea NOT NULL REFERENCES raw.feed_file,
    reads integer NOT NULL CHECK (reads > 0),
    PRIMARY KEY (billing_day, meter_id, channel, sha256)
);
COMMENT ON TABLE raw.reused_sequence IS 'Channel-days of which a file gave one sequence number to different values: what validation reports as a reused sequence.';
COMMENT ON COLUMN raw.reused_sequence.billing_day IS 'The day.';
COMMENT ON COLUMN raw.reused_sequence.meter_id IS 'Meter.';
COMMENT ON COLUMN raw.reused_sequence.channel IS 'Channel.';
COMMENT ON COLUMN raw.reused_sequence.sha256 IS 'The file.';
COMMENT ON COLUMN raw.reused_sequence.reads IS 'Reads that lost to another of their own number.';

-- The dials are billed (NEM13 states both). The statement may be the sign of a dial multiplier that was not declared,
-- which would bill a current-transformer meter at a fraction of its use.
CREATE TABLE raw.stated_difference (
    sha256 bytea NOT NULL REFERENCES raw.feed_file,
    line bigint NOT NULL,
    meter_id text COLLATE "C" NOT NULL,
    channel text COLLATE "C" NOT NULL,
    period_start timestamptz NOT NULL,
    period_end timestamptz NOT NULL,
    stated_micro bigint NOT NULL,
    dials_micro bigint NOT NULL,
    unit text NOT NULL,
    PRIMARY KEY (sha256, line)
);
COMMENT ON TABLE raw.stated_difference IS 'Periods for which a file states another consumption than the two dials it gives: the dials are billed, and somebody should look.';
COMMENT ON COLUMN raw.stated_difference.sha256 IS 'The file.';
COMMENT ON COLUMN raw.stated_difference.line IS 'Line of the record, from 1.';
COMMENT ON COLUMN raw.stated_difference.meter_id IS 'Meter.';
COMMENT ON COLUMN raw.stated_difference.channel IS 'Register.';
COMMENT ON COLUMN raw.stated_difference.period_start IS 'Time of the previous read.';
COMMENT ON COLUMN raw.stated_difference.period_end IS 'Time of the current read.';
COMMENT ON COLUMN raw.stated_difference.stated_micro IS 'Consumption as stated, in millionths of the unit.';
COMMENT ON COLUMN raw.stated_difference.dials_micro IS 'Current minus previous read in millionths of the unit; across the last digit where that is the shorter way.';
COMMENT ON COLUMN raw.stated_difference.unit IS 'Base unit.';

-- Quantities are kept to a millionth of their unit, and a gas file in 10^-8 therm or a double's residue
-- (3.2269999999999186) has more digits. The sum per channel is kept, so that the file's own total can be told from the
-- stored one.
CREATE TABLE raw.rounding (
    sha256 bytea NOT NULL REFERENCES raw.feed_file,
    meter_id text COLLATE "C" NOT NULL,
    channel text COLLATE "C" NOT NULL,
    difference_micro numeric NOT NULL,
    PRIMARY KEY (sha256, meter_id, channel)
);
COMMENT ON TABLE raw.rounding IS 'What a declared rounding did to the reads of a file, by channel.';
COMMENT ON COLUMN raw.rounding.sha256 IS 'The file.';
COMMENT ON COLUMN raw.rounding.meter_id IS 'Meter.';
COMMENT ON COLUMN raw.rounding.channel IS 'Channel or register.';
COMMENT ON COLUMN raw.rounding.difference_micro IS 'Sum of the stored values less the sum of the file''s own, in millionths of the base unit, to twelve places.';

-- Who works on which day.

CREATE TABLE raw.day_load (
    billing_day date PRIMARY KEY,
    epoch bigint NOT NULL,
    holder text NOT NULL,
    taken_at timestamptz NOT NULL
);
COMMENT ON TABLE raw.day_load IS 'Who may write a billing day. A run takes the next epoch; each batch shares the row''s lock and stops if the epoch is no longer its own.';
COMMENT ON COLUMN raw.day_load.billing_day IS 'The day.';
COMMENT ON COLUMN raw.day_load.epoch IS 'Fencing token.';
COMMENT ON COLUMN raw.day_load.holder IS 'Run that holds it.';
COMMENT ON COLUMN raw.day_load.taken_at IS 'Since when, UTC.';

-- A billing day whose run failed is asked for again, at growing intervals. How often stands here and not in Dagster,
-- which keeps run keys for ever. A hundred days that fail take no turn from the next.
CREATE TABLE raw.day_request (
    billing_day date PRIMARY KEY,
    evidence bytea NOT NULL CHECK (length(evidence) = 32),
    times integer NOT NULL CHECK (times > 0),
    first_asked timestamptz NOT NULL,
    last_asked timestamptz NOT NULL
);
COMMENT ON TABLE raw.day_request IS 'Billing days that wait and were asked for: how often for the same files and register reads.';
COMMENT ON COLUMN raw.day_request.billing_day IS 'The day.';
COMMENT ON COLUMN raw.day_request.evidence IS 'SHA-256 over the files and requests for which it waits; others begin anew.';
COMMENT ON COLUMN raw.day_request.times IS 'How often it was asked for.';
COMMENT ON COLUMN raw.day_request.first_asked IS 'First time, UTC.';
COMMENT ON COLUMN raw.day_request.last_asked IS 'Latest time, UTC.';

CREATE TABLE raw.pull_request (
    head_end text NOT NULL,
    billing_day date NOT NULL,
    times integer NOT NULL DEFAULT 1,
    first_asked timestamptz NOT NULL,
    last_asked timestamptz NOT NULL,
    outcome text NOT NULL,
    reads bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (head_end, billing_day)
);
COMMENT ON TABLE raw.pull_request IS 'Days asked of head-ends that are pulled: how often, and what came.';
COMMENT ON COLUMN raw.pull_request.head_end IS 'Head-end asked.';
COMMENT ON COLUMN raw.pull_request.billing_day IS 'Day asked for.';
COMMENT ON COLUMN raw.pull_request.times IS 'How often.';
COMMENT ON COLUMN raw.pull_request.first_asked IS 'First time, UTC.';
COMMENT ON COLUMN raw.pull_request.last_asked IS 'Latest time, UTC.';
COMMENT ON COLUMN raw.pull_request.outcome IS 'pulled, empty, or why it failed.';
COMMENT ON COLUMN raw.pull_request.reads IS 'Reads that came the last time.';

CREATE TABLE raw.breaker (
    name text PRIMARY KEY,
    state text NOT NULL CHECK (state IN ('closed', 'open', 'half_open')),
    open_until timestamptz,
    changed_at timestamptz NOT NULL,
    holder text NOT NULL,
    times_opened bigint NOT NULL DEFAULT 0
);
COMMENT ON TABLE raw.breaker IS 'Circuit breakers that every process shares: one that opens here is open for all.';
COMMENT ON COLUMN raw.breaker.name IS 'What it guards.';
COMMENT ON COLUMN raw.breaker.state IS 'closed, open or half_open.';
COMMENT ON COLUMN raw.breaker.open_until IS 'When a trial may be made, by the server''s clock, UTC.';
COMMENT ON COLUMN raw.breaker.changed_at IS 'When it last changed, UTC.';
COMMENT ON COLUMN raw.breaker.holder IS 'Run that changed it.';
COMMENT ON COLUMN raw.breaker.times_opened IS 'How often it opened.';

-- Identity of one read: mp1, then meter, instant and sequence, each after a unit separator (0x1F), in UTF-8.
CREATE FUNCTION raw.idempotency_key(meter_id text, at timestamptz, sequence integer) RETURNS bytea
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT sha256(convert_to('mp1' || chr(31) || meter_id || chr(31)
        || to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') || chr(31) || sequence::text, 'UTF8'))
$$;
COMMENT ON FUNCTION raw.idempotency_key IS 'SHA-256 over "mp1", meter id, UTC instant (whole seconds, Z) and decimal sequence, joined by 0x1F.';

CREATE FUNCTION raw.quality_flag(code smallint) RETURNS text LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS
$$ SELECT (ARRAY['A','S','F','E','N','V','M'])[((code::integer & 65535) >> 13) + 1] $$;
COMMENT ON FUNCTION raw.quality_flag IS 'A actual, S substituted, F final substituted, E forward estimate, N null, M no read came.';

CREATE FUNCTION raw.quality_method(code smallint) RETURNS integer LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS
$$ SELECT (ARRAY[11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,51,52,53,54,55,56,57,58,59,61,62,63,64,65,66,67,68,69,71,72,73,74,75])[((code::integer & 65535) >> 7) & 63] $$;
COMMENT ON FUNCTION raw.quality_method IS 'AEMO substitution or estimation method, or null.';

CREATE FUNCTION raw.quality_espi(code smallint) RETURNS integer LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS
$$ SELECT (ARRAY[0,7,8,9,10,11,12,13,14,15,16,17,18,19])[(((code::integer & 65535) >> 7) & 63) - 38] $$;
COMMENT ON FUNCTION raw.quality_espi IS 'ESPI QualityOfReading the value came with, or null.';

CREATE FUNCTION raw.quality_reason(code smallint) RETURNS integer LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS
$$ SELECT nullif(code::integer & 127, 0) - 1 $$;
COMMENT ON FUNCTION raw.quality_reason IS 'AEMO reason code 0 to 99, or null.';

CREATE FUNCTION raw.quantity(stored bigint, scale smallint) RETURNS numeric
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS
$$ SELECT stored * (ARRAY[1, 0.1, 0.01, 0.001, 0.0001, 0.00001, 0.000001]::numeric[])[scale + 1] $$;
COMMENT ON FUNCTION raw.quantity IS 'Exact decimal of a scaled integer.';

CREATE VIEW raw.interval AS
SELECT
    d.billing_day,
    d.meter_id,
    d.channel,
    s.slot::integer AS slot,
    d.starts_at + (s.slot - 1) * d.interval_minutes * interval '1 minute' AS interval_start,
    d.interval_minutes,
    raw.quantity(s.stored, d.scale) AS value,
    d.unit,
    raw.quality_flag(coalesce(s.code, d.quality)) AS quality,
    raw.quality_method(coalesce(s.code, d.quality)) AS quality_method,
    raw.quality_reason(coalesce(s.code, d.quality)) AS quality_reason,
    raw.quality_espi(coalesce(s.code, d.quality)) AS quality_espi,
    coalesce(s.own_sequence, d.sequence + (s.slot - 1)::integer * d.sequence_step) AS sequence,
    coalesce(s.off_grid, 0::smallint) AS offset_seconds,
    d.source_version,
    d.read_time,
    d.head_end,
    d.payload_hash,
    raw.idempotency_key(
        d.meter_id,
        d.starts_at + (s.slot - 1) * d.interval_minutes * interval '1 minute',
        coalesce(s.own_sequence, d.sequence + (s.slot - 1)::integer * d.sequence_step)
    ) AS idempotency_key
FROM raw.interval_day AS d
CROSS JOIN LATERAL (
    SELECT u.slot, nullif(u.v, -2147483648)::bigint AS stored, u.q AS code, u.n AS own_sequence, u.o AS off_grid
    FROM unnest(d.values, d.qualities, d.sequences, d.offsets) WITH ORDINALITY AS u (v, q, n, o, slot)
    WHERE d.values IS NOT NULL
    UNION ALL
    SELECT u.slot, nullif(u.v, -9223372036854775808), u.q, u.n, u.o
    FROM unnest(d.wide_values, d.qualities, d.sequences, d.offsets) WITH ORDINALITY AS u (v, q, n, o, slot)
    WHERE d.wide_values IS NOT NULL
) AS s
WHERE s.stored IS NOT NULL;
COMMENT ON VIEW raw.interval IS 'One row per raw interval that has a value, made from the day vectors.';
COMMENT ON COLUMN raw.interval.billing_day IS 'Local civil day that holds the interval''s start.';
COMMENT ON COLUMN raw.interval.meter_id IS 'Meter.';
COMMENT ON COLUMN raw.interval.channel IS 'Channel of the meter.';
COMMENT ON COLUMN raw.interval.slot IS 'Number of the interval in its billing day, from 1.';
COMMENT ON COLUMN raw.interval.interval_start IS 'Start of the interval on the grid, UTC.';
COMMENT ON COLUMN raw.interval.interval_minutes IS 'Length in minutes.';
COMMENT ON COLUMN raw.interval.value IS 'Quantity in the base unit, exact.';
COMMENT ON COLUMN raw.interval.unit IS 'Base unit.';
COMMENT ON COLUMN raw.interval.quality IS 'AEMO quality flag: A actual, S substituted, F final, E estimate, N null.';
COMMENT ON COLUMN raw.interval.quality_method IS 'AEMO method, or null.';
COMMENT ON COLUMN raw.interval.quality_reason IS 'AEMO reason code, or null.';
COMMENT ON COLUMN raw.interval.quality_espi IS 'ESPI QualityOfReading, where the value came with one.';
COMMENT ON COLUMN raw.interval.sequence IS 'Sequence number the source gave the read.';
COMMENT ON COLUMN raw.interval.offset_seconds IS 'Seconds the read''s own stamp lay behind interval_start.';
COMMENT ON COLUMN raw.interval.source_version IS 'Version of the leading payload of the channel-day.';
COMMENT ON COLUMN raw.interval.read_time IS 'When the head-end took the leading payload, UTC.';
COMMENT ON COLUMN raw.interval.head_end IS 'Head-end of the leading payload.';
COMMENT ON COLUMN raw.interval.payload_hash IS 'Ledger leaf of the leading payload.';
COMMENT ON COLUMN raw.interval.idempotency_key IS 'SHA-256 identity of the read; computed when asked for.';

CREATE VIEW raw.register AS
SELECT
    billing_day, meter_id, channel, read_at, raw.quantity(value, 6::smallint) AS value, unit,
    raw.quality_flag(quality) AS quality, raw.quality_method(quality) AS quality_method,
    raw.quality_reason(quality) AS quality_reason, raw.quality_espi(quality) AS quality_espi,
    sequence, source_version, read_time, head_end, payload_hash, idempotency_key
FROM raw.register_read;
COMMENT ON VIEW raw.register IS 'One row per register reading, the dial as an exact decimal.';
COMMENT ON COLUMN raw.register.billing_day IS 'Billing day whose (start, end] holds the reading.';
COMMENT ON COLUMN raw.register.meter_id IS 'Meter.';
COMMENT ON COLUMN raw.register.channel IS 'Channel of the meter.';
COMMENT ON COLUMN raw.register.read_at IS 'Instant of the reading, UTC.';
COMMENT ON COLUMN raw.register.value IS 'The dial in the base unit, exact.';
COMMENT ON COLUMN raw.register.unit IS 'Base unit.';
COMMENT ON COLUMN raw.register.quality IS 'AEMO quality flag.';
COMMENT ON COLUMN raw.register.quality_method IS 'AEMO method, or null.';
COMMENT ON COLUMN raw.register.quality_reason IS 'AEMO reason code, or null.';
COMMENT ON COLUMN raw.register.quality_espi IS 'ESPI QualityOfReading, where the value came with one.';
COMMENT ON COLUMN raw.register.sequence IS 'Sequence number.';
COMMENT ON COLUMN raw.register.source_version IS 'Version the source gave it.';
COMMENT ON COLUMN raw.register.read_time IS 'When the head-end took it, UTC.';
COMMENT ON COLUMN raw.register.head_end IS 'Head-end that sent it.';
COMMENT ON COLUMN raw.register.payload_hash IS 'Its leaf in the ledger.';
COMMENT ON COLUMN raw.register.idempotency_key IS 'SHA-256 identity of the read.';

CREATE VIEW raw.control_total AS
SELECT
    f.sha256, f.file_name, f.head_end, f.landed_at,
    f.received,
    coalesce(sum(d.accepted), 0)::bigint AS accepted,
    coalesce(sum(d.duplicate), 0)::bigint AS duplicate,
    coalesce(sum(d.superseded), 0)::bigint AS superseded,
    (f.rejected + coalesce(sum(d.rejected), 0))::bigint AS rejected,
    coalesce(sum(d.received) FILTER (WHERE d.loaded_at IS NULL), 0)::bigint AS waiting,
    f.received = f.rejected + coalesce(sum(CASE WHEN d.loaded_at IS NULL THEN d.received
        ELSE d.accepted + d.duplicate + d.superseded + d.rejected END), 0) AS balanced
FROM raw.feed_file AS f LEFT JOIN raw.feed_file_day AS d USING (sha256)
GROUP BY f.sha256;
COMMENT ON VIEW raw.control_total IS 'Control totals of every file: received = accepted + duplicate + superseded + rejected (+ waiting).';
COMMENT ON COLUMN raw.control_total.sha256 IS 'The file.';
COMMENT ON COLUMN raw.control_total.file_name IS 'Its first name.';
COMMENT ON COLUMN raw.control_total.head_end IS 'Its head-end.';
COMMENT ON COLUMN raw.control_total.landed_at IS 'When it was registered, UTC.';
COMMENT ON COLUMN raw.control_total.received IS 'Reads offered.';
COMMENT ON COLUMN raw.control_total.accepted IS 'Reads stored because of it.';
COMMENT ON COLUMN raw.control_total.duplicate IS 'Reads already known.';
COMMENT ON COLUMN raw.control_total.superseded IS 'Reads that lost to another version.';
COMMENT ON COLUMN raw.control_total.rejected IS 'Reads in dead letters.';
COMMENT ON COLUMN raw.control_total.waiting IS 'Reads staged and not yet loaded.';
COMMENT ON COLUMN raw.control_total.balanced IS 'Whether the sum holds.';

-- Daily partitions. A day is loaded into a table of its own without an index, and attached whole: ATTACH builds the
-- keys and, thanks to the CHECK, does not scan. It locks the parent only against other partition changes.
CREATE FUNCTION raw.partition_name(parent regclass, day date) RETURNS text LANGUAGE sql STABLE STRICT AS
$$ SELECT c.relname || '_' || to_char(day, 'YYYYMMDD') FROM pg_class AS c WHERE c.oid = parent $$;
COMMENT ON FUNCTION raw.partition_name IS 'Name of the daily partition of a table, in the same schema.';

CREATE FUNCTION raw.open_partition(parent regclass, day date) RETURNS text LANGUAGE plpgsql AS $$
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
    PERFORM raw.leave_arrays_unsampled(format('%I.%I', space, part)::regclass);
    RETURN 'created';
END
$$;
COMMENT ON FUNCTION raw.open_partition IS 'Make the table of a day, unattached. Answers created (made now, or ahead and still empty), open (holds rows, not attached) or attached.';

CREATE FUNCTION raw.attach_partition(parent regclass, day date) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    space text := (SELECT n.nspname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE c.oid = parent);
    part text := raw.partition_name(parent, day);
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended(space || '.' || part, 0));
    IF EXISTS (SELECT FROM pg_inherits WHERE inhrelid = to_regclass(format('%I.%I', space, part))) THEN
        RETURN false;
    END IF;
    EXECUTE format('ALTER TABLE %s ATTACH PARTITION %I.%I FOR VALUES FROM (%L) TO (%L)', parent, space, part, day, day + 1);
    EXECUTE format('ALTER TABLE %I.%I DROP CONSTRAINT %I', space, part, part || '_day');
    RETURN true;
END
$$;
COMMENT ON FUNCTION raw.attach_partition IS 'Attach the table of a day: its keys are built and its rows appear at once. False where it was attached already.';

-- The arrays of a day's tables are left out of the planner's statistics: no query's plan asks for them, and sorting a
-- sample of 30,000 vectors for their most common elements was half of the processor time that autovacuum took from the
-- day it had just seen loaded (0.65 s a table, 0.29 without).
CREATE FUNCTION raw.leave_arrays_unsampled(part regclass) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    listed text := (
        SELECT string_agg(format('ALTER COLUMN %I SET STATISTICS 0', a.attname), ', ') FROM pg_attribute AS a
        WHERE a.attrelid = part AND a.attnum > 0 AND NOT a.attisdropped
            AND a.atttypid IN ('smallint[]'::regtype, 'integer[]'::regtype, 'bigint[]'::regtype));
BEGIN
    IF listed IS NOT NULL THEN
        EXECUTE format('ALTER TABLE %s %s', part, listed);
    END IF;
END
$$;
COMMENT ON FUNCTION raw.leave_arrays_unsampled IS 'Leave the arrays of whole numbers of a table out of ANALYZE.';

-- migrate:down
DO $$ BEGIN RAISE EXCEPTION 'migrations go forward only: restore a backup'; END $$;
