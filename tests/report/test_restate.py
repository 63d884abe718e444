"""Grams after restating are those computed from the start with the same factors."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from greentrain.carbon import CarbonAccount, CsvIntensity
from greentrain.carbon.factors import read_factors
from greentrain.cli.app import app
from greentrain.errors import ConfigurationError
from greentrain.ledger import Ledger
from greentrain.report.restate import restate
from tests.ledger.events import window as drawn
from tests.report.ledgers import SOURCES

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
HEADER = "applies_to,from_utc,until_utc,g_per_kwh,kind,source\n"
SERIES = "datetime_utc,carbon_intensity\n" + "".join(
    f"2026-11-21 {hour:02}:00,{value}\n" for hour, value in enumerate(range(100, 820, 30))
)


def record(ledger: Ledger, account: CarbonAccount, name: str = "digits") -> None:
    """Four windows of 90 minutes with 1000, 2000, ... J, over many hours."""
    environment = {"carbon": account.as_dict()}
    with ledger.open_run("fit", name, environment=environment, sources=SOURCES) as run:
        for number in range(1, 5):
            one = drawn(
                "train_epoch",
                by_source={"cpu": 1000.0 * number},
                started=NOON + number * timedelta(minutes=97),
                duration_s=5400.0,
            )
            run.record(one, account.of(one))


def written(folder: Path, text: str) -> Path:
    path = folder / "factors.csv"
    path.write_text(text)
    return path


@pytest.mark.parametrize("before", [{}, {"zone": "DE"}], ids=["no zone", "a zone"])
def test_restated_grams_equal_those_from_the_start(ledger, tmp_path, before):
    series = CsvIntensity(written(tmp_path, SERIES), zone="DE")
    record(ledger, CarbonAccount(**before, pue=1.3))
    rows = ledger.snapshot()
    other = Ledger(str(tmp_path / "other.db"))
    record(other, CarbonAccount(intensity=series, pue=1.3))
    (wanted,) = restate([other], read_factors(tmp_path / "factors.csv"))["runs"]
    (found,) = restate([ledger], read_factors(tmp_path / "factors.csv"))["runs"]
    other.close()
    assert found["new_g"] == pytest.approx(wanted["old_g"], rel=1e-9)
    assert wanted["new_g"] == pytest.approx(wanted["old_g"], rel=1e-9)
    assert found["old_g"] is None if not before else found["old_g"] > 0
    assert found["energy_j"] == 10_000.0
    assert ledger.snapshot() == rows


def test_a_dated_table_is_worked_out_by_hand(ledger, tmp_path):
    """1 and 2 kJ are at 100 g/kWh, half of 3 kJ is at 100, and the rest at 200."""
    record(ledger, CarbonAccount(pue=2.0))
    table = f"{HEADER}*,,2026-11-21T17:36,100,direct,a\n*,2026-11-21T17:36,,200,direct,a\n"
    (run,) = restate([ledger], read_factors(written(tmp_path, table)))["runs"]
    # The third window lasts from 16:51 to 18:21, so 17:36 is its middle.
    assert run["new_g"] == pytest.approx((4.5 * 100 + 5.5 * 200) / 3600 * 2, rel=1e-9)


def test_the_nearest_factor_counts_and_kinds_are_not_added(ledger, tmp_path):
    record(ledger, CarbonAccount(zone="DE"))
    record(ledger, CarbonAccount(), name="other")
    table = (
        f"{HEADER}*,,,1000,direct,a\nDE,,,100,direct,a\nother,,,10,direct,a\n"
        "*,,,36,upstream,a\nDE,,,1,life-cycle,a\n"
    )
    factors = read_factors(written(tmp_path, table))
    with pytest.raises(ConfigurationError, match="give --scope2 direct or --scope2 life-cycle"):
        restate([ledger], factors)
    found = restate([ledger], factors, scope2="direct", upstream=True)
    assert [run["factors_of"] for run in found["runs"]] == ["DE", "other"]
    kwh = 10_000 / 3.6e6
    assert [run["new_g"] for run in found["runs"]] == pytest.approx([kwh * 100, kwh * 10])
    assert found["total"]["upstream_g"] == pytest.approx(2 * kwh * 36)
    run_id = found["runs"][0]["run_id"]
    table = f"{HEADER}{run_id},,,5,direct,a\nDE,,,100,direct,a\n"
    found = restate([ledger], read_factors(written(tmp_path, table)))
    assert [run["factors_of"] for run in found["runs"]] == [run_id, None]
    assert found["total"]["new_g"] is None


def test_time_without_a_factor_is_unknown(ledger, tmp_path):
    record(ledger, CarbonAccount())
    table = f"{HEADER}*,2026-11-21T15:00,,100,direct,a\n"
    (run,) = restate([ledger], read_factors(written(tmp_path, table)))["runs"]
    assert run["new_g"] is None


BAD = {
    "no file": (None, "cannot read the factors"),
    "not UTF-8": (b"\xff\xfe", "cannot read the factors"),
    "empty": (b"", "needs a column 'datetime_utc'"),
    "no rows": (HEADER.encode(), "and a row or more"),
    "a column less": (b"applies_to,g_per_kwh\nDE,3\n", "need the columns applies_to"),
    "a cell more": (f"{HEADER}DE,,,1,direct,a,b\n".encode(), "has 7 cells and its header 6"),
    "no number": (f"{HEADER}DE,,,x,direct,a\n".encode(), "line 2 of .* could not convert"),
    "infinite": (f"{HEADER}DE,,,inf,direct,a\n".encode(), "g_per_kwh is inf"),
    "negative": (f"{HEADER}DE,,,-1,direct,a\n".encode(), "0 or more"),
    "no date": (f"{HEADER}DE,soon,,1,direct,a\n".encode(), "Invalid isoformat"),
    "backwards": (f"{HEADER}DE,2026-02-01,2026-01-01,1,direct,a\n".encode(), "not after its start"),
    "no kind": (f"{HEADER}DE,,,1,green,a\n".encode(), "kind is 'green'"),
    "no source": (f"{HEADER}DE,,,1,direct,\n".encode(), "none of them may be empty"),
    "before the year 1": (
        f"{HEADER}DE,0001-01-01T00:00+14:00,,1,direct,a\n".encode(),
        "line 2 of .* outside of the years",
    ),
    "kilowatt-hours of a megawatt": (f"{HEADER}DE,,,310000,direct,a\n".encode(), "more than any"),
    "semicolons": (f"{HEADER}DE,,,1,direct,a\n".replace(",", ";").encode(), "by semicolons"),
    "a series with no number": (SERIES.replace(",100\n", ",nan\n").encode(), "bad.csv.* is nan"),
    "a series before the year 1": (
        SERIES.replace("2026-11-21 00:00", "0001-01-01T00:00+14:00").encode(),
        "line 2 of .* outside of the years",
    ),
    "overlap": (
        f"{HEADER}DE,,2026-02-01,1,direct,a\nDE,2026-01-01,,2,direct,a\n".encode(),
        "two factors of 'DE'",
    ),
}


@pytest.mark.parametrize(("content", "why"), BAD.values(), ids=BAD)
def test_a_bad_file_is_refused(tmp_path, content, why):
    path = tmp_path / "bad.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=why):
        read_factors(path)


def test_kinds_that_are_missing_are_named(ledger, tmp_path):
    only = read_factors(written(tmp_path, f"{HEADER}*,,,1,direct,a\n"))
    with pytest.raises(ConfigurationError, match="no factor of the kind 'life-cycle'"):
        restate([ledger], only, scope2="life-cycle")
    with pytest.raises(ConfigurationError, match="no factor of the kind upstream"):
        restate([ledger], only, upstream=True)


def test_a_copy_of_a_ledger_is_refused(ledger, tmp_path):
    record(ledger, CarbonAccount())
    copy = Ledger(str(tmp_path / "ledger.db"), create=False)
    factors = read_factors(written(tmp_path, f"{HEADER}*,,,1,direct,a\n"))
    with pytest.raises(ConfigurationError, match="one is a copy of the other"):
        restate([ledger, copy], factors)
    copy.close()


def test_a_run_without_a_window_leaves_the_total_known(ledger, tmp_path):
    record(ledger, CarbonAccount())
    ledger.open_run("fit", "failed at once", sources=SOURCES).close("failed")
    found = restate([ledger], read_factors(written(tmp_path, f"{HEADER}*,,,360,direct,a\n")))
    assert found["runs"][1]["new_g"] is None
    assert found["total"]["energy_j"] == pytest.approx(10_000.0)  # 1000 + 2000 + 3000 + 4000
    assert found["total"]["new_g"] == pytest.approx(1.0)


def test_dated_factors_of_many_hours_are_those_of_the_series(ledger, tmp_path):
    record(ledger, CarbonAccount())
    series = restate([ledger], read_factors(written(tmp_path, SERIES)))["total"]["new_g"]
    rows = [line.split(",") for line in SERIES.splitlines()[1:]]
    ends = [*(row[0] for row in rows[1:]), "2026-11-22"]
    table = HEADER + "".join(
        f"*,{start},{end},{value},direct,a\n"
        for (start, value), end in zip(rows, ends, strict=True)
    )
    dated = restate([ledger], read_factors(written(tmp_path, table)))["total"]["new_g"]
    assert dated == pytest.approx(series, rel=1e-12)


def test_the_command_says_which_factors_are_not_used_and_why_grams_are_unknown(ledger, tmp_path):
    record(ledger, CarbonAccount(zone="DE"))
    ask = ["restate", "--ledger", str(tmp_path / "ledger.db"), "--factors"]
    done = CliRunner().invoke(app, [*ask, str(written(tmp_path, f"{HEADER}de,,,1,direct,a\n"))])
    shown = " ".join(done.output.split())
    assert "no run has the id, name or zone 'de': its factors are not used" in shown
    assert "unknown grams of digits: no factor holds" in shown
    path = written(tmp_path, f"{HEADER}DE,,,0.31,direct,a\n")  # in kg
    shown = " ".join(CliRunner().invoke(app, [*ask, str(path)]).output.split())
    assert "the mean factor is 0.31 g/kWh, which is very low: check its unit" in shown


def test_factors_may_come_through_a_pipe(ledger, tmp_path):
    record(ledger, CarbonAccount())
    os.mkfifo(tmp_path / "pipe")
    content = f"{HEADER}*,,,360,direct,a\n".encode()
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(content,))
    writer.start()
    ask = ["restate", "--ledger", str(tmp_path / "ledger.db"), "--factors", str(tmp_path / "pipe")]
    done = CliRunner().invoke(app, [*ask, "--out", str(tmp_path / "out.json")])
    writer.join()
    assert done.exit_code == 0, done.output
    held = json.loads((tmp_path / "out.json").read_text())
    assert held["factors_sha256"] == hashlib.sha256(content).hexdigest()


def test_the_command(ledger, tmp_path):
    record(ledger, CarbonAccount())
    path, out = written(tmp_path, f"{HEADER}*,,,360,direct,a\n"), tmp_path / "restated.json"
    words = ["restate", "--ledger", str(tmp_path / "ledger.db"), "--factors", str(path)]
    done = CliRunner().invoke(app, [*words, "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert "1 g CO2e" in done.output
    held = json.loads(out.read_text())
    assert held["total"]["new_g"] == pytest.approx(1.0, rel=1e-9)
    assert (held["total"]["old_g"], len(held["factors_sha256"])) == (None, 64)
