"""What waits: bounded, in order, and safe from the end of its process."""

from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
import signal
import stat
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greentrain.tracking.tracking_queue import END, POINTS, RUN, TrackingQueue


@pytest.fixture
def waiting(queue_folder):
    opened = TrackingQueue(queue_folder, "http://here")
    yield opened
    opened.close()


def contents(queue: TrackingQueue) -> list[object]:
    return [row.content for row in queue.after(0, 1_000_000)]


def test_rows_come_back_in_order_until_they_are_taken_away(waiting):
    for number in range(5):
        waiting.put("run", POINTS, [["loss", number / 2, 1, number]])
    first = waiting.after(0, 2)
    assert [row.content[0][1] for row in first] == [0.0, 0.5]
    waiting.remove([row.number for row in first])
    assert [row.content[0][1] for row in waiting.after(0, 9)] == [1.0, 1.5, 2.0]
    assert [row.content[0][3] for row in waiting.after(first[-1].number + 1, 9)] == [3, 4]
    assert waiting.count() == 3


def test_a_row_can_stand_instead_of_one_of_its_run_and_kind(waiting):
    waiting.put("a", "tags", {"note": "1"}, replace=True)
    waiting.put("b", "tags", {"note": "2"}, replace=True)
    waiting.put("a", "text", "stays")
    waiting.put("a", "tags", {"note": "3"}, replace=True)
    assert contents(waiting) == [{"note": "2"}, "stays", {"note": "3"}]


def test_only_an_owner_may_read_it_and_nothing_stays_where_nothing_waits(waiting, queue_folder):
    waiting.put("run", "tags", {})
    assert waiting.count() == 1
    (path,) = queue_folder.glob("*.queue")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(queue_folder.stat().st_mode) == 0o700
    waiting.remove([1])
    waiting.close()
    assert list(queue_folder.iterdir()) == []


@given(
    kinds=st.lists(st.sampled_from([POINTS, "figures", "tags", "text"]), max_size=60),
    limit=st.integers(1, 10),
)
def test_only_the_oldest_points_are_given_up(tmp_path_factory, kinds, limit):
    queue = TrackingQueue(tmp_path_factory.mktemp("queue"), "here", limit=limit)
    for number, kind in enumerate(kinds):
        queue.put("run", kind, number)
    kept = queue.after(0, 1000)
    queue.close()
    given = [number for number, kind in enumerate(kinds) if kind == POINTS]
    others = [number for number, kind in enumerate(kinds) if kind != POINTS]
    assert [row.content for row in kept if row.kind != POINTS] == others
    assert [row.content for row in kept if row.kind == POINTS] == given[-limit:]
    assert queue.dropped == len(given[:-limit])


def test_what_is_being_sent_is_not_given_up(queue_folder):
    waiting = TrackingQueue(queue_folder, "here", limit=3)
    for number in range(3):
        waiting.put("run", POINTS, number)
    waiting.after(0, 2)  # 0 and 1 are on their way
    waiting.put("run", POINTS, 3)
    assert contents(waiting) == [0, 1, 3]
    waiting.close()


def test_another_queue_takes_over_what_is_left_and_leaves_what_is_in_use(queue_folder):
    left, living, elsewhere, taking = (
        TrackingQueue(queue_folder, target) for target in ("here", "here", "there", "here")
    )
    for each, text in ((left, "left"), (living, "living"), (elsewhere, "elsewhere")):
        each.put("run", "text", text)
        assert each.count() == 1
    left.close()
    elsewhere.close()
    taking.put("run", "text", "own")
    assert taking.count() == 1
    assert taking.adopt() == 1
    assert taking.adopt() == 0
    assert contents(taking) == ["own", "left"]
    assert contents(living) == ["living"]
    assert len(list(queue_folder.glob("*.queue"))) == 3
    for each in (living, taking):
        each.close()


def put_and_die(folder, target):
    queue = TrackingQueue(folder, target)
    for number in range(100):
        queue.put("run", POINTS, number)
    assert queue.count() == 100  # a thread has written them by now
    os.kill(os.getpid(), signal.SIGKILL)


