"""Store every online answer, so that grams and plans can be recomputed offline."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from os import PathLike
from pathlib import Path
from typing import Any

from greentrain.carbon.intensity import (
    IntensityProvider,
    Interval,
    Provenance,
    check_provider,
    gaps,
    overlapping,
    utc_span,
)
from greentrain.carbon.online import CLOCKS_DIFFER
from greentrain.errors import ConfigurationError, IntensityError
from greentrain.texts import get_logger
from greentrain.units import utc_now

_logger = get_logger(__name__)
_FINAL = ("measured", None)
"""Kinds of values that are not replaced by later ones."""


@dataclass(frozen=True, slots=True)
class _Stored:
    kind: str
    retrieved: datetime
    intervals: tuple[Interval, ...]


class CachedIntensity:
    """A provider whose answers are stored in a folder, and read from there where possible.

    Each source and zone has a file of JSON lines: time of the request, values with bounds, and
    provenance. Measured values that are stored are not requested again. If the provider fails, the
    stored values are used. A forecast of a past time is the last one that was stored by then.

    Args:
        provider: The provider, or its name as of :func:`named_intensity`.
        folder: Folder of the files; it is created.
        offline: Whether to make no request at all.
        clock: Returns the present, an aware time.

    Raises:
        ConfigurationError: If the folder cannot be used.

    Example:
        >>> import tempfile
        >>> from greentrain.carbon import StaticIntensity
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     cached = CachedIntensity(StaticIntensity("FR"), folder)
        >>> cached.provenance.zone
        'FR'
    """

    def __init__(
        self,
        provider: IntensityProvider | str,
        folder: str | PathLike[str],
        *,
        offline: bool = False,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        from greentrain.carbon.named import named_intensity

        self._provider = named_intensity(provider) if isinstance(provider, str) else provider
        self._offline = offline
        self._clock = clock
        self._lock = threading.RLock()
        about = self._provider.provenance
        name = re.sub(r"\W+", "-", f"{about.source}-{about.zone}-{about.basis}").strip("-").lower()
        self.path = Path(folder) / f"{name}.jsonl"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(
                f"the folder {str(folder)!r} of intensities cannot be used: {error.strerror}"
            ) from None
        self._stored = list(self._load())

    def __eq__(self, other: object) -> bool:
        """Return whether both store the answers of equal providers."""
        return isinstance(other, CachedIntensity) and self._provider == other._provider

    def __hash__(self) -> int:
        return hash(self._provider)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.RLock()

    def check(self) -> None:
        """Raise a :class:`ConfigurationError` if the provider needs a key that is not set."""
        if not self._offline:
            check_provider(self._provider)

    @property
    def provenance(self) -> Provenance:
        """Origin of the provider's values."""
        return self._provider.provenance

    def history(self, start: datetime, end: datetime) -> Sequence[Interval]:
        """Return the known intervals that overlap ``[start, end)``, by time.

        Raises:
            IntensityError: If the provider fails and no value of this time is stored.
        """
        start, end = utc_span(start, end)
        with self._lock:
            held = self._held(start, end)
            left = gaps([one for one in held if _is_final(one)], start, end)
            if self._offline or (not left and start < end):
                return held
            try:
                found = self._provider.history(
                    *((left[0][0], left[-1][1]) if left else (start, end))
                )
            except (IntensityError, ConfigurationError):
                if held:
                    return held
                raise
            self._append("history", found)
            return self._held(start, end)

    def forecast(self, as_of: datetime, horizon: timedelta) -> Sequence[Interval]:
        """Return the forecast that was known at ``as_of``, by time.

        Raises:
            IntensityError: If the provider fails and no forecast is stored.
        """
        start, end = utc_span(as_of, as_of + horizon, "a forecast")
        with self._lock:
            past = start < self._clock() - CLOCKS_DIFFER
            if not self._offline and not (past and self._last(start)):
                try:
                    found = self._provider.forecast(start, horizon)
                except (IntensityError, ConfigurationError):
                    if not self._last(start):
                        raise
                else:
                    if past:  # as the provider has it; its time of request is not that of its issue
                        return found
                    self._append("forecast", found)
            last = self._last(start)
            return overlapping(last.intervals, start, end) if last else []

    def _last(self, as_of: datetime) -> _Stored | None:
        limit = as_of + CLOCKS_DIFFER if as_of >= self._clock() - CLOCKS_DIFFER else as_of
        known = [one for one in self._stored if one.kind == "forecast" and one.retrieved <= limit]
        return known[-1] if known else None

    def _held(self, start: datetime, end: datetime) -> list[Interval]:
        """Return the stored values of a time, the measured and the latest ones first."""
        found: list[Interval] = []
        histories = [one for one in self._stored if one.kind == "history"]
        for final in (True, False):
            for stored in reversed(histories):
                for one in overlapping(stored.intervals, start, end):
                    if _is_final(one) is final and not overlapping(found, one.start, one.end):
                        found.append(one)
        return sorted(found, key=lambda one: one.start)

    def _append(self, kind: str, intervals: Sequence[Interval]) -> None:
        stored = _Stored(kind, self._clock(), tuple(intervals))
        if not intervals or (
            self._stored
            and (self._stored[-1].kind, self._stored[-1].intervals) == (kind, stored.intervals)
        ):
            return
        self._stored.append(stored)
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(_line(stored, self.provenance) + "\n")
        except OSError as error:
            _logger.warning("an intensity is not stored in %s: %s", self.path, error.strerror)

    def _load(self) -> Iterator[_Stored]:
        if not self.path.exists():
            return
        for number, line in enumerate(self.path.read_text(encoding="utf-8").splitlines(), 1):
            try:
                yield _parsed(line)
            except (ValueError, KeyError, TypeError):  # such as a line that a kill cut off
                _logger.warning("line %d of %s is damaged and left out", number, self.path)


def _is_final(one: Interval) -> bool:
    return one.provenance is None or one.provenance.kind in _FINAL


def _line(stored: _Stored, default: Provenance) -> str:
    origins = list(dict.fromkeys(one.provenance or default for one in stored.intervals))
    content = {
        "kind": stored.kind,
        "retrieved_utc": stored.retrieved.isoformat(),
        "provenance": [one.as_dict() for one in origins],
        "values": [
            [
                one.start.isoformat(),
                one.end.isoformat(),
                one.g_per_kwh,
                one.low_g_per_kwh,
                one.high_g_per_kwh,
                origins.index(one.provenance or default),
            ]
            for one in stored.intervals
        ],
    }
    text = json.dumps(content, sort_keys=True)
    return json.dumps({"sha256": hashlib.sha256(text.encode()).hexdigest(), **content})


def _parsed(line: str) -> _Stored:
    content = json.loads(line)
    digest = content.pop("sha256")
    if hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest() != digest:
        raise ValueError("another digest")
    origins = [Provenance(**one) for one in content["provenance"]]
    intervals = tuple(
        Interval(
            start=datetime.fromisoformat(start),
            end=datetime.fromisoformat(end),
            g_per_kwh=value,
            low_g_per_kwh=low,
            high_g_per_kwh=high,
            provenance=origins[origin],
        )
        for start, end, value, low, high, origin in content["values"]
    )
    return _Stored(content["kind"], datetime.fromisoformat(content["retrieved_utc"]), intervals)
