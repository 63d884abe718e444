"""Pause and kill trainings at random steps, and compare their weights with an uninterrupted one's.

Every training runs in processes that are forked for it, and really killed.
"""

from __future__ import annotations

import hashlib
import os
import random
import signal
import socket
import sys
import time
import traceback
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _results import Row
from pytorch_lightning import Callback, LightningModule, Trainer, seed_everything
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, Dataset

from greentrain.callbacks import ExactResume, resumable_loader

INTERRUPTIONS = 20
PAUSED = 75
SAMPLES, EPOCHS = 42, 4
_HOOKS = (
    *("on_train_batch_start", "on_before_optimizer_step", "on_train_batch_end"),
    *("on_validation_batch_end", "on_train_epoch_end", "on_save_checkpoint"),
)
_NOTE = (
    "a network with dropout, Adam and a schedule by step; a checkpoint every 3 optimizer steps. A "
    "pause is at a random exact point; a SIGKILL is in a random hook, a saving included. Weights "
    "and Adam's state are compared bit by bit, after a training with 4 interruptions"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One way to train.

    Args:
        what: Its description.
        workers: Processes that load data.
        augmented: Whether the samples are random.
        accumulate: Batches of an optimizer step.
        ranks: Processes that train.
        alone: Whether Lightning resumes alone, without the callback and the loader.
    """

    what: str
    workers: int = 0
    augmented: bool = False
    accumulate: int = 1
    ranks: int = 1
    alone: bool = False


CASES = {
    "cpu": Case(what="on the CPU"),
    "workers": Case(what="with 2 workers", workers=2),
    "augmentation": Case(what="with 2 workers and augmentation", workers=2, augmented=True),
    "accumulation": Case(what="with 3 batches in an optimizer step", augmented=True, accumulate=3),
    "ddp": Case(what="with ddp on 2 processes", augmented=True, ranks=2),
    "alone": Case(what="by Lightning alone, with a shuffled DataLoader", alone=True),
}


def exact_resume(folder: Path, *, quick: bool, cases: Sequence[str] = tuple(CASES)) -> list[Row]:
    """Return two rows for each case: trainings that differ after pauses, and after kills.

    Args:
        folder: A folder for everything.
        quick: Whether to interrupt one training of each case twice, instead of 20 times.
        cases: The cases to try.
    """
    rows: list[Row] = []
    for name in cases:
        case, own = CASES[name], folder / f"exact-{name}"
        expected = _uninterrupted(own / "whole", case)
        for kind in ("pause", "kill"):
            most, each = (2, 2) if quick else (INTERRUPTIONS, 4)
            differing = done = trainings = 0
            while done < most:
                trainings += 1
                print(f"{name}, {kind}: training {trainings}", file=sys.stderr, flush=True)
                chosen = random.Random(f"{name} {kind} {trainings}")
                digest, count = _interrupted(own / f"{kind}-{trainings}", case, kind, each, chosen)
                differing, done = differing + (digest != expected), done + count
            rows.append(
                Row(
                    id="exact_resume",
                    what=f"trainings {case.what} whose weights differ after {_PLURAL[kind]}",
                    value=float(differing),
                    unit="trainings",
                    reach=None if case.alone else 0.0,
                    seeds=done,
                    note=f"{_NOTE}; {trainings} trainings"
                    if not rows
                    else f"{trainings} trainings",
                )
            )
    return rows


_PLURAL = {"pause": "pauses", "kill": "kill -9"}


class Samples(Dataset[Any]):
    """Samples, which may be augmented by all global generators.

    Args:
        augmented: Whether they are.
        count: Number of samples.
    """

    def __init__(self, augmented: bool, count: int = SAMPLES) -> None:
        self.features = torch.randn(count, 4, generator=torch.Generator().manual_seed(0))
        self.augmented = augmented

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.features[index]
        if self.augmented:
            features = features + 0.1 * torch.randn(4) + 0.1 * random.random()
            features = features * float(np.random.uniform(0.9, 1.1))
        return features, self.features[index].sum()


class Network(LightningModule):
    """A network with random numbers: dropout in training, and noise in the validation."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 16), nn.Dropout(0.3), nn.Linear(16, 1))

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        """Return the loss of a batch."""
        features, targets = batch
        return nn.functional.mse_loss(self.layers(features).squeeze(1), targets)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Log the loss with some noise."""
        self.log("val_loss", self.training_step(batch, batch_idx) + 0.01 * torch.rand(()))

    def configure_optimizers(self) -> Any:
        """Return Adam with a schedule by step."""
        optimizer = torch.optim.Adam(self.parameters(), lr=0.01)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=50)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }


class Interruption(Callback):
    """Pause or kill a training after some batches of this process.

    Args:
        kind: ``"pause"`` or ``"kill"``.
        after: Batches before it.
        hook: The hook in which to kill.
        rank: The process to kill.
        exact: The callback that decides whether a pause is exact.
        path: The checkpoint of a pause.
    """

    def __init__(
        self, kind: str, after: int, hook: str, rank: int, exact: ExactResume, path: Path
    ) -> None:
        self.kind, self.after, self.rank = kind, after, rank
        self.exact, self.path = exact, path
        self.batches = 0
        if kind == "kill":
            setattr(self, hook, self._kill)
        else:
            self.on_train_epoch_end = self._pause  # type: ignore[method-assign]

    def on_train_batch_end(self, trainer: Any, *arguments: Any) -> None:
        """Count the batch, and pause after it if that is exact."""
        self.batches += 1
        if self.kind == "pause":
            self._pause(trainer)

    def _pause(self, trainer: Any, *arguments: Any) -> None:
        alone = self.exact not in trainer.callbacks
        if self.batches >= self.after and (alone or not self.exact.point(trainer).inexact):
            trainer.save_checkpoint(self.path)
            raise SystemExit(PAUSED)

    def _kill(self, trainer: Any, *arguments: Any) -> None:
        if "on_train_batch_end" in vars(self):
            self.batches += 1
        if self.batches >= self.after and trainer.global_rank == self.rank:
            os.kill(os.getpid(), signal.SIGKILL)


def _uninterrupted(folder: Path, case: Case) -> str:
    code = _processes(folder, case, None)
    if code != 0:
        raise RuntimeError(f"the uninterrupted training ended with {code}: {_errors(folder)}")
    return (folder / "digest").read_text()


def _interrupted(
    folder: Path, case: Case, kind: str, most: int, chosen: random.Random
) -> tuple[str, int]:
    """Return the digest of a training, and how often it was interrupted."""
    done = 0
    batches = EPOCHS * -(-SAMPLES // (4 * case.ranks))
    while True:
        # The first process may end soon, as each of them is interrupted after some batches.
        plan = None
        if done < most:
            after = chosen.randint(1, max(2, batches // (most + 1)))
            plan = kind, after, chosen.choice(_HOOKS), chosen.randrange(case.ranks)
        code = _processes(folder, case, plan)
        if code == 0:
            return (folder / "digest").read_text(), done
        if code not in (PAUSED, -signal.SIGKILL):
            raise RuntimeError(f"a {kind} ended with {code}: {_errors(folder)}")
        done += 1


def _processes(folder: Path, case: Case, plan: tuple[str, int, str, int] | None) -> int:
    """Run the processes of a training to their end, and return the exit code of the first."""
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ranks = {_fork(folder, case, plan, rank, port): rank for rank in range(case.ranks)}
    code = 0
    while ranks:
        for process in list(ranks):
            ended, status = os.waitpid(process, os.WNOHANG)
            if not ended:
                continue
            del ranks[process]
            code = code or os.waitstatus_to_exitcode(status)
            if os.waitstatus_to_exitcode(status) == -signal.SIGKILL:
                for other in ranks:  # it waits for the one that was killed
                    os.kill(other, signal.SIGKILL)
        time.sleep(0.005)
    return code


def _fork(
    folder: Path, case: Case, plan: tuple[str, int, str, int] | None, rank: int, port: int
) -> int:
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        if case.ranks > 1:  # as torchrun sets it
            os.environ |= {
                **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GROUP_RANK": "0"},
                **{"RANK": str(rank), "LOCAL_RANK": str(rank), "TORCHELASTIC_RUN_ID": "exact"},
                **{"WORLD_SIZE": str(case.ranks), "LOCAL_WORLD_SIZE": str(case.ranks)},
            }
        _fit(folder, case, plan, rank)
        code = 0
    except SystemExit as ended:
        code = int(ended.code or 0)
    except BaseException:
        (folder / f"error{rank}.txt").write_text(traceback.format_exc())
    finally:
        os._exit(code)


def _fit(folder: Path, case: Case, plan: tuple[str, int, str, int] | None, rank: int) -> None:
    warnings.simplefilter("ignore")
    paused, last = folder / "paused.ckpt", folder / "last.ckpt"
    saved = paused if paused.exists() else last if last.exists() else None
    # A process that continues has other random states than the one that it continues.
    seed_everything(7 if saved is None else os.getpid(), verbose=False)
    exact, model = ExactResume(), Network()
    torch.manual_seed(torch.initial_seed() + rank)
    callbacks: list[Callback] = [] if case.alone else [exact]
    if plan is not None:
        kind, after, hook, of_rank = plan
        callbacks.append(Interruption(kind, after, hook, of_rank, exact, paused))
    callbacks.append(ModelCheckpoint(folder, every_n_train_steps=3, save_top_k=1, save_last=True))
    trainer = Trainer(
        accelerator="cpu",
        devices=case.ranks,
        strategy="ddp" if case.ranks > 1 else "auto",
        max_epochs=EPOCHS,
        accumulate_grad_batches=case.accumulate,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=callbacks,
    )
    samples = Samples(case.augmented)
    train: DataLoader[Any] = resumable_loader(samples, 4, seed=3, num_workers=case.workers)
    if case.alone:
        train = DataLoader(samples, 4, shuffle=True)
    val = DataLoader(Samples(False, 8), 4)
    trainer.fit(model, train, val, ckpt_path=None if saved is None else str(saved))
    if trainer.is_global_zero:
        (folder / "digest").write_text(_digest(model, trainer.optimizers[0]))


def _digest(model: LightningModule, optimizer: torch.optim.Optimizer) -> str:
    state = [*model.state_dict().values()]
    state += [value for each in optimizer.state.values() for value in each.values()]
    found = hashlib.sha256()
    for value in state:
        found.update(torch.as_tensor(value).numpy().tobytes())
    return found.hexdigest()


def _errors(folder: Path) -> str:
    return "\n".join(path.read_text() for path in folder.glob("error*.txt"))
