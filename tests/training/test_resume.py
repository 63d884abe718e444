"""A stream that goes on from its saved state, after its end and after being killed."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import signal
import stat
import subprocess
import time
from contextlib import closing
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from pytorch_lightning import Callback
from torch.utils.data import TensorDataset

from greentrain import Experience, StreamTrainer, UpdateMode
from greentrain.control import Always
from greentrain.errors import ConfigurationError
from greentrain.ledger import Ledger, verify
from greentrain.memory import ClassBalancedBuffer, FullBuffer, ReservoirBuffer, SampleList
from greentrain.report import build
from greentrain.training import EvaluationConfig
from greentrain.training.checkpoint import Checkpoint
from tests.models import Classifier, Clock, Tick, blobs, constant_meter, experience
from tests.prepared import CONTEXT
from tests.training.fitting import timed
from tests.training.streaming import open_stream, rows

KILLS = int(os.environ.get("GREENTRAIN_KILLS", "20"))
EXPERIENCES = 10
ALWAYS = Always(mode=UpdateMode.REPLAY)
TICK_S = 1 / 128
"""A binary fraction, as what a look takes is: no sum of them is rounded, whenever it was begun."""


def arrivals(length: int = EXPERIENCES) -> list[Experience]:
    return [experience(f"{number}", (number % 4,), seed=number) for number in range(length)]


def streaming(folder: Path, **changes) -> StreamTrainer:
    clock = Clock()
    options = {"max_epochs": 10, "accelerator": "cpu", "callbacks": [Tick(clock, TICK_S)]}
    usual = {
        "num_experiences": 100,
        "trainer": options,
        "meter": constant_meter(clock, power_w=128.0),
        "state_dir": folder / "state",
    }
    return open_stream(folder, timed(clock), **{**usual, **changes})


def weights(trainer: StreamTrainer) -> torch.Tensor:
    return torch.cat([each.detach().flatten() for each in trainer.model.parameters()])


MEMORIES = {
    "all": lambda folder: "all",
    "reservoir": lambda folder: ReservoirBuffer(60),
    "mapped": lambda folder: ClassBalancedBuffer(60, folder=folder / "mapped"),
    "none": lambda folder: None,
}


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("objective", ["seen", "window", "current"])
def test_a_stream_in_pieces_is_the_stream_in_one(tmp_path, memory, objective):
    make = MEMORIES[memory]
    changes = {
        "evaluation": EvaluationConfig(eval_on=objective, eval_each_experience=True),
        "budget": "1000 J",
        "num_experiences": EXPERIENCES,
    }
    (tmp_path / "one").mkdir()
    with streaming(tmp_path / "one", buffer=make(tmp_path / "one"), **changes) as whole:
        expected = whole.run(arrivals())
    found = []
    for number in range(EXPERIENCES):
        folder = tmp_path / "pieces"
        folder.mkdir(exist_ok=True)
        with streaming(folder, buffer=make(folder), **changes) as piece:
            assert list(piece.known) == [str(each) for each in range(number)]
            found += piece.run(arrivals(number + 1))
    assert [each.decision.action for each in found] == [each.decision.action for each in expected]
    assert [each.position for each in found] == list(range(EXPERIENCES))
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.energy_j == pytest.approx(theirs.energy_j)
        assert mine.left_j == pytest.approx(theirs.left_j)
        assert mine.metric_after == pytest.approx(theirs.metric_after)
        assert mine.decision.sentence == theirs.decision.sentence
    assert torch.allclose(weights(piece), weights(whole), atol=1e-6)
    scores, others = piece.matrix.compute(), whole.matrix.compute()
    assert torch.allclose(scores, others, equal_nan=True)
    assert len({each.update_mode for each in expected}) > 1


def test_an_experience_that_was_had_is_passed_over(tmp_path):
    with streaming(tmp_path) as trainer:
        trainer.run(arrivals(3))
    with streaming(tmp_path) as again:
        assert again.run(iter(arrivals(3))) == []
        with pytest.raises(ConfigurationError, match="already had an experience '1'"):
            again.update(arrivals(3)[1])
        seen = []
        results = again.run(arrivals(4), on_result=lambda each, result: seen.append(each.id))
    assert [each.experience_id for each in results] == seen == ["3"]
    assert [row["experience_id"] for row in rows(tmp_path, "outcome")] == ["0", "1", "2", "3"]


class Sign(Callback):
    """Leave a file once a batch of an update was trained on."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def on_train_batch_end(self, trainer, *args, **kwargs) -> None:
        self.file.touch()


