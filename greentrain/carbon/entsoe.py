"""Intensity of a European bidding zone, computed from the generation that ENTSO-E publishes."""

from __future__ import annotations

import hashlib
import logging
import math
import warnings
from collections.abc import Callable, Mapping
from datetime import datetime, time, timedelta
from typing import TYPE_CHECKING, Any

from greentrain._about import DISTRIBUTION
from greentrain.carbon.hidden_keys import hide_keys
from greentrain.carbon.intensity import Interval, Kind, Provenance
from greentrain.carbon.online import Client, OnlineIntensity, RefusedKey
from greentrain.carbon.zones import did_you_mean
from greentrain.errors import ConfigurationError, IntensityError
from greentrain.units import utc_now

if TYPE_CHECKING:
    from pandas import DataFrame, Series  # type: ignore[import-untyped]

KEY = "ENTSOE_API_KEY"
FACTORS: Mapping[str, tuple[float, float, float]] = {
    "Biomass": (230.0, 130.0, 420.0),
    "Fossil Brown coal/Lignite": (820.0, 740.0, 910.0),
    "Fossil Coal-derived gas": (820.0, 740.0, 910.0),
    "Fossil Gas": (490.0, 410.0, 650.0),
    "Fossil Hard coal": (820.0, 740.0, 910.0),
    "Fossil Oil": (650.0, 650.0, 910.0),
    "Fossil Oil shale": (820.0, 740.0, 910.0),
    "Fossil Peat": (820.0, 740.0, 910.0),
    "Geothermal": (38.0, 6.0, 79.0),
    "Hydro Run-of-river and pondage": (24.0, 24.0, 24.0),
    "Hydro Water Reservoir": (24.0, 24.0, 24.0),
    "Marine": (17.0, 5.6, 28.0),
    "Nuclear": (12.0, 3.7, 110.0),
    "Other": (490.0, 230.0, 820.0),
    "Other renewable": (38.0, 6.0, 230.0),
    "Solar": (48.0, 18.0, 180.0),
    "Waste": (230.0, 130.0, 820.0),
    "Wind Offshore": (12.0, 8.0, 35.0),
    "Wind Onshore": (11.0, 7.0, 56.0),
}
"""Life-cycle factors in g/kWh by type of plant: median, lowest, highest.

They are those of IPCC AR5 WG3 Annex III, Table A.III.2. It has none for oil, waste and the types of
"Other", which are estimates, and the range of hydro is left out because of single reservoirs.
Storage is left out: its energy was counted when it was generated.
"""
_WEATHER = ("Solar", "Wind Offshore", "Wind Onshore")
_PUBLISHED_AT = time(18)
"""Local time by which the forecasts of the next day are published."""
_LATE = timedelta(hours=1)
"""The generation of an hour is published within the hour after it."""
_LEARNED = timedelta(days=7)
_TIMEOUT_S = 15
_QUARTER = timedelta(minutes=15)


