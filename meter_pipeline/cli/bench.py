"""``meter-pipeline bench NAME``: a benchmark by name, its options passed through, its document printed."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Annotated, Any

import typer

from meter_pipeline.cli.output import ERR, OUT, USAGE, emit, table

#: Options after the name are the benchmark's own.
CONTEXT = {"allow_extra_args": True, "ignore_unknown_options": True}


def bench(
    ctx: typer.Context,
    name: Annotated[
        str,
        typer.Argument(
            help="day, late, floor, load, probe, cli, runs, estimation, vee, baselines, anomalies, billing, ledger, scale, feeds, desk, "
            "backfill, backlog, migration, correction, rate_study, month."
        ),
    ],
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Run one benchmark. Options after the name go to it: meter-pipeline bench day --meters 10000 --interval 15 --json

    Example: meter-pipeline bench day --meters 10000 --interval 15 --json
    """
    try:
        import benchmarks
    except ModuleNotFoundError:
        ERR.print(
            "[bold red]Problem:[/] benchmarks come with a checkout, not with the installed package", highlight=False
        )
        ERR.print("[bold]Next:[/] clone the repository and run make install there", highlight=False)
        raise typer.Exit(USAGE) from None

    known = sorted(
        m.name
        for m in pkgutil.iter_modules(benchmarks.__path__)
        if hasattr(importlib.import_module(f"benchmarks.{m.name}"), "run")
    )
    if name not in known:
        ERR.print(f"[bold red]Problem:[/] no benchmark {name!r}; there are {', '.join(known)}")
        raise typer.Exit(USAGE)
    document = importlib.import_module(f"benchmarks.{name}").run(**_options(ctx.args))
    emit(document, json, _show)


def _options(arguments: list[str]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    pending = list(arguments)
    while pending:
        flag = pending.pop(0)
        if not flag.startswith("--"):
            ERR.print(f"[bold red]Problem:[/] {flag!r} is not an option")
            raise typer.Exit(USAGE)
        key, _, value = flag[2:].partition("=")
        if not value:
            value = pending.pop(0) if pending and not pending[0].startswith("--") else "true"
        options[key.replace("-", "_")] = (
            int(value) if value.lstrip("-").isdigit() else value == "true" if value in ("true", "false") else value
        )
    return options


def _show(document: dict[str, Any]) -> None:
    for part in ("config", "figures", "ratios", "machine"):
        OUT.print(
            table(
                part,
                ["what", "value"],
                [(k, v if not isinstance(v, dict) else str(v)) for k, v in document[part].items()],
            )
        )
