-- Rows for every table that a page of the finance desk reads, of the sizes they have. :n accounts, :days billing days from 2026-07-01 on.

INSERT INTO ref.accounts
SELECT 'A-' || lpad(i::text, 7, '0'), 'residential', '2020-01-01', NULL
FROM generate_series(0, :n - 1) AS i;

INSERT INTO ref.billing_cycles VALUES ('C1', '2026-07-01', '2026-08-01');

INSERT INTO ref.agreements
SELECT 'A-' || lpad(i::text, 7, '0'), 'SP-' || lpad(i::text, 7, '0'), 'E-RES', 'C1', '2020-01-01', NULL
FROM generate_series(0, :n - 1) AS i;

INSERT INTO ref.service_points
SELECT 'SP-' || lpad(i::text, 7, '0'), 'electricity', 'P-' || i, 'R1', 'residential', NULL, NULL, NULL, 'active', '2020-01-01', NULL
FROM generate_series(0, :n - 1) AS i;

INSERT INTO ref.installations (service_point_id, meter_id, installed_at)
SELECT 'SP-' || lpad(i::text, 7, '0'), 'X' || lpad(i::text, 7, '0'), '2020-01-01'
FROM generate_series(0, :n - 1) AS i;

INSERT INTO raw.feed_file (sha256, content_sha256, file_name, head_end, commodity, file_format, bytes, archive_path, landed_at, received, rejected, dead_letters)
SELECT sha256(convert_to('f' || h || '-' || d, 'UTF8')), sha256(convert_to('f' || h || '-' || d, 'UTF8')), 'f' || h || '-' || d, 'HE-' || h, 'electricity', 'delimited', 1000, 'x',
    '2026-07-02'::timestamptz + d * interval '1 day', 240000, 0, 0
FROM generate_series(0, 9) AS h, generate_series(0, 89) AS d;

INSERT INTO raw.feed_file_day (sha256, billing_day, staged_path, staged_sha256, received, interval_rows, register_rows, duplicate_in_file,
    superseded_in_file, accepted, duplicate, superseded, rejected, loaded_at)
SELECT sha256(convert_to('f' || h || '-' || d, 'UTF8')), '2026-07-07'::date - d, 'x', '\x00', 240000, 10000, 0, 0, 0, 240000, 0, 0, 0, now()
FROM generate_series(0, 9) AS h, generate_series(0, 89) AS d;

INSERT INTO billing.reconciliation (billing_day, joint, subject, unit, expected, actual, cause, items)
SELECT '2026-07-07'::date - d, CASE j WHEN 0 THEN 'lines_to_total' ELSE 'joint_' || j END, 'all', CASE j WHEN 0 THEN 'USD' ELSE 'kWh' END, 1000, 1000
    + (j = 9)::int, CASE j WHEN 9 THEN 'no_agreement' ELSE 'none' END, :n
FROM generate_series(0, 29) AS j, generate_series(0, 89) AS d;

INSERT INTO anomaly.flag_run
SELECT '2026-07-07'::date - d, now(), :n, 900, 'complete', NULL, sha256('x')
FROM generate_series(0, 89) AS d;

INSERT INTO anomaly.exception_case (first_day, last_day, days, opened_at, confidence, hold, case_id, family, kind, subject, service_point_id,
    commodity, severity, state, decided_by)
SELECT '2026-07-02'::date, '2026-07-02'::date + i % 5, 2, now(), 0.8, i % 20 = 0 AND i % 4 < 2, 'flow-SP-' || lpad(i::text, 7, '0') || '-20260702',
    'flow', (ARRAY['leak', 'leak_drift', 'spike', 'reverse', 'tamper_fall'])[1 + i % 5], 'SP-' || lpad(i::text, 7, '0'), 'SP-' || lpad(i::text, 7,
    '0'), (ARRAY['electricity', 'water', 'gas'])[1 + i % 3], (ARRAY['inform', 'warn', 'severe'])[1 + i / 7 % 3], (ARRAY['open', 'assigned',
    'confirmed', 'dismissed'])[1 + i % 4], CASE WHEN i % 4 > 1 THEN 'ana' END
