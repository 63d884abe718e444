"""Grams after restating are those computed from the start with the same factors."""

from __future__ import annotations

import io
import json
import math
import os
import threading
import zipfile
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import jsonschema
import pytest
from typer.testing import CliRunner

from greentrain.budget import Budget
from greentrain.carbon import (
    CarbonAccount,
    CsvIntensity,
    FallbackChain,
    Provenance,
    StaticIntensity,
)
from greentrain.carbon.factors import read_factors
from greentrain.carbon.intensity import Interval
from greentrain.cli.app import app
from greentrain.errors import ConfigurationError, IntensityError
from greentrain.ledger import Ledger
from greentrain.report import build, build_and_write, check, render_html
from greentrain.report.exports import write_card
from greentrain.report.exports.facts import restated_words
from greentrain.report.restate import restate
from greentrain.report.restatement import Restatement
from greentrain.report.write import FORMATS
from tests.ledger.events import window as drawn
from tests.report.exports.documents import needs_pango
from tests.report.ledgers import SOURCES
from tests.report.test_core import SCHEMA

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
HEADER = "applies_to,from_utc,until_utc,g_per_kwh,kind,source\n"
TABLE = f"{HEADER}DE,,,360,direct,a\n*,,,720,direct,b\n*,,,36,upstream,c\n"
SERIES = "datetime_utc,carbon_intensity\n" + "".join(
    f"2026-11-21 {hour:02}:00,{value}\n" for hour, value in enumerate(range(100, 820, 30))
)


def record(ledger: Ledger, account: CarbonAccount, name: str = "digits") -> None:
    """Four windows of 90 minutes with 1000, 2000, ... J, over many hours."""
    environment = {"carbon": account.as_dict(), "host": name}
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
    done = CliRunner().invoke(app, [*ask, "--out", str(tmp_path / "out")])
    writer.join()
    assert done.exit_code == 0, done.output
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["restated"]["sha256"] == sha256(content).hexdigest()


