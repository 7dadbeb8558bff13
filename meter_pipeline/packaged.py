"""Files that ship with the package: SQL migrations, Dagster's configuration, the demo city, the auditor's program.

In a checkout they lie beside the package, in a wheel under ``_packaged/`` (pyproject.toml, force-include).
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

_PACKAGE: Final = Path(__file__).resolve().parent

#: The checkout this package runs from; None where it was installed from a wheel.
CHECKOUT: Final[Path | None] = _PACKAGE.parent if (_PACKAGE.parent / "sql" / "migrations").is_dir() else None


def packaged(name: str) -> Path:
    """Path of a shipped file or folder: ``sql/migrations``, ``dagster.yaml``, ``workspace.yaml``, ``data``,
    ``tools/verify_ledger.py``, ``requirements.lock``. Raises FileNotFoundError where the installation lacks it."""
    path = (CHECKOUT or _PACKAGE / "_packaged") / name
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: install the package again")
    return path
