"""Supply a run's thread with rows about the sources and the open phases."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from greentrain.ledger.events import (
    EmissionsLike,
    Row,
    SourceLike,
    WindowLike,
    source_content,
    window_content,
)
from greentrain.ledger.hashing import canonical
from greentrain.texts import get_logger

_log = get_logger(__name__)

SHARE = "share"
"""Topic of an event with the estimate of this job's share of a source."""


class Heartbeat:
    """A supplier of rows for sources and open phases that changed since the last call.

    Args:
        run_id: The run.
        sources: Function that returns the meter's sources; it may wait until they are known.
        beat: Function that returns the open phases as windows that end now.
        emissions: Function that returns the grams of such a window.
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
        self._shares: dict[str, Any] = {}
        self._last: dict[tuple[str, str], dict[str, Any]] = {}
        self._undescribed = False
        self._warned = False

    def sources(self) -> list[Row]:
        """Return rows of the sources that are new or changed."""
        rows: list[Row] = []
        for source in self._sources():
            content = source_content(self._run_id, source)
            if self._described.get(source.name) != content:
                self._described[source.name] = content
                rows.append(("source", content))
            share = getattr(source, "job_share", None)
            if share is not None and self._shares.get(source.name) != share:
                self._shares[source.name] = share
                event = {"source": source.name, **share.as_dict()}
                content = {"topic": SHARE, "experience_id": None, "content": canonical(event)}
                rows.append(("event", {"run_id": self._run_id, **content}))
        return rows

    def heartbeats(self) -> list[Row]:
        """Return rows of the open phases that changed since the last call."""
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
        """Return rows of the sources if the last heartbeats name one that has no row yet."""
        return self.sources() if self._undescribed else []

    def _grams(self, window: WindowLike) -> EmissionsLike | None:
        if self._emissions is None:
            return None
        try:
            return self._emissions(window)
        except Exception as error:  # joules are recorded without grams
            if not self._warned:
                self._warned = True
                _log.warning("the emissions of a heartbeat are unknown: %s", error)
            return None
