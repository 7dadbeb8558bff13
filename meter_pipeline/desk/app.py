"""The desk as an application: routes, log-in, headers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from meter_pipeline.desk import (
    pages_bills,
    pages_control,
    pages_corrections,
    pages_exceptions,
    pages_letters,
    pages_overview,
    web,
)
from meter_pipeline.desk.access import SESSION_S, AccessError
from meter_pipeline.desk.web import FLASH_COOKIE, HEADERS, SESSION_COOKIE, Desk

#: Names the desk answers to besides those given: anything else is refused, so that no page of another name can reach
# it (DNS rebinding).
LOCAL_NAMES = ("127.0.0.1", "localhost", "[::1]", "testserver")


class _Headers:
    """Every answer's security headers, and what was last said to a visitor handed to the page."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                # A page is for one person and one moment, so browsers must not store it; style sheets may be cached.
                headers.setdefault(
                    "cache-control", "max-age=3600" if scope["path"].startswith("/static/") else "no-store"
                )
            await send(message)

        await self.app(scope, receive, sending)


def build(desk: Desk, hosts: Sequence[str] = ()) -> Starlette:
    """The application. ``hosts``: names it is reached by, besides this machine's own."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        desk.close()

    def login_page(request: Request) -> Response:
        if web.who(desk, request) is not None:
            return RedirectResponse("/", status_code=303)
        return web.render(desk, None, "login.html", failed=False)

    async def login(request: Request) -> Response:
        if request.method == "GET":
            return await run_in_threadpool(login_page, request)
        form = await web.read_form(request)
        if form is None or not web.same_origin(request):
            return web.problem(desk, None, 403, "This form is not from a page of the desk. Open the log-in page again.")
        try:
            value = desk.access.log_in(next((v for k, v in form if k == "token"), ""))
        except AccessError as error:
            return web.problem(desk, None, 503, str(error))
        if value is None:
            return web.render(desk, None, "login.html", 403, failed=True)
        response = RedirectResponse("/", status_code=303)
        response.set_cookie(
            SESSION_COOKIE,
            value,
            max_age=SESSION_S,
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
            path="/",
        )
        return response

    def logout(ask: web.DeskRequest) -> Response:
        desk.access.log_out(ask.visitor)
        response = RedirectResponse("/login", status_code=303)
        response.delete_cookie(SESSION_COOKIE, path="/")
        response.delete_cookie(FLASH_COOKIE, path="/")
        return response

    async def missing(request: Request, error: Exception) -> Response:
        return await run_in_threadpool(lambda: web.problem(desk, web.who(desk, request), 404, "There is no such page."))

    async def wrong_method(request: Request, error: Exception) -> Response:
        return web.problem(desk, None, 405, "That page is not asked for in this way.")

    async def broken(request: Request, error: Exception) -> Response:
        return web.problem(desk, None, 500, "An error occurred and is in the log. No partial change was stored.")

    routes: list[Any] = [
        Route("/login", login, methods=["GET", "POST"]),
        Route("/healthz", lambda request: PlainTextResponse("ok\n")),
        web.page(desk, "/logout", logout, ("POST",)),
        Mount("/static", StaticFiles(directory=Path(__file__).with_name("static"))),
    ]
    for module in (pages_overview, pages_exceptions, pages_letters, pages_control, pages_corrections, pages_bills):
        routes += [web.page(desk, path, handler, methods) for path, handler, methods in module.PAGES]
    return Starlette(
        routes=routes,
        middleware=[
            Middleware(_Headers),
            Middleware(TrustedHostMiddleware, allowed_hosts=[*LOCAL_NAMES, *hosts], www_redirect=False),
        ],
        lifespan=lifespan,
        exception_handlers={404: missing, 405: wrong_method, 500: broken},
    )
