"""Alerts reach a real mail server and a real web server, once each; a channel that is down is asked again and the other
is not."""

from __future__ import annotations

import hashlib
import hmac
import http.server
import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from email.policy import default
from typing import Any

import pytest

from meter_pipeline.control import notify, pause
from meter_pipeline.control.alerts import find
from meter_pipeline.control.metrics import render
from meter_pipeline.control.notify import Alert, Mail, Webhook
from meter_pipeline.control.rules import load_thresholds
from meter_pipeline.postgres.database import Database
from meter_pipeline_tests.control.test_pause import Wound, ask

ALERT = Alert("pause:1", "critical", "EMERGENCY PAUSE\r\nBcc: eve@example.org", "Zähler 7: odd reads\n.\nNext: look")


@pytest.fixture
def mail() -> Iterator[tuple[Mail, list[Any]]]:
    """A local SMTP server and what it was given."""
    smtp = pytest.importorskip("aiosmtpd.controller")
    received: list[Any] = []

    class Keeper:
        async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802 - the name aiosmtpd calls
            received.append(envelope)
            return "250 OK"

    controller = smtp.Controller(Keeper(), hostname="127.0.0.1", port=0, ready_timeout=10)
    controller.port = _free()
    controller.start()
    try:
        yield Mail("127.0.0.1", controller.port, "pipeline@example.org", ["a@example.org", "b@example.org"]), received
    finally:
        controller.stop()


