"""A ledger's file that is deleted, replaced, or reached under two names."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from greentrain.budget import Budget
from greentrain.errors import BudgetExceeded, LedgerError
from greentrain.ledger import Ledger, verify
from greentrain.ledger.outbox import left_behind
from tests.ledger.events import window

TERMS = Budget.parse("1000 J", num_experiences=2)
NOT_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts a file")


def reserve(path: Path, joules: float) -> None:
    with closing(Ledger(str(path))) as ledger, ledger.open_run("stream", "one") as run:
        ledger.account(ledger.open_budget("one", TERMS), run).reserve(joules, "update")


def test_a_file_that_was_deleted_is_noticed_at_the_next_write(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, aside = tmp_path / "ledger.db", tmp_path / "aside.db"
    with closing(Ledger(str(path))) as ledger:
        run = ledger.open_run("stream", "one")
        account = ledger.account(ledger.open_budget("one", TERMS), run)
        path.rename(aside)
        for epoch in range(3):
            run.record(window(by_source={"cpu": 1.0}, epoch=epoch))
            run.flush()
        with pytest.raises(LedgerError, match=r"its file is gone .*; put it back"):
            account.reserve(1.0, "update")
        assert not path.exists()
        warnings = [one for one in caplog.records if one.levelno >= logging.WARNING]
        assert len(warnings) == 1
        assert "wait in a local file" in warnings[0].getMessage()
        aside.rename(path)
        run.close()
        assert [row["epoch"] for row in ledger.windows()] == [0, 1, 2]
        assert verify(ledger).ok
        assert left_behind(ledger.store) == []


def test_a_file_that_was_replaced_takes_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with closing(Ledger(str(path))) as ledger:
        run = ledger.open_run("stream", "one")
        account = ledger.account(ledger.open_budget("one", TERMS), run)
        run.flush()
        shutil.copy(path, tmp_path / "copy.db")
        (tmp_path / "copy.db").replace(path)
        run.record(window(by_source={"cpu": 1.0}))
        run.flush()
        with pytest.raises(LedgerError, match="was replaced by another file"):
            account.reserve(1.0, "update")
        run.close()
    with closing(Ledger(str(path))) as ledger:  # writes what waited
        assert len(ledger.windows()) == 1
        assert verify(ledger).exit_code == 0


def test_a_reader_of_a_deleted_file_creates_none(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with closing(Ledger(str(path))) as ledger:
        ledger.store.close()
        path.unlink()
        with pytest.raises(LedgerError, match="unable to open database file"):
            ledger.windows()
    assert not path.exists()


def test_a_second_name_of_a_file_is_refused(tmp_path: Path) -> None:
    path, other = tmp_path / "ledger.db", tmp_path / "other.db"
    with closing(Ledger(str(path))) as ledger:
        run = ledger.open_run("stream", "one")
        ledger.account(ledger.open_budget("one", TERMS), run).reserve(900.0, "update")
        os.link(path, other)
        with pytest.raises(LedgerError, match=r"has 2 names \(hard links\)"):
            reserve(other, 900.0)
        run.record(window(by_source={"cpu": 1.0}))  # the first name goes on
        run.close()
        assert len(ledger.windows()) == 1


def test_a_symbolic_link_is_the_same_ledger(tmp_path: Path) -> None:
    path, other = tmp_path / "ledger.db", tmp_path / "other.db"
    reserve(path, 600.0)
    other.symlink_to(path)
    reserve(other, 400.0)
    with pytest.raises(BudgetExceeded, match="0 Wh of 1,000 J are left"):
        reserve(path, 1.0)


def test_a_draft_that_a_killed_process_left_is_no_second_name(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    Ledger(str(path)).close()
    os.link(path, tmp_path / ".ledger.db.0123abcd")
    reserve(path, 1.0)
    assert [one.name for one in tmp_path.iterdir()] == ["ledger.db"]


@NOT_ROOT
def test_a_file_that_is_mounted_alone_is_refused(tmp_path: Path) -> None:
    path, other = tmp_path / "ledger.db", tmp_path / "other.db"
    Ledger(str(path)).close()
    other.touch()
    done = subprocess.run(["mount", "--bind", str(path), str(other)], check=False)
    if done.returncode:
        pytest.skip("nothing can be mounted here")
    try:
        with pytest.raises(LedgerError, match=r"mounted as a single file.*; mount its folder"):
            reserve(other, 900.0)
    finally:
        subprocess.run(["umount", str(other)], check=True)
