"""``meter-pipeline vee``: a meter's day explained, the rules and thresholds in force."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any
from zoneinfo import ZoneInfo

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
        list[str] | None, typer.Option("--value", help="Quantity of an interval; repeat for each interval, in order.")
    ] = None,
    refuse: Annotated[
        int, typer.Option("--refuse", help="Instead of values: refuse so many reads, which are then estimated.")
    ] = 0,
    channel: Annotated[str, typer.Option("--channel", help="Interval channel.")] = "E1",
    propose: Annotated[bool, typer.Option("--propose", help="It stands only once another person approves it.")] = False,
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
            propose=propose,
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
        "proposed": propose,
    }
    emit(
        document,
        json,
        lambda d: OUT.print(
            f"Edit {d['edit_id']} by {d['edited_by']}: {d['slots']} intervals from slot {d['first_slot']}."
            + (f" Rules that hit without refusing it: {', '.join(d['rules'])}." if d["rules"] else "")
            + (
                f" It waits for another person: meter-pipeline vee approve-edit {d['edit_id']}"
                if propose
                else f" The day waits to be run again: meter-pipeline run --day {d['billing_day']}"
            )
        ),
    )


@app.command(name="edit-read")
def edit_read(
    meter: Annotated[str, typer.Option("--meter", help="Meter id.")],
    at: Annotated[str, typer.Option("--at", help="When it was read, by the utility's clock: 2026-09-01T10:00.")],
    why: Annotated[str, typer.Option("--why", help="The reason, in your words.")],
    value: Annotated[
        str | None, typer.Option("--value", help="What the dial showed, in its own unit, before the multiplier.")
    ] = None,
    refuse: Annotated[bool, typer.Option("--refuse", help="Instead of a value: refuse the read.")] = False,
    channel: Annotated[str, typer.Option("--channel", help="Register channel.")] = "R1",
    propose: Annotated[bool, typer.Option("--propose", help="It stands only once another person approves it.")] = False,
    by: Annotated[str | None, typer.Option("--by", help="Who edits; by default the login name.")] = None,
    json: AsJson = False,
) -> None:
    """Correct, refuse or add a register read. The raw read stays; the rules for manual override judge it among the
    reads around it; the days between them wait to be run again.

    Examples:
      meter-pipeline vee edit-read --meter W0000001 --at 2026-09-01T10:00 --value 108 --why "1108 was a slip of the pen"
      meter-pipeline vee edit-read --meter W0000001 --at 2026-09-01T10:00 --refuse --why "another meter's dial"
    """
    from meter_pipeline.deployment import prepare
    from meter_pipeline.settings import load_settings
    from meter_pipeline.vee import register_edits
    from meter_pipeline.vee.edits import EditError

    if (value is None) == (not refuse):
        raise typer.BadParameter("give --value, or --refuse")
    settings = load_settings()
    database = prepare(settings)
    calendar = settings.calendar()
    person = _person(database, by)
    meter, channel = meter.strip().upper(), channel.strip().upper()
    try:
        shown = None if value is None else register_edits.dial_micro(database, meter, channel, value)
        done = register_edits.edit_read(
            database,
            calendar,
            meter,
            channel,
            _instant(at, calendar.zone),
            shown,
            reason=why,
            by=person,
            propose=propose,
        )
    except EditError as error:
        problem(str(error), f"See the reads with: meter-pipeline vee explain --meter {meter} --day {at[:10]}")
    document = {
        "edit_id": done.edit_id,
        "meter_id": meter,
        "channel": channel,
        "read_at": done.read_at.isoformat(),
        "value": value,
        "rules": done.rules,
        "edited_by": person,
        "proposed": propose,
        "days": [d.isoformat() for d in done.days],
    }
    emit(
        document,
        json,
        lambda d: OUT.print(
            f"Edit {d['edit_id']} by {d['edited_by']}: {d['meter_id']} {d['channel']} at {d['read_at']} "
            + ("is refused." if refuse else f"showed {d['value']}.")
            + (f" Rules that hit without refusing it: {', '.join(d['rules'])}." if d["rules"] else "")
            + (
                f" It waits for another person: meter-pipeline vee approve-edit {d['edit_id']}"
                if propose
                else _waits(done.days)
            )
        ),
    )


@app.command(name="approve-edit")
def approve_edit(
    edit_id: Annotated[int, typer.Argument(help="Number of the edit.")],
    by: Annotated[str | None, typer.Option("--by", help="Who approves; by default the login name.")] = None,
    json: AsJson = False,
) -> None:
    """Approve an edit that another person proposed, of intervals or of a register read: it stands from now on.

    Example: meter-pipeline vee approve-edit 3 --by ben
    """
    from meter_pipeline.deployment import prepare
    from meter_pipeline.settings import load_settings
    from meter_pipeline.vee import register_edits
    from meter_pipeline.vee.edits import EditError

    settings = load_settings()
    database = prepare(settings)
    person = _person(database, by)
    try:
        days = register_edits.approve(database, settings.calendar(), edit_id, by=person)
    except EditError as error:
        problem(str(error))
    emit(
        {"edit_id": edit_id, "approved_by": person, "days": [d.isoformat() for d in days]},
        json,
        lambda d: OUT.print(f"Edit {edit_id} stands.{_waits(days)}"),
    )


def _waits(days: list[date]) -> str:
    """How to run the days that wait for an edit."""
    if not days:
        return ""
    if len(days) == 1:
        return f" The day waits to be run again: meter-pipeline run --day {days[0]}"
    return f" {len(days)} days wait to be run again: meter-pipeline run --day {days[0]} --to {days[-1]}"


def _instant(text: str, zone: str) -> datetime:
    """An instant by the utility's clock, or with an offset of its own."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a time like 2026-09-01T10:00", param_hint="--at") from None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=ZoneInfo(zone))


