"""The reconciliation checks of a billing day: both sides of each check, read from the tables that hold them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

import polars as pl

from meter_pipeline.billing import reconcile
from meter_pipeline.billing.tables import reconciliation as checks
from meter_pipeline.billing.tables import source_reconciliation as before_billing
from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.postgres.database import Database
from meter_pipeline.postgres.driver import Connection
from meter_pipeline.vee import register_tolerance_on


@dataclass(frozen=True, slots=True)
class SourceRows:
    """What a day's reconciliation checks compare that billing does not write: reads, validated rows, and the positions
    of the day before."""

    files: list[before_billing.Row]
    channel_days: list[before_billing.Row]
    registers: list[before_billing.Row]
    register_usage: list[before_billing.Row]
    usage: pl.DataFrame
    prior_day: pl.DataFrame

    @classmethod
    def read(
        cls, connection: Connection, calendar: BillingCalendar, day: date, points: list[str] | None = None
    ) -> SourceRows:
        """As a connection sees it; of some service points, where they are given: then without the files."""
        return cls(
            before_billing.files(connection, day) if points is None else [],
            before_billing.channel_days(connection, day, points),
            before_billing.registers(
                connection, day, calendar.bounds(day), register_tolerance_on(connection, day), points
            ),
            before_billing.register_usage(connection, day, points),
            checks.validated_usage(connection, day, points),
            checks.stored_charges(connection, day - timedelta(days=1), points, before=True),
        )


def read_source_rows(database: Database, calendar: BillingCalendar, day: date) -> SourceRows:
    """Read beside the stage's own writing, which touches none of it: a second of a hundred thousand services' seven."""
    with database.connect("billing reconciliation") as connection:
        return SourceRows.read(connection, calendar, day, None)


@dataclass(frozen=True, slots=True)
class BilledRows:
    """What billing holds of the day, read back in the transaction that wrote it."""

    determinants: pl.DataFrame
    charges: pl.DataFrame

    @classmethod
    def read(cls, connection: Connection, day: date, points: list[str] | None = None) -> BilledRows:
        """As a connection sees it; of some service points, where they are given."""
        return cls(checks.stored_determinants(connection, day, points), checks.stored_charges(connection, day, points))


def day_checks(
    connection: Connection,
    calendar: BillingCalendar,
    day: date,
    own: BilledRows | None = None,
    source: SourceRows | None = None,
) -> pl.DataFrame:
    """The day's reconciliation checks, each side read from its own table. ``own`` and ``source``: what was read
    already."""
    own, other = own or BilledRows.read(connection, day), source or SourceRows.read(connection, calendar, day)
    determinants, charges, prior_day = own.determinants, own.charges, other.prior_day
    key = ["service_point_id", "account_id", "tariff_id", "stretch_start"]
    alone = charges.filter(pl.col("stretch_start") < day - timedelta(days=1)).join(prior_day, on=key, how="anti")
    excused = checks.excused(connection, day)
    return reconcile.table(
        {
            "file_to_reads": other.files,
            "reads_to_validated": other.channel_days,
            "intervals_to_register": other.registers,
            "registers_to_usage": other.register_usage,
            "validated_to_determinants": reconcile.usage_rows(
                other.usage, determinants, excused, checks.revised(connection, day)
            ),
            "determinants_to_lines": reconcile.charged_rows(
                determinants, charges, prior_day, checks.positions_before(connection, day, alone), excused
            ),
            "lines_to_total": reconcile.line_rows(charges),
        }
    )
