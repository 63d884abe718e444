"""``greentrain verify --model``: the update that produced a file of weights, and its cost."""

from __future__ import annotations

import os
import pickle
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest
import torch
from safetensors.torch import save, save_file
from typer.testing import CliRunner, Result

from greentrain import update
from greentrain.cli.app import app
from greentrain.errors import ConfigurationError
from greentrain.ledger import Ledger
from greentrain.report import build
from greentrain.report.exports import model_card
from greentrain.report.model_origin import describe_origins, origins
from greentrain.training.weights_digest import read_weights, weights_sha256
from greentrain.units import format_energy
from tests.models import Classifier, Clock, constant_meter, experience
from tests.training.streaming import ledger_url, open_stream

EXPERIENCES = [experience("first", (0, 1), seed=0), experience("more", (2,), seed=2)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger of two updates, each by a process of its own, with the weights after each."""
    folder = tmp_path_factory.mktemp("model")
    for number, each in enumerate(EXPERIENCES):
        with open_stream(folder, name="digits", state_dir=folder / "state") as stream:
            assert stream.update(each).steps > 0
            torch.save(stream.model.state_dict(), folder / f"{number}.pt")
    torch.save(Classifier().state_dict(), folder / "other.pt")
    return folder


def ask(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["verify", *arguments])


def verify_model(folder: Path, name: str, *more: str) -> Result:
    ledger = str(folder / "greentrain.db")
    return ask("--ledger", ledger, "--model", str(folder / name), *more)


@pytest.mark.parametrize("number", [0, 1])
def test_the_update_that_produced_a_model_and_its_joules(folder: Path, number: int) -> None:
    with closing(Ledger(str(folder / "greentrain.db"), create=False)) as ledger:
        outcomes = ledger.rows("outcome")
        windows = ledger.rows("window")
    until = outcomes[number]["entry_id"]
    stream_j = sum(one["energy_j"] for one in windows if one["entry_id"] < until)
    shown = verify_model(folder, f"{number}.pt")
    assert shown.exit_code == 0, shown.output
    text = " ".join(shown.output.split())
    assert "everything follows" in text
    assert f"produced by update {number} of the stream 'digits'" in text
    assert f"on '{EXPERIENCES[number].id}', {outcomes[number]['steps']} steps" in text
    assert f"this update used {format_energy(outcomes[number]['energy_j'])};" in text
    assert f"the stream had used {format_energy(stream_j)}" in text
    assert outcomes[number]["data_sha256"] in text


def test_the_state_of_the_stream_is_the_last_model(folder: Path) -> None:
    shown = verify_model(folder, "state/state.pt")
    assert shown.exit_code == 0
    assert "update 1 of the stream" in shown.output


def test_another_model_is_not_found(folder: Path) -> None:
    shown = verify_model(folder, "other.pt")
    assert shown.exit_code == 1
    assert "FAILED: no update in the ledger produced these weights" in shown.output


def test_a_file_of_safetensors_is_the_same_model(folder: Path, tmp_path: Path) -> None:
    save_file(read_weights(folder / "1.pt"), tmp_path / "model.SafeTensors")
    ledger = str(folder / "greentrain.db")
    shown = ask("--ledger", ledger, "--model", str(tmp_path / "model.SafeTensors"))
    assert shown.exit_code == 0, shown.output
    assert "produced by update 1 of the stream" in shown.output
    save_file(read_weights(folder / "other.pt"), tmp_path / "other.safetensors")
    assert verify_model(folder, str(tmp_path / "other.safetensors")).exit_code == 1


@pytest.mark.parametrize("content", [b"", b"no safetensors", None, save({})])
def test_a_bad_file_of_safetensors_is_refused(
    folder: Path, tmp_path: Path, content: bytes | None
) -> None:
    file = tmp_path / "bad.safetensors"
    if content is not None:
        file.write_bytes(content)
    refused = verify_model(folder, str(file)).exception
    assert isinstance(refused, ConfigurationError)
    assert "weights" in str(refused)
    assert "bad.safetensors" in str(refused)


def test_without_its_package_no_safetensors_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(ConfigurationError, match="pip install safetensors"):
        read_weights(tmp_path / "model.safetensors")


def test_one_changed_weight_is_another_model(folder: Path, tmp_path: Path) -> None:
    weights = read_weights(folder / "1.pt")
    next(iter(weights.values())).reshape(-1)[0] += 1e-6
    torch.save(weights, tmp_path / "swapped.pt")
    assert verify_model(folder, str(tmp_path / "swapped.pt")).exit_code == 1


def test_a_hash_that_was_put_into_a_row_is_found_first(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "greentrain.db").write_bytes((folder / "greentrain.db").read_bytes())
    forged = weights_sha256(read_weights(folder / "other.pt"))
    with closing(sqlite3.connect(tmp_path / "greentrain.db")) as database, database:
        database.execute("UPDATE outcomes SET weights_sha256 = ?", [forged])
    (tmp_path / "other.pt").write_bytes((folder / "other.pt").read_bytes())
    shown = verify_model(tmp_path, "other.pt")
    assert shown.exit_code == 1
    assert "(outcome): was altered" in shown.output
    assert "produced by" not in shown.output


@pytest.mark.parametrize("content", [b"", b"no file of torch"])
def test_a_file_without_weights_is_refused(folder: Path, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.pt").write_bytes(content)
    for name in ("bad.pt", "missing.pt"):
        refused = verify_model(folder, str(tmp_path / name)).exception
        assert isinstance(refused, ConfigurationError)
        assert "cannot read the weights" in str(refused)


class Touch:
    """An object whose pickle runs a command when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch {self.path}",)


def test_no_code_of_a_file_is_run(folder: Path, tmp_path: Path) -> None:
    torch.save({"state_dict": Touch(tmp_path / "ran")}, tmp_path / "zip.pt")
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps(Touch(tmp_path / "ran")))
    for name in ("zip.pt", "plain.pkl"):
        refused = verify_model(folder, str(tmp_path / name)).exception
        assert isinstance(refused, ConfigurationError)
    assert not (tmp_path / "ran").exists()


