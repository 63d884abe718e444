"""Read from ledgers the gains that the streams in them measured."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping

from greentrain.control import BudgetController, UpdateMode
from greentrain.control.priors import Gains
from greentrain.decisions.history import PastDecision, past_decisions
from greentrain.ledger import Ledger


def read_gains(ledgers: Iterable[Ledger]) -> list[tuple[str, Mapping[UpdateMode, Gains]]]:
    """Return each stream with its measured gains, as its controller learned them.

    Streams of different ledgers are different ones. A stream without a measured gain is left out,
    and so are gains in shadow mode, and those that were not compared on held-out data.

    Args:
        ledgers: The ledgers.
    """
    found: list[tuple[str, Mapping[UpdateMode, Gains]]] = []
    for ledger in ledgers:
        for name, past in _streams(ledger):
            gains = _learned(past)
            if gains:
                found.append((f"{name} in {ledger.public_name}", gains))
    return found


def _streams(ledger: Ledger) -> Iterator[tuple[str, list[PastDecision]]]:
    runs: dict[str, list[str]] = {}
    more_is_better: dict[str, bool] = {}
    for row in ledger.rows("run"):
        if row["kind"] == "stream":
            settings = json.loads(row["environment"]).get("settings") or {}
            if settings.get("shadow"):  # another job trained, and not as was decided
                continue
            runs.setdefault(row["name"], []).append(row["run_id"])
            more_is_better[row["name"]] = settings.get("mode") != "min"
    for name, run_ids in runs.items():
        yield (
            name,
            past_decisions(
                [row for run_id in run_ids for row in ledger.rows("decision", run_id=run_id)],
                [row for run_id in run_ids for row in ledger.rows("outcome", run_id=run_id)],
                more_is_better=more_is_better[name],
            ),
        )


def _learned(history: Iterable[PastDecision]) -> dict[UpdateMode, Gains]:
    controller = BudgetController()
    controller.cost.calibrate(fixed_j=0.0, step_j=1.0)  # its costs are not asked for
    for past in history:
        controller.learn(
            past.decision,
            past.state,
            steps=past.steps,
            actual_j=past.energy_j or 0.0,
            metric_after=past.metric_trained if past.steps and past.gain is not None else None,
            gain=past.gain,
            gain_sd=past.gain_sd or 0.0,
            kept=past.kept,
        )
    return dict(controller.utility.observed())
