"""``meter-pipeline metrics``: the state of the work in Prometheus text format, once or served."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Annotated, Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import typer

from meter_pipeline.cli.output import ERR, problem
from meter_pipeline.cli.supervisor import listening
from meter_pipeline.control.metrics import render
from meter_pipeline.postgres.database import open_database
from meter_pipeline.settings import load_settings


def metrics(
    serve: Annotated[
        bool, typer.Option("--serve", help="Serve /metrics until stopped, instead of printing them.")
    ] = False,
    port: Annotated[int, typer.Option(help="Port to serve on.")] = 9464,
    host: Annotated[str, typer.Option(help="Address to serve on.")] = "127.0.0.1",
) -> None:
    """Print the state of the work in Prometheus text format: writers, breaker, dead letters, pause, lag of the billing
    day.

    Example: meter-pipeline metrics --serve --port 9464
    """
    settings = load_settings()
    if serve and listening(port):
        problem(f"port {port} is taken", f"give another one: --port {port + 1}")
    database, calendar = open_database(settings), settings.calendar()
    if not serve:
        sys.stdout.write(render(database, calendar).decode())
        return

    def answer(environment: dict[str, Any], start: Any) -> Iterable[bytes]:
        if environment.get("PATH_INFO") not in ("/metrics", "/"):
            start("404 Not Found", [("Content-Type", "text/plain")])
            return [b"metrics are at /metrics\n"]
        body = render(database, calendar)
        start(
            "200 OK", [("Content-Type", "text/plain; version=0.0.4; charset=utf-8"), ("Content-Length", str(len(body)))]
        )
        return [body]

    class Quiet(WSGIRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            """A scrape every few seconds is not worth a line."""

    ERR.print(f"metrics at http://{host}:{port}/metrics")
    with make_server(host, port, answer, handler_class=Quiet) as server:
        server.serve_forever()
