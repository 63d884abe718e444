"""Streams that pay from one budget, at one price."""

from __future__ import annotations

import json
import math
import re
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import TensorDataset

from greentrain import Budget, Experience, StreamTrainer
from greentrain.budget import Balance
from greentrain.control import (
    SKIP,
    Action,
    Candidate,
    Estimate,
    Option,
    PricedPolicy,
    State,
    UpdateMode,
    inputs_of,
    options_of,
    solve_price,
)
from greentrain.control.forecast import NO_FORECAST, forecast_options, kept_gain
from greentrain.decisions.stream_budget import (
    DECISIONS_EACH,
    MOST_DECISIONS,
    RECENT,
    BudgetPeers,
    experiences_of,
    newest,
)
from greentrain.errors import ConfigurationError
from greentrain.ledger import DecisionSummary, Ledger, RunLog, canonical, verify
from greentrain.report import build
from greentrain.training import EvaluationConfig
from tests import prepared
from tests.ledger.cluster import Cluster
from tests.models import Classifier, Clock, Tick, blobs, constant_meter
from tests.prepared import CONTEXT

MOMENT = datetime(2026, 1, 1, tzinfo=UTC)
ZERO = Estimate(mean=0.0, sd=0.0, upper=0.0)
ROUNDS = 8
BATCH_S, LOOK_S = 1 / 128, 1 / 2048
"""Binary fractions: no sum of them is rounded, whenever a clock was started."""


# --- what is to come, by hand ---------------------------------------------------------------------


class Gains:
    """A utility model that expects one gain of any update."""

    def __init__(self, gain: float) -> None:
        self.gain = gain

    def gains(self, actions, state, drops):
        row = [0.0 if action.mode is UpdateMode.SKIP else self.gain for action in actions]
        return np.array([row] * len(drops)), np.zeros((len(drops), len(row)))


def offer(gain: float, cost_j: float = 10.0) -> list[Option]:
    return [
        Option(candidate=Candidate(action=SKIP, steps=0), cost_j=ZERO, gain=ZERO),
        Option(
            candidate=Candidate(action=Action(mode=UpdateMode.REPLAY), steps=10),
            cost_j=Estimate(mean=cost_j, sd=0.0, upper=cost_j),
            gain=Estimate(mean=gain, sd=0.0, upper=gain),
        ),
    ]


def state(remaining: int, **changes) -> State:
    # One of two experiences alike: those to come are taken to be as large, and to cost as much.
    return State(
        position=1,
        num_experiences=1 + remaining,
        has_model=True,
        metric_before=0.5,
        n_new=100,
        n_stored=100,
        **changes,
    )


def decide(gain: float, others):
    """Decide at 5 J per experience, with 8 to come, about one that offers a gain for 10 J."""
    options, left_j = offer(gain), 40.0
    forecast = forecast_options(options, state(8), Gains(gain), (), left_j, others)
    balance = Balance(total_j=left_j, spent_j=0.0, reserved_j=0.0)
    return PricedPolicy().decide(state(8), options, balance, forecast)


def test_two_streams_solve_one_price():
    # Half of the experiences offer 0.4 for 10 J, half 0.1: at 5 J each the first half is paid for
    # and the other is not, which is so from a price of 0.1 for 10 J on.
    rich, poor = decide(0.4, [(offer(0.1), 4.0)]), decide(0.1, [(offer(0.4), 4.0)])
    assert rich.min_gain_per_j == pytest.approx(0.01)
    assert poor.min_gain_per_j == pytest.approx(0.01)
    assert rich.action.mode is UpdateMode.REPLAY
    assert poor.action.mode is UpdateMode.SKIP
    # By itself a stream would pay no more than every second update, and at its own price.
    assert decide(0.4, []).min_gain_per_j == pytest.approx(0.04)
    assert decide(0.1, []).min_gain_per_j == pytest.approx(0.01)


@given(
    remaining=st.integers(2, 200),
    shares=st.lists(st.floats(0.01, 0.3), min_size=1, max_size=3),
    gain=st.floats(0.01, 0.5),
)
def test_the_experiences_to_come_are_shared_out(remaining, shares, gain):
    ahead = remaining - 1
    others = [(offer(0.2), share * ahead) for share in shares]
    found = forecast_options(
        offer(gain), state(remaining), Gains(gain), (), 5.0 * remaining, others
    )
    tables, weights = found.tables, found.weights
    assert len(tables) == len(weights)
    assert math.fsum(weights) == pytest.approx(ahead)
    assert weights[-len(others) :] == tuple(weight for _, weight in others)
    assert tables[-1] == ((0.0, 0.0), (10.0, 0.2))
    assert 0.0 <= solve_price(tables, 5.0, weights=weights) <= 0.05