FROM generate_series(0, :n - 1) AS i;

INSERT INTO anomaly.flag (expected, observed, confidence, billing_day, kind, service_point_id, group_id, commodity, unit, severity, evidence, case_id)
SELECT 10, 14, 0.8, '2026-07-02'::date + k, 'leak', 'SP-' || lpad(i::text, 7, '0'), '', 'electricity', 'kWh', 'warn', '{"sigma": 1.2, "run": 4}',
    'flow-SP-' || lpad(i::text, 7, '0') || '-20260702'
FROM generate_series(0, :n - 1) AS i, generate_series(0, 1) AS k;

INSERT INTO raw.dead_letter (dead_letter_key, file_sha256, file_name, head_end, file_format, line, raw, raw_format, reasons, reads, meter_id,
    rule_version, first_seen, last_seen, salt, leaf)
SELECT sha256(convert_to('d' || i, 'UTF8')), sha256(convert_to('f0-0', 'UTF8')), 'f0-0', 'HE-' || i % 10, 'delimited', i,
    'X999999999999999999999999999999999999999999999999999999999999', 'source', jsonb_build_array(jsonb_build_object('code', (ARRAY['not_a_number',
    'unknown_meter', 'off_grid'])[1 + i % 3], 'detail', 'value 12,5 is no number')), 1, 'X' || lpad(i::text, 7, '0'), '1', '2026-07-02'::timestamptz +
    i * interval '1 second', now(), sha256('salt'), sha256('mp-salted/1'::bytea || '\x1f'::bytea || sha256('salt')
    || 'X999999999999999999999999999999999999999999999999999999999999'::bytea)
FROM generate_series(0, :n - 1) AS i;

