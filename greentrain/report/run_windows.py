"""Sums over the windows of one run."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import Literal

from greentrain.report.hourly import Hours
from greentrain.report.row_helpers import (
    MeasuredWindow,
    Span,
    basis_of_origins,
    grouped,
    origins,
)
from greentrain.report.sums import EnergySum, Sum

IDLE = "idle"
"""The phase in which nothing is trained."""


class SourceSum:
    """The joules of one source of a run.

    Attributes:
        joules: The sum.
        unknown: Windows in which the source could not be measured.
        idle: Sums of joules and of seconds in idle windows.
        first_idle: Entry of the first idle window.
    """

    __slots__ = ("first_idle", "idle", "joules", "unknown")

    def __init__(self) -> None:
        self.joules = Sum()
        self.unknown = 0
        self.idle = Sum(), Sum()
        self.first_idle = 0


class RunWindows:
    """Sums over the windows of one run.

    Args:
        windows: The windows, with ``times``.

    Attributes:
        phases: Sums by phase.
        sources: Sums by source.
        gaps: Sums of incomplete windows by phase and by the sources that are missing.
        recovered: Sums of the windows that were recovered from heartbeats.
        unpaid: Joules of the windows without a reservation.
        grams: Grams of CO2 equivalent.
        own_basis: Grams of the windows whose intensity is of the run's origin.
        other_bases: Grams of the windows whose intensity is of another origin than the run's, by
            the basis of its factors; ``None`` if there are several.
        replaced: Windows whose intensity a fallback gave, by the source and zone of the fallback.
        by_market: Grams by the market-based intensity.
        covered: Joules of the windows whose grams are known.
        hours: Joules and grams by the hour.
        spans: The time that is covered, as disjoint spans in order.
        before: Grams that the ledger holds, in a restated report.
        before_by_basis: The same by the basis of their factors; ``True`` for that of the run's
            origin, ``None`` if there are several.
        upstream: Upstream grams, in a restated report.
        without_intensity: ``True`` if the carbon intensity of a window is not known.
    """

    def __init__(self, windows: Sequence[MeasuredWindow]) -> None:
        self.phases: dict[str, EnergySum] = defaultdict(EnergySum)
        self.sources: dict[str, SourceSum] = defaultdict(SourceSum)
        self.gaps: dict[tuple[str, tuple[str, ...]], EnergySum] = defaultdict(EnergySum)
        self.recovered = EnergySum()
        self.unpaid, self.grams, self.covered = Sum(), Sum(), Sum()
        self.by_market, self.own_basis = Sum(), Sum()
        self.other_bases: dict[str | None, Sum] = defaultdict(Sum)
        self.replaced: Counter[str] = Counter()
        self.hours = Hours()
        self.spans: list[Span] = []
        self.without_intensity = any([one["intensity_g_per_kwh"] is None for one in windows])
        self.spans = merged([span for one in windows for span in one["times"]])
        for phase, held in grouped(windows, itemgetter("phase")).items():
            self.phases[phase].add_all(held)
        self._add_sources(windows)
        incomplete = [one for one in windows if not one["complete"]]
        for place, held in grouped(incomplete, _gap).items():
            self.gaps[place].add_all(held)
        self.recovered.add_all([one for one in windows if one["recovered"]])
        self.unpaid.add_all([one["energy_j"] for one in windows if one["reservation_id"] is None])
        known = [one for one in windows if one["emissions_g"] is not None]
        self.grams.add_all([one["emissions_g"] for one in known])
        self.covered.add_all([one["energy_j"] or 0.0 for one in known])
        self.by_market.add_all([one["market_emissions_g"] for one in windows])
        own = [one for one in known if not one["intensity_origins"]]
        self.own_basis.add_all([one["emissions_g"] for one in own])
        self._add_origins([one for one in known if one["intensity_origins"]])
        self.hours.add_all(windows)
        self.before, self.upstream = Sum(), Sum()
        self.before_by_basis: dict[str | Literal[True] | None, Sum] = defaultdict(Sum)
        for before in [one["restated"] for one in windows if "restated" in one]:
            self.before.add(before.emissions_g)
            self.upstream.add(before.upstream_g)
            found = origins(before.intensity_origins)
            basis: str | Literal[True] | None = basis_of_origins(found) if found else True
            self.before_by_basis[basis].add(before.emissions_g)
        self._compress()

    @property
    def energy(self) -> EnergySum:
        """Sums over all windows."""
        together = EnergySum()
        for one in self.phases.values():
            together.join(one)
        return together

    def _add_sources(self, windows: Sequence[MeasuredWindow]) -> None:
        of_sources: dict[str, list[float | None]] = defaultdict(list)
        for window in windows:
            for name, joules in window["joules"].items():
                of_sources[name].append(joules)
        for name, held in of_sources.items():
            self.sources[name].joules.add_all(held)
            self.sources[name].unknown = held.count(None)
        for window in windows:
            if window["phase"] == IDLE:
                for name, joules in window["joules"].items():
                    if joules is not None:
                        source = self.sources[name]
                        source.first_idle = source.first_idle or window["entry_id"]
                        source.idle[0].add(joules)
                        source.idle[1].add(window["duration_s"])

    def _add_origins(self, windows: Sequence[MeasuredWindow]) -> None:
        for window in windows:
            found = origins(window["intensity_origins"])
            self.other_bases[basis_of_origins(found)].add(window["emissions_g"])
            fallbacks = [one for one in found if one.get("fallback_of") is not None]
            self.replaced.update({f"{one.get('source')}, {one.get('zone')}" for one in fallbacks})

    def _compress(self) -> None:
        for one in (*self.phases.values(), *self.gaps.values(), self.recovered):
            one.compress()
        for source in self.sources.values():
            source.joules.compress()
        by_basis = (*self.other_bases.values(), *self.before_by_basis.values())
        for part in (*by_basis, self.own_basis, self.by_market):
            part.compress()
        for each in (
            self.unpaid,
            self.grams,
            self.covered,
            self.hours,
            self.before,
            self.upstream,
        ):
            each.compress()


def _gap(window: MeasuredWindow) -> tuple[str, tuple[str, ...]]:
    unknown = tuple(name for name, joules in window["joules"].items() if joules is None)
    return window["phase"], unknown


def merged(spans: Iterable[Span]) -> list[Span]:
    """Return the time that spans cover, as disjoint spans in order.

    Example:
        >>> merged([(5, 9), (0, 2), (2, 4), (6, 7)])
        [(0, 4), (5, 9)]
    """
    found: list[Span] = []
    for start, end in sorted(spans):
        if found and start <= found[-1][1]:
            if end > found[-1][1]:
                found[-1] = found[-1][0], end
        else:
            found.append((start, end))
    return found


def phases_of(runs: Sequence[RunWindows]) -> dict[str, EnergySum]:
    """Return the sums of runs by phase, in the order in which the phases first occur."""
    found: dict[str, EnergySum] = defaultdict(EnergySum)
    for run in runs:
        for phase, one in run.phases.items():
            found[phase].join(one)
    return dict(sorted(found.items(), key=lambda item: item[1].first))