@app.command(name="withdraw-edit")
def withdraw_edit(
    edit_id: Annotated[int, typer.Argument(help="Number of the edit.")],
    by: Annotated[str | None, typer.Option("--by", help="Who takes it back; by default the login name.")] = None,
    json: AsJson = False,
) -> None:
    """Take an edit back, of intervals or of a register read: the raw read stands again once its days have run.

    Example: meter-pipeline vee withdraw-edit 3 --by ana
    """
    from meter_pipeline.deployment import prepare
    from meter_pipeline.settings import load_settings
    from meter_pipeline.vee import edits, register_edits

    settings = load_settings()
    database = prepare(settings)
    person = _person(database, by)
    try:
        days = register_edits.withdraw(database, settings.calendar(), edit_id, by=person)
        if days is None:
            days = [edits.withdraw(database, edit_id, by=person)]
    except edits.EditError as error:
        problem(str(error))
    emit(
        {"edit_id": edit_id, "billing_day": days[0], "days": [d.isoformat() for d in days], "withdrawn_by": person},
        json,
        lambda d: OUT.print(f"Edit {edit_id} no longer stands.{_waits(days)}"),
    )


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a date like 2026-10-29", param_hint="--day") from None


def _person(database: Database, by: str | None) -> str:
    """The one spelling of who acts; a problem where the register of people does not let them edit."""
    import getpass

    from meter_pipeline.cli.identity import acting_or_exit
    from meter_pipeline.control import decisions

    return acting_or_exit(database, "vee_edit", "interval reads", by or getpass.getuser(), decisions.EDITS)


@app.command()
def rules(json: AsJson = False) -> None:
    """The published list of rules (bit, severity, source), and the thresholds that hold for some days alone.

    Example: meter-pipeline vee rules
    """
    from meter_pipeline.deployment import prepare
    from meter_pipeline.settings import load_settings
    from meter_pipeline.vee.tables.thresholds import every_dated
    from meter_pipeline.vee.writing import published_rules

    found = [
        dict(zip(("scope", "bit", "code", "severity", "source", "about"), r, strict=True)) for r in published_rules()
    ]
    emit(found, json, lambda d: OUT.print(table("rules", list(d[0]), [tuple(r.values()) for r in d])))
    if not json:
        columns = ["threshold", "valid_from", "valid_to", "value"]
        dated = [[row[c] or "" for c in columns] for row in every_dated(prepare(load_settings()))]
        OUT.print(table("Thresholds with dates; on other days thresholds.toml holds", columns, dated))


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
            f"There are no data of meter {document['meter_id']} on {document['billing_day']}: no reads came and it is installed nowhere."
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
        message = (
            "no reads enclose the day"
            if register["used_in_day"] is None
            else f"{register['used_in_day']} {register['unit']} in the day"
        )
        OUT.print(
            table(
                f"register {register['channel']}: {message}",
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
    for own in document["register_edits"]:
        shown = "refused" if own["value"] is None else f"showed {own['value']}"
        until = f", taken back by {own['withdrawn_by']}" if own["withdrawn_by"] else ""
        approved = f", approved by {own['approved_by']}" if own["approved_by"] else ""
        waits = ", waits for approval" if own["proposed"] and not own["approved_by"] and not own["withdrawn_by"] else ""
        OUT.print(
            f"edit {own['edit_id']} of {own['channel']}: {own['read_at']:%Y-%m-%d %H:%M} UTC {shown}, by {own['edited_by']}: "
            f"{own['reason']}{approved}{waits}{until}"
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
