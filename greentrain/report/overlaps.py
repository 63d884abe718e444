"""One thing measured by two runs at once: found, and counted once.

Two runs on one host may meter the same card, and always meter the same processor. Each run's own
figures stay as it measured them. In sums over runs, what a source drew while another run metered it
as well belongs to the run that was opened first, and is taken off the other's windows by the share
of their time: a window is taken to have drawn evenly.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

from greentrain.report.row_helpers import Row, Rows, total
from greentrain.report.times import Span, length
from greentrain.units import format_energy

Identity = tuple[str, ...]
_Owned = tuple[int, int, str]
_FIRST_HOST = "node0/"


@dataclass(slots=True)
class _Pair:
    """What two runs both measured of one source."""

    shared_us: int = 0
    joules: list[float] = field(default_factory=list)
    grams: list[float | None] = field(default_factory=list)


class Overlaps:
    """What windows of different runs measured of the same thing at the same time.

    Args:
        runs: The runs of the report, with ``sources``, ``host`` and when each was opened.
        windows: Their windows with ``times`` and ``joules``.
    """

    def __init__(self, runs: Sequence[Row], windows: Rows) -> None:
        self._runs = {run["run_id"]: run for run in runs}
        # By a window's entry and a source's name: microseconds by the run that has them.
        self._shared: dict[int, dict[str, dict[str, int]]] = {}
        for group in _groups(_by_identity(self._runs, windows)):
            self._find(group)

    def counted(self, windows: Rows) -> list[Row]:
        """Return windows with what is counted in other runs taken off their joules and grams."""
        return [
            _less(window, shared) if (shared := self._shared.get(window["entry_id"])) else window
            for window in windows
        ]

    def listed(self, windows: Rows) -> list[dict[str, Any]]:
        """List what windows have in common with other runs, by both runs and source.

        Returns:
            The run in which it is counted and the one in which it is not counted again, the source
            by its name in the latter, seconds, and the joules and grams that are taken off.
        """
        pairs: dict[tuple[str, str, str], _Pair] = {}
        for window in windows:
            for name, owners in self._shared.get(window["entry_id"], {}).items():
                for owner, shared_us in owners.items():
                    pair = pairs.setdefault((owner, window["run_id"], name), _Pair())
                    off_j = window["joules"][name] * shared_us / length(window["times"])
                    pair.shared_us += shared_us
                    pair.joules.append(off_j)
                    pair.grams.append(_grams(window, off_j))
        return [
            {
                "counted_in": owner,
                "not_again_in": other,
                **_source(self._runs[other], name),
                "duration_s": pair.shared_us / 1e6,
                "energy_j": math.fsum(pair.joules),
                "emissions_g": total(pair.grams),
            }
            for (owner, other, name), pair in pairs.items()
        ]

    def _find(self, group: Sequence[tuple[str, str, Rows]]) -> None:
        """Go through the runs of one source in the order opened: each takes what is still free."""
        owned: list[_Owned] = []
        opened = sorted(group, key=lambda one: _opened(self._runs[one[0]]))
        for run_id, name, windows in opened:
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
                elif owner != run_id:  # one card under two names of one run is the run's affair
                    shared = self._shared.setdefault(entry, {}).setdefault(name, {})
                    shared[owner] = shared.get(owner, 0) + end - start
            owned[low:high] = _joined(sorted([*around, *free]))


def overlapping(listed: Sequence[Row]) -> dict[str, Any]:
    """Sum up what :meth:`Overlaps.listed` returns, for the totals: joules, grams and a sentence."""
    overlap_j = math.fsum(one["energy_j"] for one in listed)
    pairs = len({(one["counted_in"], one["not_again_in"]) for one in listed})
    sentence = (
        f"{pairs} pair{'s' if pairs > 1 else ''} of runs metered the same source at the same time: "
        f"{format_energy(overlap_j)} are counted once here, in "
        "the run that was opened first, and stand in the figures of both runs"
    )
    return {
        "overlap_j": overlap_j,
        "overlap_g": total(one["emissions_g"] for one in listed),
        "overlap_note": sentence if listed else None,
    }


def identity(run: Row, name: str) -> Identity | None:
    """Return what tells a source from all others; ``None`` if nothing does.

    A card has its maker's UUID. What has none is known by its host and its name there; of the
    hosts of a run only the first is known, whose own name says the same without its prefix. What
    the user states of a run (method ``"given"``) is that run's alone.

    Example:
        >>> run = {"host": "abc", "sources": [{"name": "gpu:0", "uuid": "GPU-1"}]}
        >>> identity(run, "gpu:0"), identity(run, "node0/cpu"), identity(run, "node1/cpu")
        (('GPU-1',), ('abc', 'cpu'), None)
    """
    described = _described(run, name)
    if described.get("method") == "given":
        return None
    if described.get("uuid"):
        return (described["uuid"],)
    own = name.removeprefix(_FIRST_HOST)
    return None if "/" in own or not run["host"] else (run["host"], own)


def _by_identity(
    runs: Mapping[str, Row], windows: Rows
) -> Iterable[list[tuple[str, str, list[Row]]]]:
    by_source: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for window in windows:
        for name, joules in window["joules"].items():
            if joules is not None:
                by_source[window["run_id"], name].append(window)
    found: dict[Identity, list[tuple[str, str, list[Row]]]] = defaultdict(list)
    for (run_id, name), of_it in by_source.items():
        run = runs.get(run_id)  # none where its opening row was removed
        known = None if run is None else identity(run, name)
        if known is not None:
            found[known].append((run_id, name, of_it))
    return found.values()


def _groups(
    by_identity: Iterable[list[tuple[str, str, list[Row]]]],
) -> Iterable[list[tuple[str, str, list[Row]]]]:
    """Yield the runs of one source that reach into one another; most runs stand alone."""
    for of_one in by_identity:
        group: list[tuple[str, str, list[Row]]] = []
        reach = 0
        for (begins, ends), one in sorted(
            ((_reach(one[2]), one) for one in of_one), key=lambda pair: pair[0]
        ):
            if group and begins >= reach:
                if len(group) > 1:
                    yield group
                group = []
            group.append(one)
            reach = ends if len(group) == 1 else max(reach, ends)
        if len(group) > 1:
            yield group


def _reach(windows: Rows) -> Span:
    return (
        min(window["times"][0][0] for window in windows),
        max(window["times"][-1][1] for window in windows),
    )


def _pieces(
    spans: Iterable[tuple[int, int, int]], owned: Sequence[_Owned]
) -> Iterator[tuple[int, int, int, str | None]]:
    """Cut spans, each of some entry, where owners change: the entry, from when to when, and whose.

    Both are in order, and disjoint among themselves.
    """
    place = 0
    for start, end, entry in spans:
        while place < len(owned) and owned[place][1] <= start:
            place += 1
        at, ahead = start, place  # what reaches beyond this span is looked at for the next one too
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


def _opened(run: Row) -> tuple[str, str]:
    return run["opened_utc"], run["run_id"]


def _described(run: Row, name: str) -> Row:
    return next((one for one in run["sources"] if one["name"] == name), {})


def _source(run: Row, name: str) -> dict[str, Any]:
    return {"source": name, "host": run["host"], "uuid": _described(run, name).get("uuid")}


def _grams(window: Row, off_j: float) -> float | None:
    if window["emissions_g"] is None or not window["energy_j"]:
        return None
    return float(window["emissions_g"] * off_j / window["energy_j"])


def _less(window: Row, shared: Mapping[str, Mapping[str, int]]) -> Row:
    whole_us = length(window["times"])
    joules = dict(window["joules"])
    for name, owners in shared.items():
        joules[name] *= 1.0 - sum(owners.values()) / whole_us
    energy_j, grams = total(joules.values()), window["emissions_g"]
    if grams is not None and window["energy_j"]:
        grams = grams * (energy_j or 0.0) / window["energy_j"]
    return {**window, "joules": joules, "energy_j": energy_j, "emissions_g": grams}
