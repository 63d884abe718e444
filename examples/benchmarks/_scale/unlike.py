"""Unlike streams in the simulator: one budget at one price, and ten thousand on one budget."""

from __future__ import annotations

import math
import statistics
import time
from random import Random

from _results import Row

from greentrain.control import SKIP, Action, UpdateMode
from greentrain.simulation import (
    RecordedTable,
    always_full,
    share_of_gap,
    simulate,
    simulate_shared,
    train_once,
)
from greentrain.simulation.recorded_table import UNTRAINED, Header, RecordedProbe, RecordedRow

EXPERIENCES = 12
SHARE = 0.1
# Step fractions of each mode, and the metric that it lacks against a full retraining.
_MODES = {
    UpdateMode.FULL_RETRAIN: ((1.0, 0.0), (0.5, 0.02)),
    UpdateMode.WARM_START: ((1.0, 0.01),),
    UpdateMode.REPLAY: ((1.0, 0.02),),
}
_T_95 = {5: 2.571, 9: 2.262, 19: 2.093}  # two-sided, by degrees of freedom


def modelled_table(seed: int, number: int, experiences: int = EXPERIENCES) -> RecordedTable:
    """Return the table of one stream, by a model of its data.

    Each stream has its own accuracy, size, cost of a sample and drift. A model loses the drift of
    every experience since its last update. The key of a model is that update.

    Args:
        seed: Seed of the set of streams.
        number: Number of the stream.
        experiences: Experiences in it.
    """
    random = Random(f"{seed}/{number}")
    best, samples = random.uniform(0.6, 0.95), round(10 ** random.uniform(2, 3))
    sample_j = 10 ** random.uniform(-2, -1)
    drift = 10 ** random.uniform(-2.5, -0.8)
    drifts = [drift * random.expovariate(1.0) for _ in range(experiences)]
    probes, rows = {}, {}
    keys = {UNTRAINED: (-1, 0.0)}  # the experience of the last update, and what it lacks
    for position in range(experiences):
        found = dict(keys)
        for key, (last, lacking) in keys.items():
            before = best - lacking - math.fsum(drifts[last + 1 : position + 1])
            before = 0.1 if key == UNTRAINED else max(0.1, before)
            new = samples * (position - last)
            probes[position, key] = RecordedProbe(
                position=position,
                before=key,
                metric_before=None if key == UNTRAINED else before,
                metric_new=None if key == UNTRAINED else max(0.0, before - drifts[position]),
                n_new=new,
                n_stored=samples * (last + 1),
                n_pending=new - samples,
            )
            updates = [
                RecordedRow(position=position, before=key, action=SKIP, steps=0, energy_j=0.0,
                            samples=0, metric_after=before, kept=True, after=key)
            ]  # fmt: skip
            for mode, fractions in _MODES.items():
                if key == UNTRAINED and mode is not UpdateMode.FULL_RETRAIN:
                    continue
                for fraction, lacks in fractions:
                    trained = _samples(mode, fraction, new, samples * (position + 1))
                    after = f"{position}:{mode}@{fraction}"
                    found[after] = (position, lacks)
                    updates.append(
                        RecordedRow(position=position, before=key, samples=trained,
                                    action=Action(mode=mode, step_fraction=fraction),
                                    steps=max(1, trained // 32), energy_j=trained * sample_j,
                                    metric_after=best - lacks, kept=True, after=after)
                    )  # fmt: skip
            rows[position, key] = tuple(updates)
        keys = found
    header = Header(
        stream=f"{number}", num_experiences=experiences, seed=seed, keys="merged",
        monitor="val_acc", more_is_better=True, cost="modelled: joules by samples",
    )  # fmt: skip
    return RecordedTable(header, probes, rows)


def _samples(mode: UpdateMode, fraction: float, new: int, known: int) -> int:
    """Return the samples of an update: ten epochs, a fifth of them, or twice the new samples."""
    if mode is UpdateMode.REPLAY:
        return 4 * new
    return round((10 if mode is UpdateMode.FULL_RETRAIN else 2) * fraction * known)


def one_price(*, quick: bool) -> list[Row]:
    """Compare one price over 20 unlike streams with an equal share of the budget for each."""
    sets, count = (6, 6) if quick else (20, 20)
    shares, summed = [], []
    for seed in range(sets):
        tables = [modelled_table(seed, number) for number in range(count)]
        budget_j = SHARE * sum(table.full_j for table in tables)
        once = [train_once(table).anytime for table in tables]
        full = [always_full(table).anytime for table in tables]
        priced = [found.anytime for found in simulate_shared(tables, budget_j)]
        equal = [simulate(table, None, budget_j / count).anytime for table in tables]
        gaps = [
            [share_of_gap(*of_stream) for of_stream in zip(found, once, full, strict=True)]
            for found in (priced, equal)
        ]
        known = [[100 * share for share in of_all if share is not None] for of_all in gaps]
        shares.append(tuple(statistics.mean(of_all) for of_all in known))
        summed.append(
            tuple(100 * (sum(found) - sum(once)) / (sum(full) - sum(once))
                  for found in (priced, equal))
        )  # fmt: skip
    note = (
        f"{count} modelled streams of {EXPERIENCES} experiences in each of {sets} sets; the budget "
        f"is {SHARE:.0%} of the joules of always full; 95 % interval of the mean over sets (t)"
    )
    rows = []
    for what, pairs, reach in (
        ("mean share of the gap, one price less equal shares", shares, 0.0),
        ("share of the summed gap, one price less equal shares", summed, None),
    ):
        differences = [a - b for a, b in pairs]
        mean = statistics.mean(differences)
        half = _T_95[sets - 1] * statistics.stdev(differences) / math.sqrt(sets)
        first, second = (statistics.mean(column) for column in zip(*pairs, strict=True))
        rows.append(
            Row(id="one_price", what=what, value=mean, unit="points", reach=reach, better="higher",
                seeds=sets, interval=(mean - half, mean + half),
                note=f"one price {first:.1f} %, equal shares {second:.1f} %; {note}")
        )  # fmt: skip
    return rows


def ten_thousand(*, quick: bool) -> list[Row]:
    """Let ten thousand streams pay from one budget in the simulator."""
    count, kinds, experiences = (300, 20, 4) if quick else (10_000, 50, 5)
    different = [modelled_table(0, number, experiences) for number in range(kinds)]
    tables = [different[number % kinds] for number in range(count)]
    budget_j = 0.25 * sum(table.full_j for table in tables)
    began_s = time.process_time()
    found = simulate_shared(tables, budget_j)
    seconds = time.process_time() - began_s
    spent_j = math.fsum(result.spent_j for result in found)
    gap = 100 * (
        (sum(result.anytime for result in found) - sum(train_once(t).anytime for t in tables))
        / (sum(always_full(t).anytime for t in tables) - sum(train_once(t).anytime for t in tables))
    )
    decisions = count * experiences
    note = f"{count:,} streams, {kinds} different ones, of {experiences} experiences; modelled; "
    note += "the budget is 25 % of the joules of always full"
    return [
        Row(id="ten_thousand", what="updates after which the budget was overdrawn",
            value=sum(result.violations for result in found), unit="", reach=0, better="equal",
            seeds=count, note=note),
        Row(id="ten_thousand", what="share of the budget that was spent",
            value=100 * spent_j / budget_j, unit="%", better="higher", seeds=count),
        Row(id="ten_thousand", what="share of the summed gap", value=gap, unit="%",
            better="higher", seeds=count),
        Row(id="ten_thousand", what="CPU time of a decision", value=1e3 * seconds / decisions,
            unit="ms", seeds=decisions, note="in memory, without a ledger"),
    ]  # fmt: skip
