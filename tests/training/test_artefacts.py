"""Outcomes and the weights, data and configuration that they are bound to, by their hashes."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
import torch
from pytorch_lightning import Trainer
from torch.utils.data import ConcatDataset, Dataset, Subset, TensorDataset

from greentrain import Experience, update
from greentrain.ledger import Ledger
from greentrain.ledger.hashing import config_sha256
from greentrain.memory.datasets import SampleList
from greentrain.report import build
from greentrain.training.data_digest import MOST_BYTES, data_digest
from greentrain.training.weights_digest import read_weights, weights_sha256
from tests.models import Classifier, Clock, Tick, constant_meter, experience
from tests.training.streaming import ledger_url, open_stream, rows

FIRST = experience("first", (0, 1), seed=0)
AGAIN = Experience("again", FIRST.train, FIRST.val)
MORE = experience("more", (2,), seed=2)


def report_of(folder):
    ledger = Ledger(ledger_url(folder), create=False)
    try:
        return build(ledger)
    finally:
        ledger.close()


def test_each_outcome_has_the_hash_of_the_weights_in_use(tmp_path):
    found = []
    with open_stream(tmp_path, state_dir=tmp_path / "state") as stream:
        for each in (FIRST, AGAIN, MORE):
            stream.update(each)
            found.append(weights_sha256(stream.model.state_dict()))
        torch.save(stream.model.state_dict(), tmp_path / "weights.pt")
        trainer = Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
        trainer.strategy.connect(stream.model)
        trainer.save_checkpoint(tmp_path / "lightning.ckpt", weights_only=True)
    outcomes = rows(tmp_path, "outcome")
    assert [row["weights_sha256"] for row in outcomes] == found
    assert found[0] == found[1] != found[2]  # the copies are skipped
    assert [row["steps"] > 0 for row in outcomes] == [True, False, True]
    saved = (tmp_path / "state" / "state.pt", tmp_path / "weights.pt", tmp_path / "lightning.ckpt")
    assert {weights_sha256(read_weights(path)) for path in saved} == {found[2]}
    listed = report_of(tmp_path)["experiences"]
    assert [one["weights_sha256"] for one in listed] == found


def test_a_resumed_stream_has_the_same_hash_before_its_first_update(tmp_path):
    for each in (FIRST, AGAIN):
        with open_stream(tmp_path, state_dir=tmp_path / "state") as stream:
            stream.update(each)
    one, two = (row["weights_sha256"] for row in rows(tmp_path, "outcome"))
    assert one == two == weights_sha256(stream.model.state_dict())


def test_an_update_of_a_model_has_the_hash_of_the_model_it_returns(tmp_path):
    clock, model = Clock(), Classifier()
    before = weights_sha256(model.state_dict())
    kept = []
    for seed in range(3):
        done = update(
            model,
            FIRST.train,
            val=FIRST.val,
            monitor="val_acc",
            budget="1 kWh",
            ledger=ledger_url(tmp_path),
            name=f"update-{seed}",
            meter=constant_meter(clock),
            seed=seed,
            callbacks=[Tick(clock)],
            max_epochs=2,
            accelerator="cpu",
            logger=False,
        )
        row = rows(tmp_path, "outcome")[-1]
        assert row["weights_sha256"] == weights_sha256(done.model.state_dict())
        kept.append((done.kept, row["weights_sha256"] == before))
    assert all(is_kept != same for is_kept, same in kept)


def test_shadow_mode_has_the_hash_of_the_reported_model(tmp_path):
    job = Classifier()
    with open_stream(tmp_path, shadow=True) as stream:
        stream.update(FIRST)
        stream.report_training(job, energy_j=10.0)
        stream.update(MORE)
    one, two = rows(tmp_path, "outcome")
    assert one["weights_sha256"] == two["weights_sha256"] == weights_sha256(job.state_dict())


def test_before_the_first_update_there_are_no_weights(tmp_path):
    with open_stream(tmp_path, budget="0.2 J") as stream:
        assert stream.update(FIRST).steps == 0
    (row,) = rows(tmp_path, "outcome")
    assert row["weights_sha256"] is None
    assert row["data_samples"] == len(FIRST.train)


class Extra(Classifier):
    """A module with a state that is no tensor."""

    def get_extra_state(self) -> dict[str, int]:
        return {"version": 1}

    def set_extra_state(self, state: dict[str, int]) -> None:
        pass


def test_weights_that_cannot_be_hashed_are_unknown_with_one_warning(tmp_path, caplog):
    with open_stream(tmp_path, Extra) as stream:
        results = [stream.update(each) for each in (FIRST, AGAIN, MORE)]
    assert results[-1].steps > 0
    assert [row["weights_sha256"] for row in rows(tmp_path, "outcome")] == [None] * 3
    (message,) = [one for one in caplog.messages if "records no hash of the weights" in one]
    assert "_extra_state" in message


def test_the_configuration_has_the_hash_of_the_settings_of_the_run(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        with open_stream(tmp_path / name, seed=seed) as stream:
            stream.update(FIRST)
    (run,), (outcome,) = rows(tmp_path / "a", "run"), rows(tmp_path / "a", "outcome")
    settings = json.loads(run["environment"])["settings"]
    assert outcome["config_sha256"] == config_sha256(settings)
    hashes = [rows(tmp_path / name, "outcome")[0]["config_sha256"] for name in "abc"]
    assert hashes[0] == hashes[1] != hashes[2]


def test_the_gain_of_an_update_is_the_one_that_was_compared(tmp_path):
    with open_stream(tmp_path) as stream:
        results = [stream.update(each) for each in (FIRST, AGAIN, MORE)]
    first, skipped, last = rows(tmp_path, "outcome")
    assert [first["gain"], first["gain_sd"]] == [None, None]  # there was no model before
    assert [skipped["gain"], skipped["gain_sd"]] == [None, None]
    change = results[-1].metric_after - results[-1].metric_before
    assert last["gain"] == pytest.approx(change)
    assert last["gain_sd"] > 0
    assert report_of(tmp_path)["experiences"][-1]["gain"] == last["gain"]


# Data


def test_an_outcome_has_the_hash_of_the_samples(tmp_path):
    with open_stream(tmp_path) as stream:
        for each in (FIRST, AGAIN, MORE):
            stream.update(each)
    one, two, three = rows(tmp_path, "outcome")
    found = data_digest(FIRST.train)
    assert [one["data_sha256"], one["data_samples"], one["data_hashed"]] == [
        *(found.sha256, len(FIRST.train), len(FIRST.train))
    ]
    assert one["data_sha256"] == two["data_sha256"] != three["data_sha256"]


def test_the_energy_of_hashing_is_paid_by_the_update(tmp_path, monkeypatch):
    def slowly(function, clock):
        def slow(given):
            clock.seconds += 5.0
            return function(given)

        return slow

    used = {}
    for slow in (False, True):
        folder, clock = tmp_path / str(slow), Clock()
        folder.mkdir()
        if slow:
            for name, function in (
                ("data_digest", data_digest),
                ("weights_sha256", weights_sha256),
            ):
                monkeypatch.setattr(
                    f"greentrain.training.artefacts.{name}", slowly(function, clock)
                )
        with open_stream(folder, clock=clock) as stream:
            stream.update(FIRST)
            stream.update(MORE)
        outcomes = rows(folder, "outcome")
        assert all(one["steps"] > 0 and one["kept"] for one in outcomes)
        for outcome in outcomes:
            (paid,) = (
                each["actual_j"]
                for each in rows(folder, "settlement")
                if each["reservation_id"] == outcome["reservation_id"]
            )
            windows_j = sum(
                each["energy_j"]
                for each in rows(folder, "window")
                if each["reservation_id"] == outcome["reservation_id"]
            )
            assert paid == pytest.approx(windows_j)
        used[slow] = [outcome["energy_j"] for outcome in outcomes]
    power_w = 100.0
    more_j = [after - before for before, after in zip(used[False], used[True], strict=True)]
    assert more_j == pytest.approx([2 * 5.0 * power_w] * 2)  # the data, and the weights


INPUTS, LABELS = torch.arange(12.0).reshape(6, 2), torch.tensor([0, 1, 0, 1, 0, 1])
DATA = TensorDataset(INPUTS, LABELS)


def test_the_same_samples_have_the_same_hash_in_every_dataset_in_memory():
    halves = [Subset(DATA, range(3)), Subset(DATA, range(3, 6))]
    same = (DATA, Subset(DATA, range(6)), ConcatDataset(halves), SampleList(list(DATA)))
    assert {data_digest(each) for each in same} == {data_digest(DATA)}


@pytest.mark.parametrize(
    "other",
    [
        TensorDataset(INPUTS, LABELS.flip(0)),
        TensorDataset(INPUTS, LABELS.int()),
        TensorDataset(INPUTS.flip(0), LABELS.flip(0)),
        TensorDataset(INPUTS + 1e-6, LABELS),
        TensorDataset(INPUTS),
        TensorDataset(INPUTS.reshape(6, 1, 2), LABELS),
        Subset(DATA, range(5)),
        SampleList([]),
        SampleList([("a text", 1), ("another", 2)]),
    ],
)
def test_other_samples_have_another_hash(other):
    assert data_digest(other).sha256 != data_digest(DATA).sha256


def test_of_large_datasets_some_samples_are_hashed():
    wide = TensorDataset(torch.zeros(9, MOST_BYTES // 8 + 1, dtype=torch.uint8))
    found = data_digest(wide)
    assert (found.samples, found.hashed) == (9, 7)
    listed = data_digest(SampleList([(torch.zeros(1), n) for n in range(1000)]))
    assert (listed.samples, listed.hashed) == (1000, 64)


class Augmented(Dataset):
    """Samples that random numbers of three libraries change."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.rand(2) + np.random.rand() + random.random()


def test_random_samples_have_one_hash_and_leave_the_random_numbers_alone():
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    assert data_digest(Augmented()) == data_digest(Augmented())
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])
    assert random.getstate() == states[2]


class Objects(Dataset):
    """Samples with an object that has no bytes, which a ``collate_fn`` leaves out."""

    def __len__(self) -> int:
        return len(FIRST.train)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor, object]:
        return (*FIRST.train[index], object())


def test_samples_that_cannot_be_hashed_are_unknown_with_one_warning(tmp_path, caplog):
    def first_two(batch):
        return torch.stack([one[0] for one in batch]), torch.stack([one[1] for one in batch])

    held_out = SampleList([(*one, object()) for one in FIRST.val])
    loader = {"batch_size": 8, "collate_fn": first_two}
    with open_stream(tmp_path, loader=loader, buffer=None) as stream:
        for name in ("a", "b"):
            stream.update(Experience(name, Objects(), held_out))
    assert {row["data_sha256"] for row in rows(tmp_path, "outcome")} == {None}
    assert rows(tmp_path, "outcome")[0]["steps"] > 0
    assert sum("records no hash of the data" in one for one in caplog.messages) == 1
