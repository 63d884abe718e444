"""Methods that the controller weighs next to the plain warm start."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest
import torch
from pytorch_lightning import Callback
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from torch import nn
from torch.utils.data import TensorDataset

from greentrain.callbacks import (
    EarlyExit,
    EnergyMonitor,
    FeatureCache,
    InformativeSubset,
    LoraUpdate,
    SelectiveTraining,
)
from greentrain.cli.explained_decisions import chosen_option, explained_decisions
from greentrain.control import (
    Action,
    Candidate,
    CostModel,
    Decision,
    OptionForecast,
    Reason,
    State,
    UpdateMode,
    UtilityModel,
)
from greentrain.control.options import OptionSet
from greentrain.control.policies.rules import BasePolicy
from greentrain.decisions.history import past_decisions
from greentrain.errors import ConfigurationError
from greentrain.ledger import Ledger
from greentrain.report import build, render_html
from greentrain.training.config import ModeConfig
from greentrain.training.data import UpdateData
from greentrain.training.module_checks import check_callbacks
from greentrain.training.offered_methods import OfferedMethods, StepWork, check_methods
from tests.models import Classifier, Clock, experience
from tests.report.test_core import valid
from tests.training.streaming import ledger_url, open_stream, rows

WARM = Action(mode=UpdateMode.WARM_START)
CACHED = Action(mode=UpdateMode.WARM_START, method="cached")
STATE = State(
    position=1,
    num_experiences=8,
    has_model=True,
    metric_before=0.7,
    metric_last=0.9,
    metric_new=0.5,
    metric_ceiling=1.0,
    n_new=100,
    n_stored=300,
)


class Deep(Classifier):
    """Two layers, whose first one can be frozen; it gives the loss of each sample."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Sequential(nn.Sequential(nn.Linear(2, 16), nn.ReLU()), nn.Linear(16, 4))

    def training_step(self, batch, batch_idx):
        losses = nn.functional.cross_entropy(self.layer(batch[0]), batch[1], reduction="none")
        return {"loss": losses.mean(), "sample_losses": losses}


@dataclass(frozen=True, slots=True, kw_only=True)
class Only(BasePolicy):
    """Warm start with one method, at step fraction 1, whenever it is offered."""

    method: str

    def choose(self, state: State, offered: OptionSet, forecast: OptionForecast) -> Decision:
        for option in offered.affordable:
            action = option.action
            if (action.mode, action.step_fraction, action.method) == (*WARM_AT_1, self.method):
                return offered.update(option, Reason.FIXED, "The policy uses one method")
        return offered.nothing()


WARM_AT_1 = (UpdateMode.WARM_START, 1.0)


def test_each_warm_start_is_offered_with_its_work():
    offered = OfferedMethods({"cached": FeatureCache("trunk"), "other": FeatureCache("head")})
    samples = [TensorDataset(torch.zeros(count, 1)) for count in (40, 120)]
    data = UpdateData(new=samples[0], stored=samples[1], held=samples[0])
    full = Candidate(action=Action(mode=UpdateMode.FULL_RETRAIN), steps=50)
    plain = [full, Candidate(action=WARM, steps=30), Candidate(action=WARM, steps=10)]
    assert offered.offer(plain, data, batch_size=8) == plain  # not tried yet
    offered.works["cached"] = StepWork(step=0.25, first=0.5)
    found = offered.offer(plain, data, batch_size=8)
    # 160 samples are 20 batches: 0.25 * 30 + 0.5 * 20, and half of an epoch 0.25 * 10 + 0.5 * 10.
    assert [each.work for each in found] == [None, None, None, 17.5, 7.5]
    assert str(found[3].action) == "WARM_START with cached"
    offered.keep(CACHED)  # the frozen layers are as they were: only 5 batches are new
    assert [each.work for each in offered.offer(plain, data, 8)[3:]] == [10.0, 3.75]
    offered.keep(WARM)
    assert offered.offer(plain, data, 8) == found


