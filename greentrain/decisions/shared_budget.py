"""Read from the ledger the decisions of the other streams that share a budget."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import islice

from greentrain.control import Option, Prospect, Reason, options_of
from greentrain.ledger import DecisionSummary, Ledger

RECENT = 64
"""Number of last experiences from which each stream's share of the budget's is estimated."""
DECISIONS_EACH = 4
"""Number of another stream's last decisions whose options are expected to come again."""
MOST_DECISIONS = 16
"""Largest number of decisions of all other streams together, the newest."""

_UNWEIGHED = (Reason.NO_MODEL, Reason.BUDGET_EXHAUSTED)
"""Reasons of decisions that compared no gains."""


class BudgetPeers:
    """The other streams that share a budget: their share of the experiences, and their options.

    Each reading reads only new decisions, so it costs as much after a thousand experiences as after
    ten.

    Args:
        ledger: The ledger.
        stream: This stream's name, which is the name of its runs.
    """

    def __init__(self, ledger: Ledger, stream: str) -> None:
        self._ledger = ledger
        self._stream = stream
        self._last = 0
        self._decided: dict[
            tuple[str, str], DecisionSummary
        ] = {}  # a repeated decision moves to the end
        self._options: dict[int, list[Option]] = {}

    def read(self, budget_id: str) -> list[DecisionSummary]:
        """Read the decisions since the last reading, and return those of this stream."""
        new = self._ledger.decisions_since(budget_id, self._last)
        self._last = max((decided.entry_id for decided in new), default=self._last)
        new = [decided for decided in new if decided.reason != Reason.BASELINE]
        for decided in new:
            key = (decided.stream, decided.experience_id)
            self._decided.pop(key, None)
            self._decided[key] = decided
        return [decided for decided in new if decided.stream == self._stream]

    def seen(self, since: datetime | None = None) -> int:
        """Return the number of experiences of the other streams, since a moment or in all."""
        return sum(
            decided.stream != self._stream and (since is None or decided.moment >= since)
            for decided in self._decided.values()
        )

    def prospects(self, ahead: int) -> tuple[Prospect, ...]:
        """Return the last options of the other streams, each with a number of experiences.

        Args:
            ahead: Experiences of the budget that come after the current one.
        """
        recent = list(islice(reversed(self._decided.values()), RECENT))
        chosen = newest(recent, self._stream)
        unread = [each.entry_id for each in chosen if each.entry_id not in self._options]
        read = self._ledger.alternatives(unread) if unread else {}
        self._options |= {entry_id: options_of(found) for entry_id, found in read.items()}
        self._options = {each.entry_id: self._options[each.entry_id] for each in chosen}
        weights = experiences_of([each.stream for each in recent], chosen, self._stream, ahead)
        return tuple(zip(self._options.values(), weights, strict=True))


def newest(recent: Iterable[DecisionSummary], stream: str) -> list[DecisionSummary]:
    """Return a few of each other stream's decisions, those that compared gains.

    Args:
        recent: Decisions, newest first.
        stream: This stream's name.
    """
    chosen: list[DecisionSummary] = []
    counts: Counter[str] = Counter()
    for decided in recent:
        if decided.stream == stream or decided.reason in _UNWEIGHED:
            continue
        if counts[decided.stream] < DECISIONS_EACH and len(chosen) < MOST_DECISIONS:
            counts[decided.stream] += 1
            chosen.append(decided)
    return chosen


def experiences_of(
    recent: Sequence[str], chosen: Sequence[DecisionSummary], stream: str, ahead: int
) -> list[float]:
    """Return the number of coming experiences that each chosen decision represents.

    Each stream is expected to keep its share of the last experiences, this stream's current one
    included. A stream without any usable decision is left out: its experiences are expected to be
    like those of the others.

    Args:
        recent: The streams of the last experiences.
        chosen: Decisions of other streams.
        stream: This stream's name.
        ahead: Experiences of the budget that come after the current one.

    Example:
        >>> from datetime import UTC, datetime
        >>> moment = datetime(2026, 1, 1, tzinfo=UTC)
        >>> fields = {"stream": "b", "reason": "", "moment": moment}
        >>> decided = [
        ...     DecisionSummary(entry_id=n, experience_id=f"{n}", **fields) for n in range(2)
        ... ]
        >>> experiences_of(["b", "a", "b"], decided, "a", 8)  # two of four are of b: so are 4 of 8
        [2.0, 2.0]
    """
    known = Counter(each.stream for each in chosen)
    counts = Counter([*(name for name in recent if name in known or name == stream), stream])
    total = counts.total()
    return [ahead * counts[each.stream] / total / known[each.stream] for each in chosen]
