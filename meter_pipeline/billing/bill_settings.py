"""Texts on a utility's bills beside the charges: due date, messages. Read from bill.toml in the
deployment.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Final

FILE: Final = "bill.toml"
#: From the day a bill is issued until it is due, where the utility says nothing: common for US municipal utilities.
DUE_DAYS: Final = 21


class BillSettingsError(ValueError):
    """bill.toml cannot be used; the message names the file and the field."""


@dataclass(frozen=True, slots=True)
class Message:
    """A line of text on bills that are issued from ``first`` to ``last`` (None: no limit), of a commodity or cycle."""

    text: str
    first: date | None = None
    last: date | None = None
    commodity: str | None = None
    cycle: str | None = None

    def applies(self, issued: date, commodities: set[str], cycle: str) -> bool:
        """Whether a bill of these commodities and this cycle, issued on a day, carries it."""
        return (
            (self.first is None or self.first <= issued)
            and (self.last is None or issued <= self.last)
            and (self.commodity is None or self.commodity in commodities)
            and (self.cycle is None or self.cycle == cycle)
        )


@dataclass(frozen=True, slots=True)
class BillSettings:
    """``due_days``: days from issue to due. ``pay_to``: lines of the remittance address. ``contact``: who answers
    questions.
    """

    due_days: int = DUE_DAYS
    pay_to: tuple[str, ...] = ()
    contact: str = ""
    messages: tuple[Message, ...] = ()


def read_bill_settings(folder: Path) -> BillSettings:
    """The deployment's bill.toml; defaults where there is none. Raises BillSettingsError."""
    path = folder / FILE
    try:
        raw = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return BillSettings()
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BillSettingsError(f"{path}: {error}") from error
    known = {"due_days", "pay_to", "contact", "message"}
    if unknown := sorted(raw.keys() - known):
        raise BillSettingsError(f"{path}: unknown field {unknown[0]!r}; known are {', '.join(sorted(known))}")
    due = raw.get("due_days", DUE_DAYS)
    if type(due) is not int or not 1 <= due <= 180:
        raise BillSettingsError(f"{path}: due_days is {due!r}, not a whole number from 1 to 180")
    lines = raw.get("pay_to", [])
    if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
        raise BillSettingsError(f"{path}: pay_to is not a list of texts")
    contact = raw.get("contact", "")
    if not isinstance(contact, str):
        raise BillSettingsError(f"{path}: contact is not a text")
    messages = raw.get("message", [])
    if not isinstance(messages, list):
        raise BillSettingsError(f"{path}: messages are [[message]] tables")
    return BillSettings(due, tuple(lines), contact, tuple(_message(path, k, m) for k, m in enumerate(messages, 1)))


def _message(path: Path, number: int, raw: Any) -> Message:
    where = f"{path}: message {number}"
    if not isinstance(raw, dict) or not isinstance(raw.get("text"), str) or not raw["text"].strip():
        raise BillSettingsError(f"{where} has no text")
    if unknown := sorted(raw.keys() - {"text", "from", "to", "commodity", "cycle"}):
        raise BillSettingsError(f"{where}: unknown field {unknown[0]!r}; known are text, from, to, commodity, cycle")
    days: list[date | None] = []
    for name in ("from", "to"):
        value = raw.get(name)
        try:
            days.append(date.fromisoformat(value) if isinstance(value, str) else value)
        except ValueError as error:
            raise BillSettingsError(f"{where}: {name} is {value!r}, not a date like 2026-12-01") from error
        if days[-1] is not None and type(days[-1]) is not date:
            raise BillSettingsError(f"{where}: {name} is {value!r}, not a date like 2026-12-01")
    return Message(raw["text"].strip(), days[0], days[1], raw.get("commodity"), raw.get("cycle"))
