"""Reading a tariff document field by field, so that a refusal can name the field."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Final

#: A published tariff with revisions and comments is under 100 kB; a document beyond this is not a tariff.
MAX_BYTES: Final = 4_000_000


class TariffRefusedError(ValueError):
    """A tariff that can't be priced. ``field`` is the path in the document, ``why`` one sentence."""

    def __init__(self, field: str, why: str) -> None:
        super().__init__(f"{field}: {why}")
        self.field = field
        self.why = why


#: Decimals of a rate or a limit, as published: programs write 16 and more of a double (0.09120000000000001).
MAX_PLACES: Final = 20
#: The largest number a document may hold; published ones write 1e38 out for "no limit".
MAX_DIGITS: Final = 40


_PLAIN: Final = re.compile(r"[+-]?(?:[0-9]{1,40}(?:\.[0-9]{0,20})?|\.[0-9]{1,20})(?:[eE][+-]?[0-9]{1,2})?", re.ASCII)


def _number(text: str) -> Decimal:
    """A JSON number as written. Whether it fits is asked of the field that holds it, which can be named."""
    try:
        return Decimal(text[:400])
    except ArithmeticError as error:
        raise TariffRefusedError("document", f"not a plain decimal number: {text[:40]}") from error


def _constant(text: str) -> Any:
    raise TariffRefusedError("document", f"{text} is not a number")


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; a member that stands twice would quietly lose the first."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise TariffRefusedError(twice, "stands twice in one object: leave one of them")
    return found


def parse_document(raw: bytes) -> Any:
    """The JSON value of a document, numbers with a point as Decimal. Refuses what is not UTF-8 JSON, NaN, Infinity,
    members that stand twice and deep nesting."""
    if len(raw) > MAX_BYTES:
        raise TariffRefusedError("document", f"larger than {MAX_BYTES} bytes")
    try:
        return json.loads(
            raw.decode("utf-8-sig"),
            object_pairs_hook=_members,
            parse_float=_number,
            parse_int=_number,
            parse_constant=_constant,
        )
    except UnicodeDecodeError as error:
        raise TariffRefusedError("document", "not UTF-8") from error
    except json.JSONDecodeError as error:
        raise TariffRefusedError("document", f"not JSON: {error.msg} at line {error.lineno}") from error
    except RecursionError as error:
        raise TariffRefusedError("document", "nested too deeply") from error


@dataclass(frozen=True, slots=True)
class Field:
    """A JSON value and where it stands in the document."""

    path: str
    value: Any

    def refuse(self, why: str) -> TariffRefusedError:
        return TariffRefusedError(self.path, why)

    def __contains__(self, key: str) -> bool:
        return isinstance(self.value, dict) and self.value.get(key) is not None

    def __getitem__(self, key: str) -> Field:
        if not isinstance(self.value, dict):
            raise self.refuse("must be an object")
        path = f"{self.path}.{key}" if self.path else key
        if self.value.get(key) is None:
            raise TariffRefusedError(path, "is missing")
        return Field(path, self.value[key])

    def get(self, key: str, default: Any = None) -> Field:
        """The member, or a field holding the default where it is absent or null."""
        path = f"{self.path}.{key}" if self.path else key
        return self[key] if key in self else Field(path, default)

    def only(self, *keys: str) -> None:
        """Refuse an unknown member: a misspelt field must not quietly change a bill."""
        if not isinstance(self.value, dict):
            raise self.refuse("must be an object")
        for key in self.value:
            if key not in keys:
                raise TariffRefusedError(f"{self.path}.{key}" if self.path else key, "is not a field of this schema")

    def items(self) -> Iterator[tuple[str, Field]]:
        if not isinstance(self.value, dict):
            raise self.refuse("must be an object")
        for key in self.value:
            yield key, self[key]

    def list(self, length: int | None = None, at_least: int = 0) -> list[Field]:
        if not isinstance(self.value, list):
            raise self.refuse("must be a list")
        if length is not None and len(self.value) != length:
            raise self.refuse(f"must have {length} entries, has {len(self.value)}")
        if len(self.value) < at_least:
            raise self.refuse(f"must have at least {at_least} entries")
        return [Field(f"{self.path}[{k}]", v) for k, v in enumerate(self.value)]

    def text(self) -> str:
        if not isinstance(self.value, str) or not self.value.strip():
            raise self.refuse("must be a text")
        return self.value.strip()

    def choice(self, *allowed: str) -> str:
        text = self.text()
        if text not in allowed:
            raise self.refuse(f"{text!r} is not one of {', '.join(allowed)}")
        return text

    def decimal(self, minimum: Decimal | None = None) -> Decimal:
        """An exact decimal, written as a JSON number or a text of digits."""
        value = self.value
        if isinstance(value, str):
            if not _PLAIN.fullmatch(value.strip()):
                raise self.refuse(f"not a plain decimal number: {value[:40]!r}")
            value = Decimal(value.strip())
        if not isinstance(value, Decimal):
            raise self.refuse("must be a number")
        exponent = value.as_tuple().exponent
        if isinstance(exponent, int) and exponent < -MAX_PLACES:
            raise self.refuse(f"has more than {MAX_PLACES} decimals")
        if value.adjusted() >= MAX_DIGITS:
            raise self.refuse(f"has more than {MAX_DIGITS} digits")
        if minimum is not None and value < minimum:
            raise self.refuse(f"is below {minimum}")
        return value

    def integer(self, low: int, high: int) -> int:
        value = self.decimal()
        if value != value.to_integral_value() or not low <= value <= high:
            raise self.refuse(f"must be a whole number from {low} to {high}")
        return int(value)

    def flag(self) -> bool:
        """true or false, also written as 1 or 0."""
        if isinstance(self.value, bool):
            return self.value
        return bool(self.integer(0, 1))

    def hour(self) -> datetime:
        """A local hour, written 2026-07-15T17:00."""
        try:
            found = datetime.fromisoformat(self.text())
        except ValueError as error:
            raise self.refuse("must be a local hour like 2026-07-15T17:00") from error
        if found.tzinfo is not None or found.minute or found.second:
            raise self.refuse("must be a local hour like 2026-07-15T17:00, without a zone")
        return found

    def day(self) -> date:
        try:
            return date.fromisoformat(self.text())
        except ValueError as error:
            raise self.refuse("must be a date like 2026-01-31") from error
