"""Check the options of a Trainer that are given to an update of one model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import Checkpoint, EarlyStopping

from greentrain.callbacks import BudgetGuard, EnergyMonitor
from greentrain.errors import ConfigurationError
from greentrain.training.fit import RESERVED_OPTIONS, as_list, trainer_options
from greentrain.units import is_whole


def check_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of the Trainer, with ``max_epochs``."""
    for name, value in given.items():
        if isinstance(value, Trainer):
            raise ConfigurationError(
                f"{name} is a Trainer, and an update needs a fresh one; give its options "
                "themselves: greentrain.update(..., max_epochs=3, accelerator='gpu')"
            )
    if "trainer" in given:
        raise ConfigurationError(
            "trainer is no option of a Trainer; give the options themselves: "
            "greentrain.update(..., max_epochs=3, accelerator='gpu')"
        )
    taken = sorted(set(RESERVED_OPTIONS) & set(given))
    if taken:
        raise ConfigurationError(
            f"{', '.join(taken)} cannot be given, as the controller decides about the steps; give "
            "max_epochs, the largest number of further epochs"
        )
    if given.get("logger") is True:
        raise ConfigurationError(
            "logger is True, which is a new logger in each Trainer; give the logger of the earlier "
            "training, such as CSVLogger('logs'), so that its curves continue"
        )
    return trainer_options(given)


def check_places(ledger: object, first_step: object) -> None:
    """Refuse a ledger that is no place, and a first step that is no number of steps."""
    if ledger is not None and not (isinstance(ledger, str) and ledger):
        raise ConfigurationError(
            f"ledger is {ledger!r}; it must be a URL such as 'sqlite:///greentrain.db', or None "
            "for a file of this update. The budget of an update is always recorded"
        )
    if first_step is not None and not is_whole(first_step, 0):
        raise ConfigurationError(
            f"first_step is {first_step!r}; it must be a whole number of steps, 0 or more, or None"
        )


def check_callbacks(options: Mapping[str, Any], logged: Sequence[str]) -> None:
    """Refuse callbacks that would fail during the fit, which has no validation."""
    for each in as_list(options.get("callbacks")):
        monitored = getattr(each, "monitor", None)
        if isinstance(each, Checkpoint):
            raise ConfigurationError(
                f"callbacks has a {type(each).__name__}, and update returns the better model; save "
                "that one: torch.save(result.model.state_dict(), 'model.pt')"
            )
        if isinstance(each, (BudgetGuard, EnergyMonitor)):
            raise ConfigurationError(
                f"callbacks has a {type(each).__name__}, and update measures and caps its energy "
                "itself; remove it, and see result.energy_j and budget"
            )
        if isinstance(each, EarlyStopping) and monitored in logged:
            raise ConfigurationError(
                f"callbacks has an EarlyStopping on {monitored!r}, which is logged in validation, "
                "and an update validates once, at its end; remove it"
            )
