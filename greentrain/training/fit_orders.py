"""Messages of rank 0 to the other ranks: the fits of an update, and its outcome."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pytorch_lightning import Callback

from greentrain.budget import Budget
from greentrain.callbacks import BudgetGuard, EnergyMonitor
from greentrain.callbacks.measured_steps import MeasuredSteps
from greentrain.control import Action, Candidate
from greentrain.energy import NOTHING, Reading, Source, WindowRecorder
from greentrain.training.fit import Weights
from greentrain.training.fit_callbacks import StopOnNan
from greentrain.training.result import UpdateResult

Part = tuple[str, Mapping[str, Any]]
"""The kind of a callback, and its arguments on the other ranks."""
_MANY = 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class FitOrder:
    """A fit that all ranks run.

    Args:
        candidate: The action, and its steps.
        position: Number of the experience, a part of the seed; see :attr:`of_everything`.
        discarded: Whether the trained model is not used.
        parts: The callbacks that are collective, in their order.
        sources: The metered sources of rank 0: all ranks bound the next steps by their power.
    """

    candidate: Candidate
    position: int
    discarded: bool
    parts: Sequence[Part]
    sources: Sequence[Source]

    @property
    def of_everything(self) -> bool:
        """``True`` for a baseline retraining, which trains on all data that the stream holds."""
        return self.position < -1


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveOrder:
    """Rank 0 saves the state, for which all ranks send it their part of the past data.

    Args:
        stored: Whether the experience has been stored.
    """

    stored: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """The current model of rank 0, after an update that was kept.

    Args:
        action: The action that made it.
        weights: Its weights.
        last: The weights that the next update continues from; ``None`` if they are the same.
    """

    action: Action
    weights: Weights
    last: Weights | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The end of an update, or of a baseline retraining.

    Args:
        result: The result.
        kept: The model that is in use from now on; ``None`` if it is the one before.
        stored: Whether the experience was stored; ``None`` after a baseline retraining.
        pending: The pending experiences from now on.
        budget: The budget, which a calibration may have sized.
        per_experience: State of the metrics of each experience; ``None`` without them.
        last: Whether nothing follows for this experience.
    """

    result: UpdateResult | None
    kept: Kept | None
    stored: bool | None
    pending: Sequence[str]
    budget: Budget
    per_experience: Mapping[str, Any] | None
    last: bool


class OthersMeter:
    """The meter of a rank whose joules rank 0 measures: it names the sources, and has no joules.

    Args:
        sources: The sources of rank 0.
    """

    def __init__(self, sources: Sequence[Source] = ()) -> None:
        self.sources = tuple(sources)

    def start(self) -> None:
        """Do nothing."""

    def read(self) -> Reading:
        """Return a reading without sources."""
        return NOTHING

    def close(self) -> None:
        """Do nothing."""


def parts_of(callbacks: Sequence[Callback]) -> list[Part]:
    """Return the callbacks of rank 0 that wait for all ranks, as values to send."""
    parts: list[Part] = []
    for callback in callbacks:
        if isinstance(callback, EnergyMonitor):
            parts.append(("monitor", {}))
        elif isinstance(callback, BudgetGuard):
            guard = {"anneal": callback.anneal, "keep_j": callback.keep_j}
            parts.append(("guard", {"cap_j": callback.cap_j, **guard}))
        elif isinstance(callback, MeasuredSteps):
            parts.append(("steps", {}))
        elif isinstance(callback, StopOnNan):
            parts.append(("nan", {}))
    return parts


def callbacks_of(parts: Sequence[Part], recorder: WindowRecorder) -> list[Callback]:
    """Return the callbacks that wait for those of rank 0.

    Args:
        parts: The result of :func:`parts_of` on rank 0.
        recorder: A recorder of an :class:`OthersMeter`.
    """
    made: list[Callback] = []
    for kind, given in parts:
        if kind == "monitor":
            made.append(EnergyMonitor(recorder, ledger=False, summary=False))
        elif kind == "guard":
            cap_j, options = given["cap_j"], {k: v for k, v in given.items() if k != "cap_j"}
            made.append(BudgetGuard(Budget(energy_j=cap_j), meter=recorder, log=False, **options))
        elif kind == "steps":
            made.append(MeasuredSteps(recorder, enough_steps=_MANY, enough_s=float(_MANY)))
        else:
            made.append(StopOnNan())
    return made
