"""What a stream holds open while it runs, and what it tells the ledger and MLflow."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from greentrain.carbon import CarbonAccount
from greentrain.control import Decision, State
from greentrain.energy import Meter, Window, WindowRecorder, detect
from greentrain.ledger import Ledger, LedgerAccount, RunLog, canonical, environment
from greentrain.tracking import Tracker, names
from greentrain.units import format_energy, wh
from greentrain.updating.result import UpdateResult

_NOTED = 50
"""Experiences that the tracker's note lists: the last ones."""


class Session:
    """One run of a stream, from its first experience to its end or the process's.

    Args:
        ledger: The ledger; a run is opened in it.
        stream: The stream's name.
        meter: Where joules come from; detected if ``None``.
        tracker: Is told.
        carbon: Turns joules into grams.
        settings: What the stream was configured with; ``monitor`` among it.
    """

    def __init__(
        self,
        ledger: Ledger,
        stream: str,
        *,
        meter: Meter | None,
        tracker: Tracker,
        carbon: CarbonAccount,
        settings: Mapping[str, Any],
    ) -> None:
        self.ledger = ledger
        self.tracker = tracker
        self.failed = False
        self.emissions_g: float | None = None
        self._stream = stream
        self._carbon = carbon
        self._settings = settings
        self._meter = detect() if meter is None else meter
        self._meter.start()
        self.recorder = WindowRecorder(self._meter, self._record)
        self.run: RunLog = ledger.open_run(
            "stream",
            stream,
            environment={
                **environment(),
                "settings": dict(settings),
                "carbon": carbon.as_dict(),
            },
            sources=lambda: self._meter.sources,
            beat=self.recorder.open_windows,
            emissions=carbon.of,
        )
        self._told = False
        self._results: deque[UpdateResult] = deque(maxlen=_NOTED)
        self._totals = _Totals()
        self._closed = False

    def decided(
        self,
        experience_id: str,
        position: int,
        account: LedgerAccount,
        decision: Decision,
        state: State | None,
        reservation: str | None,
    ) -> None:
        """Record a decision, before anything of it starts."""
        self.run.append(
            "decision",
            budget_id=account.budget_id,
            experience_id=experience_id,
            position=position,
            reservation_id=reservation,
            update_mode=str(decision.action.mode),
            effort=decision.action.effort,
            reason=str(decision.reason),
            sentence=decision.sentence,
            predicted_j=decision.cost_j.mean,
            upper_bound_j=decision.cost_j.upper,
            price_per_j=decision.price_per_j,
            state=canonical(state.as_dict() if state is not None else None),
            alternatives=canonical(decision.alternatives_as_dicts()),
        )

    def outcome(self, result: UpdateResult, reservation: str | None) -> dict[str, Any]:
        """Return what came of a decision, as the ledger's row of it has it."""
        return {
            "experience_id": result.experience_id,
            "position": result.position,
            "reservation_id": reservation,
            "metric": self._settings["monitor"],
            "metric_before": result.metric_before,
            "metric_after": result.metric_after,
            "steps": result.steps,
            "planned_steps": result.decision.steps,
            "energy_j": result.energy_j,
            "kept": result.kept,
        }

    def came_of(self, outcome: Mapping[str, Any]) -> None:
        """Record what came of a decision."""
        self.run.note("outcome", **outcome)

    def came_of_before(self, outcome: Mapping[str, Any], run_id: str) -> None:
        """Record what came of the last decision of an earlier run, if it had no time to do so."""
        experience_id = outcome["experience_id"]
        if not self.ledger.rows("outcome", run_id=run_id, experience_id=experience_id):
            self.came_of(outcome)

    def begin_update(self, experience_id: str) -> Any:
        """Tell the tracker that an update begins, and return its logger for the fit."""
        self._start_tracker()
        return self.tracker.begin_update(experience_id)

    def tell(self, result: UpdateResult, figures: Mapping[str, float]) -> None:
        """Tell the tracker what came of the last experience, and where the stream stands.

        Args:
            result: What came of it.
            figures: What else is known of the stream, by the tracker's names.
        """
        self._start_tracker()
        self._results.append(result)
        self._totals = self._totals.plus(result)
        decision = result.decision
        if result.steps:
            self.tracker.end_update(
                _update_metrics(result),
                {
                    names.TAG_UPDATE_MODE: str(result.update_mode),
                    names.TAG_REASON: result.reason,
                    names.TAG_LEDGER_RUN: self.run.run_id,
                },
                {
                    "experience": result.experience_id,
                    "update_mode": str(result.update_mode),
                    "effort": decision.action.effort,
                    "reason": str(decision.reason),
                    "sentence": decision.sentence,
                    "price_per_j": decision.price_per_j,
                    "alternatives": decision.alternatives_as_dicts(),
                },
            )
        metrics = {**_stream_metrics(result, self._totals), **figures}
        if self.emissions_g is not None:
            metrics[names.EMISSIONS_CUMULATIVE] = self.emissions_g
        self.tracker.log(metrics, result.position)

    def close(self) -> None:
        """Close the run, the tracker and the meter; harmless the second time."""
        if self._closed:
            return
        self._closed = True
        self.run.close("failed" if self.failed else "completed")
        if self._told:
            head = self.ledger.heads()[self.run.chain]
            tags = {names.TAG_LEDGER_HEAD: f"{head['count']}:{head['head']}"}
            status = "FAILED" if self.failed else "FINISHED"
            note = _note(self._stream, self._results, self._totals)
            self.tracker.finish(note, tags, status)
        self._meter.close()
        self.ledger.close()

    def _start_tracker(self) -> None:
        if not self._told:
            self._told = True
            tags = {names.TAG_LEDGER_RUN: self.run.run_id}
            self.tracker.start(self._stream, self._settings, tags)

    def _record(self, window: Window) -> None:
        emissions = self._carbon.of(window)
        if emissions.grams is not None:
            self.emissions_g = (self.emissions_g or 0.0) + emissions.grams
        self.run.record(window, emissions)


