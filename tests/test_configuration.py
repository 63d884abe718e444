"""The `greentrain run` and `greentrain init` commands, and the configuration file."""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_lightning.callbacks import EarlyStopping
from typer.testing import CliRunner, Result

from greentrain import demo
from greentrain import training as updating
from greentrain.budget import Budget
from greentrain.carbon import StaticIntensity
from greentrain.cli import app as cli
from greentrain.configuration import TEMPLATE, Configuration, configure, read
from greentrain.configuration.stream_configuration import DEFAULTS
from greentrain.configuration.stream_parser import IN_CODE_ONLY, groups, parse
from greentrain.energy import ConstantMeter
from greentrain.errors import ConfigurationError
from greentrain.ledger import Ledger, verify
from greentrain.memory import ReservoirBuffer
from greentrain.training import CarbonConfig, EvaluationConfig, ModeConfig, StreamTrainer
from greentrain.units import format_energy
from tests import prepared

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "digits" / "stream.yaml"

# A user's module beside the file: its path is what a configuration names.
MINE = """
from collections.abc import Callable
from pathlib import Path

from torch import nn

from greentrain import Experience
from tests.models import Classifier, blobs


class Mine(Classifier):
    def __init__(self, width: int, *, body: nn.Module | None = None, rate: float = 0.5, note=None):
        super().__init__()
        self.body, self.width, self.rate, self.note = body, width, rate, note


class Open(Classifier):
    def __init__(self, **options):
        super().__init__()
        self.options = options


class Plain(nn.Module):
    pass


class Arriving:
    def __init__(self, n: int = 2) -> None:
        self.n = n

    def __iter__(self):
        for number in range(self.n):
            yield Experience(
                f"[b]{number}", blobs(range(4), 10, seed=number), blobs(range(4), 5, seed=90)
            )


def small(width: int = 1) -> Mine:
    return Mine(width)


def not_a_model():
    return 3


def calling(load: Callable[[Path], nn.Module] | None = None, *, n: Callable[[str], int] = len):
    return [load, n]


def in_order(dataset):
    return len(dataset)


def pairs():
    yield 1, 2


def number() -> int:
    return 3


SIZE = 3
"""

