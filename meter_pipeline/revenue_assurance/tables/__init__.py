"""SQL of the law: reads validated usage, determinants, charges, statements, adjustments and exception reasons, and
compares them as sets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from decimal import Decimal
from typing import Any, Final

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from meter_pipeline.postgres.database import Database, scalar

Connection = psycopg.Connection[Any]


def _sum(array: str) -> str:
    """SQL for the sum of an array's elements; 0 for an empty array. The function billing.sum_of costs each row ten
    times as much as the few additions that most tariffs need."""
    few = " ".join(f"WHEN {n} THEN " + " + ".join(f"{array}[{k}]" for k in range(1, n + 1)) for n in range(1, 13))
    return f"CASE cardinality({array}) WHEN 0 THEN 0 {few} ELSE billing.sum_of({array}) END"


#: Factor from a meter's unit to the tariff's unit, by tariff version and heat zone. ``volume`` has the cubic metres of
#: each volume (NIST SP 811). Therms are CCF times the heat content in force on the day: that of the service's zone; for
#: a service without a zone that of zone *, and otherwise the tariff document's. Null where the units do not convert.
_FACTORS: Final = """
volume (unit, m3) AS (VALUES ('m3', 1::numeric), ('gal', 0.003785411784), ('ft3', 0.028316846592), ('kgal', 3.785411784), ('ccf', 2.8316846592)),
heat AS (SELECT zone_id, therms_per_ccf FROM ref.heat_contents WHERE valid_from <= %(day)s AND (valid_to IS NULL OR valid_to > %(day)s)),
zone AS (
    SELECT service_point_id, upper(btrim(value)) AS zone_id FROM ref.service_attributes
    WHERE attribute = 'heat_zone' AND valid_from <= %(day)s AND (valid_to IS NULL OR valid_to > %(day)s)
),
pair AS (
    SELECT DISTINCT tariff_id, tariff_version, unit, source_unit, CASE unit WHEN 'therm' THEN coalesce(zone.zone_id, '') ELSE '' END AS zone_id
    FROM billing.determinant_day LEFT JOIN zone USING (service_point_id) WHERE billing_day = %(day)s AND source_unit <> ''
),
factor AS (
    SELECT p.tariff_id, p.tariff_version, p.source_unit, p.zone_id, CASE
        WHEN p.unit = p.source_unit THEN 1
        WHEN p.unit = 'therm' AND p.zone_id <> '' THEN round(v.m3 / 2.8316846592, 30) * (SELECT therms_per_ccf FROM heat WHERE heat.zone_id = p.zone_id)
        WHEN p.unit = 'therm' THEN round(v.m3 / 2.8316846592, 30) * coalesce((SELECT therms_per_ccf FROM heat WHERE heat.zone_id = '*'), (
            SELECT (h ->> 'therms_per_ccf')::numeric FROM ref.tariff_document AS doc, jsonb_array_elements(doc.body -> 'heat_content') AS h
            WHERE doc.tariff_id = p.tariff_id AND doc.version = p.tariff_version AND (h ->> 'from')::date <= %(day)s
            ORDER BY (h ->> 'from')::date DESC LIMIT 1))
        ELSE round(v.m3 / t.m3, 30) END AS factor
    FROM pair AS p LEFT JOIN volume AS v ON v.unit = p.source_unit LEFT JOIN volume AS t ON t.unit = p.unit
)"""

#: Validated usage of a day in millionths, by service point, unit and direction. A net channel gives two rows: its
#: export is the sum of its negative intervals, its import the day's quantity plus that export. A net register without
#: intervals gives its day's quantity to the direction of its sign.
_USAGE: Final = """
flows AS (
    SELECT service_point_id, unit, flow, source, quantity_micro, register_micro FROM vee.daily_usage
    WHERE billing_day = %(day)s AND flow IN ('import', 'export')
    UNION ALL
    SELECT u.service_point_id, u.unit, way.flow, u.source,
        CASE way.flow WHEN 'import' THEN u.quantity_micro + net.sent ELSE net.sent END,
        CASE way.flow WHEN 'import' THEN u.register_micro + net.sent ELSE net.sent END
    FROM vee.daily_usage AS u CROSS JOIN (VALUES ('import'), ('export')) AS way (flow) CROSS JOIN LATERAL (
        SELECT coalesce((
            SELECT (sum(greatest(-raw.quantity(s.stored, d.scale), 0)) * 1000000)::bigint FROM vee.interval_day AS d CROSS JOIN LATERAL (
                SELECT nullif(v, -2147483648)::bigint AS stored FROM unnest(d.values) AS v
                UNION ALL SELECT nullif(v, -9223372036854775808) FROM unnest(d.wide_values) AS v) AS s
            WHERE d.billing_day = %(day)s AND d.service_point_id = u.service_point_id AND d.unit = u.unit AND d.flow = 'net' AND d.billed
        ), greatest(-u.quantity_micro, 0)) AS sent
    ) AS net
    WHERE u.billing_day = %(day)s AND u.flow = 'net' AND (way.flow = 'import' OR net.sent > 0)
)"""

#: One row for each service point with an agreement, usage, a determinant or a charge on the day. Usage of a meter that
#: totals into another service point, or is deducted from it, counts there. ``fine``: usage has one unit and equals the
#: determinant exactly, the conversion is right within a millionth a period, and the position moved by that quantity.
_DAY: Final = f"""
WITH {_FACTORS},
{_USAGE},
served AS (
    SELECT service_point_id, min(account_id) AS account_id, count(*) AS agreements FROM ref.agreements
    WHERE valid_from <= %(day)s AND (valid_to IS NULL OR valid_to > %(day)s) GROUP BY 1
),
supplies AS (
    SELECT DISTINCT service_point_id FROM ref.zone_supplies WHERE valid_from <= %(day)s AND (valid_to IS NULL OR valid_to > %(day)s)
),
part AS (
    SELECT a.service_point_id AS member, upper(btrim(a.value)) AS target, CASE a.attribute WHEN 'totals_into' THEN 1 ELSE -1 END AS sign,
        a.attribute = 'totals_into' OR served.service_point_id IS NULL AS moved
    FROM ref.service_attributes AS a LEFT JOIN served USING (service_point_id)
    WHERE a.attribute IN ('totals_into', 'deducts_from') AND a.valid_from <= %(day)s AND (a.valid_to IS NULL OR a.valid_to > %(day)s)
),
placed AS (
    SELECT service_point_id, unit, flow, quantity_micro FROM flows WHERE service_point_id NOT IN (SELECT member FROM part WHERE moved)
    UNION ALL SELECT part.target, u.unit, u.flow, u.quantity_micro * part.sign FROM flows AS u JOIN part ON part.member = u.service_point_id
),
usage AS (
    SELECT service_point_id, count(DISTINCT unit) AS units, min(unit) AS unit,
        coalesce(sum(quantity_micro) FILTER (WHERE flow = 'import'), 0)::bigint AS used,
        coalesce(sum(quantity_micro) FILTER (WHERE flow = 'export'), 0)::bigint AS sent,
        bool_or(quantity_micro IS NULL) AS unknown
    FROM placed GROUP BY 1
),
held AS (
    SELECT d.service_point_id, d.account_id, d.tariff_id, d.tariff_version, d.cycle_id, d.period_start, d.period_end, d.stretch_start, d.unit,
        d.source_unit, d.source_quantity, d.source_export, d.other_unit, d.other_quantity, d.other_export,
        {_sum("d.energy")} AS energy, {_sum("d.export")} AS export, cardinality(d.energy) AS periods, f.factor
    FROM billing.determinant_day AS d LEFT JOIN zone USING (service_point_id)
    LEFT JOIN factor AS f ON f.tariff_id = d.tariff_id AND f.tariff_version = d.tariff_version AND f.source_unit = d.source_unit
        AND f.zone_id = CASE d.unit WHEN 'therm' THEN coalesce(zone.zone_id, '') ELSE '' END
    WHERE d.billing_day = %(day)s
),
charged AS (
    SELECT c.service_point_id, c.account_id, c.total, {_sum("c.amounts")} AS lines,
        ({_sum("c.energy_to_date")}) - coalesce(p.energy, o.energy, 0) AS moved,
        ({_sum("c.export_to_date")}) - coalesce(p.export, o.export, 0) AS sent_moved
    FROM billing.charge_day AS c LEFT JOIN (
        SELECT service_point_id, account_id, tariff_id, stretch_start, {_sum("energy_to_date")} AS energy, {_sum("export_to_date")} AS export
        FROM billing.charge_day WHERE billing_day = %(day)s::date - 1
    ) AS p USING (service_point_id, account_id, tariff_id, stretch_start)
    LEFT JOIN LATERAL (  -- the last charge where days without one lie between, as when no tariff version is in force
        SELECT {_sum("e.energy_to_date")} AS energy, {_sum("e.export_to_date")} AS export FROM billing.charge_day AS e
        WHERE p.energy IS NULL AND c.stretch_start < %(day)s::date - 1 AND e.billing_day >= c.stretch_start
            AND e.billing_day < %(day)s::date - 1 AND e.service_point_id = c.service_point_id AND e.account_id = c.account_id
            AND e.tariff_id = c.tariff_id AND e.stretch_start = c.stretch_start ORDER BY e.billing_day DESC LIMIT 1
    ) AS o ON true
    WHERE c.billing_day = %(day)s
),
revised AS (
    SELECT DISTINCT ON (service_point_id) service_point_id, determinants FROM billing.determinant_revision
    WHERE billing_day = %(day)s ORDER BY service_point_id, revision DESC
),
covering AS (
    SELECT e.service_point_id, s.account_id, count(*) AS bills, min(e.statement_id) AS statement_id
    FROM billing.segment_in_effect AS e JOIN billing.statement AS s USING (statement_id)
    WHERE e.segment_start <= %(day)s AND e.segment_end > %(day)s GROUP BY 1, 2
),
issued AS (SELECT DISTINCT account_id, cycle_id, period_start FROM billing.statement WHERE period_start <= %(day)s AND period_end > %(day)s),
corrected AS (
    SELECT c.service_point_id, s.account_id FROM billing.late_change AS c JOIN billing.statement AS s USING (statement_id) WHERE c.billing_day = %(day)s
    UNION SELECT g.service_point_id, a.account_id FROM billing.adjustment_segment AS g JOIN billing.adjustment AS a USING (adjustment_id)
    WHERE g.segment_start <= %(day)s AND g.segment_end > %(day)s AND a.status IN ('requested', 'approved', 'refused')
),
point AS (
    SELECT service_point_id FROM served UNION SELECT service_point_id FROM usage UNION SELECT service_point_id FROM held
    UNION SELECT service_point_id FROM charged
),
compared AS MATERIALIZED (
    SELECT point.service_point_id, served.account_id AS payer, coalesce(served.agreements, 0) AS agreements,
        served.account_id IS NULL AND supplies.service_point_id IS NOT NULL AS supply_meter,
        usage.service_point_id IS NOT NULL AS metered, coalesce(usage.units, 0) AS units, usage.unit AS usage_unit, coalesce(usage.used, 0) AS used,
        coalesce(usage.sent, 0) AS sent, coalesce(usage.unknown, true) AS unknown, held.account_id, held.cycle_id, held.period_start, held.period_end,
        held.unit, held.source_unit, held.source_quantity, held.source_export, held.other_unit, held.other_quantity, held.other_export, held.energy,
        held.export, held.periods, held.factor::text AS factor, charged.account_id IS NOT NULL AS charged, charged.moved, charged.sent_moved, charged.total,
        charged.lines,
        coalesce(nullif(revised.determinants, 'null'), CASE WHEN revised.service_point_id IS NOT NULL THEN '{{}}'::jsonb END) AS revision,
        coalesce(covering.bills, 0) AS bills, covering.statement_id,
        issued.account_id IS NOT NULL AND coalesce(covering.bills, 0) = 0 AS left_out, corrected.account_id IS NOT NULL AS correction,
        coalesce(
            (issued.account_id IS NULL OR covering.bills > 0)
            AND usage.units = 1 AND NOT usage.unknown AND usage.used = held.source_quantity AND usage.sent = held.source_export AND held.other_unit = ''
            AND usage.unit = held.source_unit AND served.account_id = held.account_id AND served.agreements = 1 AND revised.service_point_id IS NULL
            AND charged.moved = held.energy AND charged.sent_moved = held.export AND charged.account_id = held.account_id
            AND charged.total = charged.lines AND coalesce(covering.bills, 0) <= 1 AND held.factor IS NOT NULL
            AND abs(held.source_quantity * held.factor - held.energy) <= CASE WHEN held.factor = 1 THEN 0 ELSE held.periods END
            AND abs(held.source_export * held.factor - held.export) <= CASE WHEN held.factor = 1 THEN 0 ELSE held.periods END, false
        ) AS fine
    FROM point LEFT JOIN served USING (service_point_id) LEFT JOIN supplies USING (service_point_id)
    LEFT JOIN usage USING (service_point_id) LEFT JOIN held USING (service_point_id)
    LEFT JOIN charged USING (service_point_id) LEFT JOIN revised USING (service_point_id)
    LEFT JOIN covering ON covering.service_point_id = point.service_point_id
        AND covering.account_id = coalesce(revised.determinants ->> 'account_id', held.account_id)
    LEFT JOIN issued ON issued.account_id = held.account_id AND issued.cycle_id = held.cycle_id AND issued.period_start = held.period_start
    LEFT JOIN corrected ON corrected.service_point_id = point.service_point_id AND corrected.account_id = held.account_id
)
"""


@contextmanager
def one_moment(database: Database) -> Iterator[tuple[Connection, Connection]]:
    """Two read-only sessions with the same snapshot, so that two queries run at the same time."""
    with database.connect("revenue assurance") as own, database.connect("revenue assurance beside") as beside:
        for session in (own, beside):
            session.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        moment = scalar(own, "SELECT pg_export_snapshot()")
        beside.execute(sql.SQL("SET TRANSACTION SNAPSHOT {}").format(sql.Literal(moment)))
        yield own, beside


def examine_day(connection: Connection, day: date) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Returns a day's service points: those without a difference summed by unit and by whether a bill covers them;
    the others row by row."""
    rows = connection.execute(
        f"{_DAY} SELECT true, to_jsonb(s) FROM (SELECT usage_unit AS unit, bills > 0 AS billed, count(*) AS points, sum(used)::bigint AS used "
        "FROM compared WHERE fine GROUP BY 1, 2 ORDER BY 1, 2) AS s UNION ALL "
        "SELECT false, to_jsonb(c) FROM (SELECT * FROM compared WHERE NOT fine ORDER BY service_point_id) AS c".encode(),
        {"day": day},
    ).fetchall()
    sums = [found for fine, found in rows if fine]
    others = [found for fine, found in rows if not fine]
    for row in others:  # a JSON number would come back as a float
        row["factor"] = None if row["factor"] is None else Decimal(row["factor"])
    return sums, others


