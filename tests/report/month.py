"""A ledger as a team lead reads it: two streams, 28 updates, a kill and one shared budget."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from greentrain.budget import Budget
from greentrain.carbon import Emissions
from greentrain.energy import Source
from greentrain.ledger import Ledger, RunLog, canonical
from tests.ledger.events import window as drawn
from tests.report.ledgers import STARTED, come, decide

EACH = 14
"""Experiences of each stream."""
EVERY = 5
"""Experiences from one baseline retraining to the next."""
KILLED, FELL = 6, 8
"""Positions of the experience whose first try was killed, and of one whose metric fell."""
BASELINE_J, PROBE_J = 1440.0, 36.0
G_PER_KWH, PUE = 363.0, 1.3
SOURCES = [
    Source(
        name="cpu",
        method="estimated",
        relative_uncertainty=0.3,
        device="AMD EPYC 7763 64-Core Processor",
        note="load times a rated power",
        reference="Fischer 2025",
    ),
    Source(name="ram", method="estimated", relative_uncertainty=0.5, device="16 GiB"),
]
CARBON = {
    "intensity": {
        "source": "Ember Yearly Electricity Data",
        "zone": "DE",
        "data_year": 2024,
        "signal": "average",
        "basis": "life-cycle",
    },
    "pue": PUE,
    "pue_source": "operator",
}
OPTIONS = ("SKIP", "REPLAY", "WARM_START", "FULL_RETRAIN")


class Stream:
    """One stream of the ledger.

    Args:
        ledger: The ledger.
        name: The stream.
        budget: Id of the budget that pays.
    """

    def __init__(self, ledger: Ledger, name: str, budget: str) -> None:
        self.name, self.budget = name, budget
        self.ledger = ledger
        self.metric = 0.55
        self.run = self.opened()

    def opened(self) -> RunLog:
        """Open the next run."""
        return self.ledger.open_run(
            "stream",
            self.name,
            environment={"host": "abc", "carbon": CARBON, "settings": {"mode": "max"}},
            sources=SOURCES,
        )

    def update(self, position: int, moment: timedelta, *, killed: bool = False) -> None:
        """Run one experience, which ends in a kill or in an outcome."""
        mode = "FULL_RETRAIN" if position == 0 else OPTIONS[1 + position % 2]
        update_j = 720.0 if position == 0 else 180.0 + 4.0 * position
        account = self.ledger.account(self.budget, self.run)
        reservation = account.reserve(1.15 * update_j, f"{mode} of experience-{position:02d}")
        decide(
            self.run,
            self.budget,
            position,
            experience_id=f"2026-11-{position + 1:02d}",
            reservation_id=reservation,
            update_mode=mode,
            step_fraction=1.0 if position % 3 else 0.5,
            reason="NO_MODEL" if position == 0 else "BEST_NET_GAIN",
            sentence="the first update has no model to start from"
            if position == 0
            else "+0.021 ± 0.009 expected from REPLAY for 0.06 Wh; each Wh has to bring 0.25",
            predicted_j=update_j,
            upper_bound_j=1.15 * update_j,
            min_gain_per_j=7e-5,
            alternatives=canonical([self._option(one, update_j) for one in OPTIONS]),
        )
        self._window("probe", PROBE_J, None, moment)
        used_j = update_j / 2 if killed else update_j * (1.25 if position == 11 else 1.0)
        self._window("train_epoch", used_j, reservation, moment + timedelta(minutes=1), epoch=0)
        if killed:
            self.run.flush()
            return
        account.settle(reservation, used_j)
        before = self.metric
        self.metric += -0.004 if position == FELL else 0.02
        come(
            self.run,
            position,
            experience_id=f"2026-11-{position + 1:02d}",
            reservation_id=reservation,
            metric_before=None if position == 0 else before,
            metric_after=self.metric,
            steps=40,
            planned_steps=40,
            energy_j=used_j + PROBE_J,
        )

    def baseline(self, position: int, moment: timedelta) -> None:
        """Run a baseline retraining after an experience."""
        account = self.ledger.account(self.budget, self.run)
        reservation = account.reserve(1.1 * BASELINE_J, f"baseline retraining at {position}")
        changes = {"experience_id": f"2026-11-{position + 1:02d}", "reservation_id": reservation}
        decide(
            self.run,
            self.budget,
            position,
            **changes,
            update_mode="FULL_RETRAIN",
            step_fraction=1.0,
            reason="BASELINE",
            sentence="a full retraining next to the stream",
            predicted_j=BASELINE_J,
            upper_bound_j=1.1 * BASELINE_J,
        )
        self._window("train_epoch", BASELINE_J, reservation, moment + timedelta(minutes=3))
        account.settle(reservation, BASELINE_J)
        come(
            self.run,
            position,
            **changes,
            metric_before=self.metric,
            metric_after=self.metric - 0.01,
            steps=80,
            planned_steps=80,
            energy_j=BASELINE_J,
            kept=False,
        )

    def _option(self, mode: str, update_j: float) -> dict[str, Any]:
        share = OPTIONS.index(mode) / 2
        return {
            "update_mode": mode,
            "step_fraction": 1.0 if share else 0.0,
            "predicted_j": share * update_j,
            "upper_bound_j": 1.2 * share * update_j,
            "predicted_gain": 0.02 * share,
            "gain_sd": 0.01,
            "cost_sd_j": 9.0,
            "why_lost": "net gain +0.004, REPLAY +0.012" if mode != "REPLAY" else None,
        }

    def _window(
        self, phase: str, joules: float, reservation: str | None, moment: timedelta, **fields: Any
    ) -> None:
        grams = joules / 3.6e6 * PUE * G_PER_KWH
        of = {"cpu": 0.8 * joules, "ram": 0.2 * joules}
        one = drawn(
            phase,
            by_source=of,
            started=STARTED + moment,
            duration_s=30.0,
            reservation_id=reservation,
            **fields,
        )
        self.run.record(one, Emissions(grams=grams, intensity_g_per_kwh=G_PER_KWH))


def two_streams(ledger: Ledger, each_has: int = EACH) -> None:
    """Fill a ledger with 28 updates of two streams, four baseline retrainings and a kill.

    Args:
        ledger: The ledger.
        each_has: Experiences of each stream so far, of the 14 that the budget has to last for.
    """
    budget = ledger.open_budget("team", Budget.parse("4 Wh", num_experiences=2 * EACH))
    streams = [Stream(ledger, name, budget) for name in ("images", "sensor drift")]
    for position in range(each_has):
        for number, each in enumerate(streams):
            moment = timedelta(days=position, hours=number)
            if position == KILLED and number == 0:
                each.update(position, moment, killed=True)
                each.run = each.opened()
                moment += timedelta(minutes=20)
            each.update(position, moment)
            if position and position % EVERY == 0:
                each.baseline(position, moment)
    for each in streams:
        each.run.close()
