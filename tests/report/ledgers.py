"""Small ledgers, written by hand through the ledger's own surface."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from greentrain.budget import Budget
from greentrain.carbon import Emissions
from greentrain.energy import Source
from greentrain.ledger import Ledger, RunLog, canonical
from greentrain.ledger.events import window_content
from tests.ledger.events import window as drawn

STARTED = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
SOURCES = [
    Source(name="gpu:0", method="counter", relative_uncertainty=0.05, device="a card"),
    Source(
        name="cpu",
        method="estimated",
        relative_uncertainty=0.2,
        device="a processor",
        note="a model",
        reference="a paper",
    ),
]


def window(
    run: RunLog,
    gpu_j: float | None,
    cpu_j: float | None,
    *,
    emissions: Emissions | None = None,
    **changes: Any,
) -> None:
    """Record 36 s of both sources."""
    fields = {"started": STARTED, "duration_s": 36.0, "phase": "train_epoch", **changes}
    phase = fields.pop("phase")
    run.record(drawn(phase, by_source={"gpu:0": gpu_j, "cpu": cpu_j}, **fields), emissions)


def heartbeat(run: RunLog, gpu_j: float | None, cpu_j: float | None, **changes: Any) -> None:
    """Record that 18 s of both sources were drawn in a phase that is open."""
    fields = {"started": STARTED, "duration_s": 18.0, "phase": "train_epoch", **changes}
    phase = fields.pop("phase")
    beat = drawn(phase, by_source={"gpu:0": gpu_j, "cpu": cpu_j}, **fields)
    run.append("heartbeat", **window_content(run.run_id, beat, None))


def decide(run: RunLog, budget_id: str, position: int, **changes: Any) -> None:
    """Record a decision about one experience."""
    fields = {
        "budget_id": budget_id,
        "experience_id": f"experience-{position}",
        "position": position,
        "reservation_id": None,
        "update_mode": "SKIP",
        "step_fraction": 0.0,
        "reason": "NO_GAIN",
        "sentence": "nothing to gain",
        "predicted_j": 0.0,
        "upper_bound_j": 0.0,
        "min_gain_per_j": None,
        "state": canonical({"position": position, "tables": []}),
        "alternatives": canonical([]),
    }
    run.append("decision", **{**fields, **changes})


def come(run: RunLog, position: int, **changes: Any) -> None:
    """Record what came of a decision."""
    fields = {
        "experience_id": f"experience-{position}",
        "position": position,
        "reservation_id": None,
        "metric": "val_acc",
        "metric_before": 0.5,
        "metric_after": 0.5,
        "steps": 0,
        "planned_steps": 0,
        "energy_j": 0.0,
        "kept": True,
    }
    run.append("outcome", **{**fields, **changes})


def stream(ledger: Ledger, *, name: str = "digits", close: bool = True) -> RunLog:
    """A run of 2 Wh: one update of 1.5 Wh with an overrun, then a skip; each an hour later."""
    started = STARTED + timedelta(hours=len(ledger.rows("run")))
    run = ledger.open_run("stream", name, environment={"host": "abc"}, sources=SOURCES)
    budget = ledger.open_budget(name, Budget.parse("2 Wh", num_experiences=2))
    account = ledger.account(budget, run)
    reservation = account.reserve(5000.0, "FULL_RETRAIN of experience-0")
    decide(
        run,
        budget,
        0,
        update_mode="FULL_RETRAIN",
        step_fraction=1.0,
        reservation_id=reservation,
        reason="NO_MODEL",
        predicted_j=4000.0,
        upper_bound_j=5000.0,
    )
    # 100 W and 50 W for 36 s
    window(run, 3600.0, 1800.0, epoch=0, reservation_id=reservation, started=started)
    account.settle(reservation, 5400.0)
    come(run, 0, metric_after=0.9, steps=10, planned_steps=10, energy_j=5400.0)
    decide(run, budget, 1)
    come(run, 1, metric_before=0.8, metric_after=0.8)
    if close:
        run.close()
    return run