def test_what_is_dear_is_valued_with_caution():
    sure = Estimate(mean=0.3, sd=0.1, upper=0.5)
    dear = [offer(0.0)[0], Option(candidate=offer(0.0)[1].candidate, cost_j=sure, gain=sure)]
    # Up to one standard deviation is taken off, and what turns out worse is not kept.
    for left_j, discount in ((8 * 0.3, 0.0), (8 * 0.15, 0.5), (8 * 0.05, 1.0)):
        expected = kept_gain(0.3, 0.1, discount)
        others = [(dear, 2.0)]
        found = forecast_options(offer(0.1), state(8), Gains(0.1), (), left_j, others)
        assert found.tables[-1][1] == pytest.approx((0.3, expected))


def test_a_stream_without_a_model_or_a_future_saves_for_nothing():
    others = [(offer(0.4), 4.0)]
    new = State(position=0, num_experiences=8, has_model=False, metric_before=None)
    assert forecast_options(offer(0.1), new, Gains(0.1), (), 40.0, others) == NO_FORECAST
    assert forecast_options(offer(0.1), state(1), Gains(0.1), (), 5.0, others) == NO_FORECAST


# --- what the ledger tells of the others ----------------------------------------------------------


def decided(number: int, stream: str, reason: str = "NO_GAIN") -> DecisionSummary:
    return DecisionSummary(
        entry_id=number, stream=stream, experience_id=f"{number}", reason=reason, moment=MOMENT
    )


def test_the_newest_offers_of_each_other_stream_are_reported():
    recent = [decided(number, "abc"[number % 3]) for number in range(60, 0, -1)]
    chosen = newest(recent, "a")
    assert [each.entry_id for each in chosen] == [59, 58, 56, 55, 53, 52, 50, 49]
    assert len(chosen) == 2 * DECISIONS_EACH
    many = [decided(number, f"{number}") for number in range(60, 0, -1)]
    assert [each.entry_id for each in newest(many, "60")] == [*range(59, 59 - MOST_DECISIONS, -1)]


def test_a_decision_that_weighed_nothing_tells_nothing():
    recent = [decided(2, "b", "BUDGET_EXHAUSTED"), decided(1, "b", "NO_MODEL")]
    assert newest(recent, "a") == []


def test_who_came_more_often_is_expected_more_often():
    # Of 8 experiences, with the present one, 2 are a's, 4 are b's, and of c's 2 nothing is known:
    # b is taken to bring 4 of each 6.
    chosen = [decided(1, "b"), decided(2, "b")]
    assert experiences_of(["b", "b", "c", "a", "b", "c", "b"], chosen, "a", 12) == [4.0, 4.0]
    assert experiences_of(["a", "a"], [], "a", 12) == []


@pytest.fixture(params=["sqlite", "postgresql"])
def either(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ledger]:
    """An empty ledger, on each engine."""
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    if request.param == "postgresql":
        cluster: Cluster = request.getfixturevalue("cluster")
        url = cluster.new()
    ledger = Ledger(url)
    yield ledger
    ledger.close()


def decide_in(run: RunLog, budget_id: str, name: str, *, reason: str = "NO_GAIN", gain=0.1) -> None:
    alternatives = [
        {
            "update_mode": str(option.action.mode),
            "step_fraction": option.action.step_fraction,
            "steps": option.candidate.steps,
            "predicted_j": option.cost_j.mean,
            "cost_sd_j": 0.0,
            "upper_bound_j": option.cost_j.upper,
            "predicted_gain": option.gain.mean,
            "gain_sd": 0.0,
            "gain_upper": option.gain.upper,
            "why_lost": "",
        }
        for option in offer(gain)
    ]
    run.append(
        "decision",
        budget_id=budget_id,
        experience_id=name,
        position=0,
        reservation_id=None,
        update_mode="SKIP",
        step_fraction=0.0,
        reason=reason,
        sentence="as told",
        predicted_j=0.0,
        upper_bound_j=0.0,
        min_gain_per_j=None,
        state="null",
        alternatives=canonical(alternatives),
    )


