"""Joules at equal anytime accuracy with ``FeatureCache``, and what stale features lose.

Each stream is learned by WARM_START: after the first arrival, every update continues from the last
weights, on all data so far. With the cache, the trunk of the first arrival stays frozen.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

import torch
from _controller.streams import drifting, iid, read, thinned
from torch.utils.data import ConcatDataset, DataLoader, RandomSampler, TensorDataset

from _reuse.counting import COUNTED
from _reuse.curves import bootstrap, joules_at, mean_curve, ratio
from _reuse.models import Cnn, accuracy, fit, halved, joules_of_a_sample
from greentrain.callbacks import FeatureCache
from greentrain.streams import Experience, fashion_mnist, mnist

IDS = ("cache",)
_FIRST, _EACH = 10, 3
"""Epochs of the first arrival, and of each update with the cache."""
_SHARES = (0.1, 0.3, 1.0, 3.0)
"""Epochs of the updates of all layers, a fraction of one for the first ones."""
_BATCH = 32
_CLOSE = 0.3


def rows(quick: bool, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Return the rows of the streams; see :class:`_results.Row` for the keys."""
    size, arrivals, tested = (300, 2, 200) if quick else (500, 8, 1000)
    streams: dict[str, Callable[[int], Any]] = {
        "more of the same (Fashion-MNIST)": lambda seed: iid(
            thinned(fashion_mnist(), size * arrivals, seed), seed, n_experiences=arrivals
        ),
        "drift (rotated and corrupted MNIST)": lambda seed: drifting(mnist(), seed, size=size),
    }
    found = []
    for name, build in streams.items():
        runs = [
            _runs(_halved(read(build(seed), seed, tested=tested)[:arrivals]), seed)
            for seed in seeds
        ]
        found += _rows_of(name, runs, _note(arrivals, size))
    return found


def _rows_of(name: str, runs: Sequence[dict[str, Any]], note: str) -> list[dict[str, Any]]:
    """Return the joules against all layers and against the frozen ones, and the share lost."""
    common: dict[str, Any] = {"id": "cache", "seeds": len(runs)}
    whole = [run["whole"] for run in runs]
    cached = [[run["cached"]] for run in runs]
    target = [run["cached"][1] - _CLOSE for run in runs]
    value = ratio(cached, whole, target)
    mean = mean_curve(whole)
    best = max(value for _, value in mean)
    gap = best - statistics.fmean(run["once"] for run in runs)
    lost = best - mean_curve(cached)[0][1]
    plain = [100 * run["cached"][0] / run["frozen_j"] for run in runs]
    reached = joules_at(mean, statistics.fmean(target))
    why = "" if reached else "no training of all layers is as accurate; "
    return [
        common
        | {"what": f"{name}: joules at equal anytime accuracy, against updates of all layers"}
        | {"value": value, "unit": "% of the joules without", "reach": 60.0}
        | {"interval": bootstrap(cached, whole, target)}
        | {"note": f"{why}within {_CLOSE} points; 95 % interval, bootstrap over seeds; {note}"},
        common
        | {"what": f"{name}: joules of the same updates with a frozen trunk, against no cache"}
        | {"value": statistics.fmean(plain), "unit": "% of the joules without", "reach": None}
        | {"interval": (min(plain), max(plain))}
        | {"note": f"the accuracy is the same; lowest and highest seed; {note}"},
        common
        | {"what": f"{name}: share of the gap lost by the frozen trunk"}
        | {"value": 100 * lost / gap if gap > 0 else None, "unit": "% of the gap", "reach": None}
        | {
            "note": f"the gap is the anytime accuracy of the best updates of all layers, "
            f"{best:.1f} %, less that of training once, {best - gap:.1f} %; {note}"
        },
    ]


def _runs(stream: Sequence[Experience], seed: int) -> dict[str, Any]:
    """Learn a stream once, with the cache, and with updates of all layers of several lengths."""
    each_j = joules_of_a_sample()
    torch.manual_seed(seed)
    first = Cnn()
    fit(first, DataLoader(stream[0].train, _BATCH, shuffle=True), _FIRST)
    start = first.state_dict()
    once = statistics.fmean(accuracy(first, _test(each)) for each in stream)

    cached_j, frozen_j, cached = _cached(start, stream, seed, each_j)
    whole: list[tuple[float, float]] = []
    for share in _SHARES:
        used_j, anytime = _whole(start, stream, share, seed, each_j)
        whole.append((used_j, anytime))
    return {"once": once, "cached": (cached_j, cached), "frozen_j": frozen_j, "whole": whole}


def _cached(
    start: Any, stream: Sequence[Experience], seed: int, each_j: dict[str, float]
) -> tuple[float, float, float]:
    """Return joules with and without the cache, and the anytime accuracy."""
    torch.manual_seed(seed)
    model, cache, steps = Cnn(), FeatureCache("trunk", max_bytes="500 MB"), 0
    model.load_state_dict(start)
    found = [accuracy(model, _test(stream[0]))]
    for position in range(1, len(stream)):
        data = ConcatDataset([each.train for each in stream[: position + 1]])
        fit(model, DataLoader(data, _BATCH, shuffle=True), _EACH, [cache])
        steps += _EACH * len(data)
        found.append(accuracy(model, _test(stream[position])))
    looked_up, came = cache.used
    head_j = steps * each_j["head_step"]
    cached_j = head_j + (came - looked_up) * each_j["trunk"]
    return cached_j, head_j + came * each_j["trunk"], statistics.fmean(found)


def _whole(
    start: Any, stream: Sequence[Experience], share: float, seed: int, each_j: dict[str, float]
) -> tuple[float, float]:
    """Return the joules and the anytime accuracy of updates of all layers."""
    torch.manual_seed(seed)
    model, samples = Cnn(), 0
    model.load_state_dict(start)
    found = [accuracy(model, _test(stream[0]))]
    for position in range(1, len(stream)):
        data = ConcatDataset([each.train for each in stream[: position + 1]])
        drawn = len(data) if share >= 1 else max(_BATCH, round(share * len(data)))
        epochs = max(1, round(share))
        loader = DataLoader(data, _BATCH, sampler=RandomSampler(data, num_samples=drawn))
        fit(model, loader, epochs)
        samples += epochs * drawn
        found.append(accuracy(model, _test(stream[position])))
    return samples * each_j["step"], statistics.fmean(found)


def _halved(stream: Sequence[Experience]) -> list[Experience]:
    """Return a stream of smaller images."""
    return [
        Experience(each.id, *map(halved, (each.train, each.val)), test=halved(_test(each)))  # type: ignore[arg-type]
        for each in stream
    ]


def _test(experience: Experience) -> TensorDataset:
    test: Any = experience.test
    return test  # type: ignore[no-any-return]


def _note(arrivals: int, size: int) -> str:
    return (
        f"joules of the updates, after the same first training. A small CNN at 14 x 14 pixels, "
        f"{arrivals} arrivals of {size} samples. {_FIRST} epochs of the first, then {_EACH} on all "
        f"data for each update with the cache and {_SHARES} without. Computing the features is "
        f"charged; {COUNTED}"
    )
