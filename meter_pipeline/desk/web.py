"""Handles the desk's requests and answers: identifies the person, checks that a form is our own, and renders pages
and errors."""

from __future__ import annotations

import base64
import binascii
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any, Final, NoReturn, TypeAlias
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from meter_pipeline.anomalies import QueueError
from meter_pipeline.billing.close import CloseError
from meter_pipeline.billing.proposals import AdjustmentError
from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.clock import SYSTEM_CLOCK, Clock
from meter_pipeline.control import decisions
from meter_pipeline.control.people import Denial, Refused
from meter_pipeline.control.tables import register
from meter_pipeline.desk.access import Access, AccessError, Visitor
from meter_pipeline.ingest.dead_letters import DeadLetterError
from meter_pipeline.leak_adjustments.rules import LeakRefusedError
from meter_pipeline.page_formats import PageFormats, formats
from meter_pipeline.postgres import driver
from meter_pipeline.postgres.database import CONNECT_TIMEOUT_S, Database
from meter_pipeline.postgres.pools import ConnectionPool, PoolTimeout
from meter_pipeline.settings import Settings, Utility

TEMPLATES: Final = Path(__file__).with_name("templates")
SESSION_COOKIE: Final = "meter_desk"
FLASH_COOKIE: Final = "meter_desk_said"
#: A correction of a whole file is the largest form that is sent.
MOST_BODY: Final = 4 << 20
MOST_FIELDS: Final = 500

