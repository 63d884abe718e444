"""A window keeps the origin of its intensity and its market-based grams, up to the report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from greentrain.carbon import CarbonAccount, FallbackChain, Provenance, StaticIntensity
from greentrain.carbon.intensity import Interval
from greentrain.errors import ConfigurationError, IntensityError
from greentrain.ledger import Ledger
from greentrain.report import build
from tests.ledger.events import window

WITHOUT = Provenance(source="a service", zone="DE", data_year=None, basis="direct")


class Failing:
    """A service that answers nothing."""

    provenance = WITHOUT

    def history(self, *_: Any) -> list[Interval]:
        raise IntensityError("a service gave no answer")

    forecast = history


@pytest.fixture
def ledger(tmp_path: Path) -> Any:
    found = Ledger(f"sqlite:///{tmp_path / 'green.db'}")
    yield found
    found.close()


def record(ledger: Ledger, account: CarbonAccount, *energies_j: float) -> list[Any]:
    environment = {"carbon": account.as_dict()}
    with ledger.open_run("fit", "model", environment=environment) as run:
        for energy_j in energies_j:
            one = window("fit", by_source={"cpu": energy_j})
            run.record(one, account.of(one))
    return list(ledger.windows())


def test_a_fallback_is_in_the_ledger_and_in_the_report(ledger: Ledger) -> None:
    germany = StaticIntensity("DE")
    account = CarbonAccount(intensity=FallbackChain([Failing(), germany]))
    first, second = record(ledger, account, 3600.0, 7200.0)
    (origin,) = json.loads(first["intensity_origins"])
    assert origin["fallback_of"] == "a service, DE"
    assert origin["kind"] == "static"
    assert origin["source"] == germany.provenance.source
    report = build(ledger)
    carbon = report["carbon"]
    grams = first["emissions_g"] + second["emissions_g"]
    assert carbon["emissions_g"] == pytest.approx(germany.g_per_kwh * 0.003) == grams
    # The basis is that of the values that were used, not that of the service.
    assert carbon["by_basis"] == [{"basis": "life-cycle", "emissions_g": pytest.approx(grams)}]
    assert f"another was used: {germany.provenance.source}, DE in 2 windows" in carbon["sentence"]


def test_without_any_value_no_grams_are_claimed(
    ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    account = CarbonAccount(intensity=Failing())
    windows = record(ledger, account, 3600.0, 3600.0)
    assert [one["emissions_g"] for one in windows] == [None, None]
    assert caplog.text.count("grams are unknown for a time: a service gave no answer") == 1
    assert build(ledger)["carbon"]["emissions_g"] is None


def test_market_based_grams_are_kept_and_added_to_nothing(ledger: Ledger) -> None:
    account = CarbonAccount(zone="DE", pue=1.5, market_intensity=20.0)
    (one,) = record(ledger, account, 3600.0)
    assert (one["market_emissions_g"], one["market_intensity_g_per_kwh"]) == (0.03, 20.0)
    report = build(ledger)
    assert report["carbon"]["emissions_g"] == one["emissions_g"]
    by_market = report["supplementary_impacts"]["electricity"]["market_based"]
    assert by_market["emissions_g"] == 0.03
    assert by_market["complete"]
    assert "the market-based intensity that was recorded with it" in by_market["method"]


def test_windows_of_the_run_s_own_provider_have_no_new_columns(ledger: Ledger) -> None:
    (one,) = record(ledger, CarbonAccount(zone="DE"), 3600.0)
    names = ("intensity_origins", "market_emissions_g", "market_intensity_g_per_kwh")
    assert [one[name] for name in names] == [None, None, None]  # so their hashes are unchanged


@pytest.mark.parametrize(
    ("text", "source"),
    [("uk", "NESO Carbon Intensity API"), ("electricitymaps:DE, static:DE", "Electricity Maps")],
)
def test_a_stream_names_its_provider(text: str, source: str) -> None:
    from greentrain.configuration import configure

    config = {
        "model": "greentrain.demo.DigitsModel",
        "stream": "greentrain.streams.digits_stream",
        "budget": "1 gCO2e",
        "monitor": "val_acc",
        "carbon": {"intensity": text, "market_intensity": 20},
    }
    for content, options in (
        (config, []),
        ({**config, "carbon": {}}, ["--carbon.intensity", text]),
    ):
        given = configure(content, options).make_arguments()["carbon"]
        assert given.account().provenance.source == source
    with pytest.raises(ConfigurationError, match="'nowhere:DE' is not known; give static:DE"):
        configure(config, ["--carbon.intensity", "nowhere:DE"]).make_arguments()
