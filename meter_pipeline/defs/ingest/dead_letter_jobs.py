"""Finance's jobs on dead letters: list, show, correct, replay, dismiss from the Launchpad, with typed configuration.

None of these is in the pause's pool. List and show only read; correct and dismiss change no read; a replay stages
reads, which wait for their billing day's run, and that run is in the pool. What a head-end sent is shown with
everything escaped that could steer a page or a terminal.
"""

from typing import Any, Final

import dagster as dg
import polars as pl
from pydantic import Field

from meter_pipeline.control import decisions
from meter_pipeline.control.people import Refused
from meter_pipeline.defs.lib import policy
from meter_pipeline.defs.lib.people import acting
from meter_pipeline.defs.lib.report_metadata import table
from meter_pipeline.defs.lib.resources import Municipality
from meter_pipeline.ingest import dead_letters as work
from meter_pipeline.ingest.tables import dead_letters

_STATES: Final = ("open", "corrected", "replayed", "dismissed")
#: Rows of a list in metadata; the event log keeps each run's.
_MOST: Final = 50


class ListDeadLetters(dg.Config):
    """Which dead letters to list."""

    status: str = Field(default="open", description="open, corrected, replayed, dismissed or all.")
    reason: str = Field(default="", description="Only this reason code; empty for all.")
    head_end: str = Field(default="", description="Only this head-end; empty for all.")
    limit: int = Field(default=_MOST, ge=1, le=_MOST, description="At most so many, oldest first.")


class ShowDeadLetter(dg.Config):
    """Which dead letter to show."""

    key: str = Field(description="Its key, or enough of the key's first digits.")


class CorrectDeadLetter(dg.Config):
    """Settings of a correction: the right content of a payload."""

    key: str = Field(description="Its key, or enough of the key's first digits.")
    content: str = Field(
        description="The corrected content: the whole line, or the JSON object of a canonical payload."
    )
    by: str = Field(description="Who you are.")
    code: str = Field(default="", description=policy.CODE)
    reason: str = Field(description="Why, for the ledger.")


class ReplayDeadLetters(dg.Config):
    """Which payloads to send through ingestion again: one by its key, or all of a reason."""

    by: str = Field(description="Who you are.")
    code: str = Field(default="", description=policy.CODE)
    key: str = Field(default="", description="Its key, or enough of the key's first digits.")
    all_with_reason: str = Field(
        default="", description="Instead of a key: every open or corrected one with this reason code."
    )


class DismissDeadLetter(dg.Config):
    """Which payload to close without loading it."""

    key: str = Field(description="Its key, or enough of the key's first digits.")
    by: str = Field(description="Who you are.")
    code: str = Field(default="", description=policy.CODE)
    reason: str = Field(description="Why, for the ledger.")


@dg.op(out=dg.Out(dg.Nothing))
def list_letters(context: dg.OpExecutionContext, config: ListDeadLetters, municipality: Municipality) -> None:
    """Counts by reason and the oldest dead letters, as tables."""
    if config.status not in (*_STATES, "all"):
        raise dg.Failure(f"status {config.status!r} is not one of {', '.join(_STATES)}, all", allow_retries=False)
    wanted = [] if config.status == "all" else [config.status]
    with municipality.database().connect("dead-letters", autocommit=True) as connection:
        letters = dead_letters.find(
            connection,
            status=wanted,
            reason=config.reason or None,
            head_end=config.head_end or None,
            limit=config.limit,
        )
        counts = dead_letters.counts(connection)
    by_reason = pl.DataFrame(
        counts,
        schema={
            "status": pl.String,
            "head_end": pl.String,
            "reason": pl.String,
            "letters": pl.Int64,
            "reads": pl.Int64,
        },
        orient="row",
    )
    schema = {
        "key": pl.String,
        "status": pl.String,
        "file": pl.String,
        "line": pl.Int64,
        "meter": pl.String,
        "reads": pl.Int64,
        "reasons": pl.String,
        "begins": pl.String,
    }
    rows = [
        (
            x.key.hex()[:12],
            x.status,
            x.file_name,
            x.line,
            x.meter_id,
            x.reads,
            "; ".join(f"{c}: {d}" for c, d in x.reasons)[:300],
            dead_letters.shown(x.raw, 80),
        )
        for x in letters
    ]
    metadata: dict[str, Any] = {
        "open": sum(n for status, _, _, n, _ in counts if status == "open"),
        "by reason": table(by_reason),
    }
    if rows:
        metadata["oldest"] = table(pl.DataFrame(rows, schema=schema, orient="row"))
    context.log.info("%d listed", len(rows))
    context.add_output_metadata(metadata)


@dg.op(out=dg.Out(dg.Nothing))
def show_letter(context: dg.OpExecutionContext, config: ShowDeadLetter, municipality: Municipality) -> None:
    """One dead letter: its bytes, where they came from, every reason."""
    try:
        letter = work.show(municipality.database(), config.key)
    except (work.DeadLetterError, Refused) as error:
        raise dg.Failure(str(error), allow_retries=False) from error
    context.add_output_metadata(_metadata_of(letter))


@dg.op(out=dg.Out(dg.Nothing))
def correct_letter(context: dg.OpExecutionContext, config: CorrectDeadLetter, municipality: Municipality) -> None:
    """Store the right content of a payload; a replay loads it."""
    try:
        person = acting(municipality, ("correct", config.key), config.by, config.code, decisions.WORK)
        letter = work.correct(
            municipality.database(),
            config.key,
            config.content.encode(),
            by=person,
            reason=config.reason,
            clock=municipality.clock(),
        )
    except (work.DeadLetterError, Refused) as error:
        raise dg.Failure(str(error), allow_retries=False) from error
    context.add_output_metadata(_metadata_of(letter))


