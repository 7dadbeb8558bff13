-- migrate:up
-- Ids are kept in capitals, so that one meter is never two. The customer system gets its own spelling back.
CREATE TABLE ref.id_spellings (
    kind text NOT NULL CHECK (kind IN ('account', 'meter', 'premise', 'service_point')),
    id text COLLATE "C" NOT NULL CHECK (id ~ '^[A-Z0-9-]([A-Z0-9 ._/-]{0,62}[A-Z0-9-])?$'),
    written text NOT NULL CONSTRAINT id_spelling_of_its_id CHECK (upper(written COLLATE "C") = id),
    PRIMARY KEY (kind, id)
);
COMMENT ON TABLE ref.id_spellings IS 'How the customer system writes an id whose letters are not all capitals: outputs and bills have it so. An import adds these rows itself.';
COMMENT ON COLUMN ref.id_spellings.kind IS 'what the id names';
COMMENT ON COLUMN ref.id_spellings.id IS 'the id as it is kept here, in capitals';
COMMENT ON COLUMN ref.id_spellings.written IS 'the id as the customer system writes it';
SELECT ref.keep_history('id_spellings');

-- migrate:down
DO $$ BEGIN RAISE EXCEPTION 'migrations go forward only: restore a backup'; END $$;