def test_what_others_decide_is_read_as_it_comes(either):
    budget_id = either.open_budget("team", Budget.parse("1 Wh"))
    elsewhere = either.open_budget("elsewhere", Budget.parse("1 Wh"))
    others = BudgetPeers(either, "a")
    with either.open_run("stream", "a") as a, either.open_run("stream", "b") as b:
        decide_in(a, budget_id, "0")
        decide_in(b, budget_id, "0", gain=0.2)
        decide_in(b, elsewhere, "1")
        assert [each.experience_id for each in others.read(budget_id)] == ["0"]
        assert others.seen() == 1
        assert others.prospects(9) == ((offer(0.2), 3.0),)  # a has one and the present one, b one
        decide_in(b, budget_id, "0", gain=0.3)  # anew, after a crash
        decide_in(b, budget_id, "2", gain=0.4)
        decide_in(b, budget_id, "2", reason="BASELINE", gain=0.9)
        assert others.read(budget_id) == []
        assert others.seen() == 2
        assert others.prospects(8) == ((offer(0.4), 2.0), (offer(0.3), 2.0))
        assert others.read(budget_id) == []
        assert (others.seen(MOMENT), others.seen(datetime(2126, 1, 1, tzinfo=UTC))) == (2, 0)
        assert [each.stream for each in either.decisions_since(budget_id)] == [*"abbbb"]
    assert BudgetPeers(either, "b").read(elsewhere)[0].experience_id == "1"


def test_what_was_long_ago_is_not_expected_again(ledger):
    budget_id = ledger.open_budget("team", Budget.parse("1 Wh"))
    others = BudgetPeers(ledger, "a")
    with ledger.open_run("stream", "a") as a, ledger.open_run("stream", "b") as b:
        decide_in(b, budget_id, "last")
        for number in range(RECENT):
            decide_in(a, budget_id, f"{number}")
    others.read(budget_id)
    assert others.seen() == 1
    assert others.prospects(100) == ()


# --- streams --------------------------------------------------------------------------------------


def turned(count: int, seed: int, degrees: float) -> TensorDataset:
    samples, labels = blobs(range(4), count, seed).tensors
    angle = math.radians(degrees)
    sin, cos = math.sin(angle), math.cos(angle)
    return TensorDataset(samples @ torch.tensor([[cos, sin], [-sin, cos]]), labels)


def changing(number: int) -> Experience:
    """The classes lie 45 degrees further each time: whoever does not train is soon wrong."""
    return Experience(
        f"{number}", turned(80, number, 45.0 * number), turned(16, 100 + number, 45.0 * number)
    )


def stationary(number: int) -> Experience:
    return Experience(f"{number}", turned(80, 50 + number, 0.0), turned(16, 150 + number, 0.0))


def streaming(folder: Path, name: str, **changes) -> StreamTrainer:
    """A stream that draws 1 J a batch, and a sixteenth for each batch it only looks at."""
    clock = Clock()

    class Timed(Classifier):
        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.05)

        def validation_step(self, batch, batch_idx):
            clock.seconds += LOOK_S
            super().validation_step(batch, batch_idx)

    arguments = {
        "budget": "800 J",
        "num_experiences": 2 * ROUNDS,
        "shared_budget": "team",
        "monitor": "val_acc",
        "evaluation": EvaluationConfig(eval_on="current"),
        "buffer": None,
        "ledger": f"sqlite:///{folder / 'greentrain.db'}",
        "trainer": {"max_epochs": 10, "accelerator": "cpu", "callbacks": [Tick(clock, BATCH_S)]},
        "loader": {"batch_size": 8},
        "meter": constant_meter(clock, power_w=128.0),
        "name": name,
        **changes,
    }
    return StreamTrainer(Timed, **arguments)


def accuracy(trainer: StreamTrainer, experience: Experience) -> float:
    samples, labels = experience.val.tensors
    with torch.no_grad():
        return float((trainer.model.layer(samples).argmax(1) == labels).float().mean())


def taken(folder: Path, **changes) -> tuple[list[float], list[float]]:
    """Let a changing and a stationary stream take turns; return their joules and accuracies."""
    with (
        streaming(folder, "changing", **changes) as first,
        streaming(folder, "stationary", **changes) as second,
    ):
        joules, accuracies = [0.0, 0.0], [0.0, 0.0]
        for number in range(ROUNDS):
            turns = ((first, changing(number)), (second, stationary(number)))
            for index, (trainer, experience) in enumerate(turns):
                joules[index] += trainer.update(experience).energy_j
                accuracies[index] += accuracy(trainer, experience) / ROUNDS
    return joules, accuracies


