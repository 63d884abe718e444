"""Windows and sources, made by hand, for whoever records them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from greentrain.energy import Reading, Source, Window

NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)
CPU = Source(name="cpu", method="estimated", relative_uncertainty=0.2, note="a model")
CALIBRATION = {
    "factor": 1.25,
    "low": 1.2,
    "high": 1.3,
    "spans": 5,
    "software_j": 1000.0,
    "wall_j": 1250.0,
    "boundary": "cpu",
    "wall": "a PDU",
}


def window(
    phase: str = "train_epoch",
    *,
    by_source: Mapping[str, float | None],
    duration_s: float = 1.0,
    started: datetime = NEW_YEAR,
    epoch: int | None = None,
    reservation_id: str | None = None,
) -> Window:
    """What was drawn from the new year on, by default for one second."""
    seconds = duration_s if duration_s == duration_s and abs(duration_s) < 1e6 else 0.0
    return Window(
        phase=phase,
        started=started,
        ended=started + timedelta(seconds=seconds),
        reading=Reading(duration_s=duration_s, energy_j=by_source),
        epoch=epoch,
        reservation_id=reservation_id,
    )
