"""Plant forgeries in what a third party gets, verify a bundle elsewhere, and restate grams."""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

from _results import Row

from greentrain.budget import Budget
from greentrain.carbon import CarbonAccount, CsvIntensity
from greentrain.carbon.factors import read_factors
from greentrain.energy import Reading, Window
from greentrain.ledger import Ledger
from greentrain.ledger.multi import verify_all
from greentrain.ledger.schema import run_chain
from greentrain.ledger.signatures import (
    SIGNING_VARIABLE,
    Signer,
    check_signature,
    new_keys,
    signature_file,
)
from greentrain.ledger.signed_heads import head_log, sign_heads
from greentrain.report import build, write
from greentrain.report.exports import write_card
from greentrain.report.recheck_exports import check_rendered
from greentrain.report.restate import restate
from greentrain.report.write import FORMATS

ROOT = Path(__file__).parents[3]
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
FORGERIES, QUICK_FORGERIES = 100, 12
ROWS, QUICK_ROWS = 100_000, 2_000
WINDOWS, QUICK_WINDOWS = 2_000, 100
_COMMAND = ("verify", "report.json", "--ledger", "ledger.db", "--public-key", "greentrain.pub")


def forgery(folder: Path, *, quick: bool) -> Row:
    """Return the row of planted forgeries: those not found, and alarms about untouched files."""
    whole = _claim(folder / "whole")
    rng = random.Random(0)
    number = QUICK_FORGERIES if quick else FORGERIES
    kinds = sorted(_kinds(whole))
    wrong = [name for name in kinds if _found(whole, name, whole / "keys" / "greentrain.pub")]
    for turn in range(number):
        name = kinds[turn % len(kinds)]
        copy = folder / f"forged-{turn}"
        shutil.copytree(whole, copy)
        _kinds(copy)[name](rng)
        if not _found(copy, name, copy / "keys" / "greentrain.pub"):
            wrong.append(name)
        shutil.rmtree(copy)
    return Row(
        id="forgery",
        what=f"of {number} planted forgeries and {len(kinds)} untouched ones, those judged wrong",
        value=float(len(wrong)),
        unit="cases",
        reach=0.0,
        note=f"{len(kinds)} kinds: figures in each format, heads and signatures. {' '.join(wrong)}",
    )


