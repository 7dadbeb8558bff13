"""Corrections promise: cancel and rebill of what changed and nothing else, two people above the threshold, and a sealed
month that refuses."""

from __future__ import annotations

import csv
import json
import tempfile
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import psycopg
import pytest

from meter_pipeline.billing import bill_billing_day
from meter_pipeline.billing.adjustments import decide, request
from meter_pipeline.billing.bill_run import issue_statements
from meter_pipeline.billing.close import CloseError, approve_close, checklist, request_close
from meter_pipeline.billing.proposals import AdjustmentError, propose
from meter_pipeline.postgres import privileges
from meter_pipeline.postgres.database import Database, scalar
from meter_pipeline_tests.billing.support import (
    CHICAGO,
    CLOCK,
    JULY,
    add_cycle,
    add_service,
    add_tariff,
    days,
    native,
    put_intervals,
)

END = JULY + timedelta(days=3)
STATEMENT = "A-001.C1.20260701.0"


def issued(database: Database) -> str:
    add_tariff(database, native())
    add_cycle(database, JULY, END)
    point = add_service(database, 1)
    for day in days(JULY, 3):
        put_intervals(database, day, {point: [1000] * 24})
        bill_billing_day(database, CHICAGO, day, clock=CLOCK)
    issue_statements(database, CHICAGO, "C1", END, clock=CLOCK)
    return point


def late(database: Database, point: str, kwh: int) -> str | None:
    """A late actual for 1 July; the adjustment that the billing stage proposes by itself."""
    put_intervals(database, JULY, {point: [kwh * 1000] * 24})
    made = bill_billing_day(database, CHICAGO, JULY, clock=CLOCK).adjustments
    return made[0] if made else None


def test_an_export_holds_posted_adjustments_and_its_lines_sum_to_what_is_owed(database: Database) -> None:
    """By period and by posting month; with the currency's decimals and a cancelled line negative."""
    from meter_pipeline.billing.export import write
    from meter_pipeline.billing.tables.statements import month_lines, period_lines

    point = issued(database)
    before = period_lines(database, JULY)
    assert set(before["entry"].to_list()) == {"statement"}
    name = late(database, point, 2)
    after = period_lines(database, JULY)
    added = after.filter(after["entry"] == "adjustment")
    assert set(added["adjustment_id"].to_list()) == {name}
    assert {"cancel", "rebill"} == set(added["action"].to_list())
    owed = database.read(
        "SELECT (SELECT sum(total) FROM billing.statement)::text AS s, (SELECT sum(net) FROM billing.adjustment)::text AS a"
    ).row(0)
    assert sum(Decimal(a) for a in after["amount"].to_list()) == Decimal(owed[0]) + Decimal(owed[1])
    cancelled = added.filter(added["action"] == "cancel")
    assert all(Decimal(q) <= 0 for q in cancelled["quantity"].to_list() if q is not None)
    posted = added["posting_month"][0]
    month = month_lines(database, posted)
    assert month.filter(month["entry"] == "adjustment").equals(added)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "july.csv"
        write(after, path)
        amounts = [row["amount"] for row in csv.DictReader(path.open())]
    assert all(len(amount.split(".")[1]) == 2 for amount in amounts)


def test_nothing_changed_means_nothing_to_adjust(database: Database) -> None:
    issued(database)
    assert propose(database, CHICAGO, STATEMENT).lines.height == 0
    assert request(database, CHICAGO, STATEMENT, reason="late_actual", evidence="none", requested_by="analyst") is None


def test_a_small_correction_touches_only_what_changed_and_is_posted(database: Database) -> None:
    point = issued(database)
    name = late(database, point, 2)
    assert name is not None, "nobody had to ask"
    found = database.read(
        "SELECT action, line_key, amount::text AS amount FROM billing.adjustment_line ORDER BY line_no"
    )
    assert "BASIC" not in found["line_key"].to_list(), "a fixed charge does not move with usage"
    net = sum(Decimal(a) for a in found["amount"].to_list())
    with database.connect() as connection:
        assert (
            scalar(connection, "SELECT (status, net) FROM billing.adjustment WHERE adjustment_id = %s", (name,))
            == ("posted", str(net))
            or net > 0
        )
    assert propose(database, CHICAGO, STATEMENT).lines.height == 0, "the correction is complete"
    assert late(database, point, 2) is None, "the same data again proposes nothing"
    assert late(database, point, 1) is not None
    with database.connect() as connection:
        assert scalar(connection, "SELECT sum(net) FROM billing.adjustment") == 0, "there and back nets to nothing"