def usage_of(connection: Connection, day: date, points: list[str]) -> list[dict[str, Any]]:
    """Returns validated usage of some service points by unit, flow and source."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(
            f"WITH {_USAGE} SELECT * FROM flows WHERE service_point_id = ANY(%(points)s) ORDER BY 1, 2, 3".encode(),
            {"day": day, "points": points},
        ).fetchall()


def reasons_of(connection: Connection, day: date, points: list[str]) -> dict[str, list[tuple[str, str]]]:
    """Returns the reasons for which some service points' usage of the day is not billed: billing's exceptions (for a
    sealed day, those stored with its latest revision), then validation's."""
    rows = connection.execute(
        "WITH later AS (SELECT DISTINCT ON (service_point_id) service_point_id, exceptions FROM billing.determinant_revision "
        "WHERE billing_day = %(d)s AND service_point_id = ANY(%(p)s) ORDER BY service_point_id, revision DESC) "
        "SELECT service_point_id, reason, detail FROM billing.exception_day WHERE billing_day = %(d)s AND service_point_id = ANY(%(p)s) "
        "AND service_point_id NOT IN (SELECT service_point_id FROM later WHERE exceptions IS NOT NULL) UNION ALL "
        "SELECT service_point_id, x ->> 0, x ->> 1 FROM later, jsonb_array_elements(exceptions) AS x UNION ALL "
        "SELECT service_point_id, 'validation: ' || kind, detail FROM vee.exception WHERE billing_day = %(d)s AND service_point_id = ANY(%(p)s)",
        {"d": day, "p": points},
    ).fetchall()
    found: dict[str, list[tuple[str, str]]] = {}
    for point, reason, detail in sorted(rows):
        found.setdefault(point, []).append((reason, detail))
    return found


