"""Pages write days, times, quantities and money as the utility's locale does."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from meter_pipeline.page_formats import formats
from meter_pipeline.settings import Settings, SettingsError

DAY = date(2026, 10, 29)
AT = datetime(2026, 10, 29, 14, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("locale", "written"),
    [
        ("en_US", ["Oct 29, 2026", "10/29", "October 2026", "Oct 29, 2026, 2:05 PM UTC", "12,345.5", "12,345.50"]),
        ("en-AU", ["29 Oct 2026", "29/10", "October 2026", "29 Oct 2026, 2:05 pm UTC", "12,345.5", "12,345.50"]),
        ("de_DE", ["29.10.2026", "29.10.", "Oktober 2026", "29.10.2026, 14:05 UTC", "12.345,5", "12.345,50"]),
    ],
)
def test_a_locale_writes_its_own_way(locale: str, written: list[str]) -> None:
    shown = formats(locale)
    amount = Decimal("12345.500")
    assert [
        shown.day(DAY),
        shown.short_day(DAY),
        shown.month(DAY),
        shown.when(AT),
        shown.number(amount),
        shown.money(amount),
    ] == written


def test_no_digit_of_an_exact_figure_is_lost() -> None:
    shown = formats("en_US")
    assert shown.number(Decimal("1234567890123.000001")) == "1,234,567,890,123.000001"
    assert shown.number(-1234567) == "-1,234,567"
    assert shown.number(0.1 + 0.2) == "0.3"
    assert shown.money("0.103125") == "0.103125"
    assert shown.money(Decimal("-0.000000")) == "0.00"
    assert [shown.number(None), shown.money(""), shown.day(None)] == ["", "", ""]


def test_text_that_is_a_day_is_written_as_one_and_other_text_stays() -> None:
    shown = formats("en_US")
    assert [shown.day("2026-10-29"), shown.day("CYCLE-1")] == ["Oct 29, 2026", "CYCLE-1"]


def test_the_days_in_a_sentence_are_written_and_names_stay() -> None:
    shown = formats("en_US")
    assert shown.text("SP-1 2026-10-29: no read since 2026-10-01.") == "SP-1 Oct 29, 2026: no read since Oct 1, 2026."
    for name in ("day-2026-10-29.html", "2026-10-29T05:00:00Z", "A-1.2026-10-29.0", "/usage/SP-1/2026-10-29"):
        assert shown.text(name) == name
    assert shown.month("2026-10") == "October 2026"


def test_a_figure_at_the_head_of_a_text_keeps_its_digits() -> None:
    shown = formats("de_DE")
    assert [shown.figure(t) for t in ("0.0840 a kWh", "12345.50", "7 %", "included")] == [
        "0,0840 a kWh",
        "12.345,50",
        "7 %",
        "included",
    ]
    assert formats("en_US").figure("1234 ") == "1,234 "


def _settings(folder: Path, line: str) -> Settings:
    (folder / "utility.toml").write_text(f'name = "X"\nzone = "America/Chicago"\ncurrency = "USD"\n{line}')
    return Settings(folder, folder, folder, None)


def test_the_utility_says_its_locale(tmp_path: Path) -> None:
    assert _settings(tmp_path, "").utility().locale == "en_US"
    assert _settings(tmp_path, 'locale = "en_AU"\n').utility().locale == "en_AU"
    for wrong in ('locale = "English"\n', "locale = 3\n"):
        with pytest.raises(SettingsError, match=r"utility\.toml: locale is .*like en_US"):
            _settings(tmp_path, wrong).utility()
    with pytest.raises(SettingsError, match="locale 'xx_YY'"):
        formats("xx_YY")
