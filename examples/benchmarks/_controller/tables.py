"""Convert a reference run to an exact table of FULL and SKIP, and run published policies on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from _controller.running import BATCH_SIZE, EPOCHS
from _controller.shares import Run, score
from greentrain.control import (
    RCCDA,
    SKIP,
    UPF,
    Action,
    CaraCumulative,
    CaraPeriodic,
    CaraThreshold,
    CumulativeRegret,
    DriftTriggered,
    Periodic,
    Policy,
    RandomFit,
    UpdateMode,
)
from greentrain.simulation import RecordedTable, simulate
from greentrain.simulation.recorded_table import (
    UNTRAINED,
    Header,
    Place,
    RecordedProbe,
    RecordedRow,
)

_FULL = Action(mode=UpdateMode.FULL_RETRAIN)
_THRESHOLDS = (0.0, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)

POLICIES: Mapping[str, Sequence[Policy]] = {
    **{f"Periodic({every})": [Periodic(every=every)] for every in range(1, 6)},
    "DriftTriggered": [DriftTriggered()],
    "CaraThreshold": [CaraThreshold(threshold=each) for each in _THRESHOLDS],
    "CaraCumulative": [CaraCumulative(threshold=each) for each in _THRESHOLDS],
    "CaraPeriodic": [
        CaraPeriodic(period=period, offset=offset)
        for period in range(1, 6)
        for offset in range(period)
    ],
    "CumulativeRegret": [CumulativeRegret()],
    "RCCDA": [RCCDA()],
    "UPF": [UPF()],
    "RandomFit": [RandomFit()],
}
"""The policies to compare with; of several parameters, the best in hindsight counts."""


def table_of(full: Run) -> RecordedTable:
    """Return the table of a reference, with accuracies on test data as the metric.

    A probe returns accuracies on test data, too. The metric before an update is on the test data of
    all experiences so far, and the metric on new samples is on the test data of the experience.
    A stream with another yardstick has that one in place of accuracies.

    Args:
        full: The reference.
    """
    entries = full["experiences"]
    arrived = [round(entry["planned"] * BATCH_SIZE / EPOCHS) for entry in entries]  # so far
    probes: dict[Place, RecordedProbe] = {}
    rows: dict[Place, tuple[RecordedRow, ...]] = {}
    for position, entry in enumerate(entries):
        for before in [UNTRAINED, *map(_key, range(position))]:
            last = -1 if before == UNTRAINED else int(before.partition("-")[2])
            right = None if last < 0 else entries[last]["trained"]
            metric = None if right is None else score(full, right, position)
            seen, pending = (arrived[last] if last >= 0 else 0), 0
            if position:
                pending = arrived[position - 1] - seen
            place = (position, before)
            probes[place] = RecordedProbe(
                position=position,
                before=before,
                metric_before=metric,
                metric_new=None if right is None else _alone(full, right, position),
                n_new=arrived[position] - seen,
                n_stored=seen,
                n_pending=pending,
                metric_past=None
                if right is None or not position
                else score(full, right, position - 1),
            )
            retrained = RecordedRow(
                position=position,
                before=before,
                action=_FULL,
                steps=entry["steps"],
                energy_j=entry["update_j"],
                samples=entry["samples"],
                metric_after=score(full, entry["trained"], position),
                kept=True,
                after=_key(position),
            )
            skipped = RecordedRow(
                position=position,
                before=before,
                action=SKIP,
                steps=0,
                energy_j=0.0,
                samples=0,
                metric_after=metric,
                kept=True,
                after=before,
            )
            rows[place] = (skipped, retrained)
    header = Header(
        stream=full["name"],
        num_experiences=len(entries),
        seed=full["seed"],
        keys="exact",
        monitor="test accuracy",
        more_is_better=True,
        cost="measured: given",
    )
    return RecordedTable(header, probes, rows)


def simulated(fulls: Sequence[Run], budget: int) -> dict[str, list[float]]:
    """Return the anytime accuracy of each of :data:`POLICIES`, by seed, under a budget.

    Probes cost nothing, and the first training may start at any cost.

    Args:
        fulls: The references, one for each seed.
        budget: Budget in % of each reference's joules.
    """
    tables = [(table_of(full), budget / 100 * full["update_j"]) for full in fulls]
    found = {}
    for name, variants in POLICIES.items():
        each = [
            [
                simulate(table, policy, total_j, calibrated=False).anytime
                for table, total_j in tables
            ]
            for policy in variants
        ]
        found[name] = max(each, key=sum)
    return found


def _alone(full: Run, values: Sequence[float], position: int) -> float:
    """Return the metric on one experience; a direct yardstick may be of all so far."""
    if full.get("direct"):
        return values[position]
    return float(values[position] / full["n_test"][position])


def _key(position: int) -> str:
    return f"full-{position}"
