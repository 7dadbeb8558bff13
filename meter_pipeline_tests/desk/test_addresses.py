"""Whatever stands in an address, the desk answers with a page, and never with 500."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.routing import Route
from starlette.testclient import TestClient

from meter_pipeline.desk.app import build
from meter_pipeline_tests.desk.support import Office

#: As they stand in an address: NUL, what is no UTF-8, dates at the ends of the calendar, numbers no column takes,
#: markup.
STRANGE = (
    "%00", "a%00b", "%ff", "%ED%A0%80", "9999-12", "0001-01", "9999-12-31", "0001-01-01", "2026-13", "2026-02-30", "-1", "0",
    "99999999999999999999999", "9223372036854775808", "%EF%BC%91%EF%BC%92", "1e9", "NaN", "x" * 3000, "%27%20OR%201=1--",
    "%3Cscript%3E", "..%2f..%2fetc", "%F0%9F%98%80", "%20", "null", "infinity", "2026-W01", "20260101", "WyIxIiwiMiJd",
)  # fmt: skip
QUERIES = ("q", "after", "kind", "status", "assigned_to", "reason", "head_end", "day", "month", "from", "to", "order")


@pytest.fixture
def ana(office: Office) -> TestClient:
    client = office.client("ana")
    client.raise_server_exceptions = False
    return client


def addresses(office: Office) -> list[str]:
    return sorted(
        {
            route.path
            for route in build(office.desk).routes
            if isinstance(route, Route) and route.methods is not None and "GET" in route.methods
        }
    )


def test_strange_values_in_every_place_of_every_address(office: Office, ana: TestClient) -> None:
    tried = 0
    for path in addresses(office):
        places = re.findall(r"{(\w+)[^}]*}", path)
        for strange in STRANGE if places else ():
            for place in places:
                address = path
                for other in places:
                    address = re.sub(r"{" + other + r"[^}]*}", strange if other == place else "1", address)
                answer = ana.get(address, follow_redirects=False)
                assert answer.status_code < 500, (address, answer.status_code)
                tried += 1
    assert tried > 200


def test_strange_values_in_every_question(office: Office, ana: TestClient) -> None:
    plain = [path for path in addresses(office) if "{" not in path and path not in ("/login", "/healthz")]
    for path, name, strange in itertools.product(plain, QUERIES, STRANGE):
        answer = ana.get(f"{path}?{name}={strange}", follow_redirects=False)
        assert answer.status_code < 500, (path, name, strange, answer.status_code)


@pytest.mark.parametrize(
    "address",
    [
        "/bills/%00",
        "/months/9999-12",
        "/months/0001-01",
        "/exceptions/%00",
        "/adjustments/%00",
        "/usage/%00/2026-11-01",
        "/usage/SP-1/9999-12-31",
        "/bills?q=%00",
        "/reports/day/0001-01-01",
    ],
)
def test_what_names_nothing_is_not_found(ana: TestClient, address: str) -> None:
    assert ana.get(address).status_code == 404


@given(st.text(max_size=30), st.text(max_size=30))
@settings(max_examples=60)
def test_any_text_in_an_address(ana: TestClient, office: Office, one: str, other: str) -> None:
    from urllib.parse import quote

    for path in ("/bills/{}", "/usage/{}/{}", "/exceptions/{}", "/months/{}", "/adjustments/{}", "/dead-letters/{}"):
        address = path.format(*(quote(text.encode("utf-8", "replace"), safe="") for text in (one, other)))
        assert ana.get(address, follow_redirects=False).status_code < 500