def _train(folder: str) -> None:
    """Go through the stream, and leave a sign before each experience and in each update."""
    torch.set_num_threads(1)
    options = {
        "max_epochs": 40,
        "accelerator": "cpu",
        "callbacks": [Sign(Path(folder, "training"))],
    }
    with streaming(Path(folder), policy=ALWAYS, trainer=options) as trainer:
        for each in arrivals():
            if each.id not in trainer.known:
                Path(folder, "at-work").touch()
                trainer.update(each)


@pytest.mark.slow
def test_a_stream_that_is_killed_loses_and_repeats_no_experience(tmp_path):
    chance, killed, counted_j = random.Random(1), 0, 0.0
    for number in range(KILLS):
        for sign in ("at-work", "training"):
            (tmp_path / sign).unlink(missing_ok=True)
        worker = CONTEXT.Process(target=_train, args=(str(tmp_path),))
        worker.start()
        sign = tmp_path / ("training" if number % 3 else "at-work")
        while not sign.exists() and worker.is_alive():
            time.sleep(0.001)
        time.sleep(chance.uniform(0.0, 0.1 if number % 3 else 0.4))
        worker.kill()  # or it has just come to its end
        worker.join()
        killed += worker.exitcode == -signal.SIGKILL
        ledger = Ledger(f"sqlite:///{tmp_path / 'greentrain.db'}", create=False)
        assert verify(ledger).failures == ()
        balance = ledger.balance(ledger.rows("budget")[0]["budget_id"])
        ledger.close()
        assert balance.within
        assert balance.spent_j + balance.reserved_j >= counted_j  # money stays spent
        counted_j = balance.spent_j + balance.reserved_j
    assert killed > KILLS // 2  # else the stream was at its end too soon to try anything
    _train(str(tmp_path))
    outcomes = rows(tmp_path, "outcome")
    assert [row["experience_id"] for row in outcomes] == [each.id for each in arrivals()]
    assert [row["position"] for row in outcomes] == list(range(EXPERIENCES))
    settled = [row["reservation_id"] for row in rows(tmp_path, "settlement")]
    assert len(settled) == len(set(settled))
    once, options = tmp_path / "once", {"max_epochs": 40, "accelerator": "cpu"}
    once.mkdir()
    with (
        streaming(once, policy=ALWAYS, trainer=options) as whole,
        streaming(tmp_path) as resumed,
    ):
        whole.run(arrivals())
        assert torch.allclose(weights(resumed), weights(whole), atol=1e-5)
        begun = len(rows(tmp_path, "decision"))
    assert begun > len(outcomes)  # some were killed in mid-update
    print(f"{killed} kills, {begun} decisions for {len(outcomes)} experiences")


class Killed(BaseException):
    pass


def kill_before_the_outcome(trainer, experience, monkeypatch):
    """End a process between the saved state and the outcome's row, as a kill does."""

    def kill(self, outcome):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("greentrain.decisions.core.DecisionCore.record", kill)
        with pytest.raises(Killed):
            trainer.update(experience)
    trainer.close()


def test_an_outcome_that_was_not_recorded_is_recorded_at_the_next_start(tmp_path, monkeypatch):
    trainer = streaming(tmp_path)
    trainer.run(arrivals(1))
    kill_before_the_outcome(trainer, arrivals(2)[1], monkeypatch)
    assert [row["experience_id"] for row in rows(tmp_path, "outcome")] == ["0"]
    for _ in range(2):
        streaming(tmp_path).close()  # nothing arrives
        assert [row["experience_id"] for row in rows(tmp_path, "outcome")] == ["0", "1"]
    with streaming(tmp_path) as again:
        again.run(arrivals(3))
    assert [row["experience_id"] for row in rows(tmp_path, "outcome")] == ["0", "1", "2"]
    with closing(Ledger(f"sqlite:///{tmp_path / 'greentrain.db'}", create=False)) as ledger:
        listed = build(ledger)["experiences"]
    assert [one["experience_id"] for one in listed] == ["0", "1", "2"]
    assert all(one["interruption"] is None for one in listed)


