"""Clocks of the benchmark's meter: processor time, and seconds by counted samples."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from pytorch_lightning import LightningModule

_BATCH_S = 1e-3
_SAMPLE_S = 1e-5
_WITH_GRADIENT = 3
"""A training step in forward passes: one forward, and a backward of twice the work."""


class ProcessorClock:
    """Processor time of this process, which other processes hardly affect.

    Args:
        clock: Returns seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.process_time) -> None:
        self._clock = clock
        self._stops: tuple[float, float | None] = (0.0, None)  # one value, so no thread sees half

    def __call__(self) -> float:
        stopped_s, stopped_at_s = self._stops
        return (self._clock() if stopped_at_s is None else stopped_at_s) - stopped_s

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Leave the processor time of a block out; all threads read the time at its start."""
        stopped_s, began_s = self._stops[0], self._clock()
        self._stops = (stopped_s, began_s)
        try:
            yield
        finally:
            self._stops = (stopped_s + self._clock() - began_s, None)


@contextmanager
def counted_clock() -> Iterator[ProcessorClock]:
    """Yield a clock that counts the forward passes of models, so that joules repeat exactly."""
    seconds = 0.0

    def count(module: torch.nn.Module, inputs: Any, output: Any) -> None:
        nonlocal seconds
        if isinstance(module, LightningModule):
            passes = _WITH_GRADIENT if torch.is_grad_enabled() else 1
            seconds += passes * (_BATCH_S + _SAMPLE_S * len(inputs[0]))

    handle = torch.nn.modules.module.register_module_forward_hook(count)
    try:
        yield ProcessorClock(lambda: seconds)
    finally:
        handle.remove()
