"""Run a stream with the real trainer, and collect all figures of the run."""

from __future__ import annotations

import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Literal

from pytorch_lightning import Callback, LightningModule

from _controller.clocks import ProcessorClock, counted_clock
from _controller.jobs import Job
from _controller.kinds import kind_of
from _controller.policies import POLICIES
from greentrain import StreamTrainer
from greentrain.energy import ConstantMeter
from greentrain.ledger import Ledger, verify
from greentrain.memory import Buffer, ReservoirBuffer
from greentrain.streams import Experience
from greentrain.training.result import UpdateResult

POWER_W = 10.0
"""Watts of one core in this benchmark, which converts processor time to joules."""
NEVER_BINDS = "1 kWh"
EPOCHS, BATCH_SIZE = 10, 64


class Fits(Callback):
    """Count the samples of fits, and keep the trained model.

    Attributes:
        samples: Samples that fits trained on, repetitions included.
        trained: The model of the last fit, kept or not.
    """

    def __init__(self) -> None:
        self.samples = 0
        self.trained: LightningModule | None = None

    def on_train_batch_end(
        self, trainer: Any, module: Any, outputs: Any, batch: Any, index: int
    ) -> None:
        self.samples += len(batch[1])

    def on_fit_end(self, trainer: Any, module: Any) -> None:  # when weights have been averaged
        self.trained = module


def run(
    job: Job,
    experiences: Sequence[Experience],
    *,
    budget_j: float | None,
    epochs: int = EPOCHS,
    make: Callable[[], LightningModule] | None = None,
    methods: Mapping[str, Callback] | None = None,
    clock: ProcessorClock | None = None,
) -> dict[str, Any]:
    """Run a stream to its end.

    Args:
        job: The run.
        experiences: The stream.
        budget_j: Joules that may be spent; ``None`` for a budget that never binds.
        epochs: Usual epochs of a full retraining.
        make: Makes a model; the stream's unless given.
        methods: Methods that are offered besides the update modes.
        clock: Clock of the meter; that of the job unless given.

    Returns:
        Joules of each phase, and the outcome of each experience, as plain values.
    """
    fits, kind = Fits(), kind_of(job.stream, logged=job.logged)
    tests: list[Any] = [experience.test for experience in experiences]
    memory = _memory(job)
    entries: list[dict[str, Any]] = []
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, _clock(job, clock) as clock:
        url = f"sqlite:///{Path(folder) / 'run.db'}"
        trainer = StreamTrainer(
            make or kind.make,
            budget=NEVER_BINDS if budget_j is None else f"{budget_j / 3600!r} Wh",
            num_experiences=len(experiences),
            monitor=kind.monitor,
            mode=kind.mode,
            evaluation=kind.evaluation,
            buffer=memory,
            ledger=url,
            trainer={"max_epochs": epochs, "accelerator": "cpu", "callbacks": [fits]},
            loader={"batch_size": BATCH_SIZE},
            meter=ConstantMeter({"cpu": POWER_W}, clock=clock),
            policy=POLICIES[job.policy],
            methods=methods,
            name=job.name,
            seed=job.seed,
        )

        def note(experience: Experience, result: UpdateResult) -> None:
            with clock.stopped():
                known = tests[: result.position + 1]
                entry = _entry(result, kind.values(trainer.model, known))
                entry["samples"] = fits.samples
                entry["bytes"] = None if isinstance(memory, str) else _bytes(memory)
                if job.policy == "full" and fits.trained is not None:
                    # The model of any schedule that retrains here and skips what follows.
                    entry["trained"] = kind.values(fits.trained, tests)
                if "copy_of" in experience.metadata:
                    entry["copy"] = True
                entries.append(entry)
                fits.samples, fits.trained = 0, None

        with trainer:
            trainer.run(experiences, on_result=note)
        found = _of_ledger(url, job.name)
    return {
        "name": job.name,
        "stream": job.stream,
        "seed": job.seed,
        "policy": job.policy,
        "share": job.budget,
        "memory": job.memory,
        "logged": job.logged,
        "counted": job.counted,
        "direct": kind.direct,
        "wall_s": round(time.monotonic() - began_s, 2),
        "budget_j": budget_j,
        "update_j": round(sum(entry["update_j"] for entry in entries), 4),
        **found,
        "n_test": [len(test) for test in tests],
        "experiences": entries,
    }


def _entry(result: UpdateResult, right: Sequence[float]) -> dict[str, Any]:
    decision = result.decision
    method = decision.action.method
    return {
        "mode": str(result.update_mode),
        **({"method": method} if method else {}),
        "step_fraction": decision.action.step_fraction,
        "reason": str(decision.reason),
        "steps": result.steps,
        "planned": decision.steps,
        "update_j": round(result.update_j, 5),
        "beside_j": round(result.energy_j - result.update_j, 5),
        "predicted_j": round(decision.cost_j.mean, 5),
        "upper_j": round(decision.cost_j.upper, 5),
        "overrun_j": round(result.overrun_j, 5),
        "kept": result.kept,
        "before": _rounded(result.metric_before),
        "after": _rounded(result.metric_after),
        "right": list(right),
    }


def _clock(job: Job, given: ProcessorClock | None) -> AbstractContextManager[ProcessorClock]:
    """Return the clock: as given, of counted samples on a small stream, or of processor time."""
    if given is not None:
        return nullcontext(given)
    return counted_clock() if job.counted else nullcontext(ProcessorClock())


def _rounded(metric: float | None) -> float | None:
    return None if metric is None else round(metric, 5)


def _memory(job: Job) -> Buffer | Literal["all"] | None:
    if job.memory == "all":
        return "all"
    return None if job.memory == "none" else ReservoirBuffer(int(job.memory), seed=job.seed)


def _bytes(memory: Buffer | None) -> int:
    return 0 if memory is None else int(memory.nbytes or 0)


def _of_ledger(url: str, name: str) -> dict[str, Any]:
    """Verify the ledger of a run, and return the run's figures in it."""
    ledger = Ledger(url, create=False)
    verified = verify(ledger)
    budget = ledger.find_budget(name)
    balance = ledger.balance(str(budget["budget_id"])) if budget else None
    phases: defaultdict[str, float] = defaultdict(float)
    for window in ledger.windows():
        phases[window["phase"]] += window["energy_j"] or 0.0
    reasons = Counter(row["reason"] for row in ledger.rows("decision"))
    ledger.close()
    return {
        "spent_j": None if balance is None else round(balance.spent_j, 5),
        "overrun_j": None if balance is None else round(balance.overrun_j, 5),
        "violations": int(not verified.ok) + int(balance is None or not balance.within),
        "failures": list(verified.failures),
        "phases_j": {phase: round(energy_j, 5) for phase, energy_j in phases.items()},
        "reasons": dict(reasons),
    }