def test_the_command(ledger, tmp_path):
    record(ledger, CarbonAccount(zone="DE"))
    path, out = written(tmp_path, f"{HEADER}*,,,360,direct,a\n"), tmp_path / "out"
    words = ["restate", "--ledger", ledger.url, "--factors", str(path)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "new (direct)" in done.output
    done = CliRunner().invoke(app, [*words, "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert f"--factors {path}" in done.output
    report = json.loads((out / "report.json").read_text())
    assert report["carbon"]["emissions_g"] == pytest.approx(1.0)  # 10 kJ at 360 g/kWh
    assert report["restated"]["sha256"] == sha256(path.read_bytes()).hexdigest()
    done = CliRunner().invoke(app, [*words, "--format", "csv"])
    assert isinstance(done.exception, ConfigurationError)
    assert "give its folder with --out" in str(done.exception)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a ledger of two zones, its restated report in every format, and a card."""
    needs_pango()
    folder = tmp_path_factory.mktemp("restated")
    ledger = Ledger(str(folder / "ledger.db"))
    record(ledger, CarbonAccount(zone="DE", pue=1.5))
    record(ledger, CarbonAccount(), name="without a zone")
    factors = Restatement.read(written(folder, TABLE), upstream=True)
    document, _ = build_and_write(ledger, folder, list(FORMATS), restatement=factors)
    ledger.close()
    card = folder / "README.md"
    card.write_text("---\nlicense: mit\n---\n# A model\n")
    write_card(card, document)
    return folder


def test_a_restated_report_has_new_grams_and_the_old_ones_beside(whole):
    report = json.loads((whole / "report.json").read_text())
    germany, other = report["runs"]
    recorded = StaticIntensity("DE").g_per_kwh
    # 10 kJ each: 360 g/kWh times 1.5, and 720 g/kWh in another place
    assert germany["emissions_g"] == pytest.approx(1.5)
    assert germany["emissions_before_g"] == pytest.approx(recorded * 1.5 / 360)
    assert (other["emissions_g"], other["emissions_before_g"]) == (pytest.approx(2.0), None)
    assert report["carbon"]["emissions_g"] == pytest.approx(3.5)
    assert report["carbon"]["by_basis"] == [{"basis": "direct", "emissions_g": pytest.approx(3.5)}]
    assert math.fsum(one["carbon_g"] for one in report["hourly"]) == pytest.approx(3.5)
    assert report["restated"]["before_g"] is None  # one run had no grams
    assert report["restated"]["before_by_basis"] == [
        {"basis": "life-cycle", "emissions_g": pytest.approx(recorded * 1.5 / 360)}
    ]
    assert report["restated"]["upstream_g"] == pytest.approx(0.1 * (1.5 + 1.0))
    jsonschema.Draft202012Validator(SCHEMA).validate(report)
    ledger = Ledger(str(whole / "ledger.db"))
    before = build(ledger)
    ledger.close()
    for same in ("totals", "budgets", "period", "experiences"):
        assert json.loads(json.dumps(before[same])) == report[same]


def test_every_format_names_the_factors(whole):
    digest = sha256((whole / "factors.csv").read_bytes()).hexdigest()
    for path in sorted(whole.glob("report.*")):
        content = path.read_bytes()
        if path.suffix == ".csv":
            continue  # a table, whose last column names the report
        if path.suffix == ".xlsx":
            with zipfile.ZipFile(io.BytesIO(content)) as held:
                content = b"".join(held.read(name) for name in held.namelist())
        elif path.suffix == ".pdf":
            continue  # the page, printed
        assert digest.encode() in content, path.name
        assert b"estated" in content, path.name
    assert "emissions before restating" in (whole / "report.runs.csv").read_text()
    assert digest in (whole / "README.md").read_text()


@pytest.mark.parametrize("name", [f"report.{end}" for one in FORMATS.values() for end in one.files])
def test_each_file_is_a_rendering_of_the_ledger_with_these_factors(whole, name):
    words = ["verify", str(whole / name), "--ledger", str(whole / "ledger.db")]
    done = CliRunner().invoke(app, [*words, "--factors", str(whole / "factors.csv")])
    assert done.exit_code == 0, done.output
    done = CliRunner().invoke(app, words)
    assert isinstance(done.exception, ConfigurationError)
    assert "give that file with --factors" in str(done.exception)


def test_other_factors_and_a_changed_figure_are_found(whole, tmp_path):
    path, other = whole / "report.json", tmp_path / "factors.csv"
    other.write_text(TABLE.replace("360", "361"))
    words = ["verify", "--ledger", str(whole / "ledger.db"), "--factors"]
    done = CliRunner().invoke(app, [*words, str(other), str(path)])
    assert isinstance(done.exception, ConfigurationError)
    assert "is another file" in str(done.exception)
    for part, change in (
        (("restated",), {"before_g": 1.0}),
        (("runs", 0), {"emissions_before_g": 0.1}),
        (("restated",), {"file": "another.csv"}),
        (("restated",), {"upstream": False}),
    ):
        report = json.loads(path.read_text())
        held = report
        for key in part:
            held = held[key]
        held.update(change)
        forged = tmp_path / "report.json"
        forged.write_text(json.dumps(report))
        done = CliRunner().invoke(app, [*words, str(whole / "factors.csv"), str(forged)])
        assert done.exit_code == 1, done.output


def test_factors_of_a_report_that_is_not_restated_are_refused(ledger, tmp_path):
    record(ledger, CarbonAccount(zone="DE"))
    build_and_write(ledger, tmp_path, ["json"])
    factors = written(tmp_path, TABLE)
    with pytest.raises(ConfigurationError, match="not restated"):
        check((tmp_path / "report.json").read_text(), [ledger], factors)


def test_a_payment_of_grams_stays_as_it_was_settled(ledger, tmp_path):
    account = CarbonAccount(zone="DE")
    budget = ledger.open_budget("grams", Budget.parse("100 g CO2e", num_experiences=1))
    with ledger.open_run("stream", "digits", environment={"carbon": account.as_dict()}) as run:
        of_run = ledger.account(budget, run, carbon=account)
        reservation = of_run.reserve(3.6e5, "an update")
        one = drawn(
            "train_epoch", by_source={"cpu": 3.6e5}, started=NOON, reservation_id=reservation
        )
        run.record(one, account.of(one))
    given = Restatement.read(written(tmp_path, f"{HEADER}*,,,1,direct,a\n"))
    before, after = build(ledger), build(ledger, restatement=given)
    assert after["carbon"]["emissions_g"] == pytest.approx(0.1)
    assert after["budgets"] == before["budgets"]


def test_grams_before_are_by_the_basis_of_each_window_also_after_a_fallback(tmp_path, monkeypatch):
    class Service:
        """Direct factors, 360 g/kWh up to 16:00; then it gives no answer."""

        provenance = Provenance(source="a service", zone="DE", data_year=None, basis="direct")

        def history(self, start: datetime, end: datetime) -> list[Interval]:
            if end > NOON + timedelta(hours=4):
                raise IntensityError("a service gave no answer")
            return [Interval(start=start, end=end, g_per_kwh=360.0)]

        forecast = history

    ledger = Ledger(str(tmp_path / "ledger.db"))
    germany = StaticIntensity("DE")
    # The first window, of 1 kJ, ends at 15:07; those of 2, 3 and 4 kJ end after 16:00.
    record(ledger, CarbonAccount(intensity=FallbackChain([Service(), germany])))
    own_g, other_g = 0.1, germany.g_per_kwh * 9.0 / 3600.0
    factors = Restatement.read(written(tmp_path, f"{HEADER}*,,,720,direct,b\n"))
    report = build(ledger, restatement=factors)
    assert report["restated"]["before_by_basis"] == [
        {"basis": "direct", "emissions_g": pytest.approx(own_g)},
        {"basis": "life-cycle", "emissions_g": pytest.approx(other_g)},
    ]
    assert report["restated"]["before_g"] == pytest.approx(own_g + other_g)
    assert "of different bases (direct 0.1 g CO2e, life-cycle " in restated_words(report)
    page = render_html(report)
    assert "before, of different bases" in page
    assert build(ledger)["carbon"]["by_basis"] == report["restated"]["before_by_basis"]
    record(ledger, CarbonAccount(zone="DE"), "alone")
    found = restate([ledger], factors.factors)
    bases = [one["old_bases"] for one in found["runs"]]
    assert bases == [["direct", "life-cycle"], ["life-cycle"]]
    assert found["total"]["old_bases"] == ["direct", "life-cycle"]
    ledger.close()
    monkeypatch.setenv("COLUMNS", "200")
    words = ["restate", "--ledger", str(tmp_path / "ledger.db")]
    done = CliRunner().invoke(app, [*words, "--factors", str(tmp_path / "factors.csv")])
    shown = [line for line in done.output.splitlines() if "CO2e" in line]
    lines = {line.strip(" │┃|").split()[0]: line for line in shown}
    assert "g CO2e (different bases)" in lines["total"]
    assert "g CO2e (different bases)" in lines["digits"]
    assert "g CO2e (life-cycle)" in lines["alone"]
    assert "different bases (direct, life-cycle)" in " ".join(done.output.split())
