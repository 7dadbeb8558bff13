"""The controller's history as a small picture. Belongs here: drawing. Does not belong here: deciding (controller.py)."""

from __future__ import annotations

import polars as pl


def controller_plot(history: pl.DataFrame, target_ms: float) -> bytes:
    """PNG (under 20 kB) of p90 latency against the target, batch size and writers over the run; columns of Controller.frame."""
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
