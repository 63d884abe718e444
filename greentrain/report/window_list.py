"""List the measured windows, and sum those of training and validation by epoch."""

from __future__ import annotations

from collections.abc import Sequence

from greentrain.ledger import RunRow
from greentrain.report.document import EpochEnergy, RunFigures, WindowFigures
from greentrain.report.row_helpers import MeasuredWindow, grouped, total


class TaggedWindow(WindowFigures):
    """A window with the tags of its run, as the table of windows has it."""

    team: str | None
    project: str | None


def window_figures(window: MeasuredWindow) -> WindowFigures:
    """Return the figures of a window."""
    return {
        "run_id": window["run_id"],
        "phase": window["phase"],
        "epoch": window["epoch"],
        "started_utc": window["started_utc"],
        "duration_s": window["duration_s"],
        "energy_j": window["energy_j"],
        "emissions_g": window["emissions_g"],
        "complete": window["complete"],
    }


def tagged(window: WindowFigures, run: RunRow | RunFigures | None) -> TaggedWindow:
    """Return the figures of a window with the tags of its run; a run without a row has none."""
    return {
        **window,
        "team": None if run is None else run["team"],
        "project": None if run is None else run["project"],
    }


def epoch_energies(windows: Sequence[WindowFigures]) -> dict[str, list[EpochEnergy]]:
    """Return the energy of each epoch, by run: that of training, and that of validation.

    Args:
        windows: The windows of a report.

    Returns:
        The epochs in order, for each run with at least two epochs of training.
    """
    of_epochs = [one for one in windows if one["epoch"] is not None]
    found: dict[str, list[EpochEnergy]] = {}
    for run_id, held in grouped(of_epochs, lambda one: one["run_id"]).items():
        by_epoch = grouped(held, lambda one: one["epoch"] or 0)
        epochs: list[EpochEnergy] = [
            {
                "epoch": epoch,
                "train_j": total(one["energy_j"] for one in of if one["phase"] == "train_epoch"),
                "validation_j": total(
                    one["energy_j"] for one in of if one["phase"] == "validation"
                ),
            }
            for epoch, of in sorted(by_epoch.items())
        ]
        trained = [one for one in epochs if one["train_j"] is not None]
        if len(trained) > 1:
            found[run_id] = trained
    return found
