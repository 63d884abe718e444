"""Train a model with one fresh Lightning Trainer for each update."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.loggers.logger import DummyLogger
from pytorch_lightning.utilities.compile import from_compiled
from torch._dynamo import OptimizedModule
from torch.utils.data import DataLoader

from greentrain.control import UPDATE_MODES, Candidate, StepPlan, UpdateMode
from greentrain.errors import ConfigurationError
from greentrain.evaluation.evaluator import (
    isolated_rng,
    make_trainer,
    makes_layers_late,
    quiet,
    without,
)
from greentrain.memory import size
from greentrain.texts import get_logger
from greentrain.training.config import ModeConfig
from greentrain.training.data import UpdateData
from greentrain.training.fit_callbacks import BeginFit, WeightAveraging
from greentrain.training.loaders import MixedBatches, check_loader, train_loader
from greentrain.training.weights import load_weights, shrink_and_perturb
from greentrain.units import is_whole

RESERVED_OPTIONS = (
    "barebones",
    "fast_dev_run",
    "limit_train_batches",
    "max_steps",
    "max_time",
    "min_epochs",
    "min_steps",
    "overfit_batches",
    "use_distributed_sampler",
)
"""Trainer options that greentrain sets, because they define an update."""

Weights = Mapping[str, torch.Tensor]

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedModel:
    """A model after a fit.

    Args:
        module: The model; its weights are the mean over the fit if weights are averaged.
        last: The weights at the end of the fit, from which the next update continues; ``None`` if
            they are the module's.
    """

    module: LightningModule
    last: Weights | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FitPlan:
    """A fit that is about to begin.

    Args:
        candidate: The action, and its steps.
        position: Number of the experience; below 0 outside of an update.
        discarded: Whether the trained model is not used.
        callbacks: Callbacks besides the user's own.
    """

    candidate: Candidate
    position: int
    discarded: bool
    callbacks: Sequence[Callback]


class ModelTrainer:
    """Train successors of a model, each with one fresh Trainer.

    Args:
        make_model: Returns a ``LightningModule`` with fresh weights, compiled or not.
        make_successor: Returns a module that the last weights are loaded into; ``make_model``
            unless given.
        together: Called before each fit; opens a block in which other processes run the same fit.
        options: Options of each Trainer, ``max_epochs`` among them: see :func:`trainer_options`.
        loader: Options of each ``DataLoader``.
        modes: Work and weights of the update modes.
        seed: Seed of weights and order.

    Attributes:
        loader: The checked options of each ``DataLoader``, ``batch_size`` among them.
        modes: As given.
        plan: The usual steps of each update mode, with the batch size over all ranks.

    Raises:
        ConfigurationError: If an option of the Trainer or the loader cannot be used.
    """

    def __init__(
        self,
        make_model: Callable[[], LightningModule],
        *,
        options: Mapping[str, Any],
        loader: Mapping[str, Any],
        modes: ModeConfig,
        seed: int,
        make_successor: Callable[[], LightningModule] | None = None,
        together: Callable[[FitPlan], AbstractContextManager[None]] | None = None,
    ) -> None:
        self.loader = check_loader(loader)
        self.modes = modes
        self.plan = StepPlan(
            epochs=options["max_epochs"],
            batch_size=number_of_ranks(options) * self.loader["batch_size"],
            reuse_fraction=modes.reuse_fraction,
        )
        self._together = together
        self._make_model = make_model
        self._make_successor = make_successor or make_model
        self._options = options
        self._seed = seed

    @property
    def anneals(self) -> bool:
        """True if the learning rate is annealed; averaging the weights has the same effect."""
        return not self.modes.weight_averaging

    def fresh_model(self, seed: int | None = None) -> LightningModule:
        """Return a model with fresh weights, and with the layers that it makes in ``setup``.

        Args:
            seed: Seed of the weights; the stream's unless given.

        Raises:
            ConfigurationError: If ``make_model`` returns anything but a ``LightningModule``.
        """
        with isolated_rng():
            model = _made(self._make_model, self._seed if seed is None else seed)
            if makes_layers_late(model):
                self._make_layers(model)
            return model

    def train(
        self,
        candidate: Candidate,
        data: UpdateData,
        *,
        weights: Weights | None,
        position: int,
        callbacks: Sequence[Callback] = (),
        logger: Any = None,
        discarded: bool = False,
    ) -> TrainedModel:
        """Train a successor of a model, which is not changed.

        The global random state is restored afterwards.

        Args:
            candidate: The action, and its steps.
            data: New and stored samples.
            weights: The weights to continue from; a full retraining does not use them.
            position: Number of the experience, a part of the seed.
            callbacks: Callbacks of the fit, after the user's own.
            logger: A logger of the fit, besides the user's own.
            discarded: Whether the successor is not used. Then the user's loggers record nothing.

        Returns:
            The successor. Its weights need not be finite.

        Raises:
            ConfigurationError: If nothing can be trained: there is no sample, no full batch or no
                optimizer.
        """
        seed = self._seed + 1000 * (position + 1)
        mode = candidate.action.mode
        keeps_weights = UPDATE_MODES[mode].keeps_weights and weights is not None
        options = without_loggers(self._options) if discarded else self._options
        plan = FitPlan(
            candidate=candidate, position=position, discarded=discarded, callbacks=callbacks
        )
        together = nullcontext() if self._together is None else self._together(plan)
        with together, isolated_rng():
            model = _made(self._make_successor if keeps_weights else self._make_model, seed)
            load = None
            if keeps_weights and weights is not None:
                load = partial(self._load, model, weights, mode)
                if not (makes_layers_late(model) and model.state_dict().keys() != weights.keys()):
                    load()
                    load = None
            share = self.modes.weight_averaging
            averaging = WeightAveraging(share) if share else None
            fit(
                model,
                train_loader(candidate.action, data, loader=self.loader, seed=seed),
                steps=candidate.steps,
                options=options,
                callbacks=[*callbacks, *([] if averaging is None else [averaging])],
                logger=logger,
                load=load,
            )
        last = None if averaging is None else averaging.last
        if last is not None and last.keys() != model.state_dict().keys():
            last = None  # layers that a callback added within the fit, such as adapters
        return TrainedModel(module=model, last=last)

    def _make_layers(self, model: LightningModule) -> None:
        """Call the hooks of a module that may make layers, as a Trainer does before a fit."""
        model.trainer = plain_trainer(self._options)
        try:
            model.setup(stage="fit")
            model.configure_model()
        except Exception as error:  # they may need anything of a running fit
            name = type(model).__name__
            _log.debug("the layers of %s are made at its first fit: %s", name, error)
        finally:
            model.trainer = None

    def _load(self, model: LightningModule, weights: Weights, mode: UpdateMode) -> None:
        """Load the last weights, and at a warm start shrink and perturb them."""
        shrink, perturb = self.modes.shrink, self.modes.perturb
        plain = mode is not UpdateMode.WARM_START or (shrink, perturb) == (1.0, 0.0)
        fresh = [] if plain else [each.detach().clone() for each in model.parameters()]
        load_weights(model, weights)
        if not plain:
            shrink_and_perturb(model.parameters(), fresh, shrink=shrink, perturb=perturb)


def fit(
    model: LightningModule,
    loader: DataLoader[Any],
    *,
    steps: int,
    options: Mapping[str, Any],
    callbacks: Sequence[Callback],
    logger: Any = None,
    load: Callable[[], None] | None = None,
) -> Trainer:
    """Train a model for a number of batches with one fresh Trainer, and return the Trainer.

    Args:
        model: The model.
        loader: A loader with :class:`MixedBatches`, which receives the number of ranks.
        steps: Batches to train on, on each rank. If gradients are accumulated, they make fewer
            optimizer steps.
        options: The user's options of the Trainer.
        callbacks: Callbacks besides the user's own.
        logger: A logger, besides the user's own.
        load: Loads the weights, once the module has made its layers.

    Raises:
        ConfigurationError: If there is no batch, or the model has no optimizer.
    """
    given = {"enable_checkpointing": False, **without(options, "max_epochs")}
    loggers = [*as_list(given.pop("logger", None)), *as_list(logger)]
    callbacks = [*as_list(given.pop("callbacks", None)), BeginFit(steps, load), *callbacks]
    with quiet():
        trainer = make_trainer(
            given,
            max_steps=steps,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            logger=loggers or False,
            callbacks=callbacks,
        )
        batches = _share_out(loader, _ranks_of(trainer))  # only a Trainer has their number
        trainer.fit_loop.max_epochs = math.ceil(steps / batches)
        trainer.fit_loop.epoch_loop.max_steps = optimizer_steps(
            steps, batches=batches, accumulate=trainer.accumulate_grad_batches
        )
        trainer.fit(model, train_dataloaders=loader)
    return trainer


def trainer_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Check the user's Trainer options, and return them with ``max_epochs``, 10 unless given.

    Raises:
        ConfigurationError: If greentrain sets one of them itself, or ``max_epochs`` is no number.
    """
    taken = sorted(set(RESERVED_OPTIONS) & set(options))
    if taken:
        raise ConfigurationError(
            f"trainer has {', '.join(taken)}, which the controller decides; give max_epochs, the "
            "usual number of epochs of a full retraining"
        )
    epochs = options.get("max_epochs", 10)
    if not is_whole(epochs, 1):
        raise ConfigurationError(
            f"trainer has max_epochs={epochs!r}; it must be the usual number of epochs of a full "
            "retraining, 1 or more"
        )
    return {**options, "max_epochs": int(epochs)}


