"""Types of the report document for emissions and other impacts."""

from __future__ import annotations

from typing import Required, TypedDict


class IntensityProvenance(TypedDict):
    """The origin of a carbon intensity."""

    source: str | None
    zone: str | None
    data_year: int | None
    signal: str | None
    basis: str | None


class EmissionFactors(TypedDict):
    """The intensity and the PUE that a run's grams were computed with."""

    intensity: IntensityProvenance | None
    pue: float | None
    pue_source: str | None


class BasisGrams(TypedDict):
    """The grams that were computed with factors of one basis; ``None`` for an unknown one."""

    basis: str | None
    emissions_g: float


class RestatedFactors(TypedDict):
    """The factors that a report was restated with, as the report holds them."""

    file: str
    sha256: str
    kind: str
    upstream: bool


class Restated(RestatedFactors):
    """The factors of a restated report, and the grams of the factors before.

    ``before_by_basis`` has the grams before by the basis of their factors. ``upstream_g`` is Scope
    3, category 3. Grams are ``None`` unless they are known of every window.
    """

    before_g: float | None
    before_by_basis: list[BasisGrams]
    upstream_g: float | None
    sentence: str


class Equivalent(TypedDict):
    """Grams as a number of units of ``g_each`` grams each, with the 95 % interval."""

    what: str
    unit: str
    g_each: float
    value: float | None
    low: float | None
    high: float | None


class Equivalents(TypedDict):
    """Things that emit as much as the runs, with their source."""

    figures: list[Equivalent]
    source: str
    sentence: str


class CarbonFigures(TypedDict):
    """The grams of all windows, the energy that they cover, and their factors."""

    emissions_g: float | None
    interval: dict[str, float] | None
    complete: bool
    covered_j: float
    windows: int
    by_basis: list[BasisGrams]
    intensities: list[EmissionFactors]
    sentence: str


class Impact(TypedDict, total=False):
    """A supplementary impact; the first group of keys is always set."""

    unit: Required[str]
    method: Required[str | None]
    source: Required[str | None]
    sentence: Required[str | None]

    water_l: float | None
    l_per_kwh: float | None
    embodied_g: float | None
    time_s: float | None
    embodied_kg: float | None
    embodied_lifetime_h: float | None
    embodied_reserved_share: float | None
    emissions_g: float | None
    g_per_kwh: float | None
    complete: bool
    covered_j: float | None


class Electricity(TypedDict):
    """Emissions of the electricity by both methods, and the scope that they belong to."""

    hosting: str | None
    scope: str | None
    sentence: str
    location_based: Impact
    market_based: Impact


class SupplementaryImpacts(TypedDict):
    """Impacts that are reported separately and added to no other figure."""

    water: Impact
    embodied: Impact
    electricity: Electricity