def ledger_of(folder: Path) -> Ledger:
    return Ledger(f"sqlite:///{folder / 'greentrain.db'}", create=False)


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> tuple[Path, list[float], list[float]]:
    """Two streams that have paid from one budget: their folder, joules and accuracies."""
    folder = tmp_path_factory.mktemp("shared")
    return (folder, *taken(folder))


def test_joules_go_where_they_buy_most(tmp_path, shared):
    halves_j, apart = taken(tmp_path, shared_budget=None, budget="400 J", num_experiences=ROUNDS)
    folder, shared_j, together = shared
    assert halves_j[0] <= 400.0 < shared_j[0]
    assert sum(shared_j) <= 800.0
    assert together[0] > apart[0] + 0.1
    assert together[1] > apart[1] - 0.02
    ledger = ledger_of(folder)
    (budget,) = ledger.rows("budget")
    status = ledger.status(budget["budget_id"])
    assert (budget["name"], status.spent) == ("team", pytest.approx(sum(shared_j)))
    assert verify(ledger).failures == ()
    (told,) = build(ledger)["budgets"]
    ledger.close()
    assert told["spent_j"] == pytest.approx(sum(shared_j))


def test_every_decision_can_be_taken_again_from_its_row(shared):
    ledger = ledger_of(shared[0])
    rows = ledger.rows("decision")
    ledger.close()
    assert len(rows) == 2 * ROUNDS
    for before, row in enumerate(rows):
        inputs = inputs_of(json.loads(row["state"]), json.loads(row["alternatives"]))
        known, _, _, forecast = inputs
        assert known.remaining == 2 * ROUNDS - before  # the decisions of both are counted
        assert known.position == row["position"] == before // 2
        if not known.has_model:
            continue
        assert math.fsum(forecast.weights) == pytest.approx(known.remaining - 1)
        again = PricedPolicy().decide(*inputs)
        assert (str(again.action.mode), again.action.step_fraction, again.min_gain_per_j) == (
            row["update_mode"],
            row["step_fraction"],
            row["min_gain_per_j"],
        )


def test_a_stream_that_joins_later_is_counted_and_heard(tmp_path):
    names = ["changing", "stationary"] * 3 + ["changing", "late", "stationary"] * 3
    trainers = {name: streaming(tmp_path, name, num_experiences=len(names)) for name in names[:2]}
    numbers = dict.fromkeys([*trainers, "late"], 0)
    for name in names:
        if name == "late" and name not in trainers:
            trainers[name] = streaming(tmp_path, name, num_experiences=len(names))
        make = stationary if name == "stationary" else changing
        trainers[name].update(make(numbers[name]))
        numbers[name] += 1
    for trainer in trainers.values():
        trainer.close()
    ledger = ledger_of(tmp_path)
    status = ledger.status(ledger.find_budget("team")["budget_id"])
    rows = ledger.rows("decision")
    assert verify(ledger).failures == ()
    ledger.close()
    states = [State.from_dict(json.loads(row["state"])) for row in rows]
    assert [known.remaining for known in states] == list(range(len(names), 0, -1))
    assert status.within
    # The last decision but one is the late one's third: the two others' offers end its tables.
    told = [options_of(json.loads(row["alternatives"])) for row in rows]
    _, _, _, forecast = inputs_of(json.loads(rows[-2]["state"]), [])
    costs_j = [[cost_j for cost_j, _ in table] for table in forecast.tables]
    for heard in (told[-3], told[-4]):  # the changing one's last, and the stationary one's
        assert [option.cost_j.mean for option in heard] in costs_j
    assert rows[-2]["run_id"] not in {rows[-3]["run_id"], rows[-4]["run_id"]}


