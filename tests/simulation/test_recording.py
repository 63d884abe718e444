"""Tables that are really recorded, at 1 J a batch of a fake clock."""

from __future__ import annotations

import dataclasses
import os
import signal
import time
from pathlib import Path

import pytest
import torch

from greentrain import StreamTrainer, UpdateMode
from greentrain.control import SKIP, Action, CostModel, Reason
from greentrain.control.decision import decided
from greentrain.errors import BudgetExceeded, ConfigurationError, MeterError
from greentrain.ledger import Ledger, verify
from greentrain.memory import ReservoirBuffer
from greentrain.simulation import always_full, follow, read_table, train_once
from greentrain.simulation.recorded_table import UNTRAINED, RecordedTable
from greentrain.simulation.recording import record
from greentrain.streams import Experience, Stream
from tests.models import Classifier, Clock, Tick, constant_meter, experience
from tests.prepared import CONTEXT

FULL = Action(mode=UpdateMode.FULL_RETRAIN)
WARM = Action(mode=UpdateMode.WARM_START)
REPLAY = Action(mode=UpdateMode.REPLAY)


def stream(length: int = 3) -> Stream:
    """Two classes, a third one, and a fourth one."""
    experiences: list[Experience] = [
        experience("0-first", (0, 1), seed=0),
        experience("1-new-class", (2,), seed=1),
        experience("2-new-class", (3,), seed=2),
    ]
    return Stream(experiences[:length], name="blobs")


def options(folder, clock: Clock, **changes):
    return {
        "out": Path(folder) / "table.jsonl",
        "budget": "1 kWh",
        "monitor": "val_acc",
        "ledger": f"sqlite:///{folder}/greentrain.db",
        "trainer": {
            "max_epochs": 5,
            "accelerator": "cpu",
            "callbacks": [Tick(clock, validation_s=0.001)],
        },
        "loader": {"batch_size": 8},
        "meter": constant_meter(clock),
        **changes,
    }


def recorded(folder, make_model=Classifier, length: int = 3, **changes):
    return record(make_model, stream(length), **options(folder, Clock(), **changes))


class Scripted:
    """Take one action after the other."""

    def __init__(self, *actions) -> None:
        self.actions = actions

    def decide(self, state, options, balance, forecast):
        wanted = self.actions[state.position]
        option = next(each for each in options if each.action == wanted)
        return decided(option, Reason.FIXED, "as written down")


class Generous(CostModel):
    """Reserve so much that no guard cuts anything."""

    def __init__(self) -> None:
        super().__init__()
        self.calibrate(fixed_j=1000.0, step_j=1.0)

    def observe(self, mode, steps, actual_j, *, method="") -> None:
        pass


class Diverging(Classifier):
    """Become no number in its first step."""

    def training_step(self, batch, batch_idx):
        return super().training_step(batch, batch_idx) * float("inf")


def test_a_merged_table_knows_every_update_that_may_have_been_the_last(tmp_path):
    table = recorded(tmp_path, step_fractions=(0.5, 1.0))
    assert table.header.keys == "merged"
    assert table.header.stream == "blobs"
    assert table.header.cost == "measured: given"
    assert set(table.rows) == {
        (0, UNTRAINED),
        (1, UNTRAINED),
        (1, "updated-0"),
        (2, UNTRAINED),
        (2, "updated-0"),
        (2, "updated-1"),
        (2, "full-1"),
    }
    assert len(table.rows[0, UNTRAINED]) == 1 + 2  # SKIP, and full retraining at two step fractions
    assert len(table.rows[2, "updated-1"]) == 1 + 3 * 2
    waiting = table.probes[2, "updated-0"]
    assert (waiting.n_new, waiting.n_stored, waiting.n_pending) == (80, 80, 40)
    assert table.row(2, "updated-0", SKIP).after == "updated-0"
    assert table.row(2, "updated-0", FULL).after == "full-2"
    assert table.row(2, "updated-0", WARM).after == "updated-2"
    assert table.probes[1, UNTRAINED].metric_before is None
    assert not (tmp_path / "table.jsonl.weights").exists()


