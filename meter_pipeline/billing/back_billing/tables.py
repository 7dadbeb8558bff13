"""SQL of back-billing: rules, attributes of bills that rules ask for, and amounts of earlier corrections."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import Any

import psycopg
from psycopg.rows import dict_row

from meter_pipeline.billing.back_billing.rules import INTEREST_KEY, Key, Rule, Standing, rules_of
from meter_pipeline.postgres.database import scalar

Connection = psycopg.Connection[Any]


def rules(connection: Connection) -> list[Rule]:
    """All rules."""
    names = ", ".join(Rule.__dataclass_fields__)
    with connection.cursor(row_factory=dict_row) as cursor:
        return rules_of(
            cursor.execute(
                f"SELECT {names} FROM ref.back_billing_rules ORDER BY commodity, customer_class, valid_from".encode()
            ).fetchall()
        )


def bill(connection: Connection, statement_id: str) -> tuple[str, datetime]:
    """Customer class of a statement's account on the last day of its period (empty where the account was taken out
    since), and when it was issued (UTC)."""
    row = connection.execute(
        "SELECT coalesce(v.customer_class, a.customer_class, ''), s.issued_at FROM billing.statement AS s LEFT JOIN ref.accounts AS a "
        "USING (account_id) LEFT JOIN ref.account_values AS v ON v.account_id = a.account_id AND v.valid_from < s.period_end "
        "AND (v.valid_to IS NULL OR v.valid_to >= s.period_end) WHERE statement_id = %s",
        (statement_id,),
    ).fetchone()
    assert row is not None  # noqa: S101 - a statement that is being corrected
    return str(row[0]), row[1]


def commodities(connection: Connection, tariffs: Sequence[tuple[str, int]]) -> dict[tuple[str, int], str]:
    """Commodity of some versions of tariffs."""
    rows = connection.execute(
        "SELECT tariff_id, version, commodity FROM billing.tariff_version WHERE tariff_id = ANY(%s)",
        ([name for name, _ in tariffs],),
    ).fetchall()
    return {(name, version): commodity for name, version, commodity in rows}


def standing(connection: Connection, statement_id: str) -> dict[str, Standing]:
    """Returns by service point the amount of a statement's posted corrections under the policy."""
    sums = connection.execute(
        "SELECT b.service_point_id, (sum(b.full_amount) * 1000000)::bigint, (sum(b.waived) * 1000000)::bigint, (sum(b.interest) * 1000000)::bigint "
        "FROM billing.back_billing AS b JOIN billing.adjustment AS a USING (adjustment_id) WHERE a.statement_id = %s AND a.status = 'posted' GROUP BY 1",
        (statement_id,),
    ).fetchall()
    lines: dict[str, dict[Key, int]] = {}
    for point, tariff, version, start, end, key, amount in connection.execute(
        "SELECT l.service_point_id, l.tariff_id, l.tariff_version, l.segment_start, l.segment_end, l.line_key, (sum(l.amount) * 1000000)::bigint "
        "FROM billing.adjustment_line AS l JOIN billing.adjustment AS a USING (adjustment_id) WHERE a.statement_id = %s AND a.reason = 'policy' "
        "AND a.status = 'posted' AND l.line_key <> %s GROUP BY 1, 2, 3, 4, 5, 6 HAVING sum(l.amount) <> 0 ORDER BY 1, 4, 6",
        (statement_id, INTEREST_KEY),
    ):
        lines.setdefault(point, {})[point, tariff, version, start, end, key] = int(amount)
    return {point: Standing(int(f), int(w), int(i), lines.get(point, {})) for point, f, w, i in sums}


def of_adjustments(connection: Connection, adjustment_ids: Sequence[str]) -> list[dict[str, Any]]:
    """Returns the rules' results for some corrections, or for those that some policy adjustments go with."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(
            "SELECT b.*, r.source, s.currency FROM billing.back_billing AS b JOIN billing.adjustment AS a USING (adjustment_id) "
            "JOIN billing.statement AS s USING (statement_id) LEFT JOIN ref.back_billing_rules AS r ON r.commodity = b.rule_commodity "
            "AND r.customer_class = b.rule_class AND r.valid_from = b.rule_from "
            "WHERE b.adjustment_id = ANY(%(ids)s) OR b.policy_adjustment = ANY(%(ids)s) ORDER BY b.adjustment_id, b.service_point_id",
            {"ids": list(adjustment_ids)},
        ).fetchall()


def of_points(connection: Connection, service_points: Sequence[str], first: date) -> list[dict[str, Any]]:
    """Returns the rules' results for posted and waiting corrections of some service points' bills from a day on."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(
            "SELECT b.*, a.account_id FROM billing.back_billing AS b JOIN billing.adjustment AS a USING (adjustment_id) "
            "JOIN billing.statement AS s USING (statement_id) WHERE b.service_point_id = ANY(%s) AND s.period_end > %s "
            "AND a.status IN ('requested', 'approved', 'posted') ORDER BY b.adjustment_id, b.service_point_id",
            (list(service_points), first),
        ).fetchall()


