"""``meter-pipeline vee``: a meter's day explained, the rules and thresholds in force. Belongs here: printing. Does not belong here: rules."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Annotated, Any

import typer

from meter_pipeline.cli.output import OUT, PROBLEM, emit, table

app = typer.Typer(no_args_is_help=True, help="Validation and estimation explained, interval by interval.")
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


@app.command()
def explain(
    meter: Annotated[str, typer.Option("--meter", help="Meter id.")],
    day: Annotated[str, typer.Option("--day", help="Billing day, YYYY-MM-DD.")],
    plot: Annotated[Path | None, typer.Option("--plot", help="Also write a picture of the day to this PNG file.")] = None,
    json: AsJson = False,
) -> None:
    """What came, which rules hit, what was put in its place and why: meter-pipeline vee explain --meter E0000001 --day 2026-10-29"""
    from meter_pipeline.services import prepare
    from meter_pipeline.settings import load_settings
    from meter_pipeline.vee.explain import explain_day

    try:
        wanted = date.fromisoformat(day)
    except ValueError:
        raise typer.BadParameter(f"{day!r} is not a date like 2026-10-29", param_hint="--day") from None
    settings = load_settings()
    document = explain_day(prepare(settings), settings.calendar(), meter.strip().upper(), wanted)
    if plot is not None and document["channels"]:
        plot.write_bytes(picture(document["channels"][0], f"{document['meter_id']} on {wanted}"))
    emit(document, json, show)
    if not document["found"]:
        raise typer.Exit(PROBLEM)


@app.command()
def rules(json: AsJson = False) -> None:
    """The published list of rules: bit, severity, source."""
    from meter_pipeline.vee.day import published_rules

    found = [dict(zip(("scope", "bit", "code", "severity", "source", "about"), r, strict=True)) for r in published_rules()]
    emit(found, json, lambda d: OUT.print(table("rules", list(d[0]), [tuple(r.values()) for r in d])))


def picture(channel: dict[str, Any], title: str) -> bytes:
    """A PNG of one explained channel."""
    import numpy as np

    from meter_pipeline.quality import FLAGS
    from meter_pipeline.schemas.reads import NO_VALUE
    from meter_pipeline.vee.plots import meter_day

    def micro(name: str) -> Any:
        return np.array([NO_VALUE if i[name] is None else int(i[name] * 1_000_000) for i in channel["intervals"]], np.int64)

    codes = np.array([FLAGS.index(i["quality"]["flag"]) << 13 for i in channel["intervals"]], np.uint16)
    return meter_day(micro("raw"), micro("final"), codes, channel["interval_minutes"], channel["unit"], title)


def show(document: dict[str, Any]) -> None:
    """The document for people."""
    if not document["found"]:
        OUT.print(f"Nothing is known of meter {document['meter_id']} on {document['billing_day']}: no reads came and it is installed nowhere.")
        return
    OUT.print(f"[bold]Meter {document['meter_id']}[/] on {document['billing_day']} ({document['hours']:g} h, {document['zone']})")
    for channel in document["channels"]:
        register = "no register closes the day" if channel["register_difference"] is None else f"register {channel['register_difference']}"
        OUT.print(
            f"\n[bold]{channel['channel']}[/] at {channel['service_point_id']}, account {channel['account_id'] or '(none)'}: "
            f"{channel['total']} {channel['unit']}; {register}; {channel['actual']} actual, {channel['estimated']} estimated, "
            f"{channel['missing']} missing; version {channel['version']}{', locked' if channel['locked'] else ''}"
        )
        for rule in channel["rules"]:
            OUT.print(f"  {rule['code']}: {rule['about']}")
        if channel["anchors"]:
            OUT.print(f"  estimates stand on: {channel['anchors']}")
        for version in channel["earlier_versions"]:
            replaced = f"replaced {version['superseded_at']} by {version['superseded_by']}: {version['reason']}"
            OUT.print(f"  version {version['version']} was {version['total']}, {replaced}")
        OUT.print(table("", ["slot", "local", "raw", "rules", "final", "quality"], [_line(i) for i in channel["intervals"]]))
    for register in document["registers"]:
        lines = [(str(r["at"]), str(r["dial"]), "" if r["consumed"] is None else str(r["consumed"]), r["about"]) for r in register["reads"]]
        OUT.print(table(f"register {register['channel']}: {register['used_in_day']} {register['unit']} in the day", ["at", "dial", "consumed", "step"], lines))
    for exception in document["exceptions"]:
        OUT.print(f"exception {exception['kind']}: {exception['detail']}")


def _line(interval: dict[str, Any]) -> tuple[str, ...]:
    word = interval["quality"]
    quality = word["flag"] if not word["method"] else f"{word['flag']}{word['method']} {word['method_name'] or ''}"
    if word["reason"] is not None:
        quality += f" (reason {word['reason']})"
    raw, final = interval["raw"], interval["final"]
    return (
        str(interval["slot"]), interval["local"], "" if raw is None else str(raw), ", ".join(interval["rules"]), "" if final is None else str(final), quality,
    )
