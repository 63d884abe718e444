"""The processes that train one stream together: rank 0 leads, and the others follow.

Rank 0 decides, reserves, measures, evaluates and records. It broadcasts one small object for each
fit. Then all ranks run that fit. Nothing else of an update is collective, so rank 0 hides the
process group during the rest: a metric object that it evaluates must not wait for the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from pytorch_lightning.strategies import (
    DDPStrategy,
    DeepSpeedStrategy,
    FSDPStrategy,
    ModelParallelStrategy,
)
from pytorch_lightning.strategies.launchers import _MultiProcessingLauncher
from torch import distributed

from greentrain.callbacks.ranks import gather
from greentrain.errors import ConfigurationError, GreentrainError, LedgerError
from greentrain.launch import Launch, launched_options
from greentrain.memory import size
from greentrain.streams import Experience
from greentrain.training.fit import checked_trainer

LEADER = 0
"""The rank that leads."""
_SPLIT = (DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy)
"""Strategies that split a model among processes."""
_Value = TypeVar("_Value")


class Ranks:
    """All ranks of a stream.

    Args:
        rank: The rank of this process.
        size: The number of ranks.

    Attributes:
        rank: As given.
        size: As given.
    """

    def __init__(self, rank: int, size: int) -> None:
        self.rank = rank
        self.size = size
        self._hidden = self._left = False
        self._is_initialized = distributed.is_initialized

    @property
    def leads(self) -> bool:
        """``True`` on rank 0."""
        return self.rank == LEADER

    def send(self, value: Any) -> None:
        """Send a value to all other ranks; only rank 0 calls it."""
        with self.together():
            distributed.broadcast_object_list([value], src=LEADER)

    def receive(self) -> Any:
        """Wait for the next value of rank 0.

        Raises:
            ConfigurationError: If the connection to it is lost, or nothing came within the
                timeout of the process group.
        """
        values: list[Any] = [None]
        try:
            distributed.broadcast_object_list(values, src=LEADER)
        except RuntimeError as error:
            raise ConfigurationError(
                f"rank {self.rank} has lost rank 0, or waited longer than the timeout of the "
                f"process group: {' '.join(str(error).split())[:200]}. Look for the first error "
                "of rank 0; with a state_dir, start all ranks again to go on"
            ) from error
        return values[0]

    def collect(self, value: Any) -> list[Any]:
        """Return the values of all ranks on rank 0, and nothing on the others; all call it."""
        values = [None] * self.size if self.leads else None
        distributed.gather_object(value, values, dst=LEADER)
        return values or []

    def on_leader(self, function: Callable[[], _Value], shown: Callable[[_Value], Any]) -> Any:
        """Call a function on rank 0, and return a part of its result on all other ranks.

        Args:
            function: Called on rank 0 alone.
            shown: Returns the part that the other ranks receive.

        Returns:
            The result on rank 0, and the part of it on the others.

        Raises:
            GreentrainError: If the function raised one, on all ranks.
        """
        if not self.leads:
            return raised(self.receive())
        try:
            with self.alone():
                result = function()
        except GreentrainError as error:
            self.send(error_of(error))
            raise
        self.send(shown(result))
        return result

    def check_same(self, values: Mapping[str, Any], what: str, remedy: str) -> None:
        """Compare values of all ranks.

        Args:
            values: Plain values by name.
            what: What they describe, for the error.
            remedy: What to do about a difference.

        Raises:
            ConfigurationError: If two ranks differ, on all ranks.
        """
        everyone = gather({name: repr(value) for name, value in values.items()})
        for rank, found in enumerate(everyone):
            for name, value in everyone[LEADER].items():
                if found.get(name) != value:
                    raise ConfigurationError(
                        f"rank {rank} has {what} with {name}={found.get(name)}, and rank 0 has "
                        f"{name}={value}; {remedy}"
                    )

    def check_open(self) -> None:
        """Refuse to go on after :meth:`leave`.

        Raises:
            ConfigurationError: If the connection is closed.
        """
        if self._left:
            raise ConfigurationError(
                "an earlier error has closed the connection between the ranks; start all of them "
                "again: with a state_dir, the stream goes on where it ended"
            )

    def leave(self) -> None:
        """Close the connection after an error, so that no other rank waits for this one."""
        self._left = True
        with self.together(), suppress(RuntimeError, ValueError):
            if distributed.get_backend() == "gloo":  # others would wait here for a dead rank
                distributed.destroy_process_group()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hide the process group: what happens inside does not wait for other ranks.

        Torchmetrics, for one, adds up over all ranks as soon as there is a process group.
        """
        with self._hiding(True):
            yield

    @contextmanager
    def together(self) -> Iterator[None]:
        """Show the process group within :meth:`alone`: all ranks take part."""
        with self._hiding(False):
            yield

    @contextmanager
    def _hiding(self, hidden: bool) -> Iterator[None]:
        before, self._hidden = self._hidden, hidden
        distributed.is_initialized = self._seen if hidden else self._is_initialized
        try:
            yield
        finally:
            self._hidden = before
            distributed.is_initialized = self._seen if before else self._is_initialized

    @staticmethod
    def _seen() -> bool:
        return False


