"""Shadow mode: the pipeline runs whole beside the legacy batch, and PostgreSQL itself keeps it from touching anything
that counts.

The shadow is a database of its own beside the authoritative one, on the same server, with the same migrations:
NAME_shadow. Every session of a shadow run acts in the role meter_shadow. In the shadow database that role writes every
table; in the authoritative one it reads, and writes the audit tables alone (schema migration, appending to the ledger).
So a stage that forgot which database it is for is refused by the server, not by us. Copies of the tables in schemas of
another name would have meant other SQL in every stage, and the rehearsed code would not be the code that goes live.

The shadow's own ledger entries are not sequenced or signed: what a shadow day came out as is sealed by the comparison's
entry in the authoritative ledger.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import date
from time import perf_counter
from typing import Any, Final

from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.clock import SYSTEM_CLOCK, Clock
from meter_pipeline.migration import tables
from meter_pipeline.postgres import privileges
from meter_pipeline.postgres.database import Database, ensure_database
from meter_pipeline.postgres.migrations import migrate
from meter_pipeline.reference.folder import read_folder
from meter_pipeline.reference.importing import import_rows
from meter_pipeline.reference.tables import read_table
from meter_pipeline.schemas.reference import TABLES
from meter_pipeline.schemas.report import StageReport
from meter_pipeline.settings import Settings

ROLE: Final = "meter_shadow"
SUFFIX: Final = "_shadow"


@dataclass(slots=True)
class ShadowDay:
    """A billing day run in the shadow: each stage's report, and its seconds."""

    billing_day: date
    stages: dict[str, StageReport] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def report(self) -> StageReport:
        """The day for asset metadata: rows by stage, and the stages' own checks by name."""
        checks = [
            replace(check, name=f"{stage}_{check.name}")
            for stage, report in self.stages.items()
            for check in report.checks
        ]
        figures: dict[str, Any] = {f"{stage} rows": report.rows for stage, report in self.stages.items()}
        figures |= {f"{stage} seconds": round(seconds, 2) for stage, seconds in self.seconds.items()}
        return StageReport(rows=self.stages["reconciled_billing"].rows, figures=figures, checks=checks)


def database_of(database: Database) -> Database:
    """The shadow beside a database, every session in the shadow's role."""
    return database.sibling(database.name + SUFFIX).acting_as(ROLE)


def prepare(database: Database) -> Database:
    """Make the shadow, bring it up to date, and grant the role its rights in both; safe to repeat. For the owner of the
    tables.

    Raises MigrationError, and psycopg errors where the log-in may not create a database.
    """
    owner = Database(database.url)
    shadow = ensure_database(owner, database.name + SUFFIX)
    migrate(shadow)
    privileges.apply(owner)
    privileges.apply(shadow, privileges.everything_for(ROLE))
    return database_of(database)


def exists(database: Database) -> bool:
    """Whether the shadow has been made."""
    with database.connect("shadow", autocommit=True) as connection:
        return tables.database_exists(connection, database.name + SUFFIX)


def settings_of(settings: Settings) -> Settings:
    """The same municipality and inbox, with an archive and a staging of the shadow's own. Inbox files are only ever
    read."""
    return replace(settings, home=settings.home / "shadow")


def run_day(
    database: Database,
    calendar: BillingCalendar,
    day: date,
    *,
    settings: Settings,
    clock: Clock = SYSTEM_CLOCK,
    run_id: str | None = None,
) -> ShadowDay:
    """Every stage of a billing day in the shadow of ``database``: reference data, landing, reads, validation, flags,
    billing.

    The stages are the pipeline's own functions; only the database and the folder for files are others. Days must follow
    each other, as amounts build on the day before's.
    """
    from meter_pipeline.anomalies import detect_billing_day
    from meter_pipeline.anomalies.weather import weather_day
    from meter_pipeline.billing import bill_billing_day
    from meter_pipeline.ingest import ingest_billing_day, land_inbox
    from meter_pipeline.vee import validate_billing_day

    shadow, apart = database_of(database), settings_of(settings)
    apart.home.mkdir(parents=True, exist_ok=True)
    done = ShadowDay(day)
    work: dict[str, Callable[[], StageReport]] = {
        "reference_data": lambda: StageReport(rows=_reference(database, shadow, settings)),
        "feed_files": lambda: land_inbox(shadow, calendar, apart, clock=clock, run_id=run_id).report(),
        "raw_reads": lambda: ingest_billing_day(
            shadow, calendar, day, settings=apart, clock=clock, run_id=run_id
        ).report(),
        "validated_intervals": lambda: validate_billing_day(shadow, calendar, day, clock=clock).report(),
        "weather": lambda: weather_day(shadow, day).report(),
        "anomaly_flags": lambda: detect_billing_day(shadow, calendar, day, clock=clock).report(),
        "reconciled_billing": lambda: bill_billing_day(shadow, calendar, day, clock=clock).report(),
    }
    for stage, run in work.items():
        begun = perf_counter()
        done.stages[stage] = run()
        done.seconds[stage] = perf_counter() - begun
    return done


def _reference(database: Database, shadow: Database, settings: Settings) -> int:
    """The municipality's folder, and what people have entered beside it in the authoritative database. How many
    rows.
    """
    rows, documents = read_folder(settings.data / "reference")
    for name, table in TABLES.items():
        columns = list(table.columns)
        places = [columns.index(column) for column in table.key]
        known = {tuple(row[place] for place in places) for row in rows.get(name, [])}
        entered = read_table(database.acting_as(ROLE), name).select(columns).rows()
        rows[name] = [
            *rows.get(name, []),
            *(row for row in entered if tuple(row[place] for place in places) not in known),
        ]
    return sum(import_rows(shadow, rows, documents, str(settings.data / "reference")).values())
