"""Report documents whose figures can be worked out by hand."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from greentrain.budget import Budget
from greentrain.carbon import Emissions
from greentrain.ledger import Ledger
from greentrain.report import build
from greentrain.report.disclosures import Disclosures
from greentrain.report.write import FORMATS
from tests.report.ledgers import SOURCES, STARTED, come, decide, window

INTENSITY = {
    "source": "a yearbook",
    "zone": "DE",
    "data_year": 2025,
    "signal": "average",
    "basis": "life-cycle",
}
ENVIRONMENT = {
    "host": "abc",
    "platform": "linux",
    "versions": {"torch": "2.13.0", "python": "3.11.2"},
    "carbon": {"intensity": INTENSITY, "pue": 1.2, "pue_source": "operator"},
}
MODEL = {
    "name": "digits-net",
    "task": "image classification",
    "data_type": "image",
    "dataset": "https://example.org/digits",
    "algorithm": "cnn",
    "version": "1.0",
}
DISCLOSED = Disclosures(
    hosting="own",
    market_based_g_per_kwh=100.0,
    market_based_source="contract",
    embodied_kg=1314.0,
    embodied_lifetime_h=26280.0,
    embodied_reserved_share=0.5,
    embodied_source="data sheet",
    functional_unit="experience",
    functional_units=2.0,
    model=MODEL,
)


def known(
    ledger: Ledger, *, disclosures: Disclosures | None = DISCLOSED, **changes: Any
) -> dict[str, Any]:
    """Two updates of 1.5 Wh at 400 g/kWh and a PUE of 1.2: 3 Wh in 72 s, and 1.44 g.

    The first is a full retrain, the second a warm start.
    """
    environment = {**ENVIRONMENT, **changes}
    run = ledger.open_run("stream", "digits", environment=environment, sources=SOURCES)
    budget = ledger.open_budget("digits", Budget.parse("4 Wh", num_experiences=2))
    account = ledger.account(budget, run)
    for position, mode in enumerate(("FULL_RETRAIN", "WARM_START")):
        reservation = account.reserve(6000.0, f"{mode} of experience-{position}")
        decide(
            run,
            budget,
            position,
            update_mode=mode,
            step_fraction=1.0,
            reservation_id=reservation,
            reason="WORTH_IT" if position else "NO_MODEL",
            predicted_j=5000.0,
            upper_bound_j=6000.0,
        )
        window(
            run,
            3600.0,
            1800.0,
            started=STARTED + position * timedelta(seconds=36),
            reservation_id=reservation,
            emissions=Emissions(grams=0.72, intensity_g_per_kwh=400.0),
        )
        account.settle(reservation, 5400.0)
        come(run, position, metric_after=0.9, steps=10, planned_steps=10, energy_j=5400.0)
    run.close()
    return build(ledger, disclosures=disclosures)


def rendered(name: str, document: dict[str, Any]) -> str:
    """The text of a format with one file."""
    (render,) = FORMATS[name].files.values()
    return str(render(document))


def needs_pango() -> None:
    """Skip a test of PDFs where the system cannot print one."""
    try:
        import weasyprint
    except OSError as error:
        pytest.skip(f"WeasyPrint cannot load Pango: {error}")
    assert weasyprint.HTML


def without(document: dict[str, Any], *keys: str) -> dict[str, Any]:
    """The document as it was before some keys of its form were there."""
    return {key: value for key, value in document.items() if key not in keys}
