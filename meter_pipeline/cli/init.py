"""``meter-pipeline init``: a deployment's folder, outside the code."""

from __future__ import annotations

import re
import shutil
from datetime import date
from pathlib import Path
from typing import Annotated, NoReturn
from urllib.parse import urlsplit

import typer

from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.cli.output import OUT, emit, problem
from meter_pipeline.packaged import packaged
from meter_pipeline.schemas.reference import TABLES
from meter_pipeline.settings import DEFAULT_LOCALE, SETTINGS

_COMMODITIES = ("electricity", "water", "gas")

_IGNORE = """\
# Written by runs, and files with secrets.
.meter_pipeline/
.env
"""

_README = """\
# {name}

The deployment of meter_pipeline for {name}. The program is a package beside it: `pip install --upgrade meter-pipeline`
upgrades it, and nothing in this folder changes.

| File or folder | What it holds |
| --- | --- |
| `utility.toml` | name, time zone, currency, first billing day, and settings (`meter-pipeline settings` shows all) |
| `reference/` | who is metered by what, on which tariff: one CSV a table, `meter-pipeline reference import reference` |
| `tariffs/` | tariff documents, `meter-pipeline tariffs check FILE` |
| `head_ends/` | one declaration a head-end, `meter-pipeline feeds inspect FILE --head-end NAME` |
| `inbox/` | where feed files arrive, one folder a head-end |
| `mapping/` | how exports of the customer system become reference tables |
| `.env` | secrets: copy `.env.example`, never commit it |

Next, in this folder:

```sh
meter-pipeline database migrate            # makes the tables
meter-pipeline reference import reference  # who is metered by what
meter-pipeline run --day {day}       # the first billing day
meter-pipeline services up                 # the UI, the schedule and the sensors
```
"""


def init(
    folder: Annotated[Path, typer.Argument(help="Folder to make. It must not hold a utility.toml yet.")],
    name: Annotated[str | None, typer.Option(help="The utility's name, as bills show it.")] = None,
    zone: Annotated[str | None, typer.Option(help="IANA time zone of its billing days: America/Chicago.")] = None,
    currency: Annotated[str | None, typer.Option(help="ISO 4217 currency: USD.")] = None,
    commodities: Annotated[str, typer.Option(help="Which of electricity, water, gas, separated by commas.")] = "",
    first_billing_day: Annotated[str | None, typer.Option(help="First day that is billed: 2026-12-01.")] = None,
    database: Annotated[str, typer.Option(help="postgresql://USER@HOST/DATABASE; empty: embedded server.")] = "",
    demo: Annotated[bool, typer.Option("--demo", help="Write the demo city and its data instead.")] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Make a deployment: a folder with utility.toml, reference tables, tariffs and head-end declarations.

    What is not given as an option is asked for. Example: meter-pipeline init springfield --name Springfield
    --zone America/Chicago --currency USD --commodities electricity,water --first-billing-day 2026-12-01
    """
    if (folder / "utility.toml").exists():
        problem(f"{folder / 'utility.toml'} exists", "give another folder, or edit that file")
    _database(database)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        problem(f"{folder} cannot be made: {error.strerror}", "give a folder that you may write to")
    if demo:
        make_demo(folder)
    else:
        name = name or typer.prompt("Name of the utility")
        zone = _zone(zone or typer.prompt("Time zone", default="America/Chicago"))
        currency = _currency(currency or typer.prompt("Currency", default="USD"))
        kinds = _kinds(commodities or typer.prompt("Commodities", default="electricity,water"))
        first = _day(first_billing_day or typer.prompt("First billing day"))
        _write(folder, _utility(name, zone, currency, kinds, first, database))
        (folder / "README.md").write_text(_README.format(name=name, day=first.isoformat()), "utf-8")
        _surround(folder)
    paths = sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
    emit({"deployment": folder.resolve(), "files": paths}, json, lambda _: _next(folder))


def make_demo(folder: Path) -> None:
    """Write the demo city's deployment: its reference data, tariffs and head-ends, and an empty inbox."""
    shutil.copytree(packaged("data"), folder, dirs_exist_ok=True)
    utility = folder / "utility.toml"
    utility.write_text(utility.read_text("utf-8") + '\n[settings]\nautomation = "off"\n', "utf-8")
    _surround(folder)


def _surround(folder: Path) -> None:
    for part in ("reference", "tariffs", "head_ends", "inbox", "mapping"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    (folder / ".gitignore").write_text(_IGNORE, "utf-8")
    (folder / ".env.example").write_text(_environment(), "utf-8")


def _write(folder: Path, utility: str) -> None:
    (folder / "reference").mkdir(parents=True, exist_ok=True)
    (folder / "utility.toml").write_text(utility, "utf-8")
    for name, table in TABLES.items():
        (folder / "reference" / f"{name}.csv").write_text(",".join(table.columns) + "\n", "utf-8")


def _utility(name: str, zone: str, currency: str, kinds: list[str], first: date, database: str) -> str:
    lines = [
        f"name = {_quoted(name)}",
        f'zone = "{zone}"  # every billing day is a civil day in this zone: 23, 24 or 25 hours',
        f'currency = "{currency}"',
        f'locale = "{DEFAULT_LOCALE}"  # how pages write dates and numbers: en_US, en_AU, de_DE ...',
        f"commodities = [{', '.join(_quoted(kind) for kind in kinds)}]",
        f'first_billing_day = "{first.isoformat()}"  # days before it are not billed',
        "",
        "[settings]",
        "# Each setting of `meter-pipeline settings` may stand here; the environment (METER_PIPELINE_NAME) wins.",
    ]
    lines.append(
        f"database_url = {_quoted(database)}" if database else '# database_url = "postgresql://USER@HOST/NAME"'
    )
    return "\n".join(lines) + "\n"


def _environment() -> str:
    rows = ["# Secrets of the deployment: copy to .env, fill in, and let systemd or the shell read it."]
    rows += [f"# {s.variable}=    {s.meaning}" for s in SETTINGS if s.secret]
    return "\n".join(rows) + "\n"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _zone(text: str) -> str:
    try:
        return BillingCalendar(text).zone
    except ValueError as error:
        _usage(f"--zone: {error}")


def _currency(text: str) -> str:
    if not re.fullmatch(r"[A-Z]{3}", text):
        _usage(f"--currency: {text!r} is not an ISO 4217 code such as USD")
    return text


def _kinds(text: str) -> list[str]:
    kinds = [kind.strip() for kind in text.split(",") if kind.strip()]
    if unknown := [kind for kind in kinds if kind not in _COMMODITIES]:
        _usage(f"--commodities: {unknown[0]!r} is not one of {', '.join(_COMMODITIES)}")
    return kinds


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        _usage(f"--first-billing-day: {text!r} is not a date like 2026-12-01")


def _database(url: str) -> None:
    """A URL of PostgreSQL without a password: utility.toml is committed, and a password in it would be too."""
    if not url:
        return
    parts = urlsplit(url)
    if parts.scheme not in ("postgresql", "postgres"):
        _usage(f"--database: {url.partition(':')[0]!r} is not a database of ours: postgresql://USER@HOST/DATABASE")
    if parts.password:
        _usage("--database: leave the password out; it belongs in PGPASSWORD or in a password file")


def _usage(message: str) -> NoReturn:
    raise typer.BadParameter(message)


def _next(folder: Path) -> None:
    OUT.print(f"Made {folder}.", highlight=False)
    OUT.print(f"[bold]Next:[/] cd {folder}, then meter-pipeline doctor", highlight=False)