def test_a_merged_table_is_exact_for_full_retraining_and_the_best_fixed_chain(tmp_path):
    merged = recorded(tmp_path, step_fractions=(1.0,))
    exact = recorded(tmp_path, exact=True, out=tmp_path / "exact.jsonl", name="exact")
    for actions in [(FULL, SKIP, SKIP), (FULL, FULL, SKIP), (SKIP, FULL, SKIP), (FULL, WARM, WARM)]:
        assert follow(merged, actions).metrics == follow(exact, actions).metrics


def test_what_it_costs_is_in_the_table(tmp_path):
    table = recorded(tmp_path, length=1, step_fractions=(1.0,))
    full = table.row(0, UNTRAINED, FULL)
    assert full.steps == 5 * 10  # epochs of 80 samples in batches of 8
    assert full.samples == 5 * 80
    assert full.energy_j == pytest.approx(50.0)  # at 1 J a batch


def test_an_exact_table_holds_every_way_that_a_stream_may_go(tmp_path):
    table = recorded(tmp_path, exact=True)
    assert table.header.keys == "exact"
    keys = set(table.keys(2))
    start = "0:FULL_RETRAIN"
    assert keys == {
        UNTRAINED,
        "1:FULL_RETRAIN",  # which forgets what was before it
        *(f"{start} 1:{mode}" for mode in ("SKIP", "REPLAY", "WARM_START")),
    }
    assert follow(table, [FULL, SKIP, WARM]).actions == (FULL, SKIP, WARM)


@pytest.mark.slow
@pytest.mark.parametrize("actions", [(FULL, WARM, REPLAY), (FULL, SKIP, WARM), (SKIP, FULL, FULL)])
def test_a_stream_that_takes_the_same_actions_comes_to_the_same(tmp_path, actions):
    table = recorded(tmp_path, exact=True)
    clock = Clock()
    given = options(tmp_path, clock, ledger=f"sqlite:///{tmp_path}/stream.db", budget="50 kWh")
    given.pop("out")
    with StreamTrainer(
        Classifier, num_experiences=3, policy=Scripted(*actions), **given
    ) as streaming:
        streaming._runner.state.controller.cost = Generous()
        results = streaming.run(stream())
    row, key = None, UNTRAINED
    for position, result in enumerate(results):
        row = table.row(position, key, actions[position])
        key = row.after
        assert result.update_mode is row.action.mode
        assert result.steps == row.steps
        assert result.kept == row.kept
        if row.steps:
            assert result.metric_after == pytest.approx(row.metric_after, abs=1e-9)


def test_a_full_retraining_is_trained_once_for_all_places(tmp_path):
    made = []
    recorded(tmp_path, exact=True, on_row=made.append)
    table = read_table(tmp_path / "table.jsonl")
    for position in (1, 2):
        rows = [table.row(position, key, FULL) for key in table.keys(position)]
        assert len({(row.energy_j, row.metric_after, row.steps) for row in rows}) == 1
    assert len(made) == sum(len(rows) for rows in table.rows.values())


def test_skipping_keeps_the_weights_and_loses_on_what_is_new(tmp_path):
    table = recorded(tmp_path, step_fractions=(1.0,))
    once, full = train_once(table), always_full(table)
    # Two of three classes, then two of four, is all that a model of the first two can predict.
    assert once.metrics[1] <= 2 / 3 + 0.01
    assert once.metrics[2] <= 1 / 2 + 0.01
    assert full.anytime > once.anytime


