"""Plots of loss curves as SVG; the same record gives the same bytes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

# Curves overlap, so each has a different width and line style.
STYLES = ((7.0, "-"), (5.0, "-"), (3.0, "-"), (2.0, "--"), (1.5, "-."), (1.0, ":"))
SETTINGS = {"svg.hashsalt": "lesson6", "svg.fonttype": "none", "font.size": 9}


def draw(trained: Mapping[str, Any], path: Path) -> None:
    """Plot the losses of all backends, and below, their differences from the first backend."""
    with mpl.rc_context(SETTINGS):
        figure = Figure((8, 4.6), layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        base = _curve(next(iter(trained.values())))
        for n, (backend, run) in enumerate(trained.items()):
            width, dashes = STYLES[n]
            look = {"color": f"C{n}", "linestyle": dashes, "linewidth": width, "alpha": 0.8}
            epochs, losses = _curve(run)
            above.plot(epochs, losses, label=backend, **look)
            if n:
                apart = np.abs(losses - base[1]) / base[1]
                below.plot(epochs, np.maximum(apart, 1e-9), **look)
        ends = [e["epoch"] for e in next(iter(trained.values()))["epochs"]]
        held_out = [e["held_out_loss"] for e in next(iter(trained.values()))["epochs"]]
        if None not in held_out:
            above.plot(ends, held_out, "kx", markersize=5, label="held out")
        above.set_ylabel("loss")
        above.legend(ncols=4, fontsize=8)
        below.set_yscale("log")
        below.set_ylabel("apart")
        below.set_xlabel("epoch")
        figure.savefig(path, metadata={"Date": None})


def _curve(run: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions (in epochs) and the losses of all points of a loss curve."""
    places, losses = [], []
    for epoch in run["epochs"]:
        points = epoch["curve"]
        places += [epoch["epoch"] - 1 + (i + 0.5) / len(points) for i in range(len(points))]
        losses += points
    return np.array(places), np.array(losses)
