"""A stream over several processes: one leads, all train, and no joule is counted twice."""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from pytorch_lightning import Callback
from pytorch_lightning.callbacks import Timer
from torch import distributed

from greentrain.energy import ConstantMeter, Source
from greentrain.errors import ConfigurationError
from greentrain.launch import Launch, find_launch
from greentrain.memory import ReservoirBuffer
from greentrain.training.ranks_meter import JoulePublisher, RanksMeter
from greentrain.training.ranks_opening import check_ranks
from greentrain.training.stream_ranks import Ranks, open_ranks
from tests.models import Classifier
from tests.training import rank_worker
from tests.training.streaming import open_stream, rows

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of forking with threads


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def on_ranks(folder: Path, ranks: int, **given) -> list[dict]:
    """Run the worker on some forked ranks, and return what each has seen; ``{}`` if killed."""
    folder.mkdir(exist_ok=True)
    port = free_port()

    def work(rank: int) -> None:
        torch.set_num_threads(1)  # the threads of this process are not in its forks
        os.environ |= {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(ranks),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
        }
        sys.argv = ["worker", str(folder), json.dumps(given)]
        rank_worker.main()

    for path in folder.glob("rank*.json"):
        path.unlink()
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=work, args=(rank,)) for rank in range(ranks)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=120)
    paths = [folder / f"rank{rank}.json" for rank in range(ranks)]
    return [json.loads(path.read_text()) if path.exists() else {} for path in paths]


def test_two_ranks_decide_pay_and_learn_as_one_does(tmp_path):
    one = rank_worker.run(tmp_path, batch_size=8, count=2)
    first, second = on_ranks(tmp_path / "two", 2, batch_size=4, count=2)
    assert (first.pop("rank"), second.pop("rank")) == (0, 1)
    assert first == second  # the same weights to the last bit, and the same results
    for same in ("modes", "steps", "known"):
        assert first[same] == one[same]
    # 2 epochs of 64 samples in batches of 8, then of 192: each batch takes 1 J of rank 0's clock.
    assert first["energy_j"] == pytest.approx([16.0, 48.0], rel=1e-6)
    assert first["metrics"] == pytest.approx(one["metrics"], abs=1e-6)
    assert first["values"] == pytest.approx(one["values"], abs=1e-6)
    # One run, one payment for each update, and each joule once.
    assert len(rows(tmp_path / "two", "run")) == 1
    windows = rows(tmp_path / "two", "window")
    assert sum(row["energy_j"] or 0.0 for row in windows) == pytest.approx(64.0)

    # It goes on with as many ranks and with another number of them.
    again = on_ranks(tmp_path / "two", 2, batch_size=4, count=3)
    assert again[0]["weights"] == again[1]["weights"]
    assert again[1]["known"] == ["day 0", "day 1", "day 2"]
    alone = rank_worker.run(tmp_path / "two", batch_size=8, count=4)
    assert alone["known"] == ["day 0", "day 1", "day 2", "day 3"]


def test_calibration_baselines_and_metrics_of_each_experience_are_collective(tmp_path):
    first, second = on_ranks(
        tmp_path, 2, batch_size=4, count=2, budget="90 % of full", baseline_every=1, each=True
    )
    assert "error" not in first
    assert {**first, "rank": 1} == second
    assert [row["reason"] for row in rows(tmp_path, "decision")].count("BASELINE") == 1


def test_ranks_that_differ_are_refused_before_anything_is_trained(tmp_path):
    found = on_ranks(tmp_path, 2, batch_size=4, count=1, of_rank={"1": {"seed": 7}})
    sentence = (
        "ConfigurationError: rank 1 has a configuration with seed='7', and rank 0 has seed='0'; "
        "start all ranks with the same configuration"
    )
    assert [each["error"] for each in found] == [sentence, sentence]
    assert not (tmp_path / "greentrain.db").exists()


def test_an_error_of_rank_0_ends_all_ranks_with_its_sentence(tmp_path):
    rank_worker.run(tmp_path, batch_size=8, count=1)
    first, second = on_ranks(tmp_path, 2, batch_size=4, count=2, budget="2 kWh")
    reason = first["error"].removeprefix("ConfigurationError: ")
    assert "budget" in reason
    assert second["error"] == f"ConfigurationError: rank 0 has stopped: {reason}"