def test_all_of_it_is_paid_from_the_budget_and_nothing_else(tmp_path):
    recorded(tmp_path, step_fractions=(1.0,))
    ledger = Ledger(f"sqlite:///{tmp_path}/greentrain.db", create=False)
    try:
        assert verify(ledger).failures == ()
        (budget,) = ledger.rows("budget")
        balance = ledger.balance(budget["budget_id"])
        windows_j = sum(row["energy_j"] for row in ledger.rows("window"))
        assert balance.within
        assert balance.reserved_j == 0.0
        assert balance.spent_j == pytest.approx(windows_j)
    finally:
        ledger.close()
    table = read_table(tmp_path / "table.jsonl")
    drawn_j = {row.energy_j for rows in table.rows.values() for row in rows}
    assert balance.spent_j > sum(drawn_j)


def test_a_budget_that_does_not_suffice_can_be_followed_by_a_larger_one(tmp_path):
    made = []
    with pytest.raises(BudgetExceeded, match="continue with a larger budget under another name"):
        recorded(tmp_path, step_fractions=(1.0,), budget="200 J", on_row=made.append)
    assert made
    more = []
    table = recorded(tmp_path, step_fractions=(1.0,), name="more", on_row=more.append)
    rows = [row for rows in table.rows.values() for row in rows]
    assert len(made) + len(more) == len(rows)
    whole = recorded(tmp_path, step_fractions=(1.0,), out=tmp_path / "whole.jsonl", name="whole")
    assert_alike(table, whole)


@pytest.mark.filterwarnings("ignore:BudgetGuard")
def test_a_training_that_had_to_be_cut_is_no_row(tmp_path):
    clock = Clock()

    class Surge(Tick):
        """Use a hundred times as much from the 60th batch on."""

        batches = 0

        def on_train_batch_start(self, *args, **kwargs) -> None:
            self.batches += 1
            self.step_s = 0.01 if self.batches < 60 else 1.0
            super().on_train_batch_start(*args, **kwargs)

    made = []
    given = options(tmp_path, clock, step_fractions=(0.5, 1.0), on_row=made.append)
    with pytest.raises(BudgetExceeded, match="FULL_RETRAIN of 0-first may use more than"):
        record(
            Classifier,
            stream(1),
            **{**given, "trainer": {**given["trainer"], "callbacks": [Surge(clock)]}},
        )
    # Two batches warm up, 25 are of half of the steps, and the rest of 50 would be of all of them.
    assert [str(row.action) for row in made] == ["SKIP", "FULL_RETRAIN at 50%"]


def test_a_modelled_cost_follows_the_samples(tmp_path):
    table = recorded(
        tmp_path,
        length=1,
        step_fractions=(1.0,),
        cost="samples",
        joules_per_sample=0.5,
        fixed_j=7.0,
    )
    assert table.row(0, UNTRAINED, FULL).energy_j == 7.0 + 0.5 * 400
    assert table.header.cost == "modelled: 7 J and 0.5 J per sample trained on"


def test_a_model_that_becomes_no_number_is_not_kept(tmp_path):
    table = recorded(tmp_path, Diverging, length=1, step_fractions=(1.0,))
    full = table.row(0, UNTRAINED, FULL)
    assert not full.kept
    assert full.after == UNTRAINED
    assert table.metric(full) == table.row(0, UNTRAINED, SKIP).metric_after


def test_without_memory_what_is_skipped_is_lost(tmp_path):
    table = recorded(tmp_path, step_fractions=(1.0,), buffer=None)
    assert [row.action.mode for row in table.rows[1, "updated-0"]] == [
        UpdateMode.SKIP,
        UpdateMode.WARM_START,
    ]
    assert table.probes[2, "updated-0"].n_new == 40


def test_a_bounded_memory_bounds_what_a_full_retraining_costs(tmp_path):
    table = recorded(tmp_path, step_fractions=(1.0,), buffer=ReservoirBuffer(60, seed=0))
    assert [table.row(2, key, FULL).samples for key in table.keys(2)] == [5 * 60] * 4
    assert table.probes[2, "updated-1"].n_stored == 60