def test_a_large_correction_needs_another_person_in_code_and_in_the_table(database: Database) -> None:
    point = issued(database)
    put_intervals(database, JULY, {point: [500_000] * 24})
    name, *_ = bill_billing_day(database, CHICAGO, JULY, clock=CLOCK, actor="Analyst").adjustments
    with pytest.raises(AdjustmentError, match="another person"):
        decide(database, name, approve=True, person=" analyst ")
    for forged in (
        "UPDATE billing.adjustment SET status = 'posted', posted_at = now()",
        "UPDATE billing.adjustment SET decided_by = 'ANALYST'",
        "UPDATE billing.adjustment SET approval_required = false",
    ):
        with database.connect() as connection, pytest.raises(psycopg.errors.CheckViolation):
            connection.execute(forged.encode())
    decide(database, name, approve=True, person="supervisor", clock=CLOCK)
    with database.connect() as connection:
        assert scalar(connection, "SELECT status FROM billing.adjustment") == "posted"
        kinds = connection.execute(
            "SELECT kind FROM ledger.entry WHERE kind LIKE 'adjustment%' ORDER BY entry_id"
        ).fetchall()
    assert [k for (k,) in kinds] == ["adjustment_requested", "adjustment_approved", "adjustment_posted"]


def sealed(database: Database) -> str:
    point = issued(database)
    seal(database)
    return point


def seal(database: Database) -> None:
    month = date(2026, 7, 1)
    with database.connect() as connection:  # the rest of the month has nothing to bill: take its days from the last
        connection.execute(
            "INSERT INTO billing.charge_day SELECT d::date, service_point_id, account_id, tariff_id, tariff_version, cycle_id, period_start, "
            "stretch_start, days, energy_to_date, export_to_date, peaks_to_date, peak_at_to_date, register_days, budget_to_date, carry, history, "
            "array_fill(0::bigint, ARRAY[cardinality(amounts)]), 0 "
            "FROM billing.charge_day, generate_series('2026-07-04'::date, '2026-07-31', interval '1 day') AS d WHERE billing_day = '2026-07-03'"
        )
    request_close(database, month, person="accountant", clock=CLOCK)
    with pytest.raises(CloseError, match="another person"):
        approve_close(database, month, person="Accountant ", clock=CLOCK)
    done = approve_close(database, month, person="controller", clock=CLOCK)
    assert done.control_totals["statements"]["count"] == 1


def test_a_month_with_an_open_point_is_not_sealed(database: Database) -> None:
    issued(database)
    assert [p["point"] for p in checklist(database, date(2026, 7, 1)) if not p["ok"]] == ["every day is billed"]
    request_close(database, date(2026, 7, 1), person="accountant", clock=CLOCK)
    with pytest.raises(CloseError, match="every day is billed"):
        approve_close(database, date(2026, 7, 1), person="controller", clock=CLOCK)


def test_a_sealed_month_refuses_insert_update_delete_and_truncate_from_everyone(database: Database) -> None:
    sealed(database)
    dated = {
        "determinant_day": "billing_day",
        "charge_day": "billing_day",
        "determinant_day_202607": "billing_day",
        "charge_day_202607": "billing_day",
        "statement": "posting_month",
        "statement_line": "posting_month",
        "statement_segment": "posting_month",
    }
    with database.connect() as connection:
        connection.execute("SELECT billing.ensure_partitions('2026-08-01')")
    fresh = json.dumps({"service_point_id": "SP-NEW", "statement_id": "NEW", "revision": 9})
    for table, column in dated.items():
        changes = [
            f"UPDATE billing.{table} SET {column} = {column}",
            f"DELETE FROM billing.{table}",
            f"TRUNCATE billing.{table} CASCADE",
            f"INSERT INTO billing.{table} SELECT (jsonb_populate_record(t, '{fresh}')).* FROM billing.{table} AS t LIMIT 1",
        ]
        if not table.endswith("202607"):
            changes.append(f"UPDATE billing.{table} SET {column} = {column} + 31")
        for change in changes:
            with database.connect() as connection:
                connection.execute(
                    "SET session_replication_role = replica"
                )  # the triggers are ALWAYS: not even this turns them off
                with pytest.raises(psycopg.errors.IntegrityConstraintViolation, match="is sealed"):
                    connection.execute(change.encode())
                connection.rollback()
    for change in (
        "UPDATE billing.period SET status = 'open'",
        "DELETE FROM billing.period",
        "TRUNCATE billing.period",
    ):
        with database.connect() as connection, pytest.raises(psycopg.errors.IntegrityConstraintViolation):
            connection.execute(change.encode())