@pytest.fixture
def web() -> Iterator[tuple[str, list[tuple[dict[str, str], bytes]], list[int]]]:
    """A local web server: its URL, what it was given, and the statuses it answers with (200 when the list is empty)."""
    received: list[tuple[dict[str, str], bytes]] = []
    answers: list[int] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append((dict(self.headers), self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(answers.pop(0) if answers else 200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Quiet."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/hook", received, answers
    finally:
        server.shutdown()
        server.server_close()


def _free() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_mail_arrives_whole_and_a_title_cannot_add_a_recipient(mail: tuple[Mail, list[Any]]) -> None:
    channel, received = mail
    channel.send(ALERT)
    (envelope,) = received
    assert envelope.rcpt_tos == ["a@example.org", "b@example.org"]
    message = message_from_bytes(envelope.content, policy=default)
    assert message["Subject"] == "[critical] EMERGENCY PAUSE Bcc: eve@example.org"
    assert message["Bcc"] is None
    assert message.get_content().splitlines() == ["Zähler 7: odd reads", ".", "Next: look"]


def test_a_webhook_is_signed_and_never_goes_out_in_the_clear(web: Any) -> None:
    url, received, _ = web
    Webhook(url, "secret").send(ALERT)
    ((headers, body),) = received
    assert json.loads(body)["key"] == "pause:1"
    assert headers["X-Signature"] == "sha256=" + hmac.new(b"secret", body, hashlib.sha256).hexdigest()
    with pytest.raises(ValueError, match="https"):
        Webhook("http://chat.example.org/hook")


def test_each_channel_takes_an_alert_once_and_only_the_one_that_failed_is_asked_again(
    database: Database, mail: Any, web: Any
) -> None:
    channel, mails = mail
    url, posts, answers = web
    clock, to = Wound(), [channel, Webhook(url)]
    with database.connect() as connection:
        assert notify.tell(connection, ALERT, clock=clock)
        assert not notify.tell(connection, ALERT, clock=clock)
    answers.append(503)
    assert notify.deliver(database, to, clock=clock)["failed"] == 1
    assert notify.deliver(database, to, clock=clock) == {"sent": 0, "failed": 0, "given_up": 0}
    clock.at += timedelta(seconds=31)
    assert notify.deliver(database, to, clock=clock)["sent"] == 1
    assert (len(mails), len(posts)) == (1, 2)


def test_a_channel_that_stays_down_is_given_up_in_the_end(database: Database) -> None:
    clock = Wound()
    with database.connect() as connection:
        notify.tell(connection, ALERT, clock=clock)
    gone = [Webhook(f"http://127.0.0.1:{_free()}/")]
    outcomes = []
    for _ in range(notify.MOST_ATTEMPTS):
        outcomes.append(notify.deliver(database, gone, clock=clock))
        clock.at += timedelta(hours=2)
    assert outcomes[-1]["given_up"] == 1
    assert sum(o["failed"] for o in outcomes) == notify.MOST_ATTEMPTS - 1
    assert notify.deliver(database, gone, clock=clock)["failed"] == 0


def test_channels_come_from_the_environment() -> None:
    assert notify.channels({}) == []
    made = notify.channels(
        {
            "METER_PIPELINE_SMTP": "mail.example.org:587",
            "METER_PIPELINE_SMTP_TO": "a@x, b@x",
            "METER_PIPELINE_WEBHOOK": "https://x/y",
        }
    )
    assert [c.name for c in made] == ["mail", "webhook"]
    with pytest.raises(ValueError, match="host:port"):
        notify.channels({"METER_PIPELINE_SMTP": "mail", "METER_PIPELINE_SMTP_TO": "a@x"})


def test_the_life_of_a_pause_is_told_step_by_step(database: Database) -> None:
    def told() -> list[str]:
        with database.connect() as connection:
            return [a.key for a in find(connection, load_thresholds()) if notify.tell(connection, a)]

    assert told() == []
    pause.raise_pause(database, reason="stop", by="ann")
    assert told() == ["pause:1:raised"]
    request = ask(database)
    assert told() == [f"resume:{request}:asked"]
    pause.confirm_resume(database, request, by="bob")
    assert told() == ["pause:1:ended"]
    assert told() == []


def test_what_waits_too_long_is_told_once_a_day_whatever_kind_of_exception_it_is(database: Database) -> None:
    """Cases, held bills, validation exceptions, unbilled services; what is young, decided or of a sealed month is
    nobody's alarm."""
    with database.connect() as connection:
        for case, state, hold, age in (
            ("old", "open", True, 5),
            ("decided", "dismissed", False, 5),
            ("young", "assigned", False, 1),
        ):
            connection.execute(
                """INSERT INTO anomaly.exception_case (first_day, last_day, days, opened_at, decided_at, confidence, hold, case_id, family, kind, subject,
                     service_point_id, commodity, severity, state, decided_by)
                   VALUES (current_date, current_date, 1, now() - %(age)s * interval '1 day', CASE WHEN %(state)s = 'dismissed' THEN now() END, 0.9, %(hold)s,
                     %(case)s, 'leak', 'leak', %(case)s, 'SP1', 'water', 'warn', %(state)s, CASE WHEN %(state)s = 'dismissed' THEN 'ann' END)""",
                {"case": case, "state": state, "hold": hold, "age": age},
            )
        connection.execute(
            """INSERT INTO vee.exception SELECT d, 'DECREASE', 'SP1', '', '', s, '', now() - interval '9 days'
               FROM (VALUES (date '2026-05-04', 'fail'), (date '2026-04-04', 'fail'), (date '2026-05-05', 'inform')) v (d, s)"""
        )
        connection.execute(
            "INSERT INTO billing.exception_day VALUES ('2026-05-04', 'SP1', NULL, 'no_tariff', ''), ('2026-04-04', 'SP2', NULL, 'no_tariff', '')"
        )
        connection.execute(
            """INSERT INTO billing.period (month, status, requested_by, approved_by, totals_sha256)
               VALUES ('2026-04-01', 'sealed', 'ann', 'bob', sha256('x'::bytea))"""
        )
        alerts = [a for a in find(connection, load_thresholds()) if a.key.startswith("age:")]
    counted = (
        "1 anomaly cases",
        "1 anomaly cases that hold a bill",
        "1 validation exceptions",
        "1 services that could not be billed",
    )
    assert [a.title for a in alerts] == [f"{what} wait longer than 4 days" for what in counted]
    assert all("Next: meter-pipeline" in a.body for a in alerts)


def test_metrics_are_prometheus_text_and_say_when_the_database_is_gone(database: Database) -> None:
    from prometheus_client.parser import text_string_to_metric_families

    pause.raise_pause(database, reason="stop", by="ann", scope=pause.Scope("commodity", "water"))
    families = {f.name: f for f in text_string_to_metric_families(render(database).decode())}
    assert families["meter_pipeline_up"].samples[0].value == 1
    (paused,) = families["meter_pipeline_paused"].samples
    assert paused.labels == {"scope": "commodity", "target": "water", "rule": ""}
    assert {
        "meter_pipeline_writers",
        "meter_pipeline_breaker_open",
        "meter_pipeline_dead_letters",
        "meter_pipeline_reads",
    } <= families.keys()
    gone = render(Database("postgresql://x@127.0.0.1:9/x")).decode()
    assert "meter_pipeline_up 0.0" in gone
    assert "meter_pipeline_paused" not in gone


def test_the_lag_of_the_billing_day_is_counted_in_civil_days(database: Database) -> None:
    from meter_pipeline.calendar import BillingCalendar

    clock = Wound()
    clock.at = datetime(2026, 3, 1, 4, 30, tzinfo=UTC)  # still the 28th in Chicago
    text = render(database, BillingCalendar("America/Chicago"), clock).decode()
    assert "meter_pipeline_billing_day_lag_days -1.0" in text
