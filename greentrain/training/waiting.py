"""Let an update wait for cleaner electricity, within the budget and up to its latest start.

Joules of the wait are reserved before it and settled after it. The update itself is reserved after
the wait. So a killed wait holds little, and grams are reserved at the rate of the clean hour. Other
streams may use the joules meanwhile. If they use all of them, the update is skipped. In slices, an
update also waits between two of its steps. Each of these pauses has a reservation, too.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from greentrain.carbon import CarbonAccount, Interval
from greentrain.carbon.delay import (
    Delay,
    DelayCosts,
    DelayOption,
    choose_start,
    forecast_origin,
)
from greentrain.carbon.saved_grams import Stretch, saved_grams
from greentrain.carbon.schedule import expected_intensity
from greentrain.carbon.slices import choose_slices
from greentrain.control import Decision, Reason
from greentrain.decisions.core import BudgetAccount
from greentrain.errors import IntensityError
from greentrain.ledger import Ledger
from greentrain.texts import get_logger
from greentrain.training.paid_wait import TOPIC, PaidWaits
from greentrain.training.run_context import RunContext
from greentrain.training.slice_pauses import MARGIN, Pause, SlicePauses
from greentrain.training.start_by import StartBy, WaitHistory
from greentrain.training.update_context import Spent

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Waited:
    """A wait that ended, or the reason why there was none.

    Args:
        arrived: When the update could have started.
        started: When it started.
        figures: The decision to wait, as the ledger has it.
        spent: Energy of the wait.
        pauses: Pauses of the update between its slices; ``None`` if it runs as one block.
    """

    arrived: datetime
    started: datetime
    figures: dict[str, Any]
    spent: Spent = field(default_factory=Spent)
    pauses: SlicePauses | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Compared:
    """A comparison of starts, which the pauses after it continue."""

    experience_id: str
    account: BudgetAccount
    costs: DelayCosts
    end: datetime
    figures: dict[str, Any]


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
        self._compared: _Compared | None = None
        self._paid = PaidWaits(start_by, history, run)

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
        now, self._compared = self._start_by.now(), None
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
            delay = self._plan(now, latest, costs)
        except IntensityError as error:
            return self._at_once(
                experience_id, arrived, now, figures, f"there is no forecast: {error}", failed=True
            )
        if delay is None:
            reason = "the forecast covers too little of the time"
            return self._at_once(experience_id, arrived, now, figures, reason, failed=True)
        worth_g = delay.now.work_g if costs.worth_g is None else costs.worth_g
        figures |= _described(delay, costs, forecast_origin(self._forecast, now))
        self._compared = _Compared(
            experience_id=experience_id,
            account=account,
            costs=replace(costs, worth_g=worth_g),
            end=latest + costs.duration,
            figures=figures,
        )
        if delay.chosen.start <= now:
            reason = "no later start saves more than waiting costs"
            waited = self._at_once(experience_id, arrived, now, figures, reason)
        else:
            waited = self._carry_out(experience_id, decision, account, delay, costs, arrived)
        if not self._start_by.slices:
            return waited
        slices = delay.chosen.segments
        pauses = SlicePauses(
            self,
            read=self._run.recorder.read,
            clock=self._start_by.now,
            recheck=timedelta(seconds=self._start_by.recheck_s),
            steps=decision.steps,
            duration=costs.duration,
            first_end=slices[0][1] if slices else latest + costs.duration,
        )
        if waited.started == now:  # a killed update keeps its arrival
            self._paid.record(experience_id, figures)
        return replace(waited, pauses=pauses)

    def next_slice(self, rest: timedelta, *, running: bool) -> tuple[datetime, datetime]:
        """Return the start and the end of the next slice: see :class:`Pausing`."""
        compared, now = self._compared, self._start_by.now()
        if compared is None or rest <= timedelta(0):
            return now, now
        share = rest / compared.costs.duration
        costs = replace(
            compared.costs,
            energy_j=compared.costs.energy_j * share,
            duration=rest,
            idle_w=self._history.idle_w * (self._carbon.pue or 1.0),
        )
        end = compared.end - MARGIN * rest
        try:
            found = self._slices(now, end, costs, running=running)
        except IntensityError:
            found = None
        return (now, end) if found is None else found.segments[0]

    def pause(
        self, until: datetime, again: Callable[[], datetime], interrupted: Callable[[], bool]
    ) -> Pause | None:
        """Wait between two steps: see :class:`Pausing`."""
        compared = self._compared
        if compared is None:
            return None
        figures = {**compared.figures, "pause_utc": self._start_by.now().isoformat()}
        found, reason = self._paid.sleep(
            compared.experience_id, compared.account, until, again, figures, interrupted=interrupted
        )
        if found is None:
            _log.warning("the update on %s is not paused: %s", compared.experience_id, reason)
            return None
        ended = {"resumed_utc": found.ended.isoformat(), "idle_j": found.used.total_j}
        self._paid.record(compared.experience_id, {**figures, **ended, "reason": reason})
        return found

    def shifted_g(self, waited: Waited, update_j: float) -> float | None:
        """Return the grams that a wait saved, by the intensities that came.

        It is the update's energy at the hours of a start at once, less that at its own hours, less
        the grams of the wait and of the pauses. ``None`` if there was neither, or an intensity is
        unknown.

        Args:
            waited: The wait.
            update_j: Measured joules of the update.
        """
        last = self._history.update
        pauses = [] if waited.pauses is None else waited.pauses.pauses
        if last is None or (waited.started <= waited.arrived and not pauses):
            return None
        left = duration = timedelta(seconds=last[0])
        worked: list[Stretch] = []
        begins = waited.started
        for each in pauses:
            length = max(timedelta(0), min(left, each.began - begins))
            worked.append((begins, begins + length, update_j * (length / duration)))
            left, begins = left - length, each.ended
        worked.append((begins, begins + left, update_j * (left / duration)))
        idle = [(each.began, each.ended, each.spent.energy_j) for each in pauses]
        idle.append((waited.arrived, waited.started, waited.spent.energy_j))
        return saved_grams(self._carbon, waited.arrived, worked, idle).grams

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

    def _plan(self, now: datetime, latest: datetime, costs: DelayCosts) -> Delay | None:
        """Choose a start, and slices where they are cleaner than one block."""
        self._read_forecast(now, latest + costs.duration)
        delay = choose_start(self._forecast, now=now, latest=latest, costs=costs)
        if delay is None or not self._start_by.slices:
            return delay
        if costs.worth_g is None:
            costs = replace(costs, worth_g=delay.now.work_g)
        end = max(latest, now) + costs.duration
        sliced = self._slices(now, end, costs, running=False, read=False)
        if sliced is None or len(sliced.segments) < 2 or sliced.cost_g >= delay.chosen.cost_g:
            return delay
        return replace(delay, chosen=sliced, options=(*delay.options, sliced))

    def _slices(
        self, now: datetime, end: datetime, costs: DelayCosts, *, running: bool, read: bool = True
    ) -> DelayOption | None:
        if read:
            self._read_forecast(now, max(now, end))
        return choose_slices(
            self._forecast,
            now=now,
            end=end,
            costs=costs,
            pause_cost=self._start_by.pause_time,
            state="running" if running else "new",
        )

    def _read_forecast(self, now: datetime, end: datetime) -> None:
        """Read the present forecast; the last one counts if the provider fails now."""
        provider = self._carbon.provider
        if provider is None:
            raise IntensityError("the stream has no provider")
        try:
            self._forecast, _ = expected_intensity(provider, now, end)
        except Exception as error:  # a failing provider never stops a stream
            if not self._forecast:
                raise IntensityError(str(error)) from error

    def _carry_out(
        self,
        experience_id: str,
        decision: Decision,
        account: BudgetAccount,
        delay: Delay,
        costs: DelayCosts,
        arrived: datetime,
    ) -> Waited:
        assert self._compared is not None
        figures, latest = self._compared.figures, arrived + self._start_by.longest
        now = self._start_by.now()

        def again() -> datetime:
            moment = self._start_by.now()
            found = self._plan(moment, latest, costs)
            return until if found is None else found.chosen.start

        until = delay.chosen.start
        _log.info(
            "the update on %s waits until %s UTC, to save %.3g g of CO2 equivalent",
            *(experience_id, f"{until:%Y-%m-%d %H:%M}", delay.saving_g),
        )
        found, reason = self._paid.sleep(
            experience_id, account, until, again, figures, keep_j=decision.cost_j.upper
        )
        if found is None:
            return self._at_once(experience_id, arrived, now, figures, reason)
        return Waited(
            arrived=arrived,
            started=found.ended,
            figures={
                **figures,
                "started_utc": found.ended.isoformat(),
                "waited_s": (found.ended - arrived).total_seconds(),
                "idle_j": found.used.total_j,
                "reason": reason,
            },
            spent=found.spent,
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
        "slices": delay.chosen.as_dict().get("slices"),
        "predicted_saving_g": delay.saving_g,
        "now_g": delay.now.work_g,
        "later_g": delay.chosen.work_g + delay.chosen.idle_g,
        "lost_g": delay.chosen.lost_g,
        "duration_s": costs.duration.total_seconds(),
        "idle_w": costs.idle_w,
        "lasts_s": costs.lasts.total_seconds(),
        "worth_g": costs.worth_g,
    }
