"""What is particular to SQLite, and to PostgreSQL."""

from __future__ import annotations

import sqlite3
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from greentrain.budget import Budget
from greentrain.callbacks.run_record import default_url
from greentrain.errors import ConfigurationError, LedgerError
from greentrain.ledger import Ledger, file_url, filesystems, open_ledgers, verify
from tests.ledger.cluster import Cluster
from tests.ledger.events import window
from tests.prepared import CONTEXT


def journal_mode(path: Path) -> str:
    with closing(sqlite3.connect(path)) as database:
        (mode,) = database.execute("PRAGMA journal_mode").fetchone()
    return str(mode)


def write_one(url: str) -> None:
    ledger = Ledger(url)
    with ledger.open_run("fit", "model") as run:
        run.record(window(by_source={"cpu": 1.0}))
    assert verify(ledger).ok
    ledger.close()


# SQLite


def test_a_local_file_has_a_write_ahead_log(tmp_path: Path) -> None:
    write_one(str(tmp_path / "x.db"))
    assert journal_mode(tmp_path / "x.db") == "wal"


@pytest.mark.parametrize("empty", [False, True])
@pytest.mark.parametrize("where", ["network", "no shared memory"])
def test_a_file_elsewhere_has_a_journal_that_is_truncated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty: bool, where: str
) -> None:
    for module in ("creation", "sqlite"):
        if where == "network":
            monkeypatch.setattr(f"greentrain.ledger.{module}.is_network", lambda _: True)
    if where == "no shared memory":
        monkeypatch.setattr("greentrain.ledger.creation._probe", lambda _: False)
    path = tmp_path / "x.db"
    if empty:
        path.touch()
    write_one(str(path))
    assert journal_mode(path) == "delete"  # what another program finds; we truncate
    assert sorted(one.name for one in tmp_path.iterdir()) == ["x.db", "x.db-journal"]
    assert (tmp_path / "x.db-journal").stat().st_size == 0


def test_a_file_that_was_brought_to_a_network_loses_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.db"
    write_one(str(path))
    monkeypatch.setattr("greentrain.ledger.sqlite.is_network", lambda _: True)
    write_one(str(path))
    assert journal_mode(path) == "delete"


@pytest.mark.parametrize(
    ("path", "kind", "network"),
    [
        ("/home/me/x.db", "ext4", False),
        ("/home/me/shared disk/x.db", "nfs4", True),
        ("/home/me/shared disk/deep/x.db", "fuse.sshfs", True),
        ("/home/me/shared diskette/x.db", "ext4", False),
        ("/mnt/x.db", "fuseblk", False),
    ],
)
def test_the_file_system_is_that_of_the_nearest_mount(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, kind: str, network: bool
) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
        "23 22 0:31 / /home/me/shared\\040disk rw,nosuid shared:1 - nfs4 server:/x rw\n"
        "24 23 0:32 / /home/me/shared\\040disk/deep rw - fuse.sshfs server:/y rw\n"
        "25 22 0:33 / /mnt rw - fuseblk /dev/sdb1 rw\n"
    )
    monkeypatch.setattr(filesystems, "_MOUNTS", mounts)
    assert filesystems.kind(Path(path)) == kind
    assert filesystems.is_network(Path(path)) is network
    monkeypatch.setattr(filesystems, "_MOUNTS", tmp_path / "missing")
    assert (filesystems.kind(Path(path)), filesystems.is_network(Path(path))) == ("", False)


def test_a_second_host_is_refused_while_the_first_ones_run_is_under_way(
    tmp_path: Path,
) -> None:
    url = str(tmp_path / "x.db")
    ours, theirs = Ledger(url), Ledger(url)
    theirs.store.host = "another"
    run = ours.open_run("fit", "ours")
    with pytest.raises(LedgerError, match=r"another host .*\(its run 'ours' is active\).*postgre"):
        theirs.open_run("fit", "theirs")
    assert len(theirs.rows("run")) == 1  # reading is for all
    assert verify(theirs).ok
    ours.open_run("fit", "the same host").close()
    run.close()
    left = theirs.open_run("fit", "theirs")
    with pytest.raises(LedgerError, match="its run 'theirs' is active"):
        ours.open_run("fit", "ours")
    later = datetime.now(UTC) + timedelta(minutes=6)
    ours.clock = lambda: later
    ours.open_run("fit", "after theirs was killed").close()
    left.close()
    assert verify(ours).ok
    ours.close()
    theirs.close()