def test_cost_and_gain_of_a_method_start_as_those_of_the_plain_mode():
    cost, gains = CostModel(), UtilityModel()
    cost.calibrate(fixed_j=10.0, step_j=0.5)
    before = cost.predict(UpdateMode.WARM_START, 100)
    tried = cost.predict(UpdateMode.WARM_START, 100, method="cached")
    assert (tried.mean, before.mean) == pytest.approx((60.0, 60.0))
    assert tried.upper > before.upper  # known less well
    assert gains.predict(CACHED, STATE) == gains.predict(WARM, STATE)
    for _ in range(5):  # three times as much as its operations say, and no gain
        cost.observe(UpdateMode.WARM_START, 100, 160.0, method="cached")
        gains.observe(CACHED, STATE, 0.0, 0.01)
    learned = cost.predict(UpdateMode.WARM_START, 100, method="cached")
    assert learned.mean == pytest.approx(160.0, rel=0.15)
    assert cost.predict(UpdateMode.WARM_START, 100).mean < 0.5 * (60.0 + 160.0)
    plain = UtilityModel().predict(WARM, STATE)
    assert gains.predict(WARM, STATE) == plain
    assert gains.predict(CACHED, STATE).mean < 0.3 * plain.mean
    for model, fresh in ((cost, CostModel()), (gains, UtilityModel())):
        fresh.load_state_dict(json.loads(json.dumps(model.state_dict())))
        assert fresh.state_dict() == model.state_dict()
    assert gains.observed() == {}  # priors are fitted to plain modes
    gains.worth["lora"] = 0.5
    half = Action(mode=UpdateMode.WARM_START, step_fraction=0.5)
    lora = Action(mode=UpdateMode.WARM_START, method="lora")
    assert gains.predict(lora, STATE) == gains.predict(half, STATE)


def test_a_method_is_decided_recorded_and_shown(tmp_path):
    clock, cache = Clock(), FeatureCache("layer.0")
    options = {"policy": Only(method="cached"), "methods": {"cached": cache}, "clock": clock}
    options["modes"] = ModeConfig(reuse_fraction=1.0)
    trunks = []
    with open_stream(tmp_path, Deep, state_dir=tmp_path / "state", **options) as stream:
        stream.update(experience("0", [0, 1], count=8))
        for name, seed in (("1", 1), ("2", 2)):
            result = stream.update(experience(name, [2, 3], count=8, seed=seed))
            assert str(result.decision.action) == "WARM_START with cached"
            trunks.append(stream.model.layer[0][0].weight.clone())
    assert torch.equal(*trunks)
    looked_up, came = cache.used
    assert came > 3 * (32 + 48)  # three epochs or more of 32 samples, then of 16 more
    assert came - looked_up == 48  # each was computed once, over both updates
    with open_stream(tmp_path, Deep, state_dir=tmp_path / "state", **options) as again:
        assert again._runner.state.methods.works.keys() == {"cached"}
    *_, last = rows(tmp_path, "decision")
    alternatives = json.loads(last["alternatives"])
    assert [each["method"] for each in alternatives if each.get("chosen")] == ["cached"]
    ledger = Ledger(ledger_url(tmp_path), create=False)
    try:
        _, explained = explained_decisions(ledger)
        assert chosen_option(explained[-1])["method"] == "cached"
        [*_, past] = past_decisions(
            ledger.rows("decision"), ledger.rows("outcome"), more_is_better=True
        )
        assert past.decision.action.method == "cached"
        report = build(ledger)
    finally:
        ledger.close()
    assert valid(report)
    assert [one.get("method") for one in report["experiences"]] == [None, "cached", "cached"]
    assert "Warm start</strong> with <bdi>cached</bdi>" in render_html(report)


