"""meter-pipeline tariffs: read a tariff, price a load with it."""

from __future__ import annotations

import csv
import re
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, NoReturn
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import typer

from meter_pipeline.billing.bill_explanation import BillUse, explain_bill
from meter_pipeline.billing.load import Load, LoadRefusedError, load_file
from meter_pipeline.billing.rate_calculator import COMPONENTS, price
from meter_pipeline.billing.service_agreements import ATTRIBUTES
from meter_pipeline.billing.statement_frames import CENTS
from meter_pipeline.billing.synthetic_account import EXACT, LAST_BILLS, Credit, Terms
from meter_pipeline.billing.tariffs import (
    Rider,
    Tariff,
    TariffRefusedError,
    line_of,
    load_tariff,
    parse_rider,
    says_rider,
)
from meter_pipeline.cli.output import ERR, OUT, PROBLEM, USAGE, emit, table
from meter_pipeline.cli.owrs import import_tariffs
from meter_pipeline.settings import SettingsError, load_settings
from meter_pipeline.units import UnitError, parse_decimal

#: Attributes that a service may have.
NAMED = ("customer_class", *ATTRIBUTES)
app = typer.Typer(help="Tariff documents: check one, price a load with one.", no_args_is_help=True)


def _render(document: Any) -> None:
    if document["refused"]:
        ERR.print(f"[bold red]Refused:[/] {document['refused']}", highlight=False)
        return
    annual = document["annual"]
    shown = [c for c in COMPONENTS if annual[c] or c == "total"]
    columns = ["month", "kWh", *shown]
    rows = [[m["month"], f"{m['energy_kwh']:,.0f}", *(f"{m[c]:,.2f}" for c in shown)] for m in document["monthly"]]
    rows.append(["all", "", *(f"{annual[c]:,.2f}" for c in shown)])
    OUT.print(table(document["tariff"], columns, rows, numbers=columns[1:]))
    if (left := document.get("left")) and (any(left["units"].values()) or left["money"]):
        units = ", ".join(f"{count:f} in period {name}" for name, count in left["units"].items() if count)
        money = f"{left['money']:,.2f} of money" if left["money"] else ""
        OUT.print(f"credit left for the next bill: {', '.join(filter(None, (units, money)))}", highlight=False)
    for note in document["notes"]:
        OUT.print(f"note: {note}", highlight=False)


Attributes = Annotated[
    list[str] | None,
    typer.Option(
        "--attribute", help="What the tariff asks of a service: meter_size=5/8, customer_class=residential; repeat."
    ),
]
Holidays = Annotated[
    Path | None,
    typer.Option(help="CSV with a column holiday; default: reference/holidays.csv of the utility's folder."),
]
Zone = Annotated[
    str | None, typer.Option(help="Zone that stamps with an offset are converted to, e.g. America/Los_Angeles.")
]


def _usage(message: str) -> NoReturn:
    ERR.print(f"[bold red]Usage:[/] {message}", highlight=False)
    raise typer.Exit(USAGE)


def _attributes(given: list[str] | None) -> dict[str, str]:
    found = {}
    for pair in given or ():
        name, equals, value = pair.partition("=")
        if not equals or not re.fullmatch(r"[a-z][a-z0-9_]{0,39}", name):
            _usage(f"--attribute {pair!r} is not NAME=VALUE: {', '.join(NAMED)}, or a name of attribute_names.csv")
        found[name] = value
    return found


def _holidays(path: Path | None, years: set[int]) -> frozenset[date] | None:
    """Holidays of a file, or of the utility's folder where that has any for every year of the load; None: nothing is
    known.
    """
    named = path is not None
    if path is None:
        try:
            path = load_settings().data / "reference" / "holidays.csv"
        except SettingsError:
            return None
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            found = frozenset(date.fromisoformat(row["holiday"]) for row in csv.DictReader(file))
    except (OSError, KeyError, ValueError) as error:
        if named:
            _usage(
                f"{path}: {error if isinstance(error, OSError) else 'needs a column holiday with dates like 2026-07-04'}"
            )
        return None
    return found if named or years <= {day.year for day in found} else None


