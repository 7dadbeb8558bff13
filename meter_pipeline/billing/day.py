"""The billing of a day, from what validation left to committed, reconciled charges.

Belongs here: reading in bulk, calling the pure functions in order, writing in one transaction with the ledger, and carrying a late change
forward through the days already billed. Does not belong here: arithmetic, SQL.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any, Final

import numpy as np
import polars as pl

from meter_pipeline.billing import reconcile
from meter_pipeline.billing.accrual import CHARGE_SCHEMA, DETERMINANT_SCHEMA, DayCharges, accrue, matrix
from meter_pipeline.billing.bind import EXCEPTION_SCHEMA, Bound, Reference, bind
from meter_pipeline.billing.determinants import DayDeterminants, blank_group, day_determinants
from meter_pipeline.billing.tariffs import Tariff
from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.clock import SYSTEM_CLOCK, Clock
from meter_pipeline.control.gate import before_writing
from meter_pipeline.ledger import entries as ledger
from meter_pipeline.schemas.report import StageReport
from meter_pipeline.store import billing as store
from meter_pipeline.store import billing_adjustments as late
from meter_pipeline.store import billing_joints as joints
from meter_pipeline.store.database import Database
from meter_pipeline.store.validated import reading

KEY: Final = ("billing_day", "service_point_id")
#: Days in a row of nothing but estimates that are reported. A lost message is mended by the next collection within two days; the third says that
#: somebody has to look. Our figure: rules for utilities limit estimated bills (commonly two in a row), which is months later.
STREAK_DAYS: Final = 3


@dataclass(slots=True)
class BillingOutcome:
    """What billing a day made of it. Money in millionths of the currency.

    ``changed``: service points written; ``carried``: later days whose charges moved with it; ``sealed``: the day's month is sealed, so that
    differences went to billing.determinant_revision. ``reconciliation``: the day's joints. ``exceptions``: reason -> services. ``streaks``:
    services that have been nothing but estimates for STREAK_DAYS or more. ``adjustments``: proposed because the day moved under statements
    that were issued (``statements_touched``).
    """

    billing_day: date
    services: int = 0
    charged: int = 0
    total: int = 0
    currency: str = ""
    changed: int = 0
    carried: dict[date, int] = field(default_factory=dict)
    sealed: bool = False
    revisions: int = 0
    statements_touched: int = 0
    adjustments: list[str] = field(default_factory=list)
    estimated_services: int = 0
    exceptions: dict[str, int] = field(default_factory=dict)
    by_component: dict[str, int] = field(default_factory=dict)
    by_period: pl.DataFrame = field(default_factory=pl.DataFrame)
    reconciliation: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=reconcile.SCHEMA))
    exception_rows: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=EXCEPTION_SCHEMA))
    streaks: pl.DataFrame = field(default_factory=pl.DataFrame)
    seconds: dict[str, float] = field(default_factory=dict)
    ledger_entry: int | None = None

    def report(self) -> StageReport:
        """The day for asset metadata."""
        from meter_pipeline.billing.reporting import stage_report

        return stage_report(self)


def load_reference(database: Database, day: date) -> Reference:
    """Everything billing knows about who pays for what, up to a day."""
    frames = store.read_reference(database, day)
    documents, hashes = store.read_documents(database)
    return Reference(
        frames["agreements"], frames["tariffs"], frames["billing_cycles"], frames["accounts"], frames["service_attributes"],
        store.read_holidays(database), documents, hashes, store.read_frozen(database),
    )  # fmt: skip


def bill_billing_day(
    database: Database, calendar: BillingCalendar, day: date, *, clock: Clock = SYSTEM_CLOCK, actor: str = "billing"
) -> BillingOutcome:
    """Determinants, charges, exceptions and reconciliation of a billing day; idempotent, byte for byte.

    Reads vee.interval_day, vee.daily_usage, reference data and the position before the day; writes billing.determinant_day, charge_day,
    exception_day and reconciliation and a ledger entry in one transaction. A day that was billed before is compared row by row and only
    what changed is written; charges of later days that stand on it are brought forward, and adjustments of statements already issued from
    it are proposed. Raises psycopg errors, and
    control.gate.Held where a pause is raised before it writes.
    """
    outcome = BillingOutcome(day)
    begun = time.perf_counter()

    def watch(step: str) -> None:
        nonlocal begun
        now = time.perf_counter()
        outcome.seconds[step], begun = round(now - begun, 3), now

    with (
        reading(database) as session, reading(database) as beside, database.connect("billing") as connection,
        ThreadPoolExecutor(1, "billing-read") as reader, ThreadPoolExecutor(1, "billing-hash") as hasher,
    ):  # fmt: skip
        database = session
        store.ensure_day(connection, day)
        connection.commit()
        store.lock(connection)
        # what needs nothing of billing's own comes over a second connection, meanwhile
        intervals = reader.submit(store.read_usage, beside, day)
        reference = load_reference(database, day)
        bound = bind(reference, day)
        daily = store.read_daily(database, day)
        prior = store.read_prior(database, day, CHARGE_SCHEMA.names(), bound.services)
        usage = intervals.result()
        watch("read")
        only = daily.filter(pl.col("source") == "register").drop("source")
        determinants = day_determinants(bound, calendar, day, usage, only, reference.holidays)
        watch("determinants")
        result = accrue(determinants, prior, calendar)
        watch("charges")
        leaves = hasher.submit(charge_hashes, result.charges)
        before_writing(database, clock=clock)
        _freeze(connection, bound.tariffs, reference, clock, actor)
        outcome.sealed = store.sealed(connection, day)
        if outcome.sealed:
            revised = _keep_revisions(connection, database, result, day, clock)
            outcome.revisions = len(revised)
            outcome.statements_touched = late.note_late_changes(connection, day, revised, clock.now())
            stored = store.read_day(database, "charge_day", day, CHARGE_SCHEMA.names())
            result = replace(result, charges=stored)
        else:
            changed = _write(connection, result, day)
            outcome.changed = len(changed)
            if changed:
                outcome.statements_touched = late.note_late_changes(connection, day, changed, clock.now())
                outcome.ledger_entry = _record(connection, result, changed, day, clock, actor, leaves.result())
                outcome.carried = _carry_forward(connection, database, calendar, result.charges, changed, day, clock, actor)
        watch("write")
        currency = next((t.currency for t in bound.tariffs.values()), "USD")
        start, past = calendar.bounds(day)
        table = reconcile.table({
            "file_to_reads": joints.files(connection, day), "reads_to_validated": joints.channel_days(connection, day),
            "intervals_to_register": joints.registers(connection, day, start, past), "validated_to_determinants": joints.usage(connection, day),
            "determinants_to_lines": joints.charged(connection, day), "lines_to_total": joints.line_sums(connection, day),
        })  # fmt: skip
        outcome.streaks = joints.estimate_streaks(connection, day, STREAK_DAYS)
        joints.index_leaves(connection, day)
        if joints.replace(connection, day, table, list(reconcile.DAY_JOINTS)):
            open_rows = table.filter(pl.col("cause") == "open").height
            ledger.append(connection, "reconciled", {"billing_day": day, "joints": table.height, "open": open_rows}, clock=clock, actor=actor)
        watch("reconcile")
    _summarise(outcome, result, table, bound.tariffs, currency)
    if late.waiting(database):
        from meter_pipeline.billing.adjustments import propose_late_changes

        before_writing(database, clock=clock)
        outcome.adjustments = propose_late_changes(database, calendar, clock=clock, actor=actor)
        watch("adjustments")
    return outcome


def _write(connection: Any, result: DayCharges, day: date) -> list[str]:
    """The day's rows; returns the service points whose determinants or charges changed."""
    changed = set(store.bring_to(connection, "determinant_day", day, result.determinants, KEY))
    changed |= set(store.bring_to(connection, "charge_day", day, result.charges, KEY))
    faults = result.exceptions.select(pl.lit(day).alias("billing_day"), *EXCEPTION_SCHEMA.names())
    store.bring_to(connection, "exception_day", day, faults, (*KEY, "reason", "detail"))
    return sorted(changed)