#: Every table whose rows belong to an accounting month, with what tells a new row from one that is there.
SEALED = {
    "determinant_day": {"service_point_id": "SP-NEW"},
    "determinant_day_202607": {"service_point_id": "SP-NEW"},
    "charge_day": {"service_point_id": "SP-NEW"},
    "charge_day_202607": {"service_point_id": "SP-NEW"},
    "exception_day": {"detail": "new"},
    "statement": {"statement_id": "NEW", "revision": 9},
    "statement_line": {"line_no": 999},
    "statement_segment": {"service_point_id": "SP-NEW"},
    "adjustment": {
        "adjustment_id": "NEW",
        "status": "requested",
        "decided_by": None,
        "decided_at": None,
        "threshold": 46,
    },
    "adjustment_line": {"line_no": 999},
    "adjustment_segment": {"service_point_id": "SP-NEW"},
    "determinant_revision": {"revision": 9},
}


def test_a_sealed_month_refuses_every_role_the_services_use(database: Database) -> None:
    privileges.apply(database)
    point = issued(database)
    assert late(database, point, 2) is not None
    with database.connect() as connection:
        for table in (
            "adjustment",
            "adjustment_line",
            "adjustment_segment",
        ):  # posted by the clock in August: here in July
            connection.execute(f"UPDATE billing.{table} SET posting_month = '2026-07-01'".encode())
        connection.execute(
            "INSERT INTO billing.exception_day VALUES ('2026-07-01', %s, NULL, 'no_usage', 'old')", (point,)
        )
        connection.execute(
            "INSERT INTO billing.determinant_revision SELECT billing_day, service_point_id, 1, '2026-07-01', now(), to_jsonb(d) "
            "FROM billing.determinant_day AS d WHERE billing_day = '2026-07-01' AND service_point_id = %s",
            (point,),
        )
    seal(database)
    manifest = privileges.load()
    with database.connect() as connection:
        guarded = connection.execute(
            "SELECT DISTINCT relname FROM pg_trigger AS t JOIN pg_class AS c ON c.oid = t.tgrelid JOIN pg_proc AS p ON p.oid = t.tgfoid "
            "WHERE proname IN ('refuse_sealed', 'refuse_sealed_month') AND tgenabled = 'A' AND relname <> 'period'"
        ).fetchall()
    # what a seal keeps of unbilled revenue is refused in unbilled/test_month.py: this month leaves none of it
    assert {name for (name,) in guarded} == {*SEALED, "unbilled_month", "unbilled_roll", "journal_line"}
    refused: dict[str, int] = {}
    for role in manifest.roles:
        with database.connect(role=role) as connection:
            for table, fresh in SEALED.items():
                column = (
                    "billing_day"
                    if table.split("_2")[0] in ("determinant_day", "charge_day", "exception_day")
                    else "posting_month"
                )
                for verb, statement in {
                    "INSERT": f"INSERT INTO billing.{table} SELECT (jsonb_populate_record(t, '{json.dumps(fresh)}')).* FROM billing.{table} AS t "
                    f"WHERE {column} < '2026-08-01' LIMIT 1",
                    "UPDATE": f"UPDATE billing.{table} SET {column} = {column}",
                    "DELETE": f"DELETE FROM billing.{table}",
                }.items():
                    allowed = verb in manifest.verbs_for(role, "billing", table.split("_2")[0])
                    # a bill with lines, and an adjustment, are refused by their lines' foreign key before the seal is
                    # asked
                    held = verb == "DELETE" and table in ("statement", "adjustment")
                    sealed_by: type[psycopg.Error] = (
                        psycopg.errors.ForeignKeyViolation if held else psycopg.IntegrityError
                    )
                    # lines of a decided adjustment are refused before the seal is asked
                    words = "still referenced" if held else "is sealed|is decided"
                    wanted, said = (
                        (sealed_by, words) if allowed else (psycopg.errors.InsufficientPrivilege, "permission denied")
                    )
                    with pytest.raises(wanted, match=said), connection.transaction():
                        connection.execute(statement.encode())
                    refused[role] = refused.get(role, 0) + allowed
            for statement in ("UPDATE billing.period SET status = 'open'", "DELETE FROM billing.period"):
                with (
                    pytest.raises((psycopg.errors.IntegrityConstraintViolation, psycopg.errors.InsufficientPrivilege)),
                    connection.transaction(),
                ):
                    connection.execute(statement.encode())
    assert refused["meter_billing"] == refused["meter_owner"] == 36, (
        "the roles that may write at all are refused by the seal, not for want of rights"
    )
    assert refused["meter_finance"] == 4


