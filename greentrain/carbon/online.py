"""Read intensities from online services: one client with time limits, retries and a memory."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, NamedTuple

from greentrain.carbon.hidden_keys import hide_keys
from greentrain.carbon.intensity import (
    Interval,
    Kind,
    Provenance,
    overlapping,
    utc_span,
    without_overlaps,
)
from greentrain.errors import ConfigurationError, IntensityError
from greentrain.texts import one_line
from greentrain.units import utc_now

_HOUR = timedelta(hours=1)
_NO_TIME = timedelta(0)
_TRIES = 3
_TIMEOUT_S = 5.0
_FIRST_WAIT_S = 0.5
_LONGEST_WAIT_S = 5.0
"""A service that wants a longer wait has failed, and the next provider of a chain is used."""
_RETRIED = (408, 425, 429, 500, 502, 503, 504)
_LONGEST_MESSAGE = 160
_MOST_ANSWERS = 256
CLOCKS_DIFFER = timedelta(minutes=10)
"""Age of ``as_of`` up to which it counts as now."""


class Answer(NamedTuple):
    """A service's answer.

    Args:
        content: The parsed JSON.
        sha256: SHA-256 of its bytes.
    """

    content: Any
    sha256: str


class RefusedKey(IntensityError):
    """A service that refuses a key."""


class Client:
    """Get JSON from a service, with time limits and retries.

    A failed connection, a late answer and the codes 408, 425, 429 and 5xx are tried again. The
    waits are 0.5 s and 1 s, or the ``Retry-After`` of the answer if that is up to 5 s.

    Args:
        name: Name of the service in errors.
        url: Beginning of its addresses.
        key_names: Environment variables of its keys; their values appear in no error.
        sleep: Waits some seconds.
        timeout_s: Most seconds to wait for a connection, and for each part of an answer.
    """

    def __init__(
        self,
        name: str,
        url: str,
        *,
        key_names: Sequence[str] = (),
        sleep: Callable[[float], None] = time.sleep,
        timeout_s: float = _TIMEOUT_S,
    ) -> None:
        self.name = name
        self.key_names = tuple(key_names)
        self._url = url.rstrip("/")
        self._sleep = sleep
        self._timeout_s = timeout_s

    def keys(self) -> list[str]:
        """Return the keys from the environment, by the order of their names.

        Raises:
            ConfigurationError: If one is missing.
        """
        for name in self.key_names:
            if not os.environ.get(name, "").strip():
                raise ConfigurationError(
                    f"{self.name} needs a key in the environment variable {name}; set it before "
                    "the process starts"
                )
        return [os.environ[name].strip() for name in self.key_names]

    def get(
        self,
        path: str,
        parameters: Mapping[str, str] | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        login: tuple[str, str] | None = None,
        secrets: Sequence[str] = (),
    ) -> Answer:
        """Return the answer to a request.

        Args:
            path: The path, beginning with a slash.
            parameters: Parameters of the address; no secrets, because logs show addresses.
            headers: Headers, such as one with a key.
            login: User and password of HTTP's basic login.
            secrets: Further texts that no error shows, such as a token.

        Raises:
            IntensityError: If there is no answer, or none in JSON.
            RefusedKey: If the key or the login is refused.
        """
        import httpx2

        hidden = (*self.keys(), *secrets, ":".join(login or ()))
        with httpx2.Client(
            timeout=self._timeout_s, follow_redirects=False, verify=_certificates()
        ) as client:
            for number in range(1, _TRIES + 1):
                wait_s = _FIRST_WAIT_S * 2 ** (number - 1)
                try:
                    answer = client.get(
                        self._url + path,
                        params=dict(parameters or {}),
                        headers=dict(headers or {}),
                        auth=login,
                    )
                except (httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError) as error:
                    if number == _TRIES or not isinstance(error, httpx2.TransportError):
                        reason = f"no answer ({type(error).__name__})"
                        raise IntensityError(self._sentence(reason)) from None
                else:
                    if answer.status_code == 200:
                        return self._parsed(answer.content)
                    wait_s = _wanted_wait_s(answer.headers.get("Retry-After"), wait_s)
                    if (
                        answer.status_code not in _RETRIED
                        or number == _TRIES
                        or wait_s > _LONGEST_WAIT_S
                    ):
                        raise self._failure(answer.status_code, answer.content, hidden)
                self._sleep(wait_s)
        raise AssertionError("unreachable")

    def malformed(self, reason: str) -> IntensityError:
        """Return the error of an answer with another form than the documented one."""
        return IntensityError(self._sentence(f"a malformed answer: {reason}"))

    def empty(self, what: str) -> IntensityError:
        """Return the error of an answer without values."""
        return IntensityError(self._sentence(f"no values for {what}"))

    def _sentence(self, reason: str) -> str:
        return f"{self.name} gave {reason}; the next request may succeed"

    def _parsed(self, content: bytes) -> Answer:
        try:
            return Answer(json.loads(content), hashlib.sha256(content).hexdigest())
        except (ValueError, RecursionError):
            raise self.malformed("it is no JSON") from None

    def _failure(self, code: int, content: bytes, hidden: Sequence[str]) -> IntensityError:
        said = hide_keys(_message(content), hidden)
        quoted = f": {one_line(said, _LONGEST_MESSAGE)}" if said else ""
        if code in (401, 403) and self.key_names:
            return RefusedKey(
                f"{self.name} refused the key in {' and '.join(self.key_names)} "
                f"({code}){quoted}; check the key and what its contract covers"
            )
        return IntensityError(self._sentence(f"the code {code}{quoted}"))


@cache
def _certificates() -> Any:
    """Return the trusted certificates, which take 50 ms to load."""
    import httpx2

    return httpx2.create_ssl_context()


def _wanted_wait_s(header: str | None, default_s: float) -> float:
    try:
        return max(default_s, float(header or 0.0))
    except ValueError:  # a date
        return _LONGEST_WAIT_S + 1.0


def _message(content: bytes) -> str:
    """Return the message of an error in the forms that services use; empty if there is none."""
    try:
        found: Any = json.loads(content)
    except (ValueError, RecursionError):
        return ""
    for _ in range(2):
        if isinstance(found, dict):
            found = found.get("message") or found.get("error") or found.get("detail") or ""
    return found if isinstance(found, str) else ""


class OnlineIntensity(ABC):
    """Intensities of an online service, remembered for a while.

    The same hours are requested at most every five minutes, so that a conversion at each step of a
    training costs one request. After a failure the next request is made a minute later.

    Args:
        client: The client of the service.
        provenance: Origin of its values.
        clock: Returns the present, an aware time.

    Attributes:
        refresh: Time after which the same request is made again.
        pause: Time without requests after a failure.
    """

    refresh = timedelta(minutes=5)
    pause = timedelta(minutes=1)

    def __init__(
        self, client: Client, provenance: Provenance, clock: Callable[[], datetime] = utc_now
    ) -> None:
        self._client = client
        self._provenance = provenance
        self._clock = clock
        self._lock = threading.RLock()
        self._answers: dict[tuple[str, datetime, datetime], tuple[datetime, list[Interval]]] = {}
        self._failed: tuple[datetime, IntensityError] | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._provenance.zone!r})"

    def __eq__(self, other: object) -> bool:
        """Return whether both read the same values from the same service."""
        return type(self) is type(other) and (self._provenance == other._provenance)

    def __hash__(self) -> int:
        return hash((type(self), self._provenance))

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.RLock()

    def check(self) -> None:
        """Raise a :class:`ConfigurationError` if a key is not set."""
        self._client.keys()

    @property
    def provenance(self) -> Provenance:
        """Origin of the values."""
        return self._provenance

    def history(self, start: datetime, end: datetime) -> Sequence[Interval]:
        """Return the published intervals that overlap ``[start, end)``.

        Raises:
            IntensityError: If the service gives none.
            ConfigurationError: If a time is naive, or a key is missing.
        """
        start, end = utc_span(start, end)
        first, last = _whole_hours(start, min(max(start, end), self._clock() + _HOUR))
        if last <= first:
            return []
        found = self._remembered("history", first, last, self._read_history)
        return overlapping(found, start, end)

    def forecast(self, as_of: datetime, horizon: timedelta) -> Sequence[Interval]:
        """Return the forecast that was published at ``as_of``.

        Raises:
            IntensityError: If the service gives none.
            ConfigurationError: If ``as_of`` is naive, or a key is missing.
        """
        start, end = utc_span(as_of, as_of + horizon, "a forecast")
        first, last = _whole_hours(start, end)
        if start < self._clock() - CLOCKS_DIFFER:
            found = self._remembered("past forecast", start, last, self._read_past_forecast)
        else:
            found = self._remembered("forecast", first, last, self._read_forecast)
        return overlapping(found, start, end)

    def _remembered(
        self,
        what: str,
        start: datetime,
        end: datetime,
        read: Callable[[datetime, datetime], list[Interval]],
    ) -> list[Interval]:
        with self._lock:
            now = self._clock()
            kept = self._answers.get((what, start, end))
            # A clock that was set back makes an age negative.
            if kept is not None and _NO_TIME <= now - kept[0] < self.refresh:
                return kept[1]
            if self._failed is not None and _NO_TIME <= now - self._failed[0] < self.pause:
                raise self._failed[1].with_traceback(None)  # it is raised at each step
            try:
                found = without_overlaps(read(start, end))
            except ConfigurationError:
                raise
            except (IntensityError, ValueError, OverflowError, RecursionError) as error:
                reason = one_line(str(error), 60)  # such as that of a time of the year 1
                malformed = self._client.malformed(reason)
                failure = error if isinstance(error, IntensityError) else malformed
                self._failed = now, failure
                raise failure from None
            self._failed = None
            if len(self._answers) >= _MOST_ANSWERS:
                self._answers.clear()
            self._answers[what, start, end] = now, found
            return found

    @abstractmethod
    def _read_history(self, start: datetime, end: datetime) -> list[Interval]:
        """Request the values of whole hours."""

    @abstractmethod
    def _read_forecast(self, start: datetime, end: datetime) -> list[Interval]:
        """Request the present forecast of whole hours."""

    def _read_past_forecast(self, as_of: datetime, end: datetime) -> list[Interval]:
        """Request the forecast that was published at a past time."""
        raise IntensityError(
            f"{self._client.name} keeps no past forecasts; use CachedIntensity, which stores each"
        )

    def _interval(
        self,
        start: datetime,
        end: datetime,
        value: object,
        kind: Kind,
        sha256: str,
        issued_utc: str | None = None,
    ) -> Interval:
        """Return a value with its origin.

        Raises:
            IntensityError: If the value is no intensity.
        """
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._client.malformed(f"an intensity is {one_line(repr(value), 40)}")
        origin = replace(self._provenance, kind=kind, sha256=sha256, issued_utc=issued_utc)
        try:
            return Interval(start=start, end=end, g_per_kwh=float(value), provenance=origin)
        except ConfigurationError as error:
            raise self._client.malformed(str(error)) from None

    def _moment(self, text: object) -> datetime:
        """Return a time of an answer; one without a zone is in UTC.

        Raises:
            IntensityError: If it is no time.
        """
        try:
            moment = datetime.fromisoformat(str(text))
        except ValueError:
            raise self._client.malformed(f"a time is {one_line(repr(text), 40)}") from None
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)

    def _rows(self, content: Any, *names: str) -> list[dict[str, Any]]:
        """Return the list of rows under one of some names.

        Raises:
            IntensityError: If there is none, or it is empty.
        """
        held = content if isinstance(content, dict) else {}
        found = next((held[name] for name in names if name in held), None)
        if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
            raise self._client.malformed(f"it has no list {names[0]!r} of rows")
        if not found:
            raise self._client.empty(self._provenance.zone)
        return found


def _whole_hours(start: datetime, end: datetime) -> tuple[datetime, datetime]:
    first = start.replace(minute=0, second=0, microsecond=0)
    last = end.replace(minute=0, second=0, microsecond=0)
    return first, last if last == end and last > first else last + _HOUR
