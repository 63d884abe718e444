"""The other objective: the least joules that keep the metric above a floor."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from greentrain.budget import Balance
from greentrain.control.action import Option, State, UpdateMode
from greentrain.control.decision import Decision, Reason
from greentrain.control.options import first, offer
from greentrain.errors import ConfigurationError
from greentrain.units import format_energy

_BELOW_FULL = re.compile(r"\s*full\s*(?:-\s*(\d+(?:\.\d+)?)\s*)?")
_POINT = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class LeastEnergy:
    """Keep the metric above a floor with as few joules as that takes.

    While the model holds the floor nothing is trained. When it does not, or new data would pull it
    below, the cheapest update is taken whose gain, less one standard deviation, brings it back; if
    none does, the one that is expected to gain the most. The budget stays a cap.

    Args:
        floor: The metric, oriented so that more is better, or ``"full - 0.5"``: half a point (0.005
            of a metric from 0 to 1) below what full retraining reaches, as it was measured last or,
            failing that, is expected to reach.

    Raises:
        ConfigurationError: If the floor is neither.

    Example:
        >>> LeastEnergy(floor="full - 0.5").below_full
        0.005
    """

    floor: float | str

    def __post_init__(self) -> None:
        told = f"floor is {self.floor!r}; it is a metric such as 0.97, or 'full - 0.5' in points"
        if isinstance(self.floor, str):
            if _BELOW_FULL.fullmatch(self.floor) is None:
                raise ConfigurationError(told)
        elif isinstance(self.floor, bool) or not math.isfinite(self.floor):
            raise ConfigurationError(told)

    @property
    def below_full(self) -> float | None:
        """How far below full retraining the floor lies; ``None`` where it is a metric."""
        if not isinstance(self.floor, str):
            return None
        match = _BELOW_FULL.fullmatch(self.floor)
        return _POINT * float(match[1] or 0) if match else None

    def decide(self, state: State, options: Sequence[Option], balance: Balance) -> Decision:
        """Choose the cheapest option that holds the floor."""
        offered = offer(options, balance)
        if not state.has_model:
            return first(offered)
        now = _present(state)
        floor, told = self._target(state, options, now)
        if now is None or floor is None:
            sentence = f"nothing says what the metric is now, so nobody can tell if {told} holds"
            return offered.take(offered.skip, Reason.NO_GAIN, sentence, lambda lost: sentence)
        if now >= floor:
            sentence = f"the metric is {now:.3f}, and the floor of {told} holds"
            return offered.take(offered.skip, Reason.NOT_DUE, sentence, lambda lost: sentence)
        if not offered.affordable:
            return offered.nothing()
        enough = [
            each for each in offered.affordable if now + each.gain.mean - each.gain.sd >= floor
        ]
        if enough:
            best = min(enough, key=lambda each: (each.cost_j.mean, -each.gain.mean))
            how = "the cheapest that is sure to bring it back"
        else:
            best = max(offered.affordable, key=lambda each: (each.gain.mean, -each.cost_j.mean))
            how = "the most that can be had, and it may not be enough"
        sentence = (
            f"the metric is {now:.3f}, below {told}; {best.action} is expected to gain "
            f"{best.gain.mean:+.3f} ± {best.gain.sd:.3f} for {format_energy(best.cost_j.mean)}: "
            f"{how}"
        )

        def why_lost(option: Option) -> str:
            if option is offered.skip:
                return "the floor does not hold"
            if option in enough:
                return f"costs {format_energy(option.cost_j.mean)}, more than {best.action}"
            return f"gains {option.gain.mean:+.3f} ± {option.gain.sd:.3f}, not sure to be enough"

        return offered.take(best, Reason.BELOW_TARGET, sentence, why_lost)

    def _target(
        self, state: State, options: Sequence[Option], now: float | None
    ) -> tuple[float | None, str]:
        """Return the floor as a metric, if it is known, and in words."""
        if not isinstance(self.floor, str):
            return float(self.floor), f"{self.floor:.3f}"
        below = self.below_full or 0.0
        measured = [
            past.metric_after
            for past in state.history
            if past.mode is UpdateMode.FULL_RETRAIN and past.metric_after is not None
        ]
        if measured:
            full, how = measured[-1], "as measured last"
        else:
            gains = [
                each.gain.mean
                for each in options
                if each.action.mode is UpdateMode.FULL_RETRAIN and each.action.step_fraction == 1
            ]
            if now is None or not gains:
                return None, f"{self.floor!r}"
            full, how = now + gains[0], "as expected"
        return full - below, f"{full - below:.3f} ({self.floor!r}, full retraining {how})"


def _present(state: State) -> float | None:
    """Return the metric now: as it was looked at, or what the last update reached less the drop."""
    if state.metric_before is not None and math.isfinite(state.metric_before):
        return state.metric_before
    return None if state.metric_last is None else state.metric_last - state.drop
