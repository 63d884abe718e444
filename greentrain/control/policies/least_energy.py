"""Policy with the opposite objective: the least joules that keep the metric at a target."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from greentrain.control.action import Option
from greentrain.control.decision import Decision, Reason
from greentrain.control.forecast import OptionForecast
from greentrain.control.options import OptionSet
from greentrain.control.policies.rules import BasePolicy, known, require
from greentrain.control.state import State
from greentrain.control.update_modes import UpdateMode
from greentrain.units import format_energy

_BELOW_FULL = re.compile(r"\s*full\s*(?:-\s*(\d+(?:\.\d+)?)\s*)?")
_POINT = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class LeastEnergy(BasePolicy):
    """Keep the metric at a target with as few joules as possible.

    Nothing is trained while the model reaches the target. Otherwise the cheapest update is chosen
    whose gain, less one standard deviation, reaches it. If there is none, the update with the
    largest expected gain is chosen. The budget stays a cap.

    Args:
        target_metric: The metric, oriented so that higher is better, or ``"full - 0.5"``: half a
            point (0.005 of a metric from 0 to 1) below full retraining. The metric of full
            retraining is the last one measured, or else the expected one.

    Raises:
        ConfigurationError: If the target is neither.

    Example:
        >>> LeastEnergy(target_metric="full - 0.5").below_full
        0.005
    """

    target_metric: float | str

    def __post_init__(self) -> None:
        target = self.target_metric
        if isinstance(target, str):
            valid = _BELOW_FULL.fullmatch(target) is not None
        else:
            valid = not isinstance(target, bool) and math.isfinite(target)
        allowed = "a metric such as 0.97, or to 'full - 0.5' in points"
        require(valid, "target_metric", target, allowed)

    @property
    def below_full(self) -> float | None:
        """Distance of the target from full retraining; ``None`` if the target is a metric."""
        if not isinstance(self.target_metric, str):
            return None
        match = _BELOW_FULL.fullmatch(self.target_metric)
        return _POINT * float(match[1] or 0) if match else None

    def choose(self, state: State, offered: OptionSet, forecast: OptionForecast) -> Decision:
        """Choose the cheapest option that reaches the target."""
        now = _present(state)
        target, name = self._target(state, offered.options, now)
        if now is None or target is None:
            sentence = f"Metric unknown: no comparison with the target {name}"
            return offered.take(offered.skip, Reason.NO_GAIN, sentence, lambda lost: sentence)
        if now >= target:
            sentence = f"Metric {now:.3f} reaches the target {name}"
            return offered.take(offered.skip, Reason.NOT_DUE, sentence, lambda lost: sentence)
        if not offered.affordable:
            return offered.nothing()
        enough = [
            each for each in offered.affordable if now + each.gain.mean - each.gain.sd >= target
        ]
        if enough:
            best = min(enough, key=lambda each: (each.cost_j.mean, -each.gain.mean))
            how = "the cheapest update that reaches it"
        else:
            best = max(offered.affordable, key=lambda each: (each.gain.mean, -each.cost_j.mean))
            how = "the largest gain, which may not be enough"
        sentence = (
            f"Metric {now:.3f} is below the target {name}; "
            f"{best.gain.mean:+.3f} ± {best.gain.sd:.3f} expected from {best.action} for "
            f"{format_energy(best.cost_j.mean)}, {how}"
        )

        def why_lost(option: Option) -> str:
            if option is offered.skip:
                return "the metric is below the target"
            if option in enough:
                return f"costs {format_energy(option.cost_j.mean)}, more than {best.action}"
            return f"gain {option.gain.mean:+.3f} ± {option.gain.sd:.3f} may not be enough"

        return offered.take(best, Reason.BELOW_TARGET, sentence, why_lost)

    def _target(
        self, state: State, options: Sequence[Option], now: float | None
    ) -> tuple[float | None, str]:
        """Return the target as a metric, if known, and in words."""
        if not isinstance(self.target_metric, str):
            return float(self.target_metric), f"{self.target_metric:.3f}"
        measured = [
            past.metric_after
            for past in state.history
            if past.mode is UpdateMode.FULL_RETRAIN and past.metric_after is not None
        ]
        if measured:
            full, how = measured[-1], "last measured"
        else:
            gains = [
                each.gain.mean
                for each in options
                if each.action.mode is UpdateMode.FULL_RETRAIN and each.action.step_fraction == 1
            ]
            if now is None or not gains:
                return None, f"{self.target_metric!r}"
            full, how = now + gains[0], "expected"
        target = full - (self.below_full or 0.0)
        return target, f"{target:.3f} ({self.target_metric!r}, full retraining {how})"


def _present(state: State) -> float | None:
    """Return the probed metric, or else the metric after the last update less the drop."""
    if known(state.metric_before) is not None:
        return state.metric_before
    return None if state.metric_last is None else state.metric_last - state.drop
