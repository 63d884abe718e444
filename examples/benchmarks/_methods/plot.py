"""Accuracy against joules and against bytes, as one small picture."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from pathlib import Path

from _results import Row

from _methods.entries import ENTRIES
from _methods.protocol import Data, Scenario
from _methods.runs import FASHION_ORDER, ORDER, Runs, Size
from _methods.tables import SETS, counted_j, finished

COLOURS: dict[Scenario, str] = {"task": "#2a78b5", "domain": "#c26a00", "class": "#3b8a3b"}
MARKS: dict[Data, str] = {"mnist": "o", "fashion": "s"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One method in one scenario on one data set: means over the seeds.

    Args:
        method: Name of the method.
        scenario: The scenario.
        data: MNIST or Fashion-MNIST.
        accuracy: Mean accuracy at the end, in percent.
        joules: Counted joules.
        bytes: Bytes that the method keeps; ``None`` where no run counted them.
    """

    method: str
    scenario: Scenario
    data: Data
    accuracy: float
    joules: float
    bytes: float | None


def points(runs: Runs, size: Size) -> list[Point]:
    """Return a point for all that has finished runs; those of a search do not count."""
    orders: dict[Data, tuple[tuple[str, Scenario], ...]]
    orders = {"mnist": ORDER, "fashion": FASHION_ORDER}
    found = []
    for data, order in orders.items():
        for method, scenario in order:
            done = finished(runs, size, method, scenario, data)
            if not done:
                continue
            kept = [run.bytes for run in done if run.bytes is not None]
            found.append(
                Point(
                    method="fine-tuning" if method == "none" else method,
                    scenario=scenario,
                    data=data,
                    accuracy=statistics.fmean(run.accuracy or 0.0 for run in done),
                    joules=statistics.fmean(counted_j(run.cpu_s or 0.0) for run in done),
                    bytes=statistics.fmean(kept) if kept else None,
                )
            )
    return found


def plot(found: list[Point], path: Path) -> None:
    """Plot the points as an SVG file: on the left by joules, on the right by bytes.

    The same points make the same file.

    Args:
        found: The result of :func:`points`.
        path: The file.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    settings = {"svg.fonttype": "none", "svg.hashsalt": "greentrain", "font.size": 8}
    with matplotlib.rc_context(settings):
        figure, panels = pyplot.subplots(1, 2, figsize=(9, 4), sharey=True, layout="constrained")
        panels[0].set_xscale("log")
        panels[1].set_xscale("symlog", linthresh=1e-2)
        for each in found:
            sizes = (each.joules, None if each.bytes is None else each.bytes / 1e6)
            for panel, size in zip(panels, sizes, strict=True):
                if size is not None:
                    colour, mark = COLOURS[each.scenario], MARKS[each.data]
                    panel.plot(size, each.accuracy, mark, color=colour, markersize=4)
                    place = {"xytext": (4, 2), "textcoords": "offset points", "fontsize": 6}
                    panel.annotate(each.method, (size, each.accuracy), **place)
        panels[1].set_xlim(left=-1e-3)
        panels[0].set_xlabel("joules, counted from processor time")
        panels[1].set_xlabel("MB kept between experiences")
        panels[0].set_ylabel("mean accuracy at the end, %")
        for scenario, colour in COLOURS.items():
            panels[0].plot([], [], "o", color=colour, markersize=4, label=f"{scenario}-incremental")
        for data, mark in MARKS.items():
            panels[0].plot([], [], mark, color="#777777", markersize=4, label=SETS[data])
        panels[0].legend(fontsize=6)
        for panel in panels:
            panel.grid(alpha=0.3)
        figure.savefig(path, format="svg", metadata={"Date": None})
        pyplot.close(figure)


def plot_row(found: list[Point]) -> Row:
    """Return the row of the picture."""
    known = len(ENTRIES) + 1  # and joint training
    shown = len({each.method for each in found})
    measured = sum(each.bytes is not None for each in found)
    runs = len(found)
    return Row(
        id="pareto",
        what=f"methods in the picture of accuracy against joules, of {known}",
        value=shown if found else None,
        unit="methods",
        better="higher",
        seeds=runs,
        note=(
            f"{runs} points of a method, scenario and data set; bytes of {measured} were counted; "
            "docs/images/methods.svg"
            if found
            else "not run: no run is finished"
        ),
    )
