"""Where things are: one object read from the environment, once, at the edge."""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass
from pathlib import Path

from meter_pipeline.calendar import BillingCalendar

PROJECT_ROOT = Path(__file__).resolve().parent.parent


class SettingsError(ValueError):
    """A setting that cannot be used, named with where it came from."""


@dataclass(frozen=True, slots=True)
class Utility:
    """The municipality: ``name``, IANA ``zone`` of its billing days, ISO 4217 ``currency``."""

    name: str
    zone: str
    currency: str


@dataclass(frozen=True, slots=True)
class Settings:
    """Paths and connections. ``home`` holds all that a run makes; ``data`` is the municipality's folder (reference,
    tariffs, head_ends, inbox).

    ``shards``: into how many parts a stage cuts a billing day; 0, the default, lets each stage keep to what its memory
    bears. ``shard_steps``: in how many steps of their own, which an engine may run on as many machines, a day's shards
    are judged before the day is written; 0, the default, in none. Neither changes a result.
    """

    home: Path
    data: Path
    inbox: Path
    database_url: str | None
    shards: int = 0
    shard_steps: int = 0

    @property
    def archive(self) -> Path:
        """Every file that ever arrived, compressed, by content hash."""
        return self.home / "archive"

    @property
    def days(self) -> Path:
        """Billing days that left the database, as Parquet."""
        return self.home / "days"

    @property
    def shard_files(self) -> Path:
        """Shards judged by steps of their own, until their day is written."""
        return self.home / "shards"

    @property
    def step_values(self) -> Path:
        """What a run's steps hand each other, until the last of them has it."""
        return self.home / "steps"

    @property
    def staging(self) -> Path:
        """Parsed files waiting for their billing days."""
        return self.home / "staging"

    @property
    def keys(self) -> Path:
        """Signing keys, 0600, never in the database."""
        return self.home / "keys"

    @property
    def head_ends(self) -> Path:
        return self.data / "head_ends"

    def utility(self) -> Utility:
        """The municipality's own settings. Raises SettingsError naming the file and field."""
        path = self.data / "utility.toml"
        try:
            raw = tomllib.loads(path.read_text("utf-8"))
        except FileNotFoundError as error:
            raise SettingsError(f"{path} is missing: point METER_PIPELINE_DATA at a municipality's folder") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise SettingsError(f"{path}: {error}") from error
        missing = [name for name in ("name", "zone", "currency") if not isinstance(raw.get(name), str)]
        if missing:
            raise SettingsError(f"{path}: {', '.join(missing)} missing")
        return Utility(raw["name"], raw["zone"], raw["currency"])

    def calendar(self) -> BillingCalendar:
        return BillingCalendar(self.utility().zone)


def load_settings() -> Settings:
    """Settings from METER_PIPELINE_HOME, METER_PIPELINE_DATA, METER_PIPELINE_INBOX, METER_PIPELINE_DATABASE_URL,
    METER_PIPELINE_SHARDS and METER_PIPELINE_SHARD_STEPS.

    Defaults: ``.meter_pipeline/`` and ``data/`` in the project, an inbox under the home (or inside the data folder
    where there is one), and the embedded server. Raises SettingsError where the number of shards is none.
    """
    shards = _count("METER_PIPELINE_SHARDS", 10_000, "0 to leave it to each stage")
    steps = _count("METER_PIPELINE_SHARD_STEPS", 1_000, "0 for none")
    home = Path(os.environ.get("METER_PIPELINE_HOME") or PROJECT_ROOT / ".meter_pipeline").expanduser().resolve()
    data = Path(os.environ.get("METER_PIPELINE_DATA") or PROJECT_ROOT / "data").expanduser().resolve()
    inbox = os.environ.get("METER_PIPELINE_INBOX")
    inside = data / "inbox"
    return Settings(
        home=home,
        data=data,
        inbox=Path(inbox).expanduser().resolve() if inbox else inside if inside.is_dir() else home / "inbox",
        database_url=os.environ.get("METER_PIPELINE_DATABASE_URL") or None,
        shards=shards,
        shard_steps=steps,
    )


def _count(name: str, most: int, otherwise: str) -> int:
    text = os.environ.get(name) or "0"
    if not text.isdecimal() or int(text) > most:
        raise SettingsError(f"{name} is {text!r}: a number up to {most}, or {otherwise}")
    return int(text)