@pytest.mark.parametrize("dead", [0, 1])
def test_a_rank_that_dies_loses_no_joule_and_a_restart_goes_on(tmp_path, dead):
    # Its 21st batch is the 5th of the second experience: the first one has 16.
    found = on_ranks(tmp_path, 2, batch_size=4, count=2, dies=[dead, 21])
    assert found[dead] == {}
    assert "error" in found[1 - dead]
    reserved, settled = rows(tmp_path, "reservation"), rows(tmp_path, "settlement")
    if dead == 1:  # rank 0 has settled what the ranks used until then
        assert len(reserved) == len(settled)
        assert settled[-1]["actual_j"] == pytest.approx(21.0 - 16.0, abs=1.01)
    else:  # the reservation of a killed rank 0 stays spent until it is released
        assert len(reserved) == len(settled) + 1
    after = rank_worker.run(tmp_path, batch_size=8, count=2)
    assert after["known"] == ["day 0", "day 1"]


@pytest.mark.slow
def test_torchrun_starts_two_ranks(tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    given = json.dumps({"batch_size": 4, "count": 1})
    worker = ["-m", "tests.training.rank_worker", str(tmp_path), given]
    subprocess.run([*command, *worker], check=True, capture_output=True, timeout=300)
    first, second = (json.loads((tmp_path / f"rank{r}.json").read_text()) for r in (0, 1))
    assert first["weights"] == second["weights"]
    assert (first["steps"], first["rank"], second["rank"]) == ([16], 0, 1)


# Without a second process.


def test_the_folder_and_the_callbacks_of_the_ranks_are_compared():
    compared = []

    class Both:
        size = 2

        def check_same(self, values, what, remedy):
            compared.append(values)

    settings = {"shadow": False, "start_by": None}
    for folder, callbacks in (("a", [Callback()]), ("b", [Callback(), Timer()])):
        options = {"callbacks": callbacks}
        check_ranks(Both(), settings, Classifier(), options, None, folder)
    assert compared[1]["trainer.callbacks"] == "Callback, Timer"
    assert {key for key in compared[0] if compared[0][key] != compared[1][key]} == {
        "state_dir",
        "trainer.callbacks",
    }


TWO = Launch(launcher="torchrun", rank=0, size=2, local_size=2)
CPU = {"accelerator": "cpu", "max_epochs": 1}


@pytest.mark.parametrize(
    ("options", "launch", "reason"),
    [
        ({"devices": 4}, TWO, "torchrun has started 2 processes, and trainer has devices=4"),
        ({"strategy": "ddp_spawn"}, TWO, "a strategy that starts processes itself"),
        ({"devices": 2, "strategy": "ddp"}, None, "start the program with torchrun --nproc-per-"),
    ],
)
def test_options_that_do_not_fit_the_launch_are_refused(options, launch, reason):
    with pytest.raises(ConfigurationError, match=reason):
        open_ranks({**CPU, **options}, launch)


def test_a_launch_is_read_from_torchrun_and_srun():
    assert find_launch({}) is None
    torchrun = {"RANK": "3", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}
    assert find_launch(torchrun).hosts == 2
    slurm = {"SLURM_PROCID": "1", "SLURM_NTASKS": "2", "SLURM_JOB_NAME": "bash"}
    assert find_launch(slurm) is None  # an interactive shell within a job
    with pytest.raises(ConfigurationError, match="RANK is 'first'; the launcher has to set it"):
        find_launch({"RANK": "first", "WORLD_SIZE": "2"})
    with pytest.raises(ConfigurationError, match="has started 3 processes, 2 on this host"):
        find_launch({"RANK": "0", "WORLD_SIZE": "3", "LOCAL_WORLD_SIZE": "2"})


def test_the_process_group_is_hidden_from_what_rank_0_does_alone(monkeypatch):
    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    ranks = Ranks(0, 2)
    with ranks.alone():
        assert not distributed.is_initialized()
        with ranks.together():
            assert distributed.is_initialized()
        assert not distributed.is_initialized()
    assert distributed.is_initialized()


class Values(dict):
    """A store without a server."""

    set = dict.__setitem__

    def get(self, key):
        return self[key].encode()


def test_the_joules_of_other_hosts_are_added_and_stay_if_a_host_is_lost():
    seconds, store = [0.0], Values()
    far = ConstantMeter(30.0, clock=lambda: seconds[0])
    near = ConstantMeter(100.0, clock=lambda: seconds[0])
    far.start(), near.start()
    publisher = JoulePublisher(far, store, "rank2")
    source = Source(name="node1/cpu", method="given", relative_uncertainty=None)
    meter = RanksMeter(near, store, {"rank2": (source,)})
    assert [each.lag_s for each in meter.sources] == pytest.approx([near.sources[0].lag_s, 0.3])
    seconds[0] = 10.0
    publisher.publish()
    assert meter.read().total_j == pytest.approx(1000.0 + 300.0)
    publisher.close()
    del store["rank2"]
    seconds[0] = 20.0
    assert meter.read().total_j == pytest.approx(2000.0 + 300.0)


ODD = {"max_size": 37}


def test_parts_of_the_past_are_disjoint_and_together_those_of_one_process(tmp_path):
    def one(count):
        return rank_worker.run(
            tmp_path / "one", batch_size=8, count=count, buffer=rank_worker.part(**ODD)
        )

    (tmp_path / "one").mkdir()
    alone = one(2)
    first, second = on_ranks(tmp_path / "two", 2, batch_size=4, count=2, part=ODD)
    assert sorted(map(len, (first["held"], second["held"]))) == [18, 19]
    assert sorted(first["held"] + second["held"]) == alone["held"]
    assert first["weights"] == second["weights"]
    for same in ("modes", "steps", "energy_j"):
        assert first[same] == alone[same]
    # 64 samples, of which 37 are held, and 128 more: 2 epochs at first, and a warm start then.
    assert first["metrics"] == pytest.approx(alone["metrics"], abs=0.05)

    # It goes on with three ranks, and then with one.
    alone = one(3)
    three = on_ranks(tmp_path / "two", 3, batch_size=4, count=3, part=ODD)
    assert [each["known"] for each in three] == [["day 0", "day 1", "day 2"]] * 3
    assert sorted(number for each in three for number in each["held"]) == alone["held"]
    again = rank_worker.run(tmp_path / "two", batch_size=8, count=4, buffer=rank_worker.part(**ODD))
    assert again["held"] == one(4)["held"]


def test_a_rank_that_dies_while_the_state_is_saved_leaves_the_one_before(tmp_path):
    dies = {"1": {"part": {**ODD, "dies_after": 2}}}
    found = on_ranks(tmp_path, 2, batch_size=4, count=3, part=ODD, of_rank=dies)
    assert found[1] == {}
    assert "error" in found[0]
    again = on_ranks(tmp_path, 2, batch_size=4, count=2, part=ODD)
    assert [each["known"] for each in again] == [["day 0", "day 1"]] * 2
    assert sum(len(each["held"]) for each in again) == 37
    assert len(again[0]["steps"]) == 1  # of the second experience alone


@pytest.mark.parametrize("rank", [0, 2])
def test_a_part_of_another_rank_is_refused(tmp_path, rank):
    wrong = {"1": {"part": {**ODD, "rank": rank, "world_size": 3}}}
    found = on_ranks(tmp_path, 2, batch_size=4, count=1, part=ODD, of_rank=wrong)
    sentence = (
        f"ConfigurationError: rank 1 has the buffer of rank {rank} of 3, and the number of ranks "
        "is 2; give rank='auto', or omit rank and world_size to hold everything on each"
    )
    assert [each["error"] for each in found] == [sentence, sentence]


def test_a_part_is_refused_in_one_process(tmp_path):
    with pytest.raises(ConfigurationError, match="rank 0 has the buffer of rank 0 of 2, and the"):
        open_stream(tmp_path, buffer=ReservoirBuffer(5, world_size=2))


def test_auto_reads_the_rank_of_the_launch(monkeypatch):
    assert ReservoirBuffer(5, rank="auto").world_size == 1
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "3")
    buffer = ReservoirBuffer(5, rank="auto")
    assert (buffer.rank, buffer.world_size) == (1, 3)
    for wrong in ({"rank": "auto", "world_size": 3}, {"rank": "first"}):
        with pytest.raises(ConfigurationError, match="or 'auto' without a world_size"):
            ReservoirBuffer(5, **wrong)
