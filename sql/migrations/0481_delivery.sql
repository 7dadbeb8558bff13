-- migrate:up
-- What was handed to the customer system: a file each, and each record's content as it was last sent, so that nothing is sent twice and a correction is
-- a new sequence.
CREATE TABLE billing.delivery (
    delivery_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    output text COLLATE "C" NOT NULL,
    contract integer NOT NULL CHECK (contract > 0),
    scope text COLLATE "C" NOT NULL,
    sequence integer NOT NULL CHECK (sequence > 0),
    template text COLLATE "C" NOT NULL,
    file_name text COLLATE "C" NOT NULL UNIQUE,
    records integer NOT NULL CHECK (records >= 0),
    sums jsonb NOT NULL,
    sha256 bytea NOT NULL CHECK (length(sha256) = 32),
    written_by text COLLATE "C" NOT NULL,
    written_at timestamptz NOT NULL,
    status text COLLATE "C" NOT NULL CHECK (status IN ('sent', 'acknowledged', 'disputed')),
    answered_at timestamptz,
    answered_records integer,
    answer text,
    UNIQUE (output, scope, sequence),
    CHECK ((status = 'sent') = (answered_at IS NULL))
);
COMMENT ON TABLE billing.delivery IS 'Files written for the customer system, and what it answered.';
COMMENT ON COLUMN billing.delivery.delivery_id IS 'Number of the file.';
COMMENT ON COLUMN billing.delivery.output IS 'reads, determinants, statements, adjustments or journal.';
COMMENT ON COLUMN billing.delivery.contract IS 'Version of the output''s contract.';
COMMENT ON COLUMN billing.delivery.scope IS 'What it covers: a cycle''s period, a month, a read request.';
COMMENT ON COLUMN billing.delivery.sequence IS 'Number of the file within its scope; after the first come corrections only.';
COMMENT ON COLUMN billing.delivery.template IS 'Template that its text was written by.';
COMMENT ON COLUMN billing.delivery.file_name IS 'Name of the file.';
COMMENT ON COLUMN billing.delivery.records IS 'Records in it.';
COMMENT ON COLUMN billing.delivery.sums IS 'Exact sums of its quantities and amounts by field.';
COMMENT ON COLUMN billing.delivery.sha256 IS 'SHA-256 of the file.';
COMMENT ON COLUMN billing.delivery.written_by IS 'Who wrote it.';
COMMENT ON COLUMN billing.delivery.written_at IS 'When it was written, UTC.';
COMMENT ON COLUMN billing.delivery.status IS 'sent, acknowledged, or disputed: the customer system counted otherwise.';
COMMENT ON COLUMN billing.delivery.answered_at IS 'When its acknowledgement was read, UTC; null until then.';
COMMENT ON COLUMN billing.delivery.answered_records IS 'Records that the customer system took; null where it did not say.';
COMMENT ON COLUMN billing.delivery.answer IS 'What it said, or what does not agree; null until then.';
CREATE TABLE billing.delivery_item (
    output text COLLATE "C" NOT NULL,
    scope text COLLATE "C" NOT NULL,
    item_key text COLLATE "C" NOT NULL,
    delivery_id bigint NOT NULL REFERENCES billing.delivery,
    sequence integer NOT NULL CHECK (sequence > 0),
    content_sha256 bytea NOT NULL CHECK (length(content_sha256) = 32),
    PRIMARY KEY (output, scope, item_key)
);
COMMENT ON TABLE billing.delivery_item IS 'Records as they were last sent to the customer system.';
COMMENT ON COLUMN billing.delivery_item.output IS 'Output.';
COMMENT ON COLUMN billing.delivery_item.scope IS 'Scope of its files.';
COMMENT ON COLUMN billing.delivery_item.item_key IS 'Key of the record within its scope.';
COMMENT ON COLUMN billing.delivery_item.delivery_id IS 'File it was last sent in.';
COMMENT ON COLUMN billing.delivery_item.sequence IS 'How often it was sent: 1, then a number more for each correction.';
COMMENT ON COLUMN billing.delivery_item.content_sha256 IS 'SHA-256 of its content as last sent.';

-- migrate:down
DROP TABLE billing.delivery_item;
DROP TABLE billing.delivery;