def _update_metrics(result: UpdateResult) -> dict[str, float]:
    metrics = {
        names.ENERGY_UPDATE: wh(result.update_j),
        names.ENERGY_PREDICTED: wh(result.decision.cost_j.mean),
        names.BUDGET_OVERRUN: wh(result.overrun_j),
        names.METRIC_BEFORE: result.metric_before,
        names.METRIC_AFTER: result.metric_after,
    }
    return {name: value for name, value in metrics.items() if value is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Totals:
    """What a session's experiences came to, all together."""

    experiences: int = 0
    energy_j: float = 0.0
    measured: int = 0
    metric: float = 0.0

    def plus(self, result: UpdateResult) -> _Totals:
        known = result.metric_after is not None
        return _Totals(
            experiences=self.experiences + 1,
            energy_j=self.energy_j + result.energy_j,
            measured=self.measured + known,
            metric=self.metric + (result.metric_after or 0.0),
        )


def _stream_metrics(result: UpdateResult, totals: _Totals) -> dict[str, float]:
    price = result.decision.price_per_j
    metrics = {
        names.ENERGY_CUMULATIVE: wh(totals.energy_j),
        names.BUDGET_LEFT: wh(result.left_j),
        names.BUDGET_PRICE: None if price is None else price / wh(1.0),
        names.METRIC_AFTER: result.metric_after,
        names.ANYTIME: totals.metric / totals.measured if totals.measured else None,
        names.UPDATE_MODE_STEP: float(names.UPDATE_MODE_STEPS[result.update_mode]),
    }
    return {name: value for name, value in metrics.items() if value is not None}


def _note(stream: str, results: Collection[UpdateResult], totals: _Totals) -> str:
    lines = [
        f"**{stream}**: {totals.experiences} experiences, {format_energy(totals.energy_j)} drawn.",
        "",
    ]
    if totals.experiences > len(results):
        lines += [f"The last {len(results)} of them:", ""]
    lines += [
        "| experience | update mode | drawn | metric | reason |",
        "|---|---|---|---|---|",
    ]
    for result in results:
        after = "unknown" if result.metric_after is None else f"{result.metric_after:.3f}"
        lines.append(
            f"| {result.experience_id} | {result.decision.action} | "
            f"{format_energy(result.energy_j)} | {after} | {result.reason} |"
        )
    return "\n".join(lines)
