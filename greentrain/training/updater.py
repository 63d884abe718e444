"""The model of a stream: what it is trained with, and what training it in some mode means."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule
from pytorch_lightning.utilities.compile import from_compiled
from torch._dynamo import OptimizedModule
from torch.utils.data import Dataset, Subset

from greentrain.control import Action, Candidate, UpdateMode
from greentrain.errors import ConfigurationError
from greentrain.evaluation.fast_eval import glance
from greentrain.evaluation.measured import Measured
from greentrain.evaluation.signals.training_curve import weight_growth, weight_norm
from greentrain.memory import size
from greentrain.training import fit as trainers
from greentrain.training.data import UpdateData
from greentrain.training.loaders import check_loader, train_loader
from greentrain.training.modes import ModeConfig, shrink_and_perturb
from greentrain.training.weight_averaging import WeightAveraging

_State = Mapping[str, torch.Tensor]


class Updater:
    """Hold the current model, and train its successors, each with one fresh Trainer.

    Args:
        make_model: Returns a ``LightningModule`` with fresh weights, compiled or not.
        monitor: Name of the metric that it logs in validation.
        options: Options of each fresh Trainer, ``max_epochs`` among them.
        loader: Options of each ``DataLoader``, ``batch_size`` among them.
        modes: What the update modes mean, with the batch size of one rank.
        seed: Seed of weights and order.

    Attributes:
        modes: What the update modes mean, with the batch size over all ranks.
        trained: Whether an update has been kept yet.
        warm_starts: Updates that were kept since the last full retraining.
        weight_growth: Growth of the norm of the weights since then, as a share; ``None`` before.

    Raises:
        ConfigurationError: If an option of the Trainer or the loader cannot be used.
    """

    def __init__(
        self,
        make_model: Callable[[], LightningModule],
        *,
        monitor: str,
        options: Mapping[str, Any],
        loader: Mapping[str, Any],
        modes: ModeConfig,
        seed: int,
    ) -> None:
        self._loader = check_loader(loader)
        together = trainers.ranks(options) * modes.batch_size
        self.modes = dataclasses.replace(modes, batch_size=together)
        self.trained = False
        self.warm_starts = 0
        self._make_model = make_model
        self._monitor = monitor
        self._options = options
        self._seed = seed
        self.weight_growth: float | None = None
        self._full_norm: float | None = None
        self._glances = _on_cpu(options.get("accelerator", "auto"))
        self._model: LightningModule | None = None
        self._last: _State | None = None
        self._trained: tuple[LightningModule, _State] | None = None

    @property
    def model(self) -> LightningModule:
        """The current model; with fresh weights before the first update."""
        if self._model is None:
            with _own_randomness():
                self._model = self._fresh(self._seed)
        return self._model

    def measure(self, dataset: Dataset[Any], model: LightningModule | None = None) -> float:
        """Return the metric of a model, the current one unless given, on a dataset.

        Raises:
            ConfigurationError: If the model does not log the metric.
        """
        return self._look(dataset, model).value

    def measured(
        self,
        datasets: Sequence[Dataset[Any]],
        model: LightningModule | None = None,
        *,
        features: bool = False,
    ) -> list[Measured]:
        """Return the metric of a model on each of some datasets, with its values on their blocks.

        A few samples need no Trainer, where the module can do without one. Else each dataset is
        validated: a block is a batch where the model logs a value for each, which comes with the
        one validation; failing that the dataset is cut into ten parts that are validated one by
        one.

        Args:
            datasets: The datasets; the same ones give the same blocks.
            model: The model; the current one unless given.
            features: Whether to note what the model makes of the samples.

        Raises:
            ConfigurationError: If the model does not log the metric.
        """
        model = self.model if model is None else model
        if self._glances:
            with _own_randomness():
                found = glance(
                    model,
                    datasets,
                    monitor=self._monitor,
                    loader=self._loader,
                    features=features,
                )
            if found is not None:
                return found
            self._glances = False  # it will not be otherwise the next time
        return [self._validated(dataset, model, features=features) for dataset in datasets]

    def train(
        self,
        candidate: Candidate,
        batch: UpdateData,
        *,
        position: int,
        callbacks: Sequence[Callback],
        logger: Any = None,
    ) -> LightningModule:
        """Train a successor of the current model, which stays as it is.

        Where weights are averaged, it goes on from where the steps of the last update ended, not
        from their mean: the mean is what is used, the last weights are where learning stands. The
        global random state is put back afterwards.

        Args:
            candidate: The action, and its steps.
            batch: New and stored samples.
            position: Number of the experience: it takes part in the seed.
            callbacks: Callbacks of the fit, after the user's own.
            logger: A logger of the fit, besides the user's own.

        Returns:
            The successor, whose weights need not be :func:`~greentrain.training.fit_callbacks.healthy`.

        Raises:
            ConfigurationError: If nothing can be trained: there is no sample, no full batch or no
                optimizer.
        """
        seed = self._seed + 1000 * (position + 1)
        with _own_randomness():
            model = self._fresh(seed)
            if candidate.action.mode is not UpdateMode.FULL_RETRAIN:
                self._go_on(model, candidate.action.mode)
            average = self.modes.average * candidate.steps
            mean = [WeightAveraging(average)] if average else []
            trainers.fit(
                model,
                train_loader(candidate.action, batch, loader=self._loader, seed=seed),
                steps=candidate.steps,
                options=self._options,
                callbacks=[*callbacks, *mean],
                logger=logger,
            )
        last = mean[0].last if mean else None
        self._trained = None if last is None else (model, last)
        return model

    def candidates(self, batch: UpdateData, *, keeps_data: bool) -> list[Candidate]:
        """Return the updates that are feasible, at each effort, with their steps."""
        return self.modes.candidates(
            n_new=batch.n_new,
            n_stored=batch.n_stored,
            n_held=batch.n_held,
            has_model=self.trained,
            keeps_data=keeps_data,
        )

    def keep(self, model: LightningModule, action: Action) -> None:
        """Make a trained successor the current model."""
        trained, last = self._trained or (None, None)
        self._model, self._last = model, last if trained is model else None
        self.trained = True
        full = action.mode is UpdateMode.FULL_RETRAIN
        norm = weight_norm(model)
        self._full_norm = norm if full else self._full_norm
        self.weight_growth = weight_growth(norm, self._full_norm)
        self.warm_starts = 0 if full else self.warm_starts + 1

    def state_dict(self) -> dict[str, Any]:
        """Return the current weights, and what led to them, as plain values and tensors."""
        return {
            "model": dict(self.model.state_dict()),
            "last": None if self._last is None else dict(self._last),
            "trained": self.trained,
            "warm_starts": self.warm_starts,
            "full_norm": self._full_norm,
            "weight_growth": self.weight_growth,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state_dict` returned.

        Raises:
            ConfigurationError: If the weights are of another model than ``make_model`` returns.
        """
        try:
            self.model.load_state_dict(state["model"])
        except RuntimeError as error:
            raise ConfigurationError(
                f"the saved weights do not fit what make_model returns: {error}"
            ) from error
        self._last, self._full_norm = state["last"], state["full_norm"]
        self.weight_growth = state["weight_growth"]
        self.trained, self.warm_starts = state["trained"], state["warm_starts"]

    def _validated(
        self, dataset: Dataset[Any], model: LightningModule, *, features: bool
    ) -> Measured:
        found = self._look(dataset, model, features=features)
        if found.blocks:
            return found
        length = max(1, -(-size(dataset) // trainers.PARTS))
        starts = range(0, size(dataset), length)
        parts = [range(start, min(start + length, size(dataset))) for start in starts]
        blocks = [(len(part), self._look(Subset(dataset, part), model).value) for part in parts]
        return dataclasses.replace(found, blocks=tuple(blocks))

    def _look(
        self, dataset: Dataset[Any], model: LightningModule | None, *, features: bool = False
    ) -> Measured:
        with _own_randomness():
            return trainers.look(
                self.model if model is None else model,
                dataset,
                monitor=self._monitor,
                options=self._options,
                loader=self._loader,
                features=features,
            )

    def _fresh(self, seed: int) -> LightningModule:
        torch.manual_seed(seed)
        model = self._make_model()
        if isinstance(model, OptimizedModule) and isinstance(model._orig_mod, LightningModule):
            model = from_compiled(model)
        if not isinstance(model, LightningModule):
            raise ConfigurationError(
                f"make_model returned a {type(model).__name__}; it has to return a LightningModule "
                "of pytorch_lightning"
            )
        return model

    def _go_on(self, model: LightningModule, mode: UpdateMode) -> None:
        """Put the last weights in place of fresh ones, and at a warm start pull them back a bit."""
        shrink, perturb = self.modes.shrink, self.modes.perturb
        plain = mode is not UpdateMode.WARM_START or (shrink, perturb) == (1.0, 0.0)
        fresh = [] if plain else [each.detach().clone() for each in model.parameters()]
        model.load_state_dict(self.model.state_dict() if self._last is None else self._last)
        if not plain:
            shrink_and_perturb(model.parameters(), fresh, shrink=shrink, perturb=perturb)


def _on_cpu(accelerator: Any) -> bool:
    # Where there is another device, it looks at samples for less than the processor does.
    return accelerator == "cpu" or (accelerator == "auto" and not torch.accelerator.is_available())


def _own_randomness() -> AbstractContextManager[None]:
    # Asking for the state of CUDA that nothing has used yet would start it in this process.
    started = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return torch.random.fork_rng(devices=range(torch.cuda.device_count() if started else 0))
