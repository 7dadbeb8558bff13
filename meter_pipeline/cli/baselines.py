"""``meter-pipeline baselines``: how a meter's usage follows the weather."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from meter_pipeline.cli.output import OUT, USAGE, emit, problem, table

app = typer.Typer(no_args_is_help=True, help="Weather-normalised baselines: degree-day models of a meter's usage.")


@app.command()
def fit(
    usage: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, help="CSV of one meter: date,value (gzip too).")
    ],
    temperatures: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, help="CSV: date,temperature_f or date,temperature_c.")
    ],
    hdd_balance: Annotated[float | None, typer.Option(help="Heating balance point in °F, used as it is.")] = None,
    cdd_balance: Annotated[float | None, typer.Option(help="Cooling balance point in °F, used as it is.")] = None,
    fuel: Annotated[
        str | None,
        typer.Option(
            help="electricity, gas or water. Gas never cools; an electricity meter's zero day counts as missing (CalTRACK 2.2.1.4)."
        ),
    ] = None,
    model: Annotated[str, typer.Option(help="best: chosen by adjusted R2; intercept: the mean alone.")] = "best",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Fit a baseline and name the days beyond three standard deviations.

    Without a balance point the CalTRACK 2.0 daily search chooses model and balance points by adjusted R2. With one or
    both, the model has just those terms.

    Example: meter-pipeline baselines fit usage.csv temps.csv --hdd-balance 60 --fuel gas --json
    """
    from meter_pipeline.baselines import (
        FileError,
        FitOptions,
        NoModelError,
        fit_best,
        fit_known,
        options_for,
        read_pair,
    )

    if fuel not in (None, "electricity", "gas", "water"):
        raise typer.BadParameter("fuel is electricity, gas or water", param_hint="--fuel")
    if model not in ("best", "intercept"):
        raise typer.BadParameter("model is best or intercept", param_hint="--model")
    given = hdd_balance is not None or cdd_balance is not None
    if given and model == "intercept":
        raise typer.BadParameter("an intercept has no balance point", param_hint="--model")
    if hdd_balance is not None and cdd_balance is not None and cdd_balance < hdd_balance:
        typer.echo("the cooling balance point must not lie below the heating one", err=True)
        raise typer.Exit(USAGE)
    options = options_for(fuel) if fuel else FitOptions(zero_is_missing=False)  # type: ignore[arg-type] # checked above
    try:
        pair = read_pair(usage, temperatures)
        if given or model == "intercept":
            found = fit_known(
                pair.usage, pair.temperatures_f, hdd_balance_f=hdd_balance, cdd_balance_f=cdd_balance, options=options
            )
        else:
            found = fit_best(pair.usage, pair.temperatures_f, options)
    except (FileError, NoModelError) as error:
        problem(str(error), "check that both files cover the same days")
    document: dict[str, Any] = {
        "model": found.model,
        "hdd_balance_f": found.hdd_balance_f,
        "cdd_balance_f": found.cdd_balance_f,
        "intercept": found.intercept,
        "hdd_beta": found.hdd_beta,
        "cdd_beta": found.cdd_beta,
        "r2": found.r2,
        "adj_r2": found.adj_r2,
        "sigma": found.sigma,
        "robust_sigma": found.robust_sigma,
        "n": found.n,
        "first": pair.days[0],
        "last": pair.days[-1],
        "beyond_3_sigma": [pair.days[i] for i in found.beyond_3_sigma],
    }
    emit(document, as_json, _render)


def _render(document: dict[str, Any]) -> None:
    shown = {k: v for k, v in document.items() if k != "beyond_3_sigma"}
    OUT.print(
        table(
            None,
            ("term", "value"),
            [(k, f"{v:.6g}" if isinstance(v, float) else v) for k, v in shown.items()],
            numbers=("value",),
        )
    )
    days = document["beyond_3_sigma"]
    OUT.print(
        f"{len(days)} day(s) beyond three standard deviations: {', '.join(str(d) for d in days) or 'none'}",
        highlight=False,
    )


@app.command()
def weather(
    file: Annotated[
        Path,
        typer.Argument(
            exists=True, dir_okay=False, help="GHCN-Daily CSV, ISD, ISD-lite, GSOD, TMY3 or a plain CSV (gzip too)."
        ),
    ],
    station: Annotated[str | None, typer.Option(help="Station of a file that does not name one.")] = None,
    file_format: Annotated[
        str | None, typer.Option("--format", help="Recognised from the content when not given.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Keep a weather file's billing days: gaps up to six hours filled, days with half or fewer of their hours left out.

    Example: meter-pipeline baselines weather 725300-94846-2026.gz --station KORD
    """
    from meter_pipeline.anomalies import load_weather
    from meter_pipeline.baselines.weather import WeatherError
    from meter_pipeline.deployment import prepare
    from meter_pipeline.settings import load_settings

    settings = load_settings()
    try:
        loaded = load_weather(prepare(settings), settings.calendar(), file, file_format=file_format, station_id=station)
    except WeatherError as error:
        problem(str(error), "name the format with --format")
    emit(
        {
            "days": loaded.days,
            "left_out": loaded.gaps,
            "first": loaded.first,
            "last": loaded.last,
            "changed": loaded.changed,
        },
        as_json,
        lambda d: OUT.print(
            f"{loaded.first} to {loaded.last}: {sum(loaded.days.values())} day(s), {loaded.changed} changed",
            highlight=False,
        ),
    )


@app.command()
def refit(
    as_of: Annotated[
        datetime | None, typer.Option("--as-of", formats=["%Y-%m-%d"], help="First day the new version judges.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Fit the whole city's baselines again from the validated days and keep them as a version.

    Example: meter-pipeline baselines refit
    """
    from meter_pipeline.anomalies import refit_baselines
    from meter_pipeline.deployment import prepare
    from meter_pipeline.settings import load_settings

    settings = load_settings()
    found = refit_baselines(prepare(settings), settings.calendar(), as_of=as_of.date() if as_of else None)
    if found.version is None:
        problem("there is no validated usage to fit", "meter-pipeline run --day DAY")
    emit(
        {
            "version": found.version,
            "as_of": found.as_of,
            "points": found.points,
            "by_status": found.by_status,
            "by_model": found.by_model,
            "by_hours": found.by_hours,
            "median_r2": found.median_r2,
            "written": found.written,
        },
        as_json,
    )
