"""Updates in slices: what is planned, what is paid, and what a kill in a pause leaves."""

from __future__ import annotations

import itertools
import json
import os
import signal
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from pytorch_lightning import Callback

from greentrain.carbon import CsvIntensity, Interval
from greentrain.carbon.delay import DelayCosts
from greentrain.carbon.planning import best_steps
from greentrain.carbon.slices import choose_slices
from greentrain.control import Always, UpdateMode
from greentrain.errors import ConfigurationError
from greentrain.ledger import Ledger
from greentrain.report import build
from greentrain.training import CarbonConfig, StartBy
from tests.models import constant_meter, experience
from tests.prepared import CONTEXT
from tests.training.streaming import ledger_url, open_stream, rows
from tests.training.test_waiting import EVENING, HOUR, Time

STEP_S = 360.0
"""A step takes six minutes at 100 W, so the second update of 40 steps takes four hours."""
DIRTY, CLEAN = 1000.0, 100.0


class Passing(Callback):
    """Let a step take its time on the wall and on the meter, after the first update."""

    def __init__(self, time: Time, step_s: float = STEP_S) -> None:
        self.time, self.step_s, self.on_the_wall = time, step_s, False

    def on_train_batch_start(self, *args, **kwargs) -> None:
        self.time.meter.seconds += STEP_S
        if self.on_the_wall:
            self.time.now += timedelta(seconds=self.step_s)


def grid(folder: Path, dirty=(20, 21)) -> CsvIntensity:
    """100 g/kWh, and 1000 in two hours of each evening; the forecast is right."""
    lines = ["datetime_utc,carbon_intensity,forecast"]
    for n in range(5 * 24):
        hour = EVENING.replace(hour=0) - 24 * HOUR + n * HOUR
        value = DIRTY if hour.hour in dirty else CLEAN
        lines.append(f"{hour.isoformat()},{value},{value}")
    (folder / "grid.csv").write_text("\n".join(lines))
    return CsvIntensity(folder / "grid.csv", zone="DE")


def run(folder: Path, time: Time, passing: Passing | None = None, **changes):
    """Run two updates, of which the second one may wait; return its result and the model."""
    passing = passing or Passing(time)
    sliced = StartBy(within="12 h", slices=True, clock=lambda: time.now, sleep=time.sleep)
    options = {
        "budget": "100 kWh",
        "policy": Always(mode=UpdateMode.WARM_START),
        "carbon": CarbonConfig(intensity=grid(folder)),
        "start_by": sliced,
        "trainer": {"max_epochs": 2, "accelerator": "cpu", "callbacks": [passing]},
        "meter": constant_meter(time.meter),
        **changes,
    }
    with open_stream(folder, clock=time.meter, **options) as stream:
        stream.update(experience("0-first", (0, 1)))
        passing.on_the_wall = True
        result = stream.update(experience("1-second", (0, 1), seed=1))
        return result, torch.cat([each.flatten() for each in stream.model.parameters()])


def waiting(folder: Path) -> dict:
    return json.loads(rows(folder, "decision")[1]["waiting"])


