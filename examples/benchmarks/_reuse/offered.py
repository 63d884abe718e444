"""The controller's share of the gap with reuse offered as options, against without.

A run has 10 % of the joules of full retraining. Its options are the plain update modes, and with
``methods`` also warm starts with cached features, with selective training, and with adapters.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from _controller.clocks import ProcessorClock
from _controller.collecting import SMALL
from _controller.gaps import STREAM_NAMES
from _controller.jobs import DESIGN, NEW, Job, Runs
from _controller.kinds import kind_of
from _controller.running import BATCH_SIZE, EPOCHS, run
from _controller.shares import Run, anytime, mean, once_and_always, share
from _controller.streams import stream_of
from pytorch_lightning import Callback, LightningModule
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss

from greentrain.callbacks import FeatureCache, LoraUpdate, SelectiveTraining
from greentrain.streams import Experience

IDS = ("controller",)
STREAMS = tuple(stream for stream in NEW if stream != "f")
BUDGET = 10
_QUICK_BUDGET = 200
"""The same in the quick form, whose trainings are too short for less."""
OFFERED, PLAIN = "offered", "plain"
_STEP_S = 3 * (1e-3 + BATCH_SIZE * 1e-5)
"""Seconds of a plain step of all layers, as on the clock of the controller's benchmark."""
_HELPED = "streams on which the options help the controller"
_NOT_RUN = {
    "better": "higher",
    "note": "not run: the options are built, and this machine had no free processor time for the "
    "runs of --only controller",
}
_ADAPTED = ("net.5",)
"""The last layer of the perceptrons, which is trained as usual next to the adapters."""


def rows(quick: bool, seeds: Sequence[int], kept: Path | None = None) -> list[dict[str, Any]]:
    """Return the rows of the streams, their mean, and the harm; missing runs are made.

    Args:
        quick: Whether to run one small stream.
        seeds: The seeds; none for a row that says that nothing was run.
        kept: Folder of the runs, which ``controller.py --runs`` may have begun.
    """
    if not seeds:
        return [{"id": "controller", "what": _HELPED, "value": None, "unit": "", **_NOT_RUN}]
    with tempfile.TemporaryDirectory() as name:
        runs = Runs(kept or Path(name))
        if quick:
            return _rows({"a": _of_stream(runs, "a", seeds, small=True)})
        return _rows({stream: _of_stream(runs, stream, seeds) for stream in STREAMS})


def methods_of(stream: str) -> dict[str, Callback]:
    """Return the methods that are offered on a stream, by name."""
    if stream == "m":  # its last layer is the only linear one
        return {"cached": FeatureCache("net", freeze=4), "selective": _selective()}
    first = {"l": 2}.get(stream, 3)
    lora = LoraUpdate(rank=8, train=["net.4"] if stream == "l" else _ADAPTED)
    return {"cached": FeatureCache("net", freeze=first), "selective": _selective(), "lora": lora}


def make_of(stream: str, make: Callable[[], LightningModule]) -> Callable[[], LightningModule]:
    """Return the function that makes a stream's model, which also gives the loss of each sample."""

    def training_step(self: Any, batch: Any, batch_index: int) -> dict[str, torch.Tensor]:
        inputs, targets = batch
        loss = mse_loss if stream == "l" else cross_entropy
        losses = loss(self(inputs), targets, reduction="none")
        return {"loss": losses.mean(), "sample_losses": losses}

    def made() -> LightningModule:
        model = make()
        model.__class__ = type(
            type(model).__name__, (type(model),), {"training_step": training_step}
        )
        return model

    return made


@contextmanager
def operations_clock(model: LightningModule, batch: torch.Tensor) -> Iterator[ProcessorClock]:
    """Yield a clock that counts the operations of linear layers and convolutions.

    A plain step of all layers takes as long as on the counted clock of the controller's benchmark.
    A forward pass counts once, and a backward pass once for the inputs and once for the weights of
    a layer, where they need a gradient.

    Args:
        model: The model, which gives the unit.
        batch: Samples of a plain step.
    """
    operations = 0.0

    def count(module: nn.Module, inputs: Any, output: Any) -> None:
        nonlocal operations
        if isinstance(module, nn.Linear | nn.Conv2d):
            passes = 1
            if torch.is_grad_enabled():
                passes += int(inputs[0].requires_grad) + int(module.weight.requires_grad)
            places = output.numel() // module.weight.shape[0]
            operations += passes * places * module.weight.numel()

    handle = torch.nn.modules.module.register_module_forward_hook(count)
    try:
        model(batch)
        plain, operations = operations, 0.0
        yield ProcessorClock(lambda: _STEP_S * operations / plain)
    finally:
        handle.remove()


