-- migrate:up
-- One account, tariff, meter place or attribute value at a time, whoever writes: two agreements in force on a day billed a service twice, two installations
-- of a meter stopped the validation of a city. Checked at the end of the transaction, so that an import may move a date from one row to the next.
-- btree_gist is a trusted extension: the owner of the database may create it.
CREATE EXTENSION IF NOT EXISTS btree_gist WITH SCHEMA ref;

ALTER TABLE ref.agreements ADD CONSTRAINT one_agreement_at_a_time EXCLUDE USING gist
    (service_point_id WITH =, daterange(valid_from, valid_to) WITH &&) DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE ref.installations ADD CONSTRAINT one_place_at_a_time EXCLUDE USING gist
    (meter_id WITH =, tstzrange(installed_at, removed_at) WITH &&) DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE ref.service_points ADD CONSTRAINT one_status_at_a_time EXCLUDE USING gist
    (service_point_id WITH =, daterange(valid_from, valid_to) WITH &&) DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE ref.service_attributes ADD CONSTRAINT one_value_at_a_time EXCLUDE USING gist
    (service_point_id WITH =, attribute WITH =, daterange(valid_from, valid_to) WITH &&) DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE ref.tariffs ADD CONSTRAINT one_version_at_a_time EXCLUDE USING gist
    (tariff_id WITH =, daterange(valid_from, valid_to) WITH &&) DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE ref.billing_cycles ADD CONSTRAINT one_period_at_a_time EXCLUDE USING gist
    (cycle_id WITH =, daterange(period_start, period_end) WITH &&) DEFERRABLE INITIALLY DEFERRED;

-- migrate:down
ALTER TABLE ref.billing_cycles DROP CONSTRAINT one_period_at_a_time;
ALTER TABLE ref.tariffs DROP CONSTRAINT one_version_at_a_time;
ALTER TABLE ref.service_attributes DROP CONSTRAINT one_value_at_a_time;
ALTER TABLE ref.service_points DROP CONSTRAINT one_status_at_a_time;
ALTER TABLE ref.installations DROP CONSTRAINT one_place_at_a_time;
ALTER TABLE ref.agreements DROP CONSTRAINT one_agreement_at_a_time;
DROP EXTENSION btree_gist;
