"""Lead the other ranks through the updates of a stream: send each fit, and the outcome."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from greentrain.budget import Budget
from greentrain.control import Action
from greentrain.energy import Source, WindowRecorder
from greentrain.streams import Experience
from greentrain.texts import get_logger
from greentrain.training.fit import FitPlan
from greentrain.training.fit_orders import FitOrder, Kept, Outcome, SaveOrder, parts_of
from greentrain.training.held_sigterm import held_sigterm
from greentrain.training.result import UpdateResult
from greentrain.training.stream_ranks import Ranks, check_experience, error_of
from greentrain.training.stream_state import StreamState

_log = get_logger(__name__)


class Leader:
    """Rank 0 of a stream over several ranks.

    Args:
        ranks: The ranks.
    """

    def __init__(self, ranks: Ranks) -> None:
        self._ranks = ranks
        self._together = False
        self._check_sigterm: Callable[[], None] = lambda: None

    @contextmanager
    def leading(self, experience: Experience) -> Iterator[None]:
        """Lead an update: the block runs on rank 0 alone, except for its fits.

        If the block raises while the other ranks wait, they raise an error with the same sentence.
        If it raises within a fit, or while they send their data, the connection is closed: no rank
        waits.

        Raises:
            ConfigurationError: If another rank has another experience, or an earlier update has
                closed the connection.
            SystemExit: After the block, if SIGTERM has arrived in it.
        """
        self._ranks.check_open()
        check_experience(self._ranks, experience)
        with held_sigterm() as self._check_sigterm, self._ranks.alone():
            try:
                yield
            except BaseException as error:
                if not self._together:
                    self._ranks.send(error_of(error))
                else:
                    self._ranks.leave()
                    _log.error(
                        "the update on experience %s has ended on rank 0, on another rank or on "
                        "all: what it used is settled. Start all ranks again to go on",
                        experience.id,
                    )
                raise

    @contextmanager
    def together(self, plan: FitPlan) -> Iterator[None]:
        """Send a fit to the other ranks, and run it with them in the block.

        Raises:
            SystemExit: If SIGTERM has arrived.
        """
        self._check_sigterm()
        order = FitOrder(
            candidate=plan.candidate,
            position=plan.position,
            discarded=plan.discarded,
            parts=parts_of(plan.callbacks),
            sources=_sources(plan),
        )
        with self._all(order):
            yield

    def save(self, state: StreamState, latest: str) -> dict[str, Any]:
        """Return the stream's state, with the parts of all ranks if each holds one.

        Args:
            state: The state.
            latest: Id of the experience of this update.
        """
        found = state.state_dict()
        if state.data.in_parts is not None:
            with self._all(SaveOrder(stored=latest in state.data.known)):
                found["data"]["buffer"] = self._ranks.collect(found["data"]["buffer"])
        return found

    @contextmanager
    def _all(self, order: FitOrder | SaveOrder) -> Iterator[None]:
        """Send an order, which all ranks carry out in the block."""
        self._ranks.send(order)
        self._together = True
        with self._ranks.together():
            yield
        self._together = False

    def end(
        self,
        result: UpdateResult | None,
        action: Action,
        state: StreamState,
        *,
        stored: bool | None,
        last: bool,
        budget: Budget,
    ) -> None:
        """Send the end of an update, or of a baseline retraining.

        Args:
            result: The result; ``None`` if no baseline retraining was run.
            action: The action that was carried out.
            state: The stream's state after it.
            stored: Whether the experience was stored; ``None`` after a baseline retraining.
            last: Whether nothing follows for this experience.
            budget: The budget.
        """
        kept = None
        if result is not None and result.kept and result.steps:
            weights = dict(state.model.module.state_dict())
            kept = Kept(action=action, weights=weights, last=state.model.last)
        each = state.per_experience
        self._ranks.send(
            Outcome(
                result=result,
                kept=kept,
                stored=stored,
                pending=tuple(state.data.pending),
                budget=budget,
                per_experience=None if each is None else each.state_dict(),
                last=last,
            )
        )


def _sources(plan: FitPlan) -> tuple[Source, ...]:
    """Return the sources of the recorder that the callbacks of a fit read."""
    for callback in plan.callbacks:
        recorder = getattr(callback, "meter", None)
        if isinstance(recorder, WindowRecorder):
            return recorder.sources
    return ()
