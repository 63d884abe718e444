"""Method texts of the exports: each describes the figure that it accompanies."""

from __future__ import annotations

from collections.abc import Iterable

from greentrain._about import DISTRIBUTION
from greentrain.report.document import Report, SourceFigures
from greentrain.report.energy_totals import BUILDING, NO_MANUFACTURE, NO_WATER
from greentrain.report.exports import facts
from greentrain.report.formats import energies
from greentrain.report.row_helpers import grouped, mean_pue

METERED = frozenset({"counter", "sampled"})
"""The methods that read a sensor. All others are models."""
_METHODS = {
    "counter": "by hardware energy counter",
    "sampled": "by sampled power",
    "estimated": "estimated by a model",
    "given": "given, not measured",
}


def obtained(sources: Iterable[SourceFigures]) -> str:
    """Return whether the energy of sources was metered, modelled, or both.

    Example:
        >>> obtained([{"method": "counter", "energy_j": 1.0}])
        'metered'
    """
    found = {one["method"] in METERED for one in sources if one["energy_j"] is not None}
    return {
        frozenset({True}): "metered",
        frozenset({False}): "modelled",
        frozenset({True, False}): "in part metered and in part modelled",
    }.get(frozenset(found), "obtained in an unknown way")


def measured_words(document: Report) -> str:
    """Describe the method by which the energy of each kind of device was obtained."""
    by_method = grouped(document["totals"]["sources"], _method_words)
    return "; ".join(
        f"{' and '.join(dict.fromkeys(facts.source_kind(one['name']) for one in held))} {words}"
        for words, held in by_method.items()
    )


def method(document: Report, *, with_pue: bool = False, with_embodied: bool = False) -> str:
    """Describe in about a hundred words how a figure of energy was obtained.

    Args:
        document: The report.
        with_pue: Whether the figure includes the PUE of the runs that have one.
        with_embodied: Whether a figure next to it includes the manufacture of the hardware.
    """
    totals = document["totals"]
    if totals["energy_j"] is None:
        return "No energy was measured."
    building = with_pue and bool(facts.known_pues(document))
    return " ".join(
        [
            f"Electrical energy was {obtained(totals['sources'])} by {facts.generator(document)} "
            f"({DISTRIBUTION}) during the runs, window by window: epochs, validation, checkpoints "
            "and all other phases.",
            f"The boundary is {facts.boundary(document) or 'unknown'}: {measured_words(document)}.",
            _spread(document, with_pue=building),
            "Failed, killed and interrupted runs are counted.",
            _included(document, with_pue=building, with_embodied=with_embodied),
            "The energy is recorded in a hash-chained ledger, from which the figure can be "
            "recomputed.",
        ]
    )


def emissions_method(document: Report) -> str | None:
    """Describe how the grams were computed; ``None`` if there are none."""
    words = facts.intensity_words(document)
    if facts.emissions_g(document) is None or words is None:
        return None
    pue = facts.known_pues(document)
    times = f" times the PUE ({pue})" if pue else ""
    return f"The energy of each window{times} times its intensity: {words}."


def outside(document: Report, *, with_pue: bool = False, with_embodied: bool = False) -> list[str]:
    """List what a figure leaves out, given what it includes.

    Args:
        document: The report.
        with_pue: Whether the figure includes the PUE of the runs.
        with_embodied: Whether it includes the manufacture of the hardware.
    """
    building = with_pue and bool(facts.known_pues(document))
    sentences = [
        one
        for one in document["not_measured"]["outside_boundary"]
        if not (building and one.startswith(BUILDING))
    ]
    return [NO_WATER if with_embodied and one == NO_MANUFACTURE else one for one in sentences]


def _spread(document: Report, *, with_pue: bool) -> str:
    totals = document["totals"]
    found, part = totals["interval"], "" if totals["complete"] else "the measured part of "
    if found is None:
        return "No interval is claimed, because the uncertainty of some source is unknown."
    factor = mean_pue(document["runs"]) if with_pue else 1.0
    within = energies(factor * found["low_j"], factor * found["high_j"])
    including = ", PUE included," if with_pue else ""
    error = "; the error of the PUE is not known" if with_pue else ""
    return (
        f"The 95 % interval of {part}the energy{including} is {within} (k = 2, sensors in "
        f"quadrature{error})."
    )


def _included(document: Report, *, with_pue: bool, with_embodied: bool) -> str:
    node = "node" in (facts.boundary(document) or "")
    absent = [
        *([] if with_pue else ["cooling and other overheads of the building"]),
        "network",
        *([] if node else ["storage"]),
        *([] if with_embodied else ["the manufacture of the hardware"]),
    ]
    last = absent.pop()
    listed = f"{', '.join(absent)} and {last}" if absent else last
    pue = facts.known_pues(document)
    parts = [
        f"The overheads of the building are included by the PUE ({pue})." if with_pue else "",
        "The manufacture of the hardware is not in the energy, and is added to the emissions."
        if with_embodied
        else "",
        f"Not included: {listed}.",
    ]
    return " ".join(part for part in parts if part)


def _method_words(source: SourceFigures) -> str:
    return _METHODS.get(source["method"] or "", "in an unknown way")