def test_adapters_are_merged_before_weights_are_kept(tmp_path):
    methods = {"lora": LoraUpdate(rank=2), "selective": SelectiveTraining("selective_backprop")}
    policy = Only(method="lora")
    with open_stream(tmp_path, Deep, policy=policy, methods=methods) as stream:
        names = list(stream.model.state_dict())
        for position in range(3):
            stream.update(experience(str(position), [position], count=8, seed=position))
        assert list(stream.model.state_dict()) == names
        works = stream._runner.state.methods.works
    assert works.keys() == {"lora", "selective"}
    assert all(work.step > 0 for work in works.values())


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        ([FeatureCache("trunk")], "must be callbacks by name"),
        ({"a b": FeatureCache("trunk")}, "has the name 'a b'"),
        ({"cached": FeatureCache}, "must be a callback"),
        ({"exits": EarlyExit(["layer"], classes=4)}, "change them there"),
        ({"selective": SelectiveTraining()}, r"SelectiveTraining\('selective_backprop'\)"),
        (
            {"part": InformativeSubset()},
            "'part' needs its sampler in each update; give it to trainer",
        ),
        ({"saved": ModelCheckpoint()}, "'saved' is a ModelCheckpoint, which makes no step cheaper"),
        ({"metered": EnergyMonitor()}, "'metered' is a EnergyMonitor"),
        ({"stop": EarlyStopping("loss")}, "'stop' is among the callbacks of trainer"),
    ],
)
def test_methods_that_cannot_be_offered(methods, message):
    with pytest.raises(ConfigurationError, match=message):
        check_methods(methods, ranks=1, shadow=False, callbacks=[EarlyStopping("loss")])


def test_callbacks_that_collide_are_refused_at_opening():
    cache, stop = FeatureCache("trunk"), EarlyStopping("loss")
    with pytest.raises(ConfigurationError, match="'cached' is among the callbacks of trainer"):
        check_methods({"cached": cache}, ranks=1, shadow=False, callbacks=cache)
    for given in ([cache, cache], [stop, EarlyStopping("loss")]):
        with pytest.raises(ConfigurationError, match="twice in its callbacks, or two with one"):
            check_callbacks(given, monitor="val_acc")
    check_callbacks([stop, EarlyStopping("other"), cache, Callback(), Callback()], monitor="v")


def test_what_another_class_learned_under_the_same_name_is_forgotten():
    before, gains, cost = OfferedMethods({"m": FeatureCache("trunk")}), UtilityModel(), CostModel()
    before.works["m"] = StepWork(step=0.25, first=0.5)
    action = Action(mode=UpdateMode.WARM_START, method="m")
    gains.observe(action, STATE, 0.1)
    gains.observe(WARM, STATE, 0.1)
    cost.observe(UpdateMode.WARM_START, 10, 5.0, method="m")
    state = json.loads(json.dumps(before.state_dict()))
    same = OfferedMethods({"m": FeatureCache("head")})
    same.load_state_dict(state, gains, cost)
    assert same.works == before.works and len(gains.state_dict()) == 2
    other = OfferedMethods({"m": LoraUpdate()})
    other.load_state_dict(state, gains, cost)
    assert not other.works and not gains.worth
    assert list(gains.state_dict()) == ["WARM_START"] and not cost.state_dict()["observed"]


def test_methods_are_for_one_process_and_for_own_trainings(tmp_path):
    methods = {"cached": FeatureCache("trunk")}
    with pytest.raises(ConfigurationError, match="2 processes train"):
        check_methods(methods, ranks=2, shadow=False)
    with pytest.raises(ConfigurationError, match="your own job trains"):
        check_methods(methods, ranks=1, shadow=True)
    assert not check_methods({}, ranks=2, shadow=True).names
    wrong = {"cached": FeatureCache("layer.9")}
    with open_stream(tmp_path, Deep, methods=wrong) as stream:
        stream.update(experience("0", [0], count=8))
        with pytest.raises(ConfigurationError, match=r"method 'cached' failed: .*layer\.9"):
            stream.update(experience("1", [1], count=8))
