"""Amounts of money as people read them: with the decimals of their currency, and never a digit lost."""

from __future__ import annotations

from decimal import Decimal
from typing import Final

#: Currencies whose amounts have another number of decimals than two (ISO 4217, list one, "minor unit").
_DIGITS: Final = dict.fromkeys(
    [
        "BIF",
        "CLP",
        "DJF",
        "GNF",
        "ISK",
        "JPY",
        "KMF",
        "KRW",
        "PYG",
        "RWF",
        "UGX",
        "UYI",
        "VND",
        "VUV",
        "XAF",
        "XOF",
        "XPF",
    ],
    0,
) | dict.fromkeys(["BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"], 3)


def currency_digits(currency: str) -> int:
    """Decimals of a currency's amounts by ISO 4217: 2 for USD, 0 for JPY, 3 for KWD; 2 for a code it does not know."""
    return _DIGITS.get(currency, 2)


def money_text(value: Decimal | int | str | None, currency: str, *, grouped: bool = False) -> str:
    """An amount with at least its currency's decimals, and more only where a digit would be lost: 1.4500000 USD is
    "1.45", 0.103125 USD stays "0.103125". ``grouped``: thousands set apart by commas. None is an empty text."""
    if value is None:
        return ""
    exact = Decimal(value)
    digits = currency_digits(currency)
    while digits < 12 and round(exact, digits) != exact:
        digits += 1
    # A negative zero is a zero.
    return f"{round(exact, digits) + 0:{',' if grouped else ''}.{digits}f}"