#: No script, no frame, no inline style, nothing from elsewhere: what is not named is forbidden.
POLICY: Final = (
    "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS: Final = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}

#: Database roles of a deployment that uses them (postgres/privileges.toml): people decide as finance.
PEOPLE: Final = "meter_finance"
AUDITOR: Final = "meter_auditor"
INGEST: Final = "meter_ingest"
#: Who may act on what, as the command line has it; finance confirms a resume whatever is written here
# (control/pause.py).
WORKERS: Final = decisions.WORK
FINANCE: Final = decisions.FINANCE


@dataclass(frozen=True, slots=True)
class Desk:
    """The shared objects of all pages. ``dagster_url``: address of the UI for links; None for no links."""

    database: Database
    settings: Settings
    access: Access
    dagster_url: str | None = None
    clock: Clock = SYSTEM_CLOCK
    _pools: list[ConnectionPool[Any]] = field(default_factory=list, compare=False)

    @property
    def reader(self) -> Database:
        """Returns the database for reading: with roles on, as the auditor, who reads everything and writes nothing."""
        return self.database.acting_as(AUDITOR if self.database.role else None)

    @property
    def lander(self) -> Database:
        """Returns the database for a replay, which lands a file: with roles on, as ingestion."""
        return self.database.acting_as(INGEST if self.database.role else None)

    @contextmanager
    def reading(self) -> Iterator[driver.Connection]:
        """Yields a read-only connection, kept between pages: a new connection costs more than the queries of most
        pages. Raises after waiting 10 s."""
        if not self._pools:
            options = f"{self.reader.session_options} -c default_transaction_read_only=on -c statement_timeout=10s"
            settings = {
                "autocommit": True,
                "application_name": "meter-pipeline desk",
                "options": options,
                "connect_timeout": CONNECT_TIMEOUT_S,
            }
            self._pools.append(
                ConnectionPool(
                    self.database.url,
                    kwargs=settings,
                    min_size=1,
                    max_size=8,
                    timeout=10,
                    check=ConnectionPool.check_connection,
                    open=True,
                )
            )
        with self._pools[0].connection() as connection:
            yield connection

    def close(self) -> None:
        """Close the connections that ``reading`` keeps."""
        while self._pools:
            self._pools.pop().close()

    @property
    def calendar(self) -> BillingCalendar:
        return self.settings.calendar()


class NotFoundError(Exception):
    """The requested object does not exist; the message names it."""


class FormError(ValueError):
    """The form's content cannot be used; the message gives the fault and the expected form."""


@dataclass(slots=True)
class DeskRequest:
    """One request of a visitor, its form read and checked. ``form`` keeps every value of a field, in order."""

    desk: Desk
    visitor: Visitor
    path: Mapping[str, Any]
    query: Mapping[str, str]
    form: list[tuple[str, str]] = field(default_factory=list)
    url: str = "/"
    flash: str | None = None

    def field(self, name: str, *, required: str | None = None, most: int = 2000) -> str:
        """A field's text, trimmed. Raises FormError naming it where it is ``required`` and empty, or too long."""
        value = next((v for k, v in self.form if k == name), "").strip()
        if required and not value:
            raise FormError(f"{required} is missing")
        if len(value) > most:
            raise FormError(f"{name.replace('_', ' ')} is longer than {most} characters")
        return value

    def fields(self, name: str) -> list[str]:
        return [v for k, v in self.form if k == name]

    def may(self, action: str, subject: str, duties: tuple[str, ...]) -> None:
        """Raises Refused, on record, where the person's duties do not allow the action."""
        with self.desk.database.connect("desk") as connection:
            try:
                decisions.entitled(connection, self.visitor.person, duties)
            except Refused as refusal:
                why = Denial(refusal.code, str(refusal))
                decisions.record(connection, action, subject, self.visitor.person, why, self.desk.clock)
                connection.commit()
                raise

    def show(self, template: str, status: int = 200, **values: Any) -> Response:
        return render(self.desk, self.visitor, template, status, here=self.url, flash=self.flash, **values)

    def back(self, to: str, flash: str) -> Response:
        """Redirect to a page after an action; the page shows the message one time."""
        response = RedirectResponse(to, status_code=303)
        response.set_cookie(FLASH_COOKIE, quote(flash[:600]), max_age=60, httponly=True, samesite="strict", path="/")
        return response


Page: TypeAlias = Callable[[DeskRequest], Response]


def page(desk: Desk, path: str, handler: Page, methods: tuple[str, ...] = ("GET",)) -> Route:
    """A route of a page for people who are logged in. Handlers are plain functions and run in a thread."""

    async def endpoint(request: Request) -> Response:
        began = time.perf_counter()
        form = await _form(request) if request.method == "POST" else []
        response = await run_in_threadpool(_answer, desk, request, form, handler)
        response.headers["server-timing"] = f"total;dur={(time.perf_counter() - began) * 1000:.1f}"
        return response

    return Route(path, endpoint, methods=list(methods))


def _answer(desk: Desk, request: Request, form: list[tuple[str, str]] | None, handler: Page) -> Response:
    try:
        visitor = who(desk, request)
        if visitor is None:
            return (
                RedirectResponse("/login", status_code=303)
                if request.method == "GET"
                else problem(desk, None, 403, "You are not logged in.")
            )
        if form is None:
            return problem(desk, visitor, 413, "That is more than a form of this desk may hold.")
        if request.method == "POST":
            csrf_token = next((v for k, v in form if k == "csrf_token"), "")
            if not same_origin(request) or not desk.access.csrf_token_valid(visitor, csrf_token):
                return problem(
                    desk,
                    visitor,
                    403,
                    "This form is not from a page of yours, or it is too old. Open the page again and repeat what you did.",
                )
        known = refused_entry(desk, visitor)
        if known is not None:
            return problem(desk, visitor, 403, known)
        url = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        ask = DeskRequest(
            desk,
            visitor,
            {name: _from_path(value) for name, value in request.path_params.items()},
            dict(request.query_params),
            form,
            url,
            flash(request) if request.method == "GET" else None,
        )
        if not _storable([*request.path_params.values(), *request.query_params.values(), *(v for _, v in form)]):
            raise (
                NotFoundError("There is no such page.") if request.method == "GET" else FormError("That is not a text.")
            )
        response = handler(ask)
        if (
            request.method == "GET"
            and FLASH_COOKIE in request.cookies
            and response.status_code == 200
            and response.media_type == "text/html"
        ):
            response.delete_cookie(FLASH_COOKIE, path="/")
        return response
    except NotFoundError as error:
        return problem(desk, visitor, 404, str(error))
    except FormError as error:
        return problem(desk, visitor, 422, str(error))
    except (Refused, QueueError, DeadLetterError, AdjustmentError, CloseError, LeakRefusedError) as error:
        return problem(
            desk, visitor, 403 if isinstance(error, Refused) and error.code == "not_authorised" else 409, str(error)
        )
    except AccessError as error:
        return problem(desk, None, 503, str(error))
    except (driver.DataError, OverflowError):
        # A number or date that no column takes names nothing that is here.
        if request.method == "GET":
            return problem(desk, visitor, 404, "There is no such page.")
        return problem(desk, visitor, 422, "A number or date in the form is out of range.")
    except (driver.OperationalError, PoolTimeout):
        return problem(desk, None, 503, "The database does not answer. Nothing was changed; try again in a minute.")


def _storable(values: Sequence[str]) -> bool:
    """Whether the database can store these texts: no NUL, no half of a surrogate pair."""
    return not any("\0" in text or any("\ud800" <= c <= "\udfff" for c in text) for text in map(str, values))


def who(desk: Desk, request: Request) -> Visitor | None:
    """Returns the visitor of a request, and keeps the message of the last action for the page."""
    peer = request.client.host if request.client else None
    return desk.access.visitor(peer, request.headers, request.cookies.get(SESSION_COOKIE))


def refused_entry(desk: Desk, visitor: Visitor) -> str | None:
    """Returns the reason a logged-in person is refused: the register has people and not this one, or the session
    began before the person was deactivated. None where access is allowed."""
    with desk.reading() as connection:
        if not register.has_people(connection):
            return None
        found = register.person(connection, visitor.person)
        ended = register.sessions_ended(connection, visitor.person)
    if found is None or not found[1]:
        return f"{visitor.person} is not in the register of people, or is there as somebody who has left."
    begun = desk.access.begun(visitor)
    if ended is not None and begun is not None and begun <= ended.timestamp():
        return "This session is over: log out and in again."
    return None


def same_origin(request: Request) -> bool:
    """Whether the browser states that the form came from this host."""
    host = request.headers.get("host", "")
    for name in ("origin", "referer"):
        if value := request.headers.get(name):
            return bool(host) and urlsplit(value).netloc == host
    return False


async def _form(request: Request) -> list[tuple[str, str]] | None:
    """The fields of a posted form; None where it is larger than it may be."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MOST_BODY:
            return None
    try:
        return parse_qsl(body.decode("utf-8"), keep_blank_values=True, max_num_fields=MOST_FIELDS, errors="strict")
    except (UnicodeDecodeError, ValueError):
        return None


read_form = _form


# --- rendering ------------------------------------------------------------------------------------


@cache
def environment(locale: str) -> Environment:
    """Returns the template environment: everything is escaped, an undefined name is an error."""
    templates = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    shown = formats(locale)
    templates.filters.update(
        day=shown.day,
        month=shown.month,
        money=shown.money,
        number=shown.number,
        sentence=shown.text,
        when=shown.when,
        short_when=shown.short_when,
        plain=lambda value: readable(value, shown),
    )
    templates.filters.update(short=short, words=words, path=path_part)
    templates.globals.update(link=link)
    return templates


def render(
    desk: Desk, visitor: Visitor | None, template: str, status: int = 200, *, here: str = "", **values: Any
) -> Response:
    csrf_token = desk.access.csrf_token(visitor) if visitor else ""
    text = (
        environment(_utility(desk.settings).locale)
        .get_template(template)
        .render(
            visitor=visitor,
            csrf_token=csrf_token,
            here=here,
            utility=_utility(desk.settings).name,
            dagster_url=desk.dagster_url,
            **{"flash": None} | values,
        )
    )
    return HTMLResponse(text, status)


@cache
def _utility(settings: Settings) -> Utility:
    return settings.utility()


def problem(desk: Desk, visitor: Visitor | None, status: int, message: str) -> Response:
    """Renders an error page. An unknown visitor gets no details."""
    return render(desk, visitor, "problem.html", status, code=status, message=message)


def flash(request: Request) -> str | None:
    value = request.cookies.get(FLASH_COOKIE)
    return unquote(value)[:600] if value else None


def short(value: Any, digits: int = 12) -> str:
    """The first digits of a hash or key."""
    text = bytes(value).hex() if isinstance(value, bytes | bytearray | memoryview) else str(value)
    return text[:digits]


def words(value: Any) -> str:
    """Returns a code as words."""
    return str(value).replace("_", " ")


def readable(value: Any, shown: PageFormats) -> str:
    """Returns evidence and figures in one line, without braces and quotes."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case int() | float() | Decimal():
            return shown.number(value)
        case Mapping():
            return ", ".join(f"{words(k)} {readable(v, shown)}" for k, v in value.items() if v is not None)
        case list() | tuple():
            return "; ".join(readable(v, shown) for v in value)
        case bytes() | bytearray() | memoryview():
            return bytes(value).hex()
        case datetime() | date():
            return shown.when(value)
        case _:
            return shown.text(value)


def path_part(value: Any) -> str:
    """Encodes a value as one part of a path. Servers turn %2F into a slash before the path is split, so that it is
    written ~2F."""
    return quote(str(value).replace("~", "~7E").replace("/", "~2F"), safe="")


def _from_path(value: Any) -> Any:
    """Decodes a ``path_part``."""
    return value.replace("~2F", "/").replace("~7E", "~") if isinstance(value, str) else value


def link(base: str, **changes: Any) -> str:
    """Returns a path with a query of the values that are not None or empty."""
    query = [
        (k, v)
        for k, vs in changes.items()
        for v in (vs if isinstance(vs, list | tuple) else [vs])
        if v not in (None, "")
    ]
    return f"{base}?{urlencode(query)}" if query else base


# --- places in lists ------------------------------------------------------------------------------


def place(*values: Any) -> str:
    """Encodes the last row of a page of a list, for the address of the next page."""
    text = json.dumps(
        [v.hex() if isinstance(v, bytes) else v.isoformat() if isinstance(v, date) else v for v in values]
    )
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def parse_cursor(text: str | None) -> list[Any] | None:
    """Decodes ``place``, or returns None for an empty text. Raises FormError for any other text."""
    if not text:
        return None
    try:
        found = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (ValueError, binascii.Error):
        bad_place()
    if not isinstance(found, list) or len(found) != 2 or not all(isinstance(v, str) for v in found):
        bad_place()
    return found


def bad_place() -> NoReturn:
    raise FormError("The address names no place in this list; begin it again.")


def day_of(text: str) -> date:
    """A civil day written YYYY-MM-DD. Raises FormError."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise FormError(f"{text[:40]!r} is not a day; write it like 2026-11-01") from None


def instant(text: str) -> datetime:
    """An instant written ISO 8601 with its zone. Raises FormError."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        bad_place()
    if at.tzinfo is None:
        bad_place()
    return at
