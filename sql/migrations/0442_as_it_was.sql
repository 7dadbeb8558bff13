-- migrate:up
-- Charges that were replaced, so that a statement can be priced again from those it was issued from. A day's first load replaces nothing and costs nothing.
CREATE TABLE billing.charge_day_version (
    LIKE billing.charge_day INCLUDING COMMENTS,
    version_id bigint GENERATED ALWAYS AS IDENTITY,
    replaced_by xid8 NOT NULL DEFAULT pg_current_xact_id(),
    PRIMARY KEY (billing_day, service_point_id, version_id)
);
CREATE TABLE billing.determinant_day_version (
    LIKE billing.determinant_day INCLUDING COMMENTS,
    version_id bigint GENERATED ALWAYS AS IDENTITY,
    replaced_by xid8 NOT NULL DEFAULT pg_current_xact_id(),
    PRIMARY KEY (billing_day, service_point_id, version_id)
);
COMMENT ON TABLE billing.charge_day_version IS 'Rows of billing.charge_day that were replaced or taken out; billing.charge_day_before(transaction) puts them together.';
COMMENT ON COLUMN billing.charge_day_version.version_id IS 'In the order in which rows were replaced.';
COMMENT ON COLUMN billing.charge_day_version.replaced_by IS 'Transaction that replaced the row.';
COMMENT ON TABLE billing.determinant_day_version IS 'Rows of billing.determinant_day that were replaced or taken out.';
COMMENT ON COLUMN billing.determinant_day_version.version_id IS 'In the order in which rows were replaced.';
COMMENT ON COLUMN billing.determinant_day_version.replaced_by IS 'Transaction that replaced the row.';

CREATE FUNCTION billing.keep_replaced() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    version text := TG_ARGV[0] || '_version';
    listed text;
BEGIN
    IF TG_OP = 'UPDATE' AND NEW IS NOT DISTINCT FROM OLD THEN
        RETURN NULL;
    END IF;
    SELECT string_agg(quote_ident(attname), ', ') INTO listed FROM pg_attribute
        WHERE attrelid = format('billing.%I', TG_ARGV[0])::regclass AND attnum > 0 AND NOT attisdropped;
    EXECUTE format('INSERT INTO billing.%I (%s) SELECT %2$s FROM (SELECT ($1).*) AS replaced', version, listed) USING OLD;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION billing.keep_replaced IS 'Trigger: keeps the row that an update or a delete takes the place of.';
CREATE TRIGGER keep_replaced AFTER UPDATE OR DELETE ON billing.charge_day FOR EACH ROW EXECUTE FUNCTION billing.keep_replaced('charge_day');
CREATE TRIGGER keep_replaced AFTER UPDATE OR DELETE ON billing.determinant_day FOR EACH ROW EXECUTE FUNCTION billing.keep_replaced('determinant_day');

CREATE FUNCTION billing.adjustment_without(later text[]) RETURNS SETOF billing.adjustment LANGUAGE sql STABLE AS $$
    SELECT * FROM billing.adjustment WHERE adjustment_id <> ALL (later)
$$;
COMMENT ON FUNCTION billing.adjustment_without IS 'Adjustments but for some: those that were posted after an instant that is looked at.';

CREATE FUNCTION billing.effective_segment_without(later text[]) RETURNS SETOF billing.effective_segment LANGUAGE sql STABLE AS $$
    WITH last AS (
        SELECT DISTINCT ON (a.statement_id) a.statement_id, a.adjustment_id FROM billing.adjustment AS a
        WHERE a.status = 'posted' AND a.restated AND a.adjustment_id <> ALL (later)
        ORDER BY a.statement_id, a.posted_at DESC, length(a.adjustment_id) DESC, a.adjustment_id DESC
    )
    SELECT s.statement_id, s.service_point_id, s.tariff_id, s.tariff_version, s.segment_start, s.segment_end, s.energy, s.peaks, s.carry_out, s.credit_out
    FROM billing.statement_segment AS s WHERE NOT EXISTS (SELECT FROM last AS l WHERE l.statement_id = s.statement_id)
    UNION ALL
    SELECT l.statement_id, g.service_point_id, g.tariff_id, g.tariff_version, g.segment_start, g.segment_end, g.energy, g.peaks, g.carry_out, g.credit_out
    FROM last AS l JOIN billing.adjustment_segment AS g USING (adjustment_id)
$$;
COMMENT ON FUNCTION billing.effective_segment_without IS 'billing.effective_segment as it was before some adjustments were posted.';

DO $$
DECLARE
    named text;
    listed text;
BEGIN
    FOREACH named IN ARRAY ARRAY['charge_day', 'determinant_day'] LOOP
        SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) INTO listed FROM pg_attribute
            WHERE attrelid = format('billing.%I', named)::regclass AND attnum > 0 AND NOT attisdropped;
        EXECUTE format('CREATE FUNCTION billing.%I(transaction xid8) RETURNS SETOF billing.%I LANGUAGE sql STABLE AS %L', named || '_before', named, format(
            'SELECT %1$s FROM billing.%2$I AS d WHERE NOT EXISTS (SELECT FROM billing.%3$I AS v WHERE v.billing_day = d.billing_day '
            'AND v.service_point_id = d.service_point_id AND v.replaced_by > transaction) UNION ALL SELECT %1$s FROM ('
            'SELECT DISTINCT ON (billing_day, service_point_id) * FROM billing.%3$I WHERE replaced_by > transaction '
            'ORDER BY billing_day, service_point_id, version_id) AS v', listed, named, named || '_version'));
        EXECUTE format('COMMENT ON FUNCTION billing.%I IS %L', named || '_before', format('Rows of billing.%s as they were when a transaction ran.', named));
    END LOOP;
END
$$;

-- migrate:down
DROP FUNCTION billing.determinant_day_before(xid8);
DROP FUNCTION billing.charge_day_before(xid8);
DROP FUNCTION billing.effective_segment_without(text[]);
DROP FUNCTION billing.adjustment_without(text[]);
DROP TRIGGER keep_replaced ON billing.determinant_day;
DROP TRIGGER keep_replaced ON billing.charge_day;
DROP FUNCTION billing.keep_replaced();
DROP TABLE billing.determinant_day_version;
DROP TABLE billing.charge_day_version;
