"""Energy that two runs measured at once: find it, and count it once.

Two runs on one host may meter the same card, and always meter the same processor. Each run's own
figures stay as it measured them. Sums over runs count such energy in the run that was opened first.
It is subtracted from the other run's windows by the share of their time, because the power of a
window is taken as constant.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import NamedTuple, TypedDict

from greentrain.ledger import SourceRow
from greentrain.report.document import EnergyTotals, Overlap, PhaseFigures, ReportTotals
from greentrain.report.row_helpers import MeasuredWindow, RestatedWindow, Span, known_wh, total
from greentrain.report.times import length
from greentrain.units import format_energy, plural

Identity = tuple[str, ...]
_Owned = tuple[int, int, str]
_FIRST_HOST = "node0/"
MEASURE = "measure"
"""Kind of the runs of ``greentrain.measure``, and their only phase."""


class MeteredRun(TypedDict):
    """The fields that distinguish the sources of one run from those of others."""

    run_id: str
    kind: str
    opened_utc: str
    host: str | None
    sources: list[SourceRow]


class _Measurements(NamedTuple):
    """The windows in which one run measured one source."""

    run_id: str
    source: str
    windows: list[MeasuredWindow]


@dataclass(slots=True)
class _Pair:
    """The energy of one source that two runs both measured."""

    shared_us: int = 0
    joules: list[float] = field(default_factory=list)
    grams: list[float | None] = field(default_factory=list)


class Overlaps:
    """Measurements of one source by different runs at the same time.

    Args:
        runs: The runs of the report.
        windows: Their windows with ``times`` and ``joules``.
    """

    def __init__(self, runs: Sequence[MeteredRun], windows: Sequence[MeasuredWindow]) -> None:
        self._runs = {run["run_id"]: run for run in runs}
        # By a window's entry and a source's name: microseconds by the run that they are counted in.
        self._shared: dict[int, dict[str, dict[str, int]]] = {}
        for group in _groups(_by_identity(self._runs, windows)):
            self._find(group)

    def counted(self, windows: Sequence[MeasuredWindow]) -> list[MeasuredWindow]:
        """Return windows without the joules and grams that are counted in other runs."""
        return [
            _less(window, shared) if (shared := self._shared.get(window["entry_id"])) else window
            for window in windows
        ]

    def listed(self, windows: Sequence[MeasuredWindow]) -> list[Overlap]:
        """List the energy that windows share with other runs, by both runs and source.

        Returns:
            The run in which the energy is counted, and the run in which it is not counted again.
            The source has its name in the latter. Joules and grams are those subtracted.
        """
        pairs: dict[tuple[str, str, str], _Pair] = {}
        for window in windows:
            for name, owners in self._shared.get(window["entry_id"], {}).items():
                for owner, shared_us in owners.items():
                    pair = pairs.setdefault((owner, window["run_id"], name), _Pair())
                    off_j = (window["joules"][name] or 0.0) * shared_us / length(window["times"])
                    pair.shared_us += shared_us
                    pair.joules.append(off_j)
                    pair.grams.append(_grams(window, off_j))
        return [
            {
                "counted_in": owner,
                "not_again_in": other,
                "source": name,
                "host": self._runs[other]["host"],
                "uuid": source["uuid"] if (source := _described(self._runs[other], name)) else None,
                "duration_s": pair.shared_us / 1e6,
                "energy_j": math.fsum(pair.joules),
                "emissions_g": total(pair.grams),
            }
            for (owner, other, name), pair in pairs.items()
        ]

    def finer_j(self, windows: Sequence[MeasuredWindow]) -> dict[str, float]:
        """Return joules by phase that are counted in a use of ``measure`` around another run.

        Such a use has one phase only. The run inside it is the finer record, so its phases are
        those of the joules.
        """
        found: dict[str, list[float]] = defaultdict(list)
        for window in windows:
            if self._runs[window["run_id"]]["kind"] == MEASURE:
                continue
            for name, owners in self._shared.get(window["entry_id"], {}).items():
                of_measure = [run for run in owners if self._runs[run]["kind"] == MEASURE]
                share = sum(owners[run] for run in of_measure) / length(window["times"])
                found[window["phase"]].append((window["joules"][name] or 0.0) * share)
        return {phase: math.fsum(joules) for phase, joules in found.items() if any(joules)}

    def _find(self, group: Sequence[_Measurements]) -> None:
        """Assign the time of one source to its runs, in the order in which they were opened."""
        owned: list[_Owned] = []
        for run_id, name, windows in sorted(group, key=self._opened):
            spans = sorted(
                (start, end, window["entry_id"])
                for window in windows
                for start, end in window["times"]
                if end > start
            )
            if not spans:
                continue
            low = bisect_right(owned, spans[0][0], key=itemgetter(1))
            high = bisect_left(owned, max(span[1] for span in spans), key=itemgetter(0))
            around = owned[low:high]
            free: list[_Owned] = []
            for entry, start, end, owner in _pieces(spans, around):
                if owner is None:
                    free.append((start, end, run_id))
                elif owner != run_id:  # one card under two names of one run is left as it is
                    shared = self._shared.setdefault(entry, {}).setdefault(name, {})
                    shared[owner] = shared.get(owner, 0) + end - start
            owned[low:high] = _joined(sorted([*around, *free]))

    def _opened(self, measurements: _Measurements) -> tuple[str, str]:
        run = self._runs[measurements.run_id]
        return run["opened_utc"], run["run_id"]


def with_finer_phases(totals: EnergyTotals, finer_j: Mapping[str, float]) -> EnergyTotals:
    """Move joules from the phase of ``measure`` to those of :meth:`Overlaps.finer_j`.

    All sums stay. Of a run inside that measured more than the use around it, all joules of that use
    are moved.
    """
    around_j = next(
        (one["energy_j"] for one in totals["by_phase"] if one["phase"] == MEASURE), None
    )
    finer_sum_j = math.fsum(finer_j.values())
    if not around_j or not finer_sum_j:
        return totals
    scale = min(1.0, around_j / finer_sum_j)
    moved = {phase: joules * scale for phase, joules in finer_j.items()}
    moved[MEASURE] = -math.fsum(moved.values())
    by_phase: list[PhaseFigures] = []
    for one in totals["by_phase"]:
        energy_j = one["energy_j"]
        if one["phase"] in moved:
            energy_j = max(0.0, (energy_j or 0.0) + moved[one["phase"]])
        by_phase.append({**one, "energy_j": energy_j, "energy_wh": known_wh(energy_j)})
    return {**totals, "by_phase": by_phase}


def with_overlaps(totals: EnergyTotals, listed: Sequence[Overlap]) -> ReportTotals:
    """Add the sum of :meth:`Overlaps.listed` to the totals, with a sentence."""
    overlap_j = math.fsum(one["energy_j"] for one in listed)
    pairs = len({(one["counted_in"], one["not_again_in"]) for one in listed})
    sentence = (
        f"{plural(pairs, 'pair')} of runs metered the same source at once; the "
        f"totals count {format_energy(overlap_j)} only in the run that was opened first, and the "
        "figures of both runs include it"
    )
    return {
        **totals,
        "overlap_j": overlap_j,
        "overlap_g": total(one["emissions_g"] for one in listed),
        "overlap_note": sentence if listed else None,
    }


def identity(run: MeteredRun, name: str) -> Identity | None:
    """Return the identity of a source over all runs; ``None`` if it has none.

    A card has its maker's UUID. Other sources are identified by their host and their name there.
    Of a run's hosts only the first is known; its sources have the same names without its prefix.
    Sources of method ``"given"``, which the user stated, are never shared with another run.

    Example:
        >>> run = {"host": "abc", "sources": [{"name": "gpu:0", "uuid": "GPU-1", "method": ""}]}
        >>> identity(run, "gpu:0"), identity(run, "node0/cpu"), identity(run, "node1/cpu")
        (('GPU-1',), ('abc', 'cpu'), None)
    """
    source = _described(run, name)
    if source is not None:
        if source["method"] == "given":
            return None
        if source["uuid"]:
            return (source["uuid"],)
    own = name.removeprefix(_FIRST_HOST)
    return None if "/" in own or not run["host"] else (run["host"], own)


def _by_identity(
    runs: Mapping[str, MeteredRun], windows: Sequence[MeasuredWindow]
) -> Iterable[list[_Measurements]]:
    by_source: dict[tuple[str, str], list[MeasuredWindow]] = defaultdict(list)
    for window in windows:
        for name, joules in window["joules"].items():
            if joules is not None:
                by_source[window["run_id"], name].append(window)
    found: dict[Identity, list[_Measurements]] = defaultdict(list)
    for (run_id, name), measured in by_source.items():
        run = runs.get(run_id)  # none where its opening row was removed
        known = None if run is None else identity(run, name)
        if known is not None:
            found[known].append(_Measurements(run_id, name, measured))
    return found.values()


def _groups(by_identity: Iterable[list[_Measurements]]) -> Iterable[list[_Measurements]]:
    """Yield the runs of one source whose times overlap; most runs overlap with none."""
    for of_source in by_identity:
        group: list[_Measurements] = []
        end = 0
        spans = [(_span(one.windows), one) for one in of_source]
        for (begins, ends), one in sorted(spans, key=lambda pair: pair[0]):
            if group and begins >= end:
                if len(group) > 1:
                    yield group
                group = []
            end = max(end, ends) if group else ends
            group.append(one)
        if len(group) > 1:
            yield group


def overlapping_runs(
    runs: Sequence[MeteredRun], spans: Mapping[str, Mapping[str, Span]]
) -> set[str]:
    """Return the ids of the runs that may have measured a source when another one did.

    Args:
        runs: The runs of the report.
        spans: By run id and name of the source, the time from its first to its last joule.
    """
    by_identity: dict[Identity, list[tuple[Span, str]]] = defaultdict(list)
    for run in runs:
        for name, span in spans.get(run["run_id"], {}).items():
            known = identity(run, name)
            if known is not None:
                by_identity[known].append((span, run["run_id"]))
    found: set[str] = set()
    for held in by_identity.values():
        end, last = 0, ""
        for (begins, ends), run_id in sorted(held):
            if last and begins < end and run_id != last:
                found |= {run_id, last}
            if not last or ends > end:
                end, last = ends, run_id
    return found


def _span(windows: Sequence[MeasuredWindow]) -> Span:
    return (
        min(window["times"][0][0] for window in windows),
        max(window["times"][-1][1] for window in windows),
    )


def _pieces(
    spans: Iterable[tuple[int, int, int]], owned: Sequence[_Owned]
) -> Iterator[tuple[int, int, int, str | None]]:
    """Cut spans where owners change, and yield the entry, start, end and owner of each piece.

    Both arguments are in order, and each is disjoint.
    """
    place = 0
    for start, end, entry in spans:
        while place < len(owned) and owned[place][1] <= start:
            place += 1
        at, ahead = start, place  # one that ends beyond this span is needed for the next one too
        while at < end:
            begins, until, owner = owned[ahead] if ahead < len(owned) else (end, end, "")
            if begins > at:
                yield entry, at, min(begins, end), None
            if begins < end:
                yield entry, max(at, begins), min(end, until), owner
            at, ahead = max(until, begins), ahead + 1


def _joined(owned: Sequence[_Owned]) -> list[_Owned]:
    joined: list[_Owned] = []
    for start, end, owner in owned:
        if joined and joined[-1][1] == start and joined[-1][2] == owner:
            joined[-1] = (joined[-1][0], end, owner)
        else:
            joined.append((start, end, owner))
    return joined


def _described(run: MeteredRun, name: str) -> SourceRow | None:
    return next((one for one in run["sources"] if one["name"] == name), None)


def _grams(window: MeasuredWindow, off_j: float) -> float | None:
    if window["emissions_g"] is None or not window["energy_j"]:
        return None
    return window["emissions_g"] * off_j / window["energy_j"]


def _less(window: MeasuredWindow, shared: Mapping[str, Mapping[str, int]]) -> MeasuredWindow:
    whole_us = length(window["times"])
    joules = dict(window["joules"])
    for name, owners in shared.items():
        joules[name] = (joules[name] or 0.0) * (1.0 - sum(owners.values()) / whole_us)
    energy_j = total(joules.values())

    def part(grams: float | None) -> float | None:
        if grams is None or not window["energy_j"]:
            return grams
        return grams * (energy_j or 0.0) / window["energy_j"]

    less: MeasuredWindow = {
        **window,
        "joules": joules,
        "energy_j": energy_j,
        "emissions_g": part(window["emissions_g"]),
        "market_emissions_g": part(window["market_emissions_g"]),
    }
    if "restated" in window:
        before_g, upstream_g, origins = window["restated"]
        less["restated"] = RestatedWindow(part(before_g), part(upstream_g), origins)
    return less
