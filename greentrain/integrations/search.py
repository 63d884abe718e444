"""Keep all trials of a hyperparameter search within one budget on one ledger."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from greentrain._about import DISTRIBUTION
from greentrain.budget import Budget
from greentrain.callbacks import BudgetGuard
from greentrain.errors import ConfigurationError
from greentrain.ledger import Ledger
from greentrain.naming import check_name
from greentrain.units import is_whole

if TYPE_CHECKING:
    from greentrain.energy import Meter
    from greentrain.money import BudgetStatus

_NOTHING = 1e-6
"""Share of a budget below which nothing is left."""


@dataclass(frozen=True, kw_only=True)
class SearchBudget:
    """One budget for a search, whose trials run in this process or in others.

    Each trial gets its own :meth:`guard`, which reserves an equal part of what is left. The search
    ends when the budget does: give :meth:`stop_study` to Optuna, or :meth:`ray_stopper` to Ray
    Tune. The object is a plain value, so it can be sent to other processes.

    Args:
        budget: Energy or emissions for all trials, such as ``"2 kWh"``.
        num_trials: Number of trials that the budget is divided by.
        ledger: URL of the ledger. Use an absolute path for trials with other working folders, and
            PostgreSQL for trials on several hosts.
        name: Name of the budget.
        least: The smallest energy or emission that is worth a trial. The search ends when less is
            left; without it, when nothing is left.

    Raises:
        ConfigurationError: If an argument cannot be used.

    Example:
        >>> search = SearchBudget(budget="100 J", num_trials=4, ledger="sqlite:///", least="5 J")
        >>> guard = search.guard()
        >>> guard.cap_j, guard.budget, guard.num_fits
        (100.0, 'search', 4)
    """

    budget: str
    num_trials: int
    ledger: str
    name: str = "search"
    least: str | None = None

    def __post_init__(self) -> None:
        check_name(self.name, "the name of a search", "search")
        whole = self._parsed(self.budget, "budget")
        if not is_whole(self.num_trials, 1):
            raise ConfigurationError(
                f"num_trials is {self.num_trials!r}; it must be the number of trials that the "
                "budget has to last for, 1 or more"
            )
        if self.least is not None:
            least = self._parsed(self.least, "least")
            if least.unit != whole.unit or (least.amount or 0.0) > (whole.amount or 0.0):
                raise ConfigurationError(
                    f"least is {self.least!r} and the budget is {self.budget!r}; give a part of "
                    "the budget, in the same kind of unit"
                )

    def guard(self, *, meter: Meter | None = None, **options: Any) -> BudgetGuard:
        """Return a new guard, for the Trainer of one trial.

        Args:
            meter: A meter; ``None`` for the best one of this machine.
            **options: Other options of :class:`greentrain.callbacks.BudgetGuard`.
        """
        return BudgetGuard(
            self.budget,
            ledger=self.ledger,
            budget=self.name,
            num_fits=self.num_trials,
            meter=meter,
            **options,
        )

    def status(self) -> BudgetStatus | None:
        """Return amounts spent, reserved and left; ``None`` before the first trial.

        Raises:
            LedgerError: If the ledger cannot be read.
        """
        with closing(Ledger(self.ledger)) as ledger:
            found = ledger.find_budget(self.name)
            return None if found is None else ledger.status(str(found["budget_id"]))

    @property
    def exhausted(self) -> bool:
        """``True`` if what is left is worth no other trial.

        Reservations of trials that are running are not left.
        """
        status = self.status()
        if status is None:
            return False
        least = 0.0 if self.least is None else self._parsed(self.least, "least").amount or 0.0
        return status.left <= max(least, _NOTHING * status.total)

    def stop_study(self, study: Any, trial: Any) -> None:
        """Stop a study of Optuna once the budget is exhausted: a callback of ``optimize``.

        Args:
            study: The study.
            trial: The trial that has ended.
        """
        if self.exhausted:
            study.stop()

    def ray_stopper(self) -> Any:
        """Return a stopper for Ray Tune's ``RunConfig(stop=...)``.

        It ends the search once the budget is exhausted.

        Raises:
            ConfigurationError: If Ray Tune is not installed.
        """
        try:
            from ray.tune import Stopper
        except ImportError:
            raise ConfigurationError(
                f"a stopper of Ray Tune needs Ray; install it: pip install '{DISTRIBUTION}[ray]'"
            ) from None
        search = self

        class BudgetStopper(Stopper):  # type: ignore[misc]
            """End all trials once the budget of the search is exhausted."""

            def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
                return False  # the guard of a trial stops it

            def stop_all(self) -> bool:
                return search.exhausted

        return BudgetStopper()

    def _parsed(self, text: str, name: str) -> Budget:
        budget = Budget.parse(text)
        if budget.amount is None or budget.per is not None:
            raise ConfigurationError(
                f"{name} is {text!r}; a search needs an amount, such as '2 kWh' or '500 gCO2e'"
            )
        return budget
