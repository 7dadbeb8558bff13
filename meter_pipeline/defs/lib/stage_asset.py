"""One way to make an asset of a billing day's stage."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import dagster as dg

from meter_pipeline.control.pause_check import PausedError
from meter_pipeline.defs.lib import policy
from meter_pipeline.defs.lib.partitions import billing_days
from meter_pipeline.defs.lib.report_metadata import DAYS_AT_ONCE, run_days
from meter_pipeline.defs.lib.resources import Municipality
from meter_pipeline.defs.lib.run_guard import PauseGuard
from meter_pipeline.defs.lib.table_metadata import table_metadata
from meter_pipeline.postgres.database import connection_lost
from meter_pipeline.retention import ensure_present
from meter_pipeline.schemas.report import StageReport

RunDay = Callable[[Municipality, date, str], StageReport]
RunSeveral = Callable[[Municipality, Sequence[date], str], list[tuple[date, StageReport]]]
Done = TypeVar("Done")


def stage_asset(
    name: str,
    run_day: RunDay,
    *,
    group: str,
    description: str,
    deps: Sequence[str | Sequence[str]],
    checks: Mapping[str, str],
    table: str | None,
    blocking: bool = True,
    daily: bool = True,
    run_several: RunSeveral | None = None,
) -> dg.AssetsDefinition:
    """The asset of one stage.

    ``run_day`` gets the municipality, the billing day and the run id; ``run_several``, where a stage has it, some days
    of a range run at once: parts of days share transactions. ``checks`` are the stage's invariants, name to
    description; a blocking one that fails stops everything downstream of that day. ``table`` is what it writes, None
    for a stage that writes files. ``daily`` puts it into the billing day's own job.
    """

    @dg.asset(
        name=name,
        group_name=group,
        description=description,
        deps=[dg.AssetDep(dg.AssetKey(list(d) if not isinstance(d, str) else [d])) for d in deps],
        partitions_def=billing_days(),
        check_specs=[
            dg.AssetCheckSpec(check, asset=name, description=about, blocking=blocking, partitions_def=billing_days())
            for check, about in checks.items()
        ],
        pool=policy.POOL,
        tags={"meter_pipeline/stage": "billing_day" if daily else "on_demand"},
        metadata=(table_metadata(table) if table else {}) | code_of(run_day),
    )
    def stage(
        context: dg.AssetExecutionContext, municipality: Municipality, pause_guard: PauseGuard
    ) -> Iterator[dg.MaterializeResult[Any] | dg.AssetCheckResult]:
        acting = municipality.acting_as(policy.ROLES[group])

        def at_boundary(days: list[date]) -> list[tuple[date, StageReport]]:
            for day in days:
                if ensure_present(municipality.database(), day):
                    context.log.info(
                        "billing day %s was archived: its partitions are restored, and go again with the next archiving",
                        day,
                    )
            if run_several is not None and len(days) > 1:
                return until_done(context, pause_guard, partial(run_several, acting, days, context.run.run_id))
            return [
                (day, until_done(context, pause_guard, partial(run_day, acting, day, context.run.run_id)))
                for day in days
            ]

        at_once = 1 if run_several is None else DAYS_AT_ONCE
        yield from run_days(context, list(checks), at_boundary, blocking=blocking, at_once=at_once)

    return stage


#: A stage that lost the server this often has another trouble than a restart.
MOST_LOSSES: Final = 5


def until_done(
    context: dg.AssetExecutionContext | dg.OpExecutionContext, pause_guard: PauseGuard, work: Callable[[], Done]
) -> Done:
    """Do ``work`` when no pause holds it.

    Where a pause was raised while it computed, or the server was restarted under it, its transaction is undone as a
    whole; it is done again from its start after the resume, or when the server answers (an unreachable flag is a pause,
    so that the wait is the same).
    """
    lost = 0
    while True:
        pause_guard.wait()
        try:
            return work()
        except PausedError as pause:
            context.log.info("%s", pause)
        except Exception as error:
            lost += 1
            if not connection_lost(error) or lost > MOST_LOSSES:
                raise
            context.log.warning(
                "the database went away (%s); begun again when it answers", " ".join(str(error).split())[:200]
            )
            pause_guard.after_a_loss()


def code_of(run_day: Callable[..., Any]) -> dict[str, Any]:
    """Where the stage itself is written: the asset's own function is this module's, the same for all."""
    run_day = run_day.func if isinstance(run_day, partial) else run_day
    path, line = inspect.getfile(run_day), inspect.getsourcelines(run_day)[1]
    written = dg.LocalFileCodeReference(file_path=path, line_number=line, label=Path(path).name)
    return {"dagster/code_references": dg.CodeReferencesMetadataValue(code_references=[written])}
