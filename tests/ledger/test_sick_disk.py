"""A disk that is full, a file that is read-only, a server that is gone: training goes on."""

from __future__ import annotations

import logging
import multiprocessing
import os
import sqlite3
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection

from greentrain.budget import Budget
from greentrain.errors import LedgerError
from greentrain.ledger import Ledger, RunLog, outbox, verify
from greentrain.ledger.disk_queue import DiskQueue
from greentrain.ledger.events import window_content
from greentrain.ledger.outbox import left_behind, set_aside
from tests.ledger.cluster import Cluster
from tests.ledger.events import window

ROOT = Path(__file__).parents[2]
JOULES = (1.0, 2.0, 3.0, 4.0)
NOT_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts a file system")


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of temporary files, of this test alone."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte."""
    folder = tmp_path / "small"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def draw(run: RunLog, *epochs: int) -> None:
    for epoch in epochs:
        run.record(window(by_source={"cpu": 1.0}, epoch=epoch))
        run.flush()


def epochs(ledger: Ledger) -> list[int]:
    return [row["epoch"] for row in ledger.rows("window")]


def fill(folder: Path) -> Path:
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (65536, 512, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue
    return filler


@contextmanager
def refusing(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def refuse(*arguments: object) -> str:
        raise LedgerError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(ledger.store, "append", refuse)
        yield


# The real thing


@NOT_ROOT
def test_a_full_disk(small: Path, temporary: Path) -> None:
    ledger = Ledger(str(small / "x.db"))
    account = ledger.account(
        ledger.open_budget("b", Budget(energy_j=9.0)), ledger.open_run("a", "b")
    )
    run = ledger.open_run("fit", "model")
    draw(run, 0)
    filler = fill(small)
    draw(run, *range(1, 100))
    with pytest.raises(LedgerError, match="full"):
        account.reserve(1.0, "an update")
    assert len(epochs(ledger)) < 100
    (path,) = left_behind(ledger.store)
    assert path.parent.parent == temporary  # beside the ledger there is no room either
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    filler.unlink()
    draw(run, 100)
    assert epochs(ledger) == list(range(101))
    assert left_behind(ledger.store) == []
    account.reserve(1.0, "an update")
    run.close()
    assert verify(ledger).failures == ()
    ledger.close()


@NOT_ROOT
def test_a_disk_that_was_mounted_read_only(small: Path, temporary: Path) -> None:
    ledger = Ledger(str(small / "x.db"), keep_open=False)
    run = ledger.open_run("fit", "model")
    draw(run, 0)
    subprocess.run(["mount", "-o", "remount,ro", str(small)], check=True)
    draw(run, 1, 2)
    assert [path.parent.parent for path in left_behind(ledger.store)] == [temporary]
    with pytest.raises(LedgerError, match=r"unable to open|readonly"):
        ledger.open_run("fit", "another")
    reader = Ledger(str(small / "x.db"), create=False)
    assert epochs(reader) == [0]
    assert verify(reader).ok
    with pytest.raises(LedgerError, match="readonly"):
        reader.open_run("fit", "another")
    reader.close()
    subprocess.run(["mount", "-o", "remount,rw", str(small)], check=True)
    run.close()
    assert epochs(ledger) == [0, 1, 2]
    assert verify(ledger).ok and verify(ledger).uncovered == ()
    ledger.close()


# Whoever may not mount a disk limits how large a file may grow. Python ignores the signal.
LIMITED = """
import resource, sys
from tests.ledger.events import window
from greentrain.ledger import Ledger, verify

ledger = Ledger(sys.argv[1])
run = ledger.open_run("fit", "model")
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))
for epoch in range(100):
    run.record(window("a phase of some length " * 200, by_source={"cpu": 1.0}, epoch=epoch))
    run.flush()
written = len(ledger.rows("window"))
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
run.close()
print(written, len(ledger.rows("window")), verify(ledger).exit_code)
"""


def test_a_connection_that_was_opened_on_a_read_only_disk_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "greentrain.db"
    connect = sqlite3.connect
    modes = ["mode=rw"]

    def connected(name: str, *args: Any, **options: Any) -> sqlite3.Connection:
        return connect(name.replace("mode=rw", modes[-1]), *args, **options)

    Ledger(str(path)).close()
    modes.append("mode=ro")  # as SQLite does on a read-only disk
    monkeypatch.setattr(sqlite3, "connect", connected)
    with closing(Ledger(str(path))) as ledger:
        with pytest.raises(LedgerError, match="readonly"):
            ledger.open_budget("stream", Budget.parse("1 kWh"))
        modes.pop()
        ledger.open_budget("stream", Budget.parse("1 kWh"))
        assert len(ledger.rows("budget")) == 1


def test_a_file_that_may_not_grow(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path / "x.db")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    written, in_the_end, code = map(int, done.stdout.split())
    assert (in_the_end, code) == (100, 0)
    assert written < 100
    assert done.stderr.count("rows of the ledger wait in a local file, because") == 1


def test_a_server_that_is_gone_for_a_while(cluster: Cluster, temporary: Path) -> None:
    ledger = Ledger(url := cluster.new())
    budget = ledger.open_budget("b", Budget(energy_j=9.0))
    run = ledger.open_run("fit", "model")
    account = ledger.account(budget, run)
    draw(run, 0)
    cluster.stop()
    try:
        draw(run, 1, 2)
        with pytest.raises(LedgerError):
            account.reserve(1.0, "an update")
        assert [path.parent.parent for path in left_behind(ledger.store)] == [temporary]
    finally:
        cluster.start()
    draw(run, 3)
    assert epochs(ledger) == [0, 1, 2, 3]
    account.reserve(1.0, "an update")
    cluster.stop()
    try:
        draw(run, 4)
        run.close()
    finally:
        cluster.start()
    assert verify(ledger).uncovered == (run.run_id,)
    again = Ledger(url)
    assert epochs(ledger) == [0, 1, 2, 3, 4]
    assert verify(ledger).exit_code == 0
    assert [path for path in temporary.rglob("*") if path.is_file()] == []
    ledger.close()
    again.close()


# Each once


def test_what_waits_is_written_when_the_ledger_is_opened_next(
    ledger: Ledger, url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    run = ledger.open_run("fit", "model")
    with refusing(ledger, monkeypatch):
        draw(run, 0, 1)
        other = Ledger(url)  # the run's own process still has the file
        assert len(left_behind(ledger.store)) == 1
        run.close("failed")
    assert ledger.rows("closing") == []
    assert "rows that the ledger did not take wait in" in caplog.messages[-1]
    reader = Ledger(url, create=False)
    assert reader.rows("window") == []  # whoever only reads writes nothing
    reader.close()
    Ledger(url).close()
    assert epochs(ledger) == [0, 1]
    assert [row["status"] for row in ledger.rows("closing")] == ["failed"]
    assert caplog.messages[-1] == f"rows of the run {run.run_id} that had waited were written"
    assert left_behind(ledger.store) == []
    assert verify(ledger).exit_code == 0
    other.close()


def test_a_process_that_is_killed_before_it_deletes_the_file_writes_nothing_twice(
    ledger: Ledger, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "_BATCH", 2)
    run = ledger.open_run("fit", "model")
    with refusing(ledger, monkeypatch):
        draw(run, *range(5))
    with monkeypatch.context() as patch:
        patch.setattr(DiskQueue, "delete", DiskQueue.close)
        draw(run, 5)
    assert len(left_behind(ledger.store)) == 1
    for _ in range(2):
        Ledger(url).close()
        assert epochs(ledger) == list(range(6))
    assert left_behind(ledger.store) == []
    assert [row["line"] for row in ledger.rows("replay")] == [1, 3, 5, 6]
    run.close()
    assert verify(ledger).exit_code == 0


def test_rows_that_were_written_though_nobody_heard_so_are_not_written_again(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = ledger.open_run("fit", "model")
    draw(run, 0)
    write = ledger.store.write

    @contextmanager
    def lose_the_answer() -> Iterator[Connection]:
        with write() as connection:
            yield connection
        raise LedgerError("the connection was lost")

    with monkeypatch.context() as patch:
        patch.setattr(ledger.store, "write", lose_the_answer)
        draw(run, 1)
    draw(run, 2)
    run.close()
    assert epochs(ledger) == [0, 1, 2]
    assert verify(ledger).exit_code == 0


def test_only_the_last_of_the_heartbeats_that_waited_is_written(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = ledger.open_run("fit", "model")
    beats = [window_content(run.run_id, window(by_source={"cpu": j}), None) for j in JOULES]
    box = outbox.Outbox(ledger.store, run.run_id)
    with refusing(ledger, monkeypatch):
        for beat in beats:
            assert not box.send([("heartbeat", beat)])
    assert box.send([])
    # The first one alone, to see whether the database takes any.
    assert [row["energy_j"] for row in ledger.rows("heartbeat")] == [1.0, 4.0]
    run.close()


def test_windows_wait_in_memory_where_no_file_takes_them(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = ledger.open_run("fit", "model")
    nowhere = [(Path("/no/such/folder"), "x")]
    monkeypatch.setattr("greentrain.ledger.outbox._places", lambda *_: nowhere)
    with refusing(ledger, monkeypatch):
        draw(run, 0, 1)
    draw(run, 2)
    with (
        refusing(ledger, monkeypatch),
        pytest.raises(LedgerError, match="lost its last rows, because neither"),
    ):
        run.close()
    assert epochs(ledger) == [0, 1, 2]
    (said,) = caplog.messages
    assert said.startswith("rows of the ledger wait in memory, because no file can be written: [Er")


@pytest.mark.parametrize(
    "what",
    [
        "readable by all",
        "a journal that is readable by all",
        "no database",
        "a link",
    ],
)
def test_a_file_that_somebody_else_may_have_put_there_is_left_alone(
    ledger: Ledger,
    url: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    what: str,
) -> None:
    run = ledger.open_run("fit", "model")
    with refusing(ledger, monkeypatch):
        draw(run, 0)
        run.close()
    (path,) = left_behind(ledger.store)
    if what == "readable by all":
        path.chmod(0o644)
    elif what == "a journal that is readable by all":
        path.with_name(f"{path.name}-wal").touch(0o644)
    elif what == "no database":
        path.write_text("[]\n" * 1000)
    else:
        path.rename(path.with_name("elsewhere"))
        path.symlink_to(path.with_name("elsewhere"))
    Ledger(url).close()
    assert ledger.rows("window") == []
    assert f"the rows in {path} were not written" in caplog.messages[-1]
    assert left_behind(ledger.store) == [path]
    path.unlink()


@pytest.mark.parametrize(
    "change_to",
    [
        "content = replace(content, '{run}', 'another')",
        "run = 'another'",
        "kind = 'reservation'",
        "kind = 'decision'",
    ],
)
def test_rows_that_their_run_did_not_write_are_set_aside(
    ledger: Ledger, url: str, monkeypatch: pytest.MonkeyPatch, change_to: str
) -> None:
    run = ledger.open_run("fit", "model")
    with refusing(ledger, monkeypatch):
        draw(run, 0, 1)
        run.close()
    (path,) = left_behind(ledger.store)
    change(path, f"UPDATE waiting SET {change_to.format(run=run.run_id)} WHERE id = 1")
    Ledger(url).close()
    assert epochs(ledger) == [1]
    assert [row["status"] for row in ledger.rows("closing")] == ["completed"]
    assert left_behind(ledger.store) == []
    assert len(set_aside(ledger.store)) == 1


def change(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement)


def test_a_folder_of_temporary_files_that_others_may_use_is_not_used(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, temporary: Path
) -> None:
    run = ledger.open_run("fit", "model")
    folder = temporary / f"greentrain-{os.geteuid()}"
    folder.mkdir()
    folder.chmod(0o755)
    with refusing(ledger, monkeypatch):
        draw(run, 0)
        assert list(folder.iterdir()) == []
    draw(run, 1)
    run.close()
    assert epochs(ledger) == [0, 1]


def test_a_forked_process_lets_its_rows_wait_in_a_file_of_its_own(
    ledger: Ledger, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = ledger.open_run("fit", "model")

    def send_one() -> None:
        run._outbox.send([("window", window_content(run.run_id, window(by_source={}), None))])

    with refusing(ledger, monkeypatch):
        draw(run, 0)
        process = multiprocessing.get_context("fork").Process(target=send_one)
        process.start()
        process.join()
        assert process.exitcode == 0
        assert len(left_behind(ledger.store)) == 2
        assert [queue.count() for queue in run._outbox._queues] == [1]
    run.close()
    Ledger(url).close()
    assert epochs(ledger) == [0, None]
    assert left_behind(ledger.store) == []
    assert verify(ledger).ok


def test_an_outcome_waits_like_a_window(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = {"experience_id": "a", "position": 0, "metric": "acc", "steps": 3, "kept": True}
    run = ledger.open_run("fit", "model")
    with refusing(ledger, monkeypatch):
        run.note("outcome", **outcome, planned_steps=3)
        run.flush()
    run.close()
    assert [row["steps"] for row in ledger.rows("outcome")] == [3]


def test_a_last_row_that_is_not_whole_is_not_read(
    ledger: Ledger, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = ledger.open_run("fit", "model")
    with refusing(ledger, monkeypatch):
        draw(run, 0, 1)
        (path,) = left_behind(ledger.store)
        journal = path.with_name(f"{path.name}-wal")
        as_if_killed = {path: path.read_bytes(), journal: journal.read_bytes()[:-5]}
        run._outbox.close()
    for each, content in as_if_killed.items():
        each.touch(0o600)
        each.write_bytes(content)
    Ledger(url).close()
    assert epochs(ledger) == [0]
    assert left_behind(ledger.store) == []
    run.close()


@pytest.mark.parametrize(
    "bad",
    [
        ("outcome", {"experience_id": "a", "kept": True}),
        ("outcome", {"experience_id": "a", "position": 0, "colour": "green"}),
        ("sources", {"name": "cpu"}),
        ("source", {"name": None, "method": "counter"}),
        ("closing", {"status": None}),
    ],
)
def test_a_row_that_is_never_taken_does_not_hold_up_the_others(
    ledger: Ledger,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    bad: tuple[str, dict[str, object]],
) -> None:
    kind, content = bad
    run = ledger.open_run("fit", "model")
    with refusing(ledger, monkeypatch):
        draw(run, 0)
        run.note(kind, **content)
        draw(run, 1, 2)
    run.close()
    assert epochs(ledger) == [0, 1, 2]
    assert [row["status"] for row in ledger.rows("closing")] == ["completed"]
    assert left_behind(ledger.store) == []
    (aside,) = set_aside(ledger.store)
    found = verify(ledger)
    assert found.exit_code == 0
    assert (
        f"refused: a row that the ledger did not take is set aside in {aside.name}" in found.notes
    )
    assert sum("is set aside in" in message for message in caplog.messages) == 1


def test_a_bad_row_among_good_ones_is_set_aside_at_once(ledger: Ledger) -> None:
    with ledger.open_run("fit", "model") as run:
        draw(run, 0)
        run.note("outcome", experience_id="a")
        draw(run, 1)
    assert epochs(ledger) == [0, 1]
    assert len(set_aside(ledger.store)) == 1
    assert verify(ledger).exit_code == 0
