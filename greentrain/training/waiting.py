"""Let an update wait for cleaner electricity, within the budget and up to its latest start.

Joules of the wait are reserved before it and settled after it. The update itself is reserved after
the wait. So a killed wait holds little, and grams are reserved at the rate of the clean hour. Other
streams may use the joules meanwhile. If they use all of them, the update is skipped.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from greentrain.carbon import CarbonAccount, Interval
from greentrain.carbon.delay import Delay, DelayCosts, choose_start, forecast_origin
from greentrain.carbon.schedule import expected_intensity
from greentrain.control import Decision, Reason
from greentrain.decisions.core import BudgetAccount
from greentrain.errors import BudgetExceeded, IntensityError
from greentrain.ledger import Ledger, canonical
from greentrain.payments import MIN_RESERVATION_J, paying
from greentrain.texts import get_logger
from greentrain.training.run_context import RunContext
from greentrain.training.start_by import StartBy, WaitHistory
from greentrain.training.update_context import Spent
from greentrain.units import format_energy

TOPIC = "waiting"
"""Topic of the events of a wait."""
RESERVE = 1.5
"""Reserved joules of a wait, as a multiple of the expected ones; it ends when they are used."""

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Waited:
    """A wait that ended, or the reason why there was none.

    Args:
        arrived: When the update could have started.
        started: When it started.
        figures: The decision to wait, as the ledger has it.
        spent: Energy of the wait.
    """

    arrived: datetime
    started: datetime
    figures: dict[str, Any]
    spent: Spent = field(default_factory=Spent)


class UpdateWaits:
    """Decide whether the updates of a stream wait, and wait.

    Args:
        start_by: The longest wait, the clock and the sleep.
        carbon: Converts joules to grams; it has the provider.
        history: Power of updates and waits.
        run: The run that measures and records.
        ledger: The ledger, with the waits of earlier processes.
        stream: Name of the stream.
    """

    def __init__(
        self,
        start_by: StartBy,
        carbon: CarbonAccount,
        history: WaitHistory,
        run: RunContext,
        ledger: Ledger,
        stream: str,
    ) -> None:
        self._start_by = start_by
        self._carbon = carbon
        self._history = history
        self._run = run
        self._ledger = ledger
        self._stream = stream
        self._forecast: Sequence[Interval] = ()

    def wait(
        self, experience_id: str, decision: Decision, account: BudgetAccount, *, grams: bool
    ) -> Waited:
        """Wait if a later start of an update is worth it, and return how.

        Args:
            experience_id: The experience.
            decision: The update that was decided on.
            account: The account that pays.
            grams: Whether the budget is of carbon.

        Raises:
            LedgerError: If the wait cannot be recorded.
        """
        now = self._start_by.now()
        arrived = self._arrived(experience_id, now)
        self._history.arrived(arrived)
        latest = arrived + self._start_by.longest
        figures: dict[str, Any] = {
            "arrived_utc": arrived.astimezone(UTC).isoformat(),
            "latest_utc": latest.astimezone(UTC).isoformat(),
        }
        self._forecast = ()
        reason = self._hindrance(decision, now, latest)
        if reason:
            return self._at_once(experience_id, arrived, now, figures, reason)
        costs = self._costs(decision, grams=grams)
        try:
            delay = self._plan(now, arrived, latest, costs)
        except IntensityError as error:
            return self._at_once(
                experience_id, arrived, now, figures, f"there is no forecast: {error}", failed=True
            )
        if delay is None:
            reason = "the forecast covers too little of the time"
            return self._at_once(experience_id, arrived, now, figures, reason, failed=True)
        figures |= _described(delay, costs, forecast_origin(self._forecast, now))
        if delay.chosen.start <= now:
            reason = "no later start saves more than waiting costs"
            return self._at_once(experience_id, arrived, now, figures, reason)
        return self._carry_out(
            experience_id, decision, account, delay, costs, arrived, latest, figures
        )

    def shifted_g(self, waited: Waited, update_j: float) -> float | None:
        """Return the grams that a wait saved, by the intensities that came.

        It is the update's energy at the hours of a start at once, less that at its own hours, less
        the grams of the wait. ``None`` if there was no wait, or an intensity is unknown.

        Args:
            waited: The wait.
            update_j: Measured joules of the update.
        """
        last = self._history.update
        if waited.started <= waited.arrived or last is None:
            return None
        duration = timedelta(seconds=last[0])
        parts = [
            self._carbon.emissions(energy_j, start, end).grams
            for energy_j, start, end in (
                (update_j, waited.arrived, waited.arrived + duration),
                (update_j, waited.started, waited.started + duration),
                (waited.spent.energy_j, waited.arrived, waited.started),
            )
        ]
        at_once_g, own_g, idle_g = parts
        if at_once_g is None or own_g is None or idle_g is None:
            return None
        return at_once_g - own_g - idle_g

    def _hindrance(self, decision: Decision, now: datetime, latest: datetime) -> str:
        """Return why nothing is compared; empty if a wait is possible."""
        if decision.reason is Reason.NO_MODEL:
            return "the first training does not wait, as there is no model yet"
        if self._history.power_w is None:
            return "the power of an update is not measured yet"
        if latest <= now:
            return f"the latest start, {latest.astimezone(UTC):%Y-%m-%d %H:%M} UTC, has passed"
        return ""

    def _costs(self, decision: Decision, *, grams: bool) -> DelayCosts:
        power_w, pue = self._history.power_w or 0.0, self._carbon.pue or 1.0
        longest = self._start_by.longest
        worth_g = None
        if grams and decision.min_gain_per_j and decision.gain.mean > 0:
            rate = self._carbon.upper_g_per_j(self._start_by.now())
            worth_g = None if rate is None else decision.gain.mean / decision.min_gain_per_j * rate
        return DelayCosts(
            energy_j=decision.cost_j.mean * pue,
            duration=timedelta(seconds=decision.cost_j.mean / power_w),
            idle_w=self._history.idle_w * pue,
            lasts=max(longest, self._history.between or longest),
            worth_g=worth_g,
        )

    def _plan(
        self, now: datetime, arrived: datetime, latest: datetime, costs: DelayCosts
    ) -> Delay | None:
        """Choose a start by the present forecast, or by the last one if the provider fails now."""
        provider = self._carbon.provider
        if provider is None:
            raise IntensityError("the stream has no provider")
        try:
            self._forecast, _ = expected_intensity(provider, now, latest + costs.duration)
        except Exception as error:  # a failing provider never stops a stream
            if not self._forecast:
                raise IntensityError(str(error)) from error
        return choose_start(self._forecast, now=now, latest=latest, costs=costs)

    def _carry_out(
        self,
        experience_id: str,
        decision: Decision,
        account: BudgetAccount,
        delay: Delay,
        costs: DelayCosts,
        arrived: datetime,
        latest: datetime,
        figures: dict[str, Any],
    ) -> Waited:
        now, idle_w = self._start_by.now(), self._history.idle_w
        until, reason = delay.chosen.start, "the chosen start has come"
        step_j = idle_w * self._start_by.recheck_s
        expected_j = idle_w * (until - now).total_seconds()
        reserved_j = max(RESERVE * expected_j + step_j, MIN_RESERVATION_J)
        short = f"waiting may use {format_energy(reserved_j)}, which the budget cannot spare"
        try:
            if account.balance().left_j < decision.cost_j.upper + reserved_j:
                return self._at_once(experience_id, arrived, now, figures, short)
            purpose = f"waiting of {experience_id}"
            reservation = account.reserve(reserved_j, purpose)
        except BudgetExceeded:
            return self._at_once(experience_id, arrived, now, figures, short)
        event = {**figures, "until_utc": until.isoformat()}
        self._run.run.append(
            "event", topic=TOPIC, experience_id=experience_id, content=canonical(event)
        )
        _log.info(
            "the update on %s waits until %s UTC, to save %.3g g of CO2 equivalent",
            *(experience_id, f"{until:%Y-%m-%d %H:%M}", delay.saving_g),
        )
        recorder, began = self._run.recorder, now
        with (
            paying(account, recorder, reserved_j=reserved_j, reservation=reservation) as payment,
            recorder.phase("waiting"),
        ):
            while now < until:
                if (payment.used.total_j or 0.0) + step_j > reserved_j:
                    reason = "the joules reserved for waiting are used"
                    break
                self._start_by.sleep(
                    min(self._start_by.recheck_s, max(1.0, (until - now).total_seconds()))
                )
                now = self._start_by.now()
                again = self._plan(now, arrived, latest, costs)
                until = until if again is None else again.chosen.start
        self._history.learn_wait((now - began).total_seconds(), payment.used)
        return Waited(
            arrived=arrived,
            started=now,
            figures={
                **figures,
                "started_utc": now.astimezone(UTC).isoformat(),
                "waited_s": (now - arrived).total_seconds(),
                "idle_j": payment.used.total_j,
                "reason": reason,
            },
            spent=Spent(energy_j=payment.actual_j, overrun_j=payment.overrun_j),
        )

    def _at_once(
        self,
        experience_id: str,
        arrived: datetime,
        now: datetime,
        figures: dict[str, Any],
        reason: str,
        *,
        failed: bool = False,
    ) -> Waited:
        say = _log.warning if failed else _log.info
        say("the update on %s starts at once: %s", experience_id, reason)
        found = {
            **figures,
            "started_utc": now.astimezone(UTC).isoformat(),
            "waited_s": (now - arrived).total_seconds(),
            "reason": reason,
        }
        return Waited(arrived=arrived, started=now, figures=found)

    def _arrived(self, experience_id: str, now: datetime) -> datetime:
        """Return when an experience arrived: before a wait that was interrupted, or now."""
        for event in reversed(self._ledger.rows("event", experience_id=experience_id)):
            if event["topic"] != TOPIC:
                continue
            run_id = event["run_id"]
            if not self._ledger.rows("run", run_id=run_id, name=self._stream):
                continue
            if self._ledger.rows("outcome", run_id=run_id, experience_id=experience_id):
                return now  # that wait ended; this is the experience again
            return min(now, datetime.fromisoformat(json.loads(event["content"])["arrived_utc"]))
        return now


def _described(delay: Delay, costs: DelayCosts, forecast: dict[str, Any]) -> dict[str, Any]:
    return {
        "forecast": forecast,
        "alternatives": [one.as_dict() for one in delay.options],
        "chosen_utc": delay.chosen.start.isoformat(),
        "predicted_saving_g": delay.saving_g,
        "now_g": delay.now.work_g,
        "later_g": delay.chosen.work_g + delay.chosen.idle_g,
        "lost_g": delay.chosen.lost_g,
        "duration_s": costs.duration.total_seconds(),
        "idle_w": costs.idle_w,
        "lasts_s": costs.lasts.total_seconds(),
        "worth_g": costs.worth_g,
    }
