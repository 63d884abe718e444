"""The trials of a search pay from one budget, and the search ends with it."""

from __future__ import annotations

import optuna
import pytest

from greentrain.errors import ConfigurationError
from greentrain.integrations import SearchBudget
from greentrain.ledger import Ledger
from greentrain.report import build
from tests.models import Classifier, Clock, Tick, constant_meter, loader, trainer


def test_a_study_of_optuna_ends_when_its_joules_do(tmp_path):
    url = f"sqlite:///{tmp_path / 'search.db'}"
    # A trial has 4 epochs of 20 batches at 1 J, and gets a part of what is left.
    search = SearchBudget(budget="300 J", num_trials=10, ledger=url, least="20 J")
    assert (search.status(), search.exhausted) == (None, False)
    clock = Clock()

    def objective(trial):
        guard = search.guard(meter=constant_meter(clock))
        fit = trainer(guard, Tick(clock), max_epochs=4, default_root_dir=tmp_path)
        fit.fit(Classifier(), loader())
        return trial.suggest_float("rate", 0.0, 1.0)

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(objective, n_trials=50, callbacks=[search.stop_study])
    status = search.status()
    assert search.exhausted
    assert status.spent <= 300.0
    assert status.left <= 20.0
    assert 10 <= len(study.trials) < 50
    ledger = Ledger(url)
    report = build(ledger)
    ledger.close()
    assert len(report["runs"]) == len(study.trials)  # every trial is in the report
    (budget,) = report["budgets"]
    assert budget["spent_j"] == pytest.approx(status.spent)
    assert report["totals"]["energy_j"] == pytest.approx(status.spent)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"num_trials": 0}, "num_trials is 0; it must be the number of trials"),
        ({"budget": "40 % of full"}, "budget is '40 % of full'; a search needs an amount"),
        ({"least": "5 gCO2e"}, "least is '5 gCO2e' and the budget is '100 J'; give a part"),
    ],
)
def test_a_search_that_cannot_be_paid_is_refused(changes, reason):
    with pytest.raises(ConfigurationError, match=reason):
        SearchBudget(**{"budget": "100 J", "num_trials": 4, "ledger": "a.db", **changes})
