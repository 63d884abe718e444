"""Leave out samples of which the model has little to learn, and save their energy."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal, get_args

import torch
from torch.utils._pytree import tree_map

from greentrain.callbacks.base import Callback
from greentrain.callbacks.selective_sampler import SelectiveSampler
from greentrain.callbacks.step_layers import loss_of, with_loss, wrap_training_step
from greentrain.errors import ConfigurationError
from greentrain.units import whole_seed

Method = Literal["batch_loss", "infobatch", "selective_backprop"]
SAMPLE_LOSSES = "sample_losses"
"""Name of the losses of single samples in the output of ``training_step``."""
_SMOOTHING = 0.7
"""Weight of the earlier score in that of a batch loss; the value of its authors' code."""
_REMEMBERED = 1024
"""Losses that selective backprop compares a new one with."""


class SelectiveTraining(Callback):
    """Leave out samples of which the model has little to learn.

    Three methods:

    - ``"batch_loss"`` (Zhou et al. 2026, arXiv 2604.04681): the score of a sample is the mean of
      its batches' losses, ``0.7 * score + 0.3 * loss``. No loss of a single sample is needed.
    - ``"infobatch"`` (Qin et al. 2024, arXiv 2303.04947): the score is the last loss of the sample.
      The losses of kept samples are weighted, so the expected gradient is that of all samples.
    - ``"selective_backprop"`` (Jiang et al. 2019, arXiv 1910.00762): each sample has a forward
      pass. Its loss is higher than those of a share ``s`` of recent samples; it is trained on with
      probability ``s ** power``.

    With the first two, each epoch leaves out a sample whose score is below the mean with
    probability ``prune``. What is left out differs in each epoch. The first epoch of a
    loader and the last eighth of the epochs use all samples. The loader needs the
    :meth:`sampler`.

    The last two need the losses of single samples: ``training_step`` returns them as
    ``{"loss": losses.mean(), "sample_losses": losses}``.

    Args:
        method: The method.
        prune: Probability with which a sample with a low score is left out of an epoch, in
            (0, 1). Not for ``"selective_backprop"``.
        power: Power of the share, above 0: 1 trains on half of the samples, 2 on a third. For
            ``"selective_backprop"`` only.
        seed: Seed of the order and of the choice.

    Attributes:
        used: Samples that were trained on, and all samples of the same epochs.

    Raises:
        ConfigurationError: If an argument cannot be used. At the start of a fit, if its loader has
            no sampler of this callback, or it has several processes.

    Example:
        >>> selective = SelectiveTraining()
        >>> data = list(range(1000))
        >>> loader = torch.utils.data.DataLoader(
        ...     data, batch_size=10, sampler=selective.sampler(data))
        >>> len(loader)  # the first epoch uses all samples
        100
    """

    def __init__(
        self,
        method: Method = "batch_loss",
        *,
        prune: float = 0.5,
        power: float = 2.0,
        seed: int = 0,
    ) -> None:
        if method not in get_args(Method):
            raise ConfigurationError(
                f"method is {method!r}; it must be one of {', '.join(get_args(Method))}"
            )
        if not 0 < _number(prune, "prune") < 1:
            raise ConfigurationError(f"prune is {prune!r}; it must be between 0 and 1")
        if not 0 < _number(power, "power") < math.inf:
            raise ConfigurationError(f"power is {power!r}; it must be above 0")
        self.method = method
        self.prune, self.power = float(prune), float(power)
        self.seed = whole_seed(seed)
        self.used = (0, 0)
        self._sampler: SelectiveSampler | None = None
        self._scores: torch.Tensor | None = None
        self._trainer: Any = None
        self._recent: deque[float] = deque(maxlen=_REMEMBERED)
        self._generator = torch.Generator().manual_seed(self.seed % 2**63)
        self._restore: Any = None

    def sampler(self, dataset: Sized) -> SelectiveSampler:
        """Return the sampler of a loader: ``DataLoader(data, sampler=selective.sampler(data))``.

        The scores of an earlier loader stay valid if its dataset had as many samples.

        Args:
            dataset: The loader's map-style dataset, of 1 sample or more.

        Raises:
            ConfigurationError: If the method needs no sampler, or the dataset has no samples.
        """
        if self.method == "selective_backprop":
            raise ConfigurationError(
                "selective_backprop chooses within each batch and needs no sampler; give the "
                "DataLoader shuffle=True"
            )
        sampler = SelectiveSampler(dataset, prune=self.prune, seed=self.seed)
        if self._scores is not None and len(self._scores) == sampler.size:
            sampler.scores = self._scores
        if self._trainer is not None:
            each = self._trainer.reload_dataloaders_every_n_epochs == 1
            earlier = self._sampler
            sampler.follow(self._trainer, begun=each and earlier is not None and earlier.begun)
        self._scores, self._sampler = sampler.scores, sampler
        return sampler

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Check the fit, and wrap its training step."""
        if stage != "fit":
            return
        if trainer.world_size > 1:
            raise ConfigurationError(
                f"the fit has {trainer.world_size} processes, and SelectiveTraining chooses the "
                "samples of one; give devices=1, or leave it out"
            )
        if not pl_module.automatic_optimization:
            raise ConfigurationError(
                "the module has manual optimization, whose loss SelectiveTraining cannot see; "
                "leave it out"
            )
        self._trainer = trainer
        if self._sampler is not None:
            self._sampler.follow(trainer)
        layer = self._backprop if self.method == "selective_backprop" else self._scored
        self._restore = wrap_training_step(pl_module, partial(layer, pl_module))

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Check that the loader has the sampler, and begin with its first batch."""
        if self.method == "selective_backprop":
            return
        sampler, loader = self._sampler, trainer.train_dataloader
        batches = getattr(loader, "batch_sampler", None)
        given = getattr(batches, "sampler", None) is sampler
        if sampler is None or not given or loader.batch_size is None:
            raise ConfigurationError(_NO_SAMPLER)
        sampler.begin(loader.batch_size)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Log the share of the samples that was trained on so far."""
        used, whole = self.used
        if self._sampler is not None:
            whole += self._sampler.size
        self.used = (used, whole)
        if whole:
            self.log("samples_used", used / whole)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Unwrap the training step."""
        self._close()

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Unwrap the training step."""
        self._close()

    def state_dict(self) -> dict[str, Any]:
        """Return the scores, for a checkpoint."""
        return {
            "used": list(self.used),
            "scores": self._scores,
            "recent": list(self._recent),
            "generator": self._generator.get_state(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore from a checkpoint; scores of another number of samples are not used."""
        scores = state_dict["scores"]
        if self._sampler is None or self._scores is None:
            self._scores = scores
        elif scores is not None and len(scores) == len(self._scores):
            self._scores.copy_(scores)
        self.used = tuple(state_dict["used"])
        self._recent.extend(state_dict["recent"])
        self._generator.set_state(state_dict["generator"])

    def _close(self) -> None:
        if self._restore is not None:
            self._restore()
            self._restore = None
        self._trainer = None
        if self._sampler is not None:
            self._sampler.follow(None)

    def _scored(self, module: Any, step: Any, batch: Any, *rest: Any) -> Any:
        """Run a training step, score its samples, and weight its loss."""
        output = step(batch, *rest)
        sampler = self._sampler
        if output is None or sampler is None:
            return output
        indices = sampler.next_batch()
        self.used = (self.used[0] + len(indices), self.used[1])
        weights = sampler.weights[indices]
        if self.method == "infobatch":
            losses = _sample_losses(output, len(indices))
            sampler.scores[indices] = losses.detach().float().cpu()
            if bool((weights == 1).all()):
                return output
            weighted = losses * weights.to(losses)
            return {**output, "loss": output["loss"] + weighted.mean() - losses.mean()}
        loss = loss_of(output)
        score = float(loss.detach())
        before = sampler.scores[indices]
        smooth = _SMOOTHING * before + (1 - _SMOOTHING) * score
        sampler.scores[indices] = torch.where(before.isnan(), score, smooth)
        return with_loss(output, loss * float(weights.mean()))

    def _backprop(self, module: Any, step: Any, batch: Any, *rest: Any) -> Any:
        """Run a training step on the samples of a batch that were chosen by their losses."""
        with _scoring(module):
            output = step(batch, *rest)
        losses = _sample_losses(output).float().cpu()
        chosen = self._choose(losses)
        used, whole = self.used
        self.used = (used + len(chosen), whole + len(losses))
        return step(_part(batch, chosen, len(losses)), *rest)

    def _choose(self, losses: torch.Tensor) -> torch.Tensor:
        self._recent.extend(losses.tolist())
        recent = torch.tensor(self._recent).sort().values
        share = torch.searchsorted(recent, losses, right=True) / len(recent)
        chosen = torch.rand(len(losses), generator=self._generator) < share**self.power
        chosen[losses.argmax()] = True
        return chosen.nonzero().flatten()


