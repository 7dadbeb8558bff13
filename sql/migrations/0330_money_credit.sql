-- migrate:up
-- What exports earned and no bill has used yet, where a tariff keeps it as money.
ALTER TABLE billing.statement_segment ADD COLUMN credit_out bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN billing.statement_segment.credit_out IS 'Money credit for exports that goes on, millionths of the currency.';

-- migrate:down
ALTER TABLE billing.statement_segment DROP COLUMN credit_out;