def _account_of(load: Path, timezone: str | None) -> Load:
    """A load file read, or exit 2 where the arguments are wrong. Raises LoadRefusedError."""
    if timezone is not None:
        try:
            ZoneInfo(timezone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            _usage(f"no time zone {timezone!r}; give an IANA name such as America/Chicago")
    if not load.is_file():
        _usage(f"no file {load}")
    return load_file(load, timezone)


app.command("import")(import_tariffs)


@app.command("price")
def price_command(
    tariff: Annotated[Path, typer.Argument(help="URDB v8 or native tariff, JSON.")],
    load: Annotated[
        Path,
        typer.Argument(help="CSV with the columns interval_start and kwh (or m3, gal, ccf, therm); negative: exports."),
    ],
    timezone: Zone = None,
    holidays: Holidays = None,
    attribute: Attributes = None,
    as_billed: Annotated[
        bool, typer.Option("--as-billed", help="Round each line as a statement does; default: exact amounts.")
    ] = False,
    last_bill: Annotated[
        str | None,
        typer.Option(help="The last month's bill is the account's last here: closes, or moves to another place."),
    ] = None,
    credit: Annotated[
        list[str] | None,
        typer.Option(help="Credit that an earlier bill left: PERIOD=UNITS, or money=AMOUNT; repeat."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Price a load by month: energy, demand, fixed, minimum, tax and total, exact.

    Example: meter-pipeline tariffs price SCE_TOU-8.json load.csv --timezone America/Los_Angeles --json
    """
    given = _attributes(attribute)
    try:
        read = _account_of(load, timezone)
        known = _holidays(holidays, {of.day.year for of in read.days})
        document = _priced(load_tariff(tariff), read, known, given, (as_billed, last_bill, credit))
    except (TariffRefusedError, LoadRefusedError, UnicodeDecodeError) as error:
        nothing = dict.fromkeys(COMPONENTS)
        emit({"monthly": [], "annual": nothing, "refused": str(error)}, as_json, _render)
        raise typer.Exit(PROBLEM) from error
    emit(document, as_json, _render)


def _priced(
    tariff: Tariff,
    load: Load,
    holidays: frozenset[date] | None,
    attributes: dict[str, str],
    options: tuple[bool, str | None, list[str] | None],
) -> dict[str, Any]:
    """The document of ``price``. ``asked``: as billed, the last bill, the credit that an earlier bill left."""
    as_billed, last_bill, credit = options
    if last_bill not in (None, *LAST_BILLS):
        _usage(f"--last-bill {last_bill!r} is not one of {', '.join(LAST_BILLS)}")
    left = _named(credit, tariff.schedule.periods, "--credit")
    money = left.pop("money", Decimal(0)) if "money" not in tariff.schedule.periods else Decimal(0)
    terms = Terms(CENTS if as_billed else EXACT, last_bill, Credit(left, money))
    return price(tariff, load, holidays=holidays, attributes=attributes, terms=terms)


def _show_rider(rider: Rider, as_json: bool) -> None:
    codes = [field["code"].text() for field in rider.charges.list()]
    document = {
        "refused": None,
        "rider": rider.rider_id,
        "valid_from": rider.valid_from,
        "by": rider.by,
        "charges": codes,
    }
    message = f"rider {rider.rider_id} from {rider.valid_from}: {', '.join(codes)}"
    emit(document, as_json, lambda _: OUT.print(message, highlight=False))


@app.command("check")
def check(
    tariff: Annotated[Path, typer.Argument(help="URDB v8 or native tariff, JSON.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Read a tariff: its periods, lines and notes, or why it is refused.

    Example: meter-pipeline tariffs check data/tariffs/e-tou-v1.json
    """
    try:
        if tariff.is_file() and says_rider(tariff.read_bytes()):
            _show_rider(parse_rider(tariff.read_bytes()), as_json)
            return
        read = load_tariff(tariff)
    except TariffRefusedError as error:
        line = line_of(tariff.read_bytes(), error.field) if tariff.is_file() else None
        emit(
            {"refused": str(error), "field": error.field, "line": line},
            as_json,
            lambda d: ERR.print(f"{tariff}:{line or 1}: {d['refused']}", highlight=False),
        )
        raise typer.Exit(PROBLEM) from error
    document = {
        "tariff_id": read.tariff_id,
        "name": read.name,
        "commodity": read.commodity,
        "unit": read.unit,
        "source": read.source,
        "sha256": read.digest,
        "periods": list(read.schedule.periods),
        "metering": read.metering,
        "lines": [{"line": line.key, "name": line.name, "component": line.component} for line in read.lines],
        "notes": list(read.notes),
        "refused": None,
    }
    emit(
        document,
        as_json,
        lambda d: OUT.print(table(d["name"], ["line", "name", "component"], [list(x.values()) for x in d["lines"]])),
    )


@app.command("explain")
def explain(
    tariff: Annotated[Path, typer.Argument(help="URDB v8 or native tariff, JSON.")],
    use: Annotated[list[str] | None, typer.Option(help="Quantity, or PERIOD=QUANTITY for each period; repeat.")] = None,
    export: Annotated[list[str] | None, typer.Option(help="Exports, likewise.")] = None,
    peak: Annotated[list[str] | None, typer.Option(help="REGISTER=KW of each demand register; repeat.")] = None,
    month: Annotated[
        str, typer.Option(help="Month of the bill, like 2026-07: seasons and true-up follow it.")
    ] = "2026-01",
    days: Annotated[
        int | None, typer.Option(help="Days of the bill from the month's first on; default: the month.")
    ] = None,
    attribute: Attributes = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Show the arithmetic of one bill, line by line, rounded as a statement is.

    Example: meter-pipeline tariffs explain data/tariffs/e-res-v1.json --use 900 --month 2026-07
    """
    try:
        read = load_tariff(tariff)
        start = date.fromisoformat(f"{month}-01")
        given = BillUse(
            start,
            days,
            _named(use, read.schedule.periods, "--use"),
            _named(export, read.schedule.periods, "--export"),
            _named(peak, read.layout[1], "--peak"),
            _attributes(attribute),
        )
        steps = explain_bill(read, given)
    except TariffRefusedError as error:
        emit({"lines": [], "total": None, "refused": str(error)}, as_json, _render)
        raise typer.Exit(PROBLEM) from error
    except ValueError:
        _usage(f"--month {month!r} is not a month like 2026-07")
    document = {
        "tariff": read.name,
        "period_start": given.start,
        "period_end": given.past,
        "lines": [{"line": s.line, "name": s.name, "how": s.how, "amount": s.amount} for s in steps],
        "total": sum((s.amount for s in steps), Decimal(0)),
        "refused": None,
    }

    def show(found: Any) -> None:
        rows = [[line["name"], line["how"], f"{line['amount']:,.2f}"] for line in found["lines"]]
        rows.append(["total", "", f"{found['total']:,.2f}"])
        OUT.print(table(found["tariff"], ["line", "arithmetic", "amount"], rows, numbers=["amount"]))

    emit(document, as_json, show)


def _named(given: list[str] | None, names: tuple[str, ...], option: str) -> dict[str, Decimal]:
    """NAME=QUANTITY pairs; a quantity alone is of the only name there is."""
    found: dict[str, Decimal] = {}
    for text in given or ():
        name, equals, value = text.rpartition("=")
        if not equals and len(names) != 1:
            _usage(
                f"{option} {text!r}: name one of {', '.join(names) or 'nothing: the tariff has none'}, as NAME=QUANTITY"
            )
        try:
            quantity = parse_decimal(value)
        except UnitError:
            _usage(f"{option} {text!r}: {value!r} is not a quantity")
        found[name if equals else names[0]] = quantity
    return found
