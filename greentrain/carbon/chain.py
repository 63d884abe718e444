"""Use another provider where the first one gives nothing, visibly."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from greentrain.carbon.intensity import (
    IntensityProvider,
    Interval,
    Provenance,
    gaps,
    utc_span,
)
from greentrain.errors import ConfigurationError, IntensityError
from greentrain.texts import get_logger

_logger = get_logger(__name__)


class FallbackChain:
    """Providers in order: each gives the times that none before it gave.

    A value of a later provider says in its provenance which source it is a fallback for, and the
    first use of it is logged as a warning. Nothing else is a fallback: without a value from any
    provider, the intensity is unknown.

    Args:
        providers: Two or more providers, or their names as of :func:`named_intensity`, such as
            ``["electricitymaps:DE", "static:DE"]``.

    Raises:
        ConfigurationError: If there are fewer than two, or average and marginal ones are mixed.

    Example:
        >>> chain = FallbackChain(["static:DE", "static:FR"])
        >>> chain.provenance.zone
        'DE'
    """

    def __init__(self, providers: Sequence[IntensityProvider | str]) -> None:
        from greentrain.carbon.named import named_intensity

        if isinstance(providers, str) or len(providers) < 2:
            raise ConfigurationError(
                f"providers is {providers!r}; a chain needs a list of two or more"
            )
        self._providers = [
            named_intensity(one) if isinstance(one, str) else one for one in providers
        ]
        signals = {one.provenance.signal for one in self._providers}
        if len(signals) > 1:
            listed = ", ".join(
                f"{one.provenance.source} is {one.provenance.signal}" for one in self._providers
            )
            raise ConfigurationError(
                f"a chain mixes average and marginal intensities ({listed}); they are different "
                "quantities, so use one kind"
            )
        self._warned: set[str] = set()

    def __eq__(self, other: object) -> bool:
        """Return whether both have equal providers in the same order."""
        return isinstance(other, FallbackChain) and self._providers == other._providers

    def __hash__(self) -> int:
        return hash(tuple(one.provenance for one in self._providers))

    @property
    def provenance(self) -> Provenance:
        """Origin of the values of the first provider."""
        return self._providers[0].provenance

    def history(self, start: datetime, end: datetime) -> Sequence[Interval]:
        """Return the known intervals that overlap ``[start, end)``, by time.

        Raises:
            IntensityError: If each provider failed.
        """
        start, end = utc_span(start, end)
        return self._collect(start, end, lambda one, since, until: one.history(since, until))

    def forecast(self, as_of: datetime, horizon: timedelta) -> Sequence[Interval]:
        """Return the forecast that was known at ``as_of``, by time.

        Raises:
            IntensityError: If each provider failed.
        """
        start, end = utc_span(as_of, as_of + horizon, "a forecast")
        return self._collect(start, end, lambda one, since, until: one.forecast(start, horizon))

    def _collect(
        self,
        start: datetime,
        end: datetime,
        read: Callable[[IntensityProvider, datetime, datetime], Sequence[Interval]],
    ) -> list[Interval]:
        found: list[Interval] = []
        failures: list[str] = []
        if end <= start:  # a single moment
            end = start + timedelta(microseconds=1)
        for number, provider in enumerate(self._providers):
            left = gaps(found, start, end)
            if not left:
                break
            try:
                given = read(provider, left[0][0], left[-1][1])
            except IntensityError as error:
                failures.append(str(error))
                continue
            except ConfigurationError as error:  # such as a key that is not set
                if number == len(self._providers) - 1:
                    raise
                failures.append(str(error))
                continue
            found += self._filling(given, left, number, failures)
        if len(failures) == len(self._providers):
            raise IntensityError(f"no provider of the chain gave an intensity: {failures[0]}")
        return sorted(found, key=lambda one: one.start)

    def _filling(
        self,
        given: Sequence[Interval],
        left: Sequence[tuple[datetime, datetime]],
        number: int,
        failures: Sequence[str],
    ) -> list[Interval]:
        """Return the parts of intervals that lie in gaps, marked as a fallback's."""
        own = self._providers[number].provenance
        found = []
        for since, until in left:
            for one in given:
                start, end = max(since, one.start), min(until, one.end)
                if start >= end:
                    continue
                if number == 0:
                    start, end, origin = one.start, one.end, one.provenance
                else:
                    first = self.provenance
                    origin = replace(
                        one.provenance or own, fallback_of=f"{first.source}, {first.zone}"
                    )
                found.append(replace(one, start=start, end=end, provenance=origin))
        if number and found:
            self._warn(own, failures)
        return found

    def _warn(self, used: Provenance, failures: Sequence[str]) -> None:
        key = f"{used.source}, {used.zone}"
        if key in self._warned:
            return
        self._warned.add(key)
        first, reason = self.provenance, failures[-1] if failures else "it has no value for a time"
        _logger.log(
            logging.WARNING,
            "the carbon intensity of %s, %s is replaced by that of %s: %s",
            first.source,
            first.zone,
            key,
            reason,
        )
