"""Energy in joules, watt-hours and kilowatt-hours, and as a table in a notebook."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Protocol

from greentrain.units import energy_unit, format_carbon, format_energy, wh


class _HasJoules(Protocol):
    @property
    def total_j(self) -> float | None: ...


class EnergyTotal:
    """Give ``total_j`` of a result in watt-hours and kilowatt-hours, too; unknown stays ``None``.

    Example:
        >>> class Used(EnergyTotal):
        ...     total_j = 7200.0
        >>> Used().total_wh, Used().total_kwh
        (2.0, 0.002)
    """

    __slots__ = ()

    @property
    def total_wh(self: _HasJoules) -> float | None:
        """Watt-hours of all measured sources; ``None`` if there is none."""
        return None if self.total_j is None else wh(self.total_j)

    @property
    def total_kwh(self: _HasJoules) -> float | None:
        """Kilowatt-hours of all measured sources; ``None`` if there is none."""
        return None if self.total_j is None else wh(self.total_j) / 1000.0


def energy_html(
    title: str,
    energy_j: Mapping[str, float | None],
    *,
    methods: Mapping[str, str] | None = None,
    grams: float | None = None,
) -> str:
    """Return a table of the energy of each source, for a notebook.

    Args:
        title: The caption.
        energy_j: Joules by source name; ``None`` for a source that could not be measured.
        methods: How the joules of each source were obtained.
        grams: Grams of CO2 equivalent; ``None`` if unknown, and then not shown.
    """
    unit = energy_unit(energy_j.values())
    methods = methods or {}
    rows = [
        (name, format_energy(used, unit), methods.get(name, "")) for name, used in energy_j.items()
    ]
    if grams is not None:
        rows.append(("emissions", format_carbon(grams), ""))
    cells = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><caption>{escape(title)}</caption>{cells}</table>"
