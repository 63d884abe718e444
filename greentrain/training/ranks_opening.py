"""Open a stream on all of its ranks, after comparing their configurations."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning import LightningModule

from greentrain.budget import Budget
from greentrain.callbacks.ranks import gather
from greentrain.energy import Meter
from greentrain.errors import ConfigurationError
from greentrain.evaluation.evaluator import Evaluator
from greentrain.memory import BoundedBuffer, Buffer
from greentrain.training.fit import ModelTrainer, as_list, checked_trainer
from greentrain.training.follower import Follower
from greentrain.training.leader import Leader
from greentrain.training.ranks_meter import open_meter
from greentrain.training.runner import StreamRunner
from greentrain.training.stream_opening import open_runner
from greentrain.training.stream_ranks import Ranks
from greentrain.training.stream_state import StreamState

_OF_BUFFER = ("samples", "bytes", "seed", "world_size")
"""Arguments of a bounded buffer by which all ranks choose the same samples."""
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def check_parts(buffer: Buffer | str | None) -> None:
    """Refuse a buffer that holds the part of another rank; every rank has to call this.

    Args:
        buffer: The buffer, as it was given.

    Raises:
        ConfigurationError: If one rank has such a buffer, on all ranks.
    """
    own = (buffer.rank, buffer.world_size) if isinstance(buffer, BoundedBuffer) else (0, 1)
    everyone = gather(own)
    for rank, part in enumerate(everyone):
        if part not in ((0, 1), (rank, len(everyone))):
            raise ConfigurationError(
                f"rank {rank} has the buffer of rank {part[0]} of {part[1]}, and the number of "
                f"ranks is {len(everyone)}; give rank='auto', or omit rank and world_size to hold "
                "everything on each"
            )


def check_ranks(
    ranks: Ranks,
    settings: Mapping[str, Any],
    model: LightningModule,
    options: Mapping[str, Any],
    buffer: Buffer | str | None,
    state_dir: str | Path | None = None,
) -> None:
    """Refuse what several ranks cannot do, and ranks that differ; every rank has to call this.

    Args:
        ranks: The ranks.
        settings: The stream's configuration.
        model: The model with fresh weights.
        options: Options of the Trainer.
        buffer: The buffer, as it was given.
        state_dir: The folder of the state, as it was given.

    Raises:
        ConfigurationError: If an option cannot be used, or two ranks differ in one.
    """
    if settings["shadow"]:
        raise ConfigurationError(
            f"shadow is True and {ranks.size} processes were started; shadow mode trains nothing, "
            "so run it in one process"
        )
    if settings["start_by"] is not None:
        raise ConfigurationError(
            f"start_by is {settings['start_by']!r} and {ranks.size} processes were started, which "
            "would all hold their devices while they wait; omit start_by, and start the processes "
            "at the time that greentrain schedule prints"
        )
    held = {} if buffer is None or isinstance(buffer, str) else buffer.state_dict()
    if "folder" in (held.get("held") or {}):
        raise ConfigurationError(
            f"the buffer has a folder, and {ranks.size} processes would write to it; omit folder, "
            "or give buffer='all' with a state_dir, whose file rank 0 writes"
        )
    plain = (str, int, float, bool, type(None))
    compared = {name: _text(value) for name, value in settings.items()}
    compared["model"] = _digest(model)
    compared["state_dir"] = str(state_dir)
    compared |= {f"buffer.{name}": str(held.get(name)) for name in _OF_BUFFER}
    for name in sorted(options):
        value = options[name]
        if name == "callbacks":
            value = ", ".join(type(each).__name__ for each in as_list(value))
        known = isinstance(value, plain)
        compared[f"trainer.{name}"] = str(value) if known else type(value).__name__
    ranks.check_same(compared, "a configuration", "start all ranks with the same configuration")


def open_on_ranks(
    ranks: Ranks,
    leader: Leader | None,
    state: StreamState,
    trainer: ModelTrainer,
    evaluator: Evaluator,
    budget: Budget,
    *,
    meter: Meter | None,
    options: Mapping[str, Any],
    **given: Any,
) -> StreamRunner | Follower:
    """Open the stream on rank 0, and let the other ranks follow; every rank has to call this.

    Args:
        ranks: The ranks.
        leader: The leader, on rank 0 alone.
        state: The stream's state.
        trainer: Trains.
        evaluator: Measures models.
        budget: The requested budget.
        meter: The user's meter.
        options: Options of the Trainer.
        **given: Other arguments of :func:`greentrain.training.stream_opening.open_runner`.

    Raises:
        GreentrainError: If rank 0 could not open the stream, on all ranks.
    """
    plain = checked_trainer(options)
    metered = open_meter(meter, ranks, plain.strategy.root_device, plain.local_rank)
    found = ranks.on_leader(
        lambda: open_runner(
            state, trainer, evaluator, budget, meter=metered, leader=leader, **given
        ),
        lambda runner: (runner.budget.budget, runner.saved),
    )
    if isinstance(found, StreamRunner):
        return found
    opened, saved = found
    if saved is not None:
        state.load_state_dict(saved)
    return Follower(state, trainer, ranks, opened, metered)


def _text(value: object) -> str:
    """Return a value as text, without the addresses of objects."""
    return _ADDRESS.sub("", repr(value))


def _digest(model: LightningModule) -> str:
    """Return a short hash of the names and shapes of a model's weights."""
    digest = hashlib.sha256()
    for name, each in model.state_dict().items():
        digest.update(f"{name}{tuple(getattr(each, 'shape', ()))}".encode())
    return digest.hexdigest()[:12]
