-- A city whose bills are compared: :n accounts with a service point each, electricity (two periods, a demand register) and water by turns.
INSERT INTO ref.meters (meter_id, commodity, head_end)
SELECT 'M' || lpad(i::text, 7, '0'), CASE i % 2 WHEN 0 THEN 'electricity' ELSE 'water' END, 'HE-1' FROM generate_series(0, :n - 1) AS i
ON CONFLICT DO NOTHING;

INSERT INTO ref.service_points
SELECT 'SP-' || lpad(i::text, 7, '0'), CASE i % 2 WHEN 0 THEN 'electricity' ELSE 'water' END, 'P-' || i, 'R-' || i % 10, 'residential', NULL, NULL, NULL,
    'active', '2020-01-01', NULL
FROM generate_series(0, :n - 1) AS i;

INSERT INTO ref.installations (service_point_id, meter_id, installed_at)
SELECT 'SP-' || lpad(i::text, 7, '0'), 'M' || lpad(i::text, 7, '0'), '2020-01-01' FROM generate_series(0, :n - 1) AS i;

INSERT INTO ref.accounts SELECT 'A-' || lpad(i::text, 7, '0'), 'residential', '2020-01-01', NULL FROM generate_series(0, :n - 1) AS i;

INSERT INTO ref.billing_cycles
SELECT 'C' || c, ('2026-08-01'::date + c * 7 + m * interval '1 month')::date, ('2026-08-01'::date + c * 7 + (m + 1) * interval '1 month')::date
FROM generate_series(1, 3) AS c, generate_series(0, 5) AS m;

INSERT INTO ref.tariffs VALUES ('E-TOU', 'electricity', 1, '2020-01-01', NULL, 'e.json'), ('W-STD', 'water', 1, '2020-01-01', NULL, 'w.json');

-- One customer in a hundred leaves in the course of the month.
INSERT INTO ref.agreements
SELECT 'A-' || lpad(i::text, 7, '0'), 'SP-' || lpad(i::text, 7, '0'), CASE i % 2 WHEN 0 THEN 'E-TOU' ELSE 'W-STD' END, 'C' || 1 + i % 3, '2020-01-01',
    CASE WHEN i % 100 = 7 THEN '2026-10-10'::date + i / 100 % 20 END
FROM generate_series(0, :n - 1) AS i;

INSERT INTO billing.tariff_version VALUES
    ('E-TOU', 1, sha256('e'), 'native', 'Time of use', 'electricity', 'USD', 'kWh', '{peak,off}', '{max}', '{FIXED,ENERGY}', '{Fixed,Energy}',
     '{fixed,energy}', '{FIXED,ENERGY}', '{fixed,energy}', '2 half_up', now()),
    ('W-STD', 1, sha256('w'), 'native', 'Water', 'water', 'USD', 'kgal', '{all}', '{}', '{BASIC,WATER}', '{Basic,Water}', '{fixed,energy}',
     '{BASIC,WATER}', '{fixed,energy}', '2 half_up', now());