def unbilled_accounts(connection: Connection, day: date) -> list[tuple[str, str, str, date]]:
    """Returns service points charged on the day in a period whose statements were issued, that have no statement and
    no reason: (service point, account, cycle, first day)."""
    return connection.execute(
        "WITH later AS (SELECT DISTINCT ON (service_point_id) service_point_id, determinants AS j "
        "FROM billing.determinant_revision WHERE billing_day = %(d)s ORDER BY service_point_id, revision DESC), "
        "held AS (SELECT service_point_id, account_id, cycle_id, period_start FROM billing.determinant_day "
        "WHERE billing_day = %(d)s AND service_point_id NOT IN (SELECT service_point_id FROM later) "
        "UNION ALL SELECT service_point_id, j ->> 'account_id', j ->> 'cycle_id', (j ->> 'period_start')::date FROM later) "
        "SELECT d.* FROM held AS d WHERE EXISTS (SELECT FROM billing.statement AS s "
        "WHERE s.cycle_id = d.cycle_id AND s.period_start = d.period_start) "
        "AND NOT EXISTS (SELECT FROM billing.statement AS s WHERE s.cycle_id = d.cycle_id AND s.period_start = d.period_start "
        "AND s.account_id = d.account_id) AND NOT EXISTS (SELECT FROM billing.statement_exception AS e "
        "WHERE e.account_id = d.account_id AND e.cycle_id = d.cycle_id AND e.period_start = d.period_start "
        "AND e.reason <> 'estimate_streak') ORDER BY 1",
        {"d": day},
    ).fetchall()