MINIMAL = {
    "model": {"class_path": "mine.Mine", "init_args": {"width": 2}},
    "stream": {"class_path": "mine.Arriving"},
    "budget": "400 J",
    "num_experiences": 3,
    "monitor": "val_acc",
    "trainer": {"max_epochs": 2, "accelerator": "cpu"},
    "meter": {"class_path": "greentrain.energy.ConstantMeter", "init_args": {"power_w": 20}},
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a module of the user's and nothing else."""
    (tmp_path / "mine.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    return tmp_path


def write(folder: Path, **changes: Any) -> None:
    config = {key: value for key, value in {**MINIMAL, **changes}.items() if value != "absent"}
    (folder / "stream.yaml").write_text(yaml.safe_dump(config))


def command(*arguments: str) -> Result:
    return CliRunner().invoke(cli.app, [*arguments], catch_exceptions=True)


def greentrain(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return prepared.python(*prepared.CLI, *arguments, cwd=cwd)


def listing(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# --- the file -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no file 'stream.yaml'; 'greentrain init' writes one to start from"),
        ("", "'stream.yaml' is empty; it needs at least model, stream, budget and monitor"),
        ("# only a comment\n", "'stream.yaml' is empty"),
        ("- a\n- b\n", "'stream.yaml' holds a list; it has to be lines of 'key: value'"),
        (
            "budget: 1 Wh\nmodel: [1, 2\nseed: 0\n",
            "'stream.yaml', line 3 is no YAML: ",
        ),
        ("budget: 1 Wh\n\tseed: 0\n", "'stream.yaml', line 2 is no YAML: "),
        (b"budget: \xff\xfe", "'stream.yaml' is no text in UTF-8"),
        (b"budget: \x00", "'stream.yaml' is no YAML: "),
    ],
)
def test_a_file_that_holds_no_configuration(folder, content, message):
    if content is not None:
        (folder / "stream.yaml").write_bytes(
            content if isinstance(content, bytes) else content.encode()
        )
    with pytest.raises(ConfigurationError) as refused:
        read(Path("stream.yaml"))
    assert str(refused.value).startswith(message)
    assert "\n" not in str(refused.value)


def test_a_folder_is_no_file(folder):
    with pytest.raises(ConfigurationError, match=r"cannot read '.*': Is a directory"):
        read(folder)


def test_numbers_are_read_as_lightning_reads_them(folder):
    (folder / "stream.yaml").write_text("a: 1e-3\nb: 1.5\nc: 2\nd: on\n")
    assert read(Path("stream.yaml")) == {"a": 0.001, "b": 1.5, "c": 2, "d": True}


def test_the_command_line_goes_before_the_file(folder):
    write(folder, trainer={"max_epochs": 3, "devices": 1}, meter="absent", buffer="all")
    config = read(Path("stream.yaml"))
    given = configure(
        config,
        [
            *("--budget", "0.1Wh", "--trainer.max_epochs=5", "--loader.batch_size", "8"),
            *("--model.init_args.note", "[1, 2]", "--modes.shrink", "1e-1", "--buffer=null"),
            *("--meter", "greentrain.energy.ConstantMeter", "--meter.init_args.power_w", "20"),
            *("--state_dir", "null", "--limit=3"),
        ],
    )
    assert given.get("limit") == 3
    made = given.make_arguments()
    assert isinstance(made.pop("meter"), ConstantMeter)
    assert made == {
        "budget": "0.1Wh",
        "monitor": "val_acc",
        "num_experiences": 3,
        "trainer": {"max_epochs": 5, "devices": 1},
        "loader": {"batch_size": 8},
        "modes": ModeConfig(shrink=0.1),
        "buffer": None,
        "state_dir": None,
    }
    model = given.make_model()
    assert (model.width, model.note) == (2, [1, 2])
    assert config["trainer"] == {"max_epochs": 3, "devices": 1}  # unchanged


def test_another_class_takes_its_own_arguments(folder):
    write(folder, model={"class_path": "mine.Mine", "init_args": {"width": 2}})
    config = read(Path("stream.yaml"))
    for arguments in (
        ["--model", "mine.small", "--model.init_args.width", "7"],
        ["--model.class_path=mine.small", "--model.init_args", "{width: 7}"],
        ["--model", "{class_path: mine.small, init_args: {width: 7}}"],
    ):
        assert configure(config, arguments).make_model().width == 7
    intensity = ["--carbon.intensity", "greentrain.carbon.StaticIntensity"]
    zone = ["--carbon.intensity.init_args.zone", "DE"]
    carbon = configure(config, [*intensity, *zone]).make_arguments()["carbon"]
    assert isinstance(carbon.intensity, StaticIntensity)


NUMBERS = st.floats(allow_nan=False, allow_infinity=False)


@settings(deadline=None, max_examples=20)
@given(value=st.one_of(st.integers(), NUMBERS, st.booleans(), st.none()), joined=st.booleans())
def test_any_value_arrives_where_its_key_says(value, joined):
    key, text = "--model.init_args.note", json.dumps(value)
    config = {**MINIMAL, "model": f"{__name__}.Noted", "stream": f"{__name__}.nothing"}
    config.pop("meter")
    _, found, _ = parse(config, [f"{key}={text}"] if joined else [key, text])
    assert found["model.init_args.note"] == value


class Noted:
    def __init__(self, note=None):
        self.note = note


def nothing():
    return []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["more.yaml"], "'more.yaml' is not understood"),
        (["--"], "'--' is not understood"),
        (["-x", "3"], "'-x' is not understood"),
        (["--seed"], "--seed lacks its value"),
        (["--sed", "3"], "there is no key 'sed'; did you mean 'seed'?"),
        (["--trainer.max_epoch", "3"], "trainer has no key 'max_epoch'; did you mean 'max_epochs'"),
        (["--budget.amount", "3"], "budget has greentrain.Budget, and it takes no 'amount'"),
        (["--seed", "[1"], "seed is '[1'; it must be a whole number"),
        (["--model", "[1"], "'--model' is no YAML"),
        (["--model"], "the key 'model' is missing; it is the class of a LightningModule"),
    ],
)
def test_what_the_command_line_cannot_say(folder, arguments, message):
    with pytest.raises(ConfigurationError, match=re.escape(message)) as refused:
        configure(MINIMAL, arguments)
    assert "\n" not in str(refused.value)


