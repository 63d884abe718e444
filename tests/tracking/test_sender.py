"""The thread that sends: in order, again until it has arrived, and never in the way."""

from __future__ import annotations

import threading

import pytest

from greentrain.ledger.disk_queue import QueuedRow
from greentrain.tracking.sender import MOST_METRICS, Sender, grouped
from greentrain.tracking.tracking_queue import POINTS, TrackingQueue

POINT = ["loss", 0.5, 1, 0]


class Store:
    """A server that takes rows, or does not."""

    def __init__(self) -> None:
        self.up = True
        self.refuses: set[str] = set()
        self.taken: list[QueuedRow] = []
        self.calls = 0
        self.tried = threading.Event()

    def answers(self) -> bool:
        self.tried.set()
        return self.up

    def deliver(self, rows) -> None:
        self.calls += 1
        if rows[0].kind in self.refuses:
            raise OSError(f"no room for a {rows[0].kind}")
        self.taken += rows

    @property
    def contents(self) -> list[object]:
        return [row.content for row in self.taken]


def sender(queue: TrackingQueue, store: Store) -> Sender:
    return Sender(queue, store.deliver, reachable=store.answers, name="http://here")


def test_all_arrives_in_order_and_no_file_stays(queue_folder):
    store = Store()
    sending = sender(TrackingQueue(queue_folder, "here"), store)
    sending.put("run", "run", {"name": "a"})
    for number in range(500):
        sending.put("run", POINTS, [["loss", 0.0, 1, number]])
    sending.put("run", "end", {})
    assert sending.finish(60.0) == 0
    steps = [row.content[0][3] for row in store.taken if row.kind == POINTS]
    assert steps == list(range(500))
    assert [store.taken[0].kind, store.taken[-1].kind] == ["run", "end"]
    assert list(queue_folder.iterdir()) == []


@pytest.mark.parametrize("folder", ["none", "unwritable"])
def test_rows_that_waited_in_memory_are_said_to_be_lost(folder, tmp_path, caplog):
    store = Store()
    store.up = False
    file = tmp_path / "file"
    file.touch()
    sending = sender(TrackingQueue(None if folder == "none" else file / "folder", "here"), store)
    sending.put("run", "figures", [POINT])
    assert sending.finish(60.0) == 1
    assert "1 rows for MLflow at http://here waited in memory and are lost" in caplog.text
    assert "wait in" not in caplog.text.replace("wait in memory, because", "")


def test_what_a_server_does_not_take_waits_for_the_next_process(queue_folder, caplog):
    store = Store()
    store.up = False
    sending = sender(TrackingQueue(queue_folder, "here"), store)
    for number in range(3):
        sending.put("run", "figures", [["loss", 0.0, 1, number]])
    assert sending.finish(60.0) == 3
    assert caplog.text.count("wait, because it does not respond") == 1
    assert caplog.text.count(f"3 rows for MLflow at http://here wait in {queue_folder}") == 1
    assert store.calls == 0
    store.up = True
    later = sender(TrackingQueue(queue_folder, "here"), store)
    later.put("run", "end", {})
    assert later.finish(60.0) == 0
    assert [row.kind for row in store.taken] == ["figures"] * 3 + ["end"]
    assert list(queue_folder.iterdir()) == []


def test_a_server_that_is_back_gets_everything_once(queue_folder, caplog):
    store = Store()
    store.up = False
    sending = sender(TrackingQueue(queue_folder, "here"), store)
    sending.put("run", "text", 0)
    assert store.tried.wait(60.0)
    store.up = True
    for number in range(1, 5):
        sending.put("run", "text", number)
    assert sending.finish(60.0) == 0
    assert store.contents == [0, 1, 2, 3, 4]


