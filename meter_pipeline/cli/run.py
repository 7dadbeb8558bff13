"""``meter-pipeline run``: billing days through Dagster, in this process, recorded in the same instance the UI shows."""

from __future__ import annotations

import logging
import time
from datetime import date, datetime, timedelta
from typing import Annotated, Any

import typer

from meter_pipeline.cli.output import ERR, OUT, PROBLEM, emit, problem, progress, table
from meter_pipeline.deployment import prepare
from meter_pipeline.postgres.database import open_database
from meter_pipeline.settings import Settings, load_settings

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


def run(
    day: Annotated[datetime, typer.Option("--day", formats=["%Y-%m-%d"], help="The (first) billing day.")],
    to: Annotated[
        datetime | None, typer.Option("--to", formats=["%Y-%m-%d"], help="The last billing day, included.")
    ] = None,
    land: Annotated[bool, typer.Option(help="First land what waits in the inbox.")] = True,
    one_run: Annotated[
        bool, typer.Option("--one-run", help="The whole range as one Dagster run (a backfill of months).")
    ] = False,
    json: Json = False,
) -> None:
    """Materialise billing days: reads, validation, usage, flags, billing, ledger.

    Examples:
      meter-pipeline run --day 2026-11-01
      meter-pipeline run --day 2026-01-01 --to 2026-12-31 --one-run
    """
    first, last = day.date(), (to or day).date()
    if last < first:
        ERR.print("[bold red]Problem:[/] --to is before --day")
        raise typer.Exit(2)
    document = run_days(first, last, land=land, one_run=one_run)
    emit(document, json, _show)
    if any(not d["success"] for d in document["days"] + document["true_ups"]):
        raise typer.Exit(PROBLEM)


def run_days(first: date, last: date, *, land: bool, one_run: bool, opening: date | None = None) -> dict[str, Any]:
    """Materialise [first, last]; returns {"landing", "days": [{"day", "to", "success", "seconds", "run_id",
    "failed_steps"}], "true_ups": the same}.

    Afterwards the days that register reads ask to have validated again are run, once each, until none asks.
    ``opening``: a day before, of which only the raw reads are taken: the register reads that open the first day close
    that one. Without it, the day before the first where no day has been billed yet and reads of it wait.
    """
    settings = load_settings()
    prepare(settings)
    logging.getLogger("dagster").setLevel(logging.WARNING)
    import dagster as dg

    from meter_pipeline.definitions import build_defs

    _only_closed_days(first, last)
    definitions = build_defs()
    days = settings.calendar().days(first, last)
    outcomes: list[dict[str, Any]] = []
    landing: dict[str, Any] | None = None
    quiet: dict[str, Any] = {"loggers": {"console": {"config": {"log_level": "ERROR"}}}}
    with dg.DagsterInstance.get() as instance, progress() as bar:
        if land:
            task = bar.add_task("landing the inbox", total=None)
            started = time.monotonic()
            landed = definitions.resolve_job_def("land_feeds").execute_in_process(
                instance=instance, run_config=quiet, raise_on_error=False
            )
            landing = {
                "success": landed.success,
                "seconds": round(time.monotonic() - started, 3),
                "run_id": landed.run_id,
            }
            bar.remove_task(task)
        job = definitions.resolve_job_def("billing_day")
        opening = opening or _opening_day(settings, first)
        if opening is not None:
            raw_only = definitions.resolve_implicit_global_asset_job_def()
            raw_only.execute_in_process(
                instance=instance,
                asset_selection=[dg.AssetKey("raw_reads")],
                partition_key=opening.isoformat(),
                run_config=quiet,
                raise_on_error=False,
            )
        task = bar.add_task("billing days", total=len(days))
        spans = [(first, last)] if one_run and len(days) > 1 else [(d, d) for d in days]
        for start, end in spans:
            bar.update(task, description=f"billing day {start}" if start == end else f"billing days {start} to {end}")
            outcomes.append(_materialise(job, instance, quiet, start, end))
            bar.advance(task, (end - start).days + 1)
        again: list[dict[str, Any]] = []
        tried: set[tuple[date, bytes]] = set()
        while waiting_days := _true_ups(settings, tried):
            task = bar.add_task("days that register reads true up", total=len(waiting_days))
            for start, end in stretches(waiting_days):
                bar.update(task, description=f"true-up of {start}" if start == end else f"true-up of {start} to {end}")
                again.append(_materialise(job, instance, quiet, start, end))
                bar.advance(task, (end - start).days + 1)
    return {"landing": landing, "days": outcomes, "true_ups": again}


#: What finance and engineering ask of a month
MONTH_ASSETS = (
    "unbilled_revenue",
    "supply_balance",
    "winter_averages",
    "leak_adjustments",
    "estimated_bills",
    "unit_charges",
)


