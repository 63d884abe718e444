"""Recompute the grams of a ledger with other factors; its joules stay as they are."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from greentrain.carbon.factors import EVERYTHING, Factors
from greentrain.carbon.intensity import mean_intensity
from greentrain.errors import ConfigurationError
from greentrain.ledger import Ledger
from greentrain.report.row_helpers import (
    MeasuredWindow,
    basis_of_origins,
    basis_of_settings,
    grouped,
    number,
    origins,
    parse,
)
from greentrain.report.times import with_times
from greentrain.units import J_PER_WH

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_US = timedelta(microseconds=1)


def restate(
    ledgers: Sequence[Ledger],
    factors: Factors,
    *,
    scope2: str | None = None,
    upstream: bool = False,
) -> dict[str, Any]:
    """Return the grams of each run as the ledger holds them, and with other factors.

    Of a run, the factors for its id are used, or else those for its name, its zone, or ``*``. The
    PUE is that of the run. The ledgers are only read.

    Args:
        ledgers: The ledgers.
        factors: The factors of :func:`greentrain.carbon.factors.read_factors`.
        scope2: Kind of the factors, ``"direct"`` or ``"life-cycle"``; not needed if there is one.
        upstream: Whether to compute Scope 3, category 3 too, with the factors of kind ``upstream``.

    Returns:
        ``runs`` and ``total``, each with ``energy_j``, ``old_g``, ``new_g`` and ``upstream_g``
        (``None`` if unknown, also if a part is), and the ``scope2`` that was used. ``old_bases``
        are the bases of the factors of ``old_g``, ``"unknown"`` among them; grams of several bases
        are not comparable. A run without a window is no part of the total. ``unused`` lists what
        the factors apply to and no run is.

    Raises:
        ConfigurationError: If there are no factors of a kind, or several and ``scope2`` is missing.
            Also if two ledgers hold the same run.
        LedgerError: If a ledger cannot be read.
    """
    scope2 = kind_of_factors(factors, scope2, upstream=upstream)
    runs = [
        run
        for ledger in ledgers
        for run in _runs(ledger, factors[scope2], factors["upstream"] if upstream else {})
    ]
    twice = [run for run, number in Counter(run["run_id"] for run in runs).items() if number > 1]
    if twice:
        raise ConfigurationError(
            f"the run {twice[0]} is in two of the ledgers: one is a copy of the other, so its runs "
            "would count twice; leave one out"
        )
    figures = ("energy_j", "old_g", "new_g", "upstream_g")
    total: dict[str, Any] = {
        name: _whole([run[name] for run in runs if run["windows"] > 0]) for name in figures
    }
    total["old_bases"] = sorted({basis for run in runs for basis in run["old_bases"]})
    used = {run["factors_of"] for run in runs}
    unused = sorted(about for about in factors[scope2] if about not in {*used, EVERYTHING})
    return {"scope2": scope2, "runs": runs, "total": total, "unused": unused}


def window_grams(window: MeasuredWindow, provider: Any, pue: float | None) -> float | None:
    """Return the grams of a window, its energy spread evenly over its ``times``.

    Args:
        window: A window with ``times``, see :func:`greentrain.report.times.with_times`.
        provider: The factors: an object with ``history``.
        pue: The PUE; ``None`` counts as 1.

    Returns:
        Grams; ``None`` if the energy, or a factor for a part of the time, is unknown.
    """
    if window["energy_j"] is None:
        return None
    spans = [(_EPOCH + start * _US, _EPOCH + end * _US) for start, end in window["times"]]
    seconds = [(end - start).total_seconds() for start, end in spans]
    whole_s = math.fsum(seconds)
    shares = [one / whole_s for one in seconds] if whole_s > 0 else [1 / len(spans)] * len(spans)
    means = [mean_intensity(provider, start, end) for start, end in spans]
    known = [one for one in means if one is not None]
    if len(known) < len(means):
        return None
    g_per_kwh = math.fsum(share * mean for share, mean in zip(shares, known, strict=True))
    return window["energy_j"] / (1000.0 * J_PER_WH) * (pue or 1.0) * g_per_kwh


def kind_of_factors(factors: Factors, wanted: str | None, *, upstream: bool) -> str:
    """Return the kind of the factors to use for Scope 2.

    Args:
        factors: The factors.
        wanted: ``"direct"`` or ``"life-cycle"``; ``None`` for the only kind.
        upstream: Whether factors of the kind ``upstream`` are needed too.

    Raises:
        ConfigurationError: If there are none of a kind, or several and no one is wanted.
    """
    if upstream and "upstream" not in factors:
        raise ConfigurationError("there is no factor of the kind upstream; add one to the file")
    held = [kind for kind in ("direct", "life-cycle") if kind in factors]
    if wanted is not None and wanted not in held:
        raise ConfigurationError(
            f"there is no factor of the kind {wanted!r} for Scope 2; there are "
            f"{', '.join(held) or 'none'}"
        )
    if wanted is None and len(held) != 1:
        raise ConfigurationError(
            f"the factors are of the kinds {', '.join(held) or 'upstream alone'}; give --scope2 "
            "direct or --scope2 life-cycle, because different bases are not added"
        )
    return wanted or held[0]


def _runs(
    ledger: Ledger, factors: Mapping[str, Any], upstream: Mapping[str, Any]
) -> list[dict[str, Any]]:
    windows = grouped(
        with_times(cast("list[MeasuredWindow]", ledger.windows())), lambda window: window["run_id"]
    )
    return [
        _run(row["run_id"], row["name"], row["environment"], windows, factors, upstream)
        for row in ledger.rows("run")
    ]


def _run(
    run_id: str,
    name: str,
    environment: str | None,
    windows: Mapping[str, list[MeasuredWindow]],
    factors: Mapping[str, Any],
    upstream: Mapping[str, Any],
) -> dict[str, Any]:
    held: Any = parse(environment, {}).get("carbon")
    carbon = held if isinstance(held, dict) else {}
    intensity = carbon.get("intensity")
    zone = intensity.get("zone") if isinstance(intensity, dict) else None
    pue, measured = number(carbon.get("pue")), windows.get(run_id, [])
    about = (run_id, name, zone, EVERYTHING)

    def grams(given: Mapping[str, Any]) -> tuple[str | None, float | None]:
        used = next((one for one in about if one in given), None)
        if used is None:
            return None, None
        return used, _whole([window_grams(one, given[used], pue) for one in measured])

    used, new_g = grams(factors)
    own = basis_of_settings(carbon)
    of_windows = [
        origins(one["intensity_origins"]) for one in measured if one["emissions_g"] is not None
    ]
    bases = [basis_of_origins(found) if found else own for found in of_windows]
    return {
        "run_id": run_id,
        "name": name,
        "zone": zone,
        "factors_of": used,
        "pue": pue,
        "windows": len(measured),
        "energy_j": _whole([one["energy_j"] for one in measured]),
        "old_g": _whole([one["emissions_g"] for one in measured]),
        "old_bases": sorted({basis or "unknown" for basis in bases}),
        "new_g": new_g,
        "upstream_g": grams(upstream)[1],
    }


def _whole(values: Sequence[float | None]) -> float | None:
    """Return the sum; ``None`` if there is no value, or a part is unknown."""
    known = [one for one in values if one is not None]
    return math.fsum(known) if known and len(known) == len(values) else None
