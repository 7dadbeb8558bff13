-- migrate:up
-- What a statement's joints are checked by, from the store alone; and a line's way to the ledger without reading a day's leaves.
ALTER TABLE billing.statement
    ADD COLUMN period_end_due numeric(20,6) NOT NULL DEFAULT 0,
    ADD COLUMN credit_carried numeric(20,6) NOT NULL DEFAULT 0,
    ADD COLUMN ratchet_due numeric(20,6) NOT NULL DEFAULT 0,
    ADD COLUMN year_end_due numeric(20,6) NOT NULL DEFAULT 0,
    ADD COLUMN ledger_entry bigint,
    ADD COLUMN ledger_leaf integer;
COMMENT ON COLUMN billing.statement.period_end_due IS 'What the end of the period added to its days: minimum charges and the taxes on them.';
COMMENT ON COLUMN billing.statement.credit_carried IS 'What credit carried in from the period before took off.';
COMMENT ON COLUMN billing.statement.ratchet_due IS 'What demand of earlier months added.';
COMMENT ON COLUMN billing.statement.year_end_due IS 'What the end of a billing year added: the annual minimum, less what is paid for credit left over.';
COMMENT ON COLUMN billing.statement.ledger_entry IS 'Entry of the ledger that holds its leaf; null for statements issued before this column.';
COMMENT ON COLUMN billing.statement.ledger_leaf IS 'Number of the leaf in it, from 0.';

-- Estimates in a row. Walks back a day at a time over the services still estimated, so that it costs what the streaks are long.
CREATE FUNCTION billing.estimate_streaks(day date, at_least integer DEFAULT 1)
RETURNS TABLE (service_point_id text, account_id text, days integer, since date)
LANGUAGE plpgsql STABLE AS $function$
DECLARE
    going text[];
    still text[];
    back integer := 0;
    found text[] := '{}';
    lengths integer[] := '{}';
BEGIN
    SELECT coalesce(array_agg(d.service_point_id), '{}') INTO going FROM billing.determinant_day AS d WHERE d.billing_day = day AND d.estimated >= d.slots AND d.slots > 0;
    WHILE cardinality(going) > 0 AND back < 400 LOOP
        back := back + 1;
        SELECT coalesce(array_agg(d.service_point_id), '{}') INTO still FROM billing.determinant_day AS d
        WHERE d.billing_day = day - back AND d.service_point_id = ANY (going) AND d.estimated >= d.slots AND d.slots > 0;
        IF back >= at_least THEN
            SELECT found || coalesce(array_agg(g), '{}'), lengths || coalesce(array_agg(back), '{}') INTO found, lengths
            FROM unnest(going) AS g WHERE NOT g = ANY (still);
        END IF;
        going := still;
    END LOOP;
    RETURN QUERY SELECT d.service_point_id, d.account_id, s.length, day - s.length + 1
        FROM unnest(found, lengths) AS s (point, length)
        JOIN billing.determinant_day AS d ON d.billing_day = day AND d.service_point_id = s.point ORDER BY 3 DESC, 1;
END
$function$;
COMMENT ON FUNCTION billing.estimate_streaks IS 'Services whose every interval was estimated on a day and on each of the days before it, with the length of the run.';

CREATE TABLE billing.leaf_prefix (
    entry_id bigint PRIMARY KEY,
    billing_day date NOT NULL,
    prefixes bytea NOT NULL
);
ALTER TABLE billing.leaf_prefix ALTER COLUMN prefixes SET STORAGE EXTERNAL;
CREATE INDEX leaf_prefix_by_day ON billing.leaf_prefix (billing_day);
COMMENT ON TABLE billing.leaf_prefix IS 'The first four bytes of each leaf of the ledger entries of a day''s payloads, in their order: where to look in the entry, an eighth of its size.';
COMMENT ON COLUMN billing.leaf_prefix.entry_id IS 'Ledger entry of kind ingested.';
COMMENT ON COLUMN billing.leaf_prefix.billing_day IS 'Its billing day.';
COMMENT ON COLUMN billing.leaf_prefix.prefixes IS 'Four bytes a leaf.';

CREATE FUNCTION billing.payload_leaf(day date, hash bytea)
RETURNS TABLE (entry_id bigint, leaf integer, leaf_hash bytea)
LANGUAGE plpgsql STABLE AS $function$
DECLARE
    held record;
    hit integer;
    past integer;
BEGIN
    FOR held IN SELECT p.entry_id AS id, p.prefixes AS prefixes FROM billing.leaf_prefix AS p WHERE p.billing_day = day ORDER BY 1 LOOP
        past := 0;
        LOOP
            hit := position(substr(hash, 1, 4) IN CASE WHEN past = 0 THEN held.prefixes ELSE substr(held.prefixes, past + 1) END);
            EXIT WHEN hit = 0;
            hit := past + hit;
            -- A hit across two prefixes, or of four equal bytes only, is none: the leaf itself decides.
            IF (hit - 1) % 4 = 0 THEN
                RETURN QUERY SELECT e.entry_id, (hit - 1) / 4, e.leaf_hash FROM ledger.entry AS e
                    WHERE e.entry_id = held.id AND substr(e.leaves, (hit - 1) / 4 * 32 + 1, 32) = hash;
                EXIT WHEN FOUND;
            END IF;
            past := hit;
        END LOOP;
    END LOOP;
    -- Entries that came after the day was last billed are not in the table yet.
    RETURN QUERY SELECT e.entry_id, (position(hash IN e.leaves) - 1) / 32, e.leaf_hash FROM ledger.entry AS e
        WHERE e.billing_day = day AND e.kind = 'ingested' AND NOT EXISTS (SELECT FROM billing.leaf_prefix AS p WHERE p.entry_id = e.entry_id)
            AND position(hash IN e.leaves) > 0;
END
$function$;
COMMENT ON FUNCTION billing.payload_leaf IS 'The ledger entries of a billing day that hold a payload hash, and the number of the leaf in each.';

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
        FROM ledger.entry AS e
        WHERE e.entry_id = bill.ledger_entry AND substr(e.leaves, bill.ledger_leaf * 32 + 1, 32) = bill.lines_sha256;
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
-- explain_line of 0051 comes back when 0051 is applied again; the tables it reads stay until then.
DROP TABLE billing.leaf_prefix;
DROP FUNCTION billing.payload_leaf(date, bytea);
DROP FUNCTION billing.estimate_streaks(date, integer);
ALTER TABLE billing.statement DROP COLUMN period_end_due, DROP COLUMN credit_carried, DROP COLUMN ratchet_due, DROP COLUMN year_end_due,
    DROP COLUMN ledger_entry, DROP COLUMN ledger_leaf;
