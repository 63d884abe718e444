"""Count the floating-point operations of one step of a fit, with the formulas of torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

from greentrain.callbacks.base import Callback
from greentrain.texts import get_logger

_log = get_logger(__name__)

NO_STEP = "no step of the update was finished in this process"
NOTHING_COUNTED = "no operation of the step has a formula in torch.utils.flop_counter"
COMPILED = "the model is compiled, and counting would run one step without the compilation"

_WITHOUT_FORMULA = frozenset(
    {
        *("mkldnn_rnn_layer", "mkldnn_rnn_layer_backward", "miopen_rnn", "miopen_rnn_backward"),
        *("_cudnn_rnn", "_cudnn_rnn_backward", "mkldnn_linear", "_int_mm"),
        *("_grouped_mm", "_scaled_grouped_mm", "_weight_int4pack_mm", "_weight_int8pack_mm"),
    }
)
"""Operations of ATen that multiply matrices, and that torch does not count."""
_PLAIN = frozenset({"aten", "prim", "prims", "profiler", "c10d", "_c10d_functional"})
"""Namespaces whose other operations are elementwise, or move data."""
_METADATA = frozenset(
    {
        *("is_contiguous", "sym_is_contiguous", "is_strides_like_format", "layout", "dim"),
        *("is_non_overlapping_and_dense", "size", "sym_size", "stride", "sym_stride"),
        *("storage_offset", "sym_storage_offset", "numel", "sym_numel"),
    }
)


class StepFlops(Callback):
    """Count the operations of the first batches of a fit: forward, backward and optimizer.

    A batch is trained as any other: it is neither repeated nor copied. No module and no tensor
    gets a hook, and no random number is used. What fails here is a reason in :attr:`note`.

    Args:
        batches: Number of batches to count.

    Attributes:
        flops: Operations of the last of them, on one rank; ``None`` if they could not be counted.
        each: Operations of each of them that could be counted.
        note: The reason for ``None``.
    """

    def __init__(self, batches: int = 1) -> None:
        self.flops: int | None = None
        self.each: list[int] = []
        self.note: str | None = NO_STEP
        self._ranks = 1
        self._left = batches
        self._mode: _Counter | None = None

    def columns(self, steps: int) -> dict[str, Any]:
        """Return the columns of an outcome: the operations of all ranks in so many batches."""
        if not steps:
            return {"flops": 0.0, "flops_note": None}
        flops = None if self.flops is None else float(self.flops) * steps * self._ranks
        return {"flops": flops, "flops_note": self.note}

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        """Begin to count a batch."""
        if not self._left:
            return
        self._left -= 1
        self._ranks = trainer.world_size
        if is_compiled(pl_module):
            self.note = COMPILED
            return
        self._mode = _Counter()
        self._mode.__enter__()  # type: ignore[no-untyped-call]

    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """End counting after a batch."""
        mode = self._stop()
        if mode is not None:
            self.flops, self.note = mode.result()
            self.each += [] if self.flops is None else [self.flops]
            if self.note is not None:
                _log.info("the operations of an update are not counted: %s", self.note)

    def on_exception(self, *args: Any, **kwargs: Any) -> None:
        """End counting of a batch that failed."""
        self._stop()

    def teardown(self, *args: Any, **kwargs: Any) -> None:
        """End counting of a batch that never ended."""
        self._stop()

    def _stop(self) -> _Counter | None:
        mode, self._mode = self._mode, None
        if mode is not None:
            mode.__exit__(None, None, None)  # type: ignore[no-untyped-call]
        return mode


def is_compiled(module: nn.Module) -> bool:
    """Return whether a module, or a part of it, was compiled by torch.

    Example:
        >>> is_compiled(nn.Linear(2, 1))
        False
    """
    return getattr(module, "_compiler_ctx", None) is not None or any(
        hasattr(each, "_orig_mod")
        or getattr(each, "_compiled_call_impl", None) is not None
        or isinstance(each, torch.jit.ScriptModule)
        for each in module.modules()
    )


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Add up the operations of everything that is called, and pass each call on unchanged."""

    supports_higher_order_operators = True

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._flops = 0
        self._missed: str | None = None

    def result(self) -> tuple[int | None, str | None]:
        """Return the number of operations, or the reason why it is unknown."""
        if self._missed is not None:
            return None, self._missed
        return (self._flops, None) if self._flops else (None, NOTHING_COUNTED)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name = getattr(getattr(func, "_overloadpacket", func), "__name__", "")
        if name in _METADATA:
            return NotImplemented
        out = func(*args, **(kwargs or {}))
        try:
            self._add(func, name, args, kwargs or {}, out)
        except Exception as error:  # a formula may not fit the arguments; training goes on
            self._missed = self._missed or f"the formula of {name} failed: {error}"
        return out

    def _add(self, func: Any, name: str, args: Any, kwargs: Mapping[str, Any], out: Any) -> None:
        packet = getattr(func, "_overloadpacket", func)
        if packet in flop_registry:
            self._flops += flop_registry[packet](*args, **kwargs, out_val=out)
        elif name in _ATTENTION:
            self._flops += _ATTENTION[name](*args)
        elif name in _WITHOUT_FORMULA or getattr(func, "namespace", "") not in _PLAIN:
            self._missed = self._missed or f"torch.utils.flop_counter has no formula for {func}"


def _attention(query: Any, key: Any, value: Any, *others: Any) -> int:
    shapes = (query.shape, key.shape, value.shape)
    return int(sdpa_flop_count(*shapes))  # type: ignore[no-untyped-call]


def _attention_backward(gradient: Any, query: Any, key: Any, value: Any, *others: Any) -> int:
    shapes = (gradient.shape, query.shape, key.shape, value.shape)
    return int(sdpa_backward_flop_count(*shapes))  # type: ignore[no-untyped-call]


_ATTENTION: Mapping[str, Callable[..., int]] = {
    "_scaled_dot_product_flash_attention_for_cpu": _attention,
    "_scaled_dot_product_flash_attention_for_cpu_backward": _attention_backward,
}
"""The attention of CPUs, which torch counts on GPUs only."""
