"""Files that are no readable ledger: one line each, and an exit code of their own for verify."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from greentrain.budget import Budget
from greentrain.cli.app import app, main
from greentrain.errors import GreentrainError, LedgerError
from greentrain.ledger import Ledger


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of a small ledger."""
    path = tmp_path_factory.mktemp("whole") / "ledger.db"
    with closing(Ledger(str(path))) as ledger:
        budget = ledger.open_budget("digits", Budget.parse("1 Wh"))
        with ledger.open_run("stream", "digits") as run:
            account = ledger.account(budget, run)
            account.settle(account.reserve(100.0, "update"), 50.0)
    return path.read_bytes()


def in_latin_1(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("UPDATE runs SET name = CAST(x'e96c' AS TEXT)")


def cut(share: float) -> Callable[[Path, bytes], object]:
    return lambda file, content: file.write_bytes(content[: int(share * len(content))])


DAMAGED: dict[str, Callable[[Path, bytes], object]] = {
    "empty": cut(0.0),
    "one byte": lambda file, content: file.write_bytes(content[:1]),
    "its header alone": lambda file, content: file.write_bytes(content[:100]),
    "a page": lambda file, content: file.write_bytes(content[:4096]),
    "half": cut(0.5),
    "nearly all": cut(0.97),
    "a text file": lambda file, content: file.write_text("These are no rows.\n" * 300),
    "not UTF-8": in_latin_1,
}
READING = (["report", "--out", "out", "--ledger"], ["explain", "--ledger"], ["ledger", "show"])


def ask(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


@pytest.mark.parametrize("how", DAMAGED)
def test_a_file_that_is_no_ledger_is_one_line_and_exit_code_4(
    how: str, whole: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    DAMAGED[how](Path("bad.db"), whole)
    found = ask("verify", "bad.db")
    assert found.exit_code == 4
    first, line = found.output.splitlines()
    assert first == "ledger bad.db"
    assert line.startswith("UNREADABLE: ")
    assert "bad.db" in line
    for command in READING:
        refused = ask(*command, "bad.db").exception
        assert isinstance(refused, LedgerError), command
        assert len(str(refused).splitlines()) == 1
    Path("good.db").write_bytes(whole)
    both = ask("verify", "bad.db", "good.db")
    assert both.exit_code == 4
    assert "everything follows" in both.output


def test_other_commands_end_with_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.db").write_bytes(b"")
    command = ["greentrain", "ledger", "show", str(tmp_path / "bad.db")]
    monkeypatch.setattr("sys.argv", command)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("is not a greentrain ledger: it is empty")


def test_the_exit_codes_are_in_the_help() -> None:
    shown = " ".join(ask("verify", "--help").output.split())
    assert "Exit code 4: a file is no readable ledger" in shown


def test_a_changed_byte_is_never_a_traceback(whole: bytes, tmp_path: Path) -> None:
    file = tmp_path / "ledger.db"
    for place in range(23, len(whole), len(whole) // 20):
        for left in tmp_path.iterdir():
            left.unlink()
        changed = bytearray(whole)
        changed[place] ^= 1 << place % 8
        file.write_bytes(changed)
        found = ask("verify", str(file))
        assert isinstance(found.exception, (type(None), SystemExit, GreentrainError)), place