def test_one_of_them_goes_on_from_its_state(tmp_path):
    outcomes = []
    for name in ("whole", "pieces"):
        folder = tmp_path / name
        folder.mkdir()
        drawn, left = [], []
        with streaming(folder, "stationary") as second:
            first = streaming(folder, "changing", state_dir=folder / "state")
            for number in range(4):
                if name == "pieces" and number == 2:
                    first.close()
                    first = streaming(folder, "changing", state_dir=folder / "state")
                    assert set(first.known) == {"0", "1"}
                for trainer, make in ((first, changing), (second, stationary)):
                    result = trainer.update(make(number))
                    drawn.append((result.position, str(result.decision.action), result.energy_j))
                    left.append(result.left_j)
            first.close()
        outcomes.append((drawn, left))
    assert outcomes[0] == outcomes[1]


def test_a_share_is_sized_once_for_all(tmp_path):
    terms = {"budget": "40 % of full", "calibration_budget": "400 J", "num_experiences": 6}
    with (
        streaming(tmp_path, "changing", **terms) as first,
        streaming(tmp_path, "stationary", **terms) as second,  # before there is an amount
    ):
        for number in range(3):
            first.update(changing(number))
            second.update(stationary(number))
        assert first.budget == second.budget
        total_j = first.budget.energy_j
    ledger = ledger_of(tmp_path)
    names = [row["name"] for row in ledger.rows("budget")]
    status = ledger.status(ledger.find_budget("team")["budget_id"])
    assert verify(ledger).failures == ()
    ledger.close()
    assert names == ["changing/calibration", "team"]
    assert (status.total, status.within) == (total_j, True)


def test_other_terms_are_refused(tmp_path):
    with streaming(tmp_path, "changing") as first:
        first.update(changing(0))
        with pytest.raises(
            ConfigurationError, match=r"'team' of 800 J for 16 experiences, and .* for 3"
        ):
            streaming(tmp_path, "stationary", num_experiences=3)


@pytest.mark.parametrize("name", ["", " ", 3])
def test_a_budget_has_a_name(tmp_path, name):
    with pytest.raises(ConfigurationError, match=f"shared_budget is {name!r}; it must be a text"):
        streaming(tmp_path, "changing", shared_budget=name)
    assert list(tmp_path.iterdir()) == []


def _contend(folder: str, number: int, ready: Barrier) -> None:
    path = Path(folder)
    told = {"drawn_j": 0.0, "overrun_j": 0.0, "wrong": ""}
    try:
        with streaming(path, f"stream {number}", budget="300 J", num_experiences=12) as trainer:
            ready.wait(120.0)
            for each in range(6):
                result = trainer.update(changing(each))
                told["drawn_j"] += result.energy_j
                told["overrun_j"] += result.overrun_j
    except BaseException:
        told["wrong"] = traceback.format_exc()
    (path / f"{number}.json").write_text(json.dumps(told))


@pytest.mark.slow
def test_two_processes_at_once_never_use_more_than_the_budget(tmp_path):
    ready = CONTEXT.Barrier(2)
    workers = [
        CONTEXT.Process(target=_contend, args=(str(tmp_path), number, ready)) for number in (0, 1)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        worker.close()
    told = [json.loads((tmp_path / f"{number}.json").read_text()) for number in (0, 1)]
    assert [one["wrong"] for one in told] == ["", ""]
    drawn_j, overrun_j = (sum(one[name] for one in told) for name in ("drawn_j", "overrun_j"))
    assert min(one["drawn_j"] for one in told) > 0.0
    assert drawn_j <= 300.0 + overrun_j
    ledger = ledger_of(tmp_path)
    (budget,) = ledger.rows("budget")
    status = ledger.status(budget["budget_id"])
    remaining = [
        State.from_dict(json.loads(row["state"])).remaining for row in ledger.rows("decision")
    ]
    failures = verify(ledger).failures
    ledger.close()
    assert failures == ()
    assert (status.within, status.taken.open) == (True, 0)
    assert status.spent + status.taken.overrun == pytest.approx(drawn_j)
    assert len(remaining) == 12
    assert min(remaining) <= 2


@pytest.mark.slow
def test_the_example_pays_from_one_budget(tmp_path):
    root = Path(__file__).parents[2]
    done = prepared.python(root / "examples" / "many_streams.py", "--quick", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"(?m)^\w+ \d: [A-Z_]+(?: at \d+%)?: [A-Z]", done.stdout)) == 4
    ledger = Ledger(str(tmp_path / "team.db"), create=False)
    (budget,) = ledger.rows("budget")
    failures, status = verify(ledger).failures, ledger.status(budget["budget_id"])
    ledger.close()
    assert (budget["name"], failures, status.within) == ("team", (), True)