_NO_SAMPLER = (
    "the training loader is no DataLoader with the sampler of this SelectiveTraining; give "
    "DataLoader(data, batch_size=..., sampler=selective.sampler(data)), and no shuffle"
)


def _number(value: object, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigurationError(f"{name} is {value!r}; it must be a number")
    return float(value)


def _sample_losses(output: Any, samples: int | None = None) -> torch.Tensor:
    """Return the losses of single samples in the output of a training step."""
    losses = output.get(SAMPLE_LOSSES) if isinstance(output, Mapping) else None
    if not isinstance(losses, torch.Tensor) or losses.ndim != 1:
        raise ConfigurationError(
            "training_step returns no losses of single samples; return "
            "{'loss': losses.mean(), 'sample_losses': losses} with one loss of each sample, or "
            "give SelectiveTraining('batch_loss')"
        )
    if samples is not None and len(losses) != samples:
        raise ConfigurationError(
            f"sample_losses has {len(losses)} losses of a batch of {samples} samples; return one "
            "of each sample"
        )
    return losses


@contextmanager
def _scoring(module: Any) -> Iterator[None]:
    """Evaluate without gradients, without dropout, and without logging."""
    training = [each for each in module.modules() if each.training]
    own = {name: vars(module)[name] for name in ("log", "log_dict") if name in vars(module)}
    try:
        module.eval()
        module.log = module.log_dict = lambda *args, **kwargs: None
        with torch.no_grad():
            yield
    finally:
        for name in ("log", "log_dict"):
            del vars(module)[name]
        vars(module).update(own)
        for each in training:
            each.training = True


def _part(batch: Any, chosen: torch.Tensor, samples: int) -> Any:
    """Return some samples of a batch: of all its tensors and lists of texts of that length."""

    def texts(value: Any) -> bool:
        sized = isinstance(value, Sequence) and len(value) == samples
        return sized and all(isinstance(each, str) for each in value)

    def part(value: Any) -> Any:
        if isinstance(value, torch.Tensor) and value.ndim and len(value) == samples:
            return value[chosen.to(value.device)]
        return [value[index] for index in chosen.tolist()] if texts(value) else value

    return tree_map(part, batch, is_leaf=texts)
