"""Update when what waiting has cost by now is what an update costs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from greentrain.budget import Balance
from greentrain.control.action import Option, State, UpdateMode
from greentrain.control.decision import Decision, Reason
from greentrain.control.policies.rules import (
    Verdict,
    carry_out,
    check_mode,
    not_due,
    skipped,
    staleness,
    unknown_note,
)
from greentrain.errors import ConfigurationError
from greentrain.units import format_energy

Regret = Literal["misclassifications", "latency"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CumulativeRegret:
    """Update when the regret of having waited, turned into joules, reaches what an update costs.

    The cost-aware policy of Continuum (Tian, Yu and Wang, SoCC 2018), which costs at most twice
    what the best schedule in hindsight does, and the cost triggers of Modyn: an update is due when
    ``regret * joules_per_regret >= expected joules of the update``. Regret is the area, over the
    experiences since the last update, this one included, under

    - ``"latency"``: the samples that wait to be trained on, or
    - ``"misclassifications"``: those of them that the model would have got right when it was new,
      ``samples * staleness``.

    It begins at 0 after each update. Joules per regret say what a sample that waits for one
    experience is worth. Departures: both papers leave that number to the user; unless it is given,
    all samples of one experience waiting for the next one are worth what may be spent on one
    experience. Staleness that is unknown counts as none. Costs come from the controller's cost
    model in place of a ridge regression of seconds on samples.

    Args:
        regret: What is summed.
        joules_per_regret: Joules for one sample, or misclassification, and experience; from what is
            left of the budget unless given.
        mode: The update mode.

    Raises:
        ConfigurationError: If the regret is not known, the joules are not positive, or the mode is
            ``SKIP``.
    """

    regret: Regret = "misclassifications"
    joules_per_regret: float | None = None
    mode: UpdateMode = UpdateMode.FULL_RETRAIN

    def __post_init__(self) -> None:
        if self.regret not in get_args(Regret):
            allowed = " or ".join(get_args(Regret))
            raise ConfigurationError(f"regret is {self.regret!r}; it is {allowed}")
        given = self.joules_per_regret
        if given is not None and not (math.isfinite(given) and given > 0):
            raise ConfigurationError(f"joules_per_regret is {given!r}; it is above 0, or None")
        check_mode(self.mode)

    def decide(self, state: State, options: Sequence[Option], balance: Balance) -> Decision:
        """Choose the mode if waiting has cost as much as it does."""
        waiting = [*(past.n_new for past in skipped(state)), state.n_new]
        stale = staleness(state)
        note = ""
        if self.regret == "latency":
            area = float(sum(waiting))
        else:
            area = sum((lost or 0.0) * n for lost, n in zip(stale, waiting, strict=True))
            note = unknown_note(stale)
        regret_j = area * self._worth_j(state, waiting, balance)

        def rule(option: Option) -> Verdict:
            due = regret_j > 0 and regret_j >= option.cost_j.mean
            told = (
                f"{self.regret} waiting over {len(waiting)} experiences sum to {area:.4g}{note}, "
                f"worth {format_energy(regret_j)} against {format_energy(option.cost_j.mean)} for "
                f"{option.action}"
            )
            if not due:
                return not_due(told)
            return Verdict(update=True, reason=Reason.STALE, sentence=told)

        return carry_out(state, options, balance, self.mode, rule)

    def _worth_j(self, state: State, waiting: Sequence[int], balance: Balance) -> float:
        if self.joules_per_regret is not None:
            return self.joules_per_regret
        # What waits at the first experience after an update came with that experience alone.
        arrived = waiting[0] if len(waiting) > 1 else state.n_new - state.n_pending
        return balance.left_j / state.remaining / max(1, arrived)