def test_a_host_that_was_taken_for_dead_may_not_reserve_while_another_one_is_active(
    tmp_path: Path,
) -> None:
    url, now = str(tmp_path / "x.db"), [datetime(2026, 1, 1, tzinfo=UTC)]
    ours, theirs = (Ledger(url, clock=lambda: now[0]) for _ in range(2))
    theirs.store.host = "another"
    budget = ours.open_budget("shared", Budget.parse("1 Wh", num_experiences=2))
    silent = ours.open_run("stream", "silent")
    account = ours.account(budget, silent)
    reservation = account.reserve(100.0, "update")
    now[0] += timedelta(minutes=4)
    with pytest.raises(LedgerError, match="its run 'silent' is active"):
        theirs.open_run("stream", "second")
    now[0] += timedelta(minutes=2)
    second = theirs.open_run("stream", "second")
    theirs_account = theirs.account(budget, second)
    held = theirs_account.reserve(100.0, "update")
    with pytest.raises(LedgerError, match=r"its run 'second' is active\).*silent for five minutes"):
        account.reserve(100.0, "update")
    account.settle(reservation, 50.0)  # what it has used is recorded
    theirs_account.settle(held, 50.0)
    assert theirs_account.balance().spent_j == 100.0
    second.close()
    account.settle(account.reserve(100.0, "update"), 50.0)
    silent.close()
    assert verify(ours).ok
    ours.close()
    theirs.close()


# PostgreSQL


def test_hosts_share_a_postgresql_ledger(cluster: Cluster) -> None:
    url = cluster.new()
    ours, theirs = Ledger(url), Ledger(url)
    theirs.store.host = "another"
    with ours.open_run("fit", "ours"), theirs.open_run("fit", "theirs"):
        pass
    assert [row["host"] == "another" for row in ours.rows("run")] == [False, True]
    assert verify(ours).ok
    ours.close()
    theirs.close()


@pytest.mark.parametrize("given", ["team:secret@", "team@", ""])
def test_no_secret_of_a_url_is_shown(given: str) -> None:
    query = "&password=secret&sslpassword=secret" if given != "team:secret@" else ""
    url = f"postgresql://{given}/ledger?host=/no/such/folder{query}"
    with pytest.raises(LedgerError) as caught:
        Ledger(url)
    assert "/no/such/folder" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_url_without_a_database_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="'postgresql://host' names no database"):
        Ledger("postgresql://team@host")


def test_a_driver_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ConfigurationError, match=r'pip install "lightning-greentrain\[postgres\]"'):
        Ledger("postgresql+psycopg://team@host/ledger")


def test_whoever_only_reads_makes_no_tables(cluster: Cluster) -> None:
    url = cluster.new()
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="there is no ledger in"):
            Ledger(url, create=False)


def test_other_peoples_tables_stay_as_they_are(cluster: Cluster) -> None:
    url = cluster.new()
    schema = url.rpartition("%3D")[2]
    cluster.run(f"CREATE TABLE {schema}.runs (x int)", f"CREATE TABLE {schema}.mine (x int)")
    with pytest.raises(LedgerError, match="other tables named runs; give the ledger"):
        Ledger(url)
    cluster.run(f"DROP TABLE {schema}.runs")
    write_one(url)


def _write_many(url: str, number: int) -> None:
    ledger = Ledger(url)
    with ledger.open_run("fit", f"worker {number}") as run:
        for epoch in range(20):
            run.record(window(by_source={"cpu": 1.0}, epoch=epoch))
            run.flush()
            ledger.open_run("fit", f"within {number}").close()
    ledger.close()


def test_processes_that_begin_with_an_empty_database_agree(url: str) -> None:
    workers = [CONTEXT.Process(target=_write_many, args=(url, number)) for number in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 3
    ledger = Ledger(url, create=False)
    assert len(ledger.rows("window")) == 3 * 20
    assert len(ledger.rows("run")) == 3 * 21
    assert verify(ledger).ok
    ledger.close()


@pytest.mark.parametrize("name", ["a%20b", "a?b", "a b", "a#b", "50%", "a%3Fb", "a:b@c", "ä"])
def test_a_ledger_is_where_its_path_says_whatever_the_characters(name: str, tmp_path: Path) -> None:
    path = tmp_path / name / "ledger.db"
    Ledger(file_url(path)).close()
    assert [found.name for found in tmp_path.iterdir()] == [name]
    assert path.is_file()
    for given in (file_url(path), str(path)):
        opened = Ledger(given, create=False)
        assert opened.store.path == path
        assert opened.url == file_url(path)
        opened.close()
    (again,) = open_ledgers([file_url(path)])
    assert again.store.path == path
    again.close()


def test_a_default_ledger_is_in_the_trainers_folder(tmp_path: Path) -> None:
    root = tmp_path / "run%201?"
    url = default_url(SimpleNamespace(default_root_dir=str(root), fast_dev_run=False))
    assert url is not None
    Ledger(url).close()
    assert [each.suffix for each in (root / "greentrain_logs").iterdir()] == [".db"]


def test_options_in_the_url_of_a_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="names no SQLite file"):
        Ledger(f"sqlite:///{tmp_path}/ledger.db?mode=ro")