def test_an_update_pauses_for_the_dirty_hours_and_pays_for_the_pause(tmp_path):
    time = Time()
    result, weights = run(tmp_path, time)
    planned = waiting(tmp_path)
    assert planned["slices"][0][0] == planned["started_utc"] == EVENING.isoformat()
    assert planned["slices"][0][1] == "2026-12-01T20:00:00+00:00"
    assert planned["slices"][1][0] == "2026-12-01T22:00:00+00:00"
    # As planned: two hours, a pause of two hours, and the rest.
    assert sum(time.slept) == 2 * 3600.0
    assert time.now == EVENING + 6 * HOUR
    before, after = (
        json.loads(row["content"])
        for row in rows(tmp_path, "event")
        if row["topic"] == "waiting" and "pause_utc" in row["content"]
    )
    assert before["pause_utc"] == "2026-12-01T20:00:00+00:00"
    assert (after["resumed_utc"], after["idle_j"]) == ("2026-12-01T22:00:00+00:00", 72e3)
    # 10 W for two hours, in a window and in a reservation of its own.
    windows = rows(tmp_path, "window")
    waited = [one for one in windows if one["phase"] == "waiting"]
    assert [one["energy_j"] for one in waited] == [72e3]
    reserved = {row["reservation_id"]: row for row in rows(tmp_path, "reservation")}
    settled = {row["reservation_id"]: row["actual_j"] for row in rows(tmp_path, "settlement")}
    pause_id = waited[0]["reservation_id"]
    assert reserved[pause_id]["purpose"] == "waiting of 1-second"
    assert settled[pause_id] == 72e3
    update_id = rows(tmp_path, "decision")[1]["reservation_id"]
    of_update = [one["energy_j"] for one in windows if one["reservation_id"] == update_id]
    assert settled[update_id] == pytest.approx(sum(of_update))
    # The update is charged in full. What a step costs is learned without the pause.
    outcome = rows(tmp_path, "outcome")[1]
    assert outcome["energy_j"] == result.energy_j
    assert result.energy_j - result.update_j >= 72e3
    assert result.update_j == pytest.approx(40 * STEP_S * 100.0)
    # Realised: half of the work at 100 instead of 1000 g/kWh, less two idle hours at 1000.
    saved_g = (result.update_j / 2 * (DIRTY - CLEAN) - 72e3 * DIRTY) / 3.6e6
    assert outcome["shifted_g"] == pytest.approx(saved_g)
    # Before the wait 30 W were assumed, so the prediction is lower.
    at_once_g = 0.4 * (CLEAN + DIRTY) / 2
    assert planned["now_g"] == pytest.approx(at_once_g)
    assert planned["predicted_saving_g"] == pytest.approx(at_once_g - 40.0 - 60.0)
    ledger = Ledger(ledger_url(tmp_path), create=False)
    shifted = build([ledger])["avoided"]["shifted"]
    ledger.close()
    assert (shifted["waits"], shifted["waited_s"]) == (1, 7200.0)
    assert shifted["shifted_g"] == pytest.approx(saved_g)
    # Exactly the weights of an update that never pauses.
    (tmp_path / "block").mkdir()
    block = Time()
    _, expected = run(tmp_path / "block", block, start_by=None, meter=constant_meter(block.meter))
    assert torch.equal(weights, expected)


def test_no_pause_where_it_is_not_worth_it_or_not_affordable(tmp_path):
    (tmp_path / "a").mkdir()
    time = Time()
    run(tmp_path / "a", time, carbon=CarbonConfig(intensity=grid(tmp_path, dirty=())))
    assert time.slept == []
    # 40 steps use 0.4 kWh; a pause reserves 1.5 times its 60 Wh. Both do not fit.
    (tmp_path / "b").mkdir()
    time = Time()
    result, _ = run(tmp_path / "b", time, budget="0.66 kWh", num_experiences=2)
    assert result.steps > 0
    assert time.slept == []


def test_a_slow_update_does_not_pause_beyond_its_latest_end(tmp_path):
    """Steps of twelve minutes need eight hours, where four are predicted and six are left."""
    time = Time()
    start_by = StartBy(within="2 h", slices=True, clock=lambda: time.now, sleep=time.sleep)
    run(tmp_path, time, Passing(time, 2 * STEP_S), start_by=start_by)
    assert time.slept == []


def _killed(folder: str) -> None:
    torch.set_num_threads(1)
    time = Time()
    time.on_sleep = lambda: time.now > EVENING + 3 * HOUR and os.kill(os.getpid(), signal.SIGKILL)
    run(Path(folder), time, state_dir=f"{folder}/state")


