"""``greentrain priors fit``: from the ledgers of past streams to the next one's priors."""

from __future__ import annotations

import json
from contextlib import closing

import pytest
from typer.testing import CliRunner

import greentrain
from greentrain import open_controller
from greentrain.cli.app import app
from greentrain.control import UpdateMode, UtilityModel
from greentrain.control.priors import GainPriors, fit_priors, read_priors
from greentrain.decisions.past_gains import read_gains
from greentrain.energy import ConstantMeter
from greentrain.errors import ConfigurationError
from greentrain.ledger import Ledger
from tests.models import Classifier, experience
from tests.training.streaming import ledger_url, open_stream


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two ledgers of one stream each, with the gains that their controllers learned."""
    learned = {}
    for seed in (0, 1):
        folder = tmp_path_factory.mktemp("past")
        with open_stream(folder, name="digits", seed=seed) as stream:
            for number, labels in enumerate(((0, 1), (2,), (0, 1, 2), (3,))):
                stream.update(experience(f"{number}", labels, seed=number))
            learned[folder] = stream._runner.state.controller.utility.observed()
    return learned


def fit(*arguments):
    return CliRunner().invoke(app, ["priors", "fit", *map(str, arguments)])


def test_the_gains_in_a_ledger_are_those_that_the_controller_learned(folders):
    for folder, learned in folders.items():
        with closing(Ledger(ledger_url(folder), create=False)) as ledger:
            [(name, gains)] = read_gains([ledger])
        assert name.startswith("digits in ")
        assert sum(map(len, gains.values())) >= 2
        assert set(gains) == set(learned)
        for mode, rows in learned.items():
            assert [pytest.approx(row) for row in rows] == gains[mode]


def test_ledgers_give_a_file_that_the_next_stream_starts_from(folders, tmp_path):
    output = tmp_path / "priors.json"
    done = fit(*(folder / "greentrain.db" for folder in folders), "--out", output)
    assert done.exit_code == 0, done.output
    assert "of 2 streams better than the default ones" in done.output
    assert read_priors(output) == fit_priors(list(folders.values()))
    with open_stream(tmp_path, priors=output) as stream:
        controller = stream._runner.state.controller
        assert controller.utility._priors == read_priors(output) != GainPriors()
        stream.update(experience("first", (0, 1), seed=0))
    with closing(Ledger(ledger_url(tmp_path), create=False)) as ledger:
        [run] = ledger.rows("run")
    settings = json.loads(run["environment"])["settings"]
    assert settings["priors"] == read_priors(output).as_dict()["modes"]


def test_own_training_starts_from_them_too(folders, tmp_path):
    output = tmp_path / "priors.json"
    fit(next(iter(folders)) / "greentrain.db", "--out", output)
    with open_controller(
        "own",
        budget="1 Wh",
        num_experiences=2,
        ledger=ledger_url(tmp_path),
        meter=ConstantMeter(1.0),
        priors=output,
    ) as controller:
        assert controller.control.utility._priors == read_priors(output)


def test_one_update_starts_from_them_too(folders, tmp_path):
    output = tmp_path / "priors.json"
    fit(next(iter(folders)) / "greentrain.db", "--out", output)
    data = experience("new", (0, 1), seed=0)
    greentrain.update(
        Classifier(),
        data.train,
        val=data.val,
        monitor="val_acc",
        ledger=ledger_url(tmp_path),
        meter=ConstantMeter(20.0),
        priors=output,
        max_epochs=1,
        accelerator="cpu",
    )
    with closing(Ledger(ledger_url(tmp_path), create=False)) as ledger:
        [run] = ledger.rows("run")
    settings = json.loads(run["environment"])["settings"]
    assert settings["priors"] == read_priors(output).as_dict()["modes"]


def test_one_stream_alone_is_not_compared(folders, tmp_path):
    done = fit(next(iter(folders)) / "greentrain.db", "--out", tmp_path / "priors.json")
    assert done.exit_code == 0
    assert "cannot be compared" in done.output


def test_a_ledger_without_a_gain_writes_nothing(tmp_path):
    Ledger(ledger_url(tmp_path)).close()
    done = fit(tmp_path / "greentrain.db", "--out", tmp_path / "priors.json")
    assert isinstance(done.exception, ConfigurationError)
    assert "no measured gain" in str(done.exception)
    assert not (tmp_path / "priors.json").exists()


def test_an_output_that_cannot_be_written_is_named(folders, tmp_path):
    done = fit(next(iter(folders)) / "greentrain.db", "--out", tmp_path / "no" / "p.json")
    assert isinstance(done.exception, ConfigurationError)
    assert "cannot write" in str(done.exception)


def test_unusable_priors_are_refused_before_anything_is_opened(tmp_path):
    (tmp_path / "priors.json").write_text("{}")
    with pytest.raises(ConfigurationError, match="'format'"):
        open_stream(tmp_path, priors=tmp_path / "priors.json")
    assert not (tmp_path / "greentrain.db").exists()


def test_a_model_without_priors_has_the_default_ones():
    assert UtilityModel()._priors == GainPriors()
    assert set(GainPriors().means) == set(UpdateMode) - {UpdateMode.SKIP}


def test_a_stream_in_shadow_mode_teaches_nothing_of_what_it_decided(tmp_path):
    with open_stream(tmp_path, shadow=True) as stream:
        for number, labels in enumerate(((0, 1), (2,), (3,))):
            stream.update(experience(f"{number}", labels, seed=number))
            stream.report_training(Classifier(), steps=20, energy_j=20.0)
    with closing(Ledger(ledger_url(tmp_path), create=False)) as ledger:
        assert any(row["gain"] is not None for row in ledger.rows("outcome"))
        assert read_gains([ledger]) == []
