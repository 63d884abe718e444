"""The budget of a stream: found in its ledger, or sized once a calibration says what steps cost."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from greentrain.budget import Budget
from greentrain.carbon import CarbonAccount
from greentrain.control import CostModel, Prospect
from greentrain.decisions.shared_budget import BudgetPeers
from greentrain.errors import ConfigurationError
from greentrain.ledger import Ledger, LedgerAccount, RunLog
from greentrain.money import experiences_left, period_start
from greentrain.training.cost_calibration import share_of_full
from greentrain.training.modes import ModeConfig
from greentrain.units import utc_now


class StreamBudget:
    """What a stream may spend, and for how many experiences it still has to last.

    Args:
        ledger: Where the budget is, or is opened.
        stream: The stream's name.
        budget: What was asked for.
        shared_budget: The budget's name, by which several streams find it; the stream's unless given.
        calibration: What may be spent before a budget given as a share has an amount.
        carbon: Turns joules into grams.
        done: Experiences that a saved state knows: no others of this stream count. Without a state,
            each of its decisions does that was ever paid for from the budget.

    Raises:
        ConfigurationError: If the ledger has another budget of this name.
        BudgetExceeded: If the budget's parent has less left than it would promise.

    Attributes:
        budget: What was found, or asked for; with joules once it is sized.
        position: Number of the stream's next experience, from 0, over all runs of it that paid from
            the budget.
    """

    def __init__(
        self,
        ledger: Ledger,
        stream: str,
        budget: Budget,
        *,
        shared_budget: str | None = None,
        calibration: Budget,
        carbon: CarbonAccount,
        done: Collection[str] | None = None,
    ) -> None:
        self._ledger = ledger
        self._stream = stream
        self._name = stream if shared_budget is None else shared_budget
        self._others = BudgetPeers(ledger, stream)
        self._carbon = carbon
        self.budget = budget
        self._calibration = calibration
        self._budget_id = self._find()
        decided = self._others.read(self._budget_id) if self._budget_id else []
        if done is not None:  # what was begun twice counts once, and what was only begun not at all
            last = {each.experience_id: each for each in decided}
            decided = [last[name] for name in done if name in last]
        self.position = len(decided) if done is None else len(done)
        self._decided = [each.moment for each in decided]
        self._opened: datetime | None = None

    @property
    def sized(self) -> bool:
        """Whether the budget has an amount: not before the calibration if it is a share."""
        return self._budget_id is not None

    def account(self, run: RunLog) -> LedgerAccount:
        """Return the account that a run pays from now."""
        if self._budget_id is None:  # another stream may have sized it meanwhile
            self._budget_id = self._found()
        budget_id = self._budget_id
        if budget_id is None:  # not before the calibration says what a full retraining costs
            name = f"{self._stream}/calibration"
            budget_id = self._ledger.open_budget(name, self._calibration)
        return self._ledger.account(budget_id, run, carbon=self._carbon)

    def size(self, cost: CostModel, modes: ModeConfig, n_new: int, max_size: int | None) -> None:
        """Turn the share into joules, and open the budget; one opened meanwhile is taken."""
        sized = share_of_full(self.budget, cost, modes, n_new, max_size)
        try:
            self._budget_id = self._ledger.open_budget(self._name, sized)
            self.budget = sized
        except ConfigurationError:  # another stream was faster, and measured something else
            self._budget_id = self._found()
            if self._budget_id is None:
                raise

    def expected(self) -> int:
        """Return how many experiences the budget still has to last for, the present one included.

        Those of all its streams count. Of a renewed budget in this period, of one with an end until
        then.
        """
        now, budget = self._ledger.store.clock(), self.budget
        if self._budget_id is not None:
            self._others.read(self._budget_id)
        if self._opened is None and self._budget_id is not None:
            self._opened = self._ledger.terms(self._budget_id).opened
        seen = self.position + self._others.seen()
        if budget.per is not None:
            start = period_start(now, budget.per)
            seen = sum(moment >= start for moment in self._decided) + self._others.seen(start)
        return experiences_left(budget, seen=seen, opened=self._opened, now=now)

    def prospects(self, expected: int) -> tuple[Prospect, ...]:
        """Return what the budget's other streams were offered last; see :class:`BudgetPeers`.

        Args:
            expected: What :meth:`expected` returned.
        """
        return self._others.prospects(expected - 1)

    def took(self) -> None:
        """Count an experience that was decided about."""
        self.position += 1
        self._decided.append(self._ledger.store.clock())

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


def check_budgets(budget: Budget, calibration: str, carbon: CarbonAccount) -> Budget:
    """Refuse what can be refused before there is a ledger, and return the calibration's budget.

    Raises:
        ConfigurationError: If the budget is of carbon and no intensity is known, or the
            calibration's cannot be read, or is not of energy.
    """
    if budget.unit == "g" and carbon.upper_g_per_j(utc_now()) is None:
        raise ConfigurationError(
            f"the budget of {budget} needs a carbon intensity, and none is known now; give a zone "
            "such as zone='DE', or an intensity that covers the present"
        )
    parsed = Budget.parse(
        calibration,
        num_experiences=budget.num_experiences,
        until=budget.until,
        parent=budget.parent,
    )
    if budget.share_of_full is not None and parsed.energy_j is None:
        raise ConfigurationError(
            f"calibration_budget is {calibration!r}; it is an energy, such as '1 Wh'"
        )
    return parsed


def check_payer(shared_budget: str | None) -> None:
    """Refuse a name that no budget can be found by.

    Raises:
        ConfigurationError: If it is empty, or no text.
    """
    if shared_budget is not None and not (isinstance(shared_budget, str) and shared_budget.strip()):
        raise ConfigurationError(
            f"shared_budget is {shared_budget!r}; it is the name of a budget, or None for the stream's own"
        )
