"""Whatever a form, a cookie, a header or the address of a file holds, the desk answers with a page, and never
with 500.
"""

from __future__ import annotations

import re

import pytest
from starlette.routing import Route
from starlette.testclient import TestClient

from meter_pipeline.desk.app import build
from meter_pipeline_tests.desk.support import HELD, ORIGIN, Office, csrf_token
from meter_pipeline_tests.desk.test_addresses import STRANGE

#: Every name a form of the desk uses.
FIELDS = re.compile(r'name="([a-z_]+)"')
#: As a browser would send them: percent-encoded.
VALUES = (*STRANGE, "%EF%BB%BF", "%0d%0aSet-Cookie:x=1", "2026-11-01T00:00:00+99:00", "%C2%85", "-0", "1_000", "0x10")


@pytest.fixture
def ana(office: Office) -> TestClient:
    client = office.client("ana")
    client.raise_server_exceptions = False
    return client


def names(office: Office) -> list[str]:
    folder = __import__("meter_pipeline.desk.web", fromlist=["TEMPLATES"]).TEMPLATES
    found = {name for page in folder.glob("*.html") for name in FIELDS.findall(page.read_text("utf-8"))}
    return sorted(found - {"csrf_token", "viewport", "referrer", "color-scheme"})


def test_strange_values_in_every_form(office: Office, ana: TestClient) -> None:
    ours = csrf_token(ana, "/pause")
    posts = sorted(
        {
            route.path
            for route in build(office.desk).routes
            if isinstance(route, Route) and route.methods is not None and "POST" in route.methods
        }
        - {"/login", "/logout"}
    )
    subjects = [HELD, office.adjustment, next(iter(office.letters().values())), "1", "%00", "2026-07"]
    tried, fields = 0, names(office)
    for path in posts:
        for n, value in enumerate(VALUES):
            address = re.sub(r"{\w+[^}]*}", subjects[n % len(subjects)], path)
            body = "&".join([f"csrf_token={ours}", *(f"{name}={value}" for name in fields)])
            answer = ana.post(
                address,
                content=body,
                headers=ORIGIN | {"content-type": "application/x-www-form-urlencoded"},
                follow_redirects=False,
            )
            assert answer.status_code < 500, (address, value, answer.status_code)
            tried += 1
    assert tried > 100


@pytest.mark.parametrize(
    "address",
    ["/static/%00", "/static/a%00.css", "/static/" + "x" * 3000, "/static/..%2f..%2fapp.py", "/static/%ff", "/static/%2e%2e/app.py",
     "/static//etc/passwd", "/static/desk.css/x", "/%00", "/%ff", "/bills/%2e%2e/%2e%2e", "/healthz/%00"],
)  # fmt: skip
def test_strange_addresses_of_files(ana: TestClient, address: str) -> None:
    assert ana.get(address, follow_redirects=False).status_code in (307, 308, 400, 404)


@pytest.mark.parametrize(
    "cookie", ["meter_desk=%00", "meter_desk=" + "x" * 5000, "meter_desk_said=%00%ff", "=;;;", 'a="\x80']
)
def test_strange_cookies(ana: TestClient, cookie: str) -> None:
    for page in ("/", "/login", "/bills"):
        answer = ana.get(page, headers={"cookie": cookie.encode("latin-1")}, follow_redirects=False)
        assert answer.status_code < 500, (page, cookie)
