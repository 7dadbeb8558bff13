"""Settings of a deployment: read from its folder's utility.toml and from the environment.

A deployment is a folder with utility.toml. The nearest such folder at or above the working directory is used, or the
one that METER_PIPELINE_DEPLOYMENT names; in a checkout without one, the demo city in ``data/``. A value in the
environment wins over the file.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, Literal

from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.known_keys import unknown
from meter_pipeline.packaged import CHECKOUT

DEPLOYMENT: Final = "METER_PIPELINE_DEPLOYMENT"
_PREFIX: Final = "METER_PIPELINE_"

Source = Literal["environment", "utility.toml", "default"]


class SettingsError(ValueError):
    """A setting that cannot be used. The message names the setting, its source and the next step."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting. ``name`` in utility.toml's [settings]; METER_PIPELINE_NAME in the environment."""

    name: str
    meaning: str
    default: str = ""
    secret: bool = False

    @property
    def variable(self) -> str:
        """The environment variable."""
        return _PREFIX + self.name.upper()


#: Every setting, in the order of docs/settings.md, which is made from this list.
SETTINGS: Final[tuple[Setting, ...]] = (
    Setting("home", "Folder of all that runs make: embedded server, archive, staging, keys, logs.", ".meter_pipeline"),
    Setting("data", "The utility's folder: utility.toml, reference/, tariffs/, head_ends/.", "the deployment's folder"),
    Setting("inbox", "Folder where feed files arrive, one folder a head-end.", "inbox/ in data, else inbox/ in home"),
    Setting("database_url", "PostgreSQL to use, postgresql://USER@HOST/DATABASE.", "the embedded server", secret=True),
    Setting(
        "people_database_url",
        "The same database by a log-in that may act as meter_finance: what people decide goes through it.",
        "database_url",
        secret=True,
    ),
    Setting("token", "Your desk token, which proves who you are at the command line.", "", secret=True),
    Setting("approver_code", "A second person's code (people code), where a call names two.", "", secret=True),
    Setting(
        "dagster_url", "Storage of Dagster's own tables. Set by meter-pipeline for what it starts.", "", secret=True
    ),
    Setting("roles", "on: each service acts in its own database role (services up sets it).", "off"),
    Setting("thresholds", "TOML file of the rules that raise the emergency pause.", "control/thresholds.toml"),
    Setting(
        "automation", "on: schedules and sensors run the days by themselves.", "on in a deployment, off in a checkout"
    ),
    Setting("runs", "Runs at a time in the pool that the emergency pause closes.", "2"),
    Setting("shards", "Parts a stage cuts a billing day into, to bound its memory; 0: the stage decides.", "0"),
    Setting("executor", "Where a run's steps execute: in_process, celery, kubernetes.", "in_process"),
    Setting("broker", "Celery's message broker.", "pyamqp://guest@localhost:5672//", secret=True),
    Setting("results", "Celery's result backend.", "rpc://", secret=True),
    Setting("ledger_signer", "Socket of a signing service that holds the keys; empty: keys in home/keys.", ""),
    Setting("ledger_timestamp", "Command that stamps a checkpoint (RFC 3161): query on stdin, reply on stdout.", ""),
    Setting("desk_url", "Address of the finance desk, for links in the Dagster UI.", "http://127.0.0.1:3001"),
    Setting("desk_plain_http", "1: the desk may listen beyond this machine without TLS (a proxy has it).", ""),
    Setting("desk_proxy_header", "Header in which a trusted proxy names the person.", ""),
    Setting("desk_trusted_proxies", "Addresses of proxies whose header the desk believes.", ""),
    Setting("desk_token_hashes", "person:SHA-256 pairs of desk tokens, where no file holds them.", "", secret=True),
    Setting("webhook", "URL that alerts are posted to.", ""),
    Setting("webhook_secret", "Key that signs those posts (HMAC-SHA256).", "", secret=True),
    Setting("smtp", "Mail server of alerts, HOST:PORT.", ""),
    Setting("smtp_from", "Sender of alert mails.", "meter-pipeline@localhost"),
    Setting("smtp_to", "Receivers of alert mails, separated by commas.", ""),
    Setting("smtp_user", "User of the mail server.", ""),
    Setting("smtp_password", "Password of the mail server.", "", secret=True),
    Setting("legacy_folder", "Folder that dual write delivers bills to.", "to_legacy/ in home"),
    Setting("legacy_url", "Database of the legacy system that dual write delivers to.", "", secret=True),
    Setting("legacy_table", "Table of that database.", ""),
    Setting("commit", "Commit that an image was built from, for the ledger's record of the program.", "the checkout's"),
)
_BY_NAME: Final = {setting.name: setting for setting in SETTINGS}


