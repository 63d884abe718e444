"""The energy by what it was used for: updates, probes, baseline retrainings, and the rest."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from greentrain.report.document import ExperienceEntry
from greentrain.report.experiences import UpdateFigures, is_baseline
from greentrain.report.sums import Sum
from greentrain.report.use_figures import UseFigures

USES = {
    "update": "Updates",
    "probe": "Probes and calibration",
    "baseline": "Baseline retrainings",
    "other": "Everything else",
}
"""The uses of energy. The energy of an experience is that of its update, its wait and its probe."""


class EnergyUses:
    """Sums of energy by use; :meth:`add` adds the next decision."""

    def __init__(self) -> None:
        self._sums: dict[str, Sum] = defaultdict(Sum)
        self._counts: Counter[str] = Counter()

    def add(self, one: UpdateFigures, *, baseline: bool = False, waited_j: float = 0.0) -> None:
        """Add the figures of an experience, or of a baseline retraining.

        Args:
            one: The figures.
            baseline: Whether they are of a baseline retraining.
            waited_j: Joules of a wait among them, which are neither update nor probe.
        """
        energy_j, update_j = one["energy_j"], one["update_energy_j"]
        if energy_j is not None and one["status"] == "done":
            energy_j = max(0.0, energy_j - waited_j)
        if baseline:
            self._add("baseline", energy_j)
        elif not one["shadow"] and energy_j is not None:
            of_update_j = energy_j if update_j is None else min(update_j, energy_j)
            if one["steps"] or one["status"] == "interrupted":
                self._add("update", of_update_j)
            self._add("probe", energy_j - of_update_j)

    def figures(self, total_j: float | None) -> list[UseFigures]:
        """Return the uses with any energy, which sum to the total.

        Args:
            total_j: Joules of all windows; ``None`` if unknown. Then the list is empty, as it is
                where nothing was decided.
        """
        if total_j is None or not self._counts:
            return []
        known = {use: self._sums[use].number for use in USES if use in self._counts}
        other_j = total_j - sum(known.values())
        if other_j > 1e-9 * total_j:
            known["other"] = other_j
        return [
            {"use": use, "count": self._counts[use] or None, "energy_j": energy_j}
            for use, energy_j in known.items()
            if energy_j
        ]

    def _add(self, use: str, energy_j: float | None) -> None:
        self._sums[use].add(energy_j)
        self._counts[use] += 1


def with_baselines(
    experiences: Sequence[ExperienceEntry], baselines: Sequence[ExperienceEntry]
) -> list[ExperienceEntry]:
    """Return experiences, each followed by its baseline retrainings."""
    after: dict[tuple[str, int], list[ExperienceEntry]] = defaultdict(list)
    for one in baselines:
        after[one["run_id"], one["position"]].append(one)
    found: list[ExperienceEntry] = []
    for one in experiences:
        found += [one, *after.pop((one["run_id"], one["position"]), ())]
    return [*found, *(one for held in after.values() for one in held)]


def kind_of(one: ExperienceEntry) -> str:
    """Return whether an entry is an experience or a baseline retraining, as text."""
    return "baseline retraining" if is_baseline(one) else "experience"
