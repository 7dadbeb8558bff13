-- migrate:up
-- Billing compares its rows with the ledger's leaves and may not read the ledger: these functions read it for the roles that store/privileges.toml
-- names, and give nothing but the hashes of entries that record payloads and bills.
CREATE FUNCTION billing.leaf_entries(day date, of_kind text)
RETURNS TABLE (entry_id bigint, body bytea, leaves bytea)
LANGUAGE sql STABLE AS $function$
    SELECT e.entry_id, e.body, e.leaves FROM ledger.entry AS e
    WHERE e.billing_day = day AND e.kind = of_kind AND of_kind IN ('ingested', 'bill_issued') AND e.leaf_count > 0 ORDER BY 1
$function$;
COMMENT ON FUNCTION billing.leaf_entries IS 'A billing day''s ledger entries of payloads (ingested) or bills (bill_issued), with their leaves.';

CREATE FUNCTION billing.leaf_at(entry bigint, leaf integer)
RETURNS TABLE (entry_id bigint, kind text, leaf_hash bytea, payload_hash bytea)
LANGUAGE sql STABLE AS $function$
    SELECT e.entry_id, e.kind, e.leaf_hash, substr(e.leaves, leaf * 32 + 1, 32) FROM ledger.entry AS e
    WHERE e.entry_id = entry AND e.kind IN ('ingested', 'bill_issued')
$function$;
COMMENT ON FUNCTION billing.leaf_at IS 'One leaf of a ledger entry of payloads or bills.';

CREATE OR REPLACE FUNCTION billing.explain_line(line_id text)
RETURNS TABLE (step integer, what text, day date, subject text, detail jsonb)
LANGUAGE plpgsql STABLE AS $function$
DECLARE
    line billing.statement_line;
    bill billing.statement;
    key text;
