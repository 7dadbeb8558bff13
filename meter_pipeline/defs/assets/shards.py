"""A billing day's shards judged in steps of their own, one step a worker, before the stage that writes the day."""

import shutil
from collections.abc import Iterator
from datetime import date
from typing import Any, Final

import dagster as dg

from meter_pipeline.defs.lib import policy
from meter_pipeline.defs.lib.executors import IN_PROCESS
from meter_pipeline.defs.lib.partitions import billing_days
from meter_pipeline.defs.lib.resources import Municipality
from meter_pipeline.defs.lib.run_guard import Hold
from meter_pipeline.defs.lib.stage_asset import code_of, until_done
from meter_pipeline.settings import Settings, load_settings
from meter_pipeline.vee.spread import Beforehand, Step, judge_step

NAME: Final = "judged_shards"
# : Resource that carries the steps' few numbers: in the home folder, which all workers share; Dagster's own storage
# folder may be each machine's own
VALUES: Final = "step_values"


def step_values() -> dg.FilesystemIOManager:
    """Carries numbers from step to step."""
    return dg.FilesystemIOManager(base_dir=str(load_settings().step_values))


def beforehand(settings: Settings, steps: int) -> Beforehand | None:
    """Where the steps leave their shards, None where there are no such steps."""
    return Beforehand(settings.shard_files, steps) if steps else None


def _judge(municipality: Municipality, day: date, steps: int, number: int) -> Step:
    settings = municipality.settings()
    left = Beforehand(settings.shard_files, steps)
    return judge_step(
        municipality.database(),
        municipality.calendar(),
        day,
        left,
        number,
        shards=settings.shards,
        clock=municipality.clock(),
    )


def judged_shards(steps: int, engine: str) -> dg.AssetsDefinition:
    """``steps`` dynamic steps between raw_reads and validated_intervals.

    Steps of one run have its billing days together (a shared hold) where each is a process of its own; in one process
    they have the run's own.
    """
    hold_key = "hold" if engine == IN_PROCESS else "shard_hold"

    @dg.op(
        ins={"raw_reads": dg.In(dg.Nothing)},
        out=dg.DynamicOut(int, io_manager_key=VALUES),
        pool=policy.POOL,
        description="One number for each step.",
    )
    def cut_shards() -> Iterator[dg.DynamicOutput[int]]:
        for number in range(steps):
            yield dg.DynamicOutput(number, mapping_key=str(number))

    @dg.op(
        out=dg.Out(dict[str, int], io_manager_key=VALUES),
        pool=policy.POOL,
        required_resource_keys={"municipality", hold_key},
        description="Judge one step's shards of each of the run's billing days, and leave them for validated_intervals.",
    )
    def judge_shards(context: dg.OpExecutionContext, number: int) -> dict[str, int]:
        municipality: Municipality = context.resources.municipality
        hold: Hold = getattr(context.resources, hold_key)
        acting = municipality.acting_as(policy.ROLES[policy.VALIDATION])
        totals = {"shards": 0, "rows": 0, "bytes": 0}
        for key in context.partition_keys:
            day = date.fromisoformat(key)
            step = until_done(context, hold, lambda day=day: _judge(acting, day, steps, number))  # type: ignore[misc]
            done = {"rows": step.rows, "shards": step.shards, "bytes": step.size}
            context.log.info("%s, step %d of %d: %s", key, number + 1, steps, done)
            totals = {name: totals[name] + done[name] for name in totals}
        return totals

    @dg.op(
        out=dg.Out(dg.Nothing),
        pool=policy.POOL,
        required_resource_keys={"municipality"},
        description="What all steps left.",
    )
    def gather_shards(context: dg.OpExecutionContext, done: list[dict[str, int]]) -> None:
        municipality: Municipality = context.resources.municipality
        shutil.rmtree(municipality.settings().step_values / context.run_id, ignore_errors=True)
        context.add_output_metadata(
            {name: sum(one[name] for one in done) for name in ("shards", "rows", "bytes")} | {"steps": len(done)}
        )

    @dg.graph_asset(
        name=NAME,
        ins={"raw_reads": dg.AssetIn("raw_reads", dagster_type=dg.Nothing)},
        group_name=policy.VALIDATION,
        description=(
            f"The billing day's shards (ranges of service points), judged by {steps} steps at once and left as files for validated_intervals, which "
            "takes those that were made of what it knows itself and judges the others. No table: a step that fails costs time, not data."
        ),
        owners=policy.ANALYSTS,
        kinds={"polars", "file"},
        partitions_def=billing_days(),
        tags={"meter_pipeline/stage": "billing_day"},
        metadata=code_of(_judge),
    )
    def shards(raw_reads: Any) -> Any:
        return gather_shards(cut_shards(raw_reads).map(judge_shards).collect())

    return shards