def corrected_on(connection: Connection, statement_id: str) -> date | None:
    """The day of the correction of reference data that moved a statement's days, where one did and its adjustment is
    not worked out yet."""
    found = scalar(
        connection, "SELECT max(corrected_on) FROM billing.late_change WHERE statement_id = %s", (statement_id,)
    )
    return found if isinstance(found, date) else None


def last_correction(connection: Connection, adjustment_ids: Sequence[str]) -> date | None:
    """The latest day of a correction of reference data that some adjustments stand under."""
    found = scalar(
        connection,
        "SELECT max(b.corrected_on) FROM billing.back_billing AS b JOIN billing.adjustment AS a USING (adjustment_id) "
        "WHERE b.adjustment_id = ANY(%s) AND a.reason = 'reference'",
        (list(adjustment_ids),),
    )
    return found if isinstance(found, date) else None


def with_policy(connection: Connection, standing: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Adjustments that wait and who asked for them, each with the policy adjustment that goes with it."""
    named = [name for name, _ in standing]
    found = connection.execute(
        "SELECT DISTINCT b.policy_adjustment, p.requested_by FROM billing.back_billing AS b JOIN billing.adjustment AS p "
        "ON p.adjustment_id = b.policy_adjustment WHERE b.adjustment_id = ANY(%s) AND p.status = 'requested' ORDER BY 1",
        (named,),
    ).fetchall()
    return [*standing, *((str(name), str(by)) for name, by in found)] if named else []


def status(connection: Connection, adjustment_id: str) -> str:
    """Where an adjustment stands."""
    return str(scalar(connection, "SELECT status FROM billing.adjustment WHERE adjustment_id = %s", (adjustment_id,)))


def partner(connection: Connection, adjustment_id: str) -> str | None:
    """The policy adjustment that goes with a correction, or None."""
    found = scalar(
        connection,
        "SELECT max(policy_adjustment) FROM billing.back_billing WHERE adjustment_id = %s",
        (adjustment_id,),
    )
    return None if found is None else str(found)


def correction_of(connection: Connection, adjustment_id: str) -> str | None:
    """The correction that a policy adjustment goes with, or None where it is none."""
    found = scalar(
        connection,
        "SELECT max(adjustment_id) FROM billing.back_billing WHERE policy_adjustment = %s",
        (adjustment_id,),
    )
    return None if found is None else str(found)


def note_corrections(connection: Connection, day: date, at: datetime) -> None:
    """Say of bills that a day has just moved which correction of reference data did, and take the day off the
    corrections that asked for it. A day that is not validated again yet stays on them."""
    waiting = (
        "FROM vee.corrected_day AS c WHERE c.billing_day = %(d)s AND c.billed_at IS NULL AND NOT EXISTS (SELECT FROM vee.true_up AS t "
        "WHERE t.billing_day = c.billing_day AND t.evidence = c.evidence AND t.done_at IS NULL)"
    )
    values = {"d": day, "at": at}
    found = connection.execute(
        f"SELECT c.evidence, c.corrected_on {waiting} ORDER BY c.corrected_on".encode(), values
    ).fetchall()
    if not found:
        return  # every ordinary day
    # One at a time, the last one wins. IS TRUE keeps the server from joining: of the service points that it unnests it
    # expects ten, and compared each bill of a tariff of 20,000 accounts with each of them, minutes a day.
    for evidence, corrected_on in found:
        connection.execute(
            "UPDATE billing.late_change SET corrected_on = %(on)s WHERE billing_day = %(d)s AND (service_point_id IN ("
            "SELECT unnest(service_points) FROM vee.corrected_day WHERE billing_day = %(d)s AND evidence = %(e)s)) IS TRUE",
            {"on": corrected_on, "d": day, "e": evidence},
        )
    connection.execute(
        f"UPDATE vee.corrected_day SET billed_at = %(at)s WHERE billing_day = %(d)s AND evidence IN (SELECT c.evidence {waiting})".encode(),
        values,
    )


def corrected_points(connection: Connection, day: date) -> list[str]:
    """Service points of which a correction of reference data asked for a day that was not billed again yet, sorted."""
    found = connection.execute(
        "SELECT DISTINCT unnest(service_points) FROM vee.corrected_day WHERE billing_day = %s AND billed_at IS NULL ORDER BY 1",
        (day,),
    )
    return [str(point) for (point,) in found.fetchall()]


def note_following(connection: Connection, statement_id: str, at: datetime) -> None:
    """Bills that were put on the list at an instant because of a correction of another stand under that correction."""
    connection.execute(
        "UPDATE billing.late_change AS l SET corrected_on = b.corrected_on FROM (SELECT max(b.corrected_on) AS corrected_on "
        "FROM billing.back_billing AS b JOIN billing.adjustment AS a USING (adjustment_id) WHERE a.statement_id = %s AND a.posted_at = %s) AS b "
        "WHERE l.noticed_at = %s AND l.corrected_on IS NULL AND b.corrected_on IS NOT NULL",
        (statement_id, at, at),
    )
