"""A buffer of several generators, which are merged like the digits of a binary counter."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from greentrain.memory.generative import GenerativeBuffer


class LogarithmicBuffer(GenerativeBuffer):
    """Learn several generators, so that a sample is generated again a logarithm of times: LogCL.

    Masarczyk et al. 2022. In deep generative replay, each experience makes the generator learn its
    own samples of all earlier ones again, and they get worse each time. Here the generators are the
    digits of a binary counter. The ``n``-th experience gets a new generator. For each time that
    ``n`` divides by 2, it also replaces one generator: those of the last 1, 2, 4, ... experiences.
    So after ``n`` experiences there are as many generators as ``n`` has binary ones, and each
    sample was generated again at most ``log2(n)`` times.

    Args:
        max_size: Most samples that :meth:`select` returns.
        options: Those of :class:`LearnedBuffer`; each generator has its ``hidden`` units.

    Attributes:
        regenerated: How often the samples of each experience were generated to be learned again.

    Raises:
        ConfigurationError: If an argument is out of range.

    Example:
        >>> import torch
        >>> from torch.utils.data import TensorDataset
        >>> buffer = LogarithmicBuffer(100, classes=2, steps=2, hidden=8, latent=2)
        >>> for name in "abcdefg":
        ...     buffer.add(TensorDataset(torch.rand(9, 4), torch.arange(9) % 2), origin=name)
        >>> buffer.regenerated, buffer.generators  # of 4, 2 and 1 experiences
        ([2, 1, 1, 0, 1, 0, 0], 3)
    """

    def __init__(self, max_size: int, **options: Any) -> None:
        super().__init__(max_size, **options)
        self.regenerated: list[int] = []

    @property
    def generators(self) -> int:
        """Number of generators."""
        return len(self._models)

    def _merged(self) -> int:
        number = self.experiences + 1
        return (number & -number).bit_length() - 1  # how often it divides by 2

    def _train(self, inputs: Tensor, labels: Tensor, origin: str) -> None:
        super()._train(inputs, labels, origin)
        again = self._held[-1] - 1
        early = len(self.regenerated) - again
        self.regenerated[early:] = [times + 1 for times in self.regenerated[early:]]
        self.regenerated.append(0)

    def state_dict(self) -> dict[str, Any]:
        """Return the generators, and what is counted."""
        return {**super().state_dict(), "regenerated": list(self.regenerated)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the result of :meth:`state_dict` of a buffer with the same arguments.

        Raises:
            ConfigurationError: If it is of another buffer, or of one with networks of another size.
        """
        super().load_state_dict(state)
        self.regenerated = list(state["regenerated"])
