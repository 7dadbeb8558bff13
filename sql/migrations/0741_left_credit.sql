-- migrate:up
-- Credit for exports that an account's last bill at a service point left and that no later bill takes in.
CREATE VIEW analyst.left_credit AS
WITH bill AS (
    SELECT
        s.account_id, g.service_point_id, s.statement_id, s.currency, g.tariff_id, g.tariff_version, g.segment_start, g.segment_end,
        g.credit_out, (SELECT coalesce(sum(c), 0) FROM unnest(g.carry_out) AS c)::bigint AS units,
        greatest(s.issued_at, (SELECT max(a.posted_at) FROM billing.adjustment AS a
            WHERE a.statement_id = s.statement_id AND a.status = 'posted' AND a.restated)) AS stands_since
    FROM billing.effective_segment AS g JOIN billing.statement AS s USING (statement_id)
),
ended AS (
    SELECT DISTINCT ON (account_id, service_point_id) * FROM bill ORDER BY account_id, service_point_id, segment_end DESC
),
elsewhere AS (
    SELECT e.account_id, e.service_point_id, b.service_point_id AS other, min(b.segment_start) AS begins
    FROM ended AS e JOIN bill AS b ON b.account_id = e.account_id AND b.service_point_id <> e.service_point_id
    WHERE b.segment_start >= e.segment_end GROUP BY 1, 2, 3
)
SELECT
    e.account_id,
    e.service_point_id,
    e.tariff_id,
    e.segment_end AS left_on,
    (e.units::numeric / 1000000)::numeric(20, 6) AS units,
    (e.credit_out::numeric / 1000000)::numeric(20, 6) AS money,
    e.currency,
    e.statement_id,
    coalesce((SELECT string_agg(DISTINCT a.service_point_id, ', ') FROM ref.agreements AS a WHERE a.account_id = e.account_id
        AND a.service_point_id <> e.service_point_id AND (a.valid_to IS NULL OR a.valid_to > e.segment_end)), '') AS other_service
FROM ended AS e
JOIN ref.tariff_document AS d ON d.tariff_id = e.tariff_id AND d.version = e.tariff_version
WHERE (e.units <> 0 OR e.credit_out <> 0)
    AND NOT EXISTS (
        SELECT FROM ref.agreements AS a WHERE a.account_id = e.account_id AND a.service_point_id = e.service_point_id
            AND (a.valid_to IS NULL OR a.valid_to > e.segment_end)
    )
    -- where the tariff moves credit, the first bill elsewhere takes it in if it was made after this one
    AND NOT (d.body #>> '{sell,on_move}' IS NOT DISTINCT FROM 'move' AND EXISTS (
        SELECT FROM elsewhere AS x JOIN bill AS b ON b.account_id = x.account_id AND b.service_point_id = x.other AND b.segment_start = x.begins
        WHERE x.account_id = e.account_id AND x.service_point_id = e.service_point_id AND b.stands_since >= e.stands_since
    ));
COMMENT ON VIEW analyst.left_credit IS 'Credit for exports that an account''s last bill at a service point left and that no later bill takes in: pay it, forfeit it or name where it goes.';
COMMENT ON COLUMN analyst.left_credit.account_id IS 'Account.';
COMMENT ON COLUMN analyst.left_credit.service_point_id IS 'Service point that the account left.';
COMMENT ON COLUMN analyst.left_credit.tariff_id IS 'Tariff of the last bill.';
COMMENT ON COLUMN analyst.left_credit.left_on IS 'Day after the last one billed there.';
COMMENT ON COLUMN analyst.left_credit.units IS 'Credit in the tariff''s unit.';
COMMENT ON COLUMN analyst.left_credit.money IS 'Credit in the currency.';
COMMENT ON COLUMN analyst.left_credit.currency IS 'ISO 4217.';
COMMENT ON COLUMN analyst.left_credit.statement_id IS 'The last bill.';
COMMENT ON COLUMN analyst.left_credit.other_service IS 'Service points where the account takes service after that day.';

-- migrate:down
DO $$ BEGIN RAISE EXCEPTION 'migrations go forward only: restore a backup'; END $$;
