"""Integers of NumPy count as whole numbers everywhere, and are kept as plain ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from greentrain import Budget
from greentrain.callbacks import BudgetGuard
from greentrain.control import Periodic, PricedPolicy
from greentrain.decisions import UpdateOutcome
from greentrain.errors import ConfigurationError
from greentrain.ledger import Ledger
from greentrain.memory import ClassBalancedBuffer, FullBuffer, ReservoirBuffer
from greentrain.training.baseline_runs import check_baseline_every
from greentrain.training.fit import trainer_options
from greentrain.training.loaders import check_loader
from greentrain.units import whole_seed

USES: dict[str, Callable[[Any], object]] = {
    "num_experiences": lambda n: Budget.parse("1 Wh", num_experiences=n).num_experiences,
    "num_fits": lambda n: BudgetGuard("1 J", ledger="a.db", budget="k", num_fits=n).num_fits,
    "seed": whole_seed,
    "batch_size": lambda n: check_loader({"batch_size": n})["batch_size"],
    "max_epochs": lambda n: trainer_options({"max_epochs": n})["max_epochs"],
    "baseline_every": check_baseline_every,
    "explore": lambda n: PricedPolicy(explore=n).explore,
    "every": lambda n: Periodic(every=n).every,
    "steps": lambda n: UpdateOutcome(steps=n).steps,
    "max_size": lambda n: ReservoirBuffer(n).settings()["samples"],
    "buffer's seed": lambda n: FullBuffer(seed=n)._seed,
    "per_class": lambda n: ClassBalancedBuffer(9, per_class=n).settings()["per_class"],
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_an_integer_of_numpy_is_kept_as_a_plain_one(use: Callable[[Any], object]) -> None:
    kept = use(np.int64(3))
    assert kept == 3
    assert type(kept) is int
    for wrong in (True, np.True_, np.float64(3.0), "3"):
        with pytest.raises(ConfigurationError):
            use(wrong)


def test_a_budget_with_an_integer_of_numpy_is_recorded(ledger: Ledger) -> None:
    ledger.open_budget("digits", Budget.parse("1 Wh", num_experiences=np.int64(3)))
    assert ledger.find_budget("digits")["num_experiences"] == 3