def _freeze(connection: Any, tariffs: Mapping[tuple[str, int], Tariff], reference: Reference, clock: Clock, actor: str) -> None:
    """Tariff versions on their first use: from now on their documents may not change."""
    for (tariff_id, version), tariff in sorted(tariffs.items()):
        if (tariff_id, version) in reference.frozen:
            continue
        rule = tariff.rounding
        row = {
            "tariff_id": tariff_id, "version": version, "document_sha256": reference.hashes[tariff_id, version], "source": tariff.source,
            "name": tariff.name, "commodity": tariff.commodity, "currency": tariff.currency, "unit": tariff.unit,
            "periods": list(tariff.schedule.periods), "registers": [r.name for r in tariff.registers],
            "line_keys": [line.key for line in tariff.lines], "line_names": [line.name for line in tariff.lines],
            "line_components": [line.component for line in tariff.lines], "day_keys": list(tariff.day_keys),
            "day_components": [next(line.component for line in tariff.lines if line.day_key == key) for key in tariff.day_keys],
            "rounding": f"{2 if rule.places is None else rule.places} {rule.mode}",
        }  # fmt: skip
        if store.write_tariff(connection, row, clock.now()):
            body = {"tariff_id": tariff_id, "version": version, "sha256": row["document_sha256"]}
            ledger.append(connection, "tariff_version", body, clock=clock, actor=actor)


