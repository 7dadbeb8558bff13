"""Ingestion's small pictures."""

from __future__ import annotations

from typing import Final

import polars as pl

#: Bars that can still be read.
_MOST: Final = 12


def files_plot(files: pl.DataFrame) -> bytes:
    """PNG (under 20 kB) of files (file, head_end, reads, rejected): the largest by name, the rest in one bar; what was
    rejected in red."""
    from matplotlib.figure import Figure

    from meter_pipeline.plotting import small_png

    ordered = files.sort("reads", "file", descending=[True, False])
    rest = ordered.slice(_MOST)
    shown = ordered.head(_MOST).select(
        pl.concat_str("head_end", pl.lit(": "), pl.col("file").str.split("/").list.last().str.tail(28)).alias("name"),
        "reads",
        "rejected",
    )
    if rest.height:
        more = pl.DataFrame(
            {
                "name": [f"{rest.height} more"],
                "reads": [int(rest["reads"].sum())],
                "rejected": [int(rest["rejected"].sum())],
            }
        )
        shown = pl.concat([shown, more.cast(dict(shown.schema))])  # type: ignore[arg-type]
    figure = Figure(figsize=(6.4, 1 + 0.24 * shown.height), layout="constrained")
    axes = figure.subplots()
    places = list(range(shown.height))[::-1]
    rejected = shown["rejected"].to_numpy()
    kept = shown["reads"].to_numpy() - rejected
    axes.barh(places, kept, color="#3b6ea5", label="staged")
    axes.barh(places, rejected, left=kept, color="#b3261e", label="rejected")
    axes.set_yticks(places, shown["name"].to_list(), fontsize=8)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.tick_params(axis="x", labelsize=8)
    axes.set_title(
        f"{files.height:,} files, {files['reads'].sum():,} reads, {files['rejected'].sum():,} rejected",
        loc="left",
        fontsize=10,
    )
    axes.legend(fontsize=8, frameon=False)
    return small_png(figure)


def controller_plot(history: pl.DataFrame, target_ms: float) -> bytes:
    """PNG (under 20 kB) of p90 latency against the target, batch size and writers over the run; columns of
    Controller.frame."""
    from matplotlib.figure import Figure

    from meter_pipeline.plotting import small_png

    figure = Figure(figsize=(6, 3.2), layout="constrained")
    latency, size = figure.subplots(2, 1, sharex=True)
    at = history["at_s"].to_numpy()
    latency.plot(at, history["p90_ms"].to_numpy(), marker=".", color="tab:blue")
    latency.axhline(target_ms, color="tab:red", linewidth=0.8)
    latency.set_ylabel("p90 ms")
    size.step(at, history["batch"].to_numpy(), where="post", color="tab:green")
    size.set_ylabel("rows a batch", color="tab:green")
    size.set_xlabel("seconds")
    writers = size.twinx()
    writers.step(at, history["writers"].to_numpy(), where="post", color="tab:orange")
    writers.set_ylabel("writers", color="tab:orange")
    writers.set_ylim(bottom=0)
    return small_png(figure)
