"""The pictures of docs/internals/benchmarks.md, from the kept figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.figures import Figures

PICTURES = Path(__file__).resolve().parents[1] / "docs" / "pictures"
SHOWN = ("dop run", "botocore", "tenacity", "cookbook")
COLOURS = {"dop run": "#0b6e4f", "botocore": "#c46210", "tenacity": "#6a51a3", "cookbook": "#999999"}


def _figure(width: float, height: float) -> tuple[Any, Any]:
    import matplotlib  # noqa: PLC0415 - of the extra `bench`

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "bench", "font.size": 9})
    import matplotlib.pyplot  # noqa: PLC0415

    figure, axes = matplotlib.pyplot.subplots(figsize=(width, height), layout="constrained")
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _save(figure: Any, name: str) -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    figure.savefig(PICTURES / name, metadata={"Date": None})


def draw_changing(figures: Figures) -> None:
    """Accepted submits a second of some clients, and the limit."""
    figure, axes = _figure(7.2, 3.0)
    traces = {client: figures["changing"][client] for client in SHOWN if client in figures["changing"]}
    for client, counts in reversed(traces.items()):
        axes.plot(range(len(counts)), counts, label=client, color=COLOURS[client], linewidth=1.2)
    end = len(traces["dop run"])
    steps = figures["steps"]
    edges = [*(at for at, _ in steps), float(end)]
    axes.stairs([rate for _, rate in steps], edges, baseline=None, color="black", linestyle=":", label="limit")
    axes.set(xlim=(0, end * 1.3), ylim=(0, 100), xlabel="seconds", ylabel="accepted a second")
    axes.legend(frameon=False, ncols=3)
    _save(figure, "bench-changing.svg")


def draw_lag(figures: Figures) -> None:
    """The makespan over its bound, against the mean lag."""
    figure, axes = _figure(5.4, 3.0)
    tables = figures["tables"]
    default = next(line for line in tables["one bucket"] if line["name"] == "dop run, limit known")
    points = [*tables["curve"], {**default, "name": "auto"}]
    axes.plot([p["lag"] for p in points], [p["stretch"] for p in points], "o-", color=COLOURS["dop run"])
    for point in points:
        where = (point["lag"], point["stretch"])
        axes.annotate(f"{point['name']}", where, xytext=(4, 4), textcoords="offset points")
    axes.set(xlabel="mean lag, in median generation times", ylabel="makespan / bound")
    axes.set_ylim(bottom=1.0)
    _save(figure, "bench-lag.svg")