BEGIN
    SELECT l.* INTO line FROM billing.statement_line AS l
    WHERE l.statement_id = regexp_replace(line_id, '\.[0-9]+$', '') AND l.line_no = substring(line_id FROM '\.([0-9]{1,9})$')::integer;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    SELECT s.* INTO bill FROM billing.statement AS s WHERE s.statement_id = line.statement_id;
    key := CASE WHEN line.line_key ~ '/[0-9]+$' THEN regexp_replace(line.line_key, '/[0-9]+$', '') ELSE line.line_key END;
    RETURN QUERY SELECT 1, 'line', NULL::date, line_id, to_jsonb(line) || jsonb_build_object('amount', line.amount::text, 'currency', bill.currency);
    RETURN QUERY SELECT 2, 'statement', NULL::date, bill.statement_id,
        jsonb_build_object('total', bill.total::text, 'kind', bill.kind, 'posting_month', bill.posting_month, 'lines_sha256', encode(bill.lines_sha256, 'hex'));
    RETURN QUERY SELECT 3, 'tariff', NULL::date, v.tariff_id || ' version ' || v.version,
        jsonb_build_object('name', v.name, 'document_sha256', encode(v.document_sha256, 'hex'), 'rounding', v.rounding, 'source', v.source, 'unit', v.unit)
        FROM billing.tariff_version AS v WHERE v.tariff_id = line.tariff_id AND v.version = line.tariff_version;
    RETURN QUERY SELECT 4, 'determinant', NULL::date, g.service_point_id,
        jsonb_build_object('segment', jsonb_build_array(g.segment_start, g.segment_end), 'days', g.days, 'unit', g.unit, 'energy_micro', g.energy,
            'peaks_micro', g.peaks, 'peak_at', g.peak_at, 'intervals', g.slots, 'estimated', g.estimated)
        FROM billing.statement_segment AS g
        WHERE g.statement_id = line.statement_id AND g.service_point_id = line.service_point_id AND g.segment_start = line.segment_start;
    RETURN QUERY SELECT 5, 'day', d.billing_day, d.service_point_id,
        jsonb_build_object('energy_micro', d.energy, 'peaks_micro', d.peaks, 'source_unit', d.source_unit, 'source_micro', d.source_quantity,
            'intervals', d.slots, 'estimated', d.estimated, 'amount', (SELECT l.amount::text FROM billing.day_line AS l
                WHERE l.billing_day = d.billing_day AND l.service_point_id = d.service_point_id AND l.line_key = key))
        FROM billing.determinant_day AS d
        WHERE d.service_point_id = line.service_point_id AND d.billing_day >= line.segment_start AND d.billing_day < line.segment_end
        ORDER BY d.billing_day;
    RETURN QUERY SELECT 6, 'validated', v.billing_day, v.meter_id || ' ' || v.channel,
        jsonb_build_object('version', v.version, 'actual', v.actual, 'estimated', v.estimated, 'missing', v.missing, 'total_micro', v.total_micro,
            'notes', v.notes, 'content_sha256', encode(v.content_hash, 'hex'))
        FROM vee.interval_day AS v
        WHERE v.service_point_id = line.service_point_id AND v.billed AND v.billing_day >= line.segment_start AND v.billing_day < line.segment_end
        ORDER BY v.billing_day, v.meter_id, v.channel;
    RETURN QUERY SELECT 7, 'payload', r.billing_day, r.meter_id || ' ' || r.channel,
        jsonb_build_object('payload_sha256', encode(r.payload_hash, 'hex'), 'head_end', r.head_end, 'payloads', r.payloads)
        FROM vee.interval_day AS v JOIN raw.interval_day AS r USING (billing_day, meter_id, channel)
        WHERE v.service_point_id = line.service_point_id AND v.billed AND v.billing_day >= line.segment_start AND v.billing_day < line.segment_end
        ORDER BY r.billing_day, r.meter_id, r.channel;
    RETURN QUERY SELECT 8, 'register', u.billing_day, r.meter_id || ' ' || r.channel || ' ' || to_char(r.read_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
        jsonb_build_object('payload_sha256', encode(r.payload_hash, 'hex'), 'value_micro', r.value, 'head_end', r.head_end)
        FROM vee.daily_usage AS u
        JOIN vee.register_day AS d ON d.billing_day = u.billing_day AND d.service_point_id = u.service_point_id
        JOIN raw.register_read AS r ON r.billing_day = d.billing_day AND r.meter_id = d.meter_id AND r.channel = d.channel
        WHERE u.service_point_id = line.service_point_id AND u.source = 'register' AND u.billing_day >= line.segment_start AND u.billing_day < line.segment_end
        ORDER BY r.billing_day, r.meter_id, r.channel, r.read_at;
    RETURN QUERY SELECT 9, 'ledger', NULL::date, 'entry ' || e.entry_id,
        jsonb_build_object('kind', e.kind, 'leaf_hash', encode(e.leaf_hash, 'hex'), 'leaf', bill.ledger_leaf)
        FROM billing.leaf_at(bill.ledger_entry, bill.ledger_leaf) AS e WHERE e.payload_hash = bill.lines_sha256;
    RETURN QUERY SELECT 10, 'ledger', p.billing_day, 'entry ' || f.entry_id,
        jsonb_build_object('kind', 'ingested', 'leaf_hash', encode(f.leaf_hash, 'hex'), 'payload_sha256', encode(p.payload_hash, 'hex'), 'leaf', f.leaf)
        FROM (SELECT DISTINCT r.billing_day, r.payload_hash FROM vee.interval_day AS v JOIN raw.interval_day AS r USING (billing_day, meter_id, channel)
            WHERE v.service_point_id = line.service_point_id AND v.billed AND v.billing_day >= line.segment_start
                AND v.billing_day < line.segment_end) AS p
        CROSS JOIN LATERAL billing.payload_leaf(p.billing_day, p.payload_hash) AS f
        ORDER BY p.billing_day, f.entry_id;
    RETURN QUERY SELECT 11, 'adjustment', NULL::date, a.adjustment_id,
        jsonb_build_object('action', l.action, 'amount', l.amount::text, 'reason', a.reason, 'status', a.status, 'posting_month', a.posting_month)
        FROM billing.adjustment AS a JOIN billing.adjustment_line AS l USING (adjustment_id)
        WHERE a.statement_id = line.statement_id AND l.line_key = line.line_key AND l.service_point_id = line.service_point_id
            AND l.segment_start = line.segment_start
        ORDER BY a.adjustment_id, l.line_no;
END
$function$;

-- migrate:down
DROP FUNCTION billing.leaf_at(bigint, integer);
DROP FUNCTION billing.leaf_entries(date, text);