def test_a_file_of_another_recording_is_refused(tmp_path):
    recorded(tmp_path, length=1, step_fractions=(1.0,))
    with pytest.raises(ConfigurationError, match="was started with seed=0, and it is now 1"):
        recorded(tmp_path, length=1, step_fractions=(1.0,), seed=1)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"budget": "25 % of full"}, "give an energy"),
        ({"update_modes": [UpdateMode.WARM_START]}, "add FULL_RETRAIN"),
        ({"cost": "samples", "joules_per_sample": -1.0}, "joules_per_sample is -1.0"),
        ({"cost": "guessed"}, "cost is 'guessed'"),
        ({"step_fractions": ()}, "step_fractions are empty"),
    ],
)
def test_what_cannot_be_used_is_refused_before_anything_is_written(tmp_path, changes, named):
    with pytest.raises(ConfigurationError, match=named):
        recorded(tmp_path, **changes)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("ignore:BudgetGuard. the meter measures nothing")
def test_a_meter_that_knows_nothing_can_only_model(tmp_path):
    class Blind:
        """Has a source, and no joules of it."""

        def __init__(self, clock) -> None:
            self._meter = constant_meter(clock)

        def __getattr__(self, name):
            return getattr(self._meter, name)

        def read(self):
            reading = self._meter.read()
            return type(reading)(
                duration_s=reading.duration_s, energy_j=dict.fromkeys(reading.energy_j)
            )

    with pytest.raises(MeterError, match="record with cost='samples'"):
        recorded(tmp_path, length=1, meter=Blind(Clock()))


def assert_alike(one: RecordedTable, other: RecordedTable) -> None:
    """Alike but for the rounding of a clock that began at another time."""

    def rounded(rows):
        return [dataclasses.replace(row, energy_j=round(row.energy_j, 6)) for row in rows]

    assert one.probes == other.probes
    assert one.rows.keys() == other.rows.keys()
    for place, rows in one.rows.items():
        assert rounded(rows) == rounded(other.rows[place])


def _record(folder: str) -> None:
    torch.set_num_threads(1)
    lines = Path(folder, "made")

    def made(row) -> None:
        with lines.open("a") as file:
            file.write("x")

    recorded(folder, step_fractions=(1.0,), on_row=made)


@pytest.mark.slow
def test_a_recording_that_is_killed_again_and_again_goes_on(tmp_path):
    made, kills = tmp_path / "made", 0
    made.touch()
    while True:
        before = made.stat().st_size
        worker = CONTEXT.Process(target=_record, args=(str(tmp_path),))
        worker.start()
        while made.stat().st_size < before + 4 and worker.is_alive():
            time.sleep(0.005)
        if not worker.is_alive():
            worker.join()
            break
        os.kill(worker.pid or 0, signal.SIGKILL)
        worker.join()
        kills += 1
    assert worker.exitcode == 0
    assert kills >= 3
    table = read_table(tmp_path / "table.jsonl")
    whole = recorded(tmp_path, step_fractions=(1.0,), out=tmp_path / "whole.jsonl", name="whole")
    assert_alike(table, whole)
    ledger = Ledger(f"sqlite:///{tmp_path}/greentrain.db", create=False)
    try:
        assert verify(ledger).failures == ()
    finally:
        ledger.close()


@pytest.mark.parametrize(("eval_on", "tuned"), [("seen", False), ("current", True)])
def test_fine_tuning_is_recorded_where_old_data_no_longer_matter(tmp_path, eval_on, tuned):
    modes = (UpdateMode.FULL_RETRAIN, UpdateMode.FINE_TUNE)
    table = recorded(tmp_path, length=2, eval_on=eval_on, update_modes=modes, step_fractions=[1.0])
    found = {row.action.mode for rows in table.rows.values() for row in rows}
    assert (UpdateMode.FINE_TUNE in found) is tuned
