"""How many samples a look may draw energy for, and which of the logged names is the loss."""

from __future__ import annotations

import math
from collections.abc import Iterable

LOOK_SHARE = 0.01
"""Share of what is left per experience that a look may draw."""


def probe_size(*, budget_j: float, sample_j: float, floor: int = 32, cap: int = 512) -> int:
    """Return how many samples a look may use, so that it draws 1 % of what is left at most.

    Args:
        budget_j: Joules left for each experience to come.
        sample_j: Joules that looking at one sample draws.
        floor: Samples below which a look says too little to be worth anything.
        cap: Samples beyond which it says hardly more.

    Returns:
        Samples, from ``floor`` to ``cap``, or 0 for no look at all: where not even ``floor``
        samples can be had for it, or one of the two is not known, negative or NaN.

    Example:
        >>> probe_size(budget_j=1000.0, sample_j=0.1)  # 10 J at 0.1 J
        100
        >>> probe_size(budget_j=100.0, sample_j=0.1)
        0
        >>> probe_size(budget_j=1e6, sample_j=0.1)
        512
    """
    if not (budget_j > 0 and 0 <= sample_j < math.inf):
        return 0
    if LOOK_SHARE * budget_j >= cap * sample_j:
        return cap
    samples = math.floor(LOOK_SHARE * budget_j / sample_j)
    return samples if samples >= floor else 0


def loss_name(logged: Iterable[str], monitor: str) -> str | None:
    """Return which of the names that a model logged in validation is its loss.

    Args:
        logged: The names, such as those of ``trainer.callback_metrics``.
        monitor: Name of the metric that the model is judged by.

    Returns:
        ``"val_loss"`` if there is one; else ``monitor`` if "loss" is in it; else of the names with
        "loss" in them one that begins with "val", and of several the shortest, which parts of a
        loss (``val_loss_box``) seldom are. ``None`` if there is none.

    Example:
        >>> loss_name(["val_acc", "val/loss_box", "val/loss"], "val_acc")
        'val/loss'
        >>> loss_name(["val_acc"], "val_acc") is None
        True
    """
    return min(
        (name for name in logged if "loss" in name.lower()),
        key=lambda name: (
            name != "val_loss",
            name != monitor,
            not name.lower().startswith("val"),
            len(name),
            name,
        ),
        default=None,
    )
