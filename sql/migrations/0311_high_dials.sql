-- migrate:up
-- A dial may stand above 10^10 units: a plant's register in watt hours. What 64 bits of millionths hold is legal.
ALTER TABLE raw.register_read DROP CONSTRAINT register_read_value_check;
ALTER TABLE raw.register_read ADD CONSTRAINT register_read_value_check CHECK (value BETWEEN -9000000000000000000 AND 9000000000000000000);
ALTER TABLE raw.register_payload DROP CONSTRAINT register_read_value_check;
ALTER TABLE raw.register_payload ADD CONSTRAINT register_payload_value_check CHECK (value BETWEEN -9000000000000000000 AND 9000000000000000000);

-- migrate:down
ALTER TABLE raw.register_payload DROP CONSTRAINT register_payload_value_check;
ALTER TABLE raw.register_payload ADD CONSTRAINT register_read_value_check CHECK (value BETWEEN -10000000000000000 AND 10000000000000000);
ALTER TABLE raw.register_read DROP CONSTRAINT register_read_value_check;
ALTER TABLE raw.register_read ADD CONSTRAINT register_read_value_check CHECK (value BETWEEN -10000000000000000 AND 10000000000000000);