def charge_hashes(charges: pl.DataFrame) -> list[bytes]:
    """SHA-256 of each charge row's canonical text: the leaf that proves a day's charge.

    ``mp-charge/1`` and the columns day, service point, account, tariff, version, days, energy, peaks and amounts, by unit separators;
    whole numbers in decimal, lists joined by commas.
    """
    joined = charges.select(
        pl.concat_str(
            [
                pl.lit("mp-charge/1"), pl.col("billing_day").cast(pl.String), "service_point_id", "account_id", "tariff_id",
                pl.col("tariff_version").cast(pl.String), pl.col("days").cast(pl.String),
                *(pl.col(c).cast(pl.List(pl.String)).list.join(",") for c in ("energy_to_date", "peaks_to_date", "amounts")),
            ],
            separator="\x1f",
        )
    ).to_series()  # fmt: skip
    return [hashlib.sha256(text.encode()).digest() for text in joined.to_list()]


def _record(
    connection: Any, result: DayCharges, changed: Sequence[str], day: date, clock: Clock, actor: str, hashes: list[bytes] | None = None
) -> int:
    """One ledger entry for what was written; leaves are the written charge rows (``hashes``: those of all of them, where they are at hand)."""
    charges = result.charges
    if len(changed) < charges.height:
        charges, hashes = charges.filter(pl.col("service_point_id").is_in(changed)), None
    body = {"billing_day": day, "services": charges.height, "total_micro": int(charges["total"].sum() or 0), "changed": len(changed)}
    return ledger.append(connection, "billed", body, (charge_hashes(charges) if hashes is None else hashes) or None, clock=clock, actor=actor)


def _keep_revisions(connection: Any, database: Database, result: DayCharges, day: date, clock: Clock) -> list[str]:
    """What a sealed day's determinants would be now, beside the sealed rows."""
    stored = store.read_day(database, "determinant_day", day, DETERMINANT_SCHEMA.names()).cast(DETERMINANT_SCHEMA)
    differs = result.determinants.join(stored, on=DETERMINANT_SCHEMA.names(), how="anti", nulls_equal=True)
    rows = [json.dumps(row, default=str, sort_keys=True) for row in differs.to_dicts()]
    month = store.open_month(connection, day)
    return store.next_revision(connection, day, differs["service_point_id"].to_list(), rows, month, clock.now())


