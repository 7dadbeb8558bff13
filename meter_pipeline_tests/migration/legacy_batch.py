"""The batch a municipality wants to leave: one read at a time, one commit a night, and habits nobody remembers the
reason of.

Quirks, each of which a comparison must explain:

* A read is kept under its local wall clock. In the repeated hour of autumn the second read overwrites the first: an
  hour is lost (LEG-DST).
* A day must hold 24 hours of intervals. One that does not (a gap, or the 23 hours of spring) is billed by its registers
  and called estimated.
* The last file wins, whatever its version says.
* A meter exchange is noticed the next morning: the day's usage is that of the meter that stood there at its start
  (LEG-EXCHANGE).
* Lines are rounded to cents every night, and the total is the sum of rounded lines. Where a tariff document rounds its
  lines, what is rounded is
  each tier of the period so far, as the document asks; where it does not (electricity), the night's own amount.
* Time-of-use, demand and net billing are done by hand: such a service gets reads and usage, no lines, and its account
  no total.
"""

from __future__ import annotations

import csv
import json
import math
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

_TABLES: Final = """
CREATE TABLE IF NOT EXISTS reads (meter TEXT, channel TEXT, wall TEXT, value REAL, PRIMARY KEY (meter, channel, wall));
CREATE TABLE IF NOT EXISTS dials (meter TEXT, channel TEXT, wall TEXT, value REAL, PRIMARY KEY (meter, channel, wall));
CREATE TABLE IF NOT EXISTS files (name TEXT PRIMARY KEY, rows INTEGER, bad INTEGER);
CREATE TABLE IF NOT EXISTS position (point TEXT, tariff TEXT, period TEXT, quantity REAL, PRIMARY KEY (point, tariff, period));
CREATE TABLE IF NOT EXISTS results (day TEXT, account TEXT, level TEXT, code TEXT, value TEXT, estimated TEXT, version TEXT);
"""
#: rows read from a file before they are its meter, channel, local wall clock and value
Row = tuple[str, str, datetime, float]
_BY_HAND: Final = ("E-TOU", "E-COM", "E-NEM")


@dataclass(frozen=True, slots=True)
class NightlyRun:
    """What one night made: figures written, reads loaded, lines of files that were skipped without a word."""

    day: date
    figures: int
    loaded: int
    skipped: int