def test_a_kill_in_a_pause_is_recovered_within_the_same_deadline(tmp_path):
    worker = CONTEXT.Process(target=_killed, args=(str(tmp_path),))
    worker.start()
    worker.join()
    assert worker.exitcode == -signal.SIGKILL
    assert len(rows(tmp_path, "outcome")) == 1
    time = Time()
    time.now = EVENING + 4 * HOUR
    passing = Passing(time)
    passing.on_the_wall = True
    sliced = StartBy(within="12 h", slices=True, clock=lambda: time.now, sleep=time.sleep)
    options = {
        "budget": "100 kWh",
        "policy": Always(mode=UpdateMode.WARM_START),
        "carbon": CarbonConfig(intensity=grid(tmp_path)),
        "start_by": sliced,
        "trainer": {"max_epochs": 2, "accelerator": "cpu", "callbacks": [passing]},
        "state_dir": tmp_path / "state",
    }
    with open_stream(tmp_path, clock=time.meter, **options) as stream:
        stream.update(experience("1-second", (0, 1), seed=1))
    again = json.loads(rows(tmp_path, "decision")[-1]["waiting"])
    assert again["arrived_utc"] == EVENING.isoformat()
    assert len(rows(tmp_path, "outcome")) == 2
    # Both reservations of the killed process stay reserved until they are released.
    settled = {row["reservation_id"] for row in rows(tmp_path, "settlement")}
    lost = [r for r in rows(tmp_path, "reservation") if r["reservation_id"] not in settled]
    update, pause = (one["purpose"] for one in lost)
    assert update.startswith("WARM_START")
    assert pause == "waiting of 1-second"


@pytest.mark.parametrize("state", ["new", "running"])
@pytest.mark.parametrize("seed", range(6))
def test_slices_are_the_cheapest_of_all_orders_of_steps(seed, state):
    """Against all subsets of eight steps: their costs, the switches, and the cost of the end."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.rand(8, generator=generator).double().numpy()
    ended = torch.rand(6, generator=generator).double().cumsum(0).numpy() / 4

    def cost(steps: tuple[int, ...]) -> float:
        switches = sum(b > a + 1 for a, b in itertools.pairwise(steps))
        switches += state == "running" and steps[0] > 0
        return sum(values[list(steps)]) + 0.2 * switches + ended[steps[-1] - 2]

    best = min(cost(each) for each in itertools.combinations(range(8), 3))
    segments = best_steps(values, 3, 0.0, state=state, ended=ended, switch=0.2)
    steps = tuple(n for first, last in segments for n in range(first, last))
    assert cost(steps) == pytest.approx(best, abs=1e-6)


@pytest.mark.parametrize("known_h", [0, 4])
def test_a_forecast_of_less_than_half_of_the_time_gives_no_slices(known_h):
    forecast = [
        Interval(start=EVENING + n * HOUR, end=EVENING + (n + 1) * HOUR, g_per_kwh=100.0)
        for n in range(known_h)
    ]
    costs = DelayCosts(energy_j=1e6, duration=HOUR, idle_w=10.0, lasts=24 * HOUR, worth_g=1.0)
    given = {"now": EVENING, "costs": costs, "pause_cost": timedelta(minutes=10)}
    assert choose_slices(forecast, end=EVENING + 9 * HOUR, **given) is None
    assert choose_slices(forecast, end=EVENING, **given) is None


def test_slices_can_be_asked_for_in_words():
    from greentrain.training.start_by import check_start_by

    with pytest.raises(ConfigurationError, match="'soon' is no duration above 0"):
        StartBy(slices=True, pause_cost="soon")
    account = CarbonConfig(intensity="uk").account()
    for text in (" 24 H in Slices ", "24 h  in slices", "24 h in slices"):
        found = check_start_by(text, account, shadow=False)
        assert found == StartBy(within="24 h", slices=True)
    assert found is not None
    assert (found.within, found.slices, str(found)) == ("24 h", True, "24 h in slices")
    assert not check_start_by("24 h", account, shadow=False).slices
