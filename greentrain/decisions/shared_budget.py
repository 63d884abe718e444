"""What the other streams of a budget do, as the ledger tells it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import islice

from greentrain.control import Option, Prospect, Reason, options_of
from greentrain.ledger import Decided, Ledger, alternatives_of, decisions_since

RECENT = 64
"""Experiences of the budget, the last ones, by which it is judged how often each stream comes."""
OFFERS = 4
"""Decisions of another stream, its last ones, whose offers are taken to be made again."""
MOST_OFFERS = 16
"""Offers of all other streams together that a decision is told, the newest."""

_UNWEIGHED = (Reason.NO_MODEL, Reason.BUDGET_EXHAUSTED)
"""Reasons of decisions that tell nothing of what a stream may gain."""


class BudgetPeers:
    """The other streams that pay from a budget: how often they come, and what they are offered.

    Each reading takes up only what was decided since the one before: it costs as much after a
    thousand experiences as after ten.

    Args:
        ledger: The ledger.
        stream: This stream's name; decisions of runs of this name are its own.
    """

    def __init__(self, ledger: Ledger, stream: str) -> None:
        self._ledger = ledger
        self._stream = stream
        self._last = 0
        self._decided: dict[tuple[str, str], Decided] = {}  # what is decided anew moves to the end
        self._offered: dict[int, list[Option]] = {}

    def read(self, budget_id: str) -> list[Decided]:
        """Take up what was decided since the last reading, and return this stream's part of it."""
        new = decisions_since(self._ledger.store, budget_id, self._last)
        self._last = max((decided.entry_id for decided in new), default=self._last)
        new = [decided for decided in new if decided.reason != Reason.BASELINE]
        for decided in new:
            key = (decided.stream, decided.experience_id)
            self._decided.pop(key, None)
            self._decided[key] = decided
        return [decided for decided in new if decided.stream == self._stream]

    def seen(self, since: datetime | None = None) -> int:
        """Return how many experiences the others have decided about, since a moment or in all."""
        return sum(
            decided.stream != self._stream and (since is None or decided.moment >= since)
            for decided in self._decided.values()
        )

    def prospects(self, ahead: int) -> tuple[Prospect, ...]:
        """Return what the others were offered last, and how many experiences each offer stands for.

        Args:
            ahead: Experiences of the budget that are to come after the present one.
        """
        recent = list(islice(reversed(self._decided.values()), RECENT))
        chosen = newest(recent, self._stream)
        unread = [each.entry_id for each in chosen if each.entry_id not in self._offered]
        read = alternatives_of(self._ledger.store, unread) if unread else {}
        self._offered |= {entry_id: options_of(found) for entry_id, found in read.items()}
        self._offered = {each.entry_id: self._offered[each.entry_id] for each in chosen}
        weights = stands_for([each.stream for each in recent], chosen, self._stream, ahead)
        return tuple(zip(self._offered.values(), weights, strict=True))


def newest(recent: Iterable[Decided], stream: str) -> list[Decided]:
    """Return the decisions of other streams that tell what they are offered: a few of each.

    Args:
        recent: Decisions, newest first.
        stream: This stream's name.
    """
    chosen: list[Decided] = []
    counts: Counter[str] = Counter()
    for decided in recent:
        if decided.stream == stream or decided.reason in _UNWEIGHED:
            continue
        if counts[decided.stream] < OFFERS and len(chosen) < MOST_OFFERS:
            counts[decided.stream] += 1
            chosen.append(decided)
    return chosen


def stands_for(
    recent: Sequence[str], chosen: Sequence[Decided], stream: str, ahead: int
) -> list[float]:
    """Return how many experiences to come each chosen decision stands for.

    Each stream is taken to go on bringing its share of the last experiences, the present one, which
    is this stream's, included. A stream of which nothing is known yet counts for nobody: what it
    will bring is taken to be as all the others.

    Args:
        recent: The streams of the last experiences.
        chosen: Decisions of other streams.
        stream: This stream's name.
        ahead: Experiences of the budget that are to come after the present one.

    Example:
        >>> from datetime import UTC, datetime
        >>> moment = datetime(2026, 1, 1, tzinfo=UTC)
        >>> told = [
        ...     Decided(entry_id=n, stream="b", experience_id=f"{n}", reason="", moment=moment)
        ...     for n in range(2)
        ... ]
        >>> stands_for(["b", "a", "b"], told, "a", 8)  # two of four are b's: so are 4 of 8
        [2.0, 2.0]
    """
    told = Counter(each.stream for each in chosen)
    counts = Counter([*(name for name in recent if name in told or name == stream), stream])
    total = counts.total()
    return [ahead * counts[each.stream] / total / told[each.stream] for each in chosen]