INSERT INTO billing.tariff_version VALUES ('E-RES', 1, sha256('x'), 'native', 'Residential', 'electricity', 'USD', 'kWh', '{all}', '{}',
    '{BASIC,ENERGY,FUEL,TAX}', '{Basic,Energy,Fuel,Tax}', '{fixed,energy,rider,tax}', '{BASIC,ENERGY,FUEL,TAX}', '{fixed,energy,rider,tax}', '2
    half_up', now());

INSERT INTO billing.statement
SELECT 'A-' || lpad(i::text, 7, '0') || '.C1.20260701.0', 'A-' || lpad(i::text, 7, '0'), 'C1', '2026-07-01', '2026-08-01', 0, 'regular', '2026-07-01',
    'USD', 80, 80, 4, sha256(convert_to('s' || lpad(i::text, 7, '0'), 'UTF8')), '2026-08-01'::timestamptz + i * interval '1 millisecond'
FROM generate_series(0, :n - 1) AS i;

INSERT INTO billing.statement_line
SELECT 'A-' || lpad(i::text, 7, '0') || '.C1.20260701.0', k, 'SP-' || lpad(i::text, 7, '0'), 'E-RES', 1, '2026-07-01', '2026-08-01', (ARRAY['BASIC',
    'ENERGY', 'FUEL', 'TAX'])[k], (ARRAY['Basic', 'Energy', 'Fuel', 'Tax'])[k], 'energy', 100, 'kWh', 20, '2026-07-01'
FROM generate_series(0, :n - 1) AS i, generate_series(1, 4) AS k;

INSERT INTO billing.statement_segment
SELECT 'A-' || lpad(i::text, 7, '0') || '.C1.20260701.0', 'SP-' || lpad(i::text, 7, '0'), 'E-RES', 1, '2026-07-01', '2026-08-01', 31, 'kWh',
    '{100000000}', '{}', '{}', '{0}', 744, 3, '2026-07-01'
FROM generate_series(0, :n - 1) AS i;

INSERT INTO billing.adjustment
SELECT 'A-' || lpad(i::text, 7, '0') || '.C1.20260701.0.A1', 'A-' || lpad(i::text, 7, '0') || '.C1.20260701.0', 'A-' || lpad(i::text, 7, '0'),
    'late_actual', 'late', 60, 60, true, 50, 'requested', 'ana', '2026-08-02'::timestamptz + i * interval '1 second', NULL, NULL, NULL, '2026-08-01'
FROM generate_series(0, :n - 1) AS i;

INSERT INTO billing.adjustment_line
SELECT 'A-' || lpad(i::text, 7, '0') || '.C1.20260701.0.A1', 1, 'rebill', 2, 'SP-' || lpad(i::text, 7, '0'), 'E-RES', 1, '2026-07-01', '2026-08-01',
    'ENERGY', 'Energy', 'energy', 100, 'kWh', 60, '2026-08-01'
FROM generate_series(0, :n - 1) AS i;

INSERT INTO billing.determinant_day
SELECT '2026-07-01'::date + d, 'SP-' || lpad(i::text, 7, '0'), 'A-' || lpad(i::text, 7, '0'), 'E-RES', 1, 'C1', '2026-07-01', '2026-08-01',
    '2026-07-01', 'kWh', 'kWh', 3000000, 0, '{3000000}', '{0}', '{}', '{}', 24, 0, 0, 60
FROM generate_series(0, :n - 1) AS i CROSS JOIN generate_series(0, :days - 1) AS d;

INSERT INTO billing.charge_day
SELECT '2026-07-01'::date + d, 'SP-' || lpad(i::text, 7, '0'), 'A-' || lpad(i::text, 7, '0'), 'E-RES', 1, 'C1', '2026-07-01', '2026-07-01', d + 1,
    '{3000000}', '{0}', '{}', '{}', '{}', 0, '{0}', '{}', '{400000,300000,10000,50000}', 760000
FROM generate_series(0, :n - 1) AS i CROSS JOIN generate_series(0, :days - 1) AS d;

INSERT INTO vee.interval_day (starts_at, total_micro, unscaled_micro, row_flags, billing_day, rules_version, first_slot, expected, actual, estimated,
    missing, interval_minutes, slots, scale, quality, billed, locked, service_point_id, meter_id, channel, unit, flow, head_end, input_hash,
    content_hash, values)
SELECT '2026-07-01 05:00+00'::timestamptz + d * interval '1 day', 3000000, 0, 0, '2026-07-01'::date + d, 1, 0, 24, 24, 0, 0, 60, 24, 3, 0, true,
    false, 'SP-' || lpad(i::text, 7, '0'), 'X' || lpad(i::text, 7, '0'), 'E1', 'kWh', 'import', 'HE-1', sha256('a'), sha256('b'), array_fill(125,
    ARRAY[24])
FROM generate_series(0, :n - 1) AS i CROSS JOIN generate_series(0, :days - 1) AS d;

INSERT INTO raw.interval_day (starts_at, source_version, billing_day, sequence, interval_minutes, slots, scale, quality, meter_id, channel, unit,
    head_end, payload_hash, values)
SELECT '2026-07-01 05:00+00'::timestamptz + d * interval '1 day', 0, '2026-07-01'::date + d, 1, 60, 24, 3, 0, 'X' || lpad(i::text, 7, '0'), 'E1',
    'kWh', 'HE-1', sha256(convert_to('p' || d || '-' || lpad(i::text, 7, '0'), 'UTF8')), array_fill(125, ARRAY[24])
FROM generate_series(0, :n - 1) AS i CROSS JOIN generate_series(0, :days - 1) AS d;

INSERT INTO vee.daily_usage
SELECT 3000000, 0, 0, '2026-07-01'::date + d, 24, 24, 0, 0, 1, 0, false, 'SP-' || lpad(i::text, 7, '0'), 'import', 'kWh', 'interval', 'electricity',
    'residential', 'A-' || lpad(i::text, 7, '0'), 'E-RES', 'C1'
FROM generate_series(0, :n - 1) AS i CROSS JOIN generate_series(0, :days - 1) AS d;