# --- the keys -------------------------------------------------------------------------------------


OUR_GROUPS = ("carbon", "evaluation", "modes")


def keys() -> list[str]:
    """Every key that a configuration may have, those of Lightning and torch left out."""
    parameters = [name for name in inspect.signature(StreamTrainer).parameters]
    ours = [name for name in parameters if name not in (*IN_CODE_ONLY, *OUR_GROUPS)]
    below = [f"{group}.{name}" for group in OUR_GROUPS for name in defaults_of(groups()[group])]
    return ["model", "stream", *ours, *below, "limit", "report"]


def defaults_of(function: Any) -> dict[str, Any]:
    return {
        name: parameter.default
        for name, parameter in inspect.signature(function).parameters.items()
    }


def flat(config: dict[str, Any]) -> dict[str, Any]:
    """Keys with dots; what is named by class_path, and others' options, stay whole."""
    found = {}
    for key, value in config.items():
        if key in OUR_GROUPS:
            found |= {f"{key}.{name}": each for name, each in value.items()}
        else:
            found[key] = value
    return found


def all_keys_of_the_template() -> dict[str, Any]:
    text = TEMPLATE.read_text(encoding="utf-8")
    return flat(yaml.safe_load(re.sub(r"^# (?= *[a-z_]+:( |$))", "", text, flags=re.MULTILINE)))


def test_every_argument_of_the_trainer_is_a_key_of_the_same_name(folder):
    from greentrain.configuration.stream_parser import keys as accepted

    parser, _, _ = parse(MINIMAL, [])
    found = {
        re.sub(r"\.(class_path|dict_kwargs|init_args.*)$", "", key) for key in accepted(parser)
    }
    assert {re.sub(r"^(trainer|loader)\..*", r"\1", key) for key in found} == set(keys())
    assert set(IN_CODE_ONLY) <= set(inspect.signature(StreamTrainer).parameters)


def test_the_template_explains_every_key():
    assert set(all_keys_of_the_template()) == set(keys())


def test_what_the_template_comments_out_are_the_defaults():
    told = read(TEMPLATE)
    shown = {key: value for key, value in all_keys_of_the_template().items() if key not in told}
    expected = {**defaults_of(StreamTrainer), "limit": None, **DEFAULTS}
    for group in OUR_GROUPS:
        kind = groups()[group]
        expected |= {f"{group}.{name}": each for name, each in defaults_of(kind).items()}
    assert shown == {key: expected[key] for key in shown}
    assert set(shown) >= {f"modes.{name}" for name in defaults_of(groups()["modes"])}


def test_the_page_has_every_key():
    page = (ROOT / "docs" / "reference" / "configuration.md").read_text(encoding="utf-8")
    cells = re.findall(r"^\| `([\w.]+)` \|", page, re.MULTILINE)
    assert sorted(cells) == sorted(keys())


class ReportedTraining(Exception):
    """Carries what a trainer was to be made with."""


def told_by(call: Any) -> dict[str, Any]:
    def record(make_model: Any, **arguments: Any) -> None:
        raise ReportedTraining({"make_model": make_model, **arguments})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(updating, "StreamTrainer", record)
        patch.setattr(demo, "StreamTrainer", record)
        with pytest.raises(ReportedTraining) as told:
            call()
    return dict(told.value.args[0])