#: Keys of utility.toml; further settings stand in its table [settings].
_OF_UTILITY: Final = ("name", "zone", "currency", "commodities", "first_billing_day", "locale", "settings")
#: How pages write dates and numbers where utility.toml does not say.
DEFAULT_LOCALE: Final = "en_US"
_LOCALE: Final = re.compile(r"[a-z]{2,3}([_-][A-Z][a-z]{3})?([_-]([A-Z]{2}|[0-9]{3}))?")


@dataclass(frozen=True, slots=True)
class Utility:
    """The municipality: ``name``, IANA ``zone`` of its billing days, ISO 4217 ``currency``, the first billing day
    that is read, validated and billed (None: from the first day that has reads), and the ``locale`` of pages (en_US).
    """

    name: str
    zone: str
    currency: str
    first_billing_day: date | None = None
    locale: str = DEFAULT_LOCALE


@dataclass(frozen=True, slots=True)
class Settings:
    """Paths and connections. ``home`` holds all that a run makes; ``data`` is the municipality's folder (reference,
    tariffs, head_ends).

    ``shards``: into how many parts a stage cuts a billing day; 0, the default, lets each stage keep to what its memory
    bears. That number changes no result.
    """

    home: Path
    data: Path
    inbox: Path
    database_url: str | None
    shards: int = 0

    @property
    def archive(self) -> Path:
        """Every file that ever arrived, compressed, by content hash."""
        return self.home / "archive"

    @property
    def days(self) -> Path:
        """Billing days that left the database, as Parquet."""
        return self.home / "days"

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
        """Declarations of the head-ends, one TOML file each."""
        return self.data / "head_ends"

    def utility(self) -> Utility:
        """The municipality's own settings. Raises SettingsError naming the file and field."""
        path = self.data / "utility.toml"
        raw = _read(path)
        for name in raw:
            if name not in _OF_UTILITY:
                raise SettingsError(f"{path}: {unknown(name, _OF_UTILITY)}")
        missing = [name for name in ("name", "zone", "currency") if not isinstance(raw.get(name), str)]
        if missing:
            raise SettingsError(f"{path}: {', '.join(missing)} missing")
        first = raw.get("first_billing_day")
        try:
            day = date.fromisoformat(first) if isinstance(first, str) else first
        except ValueError as error:
            raise SettingsError(f"{path}: first_billing_day is {first!r}, not a date like 2026-10-29") from error
        if day is not None and type(day) is not date:
            raise SettingsError(f"{path}: first_billing_day is {first!r}, not a date like 2026-10-29")
        locale = raw.get("locale", DEFAULT_LOCALE)
        if not isinstance(locale, str) or not _LOCALE.fullmatch(locale):
            raise SettingsError(f"{path}: locale is {locale!r}, not a language and country like en_US")
        return Utility(raw["name"], raw["zone"], raw["currency"], day, locale)

    def calendar(self) -> BillingCalendar:
        """Billing days in the utility's time zone. Raises SettingsError for a zone that does not exist."""
        zone = self.utility().zone
        try:
            return BillingCalendar(zone)
        except ValueError as error:
            raise SettingsError(f"{self.data / 'utility.toml'}: {error}") from error


def deployment_folder() -> Path | None:
    """The deployment's folder: METER_PIPELINE_DEPLOYMENT, else the nearest folder with utility.toml at or above
    the working directory. None where there is none."""
    if named := os.environ.get(DEPLOYMENT):
        return Path(named).expanduser().resolve()
    here = Path.cwd().resolve()
    for folder in (here, *here.parents):
        if (folder / "utility.toml").is_file():
            return folder
    return None


