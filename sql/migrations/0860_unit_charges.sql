-- migrate:up
-- What is charged by units that no meter counts, a service's day by charge: stormwater, carts, street lights.
CREATE VIEW analyst.unit_charges AS
WITH counted AS (
    SELECT d.tariff_id, d.version, d.commodity, c.charge ->> 'code' AS code, c.charge ->> 'name' AS name, c.charge ->> 'times' AS unit,
        (c.charge ->> 'without')::numeric AS without
    FROM (
        SELECT t.tariff_id, t.version, t.commodity, b.body FROM ref.tariffs AS t JOIN ref.tariff_document AS b USING (tariff_id, version)
        WHERE jsonb_typeof(b.body -> 'charges') = 'array'
    ) AS d
    CROSS JOIN LATERAL jsonb_array_elements(d.body -> 'charges') AS c (charge)
    WHERE c.charge ->> 'kind' = 'fixed' AND c.charge ->> 'times' IS NOT NULL
)
SELECT
    l.billing_day,
    l.service_point_id,
    l.account_id,
    l.tariff_id,
    c.commodity,
    c.code,
    c.name,
    c.unit,
    coalesce(a.value::numeric, c.without) AS units,
    l.amount,
    l.currency
FROM counted AS c
JOIN billing.day_line AS l ON l.tariff_id = c.tariff_id AND l.tariff_version = c.version AND l.line_key = c.code
LEFT JOIN ref.service_attributes AS a ON a.service_point_id = l.service_point_id AND a.attribute = c.unit
    AND a.valid_from <= l.billing_day AND (a.valid_to IS NULL OR a.valid_to > l.billing_day);
COMMENT ON VIEW analyst.unit_charges IS 'Charges by units that no meter counts (stormwater, carts, street lights): a service''s billing day by charge.';
COMMENT ON COLUMN analyst.unit_charges.billing_day IS 'Civil day.';
COMMENT ON COLUMN analyst.unit_charges.service_point_id IS 'Service point.';
COMMENT ON COLUMN analyst.unit_charges.account_id IS 'Account.';
COMMENT ON COLUMN analyst.unit_charges.tariff_id IS 'Tariff.';
COMMENT ON COLUMN analyst.unit_charges.commodity IS 'Commodity of the tariff.';
COMMENT ON COLUMN analyst.unit_charges.code IS 'Charge of the tariff.';
COMMENT ON COLUMN analyst.unit_charges.name IS 'Name of the charge.';
COMMENT ON COLUMN analyst.unit_charges.unit IS 'What is counted: an attribute of the service.';
COMMENT ON COLUMN analyst.unit_charges.units IS 'How many the service had on the day.';
COMMENT ON COLUMN analyst.unit_charges.amount IS 'The day''s share of the charge.';
COMMENT ON COLUMN analyst.unit_charges.currency IS 'ISO 4217.';

-- migrate:down
DO $$ BEGIN RAISE EXCEPTION 'migrations go forward only: restore a backup'; END $$;
