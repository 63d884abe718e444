"""Measure what the pauses of a fit use: saving, waiting and continuing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

from greentrain.callbacks.pause_rule import PauseCosts
from greentrain.carbon import CarbonAccount
from greentrain.carbon.saved_grams import SavedGrams, Stretch, saved_grams
from greentrain.energy import Reading, WindowRecorder
from greentrain.units import format_energy, plural

ASSUMED_IDLE = 0.3
"""Share of the training's power that a waiting process is assumed to use, before it is measured."""
_PHASES = ("pausing", "waiting", "resuming")


class PauseUsage:
    """Seconds and joules of the pauses of a fit, and the power of its training.

    Attributes:
        pauses: Pauses so far.
        seconds: Seconds of pausing, waiting and resuming.
        energy_j: Joules of each; a lower bound where a meter had none.
        saved_j: Joules of the last saving; ``None`` before.
        decided: Decisions to wait that were carried out so far.
        worked: Stretches of training: start, end and joules.
        idle_times: Stretches of pausing, waiting and resuming.
    """

    def __init__(self) -> None:
        self.pauses = 0
        self.seconds = dict.fromkeys(_PHASES, 0.0)
        self.energy_j = dict.fromkeys(_PHASES, 0.0)
        self.saved_j: float | None = None
        self.decided = 0
        self.worked: list[Stretch] = []
        self.idle_times: list[Stretch] = []
        self._restart_s, self._restart_j = 0.0, 0.0
        self._train_s, self._train_j = 0.0, 0.0
        self._idle_s, self._idle_j = 0.0, 0.0
        self._recorder: WindowRecorder | None = None
        self._resuming: int | None = None  # depth of the open window
        self._edge: tuple[Reading, datetime] | None = None

    @property
    def power_w(self) -> float | None:
        """Mean power of the training; ``None`` if it is unknown."""
        return self._train_j / self._train_s if self._train_s and self._train_j else None

    @property
    def idle_w(self) -> float | None:
        """Mean power while waiting; ``None`` before it is measured."""
        return self._idle_j / self._idle_s if self._idle_s and self._idle_j else None

    def begin(self, recorder: WindowRecorder, now: datetime) -> None:
        """Begin to measure how long a start takes; in ``setup``."""
        self._recorder, self._edge = recorder, (recorder.read(), now)

    def started(self, now: datetime) -> None:
        """End the start: each later start is expected to take as much."""
        self._restart_s, self._restart_j = self._since(now)
        if self.pauses:
            self.seconds["resuming"] += self._restart_s
            self.energy_j["resuming"] += self._restart_j
            began = now - timedelta(seconds=self._restart_s)
            self.idle_times.append((began, now, self._restart_j))

    def begin_resuming(self) -> None:
        """Begin the window of a fit that continues, once its checkpoint is read."""
        if self._recorder is not None and self._resuming is None:
            self._recorder.enter("resuming")
            self._resuming = self._recorder.depth

    def end_resuming(self) -> None:
        """End that window, before the first batch."""
        if self._recorder is not None and self._resuming is not None:
            self._recorder.leave_to(self._resuming - 1)
            self._resuming = None

    def restart(self) -> dict[str, Any]:
        """Return the seconds and joules from the start of the process to the first batch."""
        return {"restart_s": self._restart_s, "restart_j": self._restart_j, **self.so_far()}

    def so_far(self) -> dict[str, Any]:
        """Return the seconds and joules of all pauses, and the powers, as plain values."""
        return {
            "seconds": dict(self.seconds),
            "energy_j": dict(self.energy_j),
            "power_w": self.power_w,
            "idle_w": self.idle_w,
        }

    def train(self, now: datetime) -> None:
        """Count the time since the last call as training."""
        train_s, train_j = self._since(now)
        began = now - timedelta(seconds=train_s)
        if self.worked and self.worked[-1][1] == began:
            began, _, before_j = self.worked.pop()
            self.worked.append((began, now, before_j + train_j))
        elif train_s:
            self.worked.append((began, now, train_j))
        self._train_s, self._train_j = self._train_s + train_s, self._train_j + train_j

    def idle(self, now: datetime) -> None:
        """Count the time since the last call as waiting, so that the next decision has it."""
        idle_s, idle_j = self._since(now)
        self._idle_s, self._idle_j = self._idle_s + idle_s, self._idle_j + idle_j

    @contextmanager
    def measured(self, phase: str, now: Callable[[], datetime]) -> Iterator[None]:
        """Record a block as a window of a phase, and add it up."""
        assert self._recorder is not None
        began = now()
        self._recorder.enter(phase)
        try:
            yield
        finally:
            used_j = self._recorder.leave().reading.total_j or 0.0
            self.seconds[phase] += (now() - began).total_seconds()
            self.energy_j[phase] += used_j
            self.idle_times.append((began, now(), used_j))
            if phase == "pausing":
                self.saved_j = used_j
            self._since(now())

    def costs(self, *, waits: bool, new: bool) -> PauseCosts:
        """Return the costs of a pause, for a decision.

        Args:
            waits: Whether the process waits, instead of ending.
            new: Whether the fit has not begun, so that nothing is saved.
        """
        power_w = self.power_w
        saved_j = 0.0 if new else self.saved_j or 0.0
        if power_w is None:  # in units of the training's power
            restart_s = 0.0 if waits else self._restart_s
            idle_w = ASSUMED_IDLE if waits else 0.0
            return PauseCosts(idle_w=idle_w, pause_j=restart_s, restart_s=restart_s)
        if waits:
            idle_w = self.idle_w if self.idle_w is not None else ASSUMED_IDLE * power_w
            return PauseCosts(power_w=power_w, idle_w=idle_w, pause_j=saved_j)
        pause_j = saved_j + self._restart_j
        return PauseCosts(power_w=power_w, pause_j=pause_j, restart_s=self._restart_s)

    def shifted(self, carbon: CarbonAccount | None) -> dict[str, Any]:
        """Return what the pauses of a finished fit shifted, for the ledger.

        Args:
            carbon: Converts joules to grams; ``None`` if the grams are unknown.
        """
        stretches = [*self.worked, *self.idle_times]
        saved = SavedGrams()
        if carbon is not None and self.worked:
            first = min(began for began, _, _ in stretches)
            saved = saved_grams(carbon, first, self.worked, self.idle_times)
        return {
            "shifted_g": saved.grams,
            "low_g": saved.low_g,
            "high_g": saved.high_g,
            "decided": self.decided,
            "pauses": self.pauses,
            "seconds": dict(self.seconds),
            "energy_j": dict(self.energy_j),
        }

    def sentence(self) -> str:
        """Return the pauses in words."""
        waited_h = self.seconds["waiting"] / 3600.0
        used = ", ".join(f"{format_energy(self.energy_j[phase])} {phase}" for phase in _PHASES)
        power_w = self.idle_w
        idle = "" if power_w is None else f" at {power_w:.0f} W"
        return f"{plural(self.pauses, 'pause')}, {waited_h:.1f} h of waiting{idle}; used {used}"

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for a checkpoint."""
        return {
            "pauses": self.pauses,
            "seconds": dict(self.seconds),
            "energy_j": dict(self.energy_j),
            "saved_j": self.saved_j,
            "train": [self._train_s, self._train_j],
            "idle": [self._idle_s, self._idle_j],
            "decided": self.decided,
            "worked": _plain(self.worked),
            "idle_times": _plain(self.idle_times),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Continue from the values of a checkpoint."""
        self.pauses, self.saved_j = int(state["pauses"]), state["saved_j"]
        self.seconds, self.energy_j = dict(state["seconds"]), dict(state["energy_j"])
        self._train_s, self._train_j = state["train"]
        self._idle_s, self._idle_j = state["idle"]
        self.decided = int(state.get("decided", 0))  # not in a state of an earlier release
        self.worked, self.idle_times = (
            [(datetime.fromisoformat(a), datetime.fromisoformat(b), j) for a, b, j in state[name]]
            if name in state
            else []
            for name in ("worked", "idle_times")
        )

    def _since(self, now: datetime) -> tuple[float, float]:
        """Return seconds and joules since the last call."""
        if self._recorder is None or self._edge is None:
            return 0.0, 0.0
        reading, (before, then) = self._recorder.read(), self._edge
        self._edge = reading, now
        return max(0.0, (now - then).total_seconds()), max(0.0, (reading - before).total_j or 0.0)


def _plain(stretches: list[Stretch]) -> list[list[Any]]:
    return [[began.isoformat(), ended.isoformat(), joules] for began, ended, joules in stretches]
