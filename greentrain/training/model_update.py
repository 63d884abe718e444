"""Update one model once: the smallest caller of the decisions."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal
from weakref import WeakKeyDictionary

from pytorch_lightning import LightningDataModule, LightningModule
from pytorch_lightning.loggers import Logger
from torch.utils.data import DataLoader, Dataset

from greentrain.budget import Budget
from greentrain.callbacks.messages import inform
from greentrain.control import BudgetController, Policy, UtilityModel
from greentrain.control.priors import GainPriors, read_priors
from greentrain.decisions.budget_arguments import check_intensity, parse_calibration_budget
from greentrain.energy import Meter
from greentrain.errors import ConfigurationError
from greentrain.evaluation.comparison import MetricHistory
from greentrain.evaluation.evaluator import Evaluator
from greentrain.evaluation.held_out import HeldOut
from greentrain.evaluation.logged_metric import choose_metric, logged_in_validation
from greentrain.evaluation.probe import Probe
from greentrain.launch import refuse_launch
from greentrain.ledger import LOG_FOLDER, file_url
from greentrain.ledger.sqlite import parsed
from greentrain.memory import Buffer, size
from greentrain.streams import Experience
from greentrain.tracking import NullTracker
from greentrain.training import config
from greentrain.training.config import CarbonConfig, ModeConfig
from greentrain.training.data import StreamData
from greentrain.training.fit import ModelTrainer, as_list
from greentrain.training.fit_callbacks import LoggerSteps
from greentrain.training.given_data import GivenData, read_data
from greentrain.training.given_model import (
    check_given_model,
    check_weights,
    copy_model,
    flat_layers,
)
from greentrain.training.given_options import check_callbacks, check_options, check_places
from greentrain.training.loaders import check_loader
from greentrain.training.module_checks import check_module, check_validation_step
from greentrain.training.shadow import check_model
from greentrain.training.stream_opening import open_runner
from greentrain.training.stream_state import CurrentModel, StreamState
from greentrain.training.update_outcome import ModelUpdate, modes_not_offered, outcome_of
from greentrain.units import utc_now, whole_seed

_CALIBRATION = "1 Wh"
_FILE = "greentrain.db"

_steps: WeakKeyDictionary[Logger, int] = WeakKeyDictionary()
"""Steps that the updates of this process have recorded in each logger."""


def update(
    model: LightningModule,
    new_data: Dataset[Any] | DataLoader[Any] | LightningDataModule,
    *,
    val: Dataset[Any] | DataLoader[Any] | None = None,
    monitor: str | None = None,
    mode: Literal["max", "min"] | None = None,
    buffer: Buffer | Literal["all"] | None = None,
    budget: str | Budget = "5 Wh",
    state_dir: str | Path | None = None,
    make_model: Callable[[], LightningModule] | None = None,
    ledger: str | None = None,
    name: str = "update",
    policy: Policy | None = None,
    priors: str | Path | None = None,
    carbon: CarbonConfig = CarbonConfig(),  # noqa: B008 (frozen)
    meter: Meter | None = None,
    first_step: int | None = None,
    seed: int = 0,
    **trainer: Any,
) -> ModelUpdate:
    """Update one model on new data within a budget, and return the better of the two models.

    A controller decides whether to train, in which update mode and for how many steps. The upper
    bound of the energy is reserved in a ledger before training, which stops at it. The updated
    model is compared with the given one on ``val``, and is returned unless it is worse. The given
    instance is never changed: copies are trained.

    At the first call the cost of a step is unknown. Some steps of a discarded copy measure it.

    Args:
        model: The model, whose weights are the start.
        new_data: New data: a map-style dataset, a ``DataLoader`` of one, or a
            ``LightningDataModule``. Of a ``DataLoader``, the batch size, ``collate_fn``, workers
            and ``drop_last`` are used. A dataset has batches of 32.
        val: Held-out data for everything that the model has to be good at, as a dataset or a
            ``DataLoader``. It may be omitted if ``new_data`` is a ``LightningDataModule``.
        monitor: Name of the metric that the model logs in validation. It may be omitted if the
            model logs one only.
        mode: ``"max"`` if a larger metric is better, ``"min"`` if a smaller one is. It may be
            omitted if the name shows it, as ``val_acc`` and ``val_loss`` do.
        buffer: Past data that may be kept: a buffer such as ``ReservoirBuffer(2000)``, which may
            hold samples already, ``"all"``, or ``None`` for none. Past data make ``REPLAY``
            possible.
        budget: Energy that this update may use, such as ``"5 Wh"``, or emissions, such as ``"2
            gCO2e"`` (with ``carbon``). A :class:`Budget`, and a renewed amount such as ``"50 Wh
            per month"``, last over all calls with the same ``state_dir``, or the same ``ledger``
            and ``name``.
        state_dir: Folder in which the buffer and everything learned are saved. The next call with
            it continues: no calibration is needed. Its weights are those of its ``model``.
        make_model: Returns the model with fresh weights. With it, and with past data in the
            buffer, ``FULL_RETRAIN`` is possible, too.
        ledger: URL of the ledger; by default ``greentrain.db`` in ``state_dir``, or a new file in
            ``greentrain_logs/`` under ``default_root_dir``.
        name: Name of the update, and of its budget in the ledger.
        policy: The policy; :class:`greentrain.control.PricedPolicy` unless given.
        priors: File of priors of the gain, as ``greentrain priors fit`` writes it; without one,
            the default ones.
        carbon: Conversion of joules to grams of CO2 equivalent; none without a zone or intensity.
        meter: The meter; by default the best one of this machine.
        first_step: First step of the loggers. By default it follows the model's last Trainer, the
            last update with the same logger, or the saved state.
        seed: Seed of order and sampling.
        **trainer: Options of the Trainer, such as ``max_epochs``, ``accelerator`` and ``logger``.
            ``max_epochs`` is the largest number of further epochs, 10 unless given.

    Returns:
        The better model, with the energy that was used, and the reasons.

    Raises:
        ConfigurationError: If an argument cannot be used, before anything is trained.
        LedgerError: If nothing can be recorded. Then nothing is trained.

    Example:
        ``result = greentrain.update(model, new_data, val=held_out, max_epochs=3)``
    """
    refuse_launch("greentrain.update")
    given = check_given_model(model)
    check_validation_step(given)
    options = check_options(trainer)
    config.check_arguments(make_model or check_given_model, buffer, policy, meter, carbon)
    check_places(ledger, first_step)
    wanted = budget if isinstance(budget, Budget) else Budget.parse(budget)
    check_intensity(wanted, carbon.account())
    known = None if priors is None else read_priors(priors)
    data, close_data = read_data(new_data, val, options)
    try:
        return _update(
            given,
            data,
            options,
            budget=wanted,
            # A plain amount is for this call, and no later one pays from it.
            lasting=isinstance(budget, Budget) or wanted.per is not None,
            monitor=monitor,
            mode=mode,
            buffer=buffer,
            state_dir=state_dir,
            make_model=make_model,
            ledger=ledger,
            name=name,
            policy=policy,
            priors=known,
            carbon=carbon,
            meter=meter,
            first_step=first_step,
            seed=whole_seed(seed),
        )
    finally:
        close_data()


def _update(
    given: LightningModule,
    data: GivenData,
    options: dict[str, Any],
    *,
    budget: Budget,
    lasting: bool,
    monitor: str | None,
    mode: str | None,
    buffer: Buffer | Literal["all"] | None,
    state_dir: str | Path | None,
    make_model: Callable[[], LightningModule] | None,
    ledger: str | None,
    name: str,
    policy: Policy | None,
    priors: GainPriors | None,
    carbon: CarbonConfig,
    meter: Meter | None,
    first_step: int | None,
    seed: int,
) -> ModelUpdate:
    if "sampler" in data.train_options and buffer is not None:
        raise ConfigurationError(
            "new_data has a sampler that chooses its samples, and an update mixes them with those "
            "of the buffer; give buffer=None, or new_data without the sampler"
        )
    loggers = LoggerSteps()
    own = as_list(options.get("callbacks"))
    modes = ModeConfig(reuse_fraction=1.0)
    model_trainer = ModelTrainer(
        make_model or (lambda: copy_model(given)),
        make_successor=lambda: copy_model(given),
        options={**options, "callbacks": [*own, loggers]},
        loader=data.train_options,
        modes=modes,
        seed=seed,
    )
    val_loader = check_loader(data.val_options)
    start = copy_model(given)
    with flat_layers(start) as flat:
        logged = logged_in_validation(
            start, data.val, options=options, loader=val_loader, monitor=monitor
        )
    monitor, mode = choose_metric(logged, monitor, mode)
    check_callbacks(options, logged)
    check_module(start, monitor=monitor, logged=logged)
    check_weights(start, min(model_trainer.loader["batch_size"], size(data.train)), flat)
    if make_model is not None:
        check_model(model_trainer.fresh_model(), given)
    evaluator = Evaluator(monitor=monitor, options=options, loader=val_loader)
    evaluator.known = True
    held_out = HeldOut("current", seed=seed)
    kept = config.open_buffer(buffer, state_dir, seed)
    state = StreamState(
        model=CurrentModel(lambda: start, given=True, renewable=make_model is not None),
        data=StreamData(kept),
        held_out=held_out,
        probe=Probe(evaluator, held_out, seed=seed),
        history=MetricHistory(more_is_better=mode == "max"),
        controller=BudgetController(policy=policy, utility=UtilityModel(priors)),
        loggers=loggers,
    )
    url = ledger or _default_url(state_dir, options)
    unique = f"{utc_now():%Y%m%dT%H%M%SZ}-{uuid.uuid4().hex[:8]}"
    settings = {
        "name": name if lasting or state_dir is not None else f"{name}-{unique}",
        "shared_budget": None,
        "budget": str(budget),
        "monitor": monitor,
        "mode": mode,
        "eval_on": "current",
        "eval_each_experience": False,
        "buffer": "all" if buffer == "all" else type(buffer).__name__,
        "policy": repr(policy) if policy else "PricedPolicy()",
        "priors": None if priors is None else priors.as_dict()["modes"],
        "seed": seed,
        "shadow": False,
        "baseline_every": None,
        "epochs": options["max_epochs"],
        "batch_size": model_trainer.plan.batch_size,
        **dataclasses.asdict(modes),
    }
    runner = open_runner(
        state,
        model_trainer,
        evaluator,
        budget,
        ledger=url,
        state_dir=state_dir,
        calibration=parse_calibration_budget(_CALIBRATION, budget),
        meter=meter,
        tracker=NullTracker(),
        carbon=carbon,
        settings=settings,
        for_next=not lasting,
    )
    try:
        users = [each for each in as_list(options.get("logger")) if isinstance(each, Logger)]
        before = [loggers.steps, _trained_steps(given), *(_steps.get(each, 0) for each in users)]
        loggers.steps = first = max(before) if first_step is None else first_step
        past = 0 if kept is None else len(kept)
        number = len(state.data.known) + 1
        result = runner.update(
            Experience(unique if state_dir is None else f"{name}-{number}", data.train, data.val)
        )
        if users and loggers.steps == first:  # ranks in processes that return no steps
            loggers.steps += result.decision.steps
        _steps.update(dict.fromkeys(users, loggers.steps))
    finally:
        runner.close()
    if ledger is None and number == 1:
        inform(f"greentrain.update: the ledger is {_path(url)}")
    return outcome_of(
        given,
        runner,
        result,
        monitor=monitor,
        ledger=_path(url),
        not_offered=modes_not_offered(buffer, past, make_model),
        logged_steps=loggers.steps,
    )


def _default_url(state_dir: str | Path | None, options: Mapping[str, Any]) -> str:
    if state_dir is not None:
        return file_url(Path(state_dir) / _FILE)
    root = str(options.get("default_root_dir") or Path.cwd())
    folder = Path.cwd() if "://" in root else Path(root)
    name = f"{utc_now():%Y%m%dT%H%M%SZ}-{uuid.uuid4().hex[:8]}.db"
    return file_url(folder / LOG_FOLDER / name)


def _path(url: str) -> str:
    found = parsed(url)
    return url if found is None else str(found.database)


def _trained_steps(model: LightningModule) -> int:
    """Return the logged steps of the last fit of a model in this process."""
    trainer = getattr(model, "_trainer", None)
    return 0 if trainer is None else int(trainer.fit_loop.epoch_loop._batches_that_stepped)
