"""The model of a stream: what it is trained with, and what training it in some mode means."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule
from torch.utils.data import Dataset

from greentrain.control import Action, Candidate, UpdateMode
from greentrain.errors import ConfigurationError
from greentrain.updating import trainers
from greentrain.updating.material import Batch
from greentrain.updating.modes import ModeOptions, shrink_and_perturb, train_loader


class Updater:
    """Hold the current model, and train its successors, each with one fresh Trainer.

    Args:
        make_model: Returns a ``LightningModule`` with fresh weights.
        monitor: Name of the metric that it logs in validation.
        options: Options of each fresh Trainer, ``max_epochs`` among them.
        loader: Options of each ``DataLoader``, ``batch_size`` among them.
        modes: What the update modes mean.
        seed: Seed of weights and order.
    """

    def __init__(
        self,
        make_model: Callable[[], LightningModule],
        *,
        monitor: str,
        options: Mapping[str, Any],
        loader: Mapping[str, Any],
        modes: ModeOptions,
        seed: int,
    ) -> None:
        self.modes = modes
        self.trained = False
        self.warm_starts = 0
        self._make_model = make_model
        self._monitor = monitor
        self._options = options
        self._loader = loader
        self._seed = seed
        self._model: LightningModule | None = None

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
        with _own_randomness():
            return trainers.look(
                self.model if model is None else model,
                dataset,
                monitor=self._monitor,
                options=self._options,
                loader=self._loader,
            )

    def train(
        self,
        candidate: Candidate,
        batch: Batch,
        *,
        position: int,
        callbacks: Sequence[Callback],
        logger: Any = None,
    ) -> LightningModule:
        """Train a successor of the current model, which stays as it is.

        The global random state is put back afterwards.

        Args:
            candidate: The action, and its steps.
            batch: New and stored samples.
            position: Number of the experience: it takes part in the seed.
            callbacks: Callbacks of the fit, before the user's own.
            logger: A logger of the fit, besides the user's own.
        """
        seed = self._seed + 1000 * (position + 1)
        with _own_randomness():
            model = self._fresh(seed)
            if candidate.action.mode is not UpdateMode.FULL_RETRAIN:
                self._go_on(model, candidate.action.mode)
            loader = train_loader(
                candidate.action,
                batch.new,
                batch.stored,
                options=self.modes,
                loader=self._loader,
                seed=seed,
            )
            trainers.fit(
                model,
                loader,
                steps=candidate.steps,
                options=self._options,
                callbacks=callbacks,
                logger=logger,
            )
        return model

    def candidates(self, batch: Batch, *, keeps_data: bool) -> list[Candidate]:
        """Return the updates that are feasible, at each effort, with their steps."""
        return self.modes.candidates(
            n_new=batch.n_new,
            n_stored=batch.n_stored,
            has_model=self.trained,
            keeps_data=keeps_data,
        )

    def keep(self, model: LightningModule, action: Action) -> None:
        """Make a trained successor the current model."""
        self._model = model
        self.trained = True
        full = action.mode is UpdateMode.FULL_RETRAIN
        self.warm_starts = 0 if full else self.warm_starts + 1

    def _fresh(self, seed: int) -> LightningModule:
        torch.manual_seed(seed)
        model = self._make_model()
        if not isinstance(model, LightningModule):
            raise ConfigurationError(
                f"make_model returned a {type(model).__name__}; it has to return a LightningModule"
            )
        return model

    def _go_on(self, model: LightningModule, mode: UpdateMode) -> None:
        """Put the last weights in place of fresh ones, and at a warm start pull them back a bit."""
        shrink, perturb = self.modes.shrink, self.modes.perturb
        fresh = [parameter.detach().clone() for parameter in model.parameters()]
        model.load_state_dict(self.model.state_dict())
        if mode is UpdateMode.WARM_START and (shrink, perturb) != (1.0, 0.0):
            shrink_and_perturb(model.parameters(), fresh, shrink=shrink, perturb=perturb)


def _own_randomness() -> AbstractContextManager[None]:
    # Asking for the state of CUDA that nothing has used yet would start it in this process.
    started = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return torch.random.fork_rng(devices=range(torch.cuda.device_count() if started else 0))
