"""``meter-pipeline demo``: from nothing to reconciled bills of the demo municipality, through the same steps a real one
takes."""

from __future__ import annotations

import json as json_module
import os
import shutil
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from meter_pipeline.cli import summary
from meter_pipeline.cli.init import make_demo
from meter_pipeline.cli.output import ERR, OUT, PROBLEM, emit, progress
from meter_pipeline.cli.run import run_days, run_months
from meter_pipeline.deployment import prepare
from meter_pipeline.packaged import CHECKOUT, packaged
from meter_pipeline.postgres.database import Database
from meter_pipeline.reference import import_folder
from meter_pipeline.settings import DEPLOYMENT, Settings, deployment_folder, load_settings


def demo(json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False) -> None:
    """Bill the demo municipality: reference data, simulated feeds with every kind of trouble, a week of billing days,
    the result.

    Example: meter-pipeline demo --json
    """
    from meter_pipeline.simulator import DEMO, simulate

    started = time.monotonic()
    settings = _deployment()
    with progress() as bar:
        task = bar.add_task("starting PostgreSQL and applying migrations", total=None)
        database = prepare(settings)
        bar.update(task, description="importing reference data")
        import_folder(database, settings.data / "reference")
        bar.update(task, description="simulating the head-ends' files")
        city = settings.home / "demo"
        simulate(DEMO, city)
        inbox = settings.inbox
        inbox.mkdir(parents=True, exist_ok=True)
        shutil.copytree(city / "inbox", inbox, dirs_exist_ok=True)
        # A file that has just been written may still be growing, so the landing leaves it alone for two seconds: these
        # are whole.
        past = time.time() - 60
        for path in inbox.rglob("*"):
            if path.is_file():
                os.utime(path, (past, past))
    last = DEMO.start + timedelta(days=DEMO.days - 1)
    # All days in one run, as a backfill: every stage sees the register reads of the whole week before it judges its
    # first day. Day by day, as they come in service, the reads of a later day ask for most of the earlier ones again,
    # which took as long as the week itself.
    done = run_days(DEMO.start, last, land=True, one_run=True, opening=DEMO.start - timedelta(days=1))
    months = run_months(DEMO.start, last)
    found = summary.document(database, DEMO.start, last)
    found["runs"], found["months"] = done, months
    found["seconds"] = round(time.monotonic() - started, 1)
    failed = [d for d in done["days"] + done["true_ups"] if not d["success"]]
    late = [m["month"] for m in months if not m["success"]]
    if not failed:
        found["audit"] = _audited(database, settings)
    emit(found, json, lambda document: summary.show(document))
    if not json:
        OUT.print(
            f"\n{DEMO.days} billing days in {found['seconds']:.0f} s, recorded in Dagster. Look at them: [bold]make ui[/], then http://127.0.0.1:3000"
        )
    audit = found.get("audit")
    if audit is not None and not json:
        outcome = "OK" if audit["ok"] else "NOT OK"
        OUT.print(f"The auditor's program over an export of the ledger and its rows: {outcome}", highlight=False)
    if audit is not None and not audit["ok"]:
        ERR.print("[bold red]Problem:[/] the ledger does not verify")
        ERR.print(str(audit["findings"][:3]), markup=False)
        raise typer.Exit(PROBLEM)
    if late:
        ERR.print(f"[bold red]Problem:[/] the month's figures of {', '.join(late)} failed: the run in the UI says why")
        raise typer.Exit(PROBLEM)
    if failed:
        ERR.print("[bold red]Problem:[/] " + "; ".join(f"{d['day']}: {', '.join(d['failed_steps'])}" for d in failed))
        raise typer.Exit(PROBLEM)


def _audited(database: Database, settings: Settings) -> dict[str, Any]:
    """The ledger exported as the week left it, judged by the auditor's own program in a process of its own."""
    from meter_pipeline.ledger.checkpoints import keys_file
    from meter_pipeline.ledger.export import export

    folder = settings.home / "demo" / "audit"
    shutil.rmtree(folder, ignore_errors=True)
    origin = export(database, folder).origin
    key = keys_file(settings.home, origin or "none").read_text("utf-8").split()[0]
    program = str(packaged("tools/verify_ledger.py"))
    command = [sys.executable, program, str(folder), "--vkey", key, "--every-day", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own program
    report = json_module.loads(done.stdout)
    return {"ok": report["ok"], "folder": str(folder), "findings": report["findings"], "size": report.get("size", 0)}


def _deployment() -> Settings:
    """The demo city's deployment: a checkout's own data, or a folder made here where the package was installed."""
    if deployment_folder() is None and CHECKOUT is None:
        folder = Path.cwd() / "meter-pipeline-demo"
        make_demo(folder)
        os.environ[DEPLOYMENT] = str(folder)
        ERR.print(f"The demo city's deployment is {folder}", highlight=False)
    return load_settings()
