"""Open a stream: restore its saved state, its budget and its runner."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from greentrain.budget import Budget
from greentrain.decisions.stream_budget import StreamBudget
from greentrain.energy import Meter
from greentrain.evaluation.evaluator import Evaluator
from greentrain.ledger import Ledger
from greentrain.tracking import Tracker
from greentrain.training.checkpoint import Checkpoint
from greentrain.training.config import CarbonConfig
from greentrain.training.fit import ModelTrainer
from greentrain.training.leader import Leader
from greentrain.training.resuming import resume, warn_of_repeats
from greentrain.training.runner import StreamRunner
from greentrain.training.shadow import read_shadow_budget
from greentrain.training.start_by import StartBy
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
    start_by: StartBy | None = None,
    leader: Leader | None = None,
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
        start_by: The longest wait of an update for cleaner electricity; ``None`` for no waits.
        leader: Leads the other ranks; ``None`` without any.

    Raises:
        ConfigurationError: If the ledger has another budget of this name, or the saved state is in
            use, unreadable or of another stream.
    """
    # First, because it creates the folder, which may hold the ledger, for its owner alone.
    checkpoint = None if state_dir is None else Checkpoint(Path(state_dir))
    recorded: Ledger | None = None
    try:
        recorded = Ledger(ledger)
        before = None if checkpoint is None else checkpoint.load()
        if before is not None:
            resume(before, settings, state, tracker)
            warn_of_repeats(recorded, before, settings["name"], state.data.known)
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
        if recorded is not None:
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
        start_by=start_by,
        leader=leader,
    )
    if checkpoint is not None:
        weakref.finalize(runner, checkpoint.close)
    return runner
