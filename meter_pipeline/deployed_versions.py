"""Versions in use: the program, the rules of validation, the head-ends' declarations, each by the hash of its
content.
"""

from __future__ import annotations

import hashlib
import os
from importlib import metadata
from pathlib import Path

from meter_pipeline.ledger.versions import Version
from meter_pipeline.packaged import CHECKOUT, packaged
from meter_pipeline.settings import Settings


def in_use(settings: Settings) -> list[Version]:
    """Every version that this deployment runs with now."""
    from meter_pipeline.vee.rules import thresholds

    found = [code()]
    rules = thresholds.default()
    found.append(
        Version("rule_version", "validation", {"rules": "validation", "version": rules.version, "sha256": rules.digest})
    )
    if settings.head_ends.is_dir():
        for path in sorted(settings.head_ends.glob("*.toml")):
            body = {"head_end": path.stem, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
            found.append(Version("head_end_version", path.stem, body))
    return found


def code() -> Version:
    """The program: its version, its commit where that is known (METER_PIPELINE_COMMIT in an image, else the checkout it
    runs from), and the hash of the lock file that names every dependency."""
    body = {
        "version": metadata.version("meter_pipeline"),
        "commit": os.environ.get("METER_PIPELINE_COMMIT") or (_checked_out(CHECKOUT / ".git") if CHECKOUT else None),
        "lock_sha256": hashlib.sha256(packaged("requirements.lock").read_bytes()).hexdigest(),
    }
    return Version("code_version", "meter_pipeline", body)


def _checked_out(git: Path) -> str | None:
    """The commit that a checkout's HEAD names, read from its files: git may not be installed where the program runs."""
    try:
        if git.is_file():  # a linked worktree names its folder
            git = (git.parent / git.read_text("utf-8").split(":", 1)[1].strip()).resolve()
        head = (git / "HEAD").read_text("utf-8").strip()
        if not head.startswith("ref: "):
            return head
        name = head.removeprefix("ref: ")
        common = git
        if (git / "commondir").exists():
            common = (git / (git / "commondir").read_text("utf-8").strip()).resolve()
        if (common / name).exists():
            return (common / name).read_text("utf-8").strip()
        packed = (common / "packed-refs").read_text("utf-8").splitlines()
        return next((line.split(" ")[0] for line in packed if line.endswith(f" {name}")), None)
    except (OSError, IndexError, UnicodeDecodeError):
        return None
