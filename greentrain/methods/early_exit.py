"""Early exits: classify easy samples by a layer in the middle, and run no later layer for them."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import nn
from torch.nn.functional import adaptive_avg_pool2d, cross_entropy
from torch.utils.flop_counter import FlopCounterMode

from greentrain.errors import ConfigurationError
from greentrain.methods.operation_count import evaluating

NEVER = float("inf")
"""The threshold at which no sample leaves early."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitPrediction:
    """Predictions of a batch, and the exits that made them.

    Args:
        logits: ``(batch, classes)``.
        exits: Index of the exit of each sample, ``(batch,)``; the number of exits for the last
            layer of the module.
    """

    logits: torch.Tensor
    exits: torch.Tensor


class ExitHeads(nn.Module):
    """Heads at chosen layers of a module, with which easy samples leave it early.

    BranchyNet (Teerapittayanon et al. 2016, arXiv 1709.01686) with the confidence of MSDNet (Huang
    et al. 2018, arXiv 1703.09844): the largest softmax probability. A sample leaves at the first
    exit whose confidence reaches the threshold.

    The heads hold no reference to the module. So it may own them, as in ``self.exits``.

    Args:
        features: Features of each layer's output after pooling, by the layer's name, in the order
            in which the layers run. :meth:`of` finds them.
        classes: Number of classes.
        grid: Side to which the height and width of an image are pooled.

    Attributes:
        threshold: The confidence at which :meth:`forward` lets samples leave, a buffer. ``inf`` at
            first: no sample leaves early.

    Raises:
        ConfigurationError: If there is no layer, or a number is not positive.

    Example:
        >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> heads = ExitHeads.of(net, ["1"], classes=3, example=torch.zeros(1, 4))
        >>> images = torch.randn(5, 4)
        >>> prediction = heads.predict(net, images, threshold=0.0)  # all leave at once
        >>> prediction.logits.shape, prediction.exits.tolist()
        (torch.Size([5, 3]), [0, 0, 0, 0, 0])
    """

    threshold: torch.Tensor

    def __init__(self, features: Mapping[str, int], classes: int, *, grid: int = 4) -> None:
        super().__init__()
        if not features:
            raise ConfigurationError("there is no layer for an exit; name one or more")
        for name, number in {**features, "classes": classes, "grid": grid}.items():
            if isinstance(number, bool) or not isinstance(number, int) or number < 1:
                raise ConfigurationError(f"{name} is {number!r}; it must be a whole number above 0")
        self.layers = tuple(features)
        self.grid = grid
        self.heads = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(number), nn.Linear(number, classes))
            for number in features.values()
        )
        self.register_buffer("threshold", torch.tensor(NEVER))

    @classmethod
    def of(
        cls,
        module: nn.Module,
        layers: Sequence[str],
        *,
        classes: int,
        example: Any,
        grid: int = 4,
    ) -> Self:
        """Return heads for the layers of a module.

        Args:
            module: The module.
            layers: Names of layers, as in ``module.named_modules()``. Each returns one tensor:
                ``(batch, features)``, ``(batch, tokens, features)`` or ``(batch, channels, height,
                width)``.
            classes: Number of classes.
            example: A batch of inputs of any size, with which the module runs once.
            grid: Side to which the height and width of an image are pooled.

        Raises:
            ConfigurationError: If there is no such layer, or its output is something else.
        """
        if isinstance(layers, str):
            raise ConfigurationError(f"layers is {layers!r}; give a list of names: [{layers!r}]")
        shapes: dict[str, int] = {}
        with evaluating(module), _capture(module, layers) as outputs:
            module(example)
        for name, output in outputs.items():  # in the order in which they ran
            shapes[name] = pooled(output, grid).shape[1]
        missing = [name for name in layers if name not in outputs]
        if missing:
            raise ConfigurationError(
                f"the layer {missing[0]!r} does not run in a forward pass of the example; choose "
                "one that does"
            )
        return cls(shapes, classes, grid=grid)

    def forward(self, module: nn.Module, inputs: Any) -> torch.Tensor:
        """Return logits, ``(batch, classes)``: with exits in evaluation mode, and all layers else.

        Args:
            module: The module that the heads are for.
            inputs: Its inputs.
        """
        if self.training or not bool(self.threshold < NEVER):
            return module(inputs)  # type: ignore[no-any-return]
        return self.predict(module, inputs).logits

    @contextmanager
    def capture(self, module: nn.Module) -> Iterator[dict[str, torch.Tensor]]:
        """Collect the outputs of the layers while the module is called within the block."""
        with _capture(module, self.layers) as outputs:
            yield outputs

    def logits(self, outputs: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
        """Return the logits of each exit, ``(batch, classes)``, from captured outputs."""
        return [
            head(pooled(outputs[name], self.grid))
            for name, head in zip(self.layers, self.heads, strict=True)
        ]

    def loss(self, outputs: Mapping[str, torch.Tensor], labels: torch.Tensor) -> torch.Tensor:
        """Return the sum of the exits' cross-entropies on captured outputs.

        Args:
            outputs: What :meth:`capture` collected.
            labels: Classes, ``(batch,)``.
        """
        losses = [cross_entropy(each.float(), labels) for each in self.logits(outputs)]
        return torch.stack(losses).sum()

    def predict(
        self, module: nn.Module, inputs: Any, *, threshold: float | None = None
    ) -> ExitPrediction:
        """Predict a batch; a sample that is confident at an exit runs through no later layer.

        After an exit, only the rows of the other samples continue. So the rest of the module must
        depend on the rows of that layer's output only: no skip connection may lead past it. If all
        samples have left, the forward pass is ended.

        Args:
            module: The module, in evaluation mode.
            inputs: Its inputs, whose first dimension is the batch.
            threshold: Smallest confidence to leave with; :attr:`threshold` unless given.

        Raises:
            ConfigurationError: If the module needs the samples that have left, or runs a layer
                twice.
        """
        limit = float(self.threshold) if threshold is None else threshold
        leaving = _Leaving(limit)
        with leaving.hooks(module, self):
            try:
                last = module(inputs)
            except _AllDecided:
                return leaving.prediction(None, len(self.layers))
            except RuntimeError as error:
                if not leaving.left:
                    raise
                raise ConfigurationError(
                    f"the module failed after samples left it early ({error}). A later layer uses "
                    "their rows; put the exits where no skip connection leads past them"
                ) from error
        return leaving.prediction(last, len(self.layers))

    def operations(self, module: nn.Module, example: Any) -> list[int]:
        """Return the operations of a sample that leaves at each exit, and of one that never does.

        Args:
            module: The module.
            example: A batch of one sample.

        Returns:
            Operations, heads included; the last one is that of the whole module with all heads.
        """
        counts = []
        for place in range(len(self.layers) + 1):
            with evaluating(module), evaluating(self), FlopCounterMode(display=False) as counter:
                leaving = _Leaving(NEVER, only=place)
                with leaving.hooks(module, self), suppress(_AllDecided):
                    module(example)
            counts.append(int(counter.get_total_flops()))
        return counts


def pooled(output: Any, grid: int) -> torch.Tensor:
    """Return the features of each sample in a layer's output.

    Args:
        output: ``(batch, features)``, ``(batch, tokens, features)`` or ``(batch, channels, height,
            width)``.
        grid: Side to which the height and width of an image are pooled.

    Returns:
        ``(batch, features)``: tokens are averaged, the cells of an image are listed.

    Raises:
        ConfigurationError: If the output is something else.

    Example:
        >>> pooled(torch.zeros(2, 3, 8, 8), 4).shape, pooled(torch.zeros(2, 5, 3), 4).shape
        (torch.Size([2, 48]), torch.Size([2, 3]))
    """
    if isinstance(output, torch.Tensor):
        if output.ndim == 2:
            return output
        if output.ndim == 3:
            return output.mean(1)
        if output.ndim == 4:
            height, width = (min(grid, side) for side in output.shape[2:])
            return adaptive_avg_pool2d(output, (height, width)).flatten(1)
        shape = f"has the shape {tuple(output.shape)}"
    else:
        shape = f"is a {type(output).__name__}"
    raise ConfigurationError(
        f"the output of a layer with an exit {shape}; it must be one tensor of 2 to 4 dimensions"
    )


class _AllDecided(Exception):
    """Ends a forward pass: every sample has left."""


class _Leaving:
    """The samples of one forward pass that have left.

    Args:
        threshold: Smallest confidence to leave with.
        only: Index of the one exit at which all samples leave, for counting.
    """

    def __init__(self, threshold: float, only: int | None = None) -> None:
        self._threshold = threshold
        self._only = only
        self._rows: torch.Tensor | None = None
        self._found: list[tuple[torch.Tensor, torch.Tensor, int]] = []
        self._passed: set[int] = set()

    @property
    def left(self) -> bool:
        """True if a sample has left."""
        return bool(self._found)

    @contextmanager
    def hooks(self, module: nn.Module, heads: ExitHeads) -> Iterator[None]:
        handles = []
        try:
            for place, (name, head) in enumerate(zip(heads.layers, heads.heads, strict=True)):
                handles.append(
                    find_layer(module, name).register_forward_hook(
                        lambda _, __, output, place=place, name=name, head=head: self._at(
                            place, name, head(pooled(output, heads.grid)), output
                        )
                    )
                )
            yield
        finally:
            for handle in handles:
                handle.remove()

    def prediction(self, last: Any, exits: int) -> ExitPrediction:
        """Return the predictions of all samples in their order."""
        found = list(self._found)
        if last is not None:
            rows = self._rows
            if rows is None:
                rows = torch.arange(len(last), device=last.device)
            if len(last) != len(rows):
                raise ConfigurationError(
                    f"the module returned {len(last)} rows for {len(rows)} samples after others "
                    "left early; put the exits where no skip connection leads past them"
                )
            found.append((rows, last, exits))
        rows = torch.cat([each[0] for each in found])
        order = rows.argsort()
        places = torch.cat([torch.full_like(each[0], each[2]) for each in found])
        return ExitPrediction(
            logits=torch.cat([each[1].to(found[0][1].dtype) for each in found])[order],
            exits=places[order],
        )

    def _at(self, place: int, name: str, logits: torch.Tensor, output: torch.Tensor) -> Any:
        """Let the confident samples leave, and return the rows of the others."""
        if place in self._passed:
            raise ConfigurationError(
                f"the layer {name!r} runs twice in a forward pass; choose one that runs once"
            )
        self._passed.add(place)
        if self._only is not None:
            if place == self._only:
                raise _AllDecided
            return None
        if self._rows is None:
            self._rows = torch.arange(len(logits), device=logits.device)
        if len(logits) != len(self._rows):
            raise ConfigurationError(
                f"the layer {name!r} has {len(logits)} rows for {len(self._rows)} samples; its "
                "first dimension must be the batch"
            )
        sure = logits.float().softmax(1).amax(1) >= self._threshold
        if not bool(sure.any()):
            return None
        self._found.append((self._rows[sure], logits[sure], place))
        if bool(sure.all()):
            raise _AllDecided
        self._rows = self._rows[~sure]
        return output[~sure]


@contextmanager
def _capture(module: nn.Module, layers: Sequence[str]) -> Iterator[dict[str, torch.Tensor]]:
    outputs: dict[str, torch.Tensor] = {}
    handles = []
    try:
        for name in layers:
            handles.append(
                find_layer(module, name).register_forward_hook(
                    lambda _, __, output, name=name: outputs.__setitem__(name, output)
                )
            )
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def find_layer(module: nn.Module, name: str) -> nn.Module:
    """Return a layer of a module by its name.

    Raises:
        ConfigurationError: If there is no such layer; the error lists the nearest names.

    Example:
        >>> find_layer(nn.Sequential(nn.ReLU()), "0")
        ReLU()
    """
    layers: dict[str, nn.Module] = {at: each for at, each in module.named_modules() if at}
    if name in layers:
        return layers[name]
    near = difflib.get_close_matches(str(name), layers, n=3, cutoff=0.4) or list(layers)[:3]
    raise ConfigurationError(
        f"{type(module).__name__} has no layer {name!r}; the nearest names are "
        f"{', '.join(map(repr, near))}"
    )