class EntsoeIntensity(OnlineIntensity):
    """Average intensity of a bidding zone: its generation times life-cycle factors.

    Imports are not included. Needs the package ``entsoe-py``: the extra ``[entsoe]``. The free key
    is read from ``ENTSOE_API_KEY``. The bounds of the values are those of the factors.

    The forecast combines the day-ahead forecasts of load, wind and sun with the plants of the last
    seven days. The forecasts of a day count as known from 18:00 of the day before, so past ones can
    be requested too. Their bounds cover 90 % of the errors of these seven days.

    Args:
        zone: A zone of entsoe-py, such as ``"DE_LU"`` or ``"SE_3"``.
        clock: Returns the present, an aware time.

    Raises:
        ConfigurationError: If ``entsoe-py`` is not installed, or there is no such zone.
    """

    refresh = timedelta(minutes=15)

    def __init__(self, zone: str, *, clock: Callable[[], datetime] = utc_now) -> None:
        areas, code = _areas(), str(zone).strip().upper().replace("-", "_")
        if code not in areas:
            raise ConfigurationError(
                f"ENTSO-E has no zone {zone!r}{did_you_mean(str(zone), areas)}"
            )
        provenance = Provenance(
            source="ENTSO-E generation times factors of IPCC AR5",
            zone=code,
            data_year=None,
            licence="CC BY 4.0 for the data on ENTSO-E's list of free re-use",
        )
        super().__init__(Client("ENTSO-E", "", key_names=(KEY,)), provenance, clock)

    def _read_history(self, start: datetime, end: datetime) -> list[Interval]:
        generation = self._generation(start, end)
        return self._intervals(_mean_intensities(generation), "estimated")

    def _read_forecast(self, start: datetime, end: datetime) -> list[Interval]:
        return self._predict(self._clock(), start, end)

    def _read_past_forecast(self, as_of: datetime, end: datetime) -> list[Interval]:
        first = as_of.replace(minute=0, second=0, microsecond=0)
        return self._predict(as_of, first, end)

    def _predict(self, as_of: datetime, start: datetime, end: datetime) -> list[Interval]:
        """Return the forecast of whole hours from what was published at a time."""
        began = start - _LEARNED
        past = self._generation(began, as_of - _LATE)
        load = self._query("query_load_forecast", began, end).iloc[:, 0]
        weather = self._query("query_wind_and_solar_forecast", began, end)
        offered = {name: weather[name] for name in _WEATHER if name in weather}
        if not offered:
            raise self._client.malformed("its forecast has neither wind nor sun")
        until = min(end, _known_until(as_of, load.index.tz))
        known = load[load.index < until].dropna()
        plants = _Plants(past, known, offered)
        found = plants.predicted[plants.predicted.index >= start]
        if found.empty:
            raise self._client.empty(f"{self._provenance.zone} from {start:%Y-%m-%d %H:%M} UTC")
        bounds = {"low": found + plants.errors[0], "high": found + plants.errors[1]}
        return self._intervals({"mean": found, **bounds}, "forecast", as_of)

    def _generation(self, start: datetime, end: datetime) -> DataFrame:
        """Return the megawatts by type of plant, without types that have no factor."""
        found = self._query("query_generation", start, end, nett=True)
        columns = [name for name in found.columns if name in FACTORS]
        if not columns:
            raise self._client.malformed("it has no known type of plant")
        return found[columns].fillna(0.0).clip(lower=0.0)

    def _query(self, name: str, start: datetime, end: datetime, **options: Any) -> DataFrame:
        """Call a method of entsoe-py, and hide the key in its errors and logs."""
        import pandas
        import requests
        from entsoe.entsoe import EntsoePandasClient
        from entsoe.exceptions import NoMatchingDataError

        (key,) = self._client.keys()
        hidden = _loggers_of_requests()
        redact = _Redact(key)
        for logger in hidden:
            logger.addFilter(redact)
        try:
            with _session() as session, warnings.catch_warnings():
                warnings.simplefilter("ignore")  # its use of pandas is not ours to change
                client = EntsoePandasClient(
                    api_key=key, session=session, retry_count=1, retry_delay=0, timeout=_TIMEOUT_S
                )
                frame = getattr(client, name)(
                    self._provenance.zone,
                    start=pandas.Timestamp(start),
                    end=pandas.Timestamp(end),
                    **options,
                )
        except NoMatchingDataError:
            raise self._client.empty(f"{self._provenance.zone} ({name})") from None
        except requests.HTTPError as error:
            code = getattr(error.response, "status_code", None)
            if code in (401, 403):
                raise RefusedKey(
                    f"ENTSO-E refused the key in {KEY} ({code}); check that it has access to the "
                    "REST API"
                ) from None
            raise IntensityError(f"ENTSO-E gave the code {code} for {name}") from None
        except requests.RequestException as error:
            reason = type(error).__name__
            raise IntensityError(f"ENTSO-E gave no answer to {name} ({reason})") from None
        except Exception as error:  # its parser raises many kinds on a malformed answer
            raise self._client.malformed(f"{type(error).__name__} in {name}") from None
        finally:
            for logger in hidden:
                logger.removeFilter(redact)
        frame = frame.to_frame() if hasattr(frame, "to_frame") else frame
        if frame.empty:
            raise self._client.empty(f"{self._provenance.zone} ({name})")
        return frame[~frame.index.duplicated()]

    def _intervals(
        self, values: Mapping[str, Series], kind: Kind, issued: datetime | None = None
    ) -> list[Interval]:
        mean = values["mean"].dropna()
        steps = mean.index.to_series().diff().dropna()
        step = steps.min().to_pytimedelta() if len(steps) else _QUARTER
        issued_utc = None if issued is None else issued.isoformat()
        # Of the values: the bytes of the answers stay in entsoe-py.
        digest = hashlib.sha256(mean.to_csv().encode()).hexdigest()
        found = []
        for moment, value in mean.items():
            start = moment.to_pydatetime()
            one = self._interval(start, start + step, float(value), kind, digest, issued_utc)
            low, high = (float(values[name][moment]) for name in ("low", "high"))
            found.append(
                Interval(
                    start=one.start,
                    end=one.end,
                    g_per_kwh=one.g_per_kwh,
                    low_g_per_kwh=max(0.0, min(low, one.g_per_kwh)),
                    high_g_per_kwh=max(high, one.g_per_kwh),
                    provenance=one.provenance,
                )
            )
        return found