def test_nothing_is_lost_with_a_process_that_is_killed(queue_folder, waiting):
    process = multiprocessing.get_context("fork").Process(
        target=put_and_die, args=(queue_folder, "http://here")
    )
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert waiting.adopt() == 100
    assert contents(waiting) == list(range(100))


def begin_two_and_die(folder):
    queue = TrackingQueue(folder, "http://here")
    for run in ("ended", "cut off"):
        queue.put(run, RUN, {})
    queue.put("ended", END, {"status": "FINISHED", "at_ms": 5})
    assert queue.count() == 3
    queue.remove([1, 2, 3])  # all of it has arrived
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_run_that_was_cut_off_is_ended_as_killed(queue_folder, waiting):
    process = multiprocessing.get_context("fork").Process(
        target=begin_two_and_die, args=(queue_folder,)
    )
    process.start()
    process.join()
    assert waiting.adopt() == 1
    (row,) = waiting.after(0, 9)
    assert (row.run, row.kind, row.content["status"]) == ("cut off", END, "KILLED")
    assert abs(row.content["at_ms"] / 1000 - time.time()) < 3600


def put_inherited(queue):
    queue.put("run", POINTS, "of the child")


def test_a_forked_process_has_a_file_of_its_own(waiting):
    waiting.put("run", POINTS, "of the parent")
    process = multiprocessing.get_context("fork").Process(target=put_inherited, args=(waiting,))
    process.start()
    process.join()
    assert process.exitcode == 0
    assert contents(waiting) == ["of the parent"]
    assert waiting.adopt() == 1
    assert contents(waiting) == ["of the parent", "of the child"]


def test_a_queue_that_is_sent_to_another_process_opens_a_file_of_its_own(waiting):
    waiting.put("run", POINTS, 1)
    other = pickle.loads(pickle.dumps(waiting))
    other.put("run", POINTS, 2)
    assert contents(waiting) == [1]
    other.close()
    assert waiting.adopt() == 1


def test_without_a_folder_rows_wait_in_memory(tmp_path, caplog):
    file = tmp_path / "file"
    file.touch()
    queue = TrackingQueue(file / "folder", "here")
    queue.put("run", "text", "kept")
    assert contents(queue) == ["kept"]
    assert caplog.text.count("wait in memory") == 1
    assert queue.adopt() == 0
    queue.close()


@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_a_file_that_is_none_of_ours_is_left_alone(waiting, queue_folder, caplog, mode):
    waiting.put("run", "text", "own")
    assert waiting.count() == 1
    (path,) = queue_folder.glob("*.queue")
    foreign = path.with_name(f"{path.name[:12]}-{'0' * 32}.queue")
    foreign.touch(mode)
    foreign.write_bytes(b"no database " * 100)
    with caplog.at_level(logging.WARNING):
        assert waiting.adopt() == 0
        assert waiting.adopt() == 0
    assert caplog.text.count(foreign.name) == 1
    assert contents(waiting) == ["own"]
    foreign.unlink()


def test_what_replaces_a_row_on_its_way_is_not_taken_away_with_it(waiting):
    waiting.put("run", "tags", {"note": "old"}, replace=True)
    (sent,) = waiting.after(0, 9)
    waiting.put("run", "tags", {"note": "new"}, replace=True)
    assert contents(waiting) == [{"note": "new"}]
    waiting.remove([sent.number])
    assert contents(waiting) == [{"note": "new"}]


def test_a_user_without_a_home_has_no_folder_and_no_error(monkeypatch, caplog):
    import platformdirs

    from greentrain.tracking.mlflow_tracker import MlflowTracker

    def refuse(*arguments, **options):
        raise RuntimeError("could not determine the home directory")

    monkeypatch.setattr(platformdirs, "user_cache_dir", refuse)
    tracker = MlflowTracker("http://127.0.0.1:9")
    tracker._queue.put("run", "text", "kept")
    assert contents(tracker._queue) == ["kept"]
    assert "set HOME or queue_folder=" in caplog.text
    tracker._queue.close()
