"""Which samples a bounded buffer keeps, as pure functions of counts and groups.

Held and offered samples are told apart by position. A plan says which of the held ones stay and
which of the offered ones are taken; it knows nothing of what is in them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]
Label = int | str
Key = tuple[Label | None, str | None]
"""What names a group: a class and, where arrivals count apart, an experience."""
Order = Callable[[Indices, int], Indices]
"""Of the offered samples of a group, so many, best first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What becomes of a buffer when samples are offered to it.

    Args:
        keep: Positions of the held samples that stay, ascending.
        take: Positions of the offered samples that are taken, in the order of their places.
    """

    keep: Indices
    take: Indices


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What a plan is made from.

    Args:
        held: Group of each held sample, ``(held,)``.
        offered: Group of each offered sample, ``(offered,)``.
        seen: Samples of each group offered before, ``(groups,)``; groups are numbered by their
            first arrival.
        groups_seen: Groups that there were before, those included that are known no more.
        adds: How often samples were offered before.
        room: Samples that may be held.
        keys: What names each group.
    """

    held: Indices
    offered: Indices
    seen: Indices
    groups_seen: int
    adds: int
    room: int
    keys: tuple[Key, ...] = ()


def reservoir(offer: Offer, random: np.random.Generator) -> Plan:
    """Keep a uniform sample of all that came."""
    seen = int(offer.seen.sum())
    keep, take = algorithm_r(seen, len(offer.held), len(offer.offered), offer.room, random)
    return Plan(keep=keep, take=take)


def algorithm_r(
    seen: int, held: int, offered: int, room: int, random: np.random.Generator
) -> tuple[Indices, Indices]:
    """Turn a uniform sample of what came before into one of all that came.

    Vitter 1985, "Random Sampling with a Reservoir", Algorithm R: the n-th sample draws one of n
    places, and replaces what is there if the place is one of the reservoir's. All places are drawn
    at once, and of several samples in one place the last remains. Where there is less room than
    before, a uniform part of the reservoir stays, which is a uniform sample as well.

    Args:
        seen: Samples offered before.
        held: Those of them that are held, a uniform sample of them.
        offered: Samples offered now.
        room: Samples that may be held; one that was full once and has lost samples since cannot
            grow again without favouring what comes, and does not.
        random: Source of randomness.

    Returns:
        Positions of the held samples that stay, and of the offered ones that are taken, ascending.
    """
    stay = np.arange(held)
    if held > room:
        stay = np.sort(random.choice(held, room, replace=False))
    elif held < seen:
        room = held
    if not room:
        return stay, np.arange(0)
    filling = min(room - len(stay), offered)
    places = np.concatenate([stay, held + np.arange(filling)])
    drawn = random.integers(0, seen + np.arange(filling, offered) + 1)
    late = np.flatnonzero(drawn < room)
    places[drawn[late]] = held + filling + late  # NumPy keeps the last of repeated places
    return np.sort(places[places < held]), np.sort(places[places >= held]) - held


def replacement(offer: Offer, random: np.random.Generator) -> Plan:
    """Let ``room / i`` random samples of the i-th experience replace as many random old ones.

    Pellegrini et al. 2020, "Latent Replay for Real-Time Continual Learning", Algorithm 1. A
    fraction is met on average. Where there is room left (the paper has none after the first
    experience), it is filled before anything is replaced.
    """
    n_held, n_offered, room = len(offer.held), len(offer.offered), offer.room
    share = room / (offer.adds + 1)
    wanted = int(share) + int(random.random() < share % 1)
    taken = min(n_offered, max(wanted, room - n_held))
    stay = n_held - max(0, n_held + taken - room)
    return Plan(
        keep=np.sort(random.choice(n_held, stay, replace=False)),
        take=np.sort(random.choice(n_offered, taken, replace=False)),
    )