#: Up to this number of service points or accounts, only their rows of the periods are read; above it, all rows are.
#: With twenty billing cycles a day lies on a twentieth of a city's bills.
FEW: Final = 20_000
_REVISED_ENERGY: Final = (
    "(SELECT coalesce(sum(x::bigint), 0) FROM jsonb_array_elements_text(r.determinants -> 'energy') AS x)"
)
#: Returns bills that cover any of the days and differ from their determinants: by statement and service point the
#: billed quantity and days, and the quantity and days of the determinants as they are now (of a sealed day its latest
#: revision, otherwise its row). A bill is compared over all its days. Its quantity counts only where a line of the
#: tariff charges for units. ``known`` sums all rows with parallel workers; ``revised`` subtracts the rows that
#: revisions replaced and adds the revisions. ``start`` and ``stop`` bound the periods: as constants they keep the
#: server from other months.
_SEGMENTS: Final = f"""
WITH chosen AS (
    SELECT DISTINCT e.statement_id FROM billing.segment_in_effect AS e
    WHERE e.segment_start < %(past)s AND e.segment_end > %(first)s
),
span AS (
    SELECT e.statement_id, s.account_id, s.cycle_id, s.period_start, s.period_end, e.service_point_id, e.tariff_id,
        e.tariff_version, e.unit, e.segment_start, e.segment_end, {_sum("e.energy")} AS billed
    FROM billing.segment_in_effect AS e JOIN chosen USING (statement_id) JOIN billing.statement AS s USING (statement_id)
),
latest AS (
    SELECT DISTINCT ON (r.billing_day, r.service_point_id) r.billing_day, r.service_point_id,
        r.determinants ->> 'account_id' AS account_id, r.determinants ->> 'cycle_id' AS cycle_id,
        (r.determinants ->> 'period_start')::date AS period_start, {_REVISED_ENERGY} AS energy
    FROM billing.determinant_revision AS r WHERE r.billing_day >= %(start)s AND r.billing_day < %(stop)s
    ORDER BY r.billing_day, r.service_point_id, r.revision DESC
),
billed AS (
    SELECT statement_id, account_id, cycle_id, period_start, service_point_id, min(span.unit) AS unit,
        sum(billed)::bigint AS billed, max(segment_end) - 1 AS last_day, range_agg(daterange(segment_start, segment_end)) AS covers,
        sum(segment_end - segment_start)::bigint AS days, bool_or('energy' = ANY (v.line_components)) AS counted
    FROM span JOIN billing.tariff_version AS v ON v.tariff_id = span.tariff_id AND v.version = span.tariff_version
    GROUP BY 1, 2, 3, 4, 5
),
known AS (
    SELECT d.service_point_id, d.account_id, d.cycle_id, d.period_start, sum({_sum("d.energy")})::bigint AS energy, count(*) AS days,
        min(d.billing_day) AS first, max(d.billing_day) AS last FROM billing.determinant_day AS d
    WHERE d.billing_day >= %(start)s AND d.billing_day < %(stop)s AND (%(points)s::text[] IS NULL OR d.service_point_id = ANY(%(points)s))
    GROUP BY 1, 2, 3, 4
),
revised AS (
    SELECT service_point_id, account_id, cycle_id, period_start, sum(energy)::bigint AS energy, sum(days)::bigint AS days,
        min(billing_day) FILTER (WHERE days > 0) AS first, max(billing_day) FILTER (WHERE days > 0) AS last FROM (
        SELECT billing_day, service_point_id, account_id, cycle_id, period_start, energy, 1 AS days FROM latest
        UNION ALL SELECT d.billing_day, d.service_point_id, d.account_id, d.cycle_id, d.period_start, -({_sum("d.energy")}), -1
        FROM latest JOIN billing.determinant_day AS d USING (billing_day, service_point_id)
        WHERE d.billing_day >= %(start)s AND d.billing_day < %(stop)s
    ) AS r GROUP BY 1, 2, 3, 4
),
-- Days are counted row by row only where the account has days that the bill does not cover.
compared AS (
    SELECT b.*, coalesce(s.energy, 0) + coalesce(r.energy, 0) AS now, CASE
        WHEN coalesce(s.days, 0) + coalesce(r.days, 0) = 0 THEN 0
        WHEN b.covers = datemultirange(daterange(lower(b.covers), upper(b.covers))) AND least(s.first, r.first) >= lower(b.covers)
            AND greatest(s.last, r.last) < upper(b.covers) THEN coalesce(s.days, 0) + coalesce(r.days, 0)
        ELSE (
            SELECT count(*) FROM billing.determinant_day AS d WHERE d.billing_day >= lower(b.covers) AND d.billing_day < upper(b.covers)
                AND b.covers @> d.billing_day AND d.service_point_id = b.service_point_id AND d.account_id = b.account_id
                AND d.cycle_id = b.cycle_id AND d.period_start = b.period_start AND NOT EXISTS (SELECT FROM latest AS l
                WHERE l.billing_day = d.billing_day AND l.service_point_id = d.service_point_id)
        ) + (
            SELECT count(*) FROM latest AS l WHERE b.covers @> l.billing_day AND l.service_point_id = b.service_point_id
                AND l.account_id = b.account_id AND l.cycle_id = b.cycle_id AND l.period_start = b.period_start
        ) END AS days_known
    FROM billed AS b LEFT JOIN known AS s USING (service_point_id, account_id, cycle_id, period_start)
    LEFT JOIN revised AS r USING (service_point_id, account_id, cycle_id, period_start)
)
SELECT statement_id, account_id, service_point_id, unit, billed, last_day, now, days, days_known FROM compared
WHERE (billed <> now AND counted) OR days <> days_known ORDER BY 1, 3
"""


