"""``meter-pipeline doctor``: checks of a deployment, each with the next step where it fails."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import typer

from meter_pipeline.cli.output import OUT, PROBLEM, emit, table
from meter_pipeline.postgres import migrations
from meter_pipeline.postgres.database import Database, open_database
from meter_pipeline.postgres.readiness import ServerFacts, migrations_applied, rows_in, server_facts
from meter_pipeline.settings import Settings, SettingsError, automation_on, load_settings

Level = Literal["ok", "note", "problem"]

#: PostgreSQL 15 is the oldest server that the tests run on (Debian 12's own).
OLDEST_SERVER: Final = 15
#: A city of 100,000 meters writes 0.6 GB of reads and results a day.
FREE_GIB: Final = 5
#: A read in the future is refused, so a clock that differs from the server's by more is a fault.
CLOCK_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Check:
    """One check: its object, state and finding, and the next step where something is wrong."""

    what: str
    level: Level
    found: str
    next: str = ""


def doctor(json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False) -> None:
    """Check this deployment: settings, time zone, database and its rights, migrations, inbox, disk, clock, people,
    keys.

    Exit 1 where something must be mended before a day can be billed. Example: meter-pipeline doctor
    """
    checks = list(_all())
    wrong = sum(check.level == "problem" for check in checks)
    document = {
        "ok": not wrong,
        "checks": [{"what": c.what, "level": c.level, "found": c.found, "next": c.next} for c in checks],
    }
    emit(document, json, _show)
    if wrong:
        raise typer.Exit(PROBLEM)


def _all() -> Iterator[Check]:
    try:
        settings = load_settings()
        utility = settings.utility()
        settings.calendar()
    except SettingsError as error:
        yield Check("settings", "problem", str(error), "meter-pipeline init FOLDER, or mend that file")
        return
    yield Check("settings", "ok", f"{utility.name}, {utility.zone}, {utility.currency}")
    yield first_day(utility.first_billing_day, datetime.now(UTC).date())
    yield from folders(settings)
    try:
        database = open_database(settings)
        facts = server_facts(database)
    except Exception as error:  # every driver and the embedded server raise their own kind; all end here as a finding
        yield Check(
            "database", "problem", str(error).strip().split("\n")[0], "check database_url, or start that server"
        )
        return
    yield from server(facts, datetime.now(UTC), embedded=settings.database_url is None)
    yield from contents(database, facts)
    yield automation(automation_on(os.environ))


def first_day(first: date | None, today: date) -> Check:
    """first_billing_day: days before it are not read, validated or billed."""
    if first is None:
        return Check("first billing day", "problem", "not set", 'set first_billing_day = "YYYY-MM-DD" in utility.toml')
    if first > today:
        return Check("first billing day", "note", f"{first}, in the future", "no day can run before it has closed")
    return Check("first billing day", "ok", f"{first}")


def folders(settings: Settings) -> Iterator[Check]:
    """The inbox, the head-ends' folders in it, the home's disk."""
    for name, path in (("home", settings.home), ("inbox", settings.inbox)):
        try:
            path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=path):
                pass
            yield Check(name, "ok", str(path))
        except OSError as error:
            yield Check(name, "problem", str(error), f"let this user write to {path}, or set {name} in utility.toml")
    declared = sorted(path.stem for path in settings.head_ends.glob("*.toml")) if settings.head_ends.is_dir() else []
    if not declared:
        advice = "meter-pipeline feeds guess FILE writes a declaration; docs/new-head-end.md walks through it"
        yield Check("head-ends", "note", f"no declaration in {settings.head_ends}", advice)
    else:
        yield Check("head-ends", "ok", ", ".join(declared))
    free = shutil.disk_usage(_existing(settings.home)).free / 2**30
    level: Level = "ok" if free >= FREE_GIB else "problem"
    yield Check("disk", level, f"{free:.0f} GiB free", "" if level == "ok" else f"free at least {FREE_GIB} GiB")


def server(facts: ServerFacts, now: datetime, *, embedded: bool) -> Iterator[Check]:
    """The server's version, the log-in's rights, the clocks."""
    major = facts.version // 10_000
    if major < OLDEST_SERVER:
        yield Check("database", "problem", f"PostgreSQL {major}", f"use PostgreSQL {OLDEST_SERVER} or later")
    else:
        yield Check(
            "database", "ok", f"PostgreSQL {major}, {'embedded' if embedded else facts.database}, as {facts.login}"
        )
    if not facts.may_create_schemas:
        grant = f'GRANT CREATE ON DATABASE "{facts.database}" TO "{facts.login}";'
        yield Check("rights", "problem", f"{facts.login} may not create schemas", f"an administrator runs: {grant}")
    if facts.missing_roles and not (facts.superuser or facts.may_create_roles):
        listed = ", ".join(facts.missing_roles)
        advice = "an administrator runs what `meter-pipeline database roles --sql` prints"
        yield Check("roles", "problem", f"{facts.login} may not create roles, and these are missing: {listed}", advice)
    else:
        yield Check("roles", "ok", "made by the migrations" if facts.missing_roles else "all there")
    apart = abs((facts.now - now).total_seconds())
    if apart > CLOCK_S:
        yield Check(
            "clock", "problem", f"{apart:.0f} s from the server's", "run a time service (chrony) on both machines"
        )
    else:
        yield Check("clock", "ok", f"{apart:.1f} s from the server's")


def contents(database: Database, facts: ServerFacts) -> Iterator[Check]:
    """Migrations, reference data, the register of people."""
    wanted = migrations.shipped()
    missing = wanted - (migrations_applied(database) if facts.migrated else set())
    if missing:
        yield Check("migrations", "problem", f"{len(missing)} missing", "meter-pipeline database migrate")
        return
    yield Check("migrations", "ok", f"{len(wanted)} applied")
    rows = rows_in(database, ("ref.agreements", "ref.tariffs", "control.person"))
    for table_name, what in (("ref.agreements", "reference data"), ("ref.tariffs", "tariffs")):
        if rows[table_name]:
            yield Check(what, "ok", f"{table_name} has rows")
        else:
            advice = "meter-pipeline reference import FOLDER; docs/reference-tables.md has every column"
            yield Check(what, "problem", f"{table_name} is empty", advice)
    if rows["control.person"]:
        yield Check("people", "ok", "the register names people")
    else:
        advice = "meter-pipeline people put NAME --duty finance; until then any two names may decide"
        yield Check("people", "note", "the register of people is empty", advice)


def automation(on: bool) -> Check:
    """Whether the days run by themselves."""
    if on:
        return Check("automation", "ok", "schedules and sensors start switched on")
    advice = 'set automation = "on" in utility.toml, or switch them on under Automation in the Dagster UI'
    return Check("automation", "note", "schedules and sensors start switched off: no day runs by itself", advice)


def _existing(path: Path) -> Path:
    return next(p for p in (path, *path.parents) if p.exists())


def _show(document: dict[str, Any]) -> None:
    signs = {"ok": "ok", "note": "note", "problem": "PROBLEM"}
    rows = [[signs[c["level"]], c["what"], c["found"], c["next"]] for c in document["checks"]]
    OUT.print(table(None, ["", "what", "found", "next"], rows))