def balanced(offer: Offer, random: np.random.Generator, *, per_group: int | None = None) -> Plan:
    """Keep equally many of each group, and within a group a uniform sample of what came of it.

    The share of a group that had to give samples away never grows again, so what came of it first
    and what comes late stay equally likely. If there are more groups than places, as many as fit
    keep one sample, and which ones is a uniform choice among all groups that ever came.

    Args:
        offer: What is held and offered.
        random: Source of randomness.
        per_group: Samples of a group that may be kept at most.
    """
    n_groups = len(offer.seen)
    held = np.bincount(offer.held, minlength=n_groups)
    most = held + np.bincount(offer.offered, minlength=n_groups)
    if per_group is not None:
        most = np.minimum(most, per_group)
    if np.count_nonzero(most) > offer.room:
        old, new = np.flatnonzero(held), np.flatnonzero((offer.seen == 0) & (most > 0))
        stay, enter = algorithm_r(offer.groups_seen, len(old), len(new), offer.room, random)
        most = _ones(n_groups, np.concatenate([old[stay], new[enter]]))
    targets = shares(most, offer.room)
    positions = zip(members(offer.held, n_groups), members(offer.offered, n_groups), strict=True)
    keep, take = [np.arange(0)], [np.arange(0)]
    for group, (old, new) in enumerate(positions):
        seen, target = int(offer.seen[group]), int(targets[group])
        stay, enter = algorithm_r(seen, len(old), len(new), target, random)
        keep.append(old[stay])
        take.append(new[enter])
    return Plan(keep=np.sort(np.concatenate(keep)), take=np.sort(np.concatenate(take)))


def herded(offer: Offer, classes: Indices, random: np.random.Generator, order: Order) -> Plan:
    """Keep equally many of each class, and of what came of it together those that came out first.

    Rebuffi et al. 2017, "iCaRL", Algorithms 4 and 5: the exemplars of a class are in an order in
    which any beginning of it is a good choice, so that reducing them drops the last ones. There
    each class comes once; here one that comes again shares its places among its arrivals.

    Args:
        offer: What is held, in the order of its choice, and offered; a group is a class of one
            arrival.
        classes: Class of each group, ``(groups,)``.
        random: Source of randomness, for more classes than places.
        order: Gives the best offered samples of a group.
    """
    n_groups = len(offer.seen)
    held = np.bincount(offer.held, minlength=n_groups)
    there = held + np.bincount(offer.offered, minlength=n_groups)
    most = np.bincount(classes, weights=there).astype(np.int64)
    if np.count_nonzero(most) > offer.room:
        chosen = random.choice(np.flatnonzero(most), offer.room, replace=False)
        most = _ones(len(most), chosen)
    targets = np.zeros(n_groups, dtype=np.int64)
    for target, arrivals in zip(shares(most, offer.room), members(classes, len(most)), strict=True):
        mixed = random.permutation(arrivals)  # of more arrivals than places, any may be left out
        targets[mixed] = shares(there[mixed], int(target))
    keep, take = [np.arange(0)], [np.arange(0)]
    positions = zip(members(offer.held, n_groups), members(offer.offered, n_groups), strict=True)
    for group, (old, new) in enumerate(positions):
        target = int(targets[group])
        keep.append(old[:target])
        if len(new) and target:
            take.append(order(new, min(target, len(new))))
    return Plan(keep=np.sort(np.concatenate(keep)), take=np.concatenate(take))


def shares(most: Indices, room: int) -> Indices:
    """Share places out as equally as may be, where each can use only so many.

    Args:
        most: Places that each can use, ``(n,)``.
        room: Places that there are.

    Returns:
        Places for each, at most ``room`` together; what cannot be shared goes to the first.

    Example:
        >>> shares(np.array([9, 2, 9]), 11).tolist()
        [5, 2, 4]
    """
    given = np.zeros_like(most)
    left = min(room, int(most.sum()))
    while left:
        open_ = np.flatnonzero(given < most)
        if left < len(open_):
            given[open_[:left]] += 1
            break
        step = min(left // len(open_), int((most - given)[open_].min()))
        given[open_] += step
        left -= step * len(open_)
    return given


def members(groups: Indices, n_groups: int) -> list[Indices]:
    """Return the positions of each group, ascending."""
    order = np.argsort(groups, kind="stable")
    ends = np.cumsum(np.bincount(groups, minlength=n_groups))
    return np.split(order, ends[:-1])


def _ones(n: int, where: Indices) -> Indices:
    ones = np.zeros(n, dtype=np.int64)
    ones[where] = 1
    return ones
