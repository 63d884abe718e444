"""Update when the regret of waiting equals the cost of an update."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from greentrain.control.action import Option
from greentrain.control.decision import Reason
from greentrain.control.policies.rules import (
    Rule,
    Verdict,
    check_mode,
    is_positive,
    require,
    skipped,
    staleness,
    unknown_note,
)
from greentrain.control.state import State
from greentrain.control.update_modes import UpdateMode
from greentrain.units import format_energy

Regret = Literal["misclassifications", "latency"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CumulativeRegret(Rule):
    """Update when the regret of waiting, in joules, reaches the cost of an update.

    This is the cost-aware policy of Continuum (Tian, Yu and Wang, SoCC 2018), which costs at most
    twice the best schedule in hindsight, and the cost triggers of Modyn. An update is due when
    ``regret * joules_per_regret >= expected joules of the update``. Regret is the area, over the
    experiences since the last update, this one included, under

    - ``"latency"``: the samples that wait to be trained on, or
    - ``"misclassifications"``: the part of them that the model would have predicted right when it
      was new, ``samples * staleness``.

    It restarts at 0 after each update. Joules per regret are the worth of one sample that waits for
    one experience. Departures: both papers leave that number to the user. By default, all samples
    of one experience that wait for the next one are worth the joules left per experience. Unknown
    staleness counts as 0. Costs come from the cost model of the controller, in place of a ridge
    regression of seconds on samples.

    Args:
        regret: The regret to sum.
        joules_per_regret: Joules for one sample, or misclassification, and experience; computed
            from the budget left by default.
        mode: The update mode.

    Raises:
        ConfigurationError: If the regret does not exist, the joules are not positive, or the mode
            is ``SKIP``.
    """

    regret: Regret = "misclassifications"
    joules_per_regret: float | None = None
    mode: UpdateMode = UpdateMode.FULL_RETRAIN

    def __post_init__(self) -> None:
        regrets, worth_j = get_args(Regret), self.joules_per_regret
        require(self.regret in regrets, "regret", self.regret, " or ".join(regrets))
        valid = worth_j is None or is_positive(worth_j)
        require(valid, "joules_per_regret", worth_j, "a number above 0, or to None")
        check_mode(self.mode)

    def judge(self, state: State, option: Option, left_j: float) -> Verdict:
        """Require an update if waiting has cost as much as it does."""
        waiting = [*(past.n_new for past in skipped(state)), state.n_new]
        note = ""
        if self.regret == "latency":
            area = float(sum(waiting))
        else:
            stale = staleness(state)
            area = sum((lost or 0.0) * n for lost, n in zip(stale, waiting, strict=True))
            note = unknown_note(stale)
        regret_j = area * self._worth_j(state, waiting, left_j)
        return Verdict(
            update=regret_j > 0 and regret_j >= option.cost_j.mean,
            reason=Reason.STALE,
            sentence=(
                f"Regret {area:.4g} ({self.regret}) over {len(waiting)} experiences{note}, worth "
                f"{format_energy(regret_j)} of {format_energy(option.cost_j.mean)} for an update"
            ),
        )

    def _worth_j(self, state: State, waiting: Sequence[int], left_j: float) -> float:
        if self.joules_per_regret is not None:
            return self.joules_per_regret
        # At the first experience after an update, only its own samples wait.
        arrived = waiting[0] if len(waiting) > 1 else state.n_new - state.n_pending
        return left_j / state.remaining / max(1, arrived)