def groups_of(bound: Bound, frame: pl.DataFrame, day: date, calendar: BillingCalendar) -> DayDeterminants:
    """Stored determinants of some services as the day's groups again."""
    services = bound.services.join(frame.select("service_point_id"), on="service_point_id", how="semi").sort("service_point_id")
    rows = services.join(frame.drop("account_id", "tariff_id", "tariff_version", "stretch_start", strict=False), on="service_point_id", how="left")
    groups = []
    for (tariff_id, version), part in sorted(
        services.with_row_index("at").group_by("tariff_id", "tariff_version"), key=lambda item: str(item[0])
    ):
        tariff = bound.tariffs[str(tariff_id), int(str(version))]
        at = np.sort(part["at"].to_numpy().astype(np.int64))
        held = rows[at.tolist()]
        group = blank_group(str(tariff_id), int(str(version)), tariff, at)
        periods, registers = len(tariff.schedule.periods), len(tariff.registers)
        group.energy, group.export = matrix(held["energy"], periods), matrix(held["export"], periods)
        group.peaks = matrix(held["peaks"], registers)
        group.interval_minutes = held["interval_minutes"].to_numpy()
        step = np.maximum(group.interval_minutes.astype(np.int64), 1)[:, None] * 60
        began = matrix(held["peak_at"], registers)
        group.peak_slots = np.where(began > 0, (began - calendar.start_s(day)) // step, -1).astype(np.int16)
        groups.append(group)
    return DayDeterminants(day, services, groups)


def _carry_forward(
    connection: Any, database: Database, calendar: BillingCalendar, charges: pl.DataFrame, changed: Sequence[str],
    day: date, clock: Clock, actor: str,
) -> dict[date, int]:  # fmt: skip
    """Charges of later billed days in the same stretches, now that the position before them moved. Sealed days stay as they are."""
    carried: dict[date, int] = {}
    moved, position = list(changed), charges
    for later in store.later_days(connection, day):
        if not moved:
            break
        if store.sealed(connection, later):
            continue
        bound = bind(load_reference(database, later), later)
        stretches = bound.services.filter(pl.col("service_point_id").is_in(moved) & (pl.col("stretch_start") <= day))
        moved = stretches["service_point_id"].to_list()
        if not moved:
            break
        held = store.read_day(database, "determinant_day", later, DETERMINANT_SCHEMA.names(), moved).cast(DETERMINANT_SCHEMA)
        again = accrue(groups_of(bound, held, later, calendar), position.filter(pl.col("service_point_id").is_in(moved)), calendar)
        touched = again.charges["service_point_id"].to_list()
        written = store.bring_to(connection, "charge_day", later, again.charges, KEY, only=touched)
        if written:
            carried[later] = len(written)
            _record(connection, again, written, later, clock, actor)
        position = pl.concat([position.filter(~pl.col("service_point_id").is_in(touched)), again.charges])
        moved = written
    return carried


def _summarise(outcome: BillingOutcome, result: DayCharges, table: pl.DataFrame, tariffs: Mapping[tuple[str, int], Tariff], currency: str) -> None:
    outcome.services, outcome.charged = result.determinants.height, result.charges.height
    outcome.total, outcome.currency = int(result.charges["total"].sum() or 0), currency
    outcome.estimated_services = result.determinants.filter(pl.col("estimated") > 0).height
    outcome.exceptions = dict(result.exceptions.group_by("reason").len().sort("reason").iter_rows())
    outcome.exception_rows, outcome.reconciliation = result.exceptions, table
    used: list[dict[str, Any]] = []
    for (tariff_id, version), tariff in sorted(tariffs.items()):
        held = (pl.col("tariff_id") == tariff_id) & (pl.col("tariff_version") == version)
        amounts = matrix(result.charges.filter(held)["amounts"], len(tariff.day_keys)).sum(axis=0)
        component = {line.day_key: line.component for line in tariff.lines}
        for key, amount in zip(tariff.day_keys, amounts, strict=True):
            outcome.by_component[component[key]] = outcome.by_component.get(component[key], 0) + int(amount)
        energy = matrix(result.determinants.filter(held)["energy"], len(tariff.schedule.periods)).sum(axis=0)
        used += [
            {"tariff": tariff_id, "period": p, "unit": tariff.unit, "quantity": int(q)}
            for p, q in zip(tariff.schedule.periods, energy, strict=True)
        ]
    outcome.by_period = pl.DataFrame(used, schema={"tariff": pl.String, "period": pl.String, "unit": pl.String, "quantity": pl.Int64})