def load_settings() -> Settings:
    """Settings of the deployment in use. The file's values are put into this process's environment, so that every part
    and every process it starts sees the same ones.

    Raises SettingsError for an unknown name, a value that cannot be used, or no deployment at all.
    """
    folder = deployment_folder()
    if folder is not None and folder != (CHECKOUT and CHECKOUT / "data"):
        os.environ.setdefault(DEPLOYMENT, str(folder))
        for name, value in file_settings(folder).items():
            os.environ.setdefault(_BY_NAME[name].variable, value)
    return from_environment(os.environ, folder)


def from_environment(environment: Mapping[str, str], folder: Path | None) -> Settings:
    """Settings from variables alone; ``folder`` gives the defaults of home and data."""
    demo = CHECKOUT is not None and (folder is None or folder == CHECKOUT / "data")
    base = CHECKOUT if demo else folder
    given = {name: environment.get(_PREFIX + name) for name in ("HOME", "DATA", "INBOX", "DATABASE_URL")}
    if base is None and not (given["HOME"] and given["DATA"]):
        raise SettingsError("no utility.toml here or above, and METER_PIPELINE_DEPLOYMENT is not set")
    root = base or Path.cwd()
    home = Path(given["HOME"] or root / ".meter_pipeline").expanduser().resolve()
    data = Path(given["DATA"] or (root / "data" if demo else root)).expanduser().resolve()
    inside = data / "inbox"
    return Settings(
        home=home,
        data=data,
        inbox=Path(given["INBOX"] or (inside if inside.is_dir() else home / "inbox")).expanduser().resolve(),
        database_url=given["DATABASE_URL"] or None,
        shards=_count(environment, "METER_PIPELINE_SHARDS", 10_000, "0 to leave it to each stage"),
    )


def automation_on(environment: Mapping[str, str] | None = None) -> bool:
    """Whether schedules and sensors start switched on. A person's switch in the Dagster UI wins later."""
    env = os.environ if environment is None else environment
    value = env.get("METER_PIPELINE_AUTOMATION", "").lower()
    return value in ("on", "1", "true", "yes") if value else DEPLOYMENT in env


def file_settings(folder: Path) -> dict[str, str]:
    """The [settings] of a folder's utility.toml as text. Relative paths are made absolute from the folder. Raises
    SettingsError naming an unknown setting and the nearest known one."""
    path = folder / "utility.toml"
    table = _read(path).get("settings", {})
    if not isinstance(table, dict):
        raise SettingsError(f"{path}: [settings] is not a table")
    found: dict[str, str] = {}
    for name, value in table.items():
        if name not in _BY_NAME:
            near = get_close_matches(name, _BY_NAME, 1)
            raise SettingsError(f"{path}: unknown setting {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
        if isinstance(value, (dict, list)):
            raise SettingsError(f"{path}: {name} is not a text or a number")
        text = {True: "on", False: "off"}.get(value, str(value)) if isinstance(value, bool) else str(value)
        if name in ("home", "data", "inbox", "thresholds", "legacy_folder"):
            text = str((folder / Path(text).expanduser()).resolve())
        found[name] = text
    return found


def in_force(environment: Mapping[str, str], folder: Path | None) -> list[tuple[Setting, str, Source]]:
    """Every setting with its value and where the value comes from. A secret's value is shown as ``set``."""
    written = file_settings(folder) if folder and (folder / "utility.toml").is_file() else {}
    rows: list[tuple[Setting, str, Source]] = []
    for setting in SETTINGS:
        variable, filed = environment.get(setting.variable), written.get(setting.name)
        value = variable or filed or setting.default
        source: Source = "default"
        if variable:
            source = "utility.toml" if variable == filed else "environment"
        elif filed:
            source = "utility.toml"
        rows.append((setting, "set" if setting.secret and source != "default" else value, source))
    return rows


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise SettingsError(f"{path} is missing: point METER_PIPELINE_DATA at a municipality's folder") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: {error}") from error


def _count(environment: Mapping[str, str], name: str, most: int, otherwise: str) -> int:
    text = environment.get(name) or "0"
    if not text.isdecimal() or int(text) > most:
        raise SettingsError(f"{name} is {text!r}: a number up to {most}, or {otherwise}")
    return int(text)
