"""``meter-pipeline vee``: a meter's day explained, the rules and thresholds in force."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import typer

from meter_pipeline.cli.output import OUT, PROBLEM, emit, problem, table
from meter_pipeline.postgres.database import Database
from meter_pipeline.units import to_micro

app = typer.Typer(no_args_is_help=True, help="Validation and estimation explained, interval by interval.")
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


@app.command()
def explain(
    meter: Annotated[str, typer.Option("--meter", help="Meter id.")],
    day: Annotated[str, typer.Option("--day", help="Billing day, YYYY-MM-DD.")],
    plot: Annotated[
        Path | None, typer.Option("--plot", help="Also write a picture of the day to this PNG file.")
    ] = None,
    json: AsJson = False,
) -> None:
    """What came, which rules hit, what was put in its place and why: meter-pipeline vee explain --meter E0000001 --day
    2026-10-29

    Example: meter-pipeline vee explain --meter E0000001 --day 2026-10-29
    """
    from meter_pipeline.deployment import prepare
    from meter_pipeline.settings import load_settings
    from meter_pipeline.vee.explain import explain_day

    wanted = _day(day)
    settings = load_settings()
    document = explain_day(prepare(settings), settings.calendar(), meter.strip().upper(), wanted)
    if plot is not None and document["channels"]:
        plot.write_bytes(picture(document["channels"][0], f"{document['meter_id']} on {wanted}"))
    emit(document, json, show)
    if not document["found"]:
        raise typer.Exit(PROBLEM)


@app.command()
def edit(
    meter: Annotated[str, typer.Option("--meter", help="Meter id.")],
    day: Annotated[str, typer.Option("--day", help="Billing day, YYYY-MM-DD.")],
    why: Annotated[str, typer.Option("--why", help="The reason, in your words.")],
    slot: Annotated[int, typer.Option("--slot", help="First interval, from 1, as explain numbers them.")],
    value: Annotated[
        list[str] | None, typer.Option("--value", help="Quantity of an interval; once per interval, in order.")
    ] = None,
    refuse: Annotated[
        int, typer.Option("--refuse", help="Instead of values: refuse so many reads, which are then estimated.")
    ] = 0,
    channel: Annotated[str, typer.Option("--channel", help="Interval channel.")] = "E1",
    by: Annotated[str | None, typer.Option("--by", help="Who edits; by default the login name.")] = None,
    json: AsJson = False,
) -> None:
    """Override intervals. The raw read stays; the rules for manual override judge the day; the day waits to be run
    again.

    Examples:
      meter-pipeline vee edit --meter E0000001 --day 2026-10-29 --slot 41 --value 0.310 --value 0.280 --why "read on
      site" meter-pipeline vee edit --meter E0000001 --day 2026-10-29 --slot 41 --refuse 2 --why "meter was on the
      bench"
    """
    from meter_pipeline.deployment import prepare
    from meter_pipeline.settings import load_settings
    from meter_pipeline.vee import edits

    if bool(value) == bool(refuse):
        raise typer.BadParameter("give --value once per interval, or --refuse with their number")
    try:
        micro: list[int | None] = [None] * refuse if refuse else [to_micro(Decimal(v)) for v in value or []]
    except (ArithmeticError, ValueError):
        raise typer.BadParameter(f"{value} are not all numbers with up to six decimals", param_hint="--value") from None
    settings = load_settings()
    database = prepare(settings)
    person = _person(database, by)
    try:
        done = edits.edit(
            database,
            settings.calendar(),
            meter.strip().upper(),
            channel.strip().upper(),
            _day(day),
            slot,
            micro,
            reason=why,
            by=person,
        )
    except edits.EditError as error:
        problem(str(error), "See the day with: meter-pipeline vee explain --meter M --day D")
    document = {
        "edit_id": done.edit_id,
        "meter_id": meter,
        "billing_day": day,
        "first_slot": slot,
        "slots": len(micro),
        "rules": done.rules,
        "edited_by": person,
    }
    emit(
        document,
        json,
        lambda d: OUT.print(
            f"Edit {d['edit_id']} by {d['edited_by']}: {d['slots']} intervals from slot {d['first_slot']}."
            + (f" Rules that hit without refusing it: {', '.join(d['rules'])}." if d["rules"] else "")
            + f" The day waits to be run again: meter-pipeline run --day {d['billing_day']}"
        ),
    )


@app.command(name="withdraw-edit")
def withdraw_edit(
    edit_id: Annotated[int, typer.Argument(help="Number of the edit.")],
    by: Annotated[str | None, typer.Option("--by", help="Who takes it back; by default the login name.")] = None,
    json: AsJson = False,
) -> None:
    """Take an edit back: the raw read stands again once the day has run.

    Example: meter-pipeline vee withdraw-edit 3 --by ana
    """
    from meter_pipeline.deployment import prepare
    from meter_pipeline.settings import load_settings
    from meter_pipeline.vee import edits

    database = prepare(load_settings())
    person = _person(database, by)
    try:
        day = edits.withdraw(database, edit_id, by=person)
    except edits.EditError as error:
        problem(str(error))
    emit(
        {"edit_id": edit_id, "billing_day": day, "withdrawn_by": person},
        json,
        lambda d: OUT.print(f"Edit {edit_id} no longer stands; {day} waits to be run again."),
    )


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a date like 2026-10-29", param_hint="--day") from None


def _person(database: Database, by: str | None) -> str:
    """The one spelling of who acts; a problem where the register of people does not let them edit."""
    import getpass

    from meter_pipeline.control import people

    name = by or getpass.getuser()
    person = people.canonical(name)
    if person is None:
        problem(f"{name!r} is no name: ASCII letters, digits and . _ @ - only")
    with database.connect("vee edit") as connection:
        refused = people.denial(connection, person, ("operator", "engineer"))
    if refused is not None:
        problem(refused.words)
    return person


@app.command()
def rules(json: AsJson = False) -> None:
    """The published list of rules: bit, severity, source.

    Example: meter-pipeline vee rules
    """
    from meter_pipeline.vee.writing import published_rules

    found = [
        dict(zip(("scope", "bit", "code", "severity", "source", "about"), r, strict=True)) for r in published_rules()
    ]
    emit(found, json, lambda d: OUT.print(table("rules", list(d[0]), [tuple(r.values()) for r in d])))


def picture(channel: dict[str, Any], title: str) -> bytes:
    """A PNG of one explained channel."""
    import numpy as np

    from meter_pipeline.quality import FLAGS
    from meter_pipeline.schemas.reads import NO_VALUE
    from meter_pipeline.vee.plots import meter_day

    def micro(name: str) -> Any:
        return np.array(
            [NO_VALUE if i[name] is None else int(i[name] * 1_000_000) for i in channel["intervals"]], np.int64
        )

    codes = np.array([FLAGS.index(i["quality"]["flag"]) << 13 for i in channel["intervals"]], np.uint16)
    return meter_day(micro("raw"), micro("final"), codes, channel["interval_minutes"], channel["unit"], title)


def show(document: dict[str, Any]) -> None:
    """The document for people."""
    if not document["found"]:
        OUT.print(
            f"Nothing is known of meter {document['meter_id']} on {document['billing_day']}: no reads came and it is installed nowhere."
        )
        return
    OUT.print(
        f"[bold]Meter {document['meter_id']}[/] on {document['billing_day']} ({document['hours']:g} h, {document['zone']})"
    )
    for used in document["usage"]:
        amount = "not known" if used["quantity"] is None else f"{used['quantity']} {used['unit']}"
        how = (
            "its intervals"
            if used["source"] == "interval"
            else f"its register alone ({', '.join(used['rules']).lower() or 'read'})"
        )
        worst = (
            f"; worst quality {_words(used['quality'])}"
            if used["source"] == "interval"
            else f"; {_words(used['quality'])}"
        )
        OUT.print(
            f"[bold]{used['service_point_id']}[/] {used['flow']} in the day: [bold]{amount}[/], from {how}{worst}",
            highlight=False,
        )
    for channel in document["channels"]:
        register = (
            "no register closes the day"
            if channel["register_difference"] is None
            else f"register {channel['register_difference']}"
        )
        OUT.print(
            f"\n[bold]{channel['channel']}[/] at {channel['service_point_id']}, account {channel['account_id'] or '(none)'}: "
            f"{channel['total']} {channel['unit']}; {register}; {channel['actual']} actual, {channel['estimated']} estimated, "
            f"{channel['missing']} missing; version {channel['version']}{', locked' if channel['locked'] else ''}"
        )
        for rule in channel["rules"]:
            OUT.print(f"  {rule['code']}: {rule['about']}")
        if channel["estimated"] and channel["estimated_before_scaling"]:
            scaled = (
                "not scaled"
                if channel["register_difference"] is None
                else "then scaled so that the day equals the register"
            )
            OUT.print(f"  the estimates came to {channel['estimated_before_scaling']} {channel['unit']}, {scaled}")
        if channel["anchors"]:
            OUT.print(f"  estimates stand on: {channel['anchors']}")
        for version in channel["earlier_versions"]:
            replaced = f"replaced {version['superseded_at']} by {version['superseded_by']}: {version['reason']}"
            OUT.print(f"  version {version['version']} was {version['total']}, {replaced}")
        lines = [_line(i) for i in channel["intervals"]]
        OUT.print(
            table(None, ["slot", "local", "raw", "rules", "final", "quality"], lines, numbers=["slot", "raw", "final"])
        )
    for register in document["registers"]:
        lines = [
            (r["local"], str(r["dial"]), "" if r["consumed"] is None else str(r["consumed"]), r["about"])
            for r in register["reads"]
        ]
        said = (
            "no reads enclose the day"
            if register["used_in_day"] is None
            else f"{register['used_in_day']} {register['unit']} in the day"
        )
        OUT.print(
            table(
                f"register {register['channel']}: {said}",
                ["local", "dial", "consumed", "step"],
                lines,
                numbers=["dial", "consumed"],
            )
        )
    for own in document["edits"]:
        until = (
            f", taken back by {own['withdrawn_by']} at {own['withdrawn_at']:%Y-%m-%d %H:%M} UTC"
            if own["withdrawn_by"]
            else ""
        )
        hit = f"; rules {', '.join(own['rules'])}" if own["rules"] else ""
        OUT.print(
            f"edit {own['edit_id']} of {own['channel']}, slots {own['first_slot']} to {own['first_slot'] + own['slots'] - 1}, by {own['edited_by']} "
            f"at {own['edited_at']:%Y-%m-%d %H:%M} UTC: {own['reason']} (thresholds {own['rules_version']}{hit}){until}"
        )
    for exception in document["exceptions"]:
        waits = (
            ", the bill waits until the data are right or a person releases it" if exception["action"] == "hold" else ""
        )
        OUT.print(
            f"exception {exception['kind']}: {exception['detail']} ({exception['action']}{waits})", highlight=False
        )


def _words(word: dict[str, Any]) -> str:
    """A quality in a few words: flag and AEMO method with its name, then why."""
    quality = (
        word["flag"]
        if not word["method"]
        else f"{word['flag']}{word['method']} {word['method_name'] or word['meaning']}"
    )
    if word["reason"] is not None:
        quality += f" ({word['reason_name'] or 'reason'} {word['reason']})"
    return quality


def _line(interval: dict[str, Any]) -> tuple[str, ...]:
    word = interval["quality"]
    quality = _words(word)
    raw, final = interval["raw"], interval["final"]
    return (
        str(interval["slot"]),
        interval["local"],
        "" if raw is None else str(raw),
        ", ".join(interval["rules"]),
        "" if final is None else str(final),
        quality,
    )
