"""Open the ledger's run, the meter and the tracker of a stream, and log results to them."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Any

from greentrain.carbon import CarbonAccount
from greentrain.control import UpdateMode
from greentrain.energy import Meter, Window, WindowRecorder, close_meter, start_meter
from greentrain.errors import LedgerError
from greentrain.ledger import Ledger, RunLog, environment
from greentrain.streams import Experience
from greentrain.texts import get_logger
from greentrain.tracking import NullTracker, RunFiles, Tracker, names
from greentrain.training import tracking_payloads as payloads
from greentrain.training.earlier_use import EarlierUse, earlier_use
from greentrain.training.result import UpdateResult
from greentrain.training.update_context import StreamTotals

_log = get_logger(__name__)
_IN_NOTE = 50
"""Number of the last experiences in the tracker's note."""


class RunContext:
    """One run of a stream, from its first experience until it is closed.

    Args:
        ledger: The ledger, in which a run is opened.
        stream: Name of the stream.
        meter: The meter; detected if ``None``.
        tracker: Logs the stream, to MLflow for example.
        carbon: Converts joules to grams.
        settings: The stream's configuration.
        before: The :meth:`state_dict` of an earlier run of the stream.
        continues: Whether the stream has a saved state, so that its earlier runs in the ledger are
            parts of it.

    Attributes:
        recorder: Records the windows of energy.
        run: The ledger's run.
        failed: Whether an update raised.
        emissions_g: Grams so far, over all runs of the stream; ``None`` if unknown.
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
        continues: bool = False,
    ) -> None:
        self.failed = False
        earlier = EarlierUse() if not continues else earlier_use(ledger, stream, before)
        self._earlier = earlier
        self._used_j = earlier.energy_j
        self.emissions_g: float | None = earlier.emissions_g
        self._ledger = ledger
        self._tracker = tracker
        self._stream = stream
        self._carbon = carbon
        self._settings = settings
        self._meter = start_meter(meter)
        self.recorder = WindowRecorder(self._meter, self._record)
        self.run: RunLog = ledger.open_run(
            "stream",
            stream,
            environment={
                **environment(),
                "settings": dict(settings),
                "carbon": carbon.as_dict(),
            },
            sources=lambda: self.recorder.sources,
            beat=self.recorder.open_windows,
            emissions=carbon.of,
            team=settings.get("team"),
            project=settings.get("project"),
        )
        self._results: deque[UpdateResult] = deque(maxlen=_IN_NOTE)
        self._totals = StreamTotals() if before is None else StreamTotals(**before["totals"])
        self._update_began_g: float | None = None
        self._tracks = not isinstance(tracker, NullTracker)
        self._started = False
        self._closed = False

    def begin_update(self, experience: Experience) -> Any:
        """Log that an update begins, and return the tracker's logger for the fit."""
        self._update_began_g = self.emissions_g or 0.0
        if not self._tracks:
            return None
        self._start_tracker()
        return self._tracker.begin_update(experience.id, payloads.datasets(experience))

    def log_shadow_decision(self, result: UpdateResult) -> None:
        """Log a decision of shadow mode at once: its outcome may be reported much later."""
        if not self._tracks:
            return
        self._start_tracker()
        self._tracker.skip(result.experience_id, result.position, payloads.decision(result))
        self._tracker.release()

    def log_baseline(self, result: UpdateResult) -> None:
        """Log the outcome of a baseline retraining."""
        if not self._tracks:
            return
        self._log(payloads.baseline_metrics(result, self._totals), result)

    def count(self, result: UpdateResult, *, baseline: bool = False) -> None:
        """Add a result to the stream's totals, before its state is saved."""
        if self._tracks:
            self._start_tracker()
        totals = replace(self._totals, energy_j=self._used_j)  # as the windows in the ledger
        if not baseline:  # a baseline retraining is no further experience
            self._results.append(result)
            totals = replace(
                totals,
                experiences=totals.experiences + 1,
                measured=totals.measured + (result.metric_after is not None),
                metric=totals.metric + (result.metric_after or 0.0),
            )
        self._totals = totals

    def log_result(
        self,
        result: UpdateResult,
        summary: Mapping[str, float],
        model: object,
        *,
        weights_sha256: str | None,
    ) -> None:
        """Log the outcome of the last experience, and the state of the stream.

        It is sent by :meth:`release`, or by a later process that resumes the saved state.

        Args:
            result: The outcome, after :meth:`count`.
            summary: Further metrics of the stream, by their MLflow names.
            model: The current model.
            weights_sha256: Hash of its weights; ``None`` if unknown.
        """
        if not self._tracks:
            return
        decision = payloads.decision(result)
        if result.done.mode is UpdateMode.SKIP:
            self._tracker.skip(result.experience_id, result.position, decision)
        else:
            metrics = payloads.update_metrics(result)
            began_g = None if result.shadow else self._update_began_g
            if self.emissions_g is not None and began_g is not None:
                metrics[names.EMISSIONS_UPDATE] = self.emissions_g - began_g
            tags = {
                names.TAG_UPDATE_MODE: str(result.done.mode),
                names.TAG_REASON: str(result.decision.reason),
                names.TAG_SENTENCE: result.reason,
                names.TAG_KEPT: "true" if result.kept else "false",
                names.TAG_LEDGER_RUN: self.run.run_id,
                names.NOTE: payloads.update_note(self._stream, result),
                **({names.TAG_WEIGHTS: weights_sha256} if weights_sha256 else {}),
                **({names.TAG_SHADOW: str(result.decision.action)} if result.shadow else {}),
                **self._surroundings(),
            }
            self._tracker.end_update(metrics, tags, decision, model if result.kept else None)
        metrics = {**payloads.stream_metrics(result, self._totals), **summary}
        if self.emissions_g is not None:
            metrics[names.EMISSIONS_CUMULATIVE] = self.emissions_g
        self._log(metrics, result)

    def release(self) -> None:
        """Let the tracker send what was logged since the outcome, because its state is saved."""
        self._tracker.release()
        self._publish()

    def state_dict(self) -> dict[str, Any]:
        """Return the totals and the tracker's state as plain values."""
        return {
            "totals": asdict(self._totals),
            "earlier": {**asdict(self._earlier), "run_id": self.run.run_id},
            "tracker": self._tracker.state_dict(),
        }

    def close(self) -> None:
        """Close the run, the tracker and the meter; calling it again is harmless."""
        if self._closed:
            return
        self._closed = True
        self.run.close("failed" if self.failed else "completed")
        if self._started:
            tags = self._surroundings()
            with suppress(LedgerError):  # its rows wait on disk while it is unreachable
                head = self._ledger.heads()[self.run.chain]
                tags[names.TAG_LEDGER_HEAD] = f"{head['count']}:{head['head']}"
            self._publish()
            self._tracker.finish(self._note(), tags, "FAILED" if self.failed else "FINISHED")
        close_meter(self._meter)
        self._ledger.close()

    def _start_tracker(self) -> None:
        if not self._started:
            self._started = True
            with suppress(Exception):  # import Matplotlib here, not first in the tracker's thread
                import greentrain.training.stream_page  # noqa: F401
            tags = {names.TAG_LEDGER_RUN: self.run.run_id}
            if self._settings.get("shadow"):
                tags[names.TAG_SHADOW] = "true"
            self._tracker.start(self._stream, self._settings, tags)

    def _log(self, metrics: Mapping[str, float], result: UpdateResult) -> None:
        self._tracker.log(metrics, result.position, self._note(), self._surroundings())

    def _publish(self) -> None:
        if self._tracks:
            step = self._results[-1].position if self._results else 0
            self._tracker.publish(self._page, step)

    def _page(self) -> RunFiles:
        from greentrain.training.stream_page import stream_page

        return stream_page(self._ledger, self.run, self._stream)

    def _note(self) -> str:
        return payloads.note(self._stream, self._results, self._totals)

    def _record(self, window: Window) -> None:
        emissions = self._carbon.of(window)
        self._used_j += window.reading.total_j or 0.0
        if emissions.grams is not None:
            self.emissions_g = (self.emissions_g or 0.0) + emissions.grams
        self.run.record(window, emissions)
        if self._started:
            self._tracker.power(payloads.powers(window), window.ended)

    def _surroundings(self) -> dict[str, str]:
        """Return the metered devices and the grid zone, if they are known."""
        carbon = self._carbon.as_dict() or {}
        devices = {source.device for source in self.recorder.sources if source.device}
        tags = {names.TAG_HARDWARE: "; ".join(sorted(devices))}
        tags[names.TAG_ZONE] = (carbon.get("intensity") or {}).get("zone") or ""
        return {name: value for name, value in tags.items() if value}
