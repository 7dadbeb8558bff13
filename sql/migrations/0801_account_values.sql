-- migrate:up
-- The class of an account may change while the account stays: a shop moves into a house. ref.accounts says what holds for the account's whole life;
-- a row here says otherwise for a stretch of billing days.
CREATE TABLE ref.account_values (
    account_id text COLLATE "C" NOT NULL REFERENCES ref.accounts DEFERRABLE INITIALLY DEFERRED,
    valid_from date NOT NULL,
    valid_to date,
    customer_class text NOT NULL CHECK (customer_class IN ('residential', 'commercial', 'industrial', 'municipal')),
    PRIMARY KEY (account_id, valid_from),
    CHECK (valid_to IS NULL OR valid_to > valid_from),
    CONSTRAINT one_of_account_values_at_a_time EXCLUDE USING gist
        (account_id WITH =, daterange(valid_from, valid_to) WITH &&) DEFERRABLE INITIALLY DEFERRED
);
COMMENT ON TABLE ref.account_values IS 'What of an account is otherwise on a stretch of billing days.';
COMMENT ON COLUMN ref.account_values.account_id IS 'who is billed';
COMMENT ON COLUMN ref.account_values.valid_from IS 'first billing day it holds';
COMMENT ON COLUMN ref.account_values.valid_to IS 'billing day from which it no longer holds; empty while it does';
COMMENT ON COLUMN ref.account_values.customer_class IS 'class of the account on these days; on others it is as accounts says';
SELECT ref.keep_history('account_values');

-- migrate:down
DO $$ BEGIN RAISE EXCEPTION 'migrations go forward only: restore a backup'; END $$;
