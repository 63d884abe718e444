"""What the user gives, and the lines beside the measured energy that are worked out from it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given as tried
from hypothesis import strategies as st

from greentrain.carbon import Emissions
from greentrain.errors import ConfigurationError
from greentrain.report import build
from greentrain.report.disclosures import Disclosures, read_disclosures
from greentrain.report.supplementary_impacts import time_s
from tests.report.ledgers import STARTED, window

EVERYTHING = """
hosting: colocated
market_based_g_per_kwh: 30
market_based_source: a supplier's certificate
water_l_per_kwh: 1.8
water_source: the operator's report for 2025
embodied_kg: 1314
embodied_lifetime_h: 26280
embodied_reserved_share: 0.5
embodied_source: a data sheet
functional_unit: experience
functional_units: 2
model:
  name: digits
  licence: Apache-2.0
"""


def told(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "disclosures.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_everything_is_read_and_stands_in_the_report_as_given(tmp_path, ledger):
    given = read_disclosures(told(tmp_path, EVERYTHING))
    assert given.model == {"name": "digits", "licence": "Apache-2.0"}
    assert build(ledger, disclosures=given)["disclosures"] == given.as_dict()
    assert Disclosures(**given.as_dict()) == given


@pytest.mark.parametrize("text", ["", "# nothing\n", "{}", "model:\n"])
def test_nothing_given_is_nothing_known(tmp_path, text):
    assert read_disclosures(told(tmp_path, text)) == Disclosures()
    values = Disclosures().as_dict()
    assert values.pop("model") == {}
    assert set(values.values()) == {None}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "water: 1.8",
            "has the unknown key 'water'; allowed are hosting, market_based",
        ),
        ("hosting: basement", "hosting is 'basement'; it must be one of own, colocated, cloud"),
        ("hosting: [own]", r"hosting is \['own'\]; it must be one of own, colocated, cloud"),
        ("water_l_per_kwh: a lot", "water_l_per_kwh is 'a lot'; it must be a number"),
        ("water_l_per_kwh: yes", "water_l_per_kwh is True; it must be a number"),
        ("water_l_per_kwh: .nan", "water_l_per_kwh is nan; it must be a number"),
        ("water_l_per_kwh: -1", "water_l_per_kwh is -1; it must be 0 or more"),
        ("embodied_lifetime_h: 0", "embodied_lifetime_h is 0; it must be above 0"),
        (
            "embodied_reserved_share: 1.5",
            "embodied_reserved_share is 1.5; it must be a share",
        ),
        (
            "market_based_g_per_kwh: 3\nmarket_based_source: 4",
            "market_based_source is 4; it must",
        ),
        ("water_source: a report", "'a report' and there is no water_l_per_kwh; give both"),
        ("functional_units: 3", "functional_units is 3 and there is no functional_unit; give both"),
        ("model: digits", "model is 'digits'; it must hold texts by name"),
        ("model: {year: 2026}", "model has 'year': 2026; both must be text"),
        ("- hosting", r"holds \['hosting'\]; it must hold keys with values"),
        ("hosting: {", "is not YAML: "),
        ("!!python/object:os.system {}", "is not YAML: "),
    ],
)
def test_what_is_not_allowed_is_named_in_one_sentence(tmp_path, text, message):
    with pytest.raises(ConfigurationError, match=message) as caught:
        read_disclosures(told(tmp_path, text))
    assert "disclosures.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match=r"cannot read .*missing\.yaml': No such file"):
        read_disclosures(tmp_path / "missing.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(ConfigurationError, match=r"bytes\.yaml' is not YAML"):
        read_disclosures(tmp_path / "bytes.yaml")


def test_each_line_is_worked_out_and_added_to_nothing(tmp_path, ledger):
    told_of = {"intensity": {"source": "a grid", "data_year": None}, "pue": 1.5}
    with ledger.open_run("fit", "model", environment={"carbon": told_of}) as run:
        # 100 W for 36 s is 1 Wh: with a PUE of 1.5 and 400 g/kWh, 0.6 g.
        window(run, 3600.0, 0.0, emissions=Emissions(grams=0.6, intensity_g_per_kwh=400.0))
    without = build(ledger)
    report = build(ledger, disclosures=read_disclosures(told(tmp_path, EVERYTHING)))
    for key in set(report) - {"disclosures", "supplementary_impacts", "scope"}:
        assert report[key] == without[key], key
    water, embodied = (
        report["supplementary_impacts"]["water"],
        report["supplementary_impacts"]["embodied"],
    )
    assert water["water_l"] == pytest.approx(0.0018)
    assert (water["unit"], water["source"]) == ("l", "the operator's report for 2025")
    # 1,314 kg over 26,280 h are 50 g an hour; 36 s of half of the hardware are 0.25 g.
    assert embodied["embodied_g"] == pytest.approx(0.25)
    assert embodied["time_s"] == 36.0
    electricity = report["supplementary_impacts"]["electricity"]
    assert electricity["scope"] == "Scope 2 or 3"
    assert "that the reporting company controls" in electricity["sentence"]
    by_location, by_market = electricity["location_based"], electricity["market_based"]
    assert (by_location["emissions_g"], by_location["source"]) == (0.6, "a grid")
    assert by_market["emissions_g"] == pytest.approx(0.001 * 1.5 * 30)
    assert by_market["source"] == "a supplier's certificate"
    lines = (water, embodied, by_location, by_market)
    assert all(line["method"] and line["sentence"] is None for line in lines)


def test_what_was_not_given_is_unknown_and_the_line_says_what_to_give(ledger):
    with ledger.open_run("fit", "model") as run:
        window(run, 3600.0, 0.0)
    lines = build(ledger)["supplementary_impacts"]
    assert lines["water"]["water_l"] is None
    assert lines["water"]["sentence"].startswith("give water_l_per_kwh")
    assert lines["embodied"]["sentence"] == (
        "give embodied_kg, embodied_lifetime_h and embodied_reserved_share"
    )
    electricity = lines["electricity"]
    assert (electricity["scope"], electricity["hosting"]) == (None, None)
    assert electricity["sentence"].startswith("give hosting")
    assert "a zone or an intensity" in electricity["location_based"]["sentence"]
    assert electricity["market_based"]["sentence"].startswith("give market_based_g_per_kwh")
    for line in (lines["water"], lines["embodied"], electricity["market_based"]):
        assert line["method"] is line["source"] is None


def test_a_share_of_the_hardware_is_not_guessed(ledger):
    with ledger.open_run("fit", "model") as run:
        window(run, 3600.0, 0.0)
    given = Disclosures(embodied_kg=1000.0, embodied_lifetime_h=1000.0)
    line = build(ledger, disclosures=given)["supplementary_impacts"]["embodied"]
    assert line["embodied_g"] is None
    assert line["sentence"] == "give embodied_reserved_share"
    assert line["source"] == "given by the user"


def test_an_empty_ledger_uses_nothing_up(tmp_path, ledger):
    lines = build(ledger, disclosures=read_disclosures(told(tmp_path, EVERYTHING)))[
        "supplementary_impacts"
    ]
    assert lines["water"]["water_l"] is lines["embodied"]["embodied_g"] is None
    assert "no energy is known" in lines["water"]["sentence"]
    assert "no time was measured" in lines["embodied"]["sentence"]
    assert "no energy is known" in lines["electricity"]["market_based"]["sentence"]


@pytest.mark.parametrize(
    ("hosting", "scope"), [("own", "Scope 2"), ("colocated", "Scope 2 or 3"), ("cloud", "Scope 3")]
)
def test_whose_hardware_it_is_decides_the_scope(ledger, hosting, scope):
    electricity = build(ledger, disclosures=Disclosures(hosting=hosting))["supplementary_impacts"][
        "electricity"
    ]
    assert electricity["scope"] == scope
    assert "GHG Protocol" in electricity["sentence"]


SPANS = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 30)), max_size=12)


@tried(SPANS)
def test_time_in_which_windows_overlap_counts_once(spans):
    at_s = int(STARTED.timestamp())
    measured = [
        ((at_s + start) * 1_000_000, (at_s + start + duration) * 1_000_000)
        for start, duration in spans
    ]
    seconds = {second for start, duration in spans for second in range(start, start + duration)}
    assert time_s(measured) == len(seconds)