def test_an_artifact_that_is_not_taken_holds_nothing_up(queue_folder, caplog):
    store = Store()
    store.refuses = {"text"}
    sending = sender(TrackingQueue(queue_folder, "here"), store)
    for kind in ("run", "text", "figures", "end"):
        sending.put("run", kind, [])
    assert sending.finish(60.0) == 1
    assert [row.kind for row in store.taken][:3] == ["run", "figures", "end"]
    assert "no room for a text" in caplog.text


def test_what_comes_after_a_run_that_is_not_taken_waits_with_it(queue_folder):
    store = Store()
    store.refuses = {"run"}
    sending = sender(TrackingQueue(queue_folder, "here"), store)
    for kind in ("run", "figures"):
        sending.put("run", kind, [])
    assert sending.finish(60.0) == 2
    assert store.taken == []


def test_the_end_waits_no_longer_than_it_may(queue_folder, caplog):
    answer = threading.Event()
    store = Store()

    def hang(rows) -> None:
        answer.wait(60.0)

    sending = Sender(
        TrackingQueue(queue_folder, "here"), hang, reachable=store.answers, name="here"
    )
    sending.put("run", "text", 1)
    assert store.tried.wait(60.0)
    assert sending.finish(0.0) == 1
    assert "1 rows for MLflow at here wait" in caplog.text
    answer.set()
    assert sending.finish(60.0) == 0
    assert list(queue_folder.iterdir()) == []


def test_a_call_is_given_up_when_the_server_is_gone(queue_folder, monkeypatch):
    monkeypatch.setattr("greentrain.tracking.sender._PROBE_S", 0.01)
    answer, store = threading.Event(), Store()

    def lose(rows) -> None:  # as MLflow's client does, which tries for minutes
        if store.up:
            store.up = False
            answer.wait(60.0)
        store.deliver(rows)

    sending = Sender(
        TrackingQueue(queue_folder, "here"), lose, reachable=store.answers, name="here"
    )
    sending.put("run", "text", [1])
    assert sending.finish(60.0) == 1
    assert store.taken == []
    store.up = True
    later = sender(TrackingQueue(queue_folder, "here"), store)
    later.put("run", "end", [2])
    assert later.finish(60.0) == 0
    assert store.contents == [[1], [2]]
    answer.set()


def test_after_its_end_it_can_be_begun_again(queue_folder):
    store = Store()
    sending = sender(TrackingQueue(queue_folder, "here"), store)
    for number in range(3):
        sending.put("run", "file", number)
        assert sending.finish(60.0) == 0
    assert store.contents == [0, 1, 2]
    assert sending.finish(60.0) == 0


def test_one_warning_says_how_much_was_given_up(queue_folder, caplog):
    store = Store()
    store.up = False
    sending = sender(TrackingQueue(queue_folder, "here", limit=10), store)
    for number in range(25):
        sending.put("run", POINTS, [number])
    sending.put("run", "text", "a decision")
    assert sending.finish(60.0) == 11
    assert "the points of 15 epochs" in caplog.text
    store.up = True
    later = sender(TrackingQueue(queue_folder, "here"), store)
    later.put("run", "text", "the end")
    later.finish(60.0)
    assert store.contents == [*([n] for n in range(15, 25)), "a decision", "the end"]


def test_a_call_holds_no_more_points_than_it_may():
    rows = [
        QueuedRow(number=number, run="a", kind=POINTS, content=[POINT] * 300) for number in range(7)
    ]
    groups = list(grouped(rows))
    assert [len(group) for group in groups] == [3, 3, 1]
    assert max(sum(len(row.content) for row in group) for group in groups) == MOST_METRICS


@pytest.mark.parametrize("kind", ["run", "text", "end", "inputs", "model", "params", "file"])
def test_what_is_not_points_and_tags_goes_by_itself(kind):
    kinds = [POINTS, "tags", kind, kind, "figures"]
    rows = [QueuedRow(number=n, run="a", kind=each, content={}) for n, each in enumerate(kinds)]
    assert [len(group) for group in grouped(rows)] == [2, 1, 1, 1]