def open_ranks(
    options: Mapping[str, Any], launch: Launch | None
) -> tuple[dict[str, Any], Ranks | None]:
    """Connect the processes of a launch.

    Args:
        options: The user's options of the Trainer.
        launch: The launch; ``None`` for a single process.

    Returns:
        Options of the Trainer that use all processes, and the ranks; ``None`` for one process. It
        is ``None`` as well for processes that each fit starts, as with ``strategy="ddp_fork"``.

    Raises:
        ConfigurationError: If the Trainer would use another number of processes, splits the model
            among them, or needs a launcher.
    """
    given = launched_options(options, launch)
    trainer = checked_trainer(given)
    strategy, size = trainer.strategy, trainer.num_devices * trainer.num_nodes
    starts_itself = isinstance(strategy.launcher, _MultiProcessingLauncher)
    if isinstance(strategy, _SPLIT) or (launch and not isinstance(strategy, DDPStrategy)):
        raise ConfigurationError(
            f"a stream needs the whole model in each of its processes, and "
            f"{type(strategy).__name__} does not keep it there; give strategy='ddp'"
        )
    if launch is None:
        if size > 1 and not starts_itself:
            raise ConfigurationError(
                f"trainer has {size} devices, for which a launcher has to start processes; start "
                f"the program with torchrun --nproc-per-node {size}, or give strategy='ddp_fork' "
                "or devices=1"
            )
        return given, None
    if starts_itself:
        raise ConfigurationError(
            f"{launch.launcher} has started {launch.size} processes, and trainer has a strategy "
            "that starts processes itself; give strategy='ddp'"
        )
    if size != launch.size:
        raise ConfigurationError(
            f"{launch.launcher} has started {launch.size} processes, and trainer has devices="
            f"{given['devices']!r} and num_nodes={given['num_nodes']!r}, which makes {size}; omit "
            "both, or give numbers that agree"
        )
    strategy.setup_environment()  # connects them; each later fit uses the same connection
    return given, Ranks(trainer.global_rank, size)


def error_of(error: BaseException) -> GreentrainError:
    """Return an error for the other ranks, with the sentence of rank 0's."""
    kind = LedgerError if isinstance(error, LedgerError) else ConfigurationError
    return kind(f"rank 0 has stopped: {' '.join(str(error).split()) or type(error).__name__}")


def raised(value: Any) -> Any:
    """Return a received value; raise it if it is an error."""
    if isinstance(value, GreentrainError):
        raise value
    return value


def check_experience(ranks: Ranks, experience: Experience) -> None:
    """Compare the experience of all ranks, before anything is spent on it.

    Raises:
        ConfigurationError: If two ranks have different ones, on all ranks.
    """
    if not isinstance(experience, Experience):
        raise ConfigurationError(
            f"update got a {type(experience).__name__}; it takes an Experience(id, train, val)"
        )
    sizes = {"train samples": size(experience.train), "val samples": size(experience.val)}
    ranks.check_same(
        {"id": experience.id, **sizes},
        "an experience",
        "every rank has to read the same stream in the same order",
    )
