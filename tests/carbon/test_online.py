"""Online providers against a local server that replays recorded shapes of the real services."""

from __future__ import annotations

import base64
import logging
import pickle
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from greentrain.carbon import (
    CachedIntensity,
    CarbonAccount,
    CsvIntensity,
    ElectricityMapsIntensity,
    FallbackChain,
    IntensityProvider,
    StaticIntensity,
    UkIntensity,
    WattTimeIntensity,
    live_intensity,
    named_intensity,
)
from greentrain.errors import ConfigurationError, IntensityError
from tests.carbon.service import Reply, Request, Service, service

NOW = datetime(2026, 11, 30, 12, 10, tzinfo=UTC)
NOON = NOW.replace(minute=0)
HOUR = timedelta(hours=1)
HALF = timedelta(minutes=30)
KEY = "k3y-s3cr3t"
USER, PASSWORD, TOKEN = "me-s3cr3t", "pw-s3cr3t", "t0ken-s3cr3t"


@pytest.fixture
def served() -> Iterator[Service]:
    with service() as found:
        yield found


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ELECTRICITY_MAPS_API_KEY", KEY)
    monkeypatch.setenv("WATTTIME_USER", USER)
    monkeypatch.setenv("WATTTIME_PASSWORD", PASSWORD)


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


def quick(provider: Any) -> Any:
    """Wait for no retry, and for no late answer longer than a test may last."""
    provider._client._sleep = waits.append
    provider._client._timeout_s = 0.3
    return provider


waits: list[float] = []


@pytest.fixture(autouse=True)
def no_waits() -> None:
    waits.clear()