@pytest.mark.parametrize("path", [EXAMPLE, TEMPLATE], ids=["example", "template"])
def test_the_example_and_the_template_are_the_demo(path, folder):
    configuration = configure(read(path))
    ours = told_by(configuration.make_trainer)
    theirs = told_by(lambda: demo.run_demo(folder / "out"))
    budget = theirs.pop("budget")
    assert Budget.parse(ours.pop("budget"), num_experiences=ours.pop("num_experiences")) == budget
    assert type(ours.pop("make_model")()) is theirs.pop("make_model") is demo.DigitsModel
    for name in ("name", "ledger", "state_dir", "tracking_uri"):
        theirs.pop(name, None)
        ours.pop(name, None)
    assert ours.pop("seed", 0) == theirs.pop("seed") == 0
    assert theirs.pop("carbon") == CarbonConfig()
    assert ours == theirs
    first, again = configuration.make_stream(), demo.digits_stream(seed=0)
    assert [each.id for each in first] == [each.id for each in again]


# --- what is checked ------------------------------------------------------------------------------

EARLY = "pytorch_lightning.callbacks.EarlyStopping"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bugdet": "1 Wh"}, "there is no key 'bugdet'; did you mean 'budget'?"),
        ({"zzz": 1}, "there is no key 'zzz'; allowed are model, stream, "),
        ({"monitor": "absent"}, "the key 'monitor' is missing; it is the name of the metric"),
        ({"budget": None}, "the key 'budget' is missing; it is an energy such as '20 Wh'"),
        ({"num_experiences": "x"}, "num_experiences is 'x'; it must be a whole number or null"),
        ({"num_experiences": 2.5}, "num_experiences is 2.5; it must be a whole number or null"),
        ({"mode": "up"}, "mode is 'up'; it must be 'max' or 'min'"),
        ({"evaluation": {"eval_on": "all"}}, "evaluation.eval_on is 'all'; it must be 'seen', '"),
        ({"budget": 5}, "budget is 5; it must be a text or a Budget by class_path"),
        ({"carbon": {"pue": "big"}}, "carbon.pue is 'big'; it must be a number or null"),
        ({"carbon": "DE"}, "carbon is 'DE'; it holds lines of 'key: value'"),
        ({"carbon": {"zon": "DE"}}, "carbon has no key 'zon'; did you mean 'zone'?"),
        ({"name": 7}, "name is 7; it must be a text"),
        ({"limit": 0}, "limit is 0; it must be a whole number above 0 or null"),
        ({"limit": True}, "limit is True; it must be a whole number above 0 or null"),
        ({"buffer": "some"}, "buffer is 'some'; it must be the path of a class, 'all' or null"),
        ({"modes": {"shrnk": 1}}, "modes has no key 'shrnk'; did you mean 'shrink'?"),
        ({"modes": {"shrink": "a"}}, "modes.shrink is 'a'; it must be a number"),
        ({"modes": 3}, "modes is 3; it holds lines of 'key: value'"),
        ({"ledgr": "x"}, "there is no key 'ledgr'; did you mean 'ledger'?"),
        ({"ledger": 3}, "ledger is 3; it must be a text"),
        ({"tracking_uri": 3}, "tracking_uri is 3; it must be a text or null"),
        ({"report": "mine.py"}, "report is 'mine.py', which is no folder"),
        (
            {"trainer": {"max_epoch": 3}},
            "trainer has no key 'max_epoch'; did you mean 'max_epochs'",
        ),
        (
            {"trainer": {"max_epochs": "x"}},
            "trainer.max_epochs is 'x'; it must be a whole number or null",
        ),
        (
            {"trainer": {"devices": [1, {}]}},
            "trainer.devices has '{}' in it, which has to be a",
        ),
        ({"trainer": {"max_steps": 3}}, "trainer has max_steps, which the controller decides"),
        ({"trainer": {"callbacks": 3}}, "trainer.callbacks is 3; it must be a list, a Callback by"),
        (
            {"trainer": {"callbacks": [{"class_path": f"{EARLY}s"}]}},
            f"trainer.callbacks has {EARLY}s, and there is no 'EarlyStoppings' in ",
        ),
        (
            {"trainer": {"callbacks": [{"class_path": EARLY, "init_args": {"patience": 1}}]}},
            f"trainer.callbacks has {EARLY}, and it lacks monitor",
        ),
        (
            {"trainer": {"callbacks": [{"class_path": EARLY, "init_args": {"monitr": "a"}}]}},
            f"trainer.callbacks has {EARLY}, and it takes no 'monitr'",
        ),
        (
            {
                "trainer": {
                    "callbacks": [
                        {"class_path": EARLY, "init_args": {"monitor": "a", "patience": "b"}}
                    ]
                }
            },
            f"trainer.callbacks has {EARLY}, and its patience is 'b'; it must be a whole number",
        ),
        ({"loader": {"shuffle": False}}, "loader has no key 'shuffle'; allowed are batch_size,"),
        (
            {"loader": {"batch_size": "x"}},
            "loader.batch_size is 'x'; it must be a whole number or null",
        ),
        (
            {"loader": {"collate_fn": "mine.nope"}},
            "loader.collate_fn is 'mine.nope', and there is no 'nope' in mine",
        ),
        (
            {"loader": {"sampler": "mine.no"}},
            "loader.sampler is 'mine.no', and there is no 'no' in",
        ),
        (
            {"model": "mine.Mine"},
            "model.init_args lacks width",
        ),
        (
            {"model": {"class_path": "mine.Min"}},
            "model.class_path is 'mine.Min', and there is no 'Min' in mine; did you mean 'Mine'?",
        ),
        ({"model": {"class_pat": "x"}}, "model has no key 'class_pat'; did you mean 'class_path'?"),
        (
            {"model": {"init_args": {}}},
            "the key 'model' is missing; it is the class of a LightningModule",
        ),
        ({"model": ["mine.Mine"]}, "model is ['mine.Mine']; it holds lines of 'key: value'"),
        (
            {"model": "Mine"},
            "model.class_path is 'Mine'; it must be the path of a class or function, with",
        ),
        (
            {"model": "..Mine"},
            "model.class_path is '..Mine'; it must be the path of a class or function",
        ),
        (
            {"model": "nosuch.Mine"},
            "model.class_path is 'nosuch.Mine', and there is no module 'nosuch'",
        ),
        ({"model": "mine.SIZE"}, "model.class_path is 'mine.SIZE', which cannot be called: 3"),
        (
            {"model": "mine.Plain"},
            "model.class_path is 'mine.Plain', and a mine.Plain is no LightningModule of ",
        ),
        (
            {"model": "broken.Model"},
            "model.class_path is 'broken.Model', and importing broken failed: ModuleNotFoundError: "
            "No module named 'not_there_either'",
        ),
        (
            {"model": {"class_path": "mine.Mine", "init_args": {"width": 1, "rat": 2}}},
            "model.init_args has no key 'rat'; did you mean 'rate'?",
        ),
        (
            {"model": {"class_path": "mine.Mine", "init_args": {"width": "wide"}}},
            "model.init_args.width is 'wide'; it must be a whole number",
        ),
        (
            {
                "model": {
                    "class_path": "mine.Mine",
                    "init_args": {
                        "width": 1,
                        "body": {"class_path": "torch.nn.Linear", "init_args": {"in_features": 1}},
                    },
                }
            },
            "model.init_args.body has torch.nn.Linear, and it lacks out_features",
        ),
        (
            {"stream": {"class_path": "mine.Arriving", "init_args": {"n": "all"}}},
            "stream.init_args.n is 'all'; it must be a whole number",
        ),
        (
            {"stream": "mine.number"},
            "stream.class_path is 'mine.number', which gives 3; it has to give experiences",
        ),
        (
            {"buffer": {"class_path": "greentrain.memory.ReservoirBuffer"}},
            "buffer.init_args lacks max_size",
        ),
        ({"meter": "greentrain.energy.NoMeter"}, "meter.class_path is 'greentrain.energy.NoMeter'"),
        # What is right in form and cannot be used is refused by the part that it is for.
        ({"budget": "lots"}, "cannot read the energy 'lots'"),
        ({"modes": {"shrink": 2}}, "shrink and perturb are 2"),
        ({"trainer": {"max_epochs": 0}}, "trainer has max_epochs=0"),
    ],
)
def test_what_is_wrong_is_one_line_and_nothing_is_written(
    folder, monkeypatch, capsys, changes, message
):
    (folder / "broken.py").write_text("import not_there_either\n")
    write(folder, **changes)
    before = listing(folder)
    monkeypatch.setattr(sys, "argv", ["greentrain", "run", "stream.yaml"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    line = capsys.readouterr().err
    assert line.startswith(f"greentrain: {message}")
    assert line.count("\n") == 1
    assert line.endswith("\n")
    assert listing(folder) == before


def test_a_model_that_a_function_makes_is_checked_when_it_is_made(folder):
    write(folder, model="mine.not_a_model")
    configuration = configure(read(Path("stream.yaml")))
    with pytest.raises(ConfigurationError, match=r"mine\.not_a_model', and a builtins\.int is no"):
        configuration.make_model()


# --- what is made ---------------------------------------------------------------------------------


def configured(folder: Path, **changes: Any) -> Configuration:
    write(folder, **changes)
    return configure(read(Path("stream.yaml")))


def test_each_model_is_a_new_one_in_all_its_parts(folder):
    body = {"class_path": "torch.nn.Linear", "init_args": {"in_features": 2, "out_features": 3}}
    arguments = {"width": 4, "body": body, "rate": 1e-3, "note": ["any", "thing"]}
    configuration = configured(folder, model={"class_path": "mine.Mine", "init_args": arguments})
    first, second = configuration.make_model(), configuration.make_model()
    assert (first.width, first.rate) == (4, 0.001)
    assert first.body is not second.body
    assert not first.body.weight.equal(second.body.weight)


def test_a_function_and_its_further_arguments_are_called(folder):
    assert configured(folder, model="mine.small").make_model().width == 1
    model = {"class_path": "mine.Open", "dict_kwargs": {"depth": 3}}
    assert configured(folder, model=model).make_model().options == {"depth": 3}
    with pytest.raises(ConfigurationError, match=r"model\.init_args has no key 'depth'"):
        configured(folder, model={"class_path": "mine.Open", "init_args": {"depth": 3}})


def test_everything_that_is_given_reaches_the_trainer(folder):
    buffer = {"class_path": "greentrain.memory.ReservoirBuffer", "init_args": {"max_size": 9}}
    stopping = {"class_path": EARLY, "init_args": {"monitor": "train_loss"}}
    arguments = told_by(
        configured(
            folder,
            name="mine",
            buffer=buffer,
            trainer={"max_epochs": 3, "callbacks": [stopping], "gradient_clip_val": 1},
            loader={"batch_size": 4, "sampler": "mine.in_order"},
            modes={"shrink": 0.5, "perturb": 0.1},
            evaluation={"eval_on": "window"},
            ledger="a.db",
            state_dir="s",
            tracking_uri="sqlite:///m.db",
        ).make_trainer
    )
    assert arguments.pop("make_model")().width == 2
    assert arguments["loader"].pop("sampler")([1, 2]) == 2
    kept, trainer = arguments.pop("buffer"), arguments.pop("trainer")
    assert isinstance(kept, ReservoirBuffer)
    assert kept.max_size == 9
    (callback,) = trainer.pop("callbacks")
    assert isinstance(callback, EarlyStopping)
    assert trainer == {"max_epochs": 3, "gradient_clip_val": 1}
    assert isinstance(arguments.pop("meter"), ConstantMeter)
    assert arguments == {
        "name": "mine",
        "budget": "400 J",
        "num_experiences": 3,
        "monitor": "val_acc",
        "loader": {"batch_size": 4},
        "evaluation": EvaluationConfig(eval_on="window"),
        "modes": ModeConfig(shrink=0.5, perturb=0.1),
        "ledger": "a.db",
        "state_dir": "s",
        "tracking_uri": "sqlite:///m.db",
    }


def test_what_is_not_given_is_left_to_the_trainer(folder):
    given = {"num_experiences": "absent", "trainer": "absent", "meter": "absent", "buffer": None}
    arguments = told_by(configured(folder, **given).make_trainer)
    arguments.pop("make_model")
    assert arguments == {
        "budget": "400 J",
        "monitor": "val_acc",
        "buffer": None,
        "ledger": "sqlite:///greentrain.db",
        "state_dir": "greentrain-state",
    }


def test_functions_are_given_by_their_path(folder):
    def called(**given: str) -> list[Any]:
        stream = {"class_path": "mine.calling", "init_args": given}
        return list(configured(folder, stream=stream).make_stream())

    assert called() == [None, len]
    import mine

    assert called(load="mine.in_order", n="mine.number") == [mine.in_order, mine.number]
    with pytest.raises(
        ConfigurationError, match=r"stream\.init_args\.load is 'mine\.numbr'.*mean 'n"
    ):
        called(load="mine.numbr")


def test_arguments_are_made_anew_each_time(folder):
    stopping = [{"class_path": EARLY, "init_args": {"monitor": "a"}}]
    given = configured(
        folder, buffer="greentrain.memory.FullBuffer", trainer={"callbacks": stopping}
    )
    first, again = given.make_arguments(), given.make_arguments()
    assert first["buffer"] is not again["buffer"]
    assert first["trainer"]["callbacks"][0] is not again["trainer"]["callbacks"][0]


# --- the commands ---------------------------------------------------------------------------------

LINE = re.compile(r"^ ?(\d+)  \S.* (?:J|Wh)\b.*$", re.M)
"""The line of an experience."""


@pytest.mark.parametrize("every", [1, None])
def test_the_last_line_says_what_is_left_after_all_payments(folder, every):
    write(folder, limit=2, baseline_every=every)
    done = command("run", "stream.yaml")
    assert done.exit_code == 0, done.output
    (used, left) = re.findall(r"experiences: (.*) used.*; (.*) are left of", done.output)[0]
    ledger = Ledger("greentrain.db", create=False)
    status = ledger.status(ledger.rows("budget")[0]["budget_id"])
    windows = ledger.rows("window")
    reasons = [row["reason"] for row in ledger.rows("decision")]
    ledger.close()
    assert reasons.count("BASELINE") == (1 if every else 0)
    assert left == format_energy(status.left)
    assert used == format_energy(sum(row["energy_j"] for row in windows))


def test_a_run_goes_on_where_it_was(folder):
    write(folder, limit=1, report="out")
    first = command("run", "stream.yaml")
    assert first.exit_code == 0, first.output
    assert re.search(r"^ 0  \[b\]0 +full retrain ", first.output, re.M)
    assert "[b]1" not in first.output
    assert first.output.endswith(
        "Next: greentrain explain --ledger sqlite:///greentrain.db --experience '[b]0'\n"
    )
    assert re.search(r"^1 experience: .* used.*; .* are left of a budget of ", first.output, re.M)
    second = command("run", "stream.yaml", "--limit", "null")
    assert second.exit_code == 0, second.output
    assert "[b]0 " not in second.output
    assert re.search(r"^ 1  \[b\]1 ", second.output, re.M)
    ledger = Ledger("greentrain.db", create=False)
    outcomes = [row["experience_id"] for row in ledger.rows("outcome")]
    assert verify(ledger).ok
    ledger.close()
    assert outcomes == ["[b]0", "[b]1"]
    report = json.loads(Path("out/report.json").read_text())
    assert len(report["runs"]) == 2
    assert len(report["experiences"]) == 2
    third = command("run", "stream.yaml", "--limit=null")
    assert third.output == (
        "Nothing new has arrived: the stream has had 2 experiences.\n"
        "Next: greentrain explain --ledger sqlite:///greentrain.db\n"
    )
    assert third.exit_code == 0
    more = command("run", "stream.yaml", "--stream.init_args.n", "3", "--limit", "null")
    assert LINE.findall(more.output) == ["2"]


def test_outputs_that_are_not_wanted_are_not_written(folder):
    write(folder, report=None, state_dir=None)
    before = listing(folder)
    result = command("run", "stream.yaml", "--limit", "1")
    assert result.exit_code == 0, result.output
    assert listing(folder) - before == {"greentrain.db"}


def test_a_stream_yields_experiences(folder):
    write(folder, stream="mine.pairs")
    result = command("run", "stream.yaml")
    assert isinstance(result.exception, ConfigurationError)
    assert str(result.exception) == (
        "the stream yields a tuple; it has to yield Experience(id, train, val)"
    )


def test_init_writes_what_runs_and_overwrites_nothing(folder):
    assert command("init").output == (
        "wrote stream.yaml, which works as it is\nNext: greentrain run stream.yaml\n"
    )
    assert Path("stream.yaml").read_bytes() == TEMPLATE.read_bytes()
    assert next(iter(configure(read(Path("stream.yaml"))).make_stream())).id == "0-first"
    Path("stream.yaml").write_text("mine")
    again = command("init")
    assert isinstance(again.exception, ConfigurationError)
    assert str(again.exception) == (
        "'stream.yaml' exists already and was not changed; name another file with --out"
    )
    assert Path("stream.yaml").read_text() == "mine"
    nowhere = command("init", "--out", "nowhere/stream.yaml")
    assert "cannot write 'nowhere/stream.yaml': No such file" in str(nowhere.exception)


def test_the_help_says_how_keys_are_given():
    shown = command("run", "--help").output
    assert "CONFIG.yaml" in shown
    assert "--trainer.max_epochs 3" in " ".join(shown.split())


def test_a_mistake_is_reported_before_anything_heavy_is_loaded(tmp_path):
    (tmp_path / "stream.yaml").write_text("")
    code = (
        "import sys; sys.argv = ['greentrain', 'run', 'stream.yaml']\n"
        "from greentrain.cli.app import main\n"
        "try: main()\n"
        "except SystemExit as ended: print(ended.code, 'torch' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "2 False\n"
    assert done.stderr.startswith("greentrain: 'stream.yaml' is empty;")
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_the_real_commands(tmp_path):
    wrote = greentrain("init", cwd=tmp_path)
    assert wrote.returncode == 0, wrote.stderr
    wrong = greentrain("run", "stream.yaml", "--trainer.max_epoch", "1", cwd=tmp_path)
    assert wrong.returncode == 2
    assert wrong.stderr == (
        "greentrain: trainer has no key 'max_epoch'; did you mean 'max_epochs'?\n"
    )
    assert listing(tmp_path) == {"stream.yaml"}
    (tmp_path / "mine.py").write_text(MINE)
    run = greentrain(
        *("run", "stream.yaml", "--limit", "2", "--trainer.max_epochs", "1"),
        *("--model", "mine.small", "--model.init_args.width", "3"),
        *("--stream", "{class_path: mine.Arriving}", "--tracking_uri", "sqlite:///mlflow.db"),
        cwd=tmp_path,
    )
    assert run.returncode == 0, run.stderr
    assert LINE.findall(run.stdout) == ["0", "1"]
    assert listing(tmp_path) >= {"greentrain.db", "greentrain-state", "mlflow.db", "report.html"}


@pytest.mark.slow
def test_the_example_runs(tmp_path):
    run = greentrain("run", str(EXAMPLE), "--limit", "3", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert LINE.findall(run.stdout) == ["0", "1", "2"]
    assert listing(tmp_path / "digits-out") >= {"greentrain.db", "state", "report.html"}
