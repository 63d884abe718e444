"""Buffers of two ranks as one sample of the past, and replay on two ranks against one."""

from __future__ import annotations

import statistics
from pathlib import Path

import numpy as np
import torch
from _results import Row
from scipy.stats import chi2
from torch.utils.data import TensorDataset

from _scale.forks import on_ranks
from _scale.ranks import Clock, stream
from greentrain.control import Always, UpdateMode
from greentrain.memory import ReservoirBuffer

_SIZES = (40, 160, 80, 120)
_KEPT = 60
_MOST = 300
"""Samples of the past that the compared streams keep."""


def ddp_replay(folder: Path, *, quick: bool) -> list[Row]:
    """Test the union of the buffers of two ranks, and compare replay on two ranks with one."""
    tries = 100 if quick else 2000
    total = sum(_SIZES)
    counts, twice = np.zeros(total), 0
    for seed in range(tries):
        kept = np.concatenate([_kept(seed, rank) for rank in range(2)])
        twice += len(kept) - len(set(kept.tolist()))
        counts[kept] += 1
    share = _KEPT / total
    # Each sample is in the union with probability ``share``, and each union has _KEPT samples.
    spread = tries * share * (1 - share) * total / (total - 1)
    statistic = float(((counts - tries * share) ** 2).sum() / spread)
    of_each = f"{tries} seeds; {_KEPT} of {total} samples from experiences of {_SIZES}"
    rows = [
        Row(id="ddp_replay", what="p of a chi-square test of the union of two ranks' buffers",
            value=float(chi2.sf(statistic, total - 1)), unit="", reach=0.01, better="higher",
            seeds=tries, note=of_each),
        Row(id="ddp_replay", what="samples that both ranks' buffers hold", value=twice, unit="",
            reach=0, better="equal", seeds=tries),
    ]  # fmt: skip
    seeds = 1 if quick else 5
    differences = []
    for seed in range(seeds):
        one, two = (_replayed(folder, ranks, seed, 2 if quick else 6) for ranks in (1, 2))
        differences.append(100 * (two - one))
    note = (
        f"replay at each experience from {_MOST} samples; the mean of {seeds} seeds; each rank of "
        "a stream holds all past samples, and each batch is shared out among the ranks"
    )
    rows.append(
        Row(id="ddp_replay", what="difference of the final accuracy, two ranks against one",
            value=abs(statistics.mean(differences)), unit="points", reach=0.5, seeds=seeds,
            interval=(min(differences), max(differences)), note=note)
    )  # fmt: skip
    return rows


def _kept(seed: int, rank: int) -> np.ndarray:
    """Return the numbers of the samples that one rank stores after the stream."""
    buffer, first = ReservoirBuffer(_KEPT, seed=seed, rank=rank, world_size=2), 0
    for number, size in enumerate(_SIZES):
        samples = TensorDataset(torch.arange(first, first + size), torch.zeros(size))
        buffer.add(samples, origin=f"{number}")
        first += size
    stored = buffer.select(lambda origin: True)
    return np.array([int(stored[index][0]) for index in range(len(stored))])


def _replayed(folder: Path, ranks: int, seed: int, experiences: int) -> float:
    place = folder / f"replay{ranks}-{seed}"

    def work(rank: int) -> float:
        results = stream(
            place,
            ranks,
            experiences,
            Clock(),
            policy=Always(mode=UpdateMode.REPLAY),
            buffer=ReservoirBuffer(_MOST, seed=seed),
            seed=seed,
            budget="20000 J",
        )
        return float(results[-1]["metric"])

    return float(on_ranks(place, ranks, work)[0])
