-- migrate:up
-- A dead letter's leaf in the ledger is a salted hash: its bytes may name a person, and can then be erased with every proof still valid. What was
-- recorded before this has its key for a leaf, and no salt.
ALTER TABLE raw.dead_letter ADD COLUMN leaf bytea, ADD COLUMN salt bytea CHECK (length(salt) = 32), ADD COLUMN corrected_leaf bytea CHECK (length(corrected_leaf) = 32),
    ADD COLUMN erased_at timestamptz, ADD COLUMN erased_by text;
UPDATE raw.dead_letter SET leaf = dead_letter_key;
ALTER TABLE raw.dead_letter ALTER COLUMN leaf SET NOT NULL, ADD CHECK (length(leaf) = 32),
    ADD CONSTRAINT dead_letter_leaf_is_of_raw CHECK (salt IS NULL OR leaf = sha256('mp-salted/1'::bytea || '\x1f'::bytea || salt || raw)),
    ADD CONSTRAINT dead_letter_erased_whole CHECK (erased_at IS NULL
        OR (erased_by IS NOT NULL AND salt IS NULL AND raw = '' AND corrected_raw IS NULL AND status IN ('replayed', 'dismissed')));
COMMENT ON COLUMN raw.dead_letter.leaf IS 'Its leaf in the ledger: SHA-256("mp-salted/1" 0x1F salt raw).';
COMMENT ON COLUMN raw.dead_letter.salt IS '32 random bytes, erased with the content so that nobody can try values.';
COMMENT ON COLUMN raw.dead_letter.corrected_leaf IS 'Leaf of the correction, kept in ledger.personal.';
COMMENT ON COLUMN raw.dead_letter.erased_at IS 'When its content was erased, UTC.';
COMMENT ON COLUMN raw.dead_letter.erased_by IS 'Who asked for that.';

-- migrate:down
ALTER TABLE raw.dead_letter DROP COLUMN leaf, DROP COLUMN salt, DROP COLUMN corrected_leaf, DROP COLUMN erased_at, DROP COLUMN erased_by;
