"""Decisions without labels at arrival, against decisions with them: the share of the gap closed.

The labels arrive after each decision, and the training has them. Only the probe goes without. The
streams are small ones of the controller's benchmark, and one of natural drift. Joules follow from
counted forward passes, as there, so the load of the machine does not matter.
"""

from __future__ import annotations

import logging
import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from _controller.jobs import Job
from _controller.new_streams import duplicates, noisy
from _controller.running import EPOCHS, run
from _controller.shares import Mean, mean, once_and_always, share
from _controller.streams import drifting, read
from torch.utils.data import Dataset, TensorDataset

from _reuse.kept import finished
from greentrain.methods import MISSING_LABEL
from greentrain.streams import Experience, fashion_mnist, mnist

IDS = ("no_labels",)
_BUDGET = 15
_SIZE = 300
STREAMS: Mapping[str, tuple[str, Callable[[int], Sequence[Experience]]]] = {
    "c": (
        "MNIST with abrupt, gradual or recurring drift",
        lambda seed: drifting(mnist(), seed, size=_SIZE),
    ),
    "g": (
        "MNIST, five arrivals and four exact copies of them",
        lambda seed: duplicates(mnist(), seed, size=_SIZE),
    ),
    "h": (
        "Fashion-MNIST, 20 to 40 % wrong labels in half of ten arrivals",
        lambda seed: noisy(fashion_mnist(), seed, size=_SIZE),
    ),
}
"""The streams by the names of the controller's benchmark, with smaller arrivals."""


def rows(
    quick: bool,
    seeds: Sequence[int],
    kept: Path | None = None,
    left_out: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """Return the rows of each stream and their mean; see :class:`_results.Row` for the keys."""
    names = ["g"] if quick else [name for name in STREAMS if name not in left_out]
    cases = [(name, seed) for seed in seeds for name in names]
    found = finished(gap_shares, cases, kept, quick=quick)
    by_stream = {
        name: [each for each, (of, _) in zip(found, cases, strict=True) if of == name]
        for name in names
    }
    each = [_row(STREAMS[name][0], runs) for name, runs in by_stream.items()]
    mean_of_seed = [
        {
            key: statistics.fmean(runs[at][key] for runs in by_stream.values())
            for key in ("with", "without", "same")
        }
        for at in range(len(seeds))
    ]
    return [_row(f"mean of {len(names)} streams", mean_of_seed), *each]


def _row(what: str, runs: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    lost: Mean = mean([each["with"] - each["without"] for each in runs])
    average = {key: statistics.fmean(each[key] for each in runs) for key in runs[0]}
    return {
        "id": "no_labels",
        "what": f"{what}: share of the gap that is lost without labels at arrival",
        "value": lost.value,
        "unit": "points",
        "reach": 5.0,
        "better": "lower",
        "seeds": len(runs),
        "interval": lost.interval,
        "note": f"{average['with']:.1f} % of the gap closed with labels in the probe, "
        f"{average['without']:.1f} % without; the same update mode in {average['same']:.0f} % of "
        f"the decisions. Budget of {_BUDGET} % of full's counted joules; the labels arrive after "
        f"the decision; arrivals of {_SIZE} samples; seed by seed "
        + ", ".join(f"{each['with'] - each['without']:.1f}" for each in runs),
    }


def gap_shares(name: str, seed: int, *, quick: bool) -> dict[str, float]:
    """Return the shares of the gap with and without labels, of one stream and seed."""
    torch.set_num_threads(1)
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    build = partial(duplicates, mnist(), size=100) if quick else STREAMS[name][1]
    experiences, epochs = read(build(seed), seed), 2 if quick else EPOCHS
    late = [_late(each) for each in experiences]
    # Only streams of the names (f) to (m) are counted; the name has no other effect here.
    reference = Job(stream="g", seed=seed)
    full = run(reference, experiences, budget_j=None, epochs=epochs)
    budget_j = _BUDGET / 100 * sum(entry["update_j"] for entry in full["experiences"])
    job = Job(stream="g", seed=seed, policy="default", budget=_BUDGET)
    done = [run(job, each, budget_j=budget_j, epochs=epochs) for each in (experiences, late)]
    if any(each["violations"] for each in done):
        raise RuntimeError(f"a run of stream {name}, seed {seed}, broke its budget")
    once, always = once_and_always(full)
    modes = [[entry["mode"] for entry in each["experiences"]] for each in done]
    same = [first == second for first, second in zip(*modes, strict=True)]
    print(
        f"{name}-{seed}: once {once:.4f}, full {always:.4f}, with labels "
        f"{share(done[0], full):.1f} %, without {share(done[1], full):.1f} %",
        flush=True,
    )
    return {
        "with": share(done[0], full),
        "without": share(done[1], full),
        "same": 100 * statistics.fmean(same),
    }


def _late(experience: Experience) -> Experience:
    """Return an experience without labels, which arrive after the decision."""
    return Experience(
        experience.id,
        _stripped(experience.train),
        _stripped(experience.val),
        metadata=experience.metadata,
        test=experience.test,
        labels=lambda: (experience.train, experience.val),
    )


def _stripped(dataset: Dataset[Any]) -> TensorDataset:
    images = torch.stack([image for image, _ in dataset])
    return TensorDataset(images, torch.full((len(images),), MISSING_LABEL))
