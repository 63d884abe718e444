"""ENTSO-E through entsoe-py, against a local server that replays its documents."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote, quote_plus

import pytest

from greentrain.carbon import EntsoeIntensity, FallbackChain, StaticIntensity
from greentrain.errors import ConfigurationError, IntensityError
from tests.carbon.service import Reply, Request, Service, service

KEY = "ent-s3cr3t-k3y"
NOW = datetime(2026, 11, 30, 12, 10, tzinfo=UTC)
NOON = NOW.replace(minute=0)
HOUR = timedelta(hours=1)
FORM = "%Y-%m-%dT%H:%MZ"
COAL, SUN, WIND = "B05", "B16", "B19"


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "entsoe.mappings", None)
    with pytest.raises(ConfigurationError, match=r"needs the package entsoe-py.*\[entsoe\]"):
        EntsoeIntensity("DE_LU")


def series(start: datetime, values: list[float], plant: str | None) -> str:
    end = start + len(values) * HOUR
    points = "".join(
        f"<Point><position>{n}</position><quantity>{value}</quantity></Point>"
        for n, value in enumerate(values, 1)
    )
    kind = f"<MktPSRType><psrType>{plant}</psrType></MktPSRType>" if plant else ""
    return (
        "<TimeSeries><businessType>A01</businessType>"
        "<inBiddingZone_Domain.mRID>10Y1001A1001A82H</inBiddingZone_Domain.mRID>"
        f"<curveType>A01</curveType>{kind}<Period><timeInterval><start>{start.strftime(FORM)}</start>"
        f"<end>{end.strftime(FORM)}</end></timeInterval><resolution>PT60M</resolution>{points}"
        "</Period></TimeSeries>"
    )


def document(*parts: str) -> Reply:
    text = f"<GL_MarketDocument>{''.join(parts)}</GL_MarketDocument>"
    return Reply(text.encode(), headers={"Content-Type": "text/xml"})


def problem(text: str) -> bytes:
    return f"<Acknowledgement_MarketDocument><Reason><text>{text}</text></Reason>".encode()


def sun(moment: datetime) -> float:
    return 40.0 if 9 <= moment.hour < 15 else 0.0


def grid(request: Request) -> Reply:
    """A grid of 100 MW: 40 from the sun by day, 10 from the wind, and the rest from coal."""
    form = "%Y%m%d%H%M"
    start, end = (
        datetime.strptime(request.parameters[name], form).replace(tzinfo=UTC)
        for name in ("periodStart", "periodEnd")
    )
    times = [start + n * HOUR for n in range(int((end - start) / HOUR))]
    of_sun, of_wind = [sun(one) for one in times], [10.0] * len(times)
    kind = request.parameters["documentType"]
    if kind == "A65":
        return document(series(start, [100.0] * len(times), None))
    weather = [series(start, of_sun, SUN), series(start, of_wind, WIND)]
    if kind == "A69":
        return document(*weather)
    coal = [90.0 - one for one in of_sun]
    return document(*weather, series(start, coal, COAL))


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    client = pytest.importorskip("entsoe.entsoe", reason="entsoe-py is not installed")
    monkeypatch.setenv("ENTSOE_API_KEY", KEY)
    monkeypatch.setattr("urllib3.util.retry.Retry.sleep", lambda *_: None)
    with service() as found:
        monkeypatch.setattr(client, "URL", f"{found.url}/api")
        found.answers["/api"] = grid
        yield found


@pytest.fixture
def provider(served: Service) -> EntsoeIntensity:
    return EntsoeIntensity("de-lu", clock=lambda: NOW)


NIGHT_G = (90 * 820 + 10 * 11) / 100
DAY_G = (50 * 820 + 40 * 48 + 10 * 11) / 100


def test_the_intensity_is_the_mix_times_its_factors(provider: EntsoeIntensity) -> None:
    found = provider.history(NOON - 5 * HOUR, NOON)
    assert [one.start.hour for one in found] == [7, 8, 9, 10, 11]
    assert [one.g_per_kwh for one in found] == pytest.approx([NIGHT_G] * 2 + [DAY_G] * 3)
    assert found[0].low_g_per_kwh == pytest.approx((90 * 740 + 10 * 7) / 100)
    assert found[0].high_g_per_kwh == pytest.approx((90 * 910 + 10 * 56) / 100)
    origin = found[0].provenance
    assert origin is not None
    assert (origin.zone, origin.kind, origin.signal) == ("DE_LU", "estimated", "average")


def test_the_forecast_follows_load_wind_and_sun(provider: EntsoeIntensity) -> None:
    found = provider.forecast(NOW, 11 * HOUR)
    by_hour = {one.start.hour: one for one in found}
    assert sorted(by_hour) == list(range(12, 23))  # to the end of the local day
    assert by_hour[13].g_per_kwh == pytest.approx(DAY_G, rel=0.01)
    assert by_hour[20].g_per_kwh == pytest.approx(NIGHT_G, rel=0.01)
    assert all(one.provenance and one.provenance.kind == "forecast" for one in found)
    assert all((one.low_g_per_kwh or 0) <= one.g_per_kwh for one in found)
    assert all((one.high_g_per_kwh or 0) >= one.g_per_kwh for one in found)


@pytest.mark.parametrize(("hour", "last"), [(16, 22), (17, 22), (18, 46)])
def test_a_forecast_uses_only_what_was_published(
    served: Service, provider: EntsoeIntensity, hour: int, last: int
) -> None:
    # 18:00 in Berlin is 17:00 UTC in winter; the second day ends at 23:00 UTC.
    as_of = datetime(2026, 11, 25, hour, tzinfo=UTC) - HOUR
    found = provider.forecast(as_of, timedelta(days=3))
    end = datetime(2026, 11, 25, tzinfo=UTC) + (last + 1) * HOUR
    assert found[-1].end == end
    generation = [one for one in served.requests if one.parameters["documentType"] == "A75"]
    assert all(one.parameters["periodEnd"] <= f"{as_of:%Y%m%d%H%M}" for one in generation)


@pytest.mark.parametrize("code", [401, 403])
def test_a_refused_key_is_shown_nowhere(
    served: Service, provider: EntsoeIntensity, caplog: pytest.LogCaptureFixture, code: int
) -> None:
    caplog.set_level(logging.DEBUG)
    served.answers["/api"] = [Reply(problem(f"Unauthorized. Token {KEY}"), code)]
    with pytest.raises(IntensityError, match=rf"refused the key in ENTSOE_API_KEY \({code}\)") as e:
        provider.history(NOON, NOW)
    assert served.requests[0].parameters["securityToken"] == KEY
    assert KEY not in f"{e.value}{e.value!r}{e.value.__cause__}{provider!r}"
    assert "securityToken" in caplog.text
    assert KEY not in caplog.text


@pytest.mark.parametrize("key", [KEY, "ent/s3cr3t+k3y="])
@pytest.mark.parametrize("down", [False, True])
def test_no_log_of_a_failure_shows_the_key(
    served: Service,
    provider: EntsoeIntensity,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    down: bool,
    key: str,
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("ENTSOE_API_KEY", key)
    served.answers["/api"] = [Reply(b"", 503)]
    if down:  # the port of no server
        monkeypatch.setattr("entsoe.entsoe.URL", "http://127.0.0.1:9/api")
    with pytest.raises(IntensityError, match="ENTSO-E gave"):
        provider.history(NOON, NOW)
    assert "Incremented Retry for (url=" in caplog.text
    assert "securityToken=***" in caplog.text
    for form in (key, quote(key, safe=""), quote_plus(key)):
        assert form not in caplog.text


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (Reply(b"", 500), "gave no answer to query_generation|the code 500"),
        (Reply(b"", 429), "gave no answer to query_generation|the code 429"),
        (Reply(b"<a><b>", headers={"Content-Type": "text/xml"}), "a malformed answer"),
        (Reply(problem("No matching data found"), 400), "no values for DE_LU"),
        (Reply(problem("No matching data found"), 200, {"Content-Type": "text/xml"}), "no values"),
        (document(series(NOON, [1.0], "B21")), "no known type of plant"),
    ],
)
def test_failures_are_one_clear_error(
    served: Service, provider: EntsoeIntensity, reply: Reply, said: str
) -> None:
    served.answers["/api"] = [reply]
    with pytest.raises(IntensityError, match=said):
        provider.history(NOON, NOW)
    chain = FallbackChain([provider, StaticIntensity("DE")])
    assert chain.history(NOON, NOW)[0].g_per_kwh == StaticIntensity("DE").g_per_kwh


def test_an_unknown_zone_has_its_three_nearest_names(served: Service) -> None:
    with pytest.raises(
        ConfigurationError, match=r"no zone 'Germany'. The nearest are DE \(Germany"
    ):
        EntsoeIntensity("Germany")


def test_without_a_key_the_variable_is_named(
    served: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ENTSOE_API_KEY")
    provider: Any = EntsoeIntensity("DE_LU")
    with pytest.raises(ConfigurationError, match="variable ENTSOE_API_KEY; set it"):
        provider.check()
