"""Open the budget of a stream, and count the experiences that it still has to last for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from itertools import islice

from greentrain.budget import Budget
from greentrain.carbon import CarbonAccount
from greentrain.control import Option, Prospect, Reason, options_of
from greentrain.decisions.budget_arguments import CALIBRATION
from greentrain.errors import ConfigurationError
from greentrain.ledger import DecisionSummary, Ledger, LedgerAccount, RunLog
from greentrain.money import experiences_left, period_start

RECENT = 64
"""Number of last experiences from which the share of each stream is estimated."""
DECISIONS_EACH = 4
"""Number of another stream's last decisions whose options are expected to come again."""
MOST_DECISIONS = 16
"""Largest number of decisions of all other streams together, the newest."""

_UNWEIGHED = (Reason.NO_MODEL, Reason.BUDGET_EXHAUSTED, Reason.SET_ASIDE)
"""Reasons of decisions that compared no gains."""


class StreamBudget:
    """The budget that pays for a stream: its own or a shared one.

    Args:
        ledger: The ledger that holds the budget.
        stream: Name of the stream.
        budget: The requested budget.
        shared_budget: Name of a budget that several streams share; the stream's name unless given.
        calibration: Budget of a calibration, for a budget given as a share of full retraining.
        carbon: Converts joules to grams.
        done: Experiences in a saved state; only these count. Without a state, every decision of
            this stream that was paid from the budget counts.

    Raises:
        ConfigurationError: If the ledger has another budget of this name.
        BudgetExceeded: If the budget's parent has less left than the budget promises.

    Attributes:
        budget: The budget; with joules once it is sized.
        position: Number of the stream's next experience, from 0, over all its runs.
    """

    def __init__(
        self,
        ledger: Ledger,
        stream: str,
        budget: Budget,
        *,
        shared_budget: str | None = None,
        calibration: Budget | None = None,
        carbon: CarbonAccount,
        done: Collection[str] | None = None,
    ) -> None:
        self._ledger = ledger
        self._stream = stream
        self._name = stream if shared_budget is None else shared_budget
        self._peers = BudgetPeers(ledger, stream)
        self._carbon = carbon
        self.budget = budget
        self._calibration = calibration
        self._budget_id = self._find()
        decided = self._peers.read(self._budget_id) if self._budget_id else []
        if done is not None:  # a repeated experience counts once, an unfinished one not at all
            last = {each.experience_id: each for each in decided}
            decided = [last[name] for name in done if name in last]
        self.position = len(decided) if done is None else len(done)
        self._decided = [each.moment for each in decided]
        self._opened: datetime | None = None

    @property
    def budget_id(self) -> str | None:
        """Id of the budget; ``None`` for a share before its calibration."""
        return self._budget_id

    @property
    def sized(self) -> bool:
        """True if the budget has an amount; a share has none before its calibration."""
        return self._budget_id is not None

    def restart(self, moments: Iterable[datetime]) -> None:
        """Count the finished experiences of earlier processes, by the times of their decisions."""
        self._decided = list(moments)
        self.position = len(self._decided)

    def account(self, run: RunLog) -> LedgerAccount:
        """Return the account that a run pays from now: the calibration's, before one is sized."""
        if self._budget_id is None:  # another stream may have sized it in the meantime
            self._budget_id = self._found()
        budget_id = self._budget_id
        if budget_id is None:
            if self._calibration is None:
                raise ValueError("a share of full retraining needs a budget for its calibration")
            name = f"{self._stream}{CALIBRATION}"
            budget_id = self._ledger.open_budget(name, self._calibration)
        return self._ledger.account(budget_id, run, carbon=self._carbon)

    def open_sized(self, sized: Budget) -> None:
        """Open the budget with the joules of its share; one opened in the meantime is used."""
        try:
            self._budget_id = self._ledger.open_budget(self._name, sized)
            self.budget = sized
        except ConfigurationError:  # another stream has opened it, after its own calibration
            self._budget_id = self._found()
            if self._budget_id is None:
                raise

    def experiences_left(self) -> int:
        """Return the number of experiences that the budget has to last for, this one included.

        It counts those of all streams that share the budget. A renewed budget counts this period,
        and a budget with an end date counts until then.
        """
        now, budget = self._ledger.now(), self.budget
        if self._budget_id is not None:
            self._peers.read(self._budget_id)
        if self._opened is None and self._budget_id is not None:
            self._opened = self._ledger.terms(self._budget_id).opened
        seen = self.position + self._peers.seen()
        if budget.per is not None:
            start = period_start(now, budget.per)
            seen = sum(moment >= start for moment in self._decided) + self._peers.seen(start)
        return experiences_left(budget, seen=seen, opened=self._opened, now=now)

    def prospects(self, left: int) -> tuple[Prospect, ...]:
        """Return the last options of the streams that share the budget; see :class:`BudgetPeers`.

        Args:
            left: The result of :meth:`experiences_left`.
        """
        return self._peers.prospects(left - 1)

    def count_experience(self) -> None:
        """Count an experience that was decided about."""
        self.position += 1
        self._decided.append(self._ledger.now())

    def _find(self) -> str | None:
        if self.budget.share_of_full is None:
            return self._ledger.open_budget(self._name, self.budget)
        return self._found()

    def _found(self) -> str | None:
        known = self._ledger.find_budget(self._name)
        if known is None:
            return None
        budget_id = str(known["budget_id"])
        self.budget = self._ledger.terms(budget_id).budget
        return budget_id


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
        self._of_others: dict[tuple[str, str], datetime] = {}
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
            if decided.stream != self._stream:
                self._of_others[key] = decided.moment
            if len(self._decided) > 2 * RECENT:  # the last ones alone have options
                del self._decided[next(iter(self._decided))]
        return [decided for decided in new if decided.stream == self._stream]

    def seen(self, since: datetime | None = None) -> int:
        """Return the number of experiences of the other streams, since a moment or in all."""
        if since is None:
            return len(self._of_others)
        return sum(moment >= since for moment in self._of_others.values())

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
