-- A billing day of that city as the stages leave it, number :d, date :day, of :minutes minutes. Amounts are whole cents that move from day to day.
INSERT INTO raw.register_read (read_at, value, source_version, billing_day, sequence, quality, meter_id, channel, unit, head_end, payload_hash, idempotency_key)
SELECT ':day'::date + interval '29 hours', (1000 + i % 977 + :d) * 1000000::bigint, 0, ':day', 1, 0, 'M' || lpad(i::text, 7, '0'), 'R1', 'kWh', 'HE-1',
    sha256('x'), sha256(convert_to(':d-' || i, 'UTF8'))
FROM generate_series(0, :n - 1) AS i;

INSERT INTO vee.daily_usage
SELECT (5 + i % 7) * 1000000, 0, 0, ':day', 24, CASE WHEN i % 20 = 1 THEN 23 ELSE 24 END, (i % 20 = 1)::int, 0, 1, 0, i % 100 = 3, 'SP-' || lpad(i::text, 7, '0'),
    'import', 'kWh', 'interval', CASE i % 2 WHEN 0 THEN 'electricity' ELSE 'water' END, 'residential', 'A-' || lpad(i::text, 7, '0'),
    CASE i % 2 WHEN 0 THEN 'E-TOU' ELSE 'W-STD' END, 'C' || 1 + i % 3
FROM generate_series(0, :n - 1) AS i;

INSERT INTO vee.register_day
SELECT (5 + i % 7) * 1000000, 0, CASE WHEN i % 100 = 5 THEN 4 ELSE 2 END, ':day', 2, true, false, 'SP-' || lpad(i::text, 7, '0'), 'M' || lpad(i::text, 7, '0'),
    'R1', 'kWh'
FROM generate_series(0, :n - 1) AS i;

INSERT INTO billing.determinant_day
SELECT ':day', 'SP-' || lpad(i::text, 7, '0'), 'A-' || lpad(i::text, 7, '0'), CASE i % 2 WHEN 0 THEN 'E-TOU' ELSE 'W-STD' END, 1, 'C' || 1 + i % 3,
    '2026-10-01', '2026-11-01', '2026-10-01', 'kWh', 'kWh', (5 + i % 7) * 1000000, CASE WHEN i % 50 = 6 THEN 1000000 ELSE 0 END,
    CASE i % 2 WHEN 0 THEN ARRAY[2000000, (3 + i % 7) * 1000000] ELSE ARRAY[(5 + i % 7) * 1000000] END, CASE i % 2 WHEN 0 THEN ARRAY[0, 0] ELSE ARRAY[0] END,
    CASE i % 2 WHEN 0 THEN ARRAY[(2 + i % 5) * 1000000] ELSE '{}' END, CASE i % 2 WHEN 0 THEN ARRAY[0] ELSE '{}' END, :minutes / 60, (i % 20 = 1)::int, 0, 60
FROM generate_series(0, :n - 1) AS i;

INSERT INTO billing.charge_day
SELECT ':day', 'SP-' || lpad(i::text, 7, '0'), 'A-' || lpad(i::text, 7, '0'), CASE i % 2 WHEN 0 THEN 'E-TOU' ELSE 'W-STD' END, 1, 'C' || 1 + i % 3,
    '2026-10-01', '2026-10-01', :d + 1, CASE i % 2 WHEN 0 THEN ARRAY[0, 0] ELSE ARRAY[0] END, CASE i % 2 WHEN 0 THEN ARRAY[0, 0] ELSE ARRAY[0] END,
    '{}', '{}', '{}', 0, '{0}', '{}', ARRAY[410000, 1000000 + ((i * 31 + :d * 17) % 400) * 10000], 1410000 + ((i * 31 + :d * 17) % 400) * 10000
FROM generate_series(0, :n - 1) AS i;
