"""The desk lets in who holds a token or comes through a trusted proxy, and nobody else; a form from elsewhere does
nothing."""

from __future__ import annotations

import stat
from datetime import UTC, datetime
from ipaddress import ip_network
from pathlib import Path

import pytest

from meter_pipeline.control import people
from meter_pipeline.desk.access import SESSION_S, Access, AccessError, from_environment
from meter_pipeline.desk.web import HEADERS, SESSION_COOKIE, Desk
from meter_pipeline_tests.desk.support import HELD, ORIGIN, Office, csrf_token, post
from meter_pipeline_tests.support import FixedClock

NOW = datetime(2026, 7, 3, 8, 0, tzinfo=UTC)


def test_a_token_is_kept_as_its_hash_in_a_file_nobody_else_reads(tmp_path: Path) -> None:
    access = Access(tmp_path / "desk")
    token = access.issue("Ana")
    assert token not in access.path.read_text()
    assert access.path.read_text().startswith("ana ")
    assert stat.S_IMODE(access.path.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "desk" / "session.key").stat().st_mode) == 0o600
    access.path.chmod(0o640)
    with pytest.raises(AccessError, match="can be read by others"):
        access.tokens()
    with pytest.raises(AccessError, match="not a name"):
        access.issue("аna")  # a Cyrillic a is not a second Ana


def test_a_session_ends_with_its_time_and_with_its_token_and_cannot_be_made_up(tmp_path: Path) -> None:
    clock = FixedClock(NOW)
    access = Access(tmp_path / "desk", clock=clock)
    cookie = access.log_in(access.issue("ana"))
    assert cookie is not None
    found = access.visitor("127.0.0.1", {}, cookie)
    assert found is not None
    assert found.person == "ana"
    for forged in (
        cookie.replace("ana", "ben"),
        cookie[:-1] + ("0" if cookie[-1] != "0" else "1"),
        "",
        "a|b|c|d|e",
        "ana|||x|",
    ):
        assert access.visitor("127.0.0.1", {}, forged) is None
    clock.advance(SESSION_S + 1)
    assert access.visitor("127.0.0.1", {}, cookie) is None
    again = access.log_in(access.issue("ana"))
    assert access.visitor("127.0.0.1", {}, again) is not None
    assert access.revoke("ana") == 2
    assert access.visitor("127.0.0.1", {}, again) is None
    assert access.log_in("nobody's") is None


def test_a_proxys_header_counts_from_the_proxy_and_from_nowhere_else(tmp_path: Path) -> None:
    access = Access(tmp_path / "desk", "Remote-User", (ip_network("10.0.0.0/28"),))
    header = {"remote-user": "Ana@Example.org"}
    through = access.visitor("10.0.0.3", header, None)
    assert through is not None
    assert (through.person, through.by) == ("ana@example.org", "proxy")
    assert access.visitor("10.0.0.99", header, None) is None
    assert access.visitor(None, header, None) is None
    assert access.visitor("10.0.0.3", {"remote-user": "ana\x00"}, None) is None
    assert access.visitor("10.0.0.3", {}, None) is None


def test_settings_that_would_open_the_door_are_refused(tmp_path: Path) -> None:
    for environment in (
        {"METER_PIPELINE_DESK_PROXY_HEADER": "Remote-User"},
        {"METER_PIPELINE_DESK_PROXY_HEADER": "Remote User", "METER_PIPELINE_DESK_TRUSTED_PROXIES": "10.0.0.1"},
        {"METER_PIPELINE_DESK_TRUSTED_PROXIES": "10.0.0.1"},
        {"METER_PIPELINE_DESK_PROXY_HEADER": "Remote-User", "METER_PIPELINE_DESK_TRUSTED_PROXIES": "everybody"},
        {"METER_PIPELINE_DESK_TOKEN_HASHES": "ana:1234"},
    ):
        with pytest.raises(AccessError):
            from_environment(tmp_path / "desk", environment)
    given = from_environment(tmp_path / "desk", {"METER_PIPELINE_DESK_TOKEN_HASHES": "ana:" + "ab" * 32})
    assert given.tokens() == {"ab" * 32: "ana"}


def test_nothing_is_shown_before_log_in_and_every_answer_carries_the_policy(office: Office) -> None:
    client = office.client()
    for path in (
        "/",
        "/exceptions",
        f"/exceptions/{HELD}",
        "/dead-letters",
        "/pause",
        "/adjustments",
        "/bills",
        "/months",
        "/reports",
    ):
        answer = client.get(path)
        assert answer.url.path == "/login", path
        assert "SP-001" not in answer.text
    assert client.post("/exceptions/decide", data={"case": HELD}, headers=ORIGIN).status_code == 403
    assert client.post("/login", data={"token": "wrong"}, headers=ORIGIN).status_code == 403
    for path in ("/login", "/static/desk.css", "/nothing", "/healthz"):
        answer = client.get(path)
        assert {name: answer.headers[name] for name in HEADERS} == HEADERS, path
        assert "script" not in answer.headers["content-security-policy"], (
            "what is not named falls to default-src 'none'"
        )
    assert client.get("/", headers={"host": "evil.example"}).status_code == 400


