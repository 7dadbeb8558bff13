"""Dates, numbers and money as people of the utility read them: by its locale (``locale`` in utility.toml, CLDR through
Babel). Addresses, files, JSON and the command line keep ISO 8601.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation, localcontext
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from meter_pipeline.settings import DEFAULT_LOCALE, Settings, SettingsError, load_settings

if TYPE_CHECKING:
    from babel import Locale

#: Digits after the mark that an amount of money has at least.
_LEAST_MONEY: Final = 2
#: A day in ISO 8601 that is a word of its own: not part of an identifier, a file's name, a path or an instant.
_DAY_IN_TEXT: Final = re.compile(r"(?<![\w./-])\d{4}-\d{2}-\d{2}(?![\w/-]|\.\w)")


@dataclass(frozen=True, slots=True)
class PageFormats:
    """How a page writes values. In en_US: Oct 29, 2026; 10/29; October 2026; 1,234.50."""

    locale: Locale

    def day(self, value: Any) -> str:
        """A civil day in full; text in ISO 8601 is read as one, other text stays."""
        from babel.dates import format_date

        if isinstance(value, str):
            try:
                value = date.fromisoformat(value)
            except ValueError:
                return str(value)
        return "" if value is None else _plain(format_date(value, "medium", self.locale))

    def text(self, value: Any) -> str:
        """A sentence that code has written; its days in ISO 8601 are written as ``day`` writes them."""
        return _DAY_IN_TEXT.sub(lambda found: self.day(found[0]), str(value))

    def short_day(self, value: date) -> str:
        """A civil day without its year, for axes and narrow columns."""
        from babel.dates import format_skeleton

        return _plain(format_skeleton("Md", datetime(value.year, value.month, value.day), None, locale=self.locale))  # noqa: DTZ001 - a civil day

    def month(self, value: date | str) -> str:
        """A month with its year; text like 2026-10 is read as one."""
        from babel.dates import format_skeleton

        if isinstance(value, str):
            value = date.fromisoformat(f"{value}-01")
        return _plain(format_skeleton("yMMMM", datetime(value.year, value.month, 1), None, locale=self.locale))  # noqa: DTZ001 - a civil month

    def when(self, value: Any) -> str:
        """An instant to the minute, in UTC and named so; a day without a time."""
        from babel.dates import format_time

        if isinstance(value, datetime):
            at = value.astimezone(UTC)
            return f"{self.day(at.date())}, {_plain(format_time(at, 'short', locale=self.locale))} UTC"
        return self.day(value)

    def short_when(self, value: datetime) -> str:
        """Day and time without the year, as the value's own zone has them."""
        from babel.dates import format_time

        return f"{self.short_day(value.date())} {_plain(format_time(value.time(), 'short', locale=self.locale))}"

    def number(self, value: Any) -> str:
        """A quantity: grouped, exact where it is exact; a float to three digits."""
        if value is None or value == "":
            return ""
        exact = round(Decimal(repr(value)), 3) if isinstance(value, float) else Decimal(str(value))
        if not exact.is_finite():
            return str(value)
        return self._written(exact, 0)

    def money(self, value: Any) -> str:
        """An amount with two digits at least, and more where it has more."""
        return "" if value is None or value == "" else self._written(Decimal(str(value)), _LEAST_MONEY)

    def figure(self, text: str) -> str:
        """A figure at the head of a text ("0.0840 a kWh", "1234.50"), with all the digits it has."""
        head, space, rest = text.partition(" ")
        try:
            exact = Decimal(head)
        except InvalidOperation:
            return text
        return self._written(exact, len(head.partition(".")[2])) + space + rest

    def _written(self, exact: Decimal, least: int) -> str:
        """Every digit of a number, with ``least`` digits after the mark at least."""
        from babel.numbers import format_decimal

        exponent = exact.as_tuple().exponent
        digits = max(-exponent if isinstance(exponent, int) else 0, least)
        # Babel rounds within the context, whose 28 digits a sum of a city's millionths may pass.
        with localcontext(prec=80):
            pattern = f"#,##0.{'0' * least}{'#' * (digits - least)}".rstrip(".")
            # A negative zero is a zero.
            return str(format_decimal(exact + 0, pattern, self.locale))


def _plain(text: str) -> str:
    """CLDR sets a time and its AM apart by a narrow no-break space, which cannot be typed into a search."""
    return text.replace("\u202f", " ").replace("\xa0", " ")


@cache
def formats(locale: str) -> PageFormats:
    """The formats of a locale by its name (en_US, en-AU). Raises SettingsError for one that CLDR does not know."""
    from babel import Locale, UnknownLocaleError

    try:
        return PageFormats(Locale.parse(locale.replace("-", "_")))
    except (ValueError, UnknownLocaleError) as error:
        raise SettingsError(f"locale {locale!r} is not one like en_US: {error}") from error


def formats_of(settings: Settings) -> PageFormats:
    """The formats of a deployment's utility."""
    return formats(settings.utility().locale)


def deployments_formats() -> PageFormats:
    """The formats of the deployment this process runs in; the default's where there is none. For pictures, which are
    drawn where no settings are at hand."""
    try:
        return formats_of(load_settings())
    except SettingsError:
        return formats(DEFAULT_LOCALE)
