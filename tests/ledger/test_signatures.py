"""Ed25519 signatures of files and heads: what they show, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from greentrain.cli.app import app
from greentrain.errors import ConfigurationError
from greentrain.ledger import Ledger
from greentrain.ledger.multi import verify_all
from greentrain.ledger.signatures import (
    PUBLIC_NAME,
    SIGNING_VARIABLE,
    Checker,
    Signer,
    check_signature,
    new_keys,
    signature_file,
)
from greentrain.ledger.signed_heads import head_log
from greentrain.report import build, write
from tests.report.ledgers import stream


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with keys, a ledger with two runs and their signed heads, and its report."""
    folder = tmp_path_factory.mktemp("whole")
    private, _ = new_keys(folder / "keys")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(SIGNING_VARIABLE, str(private))
        with closing(Ledger(str(folder / "ledger.db"))) as ledger:
            stream(ledger)
            stream(ledger, name="second")
            write(build(ledger), folder, ("json", "md"))
    return folder


@pytest.fixture
def keys(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a pair of keys, of which the private one signs."""
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    monkeypatch.setenv(SIGNING_VARIABLE, str(tmp_path / "keys" / "greentrain.key"))
    return tmp_path / "keys"


@pytest.fixture
def signed(keys: Path) -> Path:
    """The file of a ledger with two runs and their signed heads, and its report next to it."""
    return keys.with_name("ledger.db")


def test_the_private_key_is_its_owners_and_nothing_is_overwritten(tmp_path: Path) -> None:
    private, public = new_keys(tmp_path / "new")
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert b"PUBLIC KEY" in public.read_bytes()
    assert Signer(private).fingerprint == Checker(public).fingerprint
    for left in (private, public):
        content = left.read_bytes()
        with pytest.raises(ConfigurationError, match="no key is overwritten"):
            new_keys(tmp_path / "new")
        assert left.read_bytes() == content
        left.unlink()
        left.write_bytes(content)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="cannot write the keys"):
        new_keys(tmp_path / "file")


def test_a_file_is_checked_with_the_public_key_alone(signed: Path, keys: Path) -> None:
    elsewhere = signed.parent / "another machine"
    elsewhere.mkdir()
    for name in ("report.md", "report.md.sig"):
        shutil.copy(signed.with_name(name), elsewhere)
    shutil.copy(keys / PUBLIC_NAME, elsewhere)
    page, key = elsewhere / "report.md", elsewhere / PUBLIC_NAME
    assert check_signature(page, key)[1] == 0
    page.write_text(page.read_text().replace("3 Wh", "2 Wh"))
    lines, code = check_signature(page, key)
    assert (code, "it was changed after it was signed" in lines[0]) == (1, True)


FAULTS = {
    "no signature": (lambda sig: sig.unlink(), "there is no signature report.md.sig"),
    "cut short": (lambda sig: sig.write_text(sig.read_text()[:100]), "is cut short"),
    "empty": (lambda sig: sig.write_text(""), "is cut short"),
    "not JSON": (lambda sig: sig.write_bytes(b"\xff"), "is cut short"),
    "a list": (lambda sig: sig.write_text("[]"), "no signature of this version"),
    "of heads": (lambda sig: edited(sig, kind="heads"), "does not sign file"),
    "no hexadecimal": (lambda sig: edited(sig, signature="xyz"), "does not fit"),
    "another's": (lambda sig: edited(sig, signature="00" * 64), "does not fit"),
    "another digest": (lambda sig: edited(sig, sha256="0" * 64), "does not fit"),
    "something added": (lambda sig: edited(sig, by="me"), "does not fit"),
}


def edited(path: Path, **changes: str) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(("change", "why"), FAULTS.values(), ids=FAULTS)
def test_a_signature_that_does_not_fit_is_named(signed, keys, change, why):
    page = signed.with_name("report.md")
    change(signature_file(page))
    lines, code = check_signature(page, keys / PUBLIC_NAME)
    assert code == 1
    assert why in lines[0]


def test_another_key_did_not_sign_it(signed: Path, tmp_path: Path) -> None:
    _, other = new_keys(tmp_path / "other")
    lines, code = check_signature(signed.with_name("report.md"), other)
    assert (code, "of another key" in lines[0]) == (1, True)
    lines, code = verify_all([str(signed)], public_key=other)
    assert (code, "of another key" in "\n".join(lines)) == (1, True)


def test_what_is_no_public_key_is_refused(keys: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="is a private key; give the public one"):
        Checker(keys / "greentrain.key")
    short = tmp_path / "short.pub"
    for content in (b"", (keys / PUBLIC_NAME).read_bytes()[:60], b"\x00" * 100_000):
        short.write_bytes(content)
        with pytest.raises(ConfigurationError, match="is no Ed25519 public key"):
            Checker(short)
    with pytest.raises(ConfigurationError, match="cannot read the key"):
        Checker(tmp_path / "none.pub")


def test_no_run_starts_with_a_wrong_private_key(
    keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger(str(tmp_path / "none.db"))
    private = keys / "greentrain.key"
    private.chmod(0o644)
    with pytest.raises(ConfigurationError, match="other users may read the private key"):
        ledger.open_run("fit", "a")
    private.chmod(0o600)
    private.write_bytes(private.read_bytes()[:50])
    with pytest.raises(ConfigurationError, match="is no Ed25519 private key"):
        ledger.open_run("fit", "a")
    monkeypatch.setenv(SIGNING_VARIABLE, str(tmp_path / "missing.key"))
    with pytest.raises(ConfigurationError, match="cannot read the key"):
        ledger.open_run("fit", "a")
    monkeypatch.delenv(SIGNING_VARIABLE)
    assert not ledger.rows("run")
    ledger.close()


def test_pipes_in_the_place_of_files_are_not_waited_for(
    signed: Path, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe, report = keys / "pipe", signed.with_name("report.md")
    os.mkfifo(pipe, 0o600)
    for kind in (Signer, Checker):
        with pytest.raises(ConfigurationError, match=r"cannot read the key.* no regular file"):
            kind(pipe)
    signature_file(report).unlink()
    os.mkfifo(signature_file(report))
    lines, code = check_signature(report, keys / PUBLIC_NAME)
    assert (code, "cut short, or no signature" in lines[0]) == (1, True)
    head_log(signed).unlink()
    os.mkfifo(head_log(signed))
    lines, code = verify_all([str(signed)], public_key=keys / PUBLIC_NAME)
    assert code == 1
    assert "the signed heads cannot be read" in "\n".join(lines)
    with closing(Ledger(str(signed))) as ledger:  # the training ends, with a warning
        stream(ledger, name="third")


def test_heads_are_signed_when_a_run_closes(signed: Path, keys: Path) -> None:
    assert len(head_log(signed).read_text().splitlines()) == 2
    assert stat.S_IMODE(head_log(signed).stat().st_mode) == 0o600
    lines, code = verify_all([str(signed)], public_key=keys / PUBLIC_NAME)
    assert code == 0, lines
    assert any("signed heads of the key" in line for line in lines)


def consistent_forgery(file: Path) -> None:
    """Write a ledger of the same rows again, with another figure and hashes that follow."""
    file.unlink()
    with closing(Ledger(str(file))) as ledger:
        stream(ledger)
        stream(ledger, name="second")


def cut_tail(file: Path) -> None:
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("DELETE FROM entries WHERE id = (SELECT MAX(id) FROM entries)")


def cut_last_line(file: Path) -> None:
    log = head_log(file)
    log.write_text(log.read_text()[:-20])


def moved_head(file: Path) -> None:
    log = head_log(file)
    first, second = map(json.loads, log.read_text().splitlines())
    second["heads"] = first["heads"]
    log.write_text(f"{json.dumps(first)}\n{json.dumps(second)}\n")


FORGERIES = {
    "written again": (consistent_forgery, "was replaced"),
    "tail cut": (cut_tail, "was cut off"),
    "log cut": (cut_last_line, "line 2 of ledger.db.heads is cut short"),
    "log without lines": (lambda file: head_log(file).write_text(""), "ledger.db.heads is empty"),
    "log removed": (lambda file: head_log(file).unlink(), "ledger.db.heads is missing"),
    "a head moved": (moved_head, "line 2 of ledger.db.heads: the signature does not fit"),
}


@pytest.mark.parametrize(("forge", "why"), FORGERIES.values(), ids=FORGERIES)
def test_a_forged_ledger_does_not_fit_its_signed_heads(signed, keys, monkeypatch, forge, why):
    monkeypatch.delenv(SIGNING_VARIABLE)
    forge(signed)
    lines, code = verify_all([str(signed)], public_key=keys / PUBLIC_NAME)
    assert code == 1
    assert why in "\n".join(line for line in lines if line.startswith("FAILED"))


def test_exported_heads_are_signed_and_checked(signed: Path, keys: Path, tmp_path: Path) -> None:
    heads, key = tmp_path / "heads.json", keys / PUBLIC_NAME
    assert verify_all([str(signed)], heads)[1] == 0
    assert signature_file(heads).exists()
    assert verify_all([str(signed)], heads, public_key=key)[1] == 0
    heads.write_text(heads.read_text().replace('"count": 2', '"count": 1'))
    lines, code = verify_all([str(signed)], heads, public_key=key)
    assert (code, "it was changed after it was signed" in lines[0]) == (1, True)


def test_the_commands(signed: Path, keys: Path, tmp_path: Path) -> None:
    def ask(*words: str) -> tuple[int, str]:
        done = CliRunner().invoke(app, words)
        return done.exit_code, done.output

    key, page = str(keys / PUBLIC_NAME), str(signed.with_name("report.md"))
    code, shown = ask("keys", "new", str(tmp_path / "more"))
    assert (code, "greentrain.pub" in shown) == (0, True)
    assert ask("verify", page, "--public-key", key)[0] == 0
    code, shown = ask("verify", page, "--public-key", key, "--ledger", str(signed))
    assert (code, "the file is correct" in shown) == (0, True), shown
    assert ask("verify", "--ledger", str(signed), "--public-key", key)[0] == 0
    assert ask("verify", str(signed), "--public-key", key)[0] == 0
    signature_file(Path(page)).unlink()
    assert ask("verify", page, "--public-key", key, "--ledger", str(signed))[0] == 1