@dg.op(out=dg.Out(dg.Nothing))
def replay_letters(context: dg.OpExecutionContext, config: ReplayDeadLetters, municipality: Municipality) -> None:
    """Send payloads through ingestion again, each once however often asked. Those still at fault change nothing and
    fail the run."""
    if bool(config.key) == bool(config.all_with_reason):
        raise dg.Failure("give a key or all_with_reason", allow_retries=False)
    settings = municipality.settings()
    from meter_pipeline.feeds import read_head_ends
    from meter_pipeline.ingest import FileFolders

    database, calendar, clock = municipality.database(), municipality.calendar(), municipality.clock()
    places, head_ends = FileFolders(settings.archive, settings.staging), read_head_ends(settings.head_ends)
    try:
        about = ("replay", config.key or config.all_with_reason)
        person = acting(municipality, about, config.by, config.code, decisions.WORK)
        if config.key:
            done = [
                work.replay(
                    database,
                    calendar,
                    places,
                    head_ends,
                    config.key,
                    by=person,
                    clock=clock,
                    run_id=context.run.run_id,
                )
            ]
        else:
            done = work.replay_many(
                database, calendar, places, head_ends, by=person, reason=config.all_with_reason, clock=clock
            )
    except (work.DeadLetterError, Refused) as error:
        raise dg.Failure(str(error), allow_retries=False) from error
    schema = {"key": pl.String, "outcome": pl.String, "reads": pl.Int64, "days": pl.String, "why": pl.String}
    rows = [
        (
            r.key.hex()[:12],
            "again at fault" if r.rejected else "done before" if r.already else "replayed",
            r.reads,
            ", ".join(map(str, r.days[:5])),
            "; ".join(f"{code}: {detail}" for code, detail in r.rejected[:3])[:300],
        )
        for r in done
    ]
    faulty = sum(bool(r.rejected) for r in done)
    metadata: dict[str, Any] = {
        "replayed": sum(not r.rejected and not r.already for r in done),
        "done before": sum(r.already for r in done),
        "again at fault": faulty,
    }
    if rows:
        metadata["replays"] = table(pl.DataFrame(rows, schema=schema, orient="row"))
    context.add_output_metadata(metadata)
    if faulty:
        words = next(row[4] for row in rows if row[4])
        raise dg.Failure(
            f"{faulty} of {len(done)} are still at fault and stay open: {words}", metadata=metadata, allow_retries=False
        )


@dg.op(out=dg.Out(dg.Nothing))
def dismiss_letter(context: dg.OpExecutionContext, config: DismissDeadLetter, municipality: Municipality) -> None:
    """Close a payload without loading it; its reads stay rejected in the file's control total."""
    try:
        person = acting(municipality, ("dismiss", config.key), config.by, config.code, decisions.WORK)
        letter = work.dismiss(
            municipality.database(), config.key, by=person, reason=config.reason, clock=municipality.clock()
        )
    except (work.DeadLetterError, Refused) as error:
        raise dg.Failure(str(error), allow_retries=False) from error
    context.add_output_metadata(_metadata_of(letter))


def _metadata_of(letter: dead_letters.DeadLetter) -> dict[str, Any]:
    """A dead letter as metadata."""
    metadata: dict[str, Any] = {
        "key": letter.key.hex(),
        "status": letter.status,
        "file": letter.file_name,
        "head end": letter.head_end,
        "format": letter.file_format,
        "reads": letter.reads,
        "raw": dead_letters.shown_content(letter.raw, letter.raw_format),
        "rule version": letter.rule_version,
        "first seen": letter.first_seen.isoformat(),
        "last seen": letter.last_seen.isoformat(),
        "times": letter.times,
        "reasons": table(
            pl.DataFrame(list(letter.reasons), schema={"code": pl.String, "detail": pl.String}, orient="row")
        ),
    }
    optional: dict[str, Any] = {
        "line": letter.line,
        "byte offset": letter.byte_offset,
        "meter": letter.meter_id,
        "channel": letter.channel,
        "run": letter.run_id,
        "corrected to": None
        if letter.corrected_raw is None
        else dead_letters.shown_content(letter.corrected_raw, letter.raw_format),
        "changed by": letter.changed_by,
        "change reason": letter.change_reason,
        "replayed as": None if letter.replay_sha256 is None else letter.replay_sha256.hex(),
    }
    return metadata | {k: v for k, v in optional.items() if v is not None}


@dg.job(executor_def=dg.in_process_executor, description="Dead letters: how many by reason, and the oldest.")
def dead_letters_list() -> None:
    list_letters()


@dg.job(
    executor_def=dg.in_process_executor, description="One dead letter: its bytes, where they came from, every reason."
)
def dead_letters_show() -> None:
    show_letter()


@dg.job(
    executor_def=dg.in_process_executor,
    description="Store the corrected content of a payload. It is loaded when it is replayed.",
)
def dead_letters_correct() -> None:
    correct_letter()


@dg.job(
    executor_def=dg.in_process_executor,
    description="Load payloads again. Repeating the job loads no payload twice.",
)
def dead_letters_replay() -> None:
    replay_letters()


@dg.job(executor_def=dg.in_process_executor, description="Close a payload without loading it.")
def dead_letters_dismiss() -> None:
    dismiss_letter()


JOBS: Final = (dead_letters_list, dead_letters_show, dead_letters_correct, dead_letters_replay, dead_letters_dismiss)
