"""Score samples while a fit trains, and pass over the informative ones of them later."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, get_args

import torch
from torch.utils.data import DataLoader, Dataset, SubsetRandomSampler

from greentrain.callbacks.base import Callback
from greentrain.callbacks.batch_parts import Unpack, pair
from greentrain.errors import ConfigurationError
from greentrain.methods import content_keys, has_label
from greentrain.units import is_number

By = Literal["forgetting", "margin", "loss"]
_REMEMBERED = 1_000_000
"""Samples that are remembered; those that were trained on longest ago are forgotten first."""
_READ_AT_ONCE = 512
_EXACT = ("32-true", "16-mixed", "bf16-mixed")
"""Precisions in which a batch has the values of the dataset."""


class InformativeSubset(Callback):
    """Train on all new samples, and on the informative share of those that were trained on before.

    Scores come from the forward passes of the training steps, so there is no extra pass.
    ``training_step`` returns ``{"loss": loss, "logits": logits}``, or ``"sample_losses"`` with
    ``by="loss"``. A sample is recognised by its content. One without a label (see
    :func:`greentrain.methods.has_label`), or with a score that is not finite, gets no score.

    - ``"forgetting"``: how often the sample was classified rightly, and then wrongly at its next
      visit. Samples that were never right come first (Toneva et al. 2019, arXiv 1812.05159).
    - ``"margin"``: logit of the right class less the largest other one, small first.
    - ``"loss"``: the last loss, large first.

    Args:
        by: The score.
        share: Share of the scored samples that a pass goes over, in (0, 1].
        unpack: Returns inputs and targets of a batch or of a sample; ``(inputs, targets)`` unless
            given.

    Raises:
        ConfigurationError: If an argument cannot be used. In a fit, if it has several processes,
            a precision that changes the inputs, or a training step that returns nothing to score.

    Example:
        >>> subset = InformativeSubset("loss", share=0.25)
        >>> len(subset.sampler([(torch.zeros(2), 0), (torch.ones(2), 1)]))  # all of them are new
        2
    """

    def __init__(
        self, by: By = "forgetting", *, share: float = 0.5, unpack: Unpack | None = None
    ) -> None:
        if by not in get_args(By):
            raise ConfigurationError(f"by is {by!r}; it must be one of {', '.join(get_args(By))}")
        if not (is_number(share) and 0 < share <= 1):
            raise ConfigurationError(f"share is {share!r}; it must be above 0 and at most 1")
        self.by, self.share = by, float(share)
        self.unpack = unpack or pair
        self._scores: dict[tuple[int, int], tuple[float, float, bool]] = {}
        # Of each sample: times it was forgotten, or infinity; its last score; whether it was right.

    def __len__(self) -> int:
        """Return the number of samples with a score."""
        return len(self._scores)

    def sampler(self, dataset: Dataset[Any]) -> SubsetRandomSampler:
        """Return the sampler of a loader: ``StreamTrainer(loader={"sampler": subset.sampler})``.

        It reads each sample once. The order is that of torch's global generator.

        Args:
            dataset: A map-style dataset of samples ``(inputs, target)``.
        """
        if not self._scores:
            return SubsetRandomSampler(range(len(dataset)))  # type: ignore[arg-type]
        keys = [
            key
            # Without a generator, a loader would advance the global one.
            for batch in DataLoader(dataset, _READ_AT_ONCE, generator=torch.Generator())
            for key in _keys(self.unpack(batch)[0])
        ]
        known = [place for place, key in enumerate(keys) if key in self._scores]
        known.sort(key=lambda place: self._scores[keys[place]][:2], reverse=True)
        left_out = set(known[max(1, round(self.share * len(known))) :])
        return SubsetRandomSampler([at for at in range(len(keys)) if at not in left_out])

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Refuse several processes, and a precision that changes the inputs."""
        if stage != "fit":
            return
        if trainer.precision not in _EXACT:
            raise ConfigurationError(
                f"precision is {trainer.precision!r}, which changes the inputs by which "
                f"InformativeSubset recognises samples; give one of {', '.join(_EXACT)}"
            )
        if trainer.world_size > 1:
            raise ConfigurationError(
                f"the fit has {trainer.world_size} processes, and InformativeSubset scores the "
                "samples of one; give devices=1, or leave it out"
            )

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Score the samples of a batch."""
        inputs, targets = self.unpack(batch)
        scores, right = self._scored(outputs, targets)
        keys = _keys(inputs)
        if len(keys) != len(scores):
            raise ConfigurationError(
                f"training_step returned {len(scores)} scores for a batch of {len(keys)} samples; "
                "return one of each sample, and leave out a callback that passes only some on"
            )
        for key, score, now in zip(keys, scores.tolist(), right.tolist(), strict=True):
            if not math.isfinite(score):
                continue
            times, _, before = self._scores.pop(key, (float("inf"), 0.0, False))
            if now and times == float("inf"):
                times = 0.0
            elif before and not now:
                times += 1.0
            self._scores[key] = (times if self.by == "forgetting" else 0.0, score, now)
        while len(self._scores) > _REMEMBERED:
            del self._scores[next(iter(self._scores))]

    def state_dict(self) -> dict[str, Any]:
        """Return the scores, for a checkpoint: 33 bytes for each sample."""
        rows = list(self._scores.values())
        return {
            "keys": torch.tensor(list(self._scores), dtype=torch.int64).reshape(-1, 2),
            "scores": torch.tensor([row[:2] for row in rows], dtype=torch.float64).reshape(-1, 2),
            "right": torch.tensor([row[2] for row in rows], dtype=torch.bool),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore from a checkpoint."""
        columns = (state_dict[name].tolist() for name in ("keys", "scores", "right"))
        self._scores = {
            tuple(key): (*scores, right) for key, scores, right in zip(*columns, strict=True)
        }

    def _scored(self, outputs: Any, targets: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the score of each sample, the informative ones high, and which were right."""
        name = "sample_losses" if self.by == "loss" else "logits"
        found = outputs.get(name) if isinstance(outputs, Mapping) else None
        dimensions = 1 if self.by == "loss" else 2
        if not isinstance(found, torch.Tensor) or found.ndim != dimensions:
            form = "one loss of each sample" if dimensions == 1 else "(batch, classes)"
            raise ConfigurationError(
                f"training_step returns no {name}, from which InformativeSubset takes its scores; "
                f"return {{'loss': loss, {name!r}: {name}}}, {form}"
            )
        found = found.detach().float()
        if self.by == "loss":
            return found, torch.zeros(len(found), dtype=torch.bool)
        if (
            not isinstance(targets, torch.Tensor)
            or targets.ndim != 1
            or targets.is_floating_point()
        ):
            raise ConfigurationError(
                f"by is {self.by!r}, which needs one class for each sample; give by='loss' for "
                "other targets"
            )
        known = has_label(targets)
        classes = targets.where(known, 0)[:, None].long()
        own = found.gather(1, classes).squeeze(1)
        others = found.scatter(1, classes, float("-inf")).amax(1)
        return (others - own).where(known, float("nan")), own > others


def _keys(inputs: Any) -> list[tuple[int, int]]:
    if not isinstance(inputs, torch.Tensor):
        raise ConfigurationError(
            f"the inputs of a batch are {type(inputs).__name__}, and samples are recognised by the "
            "content of one tensor; give unpack=lambda batch: (tensor, targets)"
        )
    return content_keys(inputs)
