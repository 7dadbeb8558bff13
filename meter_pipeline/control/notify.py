"""Telling people: e-mail by SMTP, a signed webhook, and an outbox that keeps an alert until every channel has taken it.

At least once: an alert is written first and sent afterwards; a channel that took it is not asked again, one that failed
is, at growing intervals. The same trouble (``key``) is sent a single time.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import smtplib
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.message import EmailMessage
from typing import Final, Literal, Protocol
from urllib.parse import urlsplit

from meter_pipeline.clock import SYSTEM_CLOCK, Clock
from meter_pipeline.control.tables import notifications
from meter_pipeline.postgres import driver
from meter_pipeline.postgres.database import Database

Severity = Literal["info", "warning", "critical"]
#: A mail server or a chat bridge that takes longer is down for our purposes; a sensor's tick has a minute.
TIMEOUT_S: Final = 5.0
#: Tries of an alert: the waits double from 30 s to an hour, so the last comes after about half a day.
MOST_ATTEMPTS: Final = 16


@dataclass(frozen=True, slots=True)
class Alert:
    """Something people should know. ``key`` names the trouble: the same key is sent a single time."""

    key: str
    severity: Severity
    title: str
    body: str


class Channel(Protocol):
    """Somewhere an alert is sent. ``send`` returns when it was taken and raises otherwise."""

    @property
    def name(self) -> str: ...

    def send(self, alert: Alert) -> None: ...


@dataclass(frozen=True, slots=True)
class Mail:
    """E-mail through an SMTP server. Port 465 is TLS from the start; elsewhere STARTTLS, unless the server is on this
    machine."""

    host: str
    port: int
    sender: str
    recipients: Sequence[str]
    user: str | None = None
    password: str | None = None
    name: str = "mail"

    def send(self, alert: Alert) -> None:
        message = EmailMessage()
        # A line break in a header would start another one; EmailMessage refuses it, so it is flattened first.
        message["Subject"] = " ".join(f"[{alert.severity}] {alert.title}".split())[:200]
        message["From"] = self.sender
        message["To"] = ", ".join(self.recipients)
        message["X-Alert-Key"] = " ".join(alert.key.split())
        message.set_content(alert.body)
        context = ssl.create_default_context()
        local = self.host in ("localhost", "127.0.0.1", "::1")
        if self.port == 465:
            with smtplib.SMTP_SSL(self.host, self.port, timeout=TIMEOUT_S, context=context) as server:
                self._deliver(server, message)
            return
        with smtplib.SMTP(self.host, self.port, timeout=TIMEOUT_S) as server:
            if not local:
                server.starttls(context=context)
            self._deliver(server, message)

    def _deliver(self, server: smtplib.SMTP, message: EmailMessage) -> None:
        if self.user and self.password:
            server.login(self.user, self.password)
        refused = server.send_message(message)
        if refused:
            raise OSError(f"the mail server refused {', '.join(refused)}")


@dataclass(frozen=True, slots=True)
class Webhook:
    """A POST of JSON. With a secret the body is signed: header ``X-Signature: sha256=<HMAC-SHA-256 of the body,
    hex>``.
    """

    url: str
    secret: str | None = None
    name: str = "webhook"

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme != "https" and not (
            parts.scheme == "http" and parts.hostname in ("localhost", "127.0.0.1", "::1")
        ):
            raise ValueError("a webhook is https, or http on this machine")

    def send(self, alert: Alert) -> None:
        import httpx

        body = json.dumps(
            {"key": alert.key, "severity": alert.severity, "title": alert.title, "body": alert.body}, sort_keys=True
        ).encode()
        headers = {
            "Content-Type": "application/json",
            "Idempotency-Key": hashlib.sha256(alert.key.encode()).hexdigest(),
        }
        if self.secret:
            headers["X-Signature"] = "sha256=" + hmac.new(self.secret.encode(), body, hashlib.sha256).hexdigest()
        httpx.post(
            self.url, content=body, headers=headers, timeout=TIMEOUT_S, follow_redirects=False
        ).raise_for_status()


def channels(environment: Mapping[str, str] | None = None) -> list[Channel]:
    """The channels this deployment has: METER_PIPELINE_SMTP (host:port), _SMTP_FROM, _SMTP_TO (comma-separated),
    _SMTP_USER, _SMTP_PASSWORD; METER_PIPELINE_WEBHOOK, _WEBHOOK_SECRET. None set: alerts stay in the outbox, where
    status and the UI show them. Raises ValueError."""
    env = os.environ if environment is None else environment
    found: list[Channel] = []
    if server := env.get("METER_PIPELINE_SMTP"):
        host, _, port = server.rpartition(":")
        recipients = [name.strip() for name in env.get("METER_PIPELINE_SMTP_TO", "").split(",") if name.strip()]
        if not host or not port.isascii() or not port.isdigit() or not recipients:
            raise ValueError("METER_PIPELINE_SMTP is host:port, and METER_PIPELINE_SMTP_TO names who is told")
        sender = env.get("METER_PIPELINE_SMTP_FROM") or "meter-pipeline@localhost"
        found.append(
            Mail(
                host,
                int(port),
                sender,
                recipients,
                env.get("METER_PIPELINE_SMTP_USER"),
                env.get("METER_PIPELINE_SMTP_PASSWORD"),
            )
        )
    if url := env.get("METER_PIPELINE_WEBHOOK"):
        found.append(Webhook(url, env.get("METER_PIPELINE_WEBHOOK_SECRET")))
    return found


def tell(connection: driver.Connection, alert: Alert, *, clock: Clock = SYSTEM_CLOCK) -> bool:
    """Put an alert into the outbox, in the caller's transaction; False where this trouble was sent before."""
    return notifications.insert(connection, alert.key[:300], alert.severity, alert.title, alert.body, clock.now())


def deliver(
    database: Database, to: Sequence[Channel], *, clock: Clock = SYSTEM_CLOCK, most: int = 20
) -> dict[str, int]:
    """Send the due notifications. Returns how many were sent, failed, given up. Never raises for a channel's sake."""
    done = {"sent": 0, "failed": 0, "given_up": 0}
    for _ in range(most):
        # One at a time, each in its own transaction and locked against a second deliverer, so that a crash repeats one
        # alert at most.
        with database.connect("notifier") as connection:
            row = notifications.next_due(connection, clock.now())
            if row is None:
                break
            outcome = _send(connection, row, to, clock.now())
            connection.commit()
        done[outcome] += 1
    return done


def _send(connection: driver.Connection, row: notifications.Outgoing, to: Sequence[Channel], now: datetime) -> str:
    alert = Alert(row.dedupe_key, row.severity, row.title, row.body)
    delivered, errors = dict(row.delivered), []
    for channel in to:
        if channel.name in delivered:
            continue
        try:
            channel.send(alert)
        except Exception as error:  # a channel may fail in any way its library knows; the alert must stay
            errors.append(f"{channel.name}: {type(error).__name__}: {error}"[:300])
        else:
            delivered[channel.name] = now.isoformat()
    attempts = row.attempts + 1
    again = (
        now + timedelta(seconds=min(3600, 30 * 2 ** min(row.attempts, 10)))
        if errors and attempts < MOST_ATTEMPTS
        else None
    )
    notifications.record(connection, row.notification_id, delivered, attempts, again, "; ".join(errors) or None)
    return "sent" if not errors else "failed" if again else "given_up"