def number_of_ranks(options: Mapping[str, Any]) -> int:
    """Return the number of processes that a Trainer with these options trains in.

    Raises:
        ConfigurationError: If a Trainer does not accept one of the options.
    """
    return _ranks_of(checked_trainer(options))


def checked_trainer(options: Mapping[str, Any]) -> Trainer:
    """Return a Trainer with these options, as :func:`plain_trainer` does.

    Raises:
        ConfigurationError: If a Trainer does not accept one of the options.
    """
    try:
        return plain_trainer(options)
    except (TypeError, ValueError, MisconfigurationException) as error:
        reason = " ".join(str(error).split())
        raise ConfigurationError(f"a Trainer refuses the options of trainer: {reason}") from error


def without_loggers(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options with loggers that record nothing: some callbacks refuse to run without one."""
    loggers = [DummyLogger() for _ in as_list(options.get("logger"))]
    return {**options, "logger": loggers}


def optimizer_steps(steps: int, *, batches: int, accumulate: int) -> int:
    """Return the number of optimizer steps that a number of batches makes.

    Gradients are accumulated over some batches; the rest at the end of an epoch makes one step.

    Args:
        steps: Batches to train on.
        batches: Batches of an epoch.
        accumulate: Batches that gradients are accumulated over.

    Example:
        >>> optimizer_steps(25, batches=10, accumulate=4)  # 4 + 4 + 2, 4 + 4 + 2, 4 + 1
        8
    """
    epochs, rest = divmod(steps, batches)
    return epochs * math.ceil(batches / accumulate) + math.ceil(rest / accumulate)


def _made(make: Callable[[], Any], seed: int) -> LightningModule:
    torch.manual_seed(seed)
    model = make()
    if isinstance(model, OptimizedModule) and isinstance(model._orig_mod, LightningModule):
        model = from_compiled(model)
    if not isinstance(model, LightningModule):
        raise ConfigurationError(
            f"make_model returned a {type(model).__name__}; it has to return a LightningModule "
            "of pytorch_lightning"
        )
    return model


def _share_out(loader: DataLoader[Any], ranks: int) -> int:
    """Set the number of ranks on a loader's batches, and return the number of batches of each."""
    sampler = loader.batch_sampler
    if isinstance(sampler, MixedBatches):
        sampler.share_out(ranks)
    if not len(loader):
        among = f" among {ranks} ranks" if ranks > 1 else ""
        raise ConfigurationError(
            f"{size(loader.dataset)} samples{among} make no full batch, and loader has "
            "drop_last=True; give a smaller batch_size, or drop_last=False"
        )
    return len(loader)


def plain_trainer(options: Mapping[str, Any]) -> Trainer:
    """Return a Trainer with these options that calls and writes nothing of the user's."""
    given = without(options, "max_epochs", "logger", "callbacks", "enable_checkpointing")
    with quiet():
        return make_trainer(given, enable_checkpointing=False, logger=False)


def _ranks_of(trainer: Trainer) -> int:
    return trainer.num_devices * trainer.num_nodes


def as_list(value: Any) -> list[Any]:
    """Return the values of an option that takes one value, a list, a truth value or ``None``."""
    if value is None or isinstance(value, bool):
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]