def _of_stream(
    runs: Runs, stream: str, seeds: Sequence[int], *, small: bool = False
) -> list[tuple[Run, Run, Run]]:
    """Return full retraining, the plain options, and all options, for each seed."""
    found: list[tuple[Run, Run, Run]] = []
    for seed in seeds:
        full = Job(stream=stream, seed=seed)
        read = SMALL.streams if small else stream_of
        make = (SMALL.model(stream) if small else None) or kind_of(stream).make
        done = runs.read()
        if full.name not in done:
            runs.append(_run(full, read(stream, seed), make, small=small))
        for policy in (PLAIN, OFFERED):
            name = f"{stream}-{seed}-{policy}-{BUDGET}"
            if name not in done:
                share_of_full = _QUICK_BUDGET if small else BUDGET
                one = _run(
                    Job(stream=stream, seed=seed, policy="default", budget=BUDGET),
                    read(stream, seed),
                    make,
                    small=small,
                    budget_j=share_of_full / 100 * runs.read()[full.name]["update_j"],
                    methods=methods_of(stream) if policy == OFFERED else None,
                )
                runs.append({**one, "name": name, "policy": policy})
                print(f"{name}: {one['wall_s']:.0f} s", flush=True)
        done = runs.read()
        names = (full.name, *(f"{stream}-{seed}-{each}-{BUDGET}" for each in (PLAIN, OFFERED)))
        found.append((done[names[0]], done[names[1]], done[names[2]]))
    return found


def _run(
    job: Job,
    experiences: Sequence[Experience],
    make: Callable[[], LightningModule],
    *,
    small: bool,
    budget_j: float | None = None,
    methods: Mapping[str, Callback] | None = None,
) -> dict[str, Any]:
    first: Any = experiences[0].train
    batch = torch.stack([first[at % len(first)][0] for at in range(BATCH_SIZE)])
    with operations_clock(make(), batch) as clock:
        return run(
            job,
            experiences,
            budget_j=budget_j,
            epochs=SMALL.epochs if small else EPOCHS,
            make=make_of(job.stream, make),
            methods=methods,
            clock=clock,
        )


def _selective() -> SelectiveTraining:
    return SelectiveTraining("selective_backprop")


def _rows(found: Mapping[str, Sequence[tuple[Run, Run, Run]]]) -> list[dict[str, Any]]:
    common: dict[str, Any] = {"id": "controller", "better": "higher"}
    rows, gains = [], {}
    for stream, triples in found.items():
        shares = [(share(plain, full), share(offered, full)) for full, plain, offered in triples]
        gains[stream] = [offered - plain for plain, offered in shares]
        rows.append(
            common
            | {"what": f"share of the gap at {BUDGET} % with the options: {STREAM_NAMES[stream]}"}
            | {"value": statistics.fmean(offered for _, offered in shares), "unit": "% of the gap"}
            | {"seeds": len(shares), "note": _note(triples, shares)}
        )
    helped = [stream for stream, each in gains.items() if statistics.fmean(each) > 0]
    every = [gain for each in gains.values() for gain in each]
    pooled = mean(every)
    sure = [
        stream
        for stream, each in gains.items()
        if (interval := mean(each).interval) is not None and interval[0] > 0
    ]
    design = [gain for stream in DESIGN if stream in gains for gain in gains[stream]]
    worst = min(gains, key=lambda stream: statistics.fmean(gains[stream]))
    harm = max(0.0, -statistics.fmean(gains[worst]))
    rows += [
        common
        | {"what": _HELPED}
        | {"value": 100 * len(helped) / len(gains), "unit": "% of the streams", "reach": 100.0}
        | {"seeds": len(every)}
        | {
            "note": f"helped: {', '.join(helped) or 'none'}; significantly: "
            f"{', '.join(sure) or 'none'} (95 % interval of Student's t, paired by seed)"
        },
        common
        | {"what": "share of the gap gained by the options, mean over streams and seeds"}
        | {"value": pooled.value, "unit": "points", "reach": 0.0, "seeds": pooled.seeds}
        | {"interval": pooled.interval}
        | {
            "note": "95 % interval of Student's t over runs, paired by seed; the design's half "
            f"({', '.join(DESIGN)}): {statistics.fmean(design) if design else float('nan'):.1f}"
        },
        common
        | {"what": "harm: largest loss of a stream's share by the options", "better": "lower"}
        | {"value": harm, "unit": "points", "seeds": len(every)}
        | {"note": f"on {STREAM_NAMES[worst]}" if harm else "no stream lost"},
    ]
    return rows


def _note(triples: Sequence[tuple[Run, Run, Run]], shares: Sequence[tuple[float, float]]) -> str:
    once, always = (
        statistics.fmean(each)
        for each in zip(*(once_and_always(full) for full, _, _ in triples), strict=True)
    )
    used: dict[str, int] = {}
    for _, _, offered in triples:
        for entry in offered["experiences"]:
            if entry.get("method"):
                used[entry["method"]] = used.get(entry["method"], 0) + 1
    chosen = ", ".join(f"{name} {count}" for name, count in sorted(used.items())) or "none"
    each = ", ".join(f"{plain:.1f} -> {offered:.1f}" for plain, offered in shares)
    reached = statistics.fmean(anytime(offered) for _, _, offered in triples)
    return (
        f"without -> with, seed by seed: {each}; once {once:.4f}, full {always:.4f}, with "
        f"{reached:.4f}; updates with a method: {chosen}. Joules are operations of linear layers "
        "and convolutions; a plain step costs as in the controller's benchmark, whose runs are "
        "the reference"
    )