def bills_off_their_days(connection: Connection, first: date, past: date) -> list[dict[str, Any]]:
    """Returns bills covering any day of [first, past) whose quantity differs from the determinants of their days, or
    that lack a day."""
    span = {"first": first, "past": past}
    row = connection.execute(
        # Includes services of these bills that ended before the days.
        "WITH own AS (SELECT e.service_point_id, s.period_start, s.period_end FROM billing.segment_in_effect AS e "
        "JOIN billing.statement AS s USING (statement_id) WHERE e.statement_id IN (SELECT statement_id "
        "FROM billing.segment_in_effect WHERE segment_start < %(past)s AND segment_end > %(first)s)) "
        "SELECT min(period_start), max(period_end), count(*), CASE WHEN count(*) <= %(few)s THEN "
        "(SELECT array_agg(DISTINCT service_point_id) FROM own) END FROM own",
        span | {"few": FEW},
    ).fetchone()
    if row is None or not row[2]:
        return []
    values = span | {"start": row[0], "stop": row[1], "points": row[3]}
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(_SEGMENTS.encode(), values).fetchall()


def corrections_waiting(connection: Connection, statements: list[str]) -> list[dict[str, Any]]:
    """Returns the corrections of some statements that wait, or were refused after the last posted correction: by
    service point, the quantity that the bill would have."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(
            "SELECT a.statement_id, a.adjustment_id, a.status, a.restated, g.service_point_id, "
            f"coalesce(sum({_sum('g.energy')}), 0)::bigint AS energy FROM billing.adjustment AS a "
            "LEFT JOIN billing.adjustment_segment AS g USING (adjustment_id) WHERE a.statement_id = ANY(%s) AND a.status IN "
            "('requested', 'approved', 'refused') AND a.reason NOT IN ('leak', 'policy') AND NOT EXISTS (SELECT FROM billing.adjustment AS p "
            "WHERE p.statement_id = a.statement_id AND p.reason NOT IN ('leak', 'policy') AND p.status = 'posted' "
            "AND p.posted_at > a.requested_at) GROUP BY 1, 2, 3, 4, 5 ORDER BY a.statement_id, max(a.requested_at) DESC, 2 DESC",
            (statements,),
        ).fetchall()


def late_changes(connection: Connection, statements: list[str]) -> dict[tuple[str, str], int]:
    """Returns by statement and service point the change of usage by late changes for which no adjustment has been
    computed yet."""
    rows = connection.execute(
        "SELECT statement_id, service_point_id, coalesce(sum(energy_moved), 0)::bigint FROM billing.late_change "
        "WHERE statement_id = ANY(%s) GROUP BY 1, 2",
        (statements,),
    ).fetchall()
    return {(statement, point): moved for statement, point, moved in rows}


#: One row for each statement whose period holds any of the days: its total and lines, its days' charges, the change of
#: charges by late reads (``moved``), the amounts of the period's end (``at_end``), and its corrections. ``posted``,
#: ``asked`` and ``refused`` are the net of corrections; with ``_due``, the amount that the corrected statement owes
#: beyond its days' charges (charges of sealed months stay). ``room``: older adjustments have no such amount; their
#: lines of the period's end, and a cent of rounding for each rebilled line, bound the difference instead.
_MONEY: Final = """
WITH chosen AS (SELECT s.* FROM billing.statement AS s WHERE s.period_start < %(past)s AND s.period_end > %(first)s),
lines AS (
    SELECT l.statement_id, sum(l.amount) AS amount FROM billing.statement_line AS l JOIN billing.statement AS s USING (statement_id)
    WHERE s.period_start < %(past)s AND s.period_end > %(first)s GROUP BY 1
),
days AS (
    SELECT c.account_id, c.cycle_id, c.period_start, sum(c.total)::numeric / 1000000 AS amount FROM billing.charge_day AS c
    WHERE c.billing_day >= %(start)s AND c.billing_day < %(stop)s
        AND (%(accounts)s::text[] IS NULL OR c.account_id = ANY(%(accounts)s)) GROUP BY 1, 2, 3
),
revised AS (
    SELECT DISTINCT c.statement_id FROM billing.determinant_revision AS r
    JOIN chosen AS c ON r.billing_day >= c.period_start AND r.billing_day < c.period_end
    WHERE EXISTS (SELECT FROM billing.statement_segment AS g WHERE g.statement_id = c.statement_id AND g.service_point_id = r.service_point_id)
        OR r.determinants ->> 'account_id' = c.account_id
),
adjusted AS (
    SELECT a.*, CASE WHEN r.statement_id IS NULL AND a.sealed_days_due IS NOT NULL THEN 0 ELSE a.sealed_days_due END + a.period_end_due AS due,
        max(a.posted_at) FILTER (WHERE a.status = 'posted') OVER (PARTITION BY a.statement_id) AS last_posted
    FROM billing.adjustment AS a JOIN chosen USING (statement_id) LEFT JOIN revised AS r USING (statement_id)
    WHERE a.status <> 'superseded' AND a.reason NOT IN ('leak', 'policy')
),
forgiven AS (
    SELECT a.statement_id, bool_or(a.net <> (SELECT coalesce(sum(l.amount), 0) FROM billing.adjustment_line AS l WHERE l.adjustment_id = a.adjustment_id))
        AS off_its_lines FROM billing.adjustment AS a JOIN chosen USING (statement_id) WHERE a.status <> 'superseded' AND a.reason IN ('leak', 'policy') GROUP BY 1
),
corrected AS (
    SELECT a.statement_id, coalesce(sum(a.net) FILTER (WHERE a.status = 'posted'), 0) AS posted,
        (array_agg(a.due ORDER BY a.posted_at DESC, length(a.adjustment_id) DESC, a.adjustment_id DESC) FILTER (WHERE a.status = 'posted'))[1] AS posted_due,
        (array_agg(a.net ORDER BY a.requested_at DESC, length(a.adjustment_id) DESC) FILTER (WHERE a.status IN ('requested', 'approved')))[1] AS asked,
        (array_agg(a.due ORDER BY a.requested_at DESC, length(a.adjustment_id) DESC) FILTER (WHERE a.status IN ('requested', 'approved')))[1] AS asked_due,
        (array_agg(a.net ORDER BY a.requested_at DESC, length(a.adjustment_id) DESC) FILTER (WHERE a.status = 'refused'
            AND (a.last_posted IS NULL OR a.decided_at >= a.last_posted)))[1] AS refused,
        (array_agg(a.due ORDER BY a.requested_at DESC, length(a.adjustment_id) DESC) FILTER (WHERE a.status = 'refused'
            AND (a.last_posted IS NULL OR a.decided_at >= a.last_posted)))[1] AS refused_due,
        bool_or(a.net <> coalesce(v.amount, 0)) AS off_its_lines, coalesce(sum(v.at_end) FILTER (WHERE a.due IS NULL), 0) AS room,
        bool_or(a.due IS NULL) AS unkept
    FROM adjusted AS a LEFT JOIN LATERAL (
        SELECT sum(l.amount) AS amount, coalesce(sum(abs(l.amount)) FILTER (WHERE l.component IN ('minimum', 'tax', 'credit', 'demand_flat', 'demand_tou')), 0)
            + 0.01 * count(*) FILTER (WHERE l.action = 'rebill') AS at_end
        FROM billing.adjustment_line AS l WHERE l.adjustment_id = a.adjustment_id
    ) AS v ON true GROUP BY 1
),
moved AS (
    SELECT c.statement_id, sum(c.charge_moved)::numeric / 1000000 AS amount FROM billing.late_change AS c JOIN chosen USING (statement_id) GROUP BY 1
),
stands AS (
    SELECT c.statement_id, c.account_id, c.cycle_id, c.period_start, c.period_end, c.currency, c.total, coalesce(l.amount, 0) AS lines,
        coalesce(d.amount, 0) AS charged, coalesce(m.amount, 0) AS moved, m.statement_id IS NOT NULL AS noted, coalesce(k.posted, 0) AS posted,
        c.period_end_due + c.credit_carried + c.ratchet_due + c.year_end_due + CASE WHEN r.statement_id IS NULL THEN 0 ELSE coalesce(c.sealed_days_due, 0) END AS at_end,
        k.posted_due, k.asked, k.asked_due, k.refused, k.refused_due, coalesce(k.off_its_lines, false) OR coalesce(f.off_its_lines, false) AS off_its_lines,
        coalesce(k.room, 0) AS room,
        coalesce(k.unkept, false) AND r.statement_id IS NOT NULL AS revised
    FROM chosen AS c LEFT JOIN lines AS l USING (statement_id) LEFT JOIN corrected AS k USING (statement_id) LEFT JOIN moved AS m USING (statement_id)
    LEFT JOIN revised AS r USING (statement_id)
    LEFT JOIN forgiven AS f USING (statement_id)
    LEFT JOIN days AS d ON d.account_id = c.account_id AND d.cycle_id = c.cycle_id AND d.period_start = c.period_start
)
SELECT * FROM stands
"""


def money_of_bills(connection: Connection, first: date, past: date) -> list[dict[str, Any]]:
    """Returns bills of periods holding any day of [first, past) whose money differs from their days' charges and the
    amounts of the period's end, or whose totals differ from their lines."""
    span = {"first": first, "past": past}
    row = connection.execute(
        "WITH own AS (SELECT account_id, period_start, period_end FROM billing.statement WHERE period_start < %(past)s AND period_end > %(first)s) "
        "SELECT min(period_start), max(period_end), count(*), CASE WHEN count(*) <= %(few)s THEN "
        "(SELECT array_agg(DISTINCT account_id) FROM own) END FROM own",
        span | {"few": FEW},
    ).fetchone()
    if row is None or not row[2]:
        return []
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(
            f"SELECT * FROM ({_MONEY}) AS m WHERE total <> lines OR off_its_lines OR lines + posted <> charged + coalesce(posted_due, at_end) "
            "ORDER BY statement_id".encode(),
            span | {"start": row[0], "stop": row[1], "accounts": row[3]},
        ).fetchall()


