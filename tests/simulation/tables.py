"""Small recorded tables, made by hand or at random."""

from __future__ import annotations

from hypothesis import strategies as st

from greentrain.control import SKIP, Action, UpdateMode
from greentrain.simulation.recorded_table import (
    UNTRAINED,
    Header,
    RecordedProbe,
    RecordedRow,
    RecordedTable,
)

FULL = Action(mode=UpdateMode.FULL_RETRAIN)
WARM = Action(mode=UpdateMode.WARM_START)
REPLAY = Action(mode=UpdateMode.REPLAY)
HALF = Action(mode=UpdateMode.FULL_RETRAIN, step_fraction=0.5)


def header(num_experiences: int, **changes) -> Header:
    fields = {
        "stream": "by-hand",
        "num_experiences": num_experiences,
        "seed": 0,
        "keys": "merged",
        "monitor": "val_acc",
        "more_is_better": True,
        "cost": "modelled: by hand",
        **changes,
    }
    return Header(**fields)


def probe(position: int, before: str, **changes) -> RecordedProbe:
    trained = before != UNTRAINED
    last = int(before.rpartition("-")[2]) if trained else -1
    fields = {
        "position": position,
        "before": before,
        "metric_before": 0.5 if trained else None,
        "metric_new": 0.25 if trained else None,
        "n_new": 100 * (position - last),
        "n_stored": 100 * (last + 1),
        "n_pending": 100 * (position - last - 1),
        **changes,
    }
    return RecordedProbe(**fields)


def row(position: int, before: str, action: Action, energy_j: float, metric: float, **changes):
    update = action != SKIP
    fields = {
        "position": position,
        "before": before,
        "action": action,
        "steps": round(10 * energy_j) if update else 0,
        "energy_j": energy_j,
        "samples": round(80 * energy_j),
        "metric_after": metric,
        "kept": True,
        "after": f"updated-{position}" if update else before,
        **changes,
    }
    return RecordedRow(**fields)


def merged(outcomes, *, probes=probe) -> RecordedTable:
    """A table by hand: for each place the metric after SKIP, and (joules, metric) of updates."""
    rows = {
        (position, before): tuple(
            row(position, before, action, *each) for action, each in actions.items()
        )
        for (position, before), actions in outcomes.items()
    }
    num_experiences = max(position for position, _ in outcomes) + 1
    return RecordedTable(header(num_experiences), {place: probes(*place) for place in rows}, rows)


def by_hand() -> RecordedTable:
    """Three experiences. Full retraining: 10, 20, 30 J; always 0.8. A warm start: 4 J for 0.7."""
    return merged(
        {
            (0, UNTRAINED): {SKIP: (0.0, 0.1), HALF: (5.0, 0.5), FULL: (10.0, 0.8)},
            (1, UNTRAINED): {SKIP: (0.0, 0.1), FULL: (20.0, 0.8)},
            (1, "updated-0"): {SKIP: (0.0, 0.6), WARM: (4.0, 0.7), FULL: (20.0, 0.8)},
            (2, UNTRAINED): {SKIP: (0.0, 0.1), FULL: (30.0, 0.8)},
            (2, "updated-0"): {SKIP: (0.0, 0.4), WARM: (5.0, 0.7), FULL: (30.0, 0.8)},
            (2, "updated-1"): {SKIP: (0.0, 0.5), WARM: (4.0, 0.7), FULL: (30.0, 0.8)},
        }
    )


@st.composite
def tables(draw: st.DrawFn, most: int = 4) -> RecordedTable:
    """Any merged table of a few experiences, some of its updates not kept."""
    num_experiences = draw(st.integers(1, most))
    metrics, joules = st.integers(0, 8), st.integers(1, 6)
    rows, probes = {}, {}
    for position in range(num_experiences):
        for before in [UNTRAINED, *(f"updated-{last}" for last in range(position))]:
            place = (position, before)
            updates = [FULL, HALF] if before == UNTRAINED else [FULL, HALF, WARM, REPLAY]
            taken = [FULL, *draw(st.lists(st.sampled_from(updates[1:]), unique=True))]
            found = [row(*place, SKIP, 0.0, draw(metrics) / 8)]
            for action in taken:
                kept = before == UNTRAINED or draw(st.booleans())
                after = {} if kept else {"kept": False, "after": before}
                found.append(row(*place, action, draw(joules), draw(metrics) / 8, **after))
            rows[place], probes[place] = tuple(found), probe(*place)
    return RecordedTable(header(num_experiences), probes, rows)
