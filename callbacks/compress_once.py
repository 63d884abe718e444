"""Compress a module once, at the start of a fit that repairs it."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from greentrain.callbacks.base import Callback
from greentrain.errors import ConfigurationError
from greentrain.methods import count_operations
from greentrain.texts import get_logger, one_line

Change = Callable[[nn.Module], Any]
Test = Callable[[Any, Any], bool]
_log = get_logger(__name__)


class CompressOnce(Callback):
    """Compress a trained module in the first fit, and keep the result only if a test accepts it.

    Before the optimizer is made, the module is changed in place. The fit trains the smaller module,
    so an :class:`EnergyMonitor` measures its joules per step. At the end of the fit, the test
    compares the module before the change with the repaired one. If it refuses, the module gets its
    earlier layers and weights back, and the fit was in vain. Later fits change nothing.

    Args:
        change: Changes a module in place, such as ``lambda net: prune_channels(net, share=0.3)``.
        accept: Returns whether the second module may replace the first, such as
            ``greentrain.evaluation.acceptance.NotWorse(val, monitor="val_acc")``, which is the test
            of updates.
        example: A batch of inputs, with which operations are counted. The module's
            ``example_input_array`` unless given.

    Attributes:
        accepted: Whether the test accepted the smaller module; ``None`` before.
        operations: Operations of a forward pass of the example before and after the change.

    Raises:
        ConfigurationError: If an argument cannot be used. At the start of a fit, if there is no
            example, the fit has several processes, or the changed module does not run.

    Example:
        >>> from greentrain.methods import low_rank
        >>> once = CompressOnce(low_rank, accept=lambda before, after: True)
        >>> once.accepted is None
        True
    """

    def __init__(self, change: Change, *, accept: Test, example: Any = None) -> None:
        for name, value in {"change": change, "accept": accept}.items():
            if not callable(value):
                raise ConfigurationError(f"{name} is {value!r}; it must be a function")
        self.change, self.accept = change, accept
        self.accepted: bool | None = None
        self.operations: tuple[int, int] | None = None
        self._example = example
        self._before: Any = None

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Change the module, if this is the first fit."""
        if stage != "fit" or self.accepted is not None:
            return
        if trainer.world_size > 1:
            raise ConfigurationError(
                f"the fit has {trainer.world_size} processes, and CompressOnce changes the module "
                "of one; give devices=1, or compress the module before the fit"
            )
        example = self._example
        if example is None:
            example = getattr(pl_module, "example_input_array", None)
        if example is None:
            raise ConfigurationError(
                "operations cannot be counted without an input; give example=, or set "
                "example_input_array in the module"
            )
        if isinstance(example, torch.Tensor):
            example = example.to(pl_module.device)
        self._before = _copied(pl_module)
        try:
            before = count_operations(pl_module, example)
            self.change(pl_module)
            after = count_operations(pl_module, example)
        except Exception as error:
            self._put_back(pl_module)
            raise ConfigurationError(
                f"the module could not be compressed ({one_line(error, 200)}); it is as before. "
                "Choose another change, or leave CompressOnce out"
            ) from error
        self.operations = (before, after)

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """Keep the smaller module, or put back the earlier one."""
        if self._before is None:
            return
        finite = all(math.isfinite(float(each.detach().sum())) for each in pl_module.parameters())
        self.accepted = finite and bool(self.accept(self._before, pl_module))
        before, after = self.operations or (0, 0)
        share = f"{100 * after / before:.0f} % of the operations" if before else "no operations"
        if self.accepted:
            _log.info("the compressed module is kept: it has %s", share)
            self._before = None
        else:
            _log.info("the compressed module with %s is refused: it is worse", share)
            self._put_back(pl_module)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Put back the earlier module, which was not compared."""
        self._close(pl_module)

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Put back the earlier module, if it was not compared."""
        self._close(pl_module)

    def state_dict(self) -> dict[str, Any]:
        """Return whether the module was compressed already, for a checkpoint."""
        return {"accepted": self.accepted}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore from a checkpoint."""
        self.accepted = state_dict["accepted"]

    def _close(self, module: Any) -> None:
        if self._before is not None:
            self._put_back(module)

    def _put_back(self, module: Any) -> None:
        """Give a module the layers and weights of its copy."""
        copied, self._before = self._before, None
        for name in ("_modules", "_parameters", "_buffers"):
            own = getattr(module, name)
            own.clear()
            own.update(getattr(copied, name))


def _copied(module: Any) -> Any:
    """Return a copy of a module without its Trainer."""
    trainer = getattr(module, "_trainer", None)
    return copy.deepcopy(module, {id(trainer): None})
