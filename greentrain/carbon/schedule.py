"""Propose when a job should run, and review afterwards what the proposal has saved."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from greentrain.carbon.correction import (
    HOUR,
    corrected_forecast,
    hourly_shares,
    past_errors,
    saving_spread,
)
from greentrain.carbon.intensity import IntensityProvider, Interval, gaps, mean_of
from greentrain.carbon.planning import Plan, at_once, check_work, plan
from greentrain.errors import ConfigurationError, IntensityError
from greentrain.units import J_PER_WH

LONGEST = timedelta(days=30)
"""Longest time until a deadline: forecasts and the last days say nothing about later months."""
_PROFILE = timedelta(days=7)


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """A work that can wait.

    Args:
        energy_j: Joules that it needs, PUE included if you want it in the grams.
        duration: Time that it needs, without pauses.
        deadline: Last possible end, aware.
        pause_cost: Time at full power that each pause costs.
        sliced: Whether it may pause.
    """

    energy_j: float
    duration: timedelta
    deadline: datetime
    pause_cost: timedelta = timedelta(0)
    sliced: bool = False

    def grams(self, g_per_kwh: float | None) -> float | None:
        """Return the grams of the work at a mean intensity."""
        return None if g_per_kwh is None else self.energy_j / (1000.0 * J_PER_WH) * g_per_kwh


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """Times for a work, with the expected grams now and then.

    Args:
        work: The work.
        as_of: Time of the proposal.
        plan: The proposed times.
        now: The times if the work starts at once.
        saving_g: Expected grams saved against a start at once; ``None`` if unknown.
        saving_low_g: Lower bound: of 90 % of the same differences in past days, or else by the
            bounds of the forecast; ``None`` without either.
        saving_high_g: Upper bound.
        source: Source of the forecast.
        zone: Its zone.
        signal: ``"average"`` or ``"marginal"``.
        issued_utc: Time of its publication; ``None`` if unknown.
        forecast_until: End of the forecast. Later times have the mean of the same hours of the last
            seven days.
    """

    work: Work
    as_of: datetime
    plan: Plan
    now: Plan
    saving_g: float | None
    saving_low_g: float | None
    saving_high_g: float | None
    source: str
    zone: str
    signal: str
    issued_utc: str | None
    forecast_until: datetime

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values: times in ISO 8601, grams, joules and seconds."""
        work = self.work
        return {
            "as_of": self.as_of.isoformat(),
            "deadline": work.deadline.isoformat(),
            "duration_s": work.duration.total_seconds(),
            "energy_j": work.energy_j,
            "sliced": work.sliced,
            "pause_cost_s": work.pause_cost.total_seconds(),
            "segments": [[one.isoformat() for one in times] for times in self.plan.segments],
            "planned_g_per_kwh": self.plan.g_per_kwh,
            "planned_g": work.grams(self.plan.g_per_kwh),
            "now_g_per_kwh": self.now.g_per_kwh,
            "now_g": work.grams(self.now.g_per_kwh),
            "saving_g": self.saving_g,
            "saving_low_g": self.saving_low_g,
            "saving_high_g": self.saving_high_g,
            "source": self.source,
            "zone": self.zone,
            "signal": self.signal,
            "issued_utc": self.issued_utc,
            "forecast_until": self.forecast_until.isoformat(),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """A past proposal against the intensities that came.

    Args:
        as_of: Time of the proposal.
        now_g: Grams of a start at once.
        planned_g: Grams of the proposed times.
        best_g: Grams of the best times, with the knowledge of afterwards.
        expected_g: Saving that was expected; ``None`` if it was unknown.
    """

    as_of: datetime
    now_g: float
    planned_g: float
    best_g: float
    expected_g: float | None

    @property
    def saving_g(self) -> float:
        """Grams saved against a start at once; below 0 if more were emitted."""
        return self.now_g - self.planned_g

    @property
    def possible_g(self) -> float:
        """Grams that the best times would have saved."""
        return self.now_g - self.best_g


def propose(provider: IntensityProvider, work: Work, now: datetime) -> Proposal:
    """Return the times with the least expected grams before the deadline.

    The forecast is corrected by its own past errors where the provider keeps past forecasts.
    Times without a forecast have the mean of the same hours of the last seven days.

    Args:
        provider: Provider of the intensity, average or marginal.
        work: The work.
        now: Time of the proposal, aware; nothing later is used.

    Raises:
        ConfigurationError: If the deadline cannot be met, is more than :data:`LONGEST` away, or a
            time is naive.
        IntensityError: If the provider gives no forecast and no history.
    """
    check_work(now, work.duration, work.deadline)
    if work.deadline - now > LONGEST:
        raise ConfigurationError(
            f"the deadline {work.deadline.isoformat()} is more than {LONGEST.days} days after "
            f"{now.isoformat(timespec='minutes')}; forecasts reach a few days, so give an earlier "
            "one and plan the rest later"
        )
    forecast, until = expected_intensity(provider, now, work.deadline)
    chosen = plan(
        forecast,
        now=now,
        duration=work.duration,
        deadline=work.deadline,
        pause_cost=work.pause_cost,
        sliced=work.sliced,
    )
    first = at_once(forecast, now=now, duration=work.duration)
    saving = _difference(work.grams(first.g_per_kwh), work.grams(chosen.g_per_kwh))
    low, high = _bounds(provider, work, now, chosen, first, saving)
    about = forecast[0].provenance or provider.provenance
    return Proposal(
        work=work,
        as_of=now,
        plan=chosen,
        now=first,
        saving_g=saving,
        saving_low_g=low,
        saving_high_g=high,
        source=about.source,
        zone=about.zone,
        signal=about.signal,
        issued_utc=about.issued_utc,
        forecast_until=until,
    )


def expected_intensity(
    provider: IntensityProvider, now: datetime, end: datetime
) -> tuple[list[Interval], datetime]:
    """Return the intensity that is expected from now to an end.

    It is the forecast, corrected by its own past errors. Times without one have the mean of the
    same hours of the last seven days.

    Args:
        provider: Provider of the intensity.
        now: The present time, aware; nothing later is used.
        end: The end, aware.

    Returns:
        The intervals, and the end of the forecast.

    Raises:
        IntensityError: If the provider gives no forecast and no history.
    """
    forecast = corrected_forecast(provider, now, end - now)
    left = gaps(forecast, now.astimezone(UTC), end.astimezone(UTC))
    until = left[0][0] if left else end
    forecast = [*forecast, *_profile(provider, now, left)]
    if not forecast:
        origin = provider.provenance
        raise IntensityError(
            f"{origin.source} has no forecast for {origin.zone} from {now.isoformat()} on, and no "
            "values of the seven days before; give another provider or file"
        )
    return forecast, until


def review(provider: IntensityProvider, proposal: dict[str, Any]) -> Review | None:
    """Compare a proposal, as :meth:`Proposal.as_dict`, with the intensities that came.

    Returns:
        ``None`` while an intensity before the deadline is unknown.

    Raises:
        IntensityError: If the provider gives nothing.
        KeyError: If the proposal lacks a key.
        ValueError: If a value of it is none.
    """
    as_of, deadline = (datetime.fromisoformat(proposal[name]) for name in ("as_of", "deadline"))
    work = Work(
        energy_j=float(proposal["energy_j"]),
        duration=timedelta(seconds=proposal["duration_s"]),
        deadline=deadline,
        pause_cost=timedelta(seconds=proposal["pause_cost_s"]),
        sliced=bool(proposal["sliced"]),
    )
    actual = provider.history(as_of, deadline)
    times = [tuple(datetime.fromisoformat(one) for one in pair) for pair in proposal["segments"]]
    parts = [(mean_of(actual, start, end), end - start) for start, end in times]
    if mean_of(actual, as_of, deadline) is None:
        return None
    planned = sum((mean or 0.0) * (length / work.duration) for mean, length in parts)
    best = plan(
        actual,
        now=as_of,
        duration=work.duration,
        deadline=deadline,
        pause_cost=work.pause_cost,
        sliced=work.sliced,
    )
    first = at_once(actual, now=as_of, duration=work.duration)
    now_g, planned_g = (work.grams(one) or 0.0 for one in (first.g_per_kwh, planned))
    best_g = min(work.grams(best.g_per_kwh) or 0.0, now_g, planned_g)
    expected = proposal.get("saving_g")
    return Review(as_of=as_of, now_g=now_g, planned_g=planned_g, best_g=best_g, expected_g=expected)


def _profile(
    provider: IntensityProvider, now: datetime, left: list[tuple[datetime, datetime]]
) -> list[Interval]:
    """Return the mean of the same hours of the last days, for the times without a forecast."""
    by_hour: dict[int, list[float]] = defaultdict(list)
    for one in provider.history(now - _PROFILE, now) if left else ():
        if one.end <= now and one.end - one.start <= HOUR:
            by_hour[one.start.hour].append(one.g_per_kwh)
    origin = replace(
        provider.provenance,
        source=f"{provider.provenance.source}, mean of the same hours of the last 7 days",
        kind="forecast",
    )
    found = []
    for start, end in left:
        while start < end:
            until = min(end, start.replace(minute=0, second=0, microsecond=0) + HOUR)
            if values := by_hour.get(start.hour):
                found.append(
                    Interval(
                        start=start,
                        end=until,
                        g_per_kwh=sum(values) / len(values),
                        low_g_per_kwh=min(values),
                        high_g_per_kwh=max(values),
                        provenance=origin,
                    )
                )
            start = until
    return found


def _bounds(
    provider: IntensityProvider,
    work: Work,
    now: datetime,
    chosen: Plan,
    first: Plan,
    saving: float | None,
) -> tuple[float | None, float | None]:
    """Return the bounds of the saving: by past errors, or else by the bounds of the forecast."""
    if saving is None or chosen.segments == first.segments:
        return (saving, saving)
    hours = -(-(work.deadline - now) // HOUR)
    shares = [hourly_shares(one.segments, now, hours, work.duration) for one in (chosen, first)]
    spread = saving_spread(past_errors(provider, now)[0], shares[0], shares[1])
    if spread is not None:
        low, high = (saving + (work.grams(one) or 0.0) for one in spread)
        return min(low, saving), max(high, saving)
    return (
        _difference(work.grams(first.low_g_per_kwh), work.grams(chosen.high_g_per_kwh)),
        _difference(work.grams(first.high_g_per_kwh), work.grams(chosen.low_g_per_kwh)),
    )


def _difference(more: float | None, less: float | None) -> float | None:
    return None if more is None or less is None else more - less
