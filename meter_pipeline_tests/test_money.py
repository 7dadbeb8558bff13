"""Amounts have their currency's decimals, and more only where a digit would be lost."""

from __future__ import annotations

from decimal import Decimal

import pytest

from meter_pipeline.money import currency_digits, money_text


@pytest.mark.parametrize(
    ("value", "currency", "text"),
    [
        ("1.4500000000000000", "USD", "1.45"),
        ("4.620000", "USD", "4.62"),
        ("12", "USD", "12.00"),
        ("0.103125", "USD", "0.103125"),
        ("-0.00", "USD", "0.00"),
        ("1200.000000", "JPY", "1200"),
        ("0.5", "JPY", "0.5"),
        ("3.5", "KWD", "3.500"),
        (None, "USD", ""),
        (Decimal("1E+3"), "USD", "1000.00"),
        (7, "EUR", "7.00"),
    ],
)
def test_amounts_have_their_currency_s_decimals(value: Decimal | str | int | None, currency: str, text: str) -> None:
    assert money_text(value, currency) == text


def test_thousands_are_set_apart_where_asked() -> None:
    assert money_text("1234567.8", "USD", grouped=True) == "1,234,567.80"
    assert (currency_digits("USD"), currency_digits("VND"), currency_digits("BHD")) == (2, 0, 3)
