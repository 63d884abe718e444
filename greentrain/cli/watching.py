"""Show frames of a ledger one after the other, until Ctrl-C."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from greentrain.cli import console
from greentrain.errors import ConfigurationError, LedgerError

if TYPE_CHECKING:
    from rich.console import RenderableType

_LONGEST_S = 3600.0


def check_interval(interval: float) -> None:
    """Refuse an interval that cannot be waited for.

    Raises:
        ConfigurationError: If it is not above 0 and at most an hour.
    """
    if not (math.isfinite(interval) and 0 < interval <= _LONGEST_S):
        raise ConfigurationError(
            f"interval is {interval!r}; give the seconds between two frames, above 0 and at most "
            f"{_LONGEST_S:g}"
        )


def watch(frame: Callable[[], RenderableType], interval: float) -> None:
    """Show a frame after the other; one that cannot be read leaves the frame before it.

    Args:
        frame: Returns the present frame.
        interval: Seconds between two frames.
    """
    from rich.live import Live

    shown = frame()
    with Live(shown, console=console.open_console(), auto_refresh=False, screen=True) as live:
        live.refresh()
        try:
            while True:
                time.sleep(interval)
                shown, note = next_frame(frame, shown)
                live.update(shown if note is None else _below(note, shown), refresh=True)
        except KeyboardInterrupt:
            pass


def next_frame(
    frame: Callable[[], RenderableType], before: RenderableType
) -> tuple[RenderableType, str | None]:
    """Return the next frame, or the one before with a note if the ledger cannot be read.

    Args:
        frame: Returns the present frame.
        before: The frame before.
    """
    try:
        return frame(), None
    except (ConfigurationError, LedgerError) as error:
        return before, f"not up to date, tried again soon: {error}"


def _below(note: str, shown: RenderableType) -> RenderableType:
    from rich.console import Group

    return Group(console.plain_text(note), shown)