def test_a_form_from_elsewhere_or_with_anothers_token_does_nothing(office: Office) -> None:
    ana, ben = office.client("ana"), office.client("ben")
    good = {"case": HELD, "decision": "confirm", "reason": "seen"}
    page = "/exceptions"
    for data, headers in (
        (good, ORIGIN),
        (good | {"csrf_token": csrf_token(ben, page)}, ORIGIN),
        (good | {"csrf_token": "0" * 64}, ORIGIN),
        (good | {"csrf_token": csrf_token(ana, page)}, {"origin": "http://evil.example"}),
        (good | {"csrf_token": csrf_token(ana, page)}, {"origin": "null"}),
        (good | {"csrf_token": csrf_token(ana, page)}, {}),
    ):
        assert ana.post("/exceptions/decide", data=data, headers=headers).status_code == 403
    assert office.utility.read("SELECT state FROM anomaly.exception_case WHERE hold")["state"].to_list() == ["open"]
    assert ana.post("/login", data={"token": "x"}, headers={"origin": "http://evil.example"}).status_code == 403
    assert ana.post("/exceptions/decide", content=b"a=1&" * 1000, headers=ORIGIN).status_code == 413


def test_log_out_ends_it_and_the_cookie_is_for_the_desk_alone(office: Office) -> None:
    client = office.client()
    answer = client.post(
        "/login", data={"token": office.desk.access.issue("ana")}, headers=ORIGIN, follow_redirects=False
    )
    cookie = answer.headers["set-cookie"].lower()
    assert SESSION_COOKIE in cookie
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert client.get("/").url.path == "/"
    post(client, "/", "/logout")
    assert client.get("/").url.path == "/login"


def test_a_copied_cookie_is_worthless_after_log_out_and_after_a_restart(office: Office) -> None:
    client = office.client()
    post_login = client.post("/login", data={"token": office.desk.access.issue("ana")}, headers=ORIGIN)
    assert post_login.status_code == 200
    copied = client.cookies[SESSION_COOKIE]
    thief = office.client()
    thief.cookies.set(SESSION_COOKIE, copied)
    assert thief.get("/").url.path == "/"
    post(client, "/", "/logout")
    assert thief.get("/").url.path == "/login"
    again = Access(office.desk.access.folder)
    assert again.visitor("127.0.0.1", {}, copied) is None


def test_a_session_ends_when_its_person_is_deactivated_and_does_not_come_back(office: Office) -> None:
    client = office.client()
    client.post("/login", data={"token": office.desk.access.issue("ana")}, headers=ORIGIN)
    for active in (True, False, True):
        with office.desk.database.connect() as connection:
            people.put(connection, "ana", ["finance"], by="setup", active=active)
            connection.commit()
        if not active:
            assert client.get("/").status_code == 403
    assert client.get("/").status_code == 403
    assert "over" in client.get("/").text


def test_once_the_register_names_people_only_they_come_in_and_duties_bind(office: Office) -> None:
    with office.desk.database.connect() as connection:
        for name, duty in (("ana", "finance"), ("aud", "auditor"), ("otto", "operator")):
            people.put(connection, name, [duty], by="setup")
        connection.commit()
    stranger = office.client()
    answer = stranger.post("/login", data={"token": office.desk.access.issue("eve")}, headers=ORIGIN)
    assert answer.status_code == 403
    assert "not in the register" in answer.text
    auditor = office.client("aud")
    assert auditor.get(f"/exceptions/{HELD}").status_code == 200
    assert post(auditor, f"/exceptions/{HELD}", "/exceptions/decide", case=HELD, decision="confirm").status_code == 403
    operator = office.client("otto")
    name = office.adjustment
    assert post(operator, f"/adjustments/{name}", f"/adjustments/{name}/decide", decision="approve").status_code == 403
    refused = office.utility.read("SELECT actor, action, code FROM control.refusal ORDER BY refusal_id").rows()
    assert refused == [("aud", "exception", "not_authorised"), ("otto", "adjustment", "not_authorised")]
    assert (
        post(
            office.client("ana"), f"/adjustments/{name}", f"/adjustments/{name}/decide", decision="approve"
        ).status_code
        == 200
    )


def test_a_proxys_visitor_works_without_a_session_of_ours(office: Office) -> None:
    access = Access(office.desk.access.folder, "Remote-User", (ip_network("10.1.2.3/32"),))
    desk = Desk(office.desk.database, office.desk.settings, access)
    proxied = Office(office.utility, desk, office.adjustment).client(
        client=("10.1.2.3", 4000), headers={"remote-user": "ana"}
    )
    assert "Log out" not in proxied.get("/").text
    assert post(proxied, "/exceptions", "/exceptions/decide", case=HELD, decision="confirm").status_code == 200
    assert office.utility.read("SELECT decided_by FROM anomaly.exception_case WHERE state = 'confirmed'")[
        "decided_by"
    ].to_list() == ["ana"]
    direct = Office(office.utility, desk, office.adjustment).client(
        client=("10.9.9.9", 4000), headers={"remote-user": "ana"}
    )
    assert direct.get("/").url.path == "/login"
    desk.close()