def test_late_data_for_a_sealed_month_lands_in_the_open_one(database: Database) -> None:
    point = sealed(database)
    before = database.read("SELECT * FROM billing.charge_day ORDER BY 1, 2")
    put_intervals(database, JULY, {point: [2000] * 24})
    outcome = bill_billing_day(database, CHICAGO, JULY, clock=CLOCK)
    assert (outcome.sealed, outcome.revisions) == (True, 1)
    assert bill_billing_day(database, CHICAGO, JULY, clock=CLOCK).revisions == 0
    assert database.read("SELECT * FROM billing.charge_day ORDER BY 1, 2").equals(before)
    assert len(outcome.adjustments) == 1
    found = database.read("SELECT posting_month, net::text AS net FROM billing.adjustment")
    assert found["posting_month"][0] == date(2026, 8, 1)
    assert Decimal(found["net"][0]) > 0


def test_the_test_clock_is_after_the_sealed_month() -> None:
    assert isinstance(CLOCK.now(), datetime)
    assert CLOCK.now().month == 8


def test_small_corrections_do_not_add_up_past_the_threshold(database: Database) -> None:
    point = issued(database)
    for kwh in (8, 15, 22, 29):
        late(database, point, kwh)
    found = database.read("SELECT status, gross::text AS gross FROM billing.adjustment ORDER BY adjustment_id")
    posted = [Decimal(g) for status, g in found.iter_rows() if status == "posted"]
    assert posted
    assert sum(posted) <= Decimal("50.00")
    assert "requested" in found["status"].to_list(), "each alone is small; together they wait for a second person"


def test_a_run_killed_before_it_proposed_leaves_the_change_for_the_next(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    point = issued(database)

    def killed(*_: object, **__: object) -> list[str]:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("meter_pipeline.billing.adjustments.propose_late_changes", killed)
        with pytest.raises(KeyboardInterrupt):
            late(database, point, 2)
    assert [p["point"] for p in checklist(database, date(2026, 7, 1)) if "late change" in p["point"] and not p["ok"]]
    assert bill_billing_day(database, CHICAGO, JULY + timedelta(days=1), clock=CLOCK).adjustments == [STATEMENT + ".A1"]


def test_the_threshold_comes_from_the_setting_and_never_from_who_asks(database: Database) -> None:
    """A threshold in the row, a gross that is too small for the lines, lines added later: the table takes none."""
    point = issued(database)
    put_intervals(database, JULY, {point: [500_000] * 24})
    name, *_ = bill_billing_day(database, CHICAGO, JULY, clock=CLOCK).adjustments
    copy = (
        "INSERT INTO billing.adjustment (adjustment_id, statement_id, account_id, reason, evidence, net, gross, approval_required, threshold, "
        "status, requested_by, requested_at, posting_month) SELECT adjustment_id || 'x', statement_id, account_id, reason, evidence, net, {gross}, "
        "{gross} > {threshold}, {threshold}, '{status}', requested_by, requested_at, posting_month FROM billing.adjustment"
    )
    lines = (
        "INSERT INTO billing.adjustment_line SELECT adjustment_id || 'x', line_no, action, original_line_no, service_point_id, tariff_id, "
        "tariff_version, segment_start, segment_end, line_key, name, component, quantity, unit, amount, posting_month FROM billing.adjustment_line"
    )
    post = "UPDATE billing.adjustment SET status = 'posted', posted_at = now() WHERE adjustment_id LIKE '%x'"
    for forged in (
        [copy.format(gross="gross", threshold="1000000", status="requested")],
        [copy.format(gross="1", threshold="50", status="posted")],
        [copy.format(gross="1", threshold="50", status="requested"), lines, post],
    ):
        with database.connect() as connection, pytest.raises(psycopg.errors.CheckViolation):
            connection.execute(";".join(forged).encode())
    decide(database, name, approve=True, person="supervisor", clock=CLOCK)
    with database.connect() as connection, pytest.raises(psycopg.errors.CheckViolation, match="is decided"):
        connection.execute("UPDATE billing.adjustment_line SET amount = amount + 1")