def last_billed(connection: Connection) -> date | None:
    """Returns the last billed day."""
    row = connection.execute("SELECT max(billing_day) FROM billing.determinant_day").fetchone()
    return row[0] if row else None


def day_is_billed(connection: Connection, day: date) -> bool:
    """Whether a day is billed."""
    row = connection.execute(
        "SELECT EXISTS (SELECT FROM billing.determinant_day WHERE billing_day = %(d)s) OR "
        "EXISTS (SELECT FROM billing.exception_day WHERE billing_day = %(d)s)",
        {"d": day},
    ).fetchone()
    return bool(row and row[0])


def keep(connection: Connection, row: dict[str, Any]) -> None:
    """Store the law's result of a day, replacing the result before it."""
    connection.execute(
        "INSERT INTO billing.law_day (billing_day, ok, service_points, waiting, open, detail, computed_at) VALUES (%(day)s, %(ok)s, "
        "%(service_points)s, %(waiting)s, %(open)s, %(detail)s, %(at)s) ON CONFLICT (billing_day) DO UPDATE SET ok = excluded.ok, "
        "service_points = excluded.service_points, waiting = excluded.waiting, open = excluded.open, detail = excluded.detail, "
        "computed_at = excluded.computed_at",
        row,
    )


def kept(connection: Connection, first: date, past: date) -> list[tuple[date, bool | None, str]]:
    """Returns the stored result of each billed day of [first, past): day, whether the law held (None: not
    evaluated), and its text."""
    return connection.execute(
        "SELECT d.day, l.ok, coalesce(l.detail, '') FROM (SELECT g::date AS day FROM generate_series(%(f)s::date, %(p)s::date - 1, interval '1 day') AS g "
        "WHERE EXISTS (SELECT FROM billing.determinant_day AS b WHERE b.billing_day = g::date)) AS d LEFT JOIN billing.law_day AS l "
        "ON l.billing_day = d.day ORDER BY 1",
        {"f": first, "p": past},
    ).fetchall()
