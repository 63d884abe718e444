"""What a run's own thread asks for: the sources, and the phases that are open."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

from greentrain.ledger.rows import (
    EmissionsLike,
    Row,
    SourceLike,
    WindowLike,
    source_content,
    window_content,
)

_log = logging.getLogger(__name__)


class Heartbeat:
    """Ask for sources and open phases, and give the rows of what is new about them.

    Args:
        run_id: The run.
        sources: Gives the meter's sources; may wait until they are known.
        beat: Gives the phases that are open as windows that end now.
        emissions: Works out the grams of such a window.
    """

    def __init__(
        self,
        run_id: str,
        *,
        sources: Callable[[], Iterable[SourceLike]],
        beat: Callable[[], Iterable[WindowLike]],
        emissions: Callable[[WindowLike], EmissionsLike] | None = None,
    ) -> None:
        self._run_id = run_id
        self._sources = sources
        self._beat = beat
        self._emissions = emissions
        self._described: dict[str, dict[str, Any]] = {}
        self._last: dict[tuple[str, str], dict[str, Any]] = {}
        self._undescribed = False
        self._warned = False

    def sources(self) -> list[Row]:
        """Return the sources that are new, or of which anything changed."""
        rows: list[Row] = []
        for source in self._sources():
            content = source_content(self._run_id, source)
            if self._described.get(source.name) != content:
                self._described[source.name] = content
                rows.append(("source", content))
        return rows

    def heartbeats(self) -> list[Row]:
        """Return the open phases of which anything changed since they were last asked for."""
        rows: list[Row] = []
        beaten: dict[tuple[str, str], dict[str, Any]] = {}
        names: set[str] = set()
        for window in self._beat():
            names.update(window.reading.energy_j)
            content = window_content(self._run_id, window, self._grams(window))
            key = (content["phase"], content["started_utc"])
            beaten[key] = content
            if self._last.get(key) != content:
                rows.append(("heartbeat", content))
        self._last = beaten
        self._undescribed = not names <= self._described.keys()
        return rows

    def late_sources(self) -> list[Row]:
        """Return the sources again if the last heartbeats name one that is not described yet."""
        return self.sources() if self._undescribed else []

    def _grams(self, window: WindowLike) -> EmissionsLike | None:
        if self._emissions is None:
            return None
        try:
            return self._emissions(window)
        except Exception as error:  # joules are not lost for want of grams
            if not self._warned:
                self._warned = True
                _log.warning("the grams of a heartbeat are unknown: %s", error)
            return None
