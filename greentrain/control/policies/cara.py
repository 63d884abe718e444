"""Cara: retrain when a model is stale, by a threshold that is fitted on a prefix of the stream.

Mahadevan and Mathioudakis, "Cost-effective retraining of machine learning models", Knowledge-Based
Systems 2024, arXiv 2310.04216. A model of round ``i`` costs its staleness in each round ``t`` in
which it is kept. Retraining costs ``kappa_t``, in the same unit.

Departures of all three rules: staleness is the metric lost on the new data, all samples alike, and
is never negative. The paper weighs labelled data by their distance to the queries. There is a
budget, so an update that is not affordable is put off.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from greentrain.control.action import Option
from greentrain.control.decision import Reason
from greentrain.control.policies.rules import (
    Rule,
    Verdict,
    check_mode,
    require,
    staleness,
    unknown_note,
)
from greentrain.control.state import State
from greentrain.control.update_modes import UpdateMode
from greentrain.errors import ConfigurationError
from greentrain.units import is_whole

Costs = Sequence[Sequence[float]]
"""``costs[i][t]`` for ``i <= t``: staleness in round t of the model of round i; on the diagonal
the cost of retraining in round t. Values below the diagonal are not read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CaraThreshold(Rule):
    """Cara-T: retrain when the staleness of the model is above a threshold.

    Source and departures: see :mod:`greentrain.control.policies.cara`. Unknown staleness counts as
    0.

    Args:
        threshold: Staleness, in units of the metric; :func:`fit_cara` chooses it.
        mode: The update mode.

    Raises:
        ConfigurationError: If the threshold is negative, or the mode is ``SKIP``.
    """

    threshold: float
    mode: UpdateMode = UpdateMode.FULL_RETRAIN

    def __post_init__(self) -> None:
        _check_threshold(self.threshold)
        check_mode(self.mode)

    def judge(self, state: State, option: Option, left_j: float) -> Verdict:
        """Require an update if the model is stale now."""
        now = staleness(state)[-1]
        found = "unknown, counted as 0" if now is None else f"{now:.4f}"
        return Verdict(
            update=(now or 0.0) > self.threshold,
            reason=Reason.STALE,
            sentence=f"Staleness {found}, threshold {self.threshold:.4f}",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CaraCumulative(Rule):
    """Cara-CT: retrain when the staleness summed since the last update is above a threshold.

    Source and departures: see :mod:`greentrain.control.policies.cara`. Unknown staleness counts as
    0; the sum is at most over the experiences in the history.

    Args:
        threshold: Summed staleness, in units of the metric times experiences; :func:`fit_cara`
            chooses it.
        mode: The update mode.

    Raises:
        ConfigurationError: If the threshold is negative, or the mode is ``SKIP``.
    """

    threshold: float
    mode: UpdateMode = UpdateMode.FULL_RETRAIN

    def __post_init__(self) -> None:
        _check_threshold(self.threshold)
        check_mode(self.mode)

    def judge(self, state: State, option: Option, left_j: float) -> Verdict:
        """Require an update if the model has been stale for long enough."""
        each = staleness(state)
        total = _sum(value or 0.0 for value in each)
        return Verdict(
            update=total > self.threshold,
            reason=Reason.STALE,
            sentence=(
                f"Staleness sum {total:.4f} over {len(each)} experiences since the last update"
                f"{unknown_note(each)}, threshold {self.threshold:.4f}"
            ),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CaraPeriodic(Rule):
    """Cara-P: retrain in the rounds ``offset``, ``offset + period``, ``offset + 2 * period``, ...

    Source and departures: see :mod:`greentrain.control.policies.cara`. A retraining that is not
    affordable is omitted, not put off.

    Args:
        period: Experiences from one retraining to the next; :func:`fit_cara` chooses it.
        offset: Number of the first experience at which to retrain.
        mode: The update mode.

    Raises:
        ConfigurationError: If the period is not a positive or the offset a negative whole number,
            or the mode is ``SKIP``.
    """

    period: int
    offset: int = 0
    mode: UpdateMode = UpdateMode.FULL_RETRAIN

    def __post_init__(self) -> None:
        for name, value, least in (("period", self.period, 1), ("offset", self.offset, 0)):
            require(is_whole(value, least), name, value, f"a whole number, {least} or more")
            object.__setattr__(self, name, int(value))
        check_mode(self.mode)

    def judge(self, state: State, option: Option, left_j: float) -> Verdict:
        """Require an update if the number of the experience is one of the rounds."""
        due = _in_round(state.position, self.period, self.offset)
        rounds = ", ".join(str(self.offset + n * self.period) for n in range(3))
        return Verdict(
            update=due,
            reason=Reason.SCHEDULED,
            sentence=f"Experience {state.position} is {'' if due else 'not '}one of {rounds}, ...",
        )


CaraRule = Literal["threshold", "cumulative", "periodic"]


def fit_cara(
    costs: Costs, rule: CaraRule, *, mode: UpdateMode = UpdateMode.FULL_RETRAIN
) -> CaraThreshold | CaraCumulative | CaraPeriodic:
    """Choose the parameter of a rule that would have cost least on a prefix of the stream.

    Every parameter that makes a difference is tried. Of equal ones the one that retrains least
    wins.

    Args:
        costs: The cost matrix of the paper, ``(rounds, rounds)``: see :data:`Costs`. Row i comes
            from a model that was trained in round i and probed in all later rounds.
        rule: Name of the rule.
        mode: The update mode of the returned policy.

    Returns:
        The policy, with its parameter.

    Raises:
        ConfigurationError: If the rule does not exist, there are fewer than two rounds, or a cost
            is missing, negative or not finite.

    Example:
        >>> kappa, unused = 0.3, 0.0  # the model of round 0 is stale from round 2 on
        >>> costs = [[kappa, 0.0, 0.2, 0.2], [unused, kappa, 0.2, 0.2],
        ...          [unused, unused, kappa, 0.0], [unused, unused, unused, kappa]]
        >>> fit_cara(costs, "threshold").threshold  # once in round 2 costs 0.3, keeping it 0.4
        0.0
    """
    require(rule in get_args(CaraRule), "rule", rule, " or ".join(get_args(CaraRule)))
    _check_costs(costs)
    rounds = range(len(costs))
    if rule == "periodic":
        schedules = [(period, offset) for period in rounds[1:] for offset in range(period)]
        schedules.append((len(costs), 0))  # not within the prefix
        period, offset = min(
            schedules,
            key=lambda each: (
                *_cost(costs, lambda t, stale, total: _in_round(t, *each)),
                *each,
            ),
        )
        return CaraPeriodic(period=period, offset=offset, mode=mode)
    single = rule == "threshold"
    thresholds = {0.0}
    for i in rounds:
        row = [float(costs[i][t]) for t in rounds[i + 1 :]]
        thresholds |= set(row if single else (_sum(row[:n]) for n in range(1, len(row) + 1)))
    threshold = min(
        sorted(thresholds),
        key=lambda each: _cost(costs, lambda t, stale, total: (stale if single else total) > each),
    )
    kind = CaraThreshold if single else CaraCumulative
    return kind(threshold=threshold, mode=mode)


def _cost(costs: Costs, retrains: Callable[[int, float, float], bool]) -> tuple[float, int]:
    # The cost of a strategy from round 1 on, with the model of round 0, and its retrainings.
    since: list[float] = []
    spent: list[float] = []
    trained = count = 0
    for t in range(1, len(costs)):
        since.append(float(costs[trained][t]))
        if retrains(t, since[-1], _sum(since)):
            trained, count = t, count + 1
            spent.append(float(costs[t][t]))
            since.clear()
        else:
            spent.append(since[-1])
    return _sum(spent), count


def _in_round(position: int, period: int, offset: int) -> bool:
    return position >= offset and (position - offset) % period == 0


def _sum(values: Iterable[float]) -> float:
    # Exact, so that a fitted threshold decides alike on a later sum of the same values.
    return math.fsum(values)


def _check_threshold(threshold: float) -> None:
    require(math.isfinite(threshold) and threshold >= 0, "threshold", threshold, "0 or more")


def _check_costs(costs: Costs) -> None:
    if len(costs) < 2:
        raise ConfigurationError(f"costs has {len(costs)} rounds; give 2 or more")
    for i, row in enumerate(costs):
        if len(row) != len(costs):
            raise ConfigurationError(
                f"row {i} of costs has {len(row)} entries; give one per round, {len(costs)}"
            )
        for t, cost in enumerate(row[i:], start=i):
            if not (math.isfinite(cost) and cost >= 0):
                raise ConfigurationError(
                    f"costs[{i}][{t}] is {cost!r}; on and above the diagonal give 0 or more"
                )
