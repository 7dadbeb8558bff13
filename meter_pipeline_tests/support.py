"""What many tests share: where other people's files are, and small builders."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def fixtures_dir() -> Path:
    """The folder of real files made by others, beside the project; the test is skipped where it is absent."""
    folder = Path(os.environ.get("METER_PIPELINE_FIXTURES") or ROOT.parent / "shared" / "fixtures")
    if not folder.is_dir():
        pytest.skip(f"no fixtures at {folder}")
    return folder
