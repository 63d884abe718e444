"""What is to come where several streams pay from one budget: one price is solved for them all."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from greentrain.control.action import Option, State, Table
from greentrain.control.forecast import outlook, risk_discount
from greentrain.control.utility import UtilityModel

Prospect = tuple[Sequence[Option], float]
"""What another stream was offered, and how many experiences to come it stands for."""


def shared_outlook(
    options: Sequence[Option],
    state: State,
    utility: UtilityModel,
    stale: Sequence[float],
    left_j: float,
    others: Sequence[Prospect] = (),
) -> tuple[tuple[Table, ...], tuple[float, ...]]:
    """Imagine what all streams of a budget will be offered.

    Of the experiences to come the others bring as many as their offers stand for, and this stream
    the rest. Its own are imagined by :func:`outlook`; the others are taken to be offered what they
    were. So the price that is solved over all of them is one for each stream, as far as each knows
    of the others, and joules go where they buy most (the dual price of one knapsack, see
    :class:`PricedPolicy`). Gains of different streams have to be in one unit.

    Args:
        options: The options now.
        state: What is known now; ``remaining`` is that of the budget, all streams together.
        utility: Predicts gains.
        stale: How much worse new data went than the last model did, so far.
        left_j: Joules that may be spent on this experience and those to come.
        others: What the other streams were offered.

    Returns:
        The tables, this stream's first, and how many experiences each of them stands for.
    """
    ahead = state.remaining - 1
    if not others or not state.has_model or ahead < 1:
        return outlook(options, state, utility, stale, left_j)
    ours = max(0.0, ahead - math.fsum(weight for _, weight in others))
    # Imagined with the pace of this stream: a whole number of its experiences, at least one.
    own = dataclasses.replace(state, num_experiences=state.position + 1 + max(1, round(ours)))
    even_j = left_j / state.remaining
    tables, weights = outlook(options, own, utility, stale, even_j * own.remaining)
    scale = ours / math.fsum(weights)
    theirs = tuple(_table(offered, even_j) for offered, _ in others)
    return (
        (*tables, *theirs),
        (*(scale * weight for weight in weights), *(weight for _, weight in others)),
    )


def _table(options: Sequence[Option], even_j: float) -> Table:
    return tuple(
        (
            option.cost_j.mean,
            option.gain.mean - risk_discount(option.cost_j.mean, even_j) * option.gain.sd,
        )
        for option in options
    )