def test_an_outcome_is_recorded_once_after_several_kills(tmp_path, monkeypatch):
    trainer = streaming(tmp_path)
    trainer.run(arrivals(1))
    for position in (1, 2, 3):
        kill_before_the_outcome(trainer, arrivals(4)[position], monkeypatch)
        streaming(tmp_path).close()
        trainer = streaming(tmp_path)
    trainer.close()
    assert [row["experience_id"] for row in rows(tmp_path, "outcome")] == ["0", "1", "2", "3"]


def test_two_processes_do_not_share_a_state(tmp_path):
    with streaming(tmp_path) as trainer:
        trainer.run(arrivals(1))
        with pytest.raises(ConfigurationError, match="in use by another process"):
            streaming(tmp_path)
    with streaming(tmp_path) as trainer:
        assert list(trainer.known) == ["0"]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"monitor": "val_loss"}, "saved with monitor='val_acc', and it is 'val_loss' now"),
        ({"evaluation": EvaluationConfig(eval_on="current")}, "saved with eval_on='seen'"),
        ({"buffer": None}, "saved with buffer='all'"),
        ({"name": "another"}, "saved with name='stream'"),
        (
            {"evaluation": EvaluationConfig(eval_each_experience=True)},
            "saved with eval_each_experience=False",
        ),
    ],
)
def test_the_state_of_another_stream_is_refused(tmp_path, changes, named):
    with streaming(tmp_path) as trainer:
        trainer.run(arrivals(1))
    with pytest.raises(ConfigurationError, match=named):
        streaming(tmp_path, **changes)
    with streaming(tmp_path) as trainer:  # and lets go of it
        assert trainer.run(arrivals(2))[0].position == 1


def test_another_model_is_refused(tmp_path):
    with streaming(tmp_path) as trainer:
        trainer.run(arrivals(1))
    arguments = {"budget": "1 kWh", "num_experiences": 100, "monitor": "val_acc"}
    with pytest.raises(ConfigurationError, match="saved weights do not fit"):
        StreamTrainer(
            lambda: Classifier(classes=7),
            ledger=f"sqlite:///{tmp_path / 'greentrain.db'}",
            state_dir=tmp_path / "state",
            **arguments,
        )


@pytest.mark.parametrize(
    "spoil", [b"", b"not a file of torch", None], ids=["empty", "foreign", "cut"]
)
def test_a_state_that_cannot_be_read_is_named_and_left(tmp_path, spoil):
    with streaming(tmp_path) as trainer:
        trainer.run(arrivals(1))
    file = tmp_path / "state" / "state.pt"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2] if spoil is None else spoil)
    with pytest.raises(ConfigurationError, match=r"state\.pt' cannot be read"):
        streaming(tmp_path)
    file.write_bytes(whole)
    with streaming(tmp_path) as trainer:
        assert list(trainer.known) == ["0"]


def test_a_disk_that_is_full_ends_no_training(tmp_path, monkeypatch, caplog):
    def full(self, state):
        raise OSError(28, "No space left on device")

    with streaming(tmp_path) as trainer:
        trainer.run(arrivals(1))
        with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
            patch.setattr("greentrain.training.checkpoint.Checkpoint.save", full)
            trainer.run(arrivals(2))
        assert "after experience 1 could not be saved" in caplog.text
        trainer.run(arrivals(3))
    with streaming(tmp_path) as again:
        assert list(again.known) == ["0", "1", "2"]


def flipped(content: bytes, place: int) -> bytes:
    """Return bytes of which one has another bit."""
    return content[:place] + bytes([content[place] ^ (1 << place % 8)]) + content[place + 1 :]