def run_months(first: date, last: date) -> list[dict[str, Any]]:
    """Materialise the month's assets of the months that some days touch; returns {"month", "success", "seconds",
    "run_id"} of each. The months of Dagster's partitions alone: the current one is none of them."""
    import dagster as dg

    from meter_pipeline.definitions import build_defs
    from meter_pipeline.defs.lib.partitions import billing_months

    job = build_defs().resolve_implicit_global_asset_job_def()
    quiet: dict[str, Any] = {"loggers": {"console": {"config": {"log_level": "ERROR"}}}}
    known = set(billing_months().get_partition_keys())
    months = sorted({day.replace(day=1) for day in (first, last)})
    done = []
    with dg.DagsterInstance.get() as instance:
        for month in (m for m in months if m.isoformat() in known):
            began = time.monotonic()
            result = job.execute_in_process(
                instance=instance,
                asset_selection=[dg.AssetKey(name) for name in MONTH_ASSETS],
                partition_key=month.isoformat(),
                run_config=quiet,
                raise_on_error=False,
            )
            done.append(
                {"month": f"{month:%Y-%m}", "success": result.success, "seconds": round(time.monotonic() - began, 3)}
                | {"run_id": result.run_id}
            )
    return done


def _opening_day(settings: Settings, first: date) -> date | None:
    """The day before the first that is ever billed, where reads of it wait: a dial that was read at the first day's
    start closes that one, and without the read the first days would be estimated."""
    from meter_pipeline.billing.tables.statements import first_billed_day
    from meter_pipeline.defs.lib.partitions import billing_days
    from meter_pipeline.ingest.tables.raw import waiting_days

    database, before = open_database(settings), first - timedelta(days=1)
    billed = first_billed_day(database)
    if before.isoformat() not in billing_days().get_partition_keys() or (billed is not None and billed < first):
        return None
    with database.connect("opening day") as connection:
        return before if before in {day for day, _ in waiting_days(connection)} else None


def _only_closed_days(first: date, last: date) -> None:
    """End with one line where a day cannot be billed: it has not closed, or lies before the first billing day."""
    from meter_pipeline.defs.lib.partitions import billing_days

    closed = billing_days().get_partition_keys()
    if not closed:
        problem("no billing day has closed yet", "look at first_billing_day in utility.toml")
    if first.isoformat() < closed[0]:
        problem(f"{first} is before the first billing day, {closed[0]}", "first_billing_day in utility.toml sets it")
    if last.isoformat() > closed[-1]:
        problem(
            f"{last} has not closed yet; the last closed billing day is {closed[-1]}",
            f"meter-pipeline run --day {closed[-1]}",
        )


def _materialise(job: Any, instance: Any, quiet: dict[str, Any], start: date, end: date) -> dict[str, Any]:
    """One Dagster run of a day or a stretch of days."""
    began = time.monotonic()
    where: dict[str, Any] = (
        {"partition_key": start.isoformat()}
        if start == end
        else {
            "tags": {
                "dagster/asset_partition_range_start": start.isoformat(),
                "dagster/asset_partition_range_end": end.isoformat(),
            }
        }
    )
    result = job.execute_in_process(instance=instance, run_config=quiet, raise_on_error=False, **where)
    failed = [event.step_key for event in result.all_events if event.event_type_value == "STEP_FAILURE"]
    return {"day": start, "to": end, "success": result.success, "seconds": round(time.monotonic() - began, 3)} | {
        "run_id": result.run_id,
        "failed_steps": failed,
    }


def _true_ups(settings: Settings, tried: set[tuple[date, bytes]]) -> list[date]:
    """Closed days with a request that was not tried yet, that were loaded and not validated since or validated and not
    billed since, or whose bills are held no more; a day whose run failed is not tried for ever."""
    from meter_pipeline.billing.tables.part_of_day import unbilled_validations
    from meter_pipeline.billing.tables.released_bills import released_bills
    from meter_pipeline.defs.lib.partitions import billing_days
    from meter_pipeline.vee.tables.part_of_day import unvalidated_loads
    from meter_pipeline.vee.tables.true_up import waiting

    known = set(billing_days().get_partition_keys())
    database = open_database(settings)
    waiting_days = [
        *waiting(database),
        *unvalidated_loads(database),
        *unbilled_validations(database),
        *released_bills(database),
    ]
    new = {(day, e) for day, evidence in waiting_days for e in evidence if day.isoformat() in known} - tried
    tried |= new
    return sorted({day for day, _ in new})


def stretches(days: list[date]) -> list[tuple[date, date]]:
    """Sorted days as stretches of consecutive ones (first, last): one run each."""
    found: list[tuple[date, date]] = []
    for day in days:
        if found and (day - found[-1][1]).days == 1:
            found[-1] = (found[-1][0], day)
        else:
            found.append((day, day))
    return found


def _show(document: dict[str, Any]) -> None:
    rows = []
    for done in document["days"] + document["true_ups"]:
        outcome = "ok" if done["success"] else "failed: " + ", ".join(done["failed_steps"])
        rows.append(
            (
                done["day"],
                "" if done["to"] == done["day"] else done["to"],
                outcome,
                f"{done['seconds']:.1f}",
                done["run_id"][:8],
            )
        )
    OUT.print(table("Billing days", ["day", "to", "result", "seconds", "run"], rows, numbers=["seconds"]))
    if document["true_ups"]:
        OUT.print(
            f"The last {len(document['true_ups'])} because a register read closed days that were estimated until then, "
            "or because bills are held no more."
        )