def third_party(folder: Path, *, quick: bool) -> Row:
    """Return the row of a bundle that is verified at another path, without any variable."""
    from filled_ledger import fill

    made, bundle = folder / "made", folder / "another place" / "bundle"
    made.mkdir()
    private, public = new_keys(made)
    fill(str(made / "ledger.db"), QUICK_ROWS if quick else ROWS)
    with _signing(private), closing(Ledger(str(made / "ledger.db"))) as ledger:
        signer, heads = Signer(private), ledger.heads()
        of = {chain: (head["count"], head["head"]) for chain, head in heads.items()}
        for run in ledger.rows("run"):
            sign_heads(signer, of.get, made / "ledger.db", run_chain(run["run_id"]))
        rows = sum(head["count"] for head in heads.values())
        write(build(ledger), made, ("json", "html"))
    bundle.mkdir(parents=True)
    for path in made.iterdir():
        if path != private:
            shutil.copy(path, bundle)
    shutil.rmtree(made)
    offline = _offline()
    began, cpu = time.perf_counter(), os.times()
    done = subprocess.run(
        [*offline, sys.executable, "-m", "greentrain", *_COMMAND],
        cwd=bundle,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    seconds, now = time.perf_counter() - began, os.times()
    cpu_s = now.children_user + now.children_system - cpu.children_user - cpu.children_system
    return Row(
        id="third_party",
        what=f"ledger of {rows:,} rows and its signed report.json, verified with the public key",
        value=None if done.returncode else seconds,
        unit="s",
        reach=10.0,
        note=f"one command at another path, {'no network' if offline else 'network not cut'}, "
        f"no variable but PYTHONPATH, {public.name} and no private key; "
        f"processor time {cpu_s:.3g} s"
        + (f"; FAILED: {done.stdout[-200:]}" if done.returncode else ""),
    )


def restated(folder: Path, *, quick: bool) -> Row:
    """Return the row of the largest relative difference after restating."""
    rng = random.Random(0)
    series = folder / "series.csv"
    lines = [
        f"{(NOON + hour * timedelta(hours=1)).isoformat()},{rng.uniform(20, 900)!r}\n"
        for hour in range(24 * 400)
    ]
    series.write_text("datetime_utc,carbon_intensity\n" + "".join(lines))
    accounts = {
        "start.db": CarbonAccount(intensity=CsvIntensity(series, zone="DE"), pue=1.3),
        "later.db": CarbonAccount(pue=1.3),
    }
    number = QUICK_WINDOWS if quick else WINDOWS
    windows = []
    at = NOON
    for _ in range(number):
        at += timedelta(microseconds=rng.randrange(10**6, 10**10))
        ended = at + timedelta(microseconds=rng.randrange(10**6, 2 * 10**10))
        reading = Reading(
            duration_s=(ended - at).total_seconds(), energy_j={"cpu": rng.uniform(1, 1e6)}
        )
        windows.append(Window(phase="measure", started=at, ended=ended, reading=reading))
        at = ended
    grams = {}
    for name, account in accounts.items():
        with closing(Ledger(str(folder / name))) as ledger:
            for begin in range(0, number, 10):
                settings = {"carbon": account.as_dict()}
                with ledger.open_run("measure", name, environment=settings) as run:
                    for one in windows[begin : begin + 10]:
                        run.record(one, account.of(one))
            runs = restate([ledger], read_factors(series))["runs"]
            grams[name] = [(run["old_g"], run["new_g"]) for run in runs]
    pairs = zip(grams["start.db"], grams["later.db"], strict=True)
    worst = max(abs(later - start) / start for (start, _), (_, later) in pairs)
    return Row(
        id="restate",
        what=f"largest relative difference of restated grams, {number} windows in runs of 10",
        value=worst,
        unit="",
        reach=1e-9,
        note="a run without a zone, restated with an hourly series, against one that had it",
    )


class _signing:
    """Set the private key for a block."""

    def __init__(self, private: Path) -> None:
        self._private = private

    def __enter__(self) -> None:
        os.environ[SIGNING_VARIABLE] = str(self._private)

    def __exit__(self, *_: object) -> None:
        del os.environ[SIGNING_VARIABLE]


def _claim(folder: Path) -> Path:
    """Write a ledger with signed heads, its report in each format with signatures, and a card."""
    private, _ = new_keys(folder / "keys")
    account = CarbonAccount(zone="DE", pue=1.2)
    with _signing(private), closing(Ledger(str(folder / "ledger.db"))) as ledger:
        for name in ("first", "second"):
            settings = {"carbon": account.as_dict()}
            with ledger.open_run("fit", name, environment=settings) as run:
                budget = ledger.open_budget(name, Budget.parse("2 Wh"))
                paid = ledger.account(budget, run)
                paid.settle(paid.reserve(4000.0, "update"), 0.0)
                for number in range(3):
                    one = Window(
                        phase="train_epoch",
                        started=NOON + number * timedelta(minutes=1),
                        ended=NOON + number * timedelta(minutes=1, seconds=36),
                        reading=Reading(duration_s=36.0, energy_j={"cpu": 3615.0 + number}),
                    )
                    run.record(one, account.of(one))
        document = build(ledger)
        write(document, folder, list(FORMATS))
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# A model\n")
    write_card(folder / "README.md", document)
    return folder


def _found(folder: Path, name: str, key: Path) -> bool:
    """Return whether anything is wrong with what a kind of forgery is about."""
    ledger = [str(folder / "ledger.db")]
    if name.startswith("ledger "):
        return verify_all(ledger, public_key=key)[1] != 0
    if name.startswith("signature "):
        return check_signature(folder / name.partition(" ")[2], key)[1] != 0
    return check_rendered(folder / name, ledger)[1] != 0


def _kinds(folder: Path) -> dict[str, Callable[[random.Random], object]]:
    """Return the kinds of forgeries in a folder; each changes its files."""
    ends = [end for name, one in FORMATS.items() if name != "json" for end in one.files]
    page, log = folder / "report.html", head_log(folder / "ledger.db")
    return {
        **{
            name: lambda rng, path=folder / name: _edit(path, rng)  # type: ignore[misc]
            for name in [*(f"report.{end}" for end in ends), "README.md"]
        },
        "ledger cut tail": lambda _: _cut_tail(folder / "ledger.db"),
        "ledger cut log": lambda rng: log.write_bytes(
            log.read_bytes()[: -rng.randrange(2, log.stat().st_size)]
        ),
        "ledger edited head": lambda rng: _edit(log, rng),
        "signature report.html": lambda rng: _edit(page, rng),
        "signature report.json": lambda rng: _forge(folder / "report.json", rng),
        "signature report.md": lambda _: signature_file(folder / "report.md").unlink(),
    }


def _edit(path: Path, rng: random.Random) -> None:
    """Change one digit; of a workbook in a cell, and of a PDF a byte of a page's stream."""
    content = path.read_bytes()
    if path.suffix == ".xlsx":
        changed = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(content)) as held, zipfile.ZipFile(changed, "w") as new:
            for name in held.namelist():
                part = held.read(name)
                sheet = name.endswith("sheet1.xml")
                new.writestr(name, _digit(part, part.index(b"<v>"), rng) if sheet else part)
        path.write_bytes(changed.getvalue())
    elif path.suffix == ".pdf":
        at = rng.randrange(len(content) // 4, len(content) // 2)
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    else:
        begin = content.index(b"  emissions:") if path.name == "README.md" else 0
        end = content.index(b"\n", begin) if begin else len(content)
        path.write_bytes(_digit(content[:end], begin, rng) + content[end:])


def _digit(content: bytes, begin: int, rng: random.Random) -> bytes:
    places = [at for at in range(begin, len(content)) if content[at : at + 1].isdigit()]
    at = rng.choice(places) if begin == 0 else places[0]
    return content[:at] + str((int(content[at : at + 1]) + 1) % 10).encode() + content[at + 1 :]


def _cut_tail(file: Path) -> None:
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("DELETE FROM entries WHERE id = (SELECT MAX(id) FROM entries)")


def _forge(path: Path, rng: random.Random) -> None:
    """Sign a changed file with another key, under the name of the right one."""
    private, _ = new_keys(path.parent / "forger")
    statement = json.loads(signature_file(path).read_text())
    _edit(path, rng)
    Signer(private).sign_file(path)
    forged = json.loads(signature_file(path).read_text())
    signature_file(path).write_text(json.dumps({**forged, "key": statement["key"]}))


def _offline() -> list[str]:
    """Return the words before a command that cut it off the network, if that is allowed."""
    words = ["unshare", "--net", "--map-root-user"]
    if shutil.which("unshare") is None:
        return []
    done = subprocess.run([*words, "true"], capture_output=True, check=False)
    return words if done.returncode == 0 else []
