"""Show messages once for all processes, each as one line that is safe for terminals."""

from __future__ import annotations

from lightning_utilities.core.rank_zero import rank_zero_info, rank_zero_warn

from greentrain.texts import one_line


def warn(message: str) -> None:
    """Warn on the main process; names, paths and errors in the message may be of any kind."""
    rank_zero_warn(one_line(message), stacklevel=5)


def inform(message: str) -> None:
    """Log a message on the main process."""
    rank_zero_info(one_line(message))
