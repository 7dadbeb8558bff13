"""What the code of every room keeps to: few parameters, short modules."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from importlib import import_module

from meter_pipeline_tests.support import ROOT

MOST_PARAMETERS = 7
MOST_LINES = 500
#: Longer modules, and why
LONG = {
    "feeds/kernels.py": "compiled loops that call one another: numba compiles them together",
    "feeds/kernels_json.py": "compiled loops that call one another: numba compiles them together",
}
COMMAND = "a command's options are its parameters"
STAGE = (
    "an entry point of a stage: database, calendar and day, then settings by keyword with defaults, which tests replace"
)
ROW = "the columns of one row, by keyword"
DECISION = "a decision as it is recorded: what, by whom, why, and the code that carries it out"
MATRIX = "arrays over the same points and days that are made and used together, by keyword"
#: Functions with more than seven parameters, and why
REASONS = {
    "anomalies/day.py:_write": MATRIX,
    "anomalies/plots.py:case_png": MATRIX,
    "baselines/station_fit.py:_fit": MATRIX,
    "baselines/group.py:fit_group": MATRIX,
    "baselines/predict.py:expected_usage": MATRIX,
    "billing/recalculate.py:carry_forward": STAGE,
    "cli/exceptions.py:_decide": COMMAND,
    "control/dual_control.py:request": DECISION,
    "control/flags.py:_write": DECISION,
    "control/pause.py:_add_evidence": DECISION,
    "control/tables/pauses.py:insert_pause": ROW,
    "control/tables/dual_requests.py:insert_request": ROW,
    "control/tables/flags.py:put_flag": ROW,
    "defs/lib/stage_asset.py:stage_asset": "what Dagster shows of an asset, by keyword",
    "ingest/dead_letters.py:replay": STAGE,
    "ingest/landing.py:land": STAGE,
    "ingest/landing.py:prepare_file": STAGE,
    "ingest/tables/dead_letters.py:change": ROW,
    "ledger/day.py:checkpoint_billing_day": STAGE,
    "ledger/verification.py:verify": STAGE,
    "migration/defects.py:record": DECISION,
    "simulator/effects.py:_intervals": MATRIX,
    "simulator/in_memory.py:_hours": MATRIX,
    "vee/day.py:validate_billing_day": STAGE,
    "vee/edits.py:edit": DECISION,
    "vee/estimation/methods.py:fill_days": MATRIX,
    "vee/register_edits.py:edit_read": DECISION,
    "vee/registers/assemble.py:_day_rows": MATRIX,
    "vee/registers/assemble.py:assemble": MATRIX,
    "vee/registers/true_up.py:_compare": MATRIX,
    "vee/streaming.py:read_day_context": STAGE,
    "vee/tables/edits.py:insert": ROW,
    "vee/tables/edits.py:insert_read": ROW,
    "vee/tables/validated.py:write_intervals": STAGE,
    "vee/validate.py:_scale_in_stretch": MATRIX,
    "vee/validate.py:validate_matrix": MATRIX,
}
#: Modules of compiled loops, and folders whose functions are commands
_KERNELS, _COMMANDS = ("kernels", "kernels_json", "kernels_nem12"), ("cli",)


def test_no_function_has_more_than_seven_parameters_without_a_reason() -> None:
    found = {place for place, parameters in _functions() if parameters > MOST_PARAMETERS}
    without = sorted(found - set(REASONS))
    assert not without, f"group their parameters, or name a reason in {__name__}"
    assert not sorted(set(REASONS) - found), "these need a reason no more"


def test_no_module_is_longer_than_five_hundred_lines_without_a_reason() -> None:
    package = ROOT / "meter_pipeline"
    lines = {str(path.relative_to(package)): len(path.read_text().splitlines()) for path in package.rglob("*.py")}
    long = {name for name, count in lines.items() if count > MOST_LINES}
    assert not sorted(long - set(LONG)), "split what has two jobs"
    assert not sorted(set(LONG) - long), "these need a reason no more"


def test_the_map_names_every_room_and_every_module_at_the_top_and_no_other() -> None:
    package, page = ROOT / "meter_pipeline", (ROOT / "docs" / "architecture.md").read_text()
    drawn = page[page.index("```\nmeter_pipeline/") : page.index("meter_pipeline_tests/")]
    rooms = {path.name for path in package.iterdir() if (path / "__init__.py").exists()}
    tops = {path.name for path in package.glob("*.py")} - {"__init__.py"}
    assert set(re.findall(r"^  ([a-z_]+)/", drawn, re.M)) == rooms
    named = {
        word
        for line in drawn.splitlines()
        if re.match(r"  [a-z_]+\.py", line)
        for word in re.findall(r"[a-z_]+\.py", line)
    }
    assert named == tops


def test_every_name_that_a_room_gives_can_be_imported() -> None:
    """Rooms import their names on first use (lazy.py), so that a wrong one is not seen when the room is loaded."""
    for path in sorted((ROOT / "meter_pipeline").glob("*/__init__.py")):
        room = import_module(f"meter_pipeline.{path.parent.name}")
        missing = [name for name in getattr(room, "__all__", ()) if not hasattr(room, name)]
        assert not missing, room.__name__


def _functions() -> Iterator[tuple[str, int]]:
    """Place and number of parameters of every function, without compiled loops and commands."""
    package = ROOT / "meter_pipeline"
    for path in sorted(package.rglob("*.py")):
        if path.stem in _KERNELS:
            continue
        room = path.relative_to(package)
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            if any("compiled" in ast.unparse(d) or "njit" in ast.unparse(d) for d in node.decorator_list):
                continue
            command = room.parts[0] in _COMMANDS and not node.name.startswith("_")
            names = [a.arg for a in [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]]
            if not command:
                yield f"{room}:{node.name}", len([n for n in names if n not in ("self", "cls")])
