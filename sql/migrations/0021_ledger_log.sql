-- migrate:up
-- The log proper: the order of entries, the tree over them, what was signed, who cosigned.
CREATE TABLE ledger.log (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    log_id uuid NOT NULL DEFAULT gen_random_uuid(),
    origin text NOT NULL CHECK (origin ~ '^[a-z0-9][a-z0-9./-]{2,199}$'),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE ledger.log IS 'One row: which log this is. Another database is another log, never a fork of this one.';
COMMENT ON COLUMN ledger.log.one IS 'always true: one row';
COMMENT ON COLUMN ledger.log.log_id IS 'random identity of this log';
COMMENT ON COLUMN ledger.log.origin IS 'first line of every checkpoint and name of its key';
COMMENT ON COLUMN ledger.log.created_at IS 'when the first entry was sequenced, UTC';

CREATE TABLE ledger.leaf (
    leaf_index bigint PRIMARY KEY CHECK (leaf_index >= 0),
    entry_id bigint NOT NULL UNIQUE REFERENCES ledger.entry (entry_id),
    leaf_hash bytea NOT NULL CHECK (octet_length(leaf_hash) = 32)
);
COMMENT ON TABLE ledger.leaf IS 'An entry''s place in the log: contiguous from 0, given after commit by the one sequencer.';
COMMENT ON COLUMN ledger.leaf.leaf_index IS 'place in the log, from 0, no gaps';
COMMENT ON COLUMN ledger.leaf.entry_id IS 'the entry at this place';
COMMENT ON COLUMN ledger.leaf.leaf_hash IS 'RFC 6962 leaf hash of its body';

CREATE TABLE ledger.node (
    level smallint NOT NULL CHECK (level >= 8 AND level % 8 = 0),
    node_index bigint NOT NULL CHECK (node_index >= 0),
    node_hash bytea NOT NULL CHECK (octet_length(node_hash) = 32),
    PRIMARY KEY (level, node_index)
);
COMMENT ON TABLE ledger.node IS 'Roots of complete subtrees of 256, 65536, ... leaves (the tiles of the tlog-tiles format), so that a proof reads a few hundred hashes.';
COMMENT ON COLUMN ledger.node.level IS 'height in the tree, a multiple of 8';
COMMENT ON COLUMN ledger.node.node_index IS 'covers leaves from node_index * 2^level';
COMMENT ON COLUMN ledger.node.node_hash IS 'RFC 6962 hash of the subtree';

CREATE TABLE ledger.tree_head (
    tree_size bigint PRIMARY KEY CHECK (tree_size >= 0),
    root_hash bytea NOT NULL CHECK (octet_length(root_hash) = 32),
    horizon xid8 NOT NULL,
    cluster_id bigint NOT NULL,
    sequenced_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE ledger.tree_head IS 'The tree after each round of sequencing.';
COMMENT ON COLUMN ledger.tree_head.tree_size IS 'entries in the log';
COMMENT ON COLUMN ledger.tree_head.root_hash IS 'RFC 6962 root over them';
COMMENT ON COLUMN ledger.tree_head.horizon IS 'every entry of an older transaction is in the log';
COMMENT ON COLUMN ledger.tree_head.cluster_id IS 'system identifier of the server that gave the transaction ids: elsewhere they mean nothing';
COMMENT ON COLUMN ledger.tree_head.sequenced_at IS 'server clock, UTC';

CREATE TABLE ledger.checkpoint (
    tree_size bigint PRIMARY KEY REFERENCES ledger.tree_head (tree_size),
    note text NOT NULL CHECK (octet_length(note) < 65536),
    key_id text NOT NULL CHECK (key_id ~ '^[0-9a-f]{8}$'),
    signed_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE ledger.checkpoint IS 'Signed tree heads: C2SP tlog-checkpoint notes. The key is elsewhere.';
COMMENT ON COLUMN ledger.checkpoint.tree_size IS 'entries covered';
COMMENT ON COLUMN ledger.checkpoint.note IS 'the signed note, as published';
COMMENT ON COLUMN ledger.checkpoint.key_id IS 'first four bytes of the key''s id, hex';
COMMENT ON COLUMN ledger.checkpoint.signed_at IS 'server clock when it was stored, UTC';

CREATE TABLE ledger.cosignature (
    tree_size bigint NOT NULL REFERENCES ledger.checkpoint (tree_size),
    name text NOT NULL,
    key_id text NOT NULL CHECK (key_id ~ '^[0-9a-f]{8}$'),
    line text NOT NULL CHECK (octet_length(line) < 4096),
    received_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tree_size, key_id, line)
);
COMMENT ON TABLE ledger.cosignature IS 'What witnesses run by others said about a checkpoint.';
COMMENT ON COLUMN ledger.cosignature.tree_size IS 'the checkpoint';
COMMENT ON COLUMN ledger.cosignature.name IS 'the witness''s key name';
COMMENT ON COLUMN ledger.cosignature.key_id IS 'first four bytes of the witness''s key id, hex';
COMMENT ON COLUMN ledger.cosignature.line IS 'the signature line (C2SP tlog-cosignature v1)';
COMMENT ON COLUMN ledger.cosignature.received_at IS 'server clock, UTC';

CREATE TABLE ledger.anchor (
    tree_size bigint NOT NULL REFERENCES ledger.checkpoint (tree_size),
    kind text NOT NULL CHECK (kind IN ('rfc3161')),
    token bytea NOT NULL CHECK (octet_length(token) BETWEEN 1 AND 1048576),
    received_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tree_size, kind, received_at)
);
COMMENT ON TABLE ledger.anchor IS 'Time stamps by an outside authority over a checkpoint''s note.';
COMMENT ON COLUMN ledger.anchor.tree_size IS 'the checkpoint';
COMMENT ON COLUMN ledger.anchor.kind IS 'rfc3161: a TimeStampResp over SHA-256 of the note''s text';
COMMENT ON COLUMN ledger.anchor.token IS 'the authority''s answer, DER';
COMMENT ON COLUMN ledger.anchor.received_at IS 'server clock, UTC';

CREATE TABLE ledger.personal (
    payload_hash bytea PRIMARY KEY CHECK (octet_length(payload_hash) = 32),
    salt bytea CHECK (octet_length(salt) = 32),
    payload bytea,
    kept_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT personal_whole_or_erased CHECK ((salt IS NULL) = (payload IS NULL)),
    CONSTRAINT personal_hash_is_of_payload CHECK (salt IS NULL OR payload_hash = sha256('mp-salted/1'::bytea || '\x1f'::bytea || salt || payload))
);
COMMENT ON TABLE ledger.personal IS 'Payloads that hold personal data. Their salted hash is a leaf; erasing salt and payload leaves every proof as it was.';
COMMENT ON COLUMN ledger.personal.payload_hash IS 'SHA-256("mp-salted/1" 0x1F salt payload)';
COMMENT ON COLUMN ledger.personal.salt IS '32 random bytes, erased with the payload so that nobody can try values';
COMMENT ON COLUMN ledger.personal.payload IS 'the bytes; null once erased';
COMMENT ON COLUMN ledger.personal.kept_at IS 'server clock, UTC';

-- migrate:down
DROP TABLE ledger.personal, ledger.anchor, ledger.cosignature, ledger.checkpoint, ledger.tree_head, ledger.node, ledger.leaf, ledger.log;
