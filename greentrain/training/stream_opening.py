"""Open a stream: restore its saved state, its budget and its runner."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from greentrain.budget import Budget
from greentrain.decisions.stream_budget import StreamBudget
from greentrain.energy import Meter
from greentrain.errors import ConfigurationError
from greentrain.evaluation.evaluator import Evaluator
from greentrain.ledger import Ledger
from greentrain.tracking import Tracker
from greentrain.training.checkpoint import Checkpoint
from greentrain.training.config import CarbonConfig
from greentrain.training.fit import ModelTrainer
from greentrain.training.runner import StreamRunner
from greentrain.training.shadow import read_shadow_budget
from greentrain.training.stream_state import StreamState


def open_runner(
    state: StreamState,
    trainer: ModelTrainer,
    evaluator: Evaluator,
    budget: Budget,
    *,
    ledger: str,
    state_dir: str | Path | None,
    calibration: Budget | None,
    meter: Meter | None,
    tracker: Tracker,
    carbon: CarbonConfig,
    settings: Mapping[str, Any],
    for_next: bool = False,
) -> StreamRunner:
    """Restore a saved state, open the budget, and return the runner of a stream.

    Args:
        state: The stream's state, which the saved one replaces.
        trainer: Trains successors.
        evaluator: Measures models.
        budget: The requested budget.
        ledger: URL of the ledger.
        state_dir: Folder of the saved state; ``None`` to save nothing.
        calibration: Budget of a calibration, for a budget given as a share.
        meter: The meter; detected if ``None``.
        tracker: Logs the stream.
        carbon: Conversion of joules to grams.
        settings: The stream's configuration.
        for_next: Whether the budget is for the next experience alone. A later one has another.

    Raises:
        ConfigurationError: If the ledger has another budget of this name, or the saved state is in
            use, unreadable or of another stream.
    """
    recorded = Ledger(ledger)
    checkpoint = None if state_dir is None else Checkpoint(Path(state_dir))
    try:
        before = None if checkpoint is None else checkpoint.load()
        if before is not None:
            _restore(before, settings, state, tracker)
        known = None if state_dir is None else state.data.known
        name = settings["shared_budget"]
        if for_next:
            name = f"{settings['name']}/{len(state.data.known) + 1}"
        paying = StreamBudget(
            recorded,
            settings["name"],
            budget,
            shared_budget=name,
            calibration=calibration,
            carbon=carbon.account(),
            done=known,
        )
        shadow_budget = (
            read_shadow_budget(recorded, settings["name"], paying.budget, known)
            if settings["shadow"]
            else None
        )
    except BaseException:
        if checkpoint is not None:
            checkpoint.close()
        raise
    finally:
        recorded.close()  # a stream without any update has nothing to close
    runner = StreamRunner(
        state,
        trainer,
        evaluator,
        paying,
        ledger=recorded,
        checkpoint=checkpoint,
        before=before,
        shadow=shadow_budget,
        meter=meter,
        tracker=tracker,
        carbon=carbon,
        settings=settings,
        baseline_every=settings["baseline_every"],
    )
    if checkpoint is not None:
        weakref.finalize(runner, checkpoint.close)
    return runner


def _restore(
    saved: Mapping[str, Any], settings: Mapping[str, Any], state: StreamState, tracker: Tracker
) -> None:
    """Restore the saved state of a stream.

    Raises:
        ConfigurationError: If it was saved with other settings, or with another model.
    """
    for name, before in saved["settings"].items():
        if (now := settings[name]) != before:
            raise ConfigurationError(
                f"the state was saved with {name}={before!r}, and it is {now!r} now; give the same "
                "value, or another state_dir to start again"
            )
    state.load_state_dict(saved["stream"])
    if (run := saved.get("run")) is not None:
        tracker.load_state_dict(run["tracker"])
