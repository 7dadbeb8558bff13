"""Dagster's entry point: ``defs``, and build_defs(**overrides) for tests."""

from __future__ import annotations

import warnings
from typing import Any

import dagster as dg

# What is in preview or beta in this minor line of Dagster is pinned and tested (pyproject.toml). Each process that
# loads the code printed some 70 lines of these warnings before the UI's first useful line.
for _kind in (dg.PreviewWarning, dg.BetaWarning):
    warnings.simplefilter("ignore", _kind)

from meter_pipeline.defs import catalogue  # noqa: E402 - the definitions warn when they are imported


def build_defs(*, executor: str | None = None, **resources: Any) -> dg.Definitions:
    """All definitions; keyword arguments replace resources by name, so that a test brings its own database.
    ``executor``: in_process, celery or k8s in place of METER_PIPELINE_EXECUTOR."""
    from meter_pipeline.defs.lib.run_guard import PauseGuard

    given = _resources() | resources
    # The hold asks the same database as the assets, also where a test brought its own.
    holds = {"pause_guard": PauseGuard(municipality=given["municipality"])}
    return catalogue.definitions(holds | given, executor)


def _resources() -> dict[str, Any]:
    from meter_pipeline.defs.lib.resources import Municipality

    return {"municipality": Municipality()}


defs = build_defs()