class _Plants:
    """Predict the intensity from the forecasts of load, wind and sun.

    The other plants generate the load that is left, scaled as in the past for imports. Their mean
    intensity is a straight line of their power, fitted to the past.

    Attributes:
        predicted: The predicted intensities, of past and future.
        errors: The lowest and highest error of the past, without the outermost 10 %.
    """

    def __init__(self, past: DataFrame, load: Series, weather: Mapping[str, Series]) -> None:
        import numpy as np

        clean = sum(
            series.reindex(load.index).interpolate(limit_direction="both").fillna(0.0)
            for series in weather.values()
        )
        clean_g = sum(
            series.reindex(load.index).interpolate(limit_direction="both").fillna(0.0)
            * FACTORS[name][0]
            for name, series in weather.items()
        )
        # All on the times of the load, which are the coarsest.
        actual = past.reindex(past.index.union(load.index)).interpolate("time")
        actual = actual.reindex(load.index[load.index <= past.index[-1]]).dropna()
        if actual.empty:
            actual = past
        other = [name for name in actual.columns if name not in _WEATHER]
        power = actual[other].sum(axis=1)
        grams = sum(actual[name] * FACTORS[name][0] for name in other)
        rate = grams / power.where(power > 0)
        usable = rate.notna().to_numpy()
        x, y = power.to_numpy()[usable], rate.to_numpy()[usable]
        slope, level = np.polyfit(x, y, 1) if len(x) > 2 and np.ptp(x) > 0 else (0.0, y.mean())
        share = actual.sum(axis=1).mean() / load.reindex(actual.index).mean()
        scaled = load * (share if math.isfinite(share) else 1.0)
        left = (scaled - clean).clip(lower=float(x.min()))
        of_left = (level + slope * left).clip(lower=float(y.min()), upper=float(y.max()))
        self.predicted: Series = (left * of_left + clean_g) / (left + clean)
        seen = _mean_intensities(actual)["mean"]
        errors = (seen - self.predicted.reindex(seen.index)).dropna()
        low, high = np.quantile(errors, (0.05, 0.95)) if len(errors) else (0.0, 0.0)
        self.errors = min(0.0, float(low)), max(0.0, float(high))


class _Redact(logging.Filter):
    """Replace a key in the records of loggers that show addresses."""

    def __init__(self, key: str) -> None:
        super().__init__()
        self._key = key

    def filter(self, record: logging.LogRecord) -> bool:
        """Replace the key in a record's text."""
        if (hidden := hide_keys(text := record.getMessage(), [self._key])) != text:
            record.msg, record.args = hidden, ()
        return True


def _loggers_of_requests() -> list[logging.Logger]:
    """Return each logger of the packages that see an address with the key.

    A filter of a parent does not see the records of its children, so each is returned.
    """
    packages = ("entsoe", "requests", "urllib3")
    names = [one for one in logging.root.manager.loggerDict if one.split(".")[0] in packages]
    return [logging.getLogger(one) for one in names]


def _mean_intensities(generation: DataFrame) -> dict[str, Series]:
    total = generation.sum(axis=1)
    total = total.where(total > 0)
    return {
        name: sum(generation[kind] * FACTORS[kind][place] for kind in generation) / total
        for place, name in enumerate(("mean", "low", "high"))
    }


def _known_until(as_of: datetime, zone: Any) -> datetime:
    """Return the end of the last local day whose forecasts were published."""
    import pandas

    local = as_of.astimezone(zone)
    days = 2 if local.time() >= _PUBLISHED_AT else 1
    end: datetime = pandas.Timestamp(local.date() + timedelta(days=days), tz=zone).to_pydatetime()
    return end


def _areas() -> dict[str, str]:
    """Return the names of all zones."""
    try:
        from entsoe.mappings import Area
    except ModuleNotFoundError:
        raise ConfigurationError(
            f"EntsoeIntensity needs the package entsoe-py: pip install '{DISTRIBUTION}[entsoe]'"
        ) from None
    return {area.name: str(area.meaning) for area in Area}


def _session() -> Any:
    """Return a session that tries again after failed connections and overloaded servers."""
    import requests
    from requests.adapters import HTTPAdapter
    from urllib3.util.retry import Retry

    session = requests.Session()
    retries = Retry(
        total=2,
        backoff_factor=0.5,
        status_forcelist=(429, 500, 502, 503, 504),
        raise_on_status=False,
        respect_retry_after_header=False,
    )
    for scheme in ("https://", "http://"):
        session.mount(scheme, HTTPAdapter(max_retries=retries))
    return session