def test_a_changed_byte_of_a_state_is_one_error_that_names_the_way_back(tmp_path):
    with streaming(tmp_path) as trainer:
        trainer.run(arrivals(2))
    file = tmp_path / "state" / "state.pt"
    before = file.with_name("state.previous.pt")
    whole = file.read_bytes()
    places = {*range(0, len(whole), len(whole) // 60), *range(len(whole) - 100, len(whole), 7)}
    checkpoint = Checkpoint(tmp_path / "state")
    for place in sorted(places):
        file.write_bytes(flipped(whole, place))
        with pytest.raises(
            ConfigurationError,
            match=rf"cannot be read \(it.*after experience '0', is whole.*: mv {before} {file}$",
        ):
            checkpoint.load()
    before.write_bytes(flipped(before.read_bytes(), 1000))
    with pytest.raises(ConfigurationError, match="restore a copy of the folder"):
        checkpoint.load()
    file.write_bytes(whole)
    assert checkpoint.load()["outcome"]["experience_id"] == "1"
    checkpoint.close()


def test_states_are_for_their_owner_and_are_not_written_through_a_link(tmp_path):
    other = tmp_path / "other"
    other.write_text("precious")
    with streaming(tmp_path) as trainer:
        (tmp_path / "state" / "state.tmp").symlink_to(other)
        (tmp_path / "state" / "state.previous.tmp").symlink_to(other)
        trainer.run(arrivals(2))
    assert other.read_text() == "precious"
    folder = tmp_path / "state"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {path.name for path in files} == {
        *("state.pt", "state.previous.pt", "samples.log", "lock")
    }
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


def test_a_state_of_an_earlier_format_is_named(tmp_path):
    (tmp_path / "state").mkdir()
    torch.save({"format": 4, "stream": {}}, tmp_path / "state" / "state.pt")
    with pytest.raises(ConfigurationError, match="has format 4, and this release reads 6"):
        streaming(tmp_path)


@pytest.mark.parametrize("memory", ["all", "mapped"])
def test_going_back_repeats_the_last_experience_and_the_ledger_says_so(tmp_path, memory, caplog):
    folder, once = tmp_path / "back", tmp_path / "once"
    for each in (folder, once):
        each.mkdir()
    with streaming(folder, policy=ALWAYS, buffer=MEMORIES[memory](folder)) as trainer:
        trainer.run(arrivals(2))
    state = folder / "state" / "state.pt"
    state.write_bytes(b"damaged")
    with pytest.raises(ConfigurationError, match="to go back to it"):
        streaming(folder, policy=ALWAYS, buffer=MEMORIES[memory](folder))
    state.with_name("state.previous.pt").rename(state)
    with streaming(folder, policy=ALWAYS, buffer=MEMORIES[memory](folder)) as again:
        assert list(again.known) == ["0"]
        assert "does not have: 1. The stream updates on them again" in caplog.text
        again.run(arrivals(3))
    assert caplog.text.count("does not have") == 1
    streaming(folder, buffer=MEMORIES[memory](folder)).close()
    assert caplog.text.count("does not have") == 1
    outcomes = rows(folder, "outcome")
    assert [row["experience_id"] for row in outcomes] == ["0", "1", "1", "2"]
    assert [row["position"] for row in outcomes] == [0, 1, 1, 2]
    settled = [row["reservation_id"] for row in rows(folder, "settlement")]
    assert len(settled) == len(set(settled))
    with (
        streaming(once, policy=ALWAYS, buffer=MEMORIES[memory](once)) as whole,
        streaming(folder, policy=ALWAYS, buffer=MEMORIES[memory](folder)) as resumed,
    ):
        whole.run(arrivals(3))
        assert torch.allclose(weights(resumed), weights(whole), atol=1e-6)


def test_the_outcome_of_a_repeated_skip_is_recorded_after_a_kill(tmp_path, monkeypatch):
    """The first one has the same name and position, and no reservation either."""
    skip = {"policy": Always(mode=UpdateMode.SKIP)}
    with streaming(tmp_path, **skip) as trainer:
        trainer.run(arrivals(3))
    state = tmp_path / "state" / "state.pt"
    state.with_name("state.previous.pt").rename(state)
    trainer = streaming(tmp_path, **skip)
    kill_before_the_outcome(trainer, arrivals(3)[2], monkeypatch)
    assert [row["experience_id"] for row in rows(tmp_path, "outcome")] == ["0", "1", "2"]
    for _ in range(2):
        streaming(tmp_path, **skip).close()
        found = [row["experience_id"] for row in rows(tmp_path, "outcome")]
        assert found == ["0", "1", "2", "2"]


def test_held_out_data_that_cannot_be_saved_are_refused_before_anything_is_paid(tmp_path):
    class Picture:
        pass

    with streaming(tmp_path) as trainer:
        with pytest.raises(ConfigurationError, match="holds a Picture"):
            trainer.update(Experience("x", blobs((0,), 4), SampleList([Picture()])))
        with pytest.raises(ConfigurationError, match="holds a Picture"):
            trainer.update(Experience("x", SampleList([Picture()]), blobs((0,), 4)))
        assert trainer.run_id is None  # not even a run was opened


BAD = {
    "shape": TensorDataset(torch.zeros(4, 3), torch.zeros(4, dtype=torch.long)),
    "labels": TensorDataset(torch.zeros(4, 2), torch.zeros(4)),
}


@pytest.mark.parametrize("bad", ["shape", "labels"])
def test_bad_data_is_refused_before_anything_is_paid_and_the_state_stays(tmp_path, bad):
    memory = {"buffer": ClassBalancedBuffer(20)}
    with streaming(tmp_path, **memory) as trainer:
        trainer.run(arrivals(1))
        paid = len(rows(tmp_path, "reservation"))
        with pytest.raises(ConfigurationError):
            trainer.update(Experience("bad", BAD[bad], blobs((0,), 4)))
        assert len(rows(tmp_path, "reservation")) == paid
    with streaming(tmp_path, buffer=ClassBalancedBuffer(20)) as again:
        assert again.run(arrivals(2))[0].experience_id == "1"


@pytest.fixture
def small(tmp_path):
    """A disk of one megabyte."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_keeps_the_model_and_the_experience_is_taken_again(tmp_path, small, caplog):
    def made():
        return FullBuffer(folder=small / "buffer")

    filler = small / "filler"
    with streaming(tmp_path, buffer=made(), state_dir=small / "state") as trainer:
        trainer.run(arrivals(1))
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while file.write(bytes(512)):
                pass
        # More than the rest of the last block of any file.
        result = trainer.update(experience("1", (1,), count=1000))
        assert result.kept
        assert result.steps > 0
        assert "experience 1 could not be stored, because" in caplog.text
        assert list(trainer.known) == ["0"]
        filler.unlink()
        again = trainer.run(arrivals(3))
    assert [one.experience_id for one in again] == ["1", "2"]
    assert [row["experience_id"] for row in rows(tmp_path, "outcome")] == ["0", "1", "1", "2"]
    with streaming(tmp_path, buffer=made(), state_dir=small / "state") as trainer:
        assert list(trainer.known) == ["0", "1", "2"]


def test_a_buffer_that_cannot_be_mapped_keeps_the_model_too(tmp_path, monkeypatch, caplog):
    """As with too many open files: torch reports it as a ``RuntimeError``."""
    buffer = ClassBalancedBuffer(20, folder=tmp_path / "buffer")
    with streaming(tmp_path, buffer=buffer) as trainer:
        refused = Mock(side_effect=RuntimeError("unable to open file: Too many open files (24)"))
        with monkeypatch.context() as patched:
            patched.setattr(torch, "from_file", refused)
            assert trainer.update(arrivals(1)[0]).kept
        assert refused.called
        assert "experience 0 could not be stored, because" in caplog.text
        assert "cannot be mapped (unable to open file: Too many" in caplog.text
        assert [one.experience_id for one in trainer.run(arrivals(2))] == ["0", "1"]