class LegacyBatch:
    """The job over one city folder (as ``simulate`` writes it), keeping its tables in the SQLite file ``database``."""

    def __init__(self, city: Path, database: Path) -> None:
        self._city = city
        self._db = sqlite3.connect(database)
        self._db.executescript(_TABLES)
        self._tables = {
            p.stem: list(csv.DictReader(p.open(encoding="utf-8"))) for p in sorted((city / "reference").glob("*.csv"))
        }
        zone = next(line for line in (city / "utility.toml").read_text("utf-8").splitlines() if line.startswith("zone"))
        self._zone = ZoneInfo(zone.split('"')[1])
        self._loaded = self._skipped = 0

    def close(self) -> None:
        self._db.close()

    def run_night(self, day: date) -> NightlyRun:
        """Load what came since the last night and bill one day. Nights must follow each other: amounts build on the day
        before's."""
        self._loaded = self._skipped = 0
        arrived = f"{day + timedelta(days=1):%Y%m%d}T9999"
        for path in sorted((self._city / "inbox").rglob("*"), key=lambda p: p.name):
            if path.is_file() and path.name <= arrived:
                self._load(path)
        self._db.execute("DELETE FROM results WHERE day = ?", (day.isoformat(),))
        totals: dict[str, float] = {}
        by_hand = {a["account_id"] for a in self._tables["agreements"] if a["tariff_id"] in _BY_HAND}
        for agreement in self._tables["agreements"]:
            if agreement["valid_from"] <= day.isoformat() and (
                not agreement["valid_to"] or day.isoformat() < agreement["valid_to"]
            ):
                self._bill(day, agreement, totals)
        for account, amount in sorted((a, t) for a, t in totals.items() if a not in by_hand):
            self._result(day, account, "total", "total", f"{amount:.2f}", estimated=False)
        self._db.commit()
        [figures] = self._db.execute("SELECT count(*) FROM results WHERE day = ?", (day.isoformat(),)).fetchone()
        return NightlyRun(day, int(figures), self._loaded, self._skipped)

    def export_csv(self, day: date, path: Path) -> int:
        """Write a night's results as account_id, level, code, value, estimated, tariff_version; how many."""
        rows = self._db.execute(
            "SELECT account, level, code, value, estimated, version FROM results WHERE day = ? ORDER BY account, level, code",
            (day.isoformat(),),
        ).fetchall()
        with path.open("w", encoding="utf-8", newline="") as handle:
            writer = csv.writer(handle, lineterminator="\n")
            writer.writerow(("account_id", "level", "code", "value", "estimated", "tariff_version"))
            writer.writerows(rows)
        return len(rows)

    def take_over(self, folder: Path) -> int:
        """Take bills another system made, from CSV files of billing_day and the columns of an export, in order of their
        names; how many rows."""
        taken = 0
        for path in sorted(folder.glob("*.csv")):
            with path.open(encoding="utf-8", newline="") as handle:
                rows = list(csv.DictReader(handle))
            for day, account in sorted({(r["billing_day"], r["account_id"]) for r in rows}):
                self._db.execute(
                    "DELETE FROM results WHERE day = ? AND account = ? AND level IN ('line', 'total')", (day, account)
                )
            for r in rows:
                values = tuple(
                    r[c] for c in ("billing_day", "account_id", "level", "code", "value", "estimated", "tariff_version")
                )
                self._db.execute("INSERT INTO results VALUES (?, ?, ?, ?, ?, ?, ?)", values)
            taken += len(rows)
        self._db.commit()
        return taken

    def bills(self, day: date) -> dict[str, list[tuple[str, str, str]]]:
        """The lines and total the batch holds for each account: level, code, value."""
        found: dict[str, list[tuple[str, str, str]]] = {}
        query = "SELECT account, level, code, value FROM results WHERE day = ? AND level IN ('line', 'total') ORDER BY 1, 2, 3"
        for account, *figure in self._db.execute(query, (day.isoformat(),)):
            found.setdefault(account, []).append(tuple(figure))
        return found

    def _load(self, path: Path) -> None:
        if self._db.execute("SELECT 1 FROM files WHERE name = ?", (path.name,)).fetchone():
            return
        register = path.parent.name.startswith("REG-") or path.parent.name == "AMR"
        table = "dials" if register else "reads"
        loaded = bad = 0
        for row in self._rows(path, register):
            if row is None:
                bad += 1
                continue
            meter, channel, wall, value = row
            # One statement a read, as the job has always done it.
            self._db.execute(
                f"INSERT OR REPLACE INTO {table} VALUES (?, ?, ?, ?)",
                (meter, channel, wall.strftime("%Y-%m-%d %H:%M"), value),
            )
            loaded += 1
        self._db.execute("INSERT INTO files VALUES (?, ?, ?)", (path.name, loaded, bad))
        self._loaded += loaded
        self._skipped += bad

    def _rows(self, path: Path, register: bool) -> Iterator[Row | None]:
        text = path.read_bytes().decode("latin-1")
        if path.suffix == ".jsonl":
            for line in text.splitlines():
                read = json.loads(line)
                yield read["meter"], read["channel"], self._local(read["start"]), float(read["value"])
        elif path.name.endswith(".nem12.csv"):
            yield from self._nem12(text)
        elif path.suffix == ".cmep":
            yield from self._cmep(text)
        else:
            ends_interval = path.parent.name == "GAS"
            for cells in csv.reader(text.splitlines()[1:]):
                try:
                    value = float(cells[3])
                    wall = self._local(cells[2])
                    if not math.isfinite(value):
                        raise ValueError(cells[3])
                except (ValueError, IndexError):
                    yield None
                    continue
                if ends_interval:
                    wall, value = wall - timedelta(hours=1), value * 100
                yield cells[0], cells[1], wall, value

    def _local(self, stamp: str) -> datetime:
        moment = datetime.fromisoformat(stamp)
        if moment.tzinfo is None:
            return moment
        return moment.astimezone(self._zone).replace(tzinfo=None)

    def _nem12(self, text: str) -> Iterator[Row | None]:
        declaration = (self._city / "head_ends" / "mdp.toml").read_text("utf-8")
        offset = next(line.split('"')[1] for line in declaration.splitlines() if line.startswith("zone"))
        meter = channel = ""
        minutes = 15
        for line in text.splitlines():
            cells = line.split(",")
            if cells[0] == "200":
                meter, channel, minutes = cells[1], cells[3], int(cells[8])
            elif cells[0] == "300":
                begin = datetime.fromisoformat(f"{cells[1][:4]}-{cells[1][4:6]}-{cells[1][6:8]}T00:00:00{offset}")
                for k in range(1440 // minutes):
                    moment = begin.astimezone(UTC) + timedelta(minutes=k * minutes)
                    yield meter, channel, self._local(moment.isoformat()), float(cells[2 + k])

    def _cmep(self, text: str) -> Iterator[Row | None]:
        for line in text.splitlines():
            cells = line.split(",")
            minutes = int(cells[12][-4:-2]) * 60 + int(cells[12][-2:])
            for at in range(14, len(cells), 3):
                end = datetime.strptime(cells[at], "%Y%m%d%H%M").replace(tzinfo=UTC)
                yield cells[7], "E1", self._local((end - timedelta(minutes=minutes)).isoformat()), float(cells[at + 2])

    def _bill(self, day: date, agreement: dict[str, str], totals: dict[str, float]) -> None:
        point, account = agreement["service_point_id"], agreement["account_id"]
        meter = self._meter(point, day)
        if meter is None:
            return
        for channel in (c for c in self._tables["channels"] if c["meter_id"] == meter and c["kind"] == "register"):
            read = self._dial(meter, channel["channel"], day + timedelta(days=1))
            if read is not None:
                self._result(day, account, "read", f"{point}:{channel['channel']}", f"{read:.3f}", estimated=False)
        usage, estimated = self._usage(meter, day)
        if usage is None:
            return
        self._result(day, account, "usage", f"{point}:usage", f"{usage:.3f}", estimated=estimated)
        tariff = agreement["tariff_id"]
        if tariff in _BY_HAND:
            return
        for code, amount, version in self._lines(day, agreement, usage):
            cents = _cents(amount)
            self._result(day, account, "line", f"{point}:{code}", f"{cents:.2f}", estimated=estimated, version=version)
            totals[account] = totals.get(account, 0.0) + cents

    def _meter(self, point: str, day: date) -> str | None:
        morning = datetime(day.year, day.month, day.day, tzinfo=self._zone)
        for row in self._tables["installations"]:
            if row["service_point_id"] == point and datetime.fromisoformat(row["installed_at"]) <= morning:
                removed = row["removed_at"]
                if not removed or datetime.fromisoformat(removed) > morning:
                    return row["meter_id"]
        return None

    def _dial(self, meter: str, channel: str, midnight: date) -> float | None:
        found = self._db.execute(
            "SELECT value FROM dials WHERE meter = ? AND channel = ? AND wall = ?",
            (meter, channel, f"{midnight.isoformat()} 00:00"),
        ).fetchone()
        return None if found is None else float(found[0])

    def _usage(self, meter: str, day: date) -> tuple[float | None, bool]:
        """The day's usage and whether it was estimated: intervals if there are 24 hours of them, else registers, else
        nothing."""
        channels = [c for c in self._tables["channels"] if c["meter_id"] == meter and c["flow"] == "import"]
        interval = next((c for c in channels if c["kind"] == "interval"), None)
        register = next((c for c in channels if c["kind"] == "register"), None)
        if interval is not None:
            count, total = self._db.execute(
                "SELECT count(*), sum(value) FROM reads WHERE meter = ? AND channel = ? AND wall >= ? AND wall < ?",
                (
                    meter,
                    interval["channel"],
                    f"{day.isoformat()} 00:00",
                    f"{(day + timedelta(days=1)).isoformat()} 00:00",
                ),
            ).fetchone()
            if count == 1440 // int(interval["interval_minutes"]):
                return float(total), False
        if register is None:
            return None, False
        before = self._dial(meter, register["channel"], day)
        after = self._dial(meter, register["channel"], day + timedelta(days=1))
        if before is None or after is None:
            return None, False
        used = after - before
        if used < 0:
            used += 10.0 ** int(register["dials"])
        return used * float(register["multiplier"]), True

    def _lines(self, day: date, agreement: dict[str, str], usage: float) -> Iterator[tuple[str, float, str]]:
        """The day's amounts per line: what the stretch on this tariff has cost so far with today less without it."""
        point, tariff, cycle, account = (
            agreement[c] for c in ("service_point_id", "tariff_id", "cycle_id", "account_id")
        )
        version = next(
            t
            for t in self._tables["tariffs"]
            if t["tariff_id"] == tariff
            and t["valid_from"] <= day.isoformat()
            and (not t["valid_to"] or day.isoformat() < t["valid_to"])
        )
        period = next(
            c
            for c in self._tables["billing_cycles"]
            if c["cycle_id"] == cycle and c["period_start"] <= day.isoformat() < c["period_end"]
        )
        length = (date.fromisoformat(period["period_end"]) - date.fromisoformat(period["period_start"])).days
        begun = max(period["period_start"], agreement["valid_from"])
        days = (day - date.fromisoformat(begun)).days
        key = (point, tariff, begun)
        held = self._db.execute(
            "SELECT quantity FROM position WHERE point = ? AND tariff = ? AND period = ?", key
        ).fetchone()
        quantity = float(held[0]) if held else 0.0
        document = json.loads((self._city / "tariffs" / version["document"]).read_text("utf-8"))
        classes = {a["account_id"]: a["customer_class"] for a in self._tables["accounts"]}
        before = period_cost(document, quantity, days, length, classes.get(account, "residential"))
        after = period_cost(document, quantity + usage, days + 1, length, classes.get(account, "residential"))
        self._db.execute("INSERT OR REPLACE INTO position VALUES (?, ?, ?, ?)", (*key, quantity + usage))
        for code in after:
            yield code, after[code] - before[code], version["version"]

    def _result(
        self, day: date, account: str, level: str, code: str, value: str, *, estimated: bool, version: str = ""
    ) -> None:
        self._db.execute(
            "INSERT INTO results VALUES (?, ?, ?, ?, ?, ?, ?)",
            (day.isoformat(), account, level, code, value, "true" if estimated else "false", version),
        )


def period_cost(
    document: dict[str, Any], quantity: float, days: int, length: int, customer_class: str
) -> dict[str, float]:
    """What a period has cost after so many days and so much use (kWh, gallons or cubic feet), by line code, in
    dollars.
    """
    share = days / length
    if "items" in document:
        rate = document["items"][0]
        tiers = [(t.get("max"), t["rate"]) for t in rate["energyratestructure"][0]]
        return {"ENERGY/period 0": sum(_tiered(quantity, tiers, share)), "FIXED": rate["fixedchargefirstmeter"] * share}
    unit = {
        "kgal": 1 / 1000,
        "therm": float(document.get("heat_content", [{"therms_per_ccf": 1}])[0]["therms_per_ccf"]) / 100,
    }[document["unit"]]
    lines: dict[str, float] = {}
    for charge in document["charges"]:
        used = quantity * unit * float(charge.get("factor", 1))
        if charge["kind"] == "fixed":
            by = charge.get("by", {}).get("values", {})
            lines[charge["code"]] = _cents(float(charge.get("amount") or by.get(customer_class) or by["*"]) * share)
        elif charge["kind"] in ("usage", "rider"):
            tiers = [(t.get("upto"), float(t["rate"])) for t in charge.get("tiers", [{"rate": charge.get("rate")}])]
            lines[f"{charge['code']}/all"] = sum(map(_cents, _tiered(used, tiers, share)))
        elif charge["kind"] == "tax" and customer_class not in charge.get("exempt", []):
            lines[charge["code"]] = _cents(sum(lines.values()) * float(charge["percent"]) / 100)
    return lines


def _tiered(quantity: float, tiers: list[tuple[float | None, float]], share: float) -> list[float]:
    costs = []
    floor = 0.0
    for top, rate in tiers:
        ceiling = math.inf if top is None else top * share
        costs.append(max(0.0, min(quantity, ceiling) - floor) * rate)
        floor = ceiling
    return costs


def _cents(amount: float) -> float:
    """Half a cent goes up; the little more is for halves that a float falls short of."""
    return math.floor(amount * 100 + 0.5 + 1e-9) / 100
