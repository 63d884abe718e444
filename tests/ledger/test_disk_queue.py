"""The queue on disk: atomic, ordered, owned by one living process, and safe from other users."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from greentrain.ledger.disk_queue import DiskQueue, NewRow, queue_files

FORK = multiprocessing.get_context("fork")
ROOT = Path(__file__).parents[2]


def numbered(*numbers: int) -> list[NewRow]:
    return [("run", "window", number) for number in numbers]


def contents(queue: DiskQueue) -> list[object]:
    return [row.content for row in queue.read()]


def in_a_fork(work: Callable[[], object]) -> int | None:
    process = FORK.Process(target=work)
    process.start()
    process.join()
    return process.exitcode


@pytest.fixture
def queue(tmp_path: Path) -> DiskQueue:
    return DiskQueue.create(tmp_path, "q-", rows=numbered(0, 1), note={"run_id": "run"})


def adopted(folder: Path) -> DiskQueue:
    (path,) = queue_files(folder, "q-")
    found = DiskQueue.adopt(path)
    assert found is not None
    return found


def test_rows_are_added_all_or_none(queue: DiskQueue) -> None:
    with pytest.raises(OSError, match="not JSON serializable"):
        queue.append([*numbered(2), ("run", "window", object())], replace=[("run", "window")])
    assert contents(queue) == [0, 1]
    queue.append([("run", "tags", "new")], replace=[("run", "window")], note={"a": 1})
    assert contents(queue) == ["new"]
    assert queue.note == {"a": 1}
    queue.delete()


def test_what_a_closed_queue_holds_is_adopted_with_its_id_and_note(
    queue: DiskQueue, tmp_path: Path
) -> None:
    queue.append(numbered(2), note={"run_id": "other"})
    queue.remove([1])
    queue.close()
    assert not queue.is_open
    with pytest.raises(OSError, match="closed"):
        queue.read()
    next_one = adopted(tmp_path)
    assert (next_one.queue_id, next_one.note) == (queue.queue_id, {"run_id": "other"})
    assert contents(next_one) == [1, 2]
    assert abs(next_one.written_s - time.time()) < 3600
    next_one.append(numbered(3))
    assert [row.number for row in next_one.read(after=2)] == [3, 4]
    next_one.delete()
    assert list(tmp_path.iterdir()) == []


def test_a_living_process_keeps_its_queue(queue: DiskQueue) -> None:
    path = queue.path
    assert path is not None
    code = "import sys; from pathlib import Path; from greentrain.ledger.disk_queue import *; "
    code += "print(DiskQueue.adopt(Path(sys.argv[1])))"
    for _ in range(2):  # nor does looking at it unlock it
        assert DiskQueue.adopt(path) is None
        done = subprocess.run(
            [sys.executable, "-c", code, str(path)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout == "None\n"
    queue.append(numbered(2))
    queue.delete()
    assert DiskQueue.adopt(path) is None


def test_a_killed_process_loses_no_row(tmp_path: Path) -> None:
    def write_and_die() -> None:
        queue = DiskQueue.create(tmp_path, "q-")
        for number in range(500):
            queue.append(numbered(number))
        os.kill(os.getpid(), signal.SIGKILL)

    assert in_a_fork(write_and_die) == -signal.SIGKILL
    queue = adopted(tmp_path)
    assert contents(queue) == list(range(500))
    queue.delete()


FORKED = """
import os, sys
from pathlib import Path
from greentrain.ledger.disk_queue import DiskQueue

queue = DiskQueue.create(Path(sys.argv[1]), "q-", rows=[("run", "window", 0)])
child = os.fork()
if child == 0:
    sys.exit(int(queue.is_open))  # ends as a program does, which closes what is open
assert os.waitpid(child, 0)[1] == 0
queue.append([("run", "window", 1)])
os.kill(os.getpid(), 9)
"""


def test_a_forked_process_leaves_the_queue_of_its_parent_alone(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORKED, str(tmp_path)], cwd=ROOT, capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (-9, b"")
    queue = adopted(tmp_path)
    assert contents(queue) == [0, 1]
    queue.delete()


def test_an_empty_file_is_deleted_once_it_is_old(tmp_path: Path) -> None:
    path = tmp_path / "q-1.queue"
    path.touch(0o600)
    assert DiskQueue.adopt(path) is None
    assert path.exists()
    os.utime(path, (0, 0))
    assert DiskQueue.adopt(path) is None
    assert not path.exists()


def test_a_queue_that_cannot_be_made_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="not JSON serializable"):
        DiskQueue.create(tmp_path, "q-", rows=[("run", "window", object())])
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(FileNotFoundError):
        DiskQueue.create(tmp_path / "missing", "q-")
    assert queue_files(tmp_path / "missing", "q-") == []


def test_in_memory(tmp_path: Path) -> None:
    queue = DiskQueue.create(None, rows=numbered(1))
    assert queue.path is None
    assert (contents(queue), queue.count("window"), queue.count("tags")) == ([1], 1, 0)
    queue.delete()
