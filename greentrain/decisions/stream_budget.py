"""Open the budget of a stream, and count the experiences that it still has to last for."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime

from greentrain.budget import Budget
from greentrain.carbon import CarbonAccount
from greentrain.control import Prospect
from greentrain.decisions.shared_budget import BudgetPeers
from greentrain.errors import ConfigurationError
from greentrain.ledger import Ledger, LedgerAccount, RunLog
from greentrain.money import experiences_left, period_start
from greentrain.units import utc_now


class StreamBudget:
    """The budget that a stream pays from, its own or a shared one.

    Args:
        ledger: The ledger that holds the budget.
        stream: Name of the stream.
        budget: The budget that was asked for.
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
        """Whether the budget has an amount: a share has none before its calibration."""
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
            name = f"{self._stream}/calibration"
            budget_id = self._ledger.open_budget(name, self._calibration)
        return self._ledger.account(budget_id, run, carbon=self._carbon)

    def open_sized(self, sized: Budget) -> None:
        """Open the budget with the joules of its share; one opened in the meantime is used."""
        try:
            self._budget_id = self._ledger.open_budget(self._name, sized)
            self.budget = sized
        except ConfigurationError:  # another stream was faster, with another calibration
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


def parse_budget(budget: str | Budget, num_experiences: int | None) -> Budget:
    """Return a budget with the number of experiences that it has to last for.

    Raises:
        ConfigurationError: If the text is no budget, the number is missing and the budget has no
            end date, or both say a number.
    """
    if isinstance(budget, Budget):
        if num_experiences is not None:
            raise ConfigurationError(
                f"num_experiences is {num_experiences!r}, and the Budget has its own: "
                f"{budget.num_experiences}. Give the number once, in Budget(num_experiences=...)"
            )
        return budget
    if num_experiences is None:
        raise ConfigurationError(
            f"num_experiences is missing: the budget of {budget!r} has to last for some number of "
            "experiences, or the first training may take all of it. Give num_experiences, or a "
            "Budget with an end date (until=...)"
        )
    return Budget.parse(budget, num_experiences=num_experiences)


def check_intensity(budget: Budget, carbon: CarbonAccount) -> None:
    """Refuse a carbon budget without a carbon intensity.

    Raises:
        ConfigurationError: If no intensity is known now.
    """
    if budget.unit == "g" and carbon.upper_g_per_j(utc_now()) is None:
        raise ConfigurationError(
            f"the budget of {budget} needs a carbon intensity, and none is known now; give a zone "
            "such as zone='DE', or an intensity that covers the present"
        )


def calibration_budget(text: str, budget: Budget) -> Budget:
    """Return the budget of the calibration that sizes a budget given as a share.

    Raises:
        ConfigurationError: If it cannot be read, or the budget is a share and it is no energy.
    """
    parsed = Budget.parse(
        text,
        num_experiences=budget.num_experiences,
        until=budget.until,
        parent=budget.parent,
    )
    if budget.share_of_full is not None and parsed.energy_j is None:
        raise ConfigurationError(f"calibration_budget is {text!r}; it is an energy, such as '1 Wh'")
    return parsed


def check_shared_budget(shared_budget: str | None) -> None:
    """Refuse a value that names no budget.

    Raises:
        ConfigurationError: If it is empty, or no text.
    """
    if shared_budget is not None and not (isinstance(shared_budget, str) and shared_budget.strip()):
        raise ConfigurationError(
            f"shared_budget is {shared_budget!r}; it is the name of a budget, or None for the "
            "stream's own"
        )
