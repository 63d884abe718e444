"""What a stream holds open while it runs, and what it tells the ledger and MLflow."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from greentrain.carbon import CarbonAccount
from greentrain.control import Decision, State, UpdateMode
from greentrain.energy import Meter, Window, WindowRecorder, detect
from greentrain.errors import LedgerError, MeterError
from greentrain.ledger import Ledger, RunLog, canonical, environment
from greentrain.streams import Experience
from greentrain.tracking import Tracker, names
from greentrain.training import tracking_payloads as telling
from greentrain.training.result import UpdateResult
from greentrain.training.tracking_payloads import Totals

_NOTED = 50
"""Experiences that the tracker's note lists: the last ones."""


class RunContext:
    """One run of a stream, from its first experience to its end or the process's.

    Args:
        ledger: The ledger; a run is opened in it.
        stream: The stream's name.
        meter: Where joules come from; detected if ``None``.
        tracker: Is told.
        carbon: Turns joules into grams.
        settings: What the stream was configured with; ``monitor`` among it.
        before: What :meth:`state_dict` of an earlier session of the stream returned.
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
        before: Mapping[str, Any] | None = None,
    ) -> None:
        self.ledger = ledger
        self.tracker = tracker
        self.failed = False
        self.emissions_g: float | None = None if before is None else before["emissions_g"]
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
        self._results: deque[UpdateResult] = deque(maxlen=_NOTED)
        self._totals = Totals() if before is None else Totals(**before["totals"])
        self._update_began_g: float | None = None
        self._told = False
        self._closed = False

    def decided(
        self,
        experience_id: str,
        position: int,
        budget_id: str,
        decision: Decision,
        state: State | None,
        reservation: str | None,
    ) -> None:
        """Record a decision, before anything of it starts."""
        self.run.append(
            "decision",
            budget_id=budget_id,
            experience_id=experience_id,
            position=position,
            reservation_id=reservation,
            update_mode=str(decision.action.mode),
            step_fraction=decision.action.step_fraction,
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
            "energy_j": _drawn_j(result),
            "kept": result.kept,
        }

    def came_of(self, outcome: Mapping[str, Any]) -> None:
        """Record what came of a decision."""
        self.run.note("outcome", **outcome)

    def came_of_before(self, outcome: Mapping[str, Any], run_id: str) -> None:
        """Record what came of the last decision of an earlier run, if it had no time to do so."""
        same = {name: outcome[name] for name in ("experience_id", "reservation_id")}
        if not self.ledger.rows("outcome", run_id=run_id, **same):
            self.came_of(outcome)

    def begin_update(self, experience: Experience) -> Any:
        """Tell the tracker that an update begins, and return its logger for the fit."""
        self._start_tracker()
        self._update_began_g = self.emissions_g or 0.0
        return self.tracker.begin_update(experience.id, telling.datasets(experience))

    def advised(self, result: UpdateResult) -> None:
        """Tell the tracker of advice at once: what comes of it may take a while."""
        self._start_tracker()
        self.tracker.skip(result.experience_id, result.position, telling.decision(result))

    def controlled(self, result: UpdateResult) -> None:
        """Take up what a control drew, and tell the tracker what it came to."""
        self._start_tracker()
        self._totals = self._totals.with_control(result)
        metrics = telling.control_metrics(result, self._totals)
        note = telling.note(self._stream, self._results, self._totals)
        self.tracker.log(metrics, result.position, note, self._surroundings())

    def took(self, result: UpdateResult) -> None:
        """Take up what came of an experience, before the state of the stream is saved."""
        self._start_tracker()
        self._results.append(result)
        self._totals = self._totals.plus(result)

    def tell(self, result: UpdateResult, figures: Mapping[str, float], model: object) -> None:
        """Tell the tracker what came of the last experience, and where the stream stands.

        Args:
            result: What came of it; was given to :meth:`took`.
            figures: What else is known of the stream, by the tracker's names.
            model: The current model.
        """
        decision = telling.decision(result)
        if result.done.mode is not UpdateMode.SKIP:
            metrics = telling.update_metrics(result)
            began_g = None if result.advice else self._update_began_g
            if self.emissions_g is not None and began_g is not None:
                metrics[names.EMISSIONS_UPDATE] = self.emissions_g - began_g
            tags = {
                names.TAG_UPDATE_MODE: str(result.done.mode),
                names.TAG_REASON: str(result.decision.reason),
                names.TAG_SENTENCE: result.reason,
                names.TAG_KEPT: "true" if result.kept else "false",
                names.TAG_LEDGER_RUN: self.run.run_id,
                **({names.TAG_ADVICE: str(result.decision.action)} if result.advice else {}),
                **self._surroundings(),
            }
            self.tracker.end_update(metrics, tags, decision, model if result.kept else None)
        else:
            self.tracker.skip(result.experience_id, result.position, decision)
        metrics = {**telling.stream_metrics(result, self._totals), **figures}
        if self.emissions_g is not None:
            metrics[names.EMISSIONS_CUMULATIVE] = self.emissions_g
        note = telling.note(self._stream, self._results, self._totals)
        self.tracker.log(metrics, result.position, note, self._surroundings())

    def state_dict(self) -> dict[str, Any]:
        """Return what the tracker needs to go on with the stream, as plain values."""
        return {
            "totals": asdict(self._totals),
            "emissions_g": self.emissions_g,
            "tracker": self.tracker.state_dict(),
        }

    def close(self) -> None:
        """Close the run, the tracker and the meter; harmless the second time."""
        if self._closed:
            return
        self._closed = True
        self.run.close("failed" if self.failed else "completed")
        if self._told:
            tags = self._surroundings()
            with suppress(LedgerError):  # whose rows wait where it cannot be reached
                head = self.ledger.heads()[self.run.chain]
                tags[names.TAG_LEDGER_HEAD] = f"{head['count']}:{head['head']}"
            status = "FAILED" if self.failed else "FINISHED"
            note = telling.note(self._stream, self._results, self._totals)
            self.tracker.finish(note, tags, status)
        self._meter.close()
        self.ledger.close()

    def _start_tracker(self) -> None:
        if not self._told:
            self._told = True
            tags = {names.TAG_LEDGER_RUN: self.run.run_id}
            if self._settings.get("shadow"):
                tags[names.TAG_ADVICE] = "true"
            self.tracker.start(self._stream, self._settings, tags)

    def _record(self, window: Window) -> None:
        emissions = self._carbon.of(window)
        if emissions.grams is not None:
            self.emissions_g = (self.emissions_g or 0.0) + emissions.grams
        self.run.record(window, emissions)
        if self._told:
            self.tracker.power(telling.powers(window), window.ended)

    def _surroundings(self) -> dict[str, str]:
        """Return what was metered, and where it gets its power, as far as that is known."""
        carbon = self._carbon.as_dict() or {}
        try:
            devices = {source.device for source in self._meter.sources if source.device}
        except MeterError:
            devices = set()
        tags = {names.TAG_HARDWARE: "; ".join(sorted(devices))}
        tags[names.TAG_ZONE] = (carbon.get("intensity") or {}).get("zone") or ""
        return {name: value for name, value in tags.items() if value}


def _drawn_j(result: UpdateResult) -> float | None:
    """Joules as the ledger's row of an outcome has them: of advice, those that the job told."""
    if not result.advice:
        return result.energy_j
    return 0.0 if result.told is None else result.told.energy_j
