"""Cara: retrain when a model is stale, by a threshold that was fitted on a prefix of the stream.

Mahadevan and Mathioudakis, "Cost-effective retraining of machine learning models", Knowledge-Based
Systems 2024, arXiv 2310.04216. A model that was trained in round ``i`` costs its staleness in each
round ``t`` in which it is kept, and retraining costs ``kappa_t``, in the same unit.

Departures, of all three rules: staleness is what the model lost of the metric on the new data, all
alike, and is never negative, where the paper weighs labelled data by how near they are to the
queries; there is a budget, so that an update which cannot be paid is put off.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
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
    staleness,
    unknown_note,
)
from greentrain.errors import ConfigurationError

Costs = Sequence[Sequence[float]]
"""``costs[i][t]`` for ``i <= t``: staleness in round t of the model of round i; on the diagonal
what retraining in round t costs. What stands below the diagonal is not read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CaraThreshold:
    """Cara-T: retrain when the model is staler than a threshold.

    Source and departures: see :mod:`greentrain.control.policies.cara`. Unknown staleness is none.

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

    def decide(self, state: State, options: Sequence[Option], balance: Balance) -> Decision:
        """Choose the mode if the model is stale now."""
        now = staleness(state)[-1]
        told = (
            f"staleness is unknown, which counts as none; the threshold is {self.threshold:.4f}"
            if now is None
            else f"staleness is {now:.4f} against a threshold of {self.threshold:.4f}"
        )
        stale = (now or 0.0) > self.threshold
        return carry_out(state, options, balance, self.mode, lambda option: _verdict(stale, told))


@dataclass(frozen=True, slots=True, kw_only=True)
class CaraCumulative:
    """Cara-CT: retrain when the staleness summed since the last update is above a threshold.

    Source and departures: see :mod:`greentrain.control.policies.cara`. Unknown staleness counts as
    none; at most the experiences in the history are summed.

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

    def decide(self, state: State, options: Sequence[Option], balance: Balance) -> Decision:
        """Choose the mode if the model has been stale for long enough."""
        each = staleness(state)
        total = _sum(value or 0.0 for value in each)
        told = (
            f"staleness over {len(each)} experiences since the last update sums to {total:.4f}"
            f"{unknown_note(each)} against a threshold of {self.threshold:.4f}"
        )
        stale = total > self.threshold
        return carry_out(state, options, balance, self.mode, lambda option: _verdict(stale, told))


@dataclass(frozen=True, slots=True, kw_only=True)
class CaraPeriodic:
    """Cara-P: retrain in the rounds ``offset``, ``offset + period``, ``offset + 2 * period``, ...

    Source and departures: see :mod:`greentrain.control.policies.cara`. A retraining that cannot be
    paid is left out, not put off.

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
            if not (isinstance(value, int) and value >= least):
                raise ConfigurationError(
                    f"{name} is {value!r}; it is a whole number, {least} or more"
                )
        check_mode(self.mode)

    def decide(self, state: State, options: Sequence[Option], balance: Balance) -> Decision:
        """Choose the mode if the experience's number is one of the rounds."""
        due = _in_round(state.position, self.period, self.offset)
        told = (
            f"experience {state.position} is {'' if due else 'not '}one of {self.offset}, "
            f"{self.offset + self.period}, {self.offset + 2 * self.period}, ..."
        )
        verdict = (
            Verdict(update=True, reason=Reason.SCHEDULED, sentence=told) if due else not_due(told)
        )
        return carry_out(state, options, balance, self.mode, lambda option: verdict)


CaraRule = Literal["threshold", "cumulative", "periodic"]


def fit_cara(
    costs: Costs, rule: CaraRule, *, mode: UpdateMode = UpdateMode.FULL_RETRAIN
) -> CaraThreshold | CaraCumulative | CaraPeriodic:
    """Choose the parameter of a rule that would have cost least on a prefix of the stream.

    Every parameter that makes a difference is tried; of equal ones, that which retrains least.

    Args:
        costs: The paper's cost matrix, ``(rounds, rounds)``: see :data:`Costs`. One row follows
            from a model that was trained in round i and looked at in all later ones.
        rule: Which rule.
        mode: The update mode of the policy that is returned.

    Returns:
        The policy, with its parameter.

    Raises:
        ConfigurationError: If the rule is not known, there are fewer than two rounds, or a cost is
            missing, negative or not finite.

    Example:
        >>> never, dear = 0.0, 0.3  # the model of round 0 is stale from round 2 on
        >>> costs = [[dear, 0.0, 0.2, 0.2], [never, dear, 0.2, 0.2],
        ...          [never, never, dear, 0.0], [never, never, never, dear]]
        >>> fit_cara(costs, "threshold").threshold  # once in round 2 costs 0.3, keeping it 0.4
        0.0
    """
    if rule not in get_args(CaraRule):
        raise ConfigurationError(f"rule is {rule!r}; it is {' or '.join(get_args(CaraRule))}")
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
    # What a strategy costs from round 1 on, with the model of round 0, and how often it retrains.
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
    # Exact, so that a threshold fitted on one sum decides alike on another one of the same values.
    return math.fsum(values)


def _verdict(stale: bool, told: str) -> Verdict:
    return Verdict(update=True, reason=Reason.STALE, sentence=told) if stale else not_due(told)


def _check_threshold(threshold: float) -> None:
    if not (math.isfinite(threshold) and threshold >= 0):
        raise ConfigurationError(f"threshold is {threshold!r}; it is 0 or more")


def _check_costs(costs: Costs) -> None:
    if len(costs) < 2:
        raise ConfigurationError(f"costs has {len(costs)} rounds; it needs 2 or more")
    for i, row in enumerate(costs):
        if len(row) != len(costs):
            raise ConfigurationError(
                f"row {i} of costs has {len(row)} entries; it has one a round, {len(costs)}"
            )
        for t, cost in enumerate(row[i:], start=i):
            if not (math.isfinite(cost) and cost >= 0):
                raise ConfigurationError(
                    f"costs[{i}][{t}] is {cost!r}; on and above the diagonal it is 0 or more"
                )