def test_a_small_file_does_not_fill_the_memory(folder: Path, tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(1).expand(10**15)}, tmp_path / "large.pt")
    refused = verify_model(folder, str(tmp_path / "large.pt")).exception
    assert isinstance(refused, ConfigurationError)
    assert "would fill 4000000000000000 bytes" in str(refused)
    torch.save({"w": torch.zeros(1).expand(1000)}, tmp_path / "small.pt")
    assert len(weights_sha256(read_weights(tmp_path / "small.pt"))) == 64


def test_updates_without_a_hash_are_counted(folder: Path) -> None:
    with closing(Ledger(str(folder / "greentrain.db"), create=False)) as ledger:
        rows = ledger.rows

        class Older:
            """The ledger as an older version wrote it, which hashed no weights."""

            def rows(self, kind: str, **equals: object) -> list[dict[str, object]]:
                if "weights_sha256" in equals and equals["weights_sha256"] is not None:
                    return []
                return [{**row, "weights_sha256": None} for row in rows(kind)]

        lines, found = describe_origins([Older()], "0" * 64, "0.pt")  # type: ignore[list-item]
    assert not found
    assert "2 updates in it, of older versions or of weights that cannot be hashed" in lines[-1]


def test_a_model_is_not_checked_with_a_report(folder: Path) -> None:
    refused = ask("report.json", "--model", str(folder / "0.pt")).exception
    assert isinstance(refused, ConfigurationError)
    assert "--ledger LEDGER --model FILE" in str(refused)


def test_a_model_without_an_update_was_made_elsewhere(tmp_path: Path) -> None:
    model = Classifier()
    done = update(
        model,
        EXPERIENCES[0].train,
        val=EXPERIENCES[0].val,
        monitor="val_acc",
        budget="0.2 J",  # too little to train
        ledger=ledger_url(tmp_path),
        meter=constant_meter(Clock()),
        logger=False,
    )
    assert done.steps == 0
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    shown = verify_model(tmp_path, "weights.pt")
    assert shown.exit_code == 1
    assert "they were in use after 1 decision, but were made elsewhere" in " ".join(
        shown.output.split()
    )


def test_reports_and_cards_name_the_last_weights(folder: Path) -> None:
    with closing(Ledger(str(folder / "greentrain.db"), create=False)) as ledger:
        report = build(ledger)
        last = weights_sha256(read_weights(folder / "1.pt"))
        assert [one.position for one in origins(ledger, last)] == [1]
    assert report["summary"]["weights_sha256"] == last
    assert report["summary"]["by_stream"][0]["weights_sha256"] == last
    assert f"weights with SHA-256 {last}" in model_card.metadata(report)["source"]
