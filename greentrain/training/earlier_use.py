"""Read from the ledger what the earlier runs of a stream used, those that were killed included."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from greentrain.errors import LedgerError
from greentrain.ledger import Ledger, with_recovered
from greentrain.texts import get_logger

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlierUse:
    """Energy and emissions of some runs.

    Args:
        energy_j: Joules.
        emissions_g: Grams of CO2 equivalent; ``None`` if unknown.
    """

    energy_j: float = 0.0
    emissions_g: float | None = None


def earlier_use(ledger: Ledger, stream: str, before: Mapping[str, Any] | None) -> EarlierUse:
    """Sum up the windows of all earlier runs of a stream, also those after its state was saved.

    The state has the sums up to the run that saved it, so only this run and later ones are read.

    Args:
        ledger: The ledger; the new run is not open yet.
        stream: Name of the stream.
        before: The saved state of the run; ``None`` without one.
    """
    saved = dict((before or {}).get("earlier") or {})
    since = saved.pop("run_id", None)
    try:
        rows = ledger.rows("run", name=stream)
        runs = [row["run_id"] for row in rows if row["kind"] == "stream"]
        if since in runs:
            runs = runs[runs.index(since) :]
        found = [_of_run(ledger, run_id) for run_id in runs]
    except LedgerError as error:  # it is unreachable, and its rows wait on disk
        _log.warning("the energy of the stream's earlier runs is not in its totals: %s", error)
        found = []
    found += [EarlierUse(**saved)] if saved else []
    grams = [one.emissions_g for one in found if one.emissions_g is not None]
    return EarlierUse(
        energy_j=math.fsum(one.energy_j for one in found),
        emissions_g=math.fsum(grams) if grams else None,
    )


def _of_run(ledger: Ledger, run_id: str) -> EarlierUse:
    windows = with_recovered(
        ledger.rows("window", run_id=run_id),
        ledger.rows("heartbeat", run_id=run_id),
        ledger.rows("closing", run_id=run_id),
    )
    grams = [row["emissions_g"] for row in windows if row["emissions_g"] is not None]
    return EarlierUse(
        energy_j=math.fsum(row["energy_j"] or 0.0 for row in windows),
        emissions_g=math.fsum(grams) if grams else None,
    )
