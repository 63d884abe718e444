"""What a fit drew, as a table for people."""

from __future__ import annotations

from rich.table import Table

from greentrain.callbacks.measurement import Measurement
from greentrain.energy import Reading, Source, boundary
from greentrain.units import format_energy, uncertainty_j


def summary_table(measured: Measurement) -> Table:
    """Return a table of a total: each source with its method, and what is known beside it."""
    total, described = (
        measured.closed.reading,
        {source.name: source for source in measured.sources},
    )
    table = Table(title="greentrain: what was drawn", title_justify="left")
    for column in ("source", "energy", "mean power", "method", "uncertainty"):
        table.add_column(column, justify="right" if column in ("energy", "mean power") else "left")
    for name, energy_j in total.energy_j.items():
        source = described.get(name)
        share = source.relative_uncertainty if source else None
        table.add_row(
            name,
            format_energy(energy_j),
            _power(energy_j, total.duration_s),
            source.method if source else "unknown",
            "unknown" if share is None else f"± {share:.0%}",
        )
    within = boundary(total.energy_j) or "nothing"
    table.add_section()
    table.add_row(
        f"total ({within})",
        _at_least(total),
        _power(total.total_j, total.duration_s),
        f"{total.duration_s:.1f} s",
        _combined(total, described),
    )
    calibration, idle, grams = measured.calibration, measured.idle, measured.closed.grams
    if calibration is not None and total.total_j is not None:
        low, high = calibration.low, calibration.high
        band = "" if low is None or high is None else f", {low:.3g} to {high:.3g}"
        table.add_row(
            "node, calibrated",
            format_energy(calibration.node_j(total.total_j)),
            "",
            f"factor {calibration.factor:.3g}{band}",
        )
    if idle is not None:
        table.add_row("idle, before it", "", _power(idle.total_j, idle.duration_s), "not taken off")
    if grams is not None:
        table.add_row("emissions", f"{grams:.3g} gCO2e")
    return table


def _at_least(total: Reading) -> str:
    text = format_energy(total.total_j)
    return text if total.complete or total.total_j is None else f"at least {text}"


def _power(energy_j: float | None, duration_s: float) -> str:
    return "unknown" if energy_j is None or duration_s <= 0 else f"{energy_j / duration_s:.1f} W"


def _combined(total: Reading, described: dict[str, Source]) -> str:
    known_j = {name: joules for name, joules in total.energy_j.items() if joules is not None}
    shares = {name: source.relative_uncertainty for name, source in described.items()}
    standard_j = uncertainty_j(known_j, {name: shares.get(name) for name in known_j})
    if standard_j is None or not total.total_j:
        return "unknown"
    return f"± {standard_j / total.total_j:.0%}"