def z(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%MZ")


def uk_row(start: datetime, forecast: Any = 146, actual: Any = None) -> dict[str, Any]:
    values = {"forecast": forecast, "actual": actual, "index": "low"}
    return {"from": z(start), "to": z(start + HALF), "intensity": values}


def em_row(start: datetime, value: Any = 413, **more: Any) -> dict[str, Any]:
    return {
        "zone": "DE",
        "carbonIntensity": value,
        "datetime": start.strftime("%Y-%m-%dT%H:%M:%S.000Z"),
        "updatedAt": "2026-11-30T12:05:01.000Z",
        "createdAt": "2026-11-27T12:05:01.000Z",
        "emissionFactorType": "lifecycle",
        "isEstimated": False,
        "estimationMethod": None,
        **more,
    }


def em_forecast(start: datetime, *values: Any) -> dict[str, Any]:
    rows = [
        {"carbonIntensity": one, "datetime": (start + n * HOUR).strftime("%Y-%m-%dT%H:%M:%S.000Z")}
        for n, one in enumerate(values)
    ]
    return {"zone": "DE", "forecast": rows, "updatedAt": "2026-11-30T12:01:00.000Z"}


def wt_data(start: datetime, *values: Any, **meta: Any) -> dict[str, Any]:
    rows = [
        {"point_time": (start + n * timedelta(minutes=5)).isoformat(), "value": one}
        for n, one in enumerate(values)
    ]
    about = {
        "data_point_period_seconds": 300,
        "region": "CAISO_NORTH",
        "warnings": [],
        "signal_type": "co2_moer",
        "model": {"date": "2023-03-01"},
        "units": "lbs_co2_per_mwh",
        "generated_at_period_seconds": 300,
        "generated_at": "2026-11-30T12:05:00+00:00",
        **meta,
    }
    return {"data": rows, "meta": about}


def uk(served: Service, region: int | str | None = None, clock: Any = None) -> UkIntensity:
    return quick(UkIntensity(region, url=served.url, clock=clock or Clock()))


def em(served: Service, clock: Any = None, **more: Any) -> ElectricityMapsIntensity:
    return quick(ElectricityMapsIntensity("DE", url=served.url, clock=clock or Clock(), **more))


def wt(served: Service, clock: Any = None) -> WattTimeIntensity:
    served.answers.setdefault("/login", [Reply({"token": TOKEN})])
    return quick(WattTimeIntensity("CAISO_NORTH", url=served.url, clock=clock or Clock()))


def test_britain_has_published_values_and_estimates_until_they_are(served: Service) -> None:
    rows = [uk_row(NOON - HOUR, 150, 140), uk_row(NOON - HALF, 151, 141), uk_row(NOON, 152)]
    served.answers["/intensity/"] = [Reply({"data": rows})]
    provider = uk(served)
    assert isinstance(provider, IntensityProvider)
    found = provider.history(NOON - HOUR, NOON + HALF)
    assert [one.g_per_kwh for one in found] == [140.0, 141.0, 152.0]
    origins = [one.provenance for one in found]
    assert [one.kind for one in origins if one] == ["measured", "measured", "estimated"]
    assert origins[0] is not None
    assert origins[0].zone == "GB"
    assert origins[0].licence == "CC BY 4.0"
    assert len(str(origins[0].sha256)) == 64
    # The service's answer begins with the half-hour that ends at the first time.
    assert served.requests[0].path == f"/intensity/{z(NOON - HALF)}/{z(NOON + HOUR)}"


def test_a_forecast_of_britain_says_when_it_was_issued(served: Service) -> None:
    rows = [uk_row(NOON + n * HALF, 100 + n) for n in range(96)]
    served.answers["/intensity/"] = [Reply({"data": rows})]
    found = uk(served).forecast(NOW, 24 * HOUR)
    assert (found[0].start, found[0].g_per_kwh) == (NOON, 100.0)
    assert len(found) == 49
    assert all(one.provenance and one.provenance.kind == "forecast" for one in found)
    assert found[0].provenance and found[0].provenance.issued_utc == NOW.isoformat()
    with pytest.raises(IntensityError, match="keeps no past forecasts; use CachedIntensity"):
        uk(served).forecast(NOW - HOUR, HOUR)


def test_a_region_of_britain_has_another_form(served: Service) -> None:
    rows = [{**uk_row(NOON, 99), "generationmix": [{"fuel": "gas", "perc": 43.6}]}]
    content = {"data": {"regionid": 13, "shortname": "London", "data": rows}}
    served.answers["/regional/intensity/"] = [Reply(content)]
    assert uk(served, "london").history(NOON, NOON + HALF)[0].g_per_kwh == 99.0
    assert served.requests[0].path.endswith("/regionid/13")
    with pytest.raises(ConfigurationError, match=r"no region 'Lodnon'.*nearest are London"):
        UkIntensity("Lodnon")


def test_electricity_maps_sends_its_key_in_a_header_only(served: Service) -> None:
    rows = [
        em_row(NOON - HOUR, 400),
        em_row(NOON, 410, isEstimated=True),
        em_row(NOON + HOUR, None),
    ]
    served.answers["/v3/carbon-intensity/history"] = [Reply({"zone": "DE", "history": rows})]
    found = em(served).history(NOON - HOUR, NOON + HOUR)
    assert [one.g_per_kwh for one in found] == [400.0, 410.0]
    kinds = [one.provenance.kind for one in found if one.provenance]
    assert kinds == ["measured", "estimated"]
    (request,) = served.requests
    assert request.headers["auth-token"] == KEY
    assert request.parameters == {"zone": "DE", "emissionFactorType": "lifecycle"}


def test_older_hours_of_electricity_maps_come_by_ten_days(served: Service) -> None:
    began = NOON - timedelta(days=25)

    def reply(request: Request) -> Reply:
        start = datetime.fromisoformat(request.parameters["start"])
        hours = (datetime.fromisoformat(request.parameters["end"]) - start) / HOUR
        return Reply({"data": [em_row(start + n * HOUR, 400) for n in range(int(hours))]})

    served.answers["/v3/carbon-intensity/past-range"] = reply
    found = em(served).history(began, NOON)
    assert len(found) == 25 * 24
    assert len(served.requests) == 3


def test_a_forecast_of_electricity_maps_names_its_horizon(served: Service) -> None:
    served.answers["/v3/carbon-intensity/forecast"] = [Reply(em_forecast(NOON, *range(300, 350)))]
    found = em(served).forecast(NOW, 30 * HOUR)
    assert [one.g_per_kwh for one in found[:2]] == [300.0, 301.0]
    assert served.requests[0].parameters["horizonHours"] == "48"
    assert found[0].provenance and found[0].provenance.issued_utc == "2026-11-30T12:01:00+00:00"


def test_watttime_is_marginal_and_enters_no_report(served: Service) -> None:
    served.answers["/v3/historical"] = [Reply(wt_data(NOON, 1000.0, 500.0))]
    provider = wt(served)
    found = provider.history(NOON, NOON + timedelta(minutes=10))
    assert [one.g_per_kwh for one in found] == pytest.approx([453.59237, 226.796185])
    login, request = served.requests
    assert login.headers["authorization"].startswith("Basic ")
    assert request.headers["authorization"] == f"Bearer {TOKEN}"
    assert KEY not in str(request.parameters)
    with pytest.raises(ConfigurationError, match="marginal, which may steer decisions only"):
        CarbonAccount(intensity=provider)


def test_past_forecasts_of_watttime_are_those_of_their_time(served: Service) -> None:
    as_of = NOON - 5 * HOUR
    issues = [
        {"generated_at": (as_of + late).isoformat(), "forecast": wt_data(as_of, value)["data"]}
        for late, value in ((-2 * HALF, 100.0), (-HALF, 200.0), (HALF, 300.0))
    ]
    content = {"data": issues, "meta": wt_data(as_of)["meta"]}
    served.answers["/v3/forecast/historical"] = [Reply(content)]
    found = wt(served).forecast(as_of, HOUR)
    assert [one.g_per_kwh for one in found] == pytest.approx([90.718474])
    assert found[0].provenance and found[0].provenance.issued_utc == (as_of - HALF).isoformat()


FAILURES: dict[str, tuple[list[Reply], int, str]] = {
    "error": ([Reply({"error": "down"}, 500)], 3, "the code 500: down"),
    "limit": ([Reply({"message": "slow down"}, 429)], 3, "the code 429: slow down"),
    "long limit": ([Reply({}, 429, {"Retry-After": "3600"})], 1, "the code 429"),
    "dated limit": ([Reply({}, 503, {"Retry-After": "Mon, 30 Nov 2026 13:00:00 GMT"})], 1, "503"),
    "no JSON": ([Reply(b"<html>oops</html>")], 1, "malformed answer: it is no JSON"),
    "other JSON": ([Reply([1, 2])], 1, "malformed answer: it has no list"),
    "no rows": ([Reply({"data": "x", "history": "x"})], 1, "malformed answer: it has no list"),
    "empty": ([Reply({"data": [], "history": []})], 1, "no values for"),
    "late": ([Reply({"data": []}, late_s=0.7)], 3, "no answer (ReadTimeout)"),
    "redirect": ([Reply({}, 302, {"Location": "http://127.0.0.1:9/"})], 1, "the code 302"),
}


@pytest.mark.parametrize("make", [uk, em, wt])
@pytest.mark.parametrize("failure", FAILURES)
def test_failures_are_one_clear_error(served: Service, make: Any, failure: str) -> None:
    replies, tries, said = FAILURES[failure]
    paths = ("/intensity/", "/v3/carbon-intensity/history", "/v3/historical")
    served.answers.update({path: list(replies) for path in paths})
    clock = Clock()
    provider = make(served, clock=clock)
    with pytest.raises(IntensityError) as caught:
        provider.history(NOON, NOW)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    sent = [one for one in served.requests if one.path.startswith(paths)]
    assert len(sent) == tries
    assert waits[: tries - 1] == [0.5, 1.0][: tries - 1]
    # Nothing is requested again for a minute, so that no step of a training waits for it.
    before = len(served.requests)
    with pytest.raises(IntensityError):
        provider.history(NOON, NOW)
    assert len(served.requests) == before
    clock.now += timedelta(minutes=2)
    with pytest.raises(IntensityError):
        provider.history(NOON, NOW)
    assert len(served.requests) > before


@pytest.mark.parametrize("value", ["413", None, True, -1, [1], float("nan"), 1e999])
@pytest.mark.parametrize("make", [uk, em, wt])
def test_values_that_are_no_intensity_are_malformed(served: Service, make: Any, value: Any) -> None:
    served.answers["/intensity/"] = [Reply({"data": [uk_row(NOON, value)]})]
    rows = [em_row(NOON, value)]
    served.answers["/v3/carbon-intensity/history"] = [Reply({"history": rows})]
    served.answers["/v3/historical"] = [Reply(wt_data(NOON, value))]
    with pytest.raises(IntensityError, match=r"malformed answer: an inten|no values for DE"):
        make(served).history(NOON, NOON + HALF)


@pytest.mark.parametrize(
    "content",
    [
        {"history": [em_row(NOON, 10**400)]},
        {"history": [{"carbonIntensity": 1, "datetime": "0001-01-01T00:00:00+05:00"}]},
        {"history": [{"carbonIntensity": 1, "datetime": "9999-12-31T23:30:00Z"}]},
        b"[" * 100_000,
    ],
    ids=["digits", "year 1", "year 9999", "brackets"],
)
def test_a_chain_and_a_cache_survive_an_absurd_answer(
    served: Service, tmp_path: Any, content: Any
) -> None:
    served.answers["/v3/carbon-intensity/history"] = [
        Reply({"history": [em_row(NOON - HOUR, 400)]}),
        Reply(content),
    ]
    clock = Clock()
    cached = CachedIntensity(em(served, clock), tmp_path, clock=clock)
    cached.history(NOON - HOUR, NOON)
    chain = FallbackChain([em(served, clock), StaticIntensity("DE")])
    with pytest.raises(IntensityError, match="Electricity Maps gave a malformed answer"):
        em(served, clock).history(NOON - HOUR, NOON)
    assert chain.history(NOON - HOUR, NOON)[0].g_per_kwh == StaticIntensity("DE").g_per_kwh
    assert [one.g_per_kwh for one in cached.history(NOON - 2 * HOUR, NOON)] == [400.0]


def test_a_clock_that_is_set_back_blocks_no_service(served: Service) -> None:
    served.answers["/v3/carbon-intensity/history"] = [
        Reply({"history": []}),
        Reply({"history": [em_row(NOON - 3 * HOUR, 400)]}),
    ]
    clock = Clock()
    provider = em(served, clock)
    with pytest.raises(IntensityError, match="no values"):
        provider.history(NOON - 3 * HOUR, NOON - 2 * HOUR)
    clock.now -= HOUR
    found = provider.history(NOON - 3 * HOUR, NOON - 2 * HOUR)
    assert [one.g_per_kwh for one in found] == [400.0]


@pytest.mark.parametrize("form", ["k/y+s", "k%2Fy%2Bs", base64.b64encode(b"k/y+s").decode()])
def test_a_key_in_another_form_is_hidden(
    served: Service, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    monkeypatch.setenv("ELECTRICITY_MAPS_API_KEY", "k/y+s")
    served.answers["/v3/carbon-intensity/"] = [Reply({"message": f"bad {form} given"}, 401)]
    with pytest.raises(IntensityError, match=r"bad \*\*\*=? given"):
        em(served).history(NOON - HOUR, NOON)


def test_a_service_that_recovers_is_read_after_a_wait(served: Service) -> None:
    replies = [
        Reply({}, 503),
        Reply({}, 429, {"Retry-After": "2"}),
        Reply({"data": [uk_row(NOON)]}),
    ]
    served.answers["/intensity/"] = replies
    assert uk(served).history(NOON, NOW)[0].g_per_kwh == 146.0
    assert waits == [0.5, 2.0]


def test_the_wrong_unit_signal_or_basis_is_refused(served: Service) -> None:
    served.answers["/v3/historical"] = [
        Reply(wt_data(NOON, 1.0, units="lbs_co2_per_kwh")),
        Reply(wt_data(NOON, 1.0, signal_type="health_damage")),
    ]
    for said in ("the unit is 'lbs_co2_per_kwh'", "the signal is 'health_damage'"):
        with pytest.raises(IntensityError, match=said):
            wt(served).history(NOON, NOW)
    rows = [em_row(NOON, emissionFactorType="direct")]
    served.answers["/v3/carbon-intensity/history"] = [Reply({"history": rows})]
    with pytest.raises(IntensityError, match="factors are of the other basis"):
        em(served).history(NOON, NOW)


def test_a_step_of_a_training_makes_no_request(served: Service) -> None:
    served.answers["/intensity/"] = [Reply({"data": [uk_row(NOON), uk_row(NOON + HALF)]})]
    clock = Clock()
    account = CarbonAccount(intensity=uk(served, clock=clock))
    for _ in range(100):
        clock.now += timedelta(seconds=1)
        account.emissions(1.0, clock.now - timedelta(seconds=1), clock.now)
        account.upper_g_per_j(clock.now)
    assert len(served.requests) <= 4
    clock.now += timedelta(minutes=6)
    account.emissions(1.0, NOW, clock.now)
    assert len(served.requests) <= 6


SECRETS = (KEY, USER, PASSWORD, TOKEN)


@pytest.mark.parametrize("code", [401, 403])
def test_a_refused_key_is_named_and_never_shown(
    served: Service, caplog: pytest.LogCaptureFixture, code: int
) -> None:
    caplog.set_level(logging.DEBUG)
    served.answers["/v3/carbon-intensity/"] = [Reply({"error": f"Invalid auth-token {KEY}"}, code)]
    echo = Reply({"error": {"message": f"not {USER} with {PASSWORD} or {TOKEN}"}}, code)
    served.answers["/v3/zones"] = [Reply({"DE": {"zoneName": "Germany"}})]
    served.answers["/v3/historical"] = [echo]
    served.answers["/v3/my-access"] = [echo]
    shown = []
    for provider, names in (
        (em(served), "ELECTRICITY_MAPS_API_KEY"),
        (wt(served), "WATTTIME_USER and WATTTIME_PASSWORD"),
    ):
        with pytest.raises(IntensityError) as caught:
            provider.history(NOON, NOW)
        assert f"refused the key in {names} ({code})" in str(caught.value)
        shown += [str(caught.value), repr(caught.value), repr(provider)]
        shown += [repr(provider.provenance), pickle.dumps(provider).decode("latin-1")]
        account = CarbonAccount(intensity=provider) if provider.provenance.zone == "DE" else None
        shown.append(repr(account and account.as_dict()))
    chain = FallbackChain([em(served), StaticIntensity("DE")])
    shown.append(repr(chain.history(NOON, NOW)))
    assert not [one for one in SECRETS if one in "\n".join([*shown, caplog.text])]


def test_a_missing_key_is_found_before_the_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ELECTRICITY_MAPS_API_KEY")
    with pytest.raises(ConfigurationError, match="variable ELECTRICITY_MAPS_API_KEY; set it"):
        CarbonAccount(intensity=ElectricityMapsIntensity("DE"))
    monkeypatch.setenv("WATTTIME_PASSWORD", " ")
    with pytest.raises(ConfigurationError, match="variable WATTTIME_PASSWORD; set it"):
        WattTimeIntensity("CAISO_NORTH").history(NOON, NOW)


def test_an_unknown_zone_has_its_three_nearest_names(served: Service) -> None:
    served.answers["/v3/carbon-intensity/"] = [Reply({"error": "no zone"}, 404)]
    zones = {"DE": "Germany", "DK-DK1": "West Denmark", "FR": "France", "US-CAL-CISO": "CAISO"}
    served.answers["/v3/zones"] = [
        Reply({zone: {"zoneName": name, "access": ["*"]} for zone, name in zones.items()})
    ]
    provider = quick(ElectricityMapsIntensity("DK-DK3", url=served.url, clock=Clock()))
    with pytest.raises(
        ConfigurationError,
        match=r"no zone 'DK-DK3'. The nearest are DK-DK1 \(West Denmark\), .* and ",
    ):
        provider.history(NOON, NOW)
    regions = [{"region": name, "region_full_name": name} for name in ("CAISO_NORTH", "PJM_DC")]
    access = {"signal_types": [{"signal_type": "co2_moer", "regions": regions}]}
    served.answers["/v3/my-access"] = [Reply(access)]
    served.answers["/v3/historical"] = [Reply({"error": "no access"}, 403)]
    served.answers["/login"] = [Reply({"token": TOKEN})]
    provider = quick(WattTimeIntensity("CAISO_SOUTH", url=served.url, clock=Clock()))
    with pytest.raises(
        ConfigurationError, match=r"no region 'CAISO_SOUTH'. The nearest are CAISO_"
    ):
        provider.history(NOON, NOW)
    with pytest.raises(ConfigurationError, match=r"zone 'Germny'.*nearest are DE \(Germany\)"):
        StaticIntensity("Germny")


def test_a_chain_falls_back_visibly(served: Service, caplog: pytest.LogCaptureFixture) -> None:
    served.answers["/v3/carbon-intensity/"] = [Reply({}, 500)]
    chain = FallbackChain([em(served), StaticIntensity("DE")])
    assert chain.provenance.source == "Electricity Maps"
    (found,) = chain.history(NOON, NOW)
    assert found.provenance is not None
    assert found.provenance.kind == "static"
    assert found.provenance.fallback_of == "Electricity Maps, DE"
    assert (found.start, found.end) == (NOON, NOW)
    chain.history(NOON, NOW)
    warned = [one for one in caplog.records if "is replaced by that of" in one.getMessage()]
    assert len(warned) == 1
    assert "the code 500" in warned[0].getMessage()
    emissions = CarbonAccount(intensity=chain).emissions(3.6e6, NOON, NOW)
    assert emissions.grams == StaticIntensity("DE").g_per_kwh
    assert [one.fallback_of for one in emissions.origins] == ["Electricity Maps, DE"]


def test_a_chain_fills_only_the_gaps(served: Service) -> None:
    rows = [em_row(NOON - 2 * HOUR, 100), em_row(NOON, 300)]
    served.answers["/v3/carbon-intensity/history"] = [Reply({"history": rows})]
    chain = FallbackChain([em(served), StaticIntensity("DE")])
    found = chain.history(NOON - 2 * HOUR, NOON + HOUR)
    static = StaticIntensity("DE").g_per_kwh
    assert [one.g_per_kwh for one in found] == [100.0, static, 300.0]
    assert [bool(one.provenance and one.provenance.fallback_of) for one in found] == [0, 1, 0]


def test_a_chain_without_any_value_gives_none_and_no_world_average(served: Service) -> None:
    served.answers["/"] = [Reply({}, 500)]
    chain = FallbackChain([em(served), uk(served)])
    with pytest.raises(IntensityError, match="no provider of the chain gave an intensity"):
        chain.history(NOON, NOW)
    account = CarbonAccount(intensity=chain)
    assert account.emissions(3.6e6, NOON, NOW).grams is None
    assert account.upper_g_per_j(NOW) is None


def test_average_and_marginal_are_not_mixed(served: Service) -> None:
    with pytest.raises(ConfigurationError, match="mixes average and marginal"):
        FallbackChain([wt(served), StaticIntensity("US-CA")])
    with pytest.raises(ConfigurationError, match="a list of two or more"):
        FallbackChain([StaticIntensity("DE")])
    with pytest.raises(ConfigurationError, match="a list of two or more"):
        FallbackChain("static:DE, static:FR")


def test_answers_are_stored_and_read_offline(served: Service, tmp_path: Any) -> None:
    clock = Clock()
    rows = [uk_row(NOON - HOUR, 150, 140), uk_row(NOON - HALF, 151, 141), uk_row(NOON, 152)]
    served.answers["/intensity/"] = [Reply({"data": rows})]
    cached = CachedIntensity(uk(served, clock=clock), tmp_path, clock=clock)
    first = cached.history(NOON - HOUR, NOW)
    assert [one.g_per_kwh for one in first] == [140.0, 141.0, 152.0]
    before = len(served.requests)
    cached.history(NOON - HOUR, NOON)  # all of it measured, and stored
    assert len(served.requests) == before
    offline = CachedIntensity("uk", tmp_path, offline=True, clock=clock)
    assert offline.history(NOON - HOUR, NOW) == first
    # The estimate is replaced by the measured value, once it is there.
    clock.now += HOUR
    served.answers["/intensity/"] = [Reply({"data": [uk_row(NOON, 152, 160)]})]
    assert [one.g_per_kwh for one in cached.history(NOON, NOW)] == [160.0]
    assert [one.g_per_kwh for one in cached.history(NOON - HOUR, NOW)] == [140.0, 141.0, 160.0]
    assert KEY not in cached.path.read_text()


def test_stored_forecasts_are_those_of_their_time(served: Service, tmp_path: Any) -> None:
    clock = Clock()
    cached = CachedIntensity(uk(served, clock=clock), tmp_path, clock=clock)
    for value in (100, 200):
        rows = [uk_row(NOON + n * HALF, value) for n in range(8)]
        served.answers["/intensity/"] = [Reply({"data": rows})]
        cached.forecast(clock.now, HOUR)
        clock.now += HOUR
    offline = CachedIntensity("uk", tmp_path, offline=True, clock=clock)
    values = [offline.forecast(NOW + n * HALF, HALF)[0].g_per_kwh for n in (0, 1, 2, 3)]
    assert values == [100.0, 100.0, 200.0, 200.0]
    assert offline.forecast(NOW - HOUR, HALF) == []
    served.answers["/intensity/"] = [Reply({}, 500)]
    assert cached.forecast(clock.now, HALF)[0].g_per_kwh == 200.0  # the last one that is known


def test_a_damaged_line_of_a_cache_is_left_out(
    served: Service, tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    served.answers["/intensity/"] = [Reply({"data": [uk_row(NOON, 1, 140)]})]
    cached = CachedIntensity(uk(served), tmp_path, clock=Clock())
    cached.history(NOON, NOW)
    text = cached.path.read_text()
    cached.path.write_text(text + text.replace("140.0", "14.0") + text[:30])
    again = CachedIntensity("uk", tmp_path, offline=True, clock=Clock())
    assert [one.g_per_kwh for one in again.history(NOON, NOW)] == [140.0]
    assert caplog.text.count("is damaged and left out") == 2


def test_a_part_that_is_not_published_yet_is_the_forecast(served: Service) -> None:
    rows = [em_row(NOON - HOUR, 100)]
    served.answers["/v3/carbon-intensity/history"] = [Reply({"history": rows})]
    served.answers["/v3/carbon-intensity/forecast"] = [Reply(em_forecast(NOON, 300, 900))]
    account = CarbonAccount(intensity=em(served))
    emissions = account.emissions(3.6e6, NOON - timedelta(minutes=10), NOW)
    assert emissions.intensity_g_per_kwh == pytest.approx(200.0)
    assert [one.kind for one in emissions.origins] == ["measured", "forecast"]
    # A budget of carbon reserves with the highest value of the coming hour.
    assert account.upper_g_per_j(NOW) == pytest.approx(900.0 / 3.6e6)


def test_a_budget_reserves_with_the_upper_bound_of_the_forecast(tmp_path: Any) -> None:
    path = tmp_path / "de.csv"
    path.write_text(
        "datetime_utc,carbon_intensity,forecast,low_g_per_kwh,high_g_per_kwh\n"
        f"{z(NOON - HOUR)},300,310,280,360\n{z(NOON)},,320,290,420\n{z(NOON + HOUR)},,310,290,380\n"
    )
    account = CarbonAccount(intensity=CsvIntensity(path, zone="DE"))
    assert account.upper_g_per_j(NOW) == pytest.approx(420.0 / 3.6e6)
    assert account.emissions(3.6e6, NOON, NOW).intensity_g_per_kwh == 320.0


def test_market_based_grams_are_kept_next_to_the_others() -> None:
    account = CarbonAccount(zone="DE", pue=1.5, market_intensity=20)
    emissions = account.emissions(3.6e6, NOON, NOW)
    assert emissions.grams == pytest.approx(1.5 * StaticIntensity("DE").g_per_kwh)
    assert (emissions.market_grams, emissions.market_intensity_g_per_kwh) == (30.0, 20.0)
    found = account.as_dict()
    assert found is not None
    assert found["market_intensity"] == {"g_per_kwh": 20.0}
    assert CarbonAccount(market_intensity=20).emissions(3.6e6, NOON, NOW).grams is None
    for wrong in (-1, float("nan"), "20", True):
        with pytest.raises(ConfigurationError, match="factor of the electricity contract"):
            CarbonAccount(market_intensity=wrong)


@pytest.mark.parametrize(
    ("text", "source", "zone"),
    [
        (
            "static:DE",
            "Our World in Data, yearly electricity mix, as bundled with CodeCarbon",
            "DE",
        ),
        ("uk", "NESO Carbon Intensity API", "GB"),
        ("uk:13", "NESO Carbon Intensity API", "GB-13 (London)"),
        ("ElectricityMaps:de", "Electricity Maps", "DE"),
        ("electricity-maps:US-CAL-CISO", "Electricity Maps", "US-CAL-CISO"),
        ("watttime:CAISO_NORTH", "WattTime", "CAISO_NORTH"),
        ("electricitymaps:DE, static:DE", "Electricity Maps", "DE"),
    ],
)
def test_providers_have_names(text: str, source: str, zone: str) -> None:
    found = named_intensity(text).provenance
    assert (found.source, found.zone) == (source, zone)


def test_names_that_are_none_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"'wattime:X' is not known.*nearest are watttime"):
        named_intensity("wattime:X")
    with pytest.raises(ConfigurationError, match="no carbon intensity is known"):
        named_intensity("static:XX")


def test_a_zone_alone_uses_the_keys_that_are_set(monkeypatch: pytest.MonkeyPatch) -> None:
    assert live_intensity("GB").provenance.zone == "GB"
    assert live_intensity("de").provenance.source == "Electricity Maps"
    monkeypatch.delenv("ELECTRICITY_MAPS_API_KEY")
    monkeypatch.delenv("ENTSOE_API_KEY", raising=False)
    with pytest.raises(ConfigurationError, match="set ELECTRICITY_MAPS_API_KEY or ENTSOE_API_KEY"):
        live_intensity("DE")
    with pytest.raises(ConfigurationError, match=r"zone 'Germny'.*nearest are DE"):
        live_intensity("Germny")


@pytest.mark.parametrize("make", [uk, em, wt])
def test_naive_times_are_refused(served: Service, make: Any) -> None:
    with pytest.raises(ConfigurationError, match="naive time; give it a zone"):
        make(served).history(datetime(2026, 11, 30), NOW)
    with pytest.raises(ConfigurationError, match="naive time; give it a zone"):
        make(served).forecast(datetime(2026, 11, 30), HOUR)
