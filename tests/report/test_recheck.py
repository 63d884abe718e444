"""Whatever is changed in a report, and whatever was appended since, checking it tells."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator

import pytest
from typer.testing import CliRunner

from greentrain.carbon import Emissions
from greentrain.cli.app import app
from greentrain.errors import ConfigurationError
from greentrain.ledger import Ledger
from greentrain.report import build, check, write
from greentrain.report.disclosures import Disclosures
from greentrain.report.recheck import check_file, differences, load
from greentrain.report.write import render_json
from tests.ledger.test_verify import alter
from tests.report.ledgers import SOURCES, heartbeat, stream, window

GIVEN = Disclosures(hosting="own", water_l_per_kwh=1.8, model={"name": "digits 1"})
DIGIT = re.compile(r"\d")


def full(ledger: Ledger) -> None:
    """A stream, a run at the same time, and one that was killed."""
    stream(ledger)
    with ledger.open_run("fit", "other", environment={"host": "abc"}, sources=SOURCES) as run:
        window(run, 3600.0, None, emissions=Emissions(grams=0.7, intensity_g_per_kwh=350.0))
    run = ledger.open_run("fit", "killed", sources=SOURCES)
    run.flush()
    heartbeat(run, 123.25, 45.5)
    run._writer.close()


def other_digit(match: re.Match[str]) -> str:
    return str((int(match[0]) + 1) % 10)


def changed(text: str) -> Iterator[tuple[int, str]]:
    """Every text with one digit changed."""
    for match in DIGIT.finditer(text):
        at = match.start()
        yield at, text[:at] + other_digit(match) + text[at + 1 :]


def test_a_report_follows_from_its_ledger_however_it_is_laid_out(ledger):
    full(ledger)
    report = build(ledger, disclosures=GIVEN)
    assert report["overlaps"]
    assert report["totals"]["windows_recovered"] == 1
    text = render_json(report)
    checked = check(text, [ledger])
    assert (checked.ok, checked.differences, checked.later) == (True, (), 0)
    assert checked.rows == report["verification"]["rows"]
    assert check(json.dumps(json.loads(text)), [ledger]).ok


def test_any_digit_that_is_changed_differs_from_what_follows(ledger):
    """Every digit of every number and text, against the document that its ledger gives."""
    full(ledger)
    text = render_json(build(ledger, disclosures=GIVEN))
    found = load(text)
    missed = []
    for at, forged in changed(text):
        try:
            told = load(forged)
        except ConfigurationError:  # the version of the form
            continue
        if not any(differences(told, found)):
            missed.append(text[max(0, at - 30) : at + 10])
    assert missed == []
    # Digits beyond what a float holds are digits as well.
    assert any(
        differences(
            load('{"schema_version": 3, "a": 0.30000000000000004}'),
            load('{"schema_version": 3, "a": 0.30000000000000003}'),
        )
    )


def test_what_says_how_a_report_is_formed_cannot_be_changed_either(ledger):
    """Digits of scope, heads and what was given lead to another document, which is no way out."""
    full(ledger)
    report = build(ledger, disclosures=GIVEN, since="2026-11-21", until="2026-11-22", name="*")
    text = render_json(report)
    spans = [
        match.span()
        for key in ("disclosures", "scope", "schema_version", "verification")
        for match in re.finditer(rf'^  "{key}".*?(?=^  "|\Z)', text, re.MULTILINE | re.DOTALL)
    ]
    inside = [
        (at, forged)
        for at, forged in changed(text)
        if any(begins <= at < ends for begins, ends in spans)
    ]
    assert len(spans) == 4
    for at, forged in inside[::5]:
        try:
            assert not check(forged, [ledger]).ok, text[max(0, at - 60) : at + 10]
        except ConfigurationError:  # it cannot be formed anew at all
            continue


CHANGES = {
    "a figure": (lambda r: r["totals"].update(energy_j=1.0), "/totals/energy_j"),
    "a figure of a run": (lambda r: r["runs"][0].update(energy_wh=0), "/runs/0/energy_wh"),
    "a name": (lambda r: r["runs"][0].update(name="mine"), "/runs/0/name"),
    "a run left out": (lambda r: r["runs"].pop(), "/runs/2"),
    "something added": (lambda r: r.update(offset_g=-5), "/offset_g"),
    "a key with a slash": (lambda r: r.update({"a/b": 1}), "/a~1b"),
    "true for false": (lambda r: r["budgets"][0].update(kept=False), "/budgets/0/kept"),
    "a text for a number": (
        lambda r: r["totals"].update(energy_j=str(r["totals"]["energy_j"])),
        "/totals/energy_j",
    ),
    "what was given": (
        lambda r: r["disclosures"].update(water_l_per_kwh=0.5),
        "/supplementary_impacts/water/l_per_kwh",
    ),
    "another's scope": (lambda r: r["scope"].update(name="digits"), "/runs/1"),
}


@pytest.mark.parametrize(("change", "path"), CHANGES.values(), ids=CHANGES)
def test_what_was_changed_is_named(ledger, change, path):
    full(ledger)
    report = build(ledger, disclosures=GIVEN)
    change(report)
    checked = check(json.dumps(report), [ledger])
    assert path in [one.path for one in checked.differences]


def test_what_was_appended_later_has_no_part_in_it(ledger):
    run = stream(ledger, close=False)
    text = render_json(build(ledger, name="digits*"))
    heartbeat(run, 1.0, 1.0)
    window(run, 1e6, 1e6)
    run.close()
    stream(ledger, name="digits again")
    assert build(ledger, name="digits*")["totals"]["energy_j"] > 2e6
    checked = check(text, [ledger])
    assert checked.ok
    assert checked.later == sum(one["count"] for one in ledger.heads().values()) - checked.rows > 9


def test_a_ledger_that_was_altered_since_does_not_give_the_report(ledger, tmp_path):
    full(ledger)
    (path,) = write(build(ledger), tmp_path, ("json",))
    alter(tmp_path / "ledger.db", "UPDATE windows SET energy_j = 1.0 WHERE entry_id = 5")
    alter(tmp_path / "ledger.db", "UPDATE outcomes SET metric_after = 0.99")
    lines, code = check_file(path, [str(tmp_path / "ledger.db")])
    assert code == 1
    assert any("FAILED: the ledger: row" in line for line in lines)
    assert any(
        "/experiences/0/metric_after: the report has 0.9, and the ledger gives 0.99" in one
        for one in lines
    )


def test_rows_that_were_cut_off_are_missed(ledger, tmp_path):
    stream(ledger, name="first")
    shutil.copy(tmp_path / "ledger.db", tmp_path / "earlier.db")
    stream(ledger, name="second")
    text = render_json(build(ledger))
    earlier = Ledger(str(tmp_path / "earlier.db"))
    checked = check(text, [earlier])
    earlier.close()
    assert any("was cut off" in failure for failure in checked.failures)
    assert "/runs/1" in {one.path for one in checked.differences}


def test_several_ledgers_are_distinguished_by_name_or_by_order(tmp_path):
    opened = [Ledger(str(tmp_path / name)) for name in ("a.db", "b.db", "c.db")]
    for ledger in opened:
        stream(ledger, name=ledger.name)
    text = render_json(build(opened[:2]))
    assert check(text, opened[:2]).ok
    assert check(text, opened[1::-1]).ok
    assert not check(text, opened[1:]).ok
    with pytest.raises(
        ConfigurationError, match=r"about 2 ledger\(s\), a.db, b.db, and 1 were given"
    ):
        check(text, opened[:1])
    for ledger in opened:
        ledger.close()
    moved = Ledger(str(shutil.copy(tmp_path / "a.db", tmp_path / "moved.db")))
    assert check(render_json(build(opened[:1])), [moved]).ok
    opened[0].close()
    moved.close()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("nothing", "this is not a report.json"),
        ("[]", "has schema version null"),
        ('{"schema_version": 1}', "has schema version 1, and"),
        ('{"schema_version": 3}', "holds no heads"),
        ('{"schema_version": 3, "schema_version": 3}', "'schema_version' occurs twice"),
    ],
)
def test_what_is_no_report_is_refused(ledger, text, why):
    with pytest.raises(ConfigurationError, match=why):
        check(text, [ledger])


def test_the_command(ledger, tmp_path):
    full(ledger)
    file = str(tmp_path / "ledger.db")
    (tmp_path / "disclosures.yaml").write_text("hosting: cloud\n")
    made = CliRunner().invoke(
        app,
        [
            *("report", "--ledger", file, "--out", str(tmp_path), "--since", "2026-11-01"),
            *(
                "--name",
                "d*",
                "--disclosures",
                str(tmp_path / "disclosures.yaml"),
                "--format",
                "json",
            ),
        ],
    )
    assert made.exit_code == 0, made.output
    path = tmp_path / "report.json"
    told = json.loads(path.read_text())
    assert (told["scope"]["since_utc"], told["disclosures"]["hosting"]) == (
        "2026-11-01T00:00:00.000000+00:00",
        "cloud",
    )
    done = CliRunner().invoke(app, ["verify", str(path), "--ledger", file])
    assert done.exit_code == 0
    assert "the report is correct: every value follows from" in done.output
    path.write_text(path.read_text().replace('"kept": true', '"kept": false'))
    done = CliRunner().invoke(app, ["verify", str(path), "--ledger", file])
    assert done.exit_code == 1
    assert "/kept: the report has false, and the ledger gives true" in done.output
    with pytest.raises(ConfigurationError, match="a report is checked alone, with its ledger"):
        CliRunner().invoke(app, ["verify", str(path)], catch_exceptions=False)
    # What could be done before can be done still.
    assert CliRunner().invoke(app, ["verify", file, "--heads", str(path)]).exit_code == 0
