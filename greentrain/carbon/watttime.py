"""Marginal intensity of a region from WattTime, for decisions and never for a report."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from greentrain.carbon.intensity import Interval, Kind, Provenance
from greentrain.carbon.online import Answer, Client, OnlineIntensity, RefusedKey
from greentrain.carbon.zones import did_you_mean
from greentrain.errors import ConfigurationError, IntensityError
from greentrain.units import utc_now

URL = "https://api.watttime.org"
KEYS = ("WATTTIME_USER", "WATTTIME_PASSWORD")
_SIGNAL = "co2_moer"
_G_PER_KWH = {"lbs_co2_per_mwh": 0.45359237, "kg_co2_per_mwh": 1.0, "g_co2_per_kwh": 1.0}
_HOUR = timedelta(hours=1)
_TOKEN_LIFE = timedelta(minutes=25)
"""A token is valid for 30 minutes."""
_MOST_DAYS = timedelta(days=30)
_MOST_HOURS = 72


class WattTimeIntensity(OnlineIntensity):
    """Marginal intensity of a region, by five minutes, with forecasts up to 72 hours.

    A marginal intensity says which plant answers to one more kilowatt-hour. It may steer *when* to
    train. :class:`CarbonAccount` refuses it, so it enters no report. User and password are read
    from ``WATTTIME_USER`` and ``WATTTIME_PASSWORD``. A free account covers ``CAISO_NORTH``.

    Args:
        region: A region of WattTime, such as ``"CAISO_NORTH"``.
        url: Address of the service.
        clock: Returns the present, an aware time.

    Raises:
        ConfigurationError: If the region is no text.
    """

    def __init__(
        self,
        region: str,
        *,
        url: str = URL,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        if not isinstance(region, str) or not region.strip():
            raise ConfigurationError(f"region is {region!r}; give one such as 'CAISO_NORTH'")
        provenance = Provenance(
            source="WattTime",
            zone=region.strip().upper(),
            data_year=None,
            signal="marginal",
            basis="direct",
            licence="WattTime's terms; no redistribution",
        )
        super().__init__(Client("WattTime", url, key_names=KEYS), provenance, clock)
        self._token: tuple[datetime, str] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_token": None}

    def _read_history(self, start: datetime, end: datetime) -> list[Interval]:
        found: list[Interval] = []
        while start < end:
            until = min(end, start + _MOST_DAYS)
            # Both ends are included.
            answer = self._get("historical", start=_text(start), end=_text(until))
            rows = self._rows(answer.content, "data")
            found += [one for one in self._points(answer, rows, "measured") if one.start < until]
            start = until
        return found

    def _read_forecast(self, start: datetime, end: datetime) -> list[Interval]:
        answer = self._get("forecast", horizon_hours=self._hours(end - self._clock()))
        issued = self._meta(answer).get("generated_at")
        issued_utc = None if issued is None else self._moment(issued).isoformat()
        return self._points(answer, self._rows(answer.content, "data"), "forecast", issued_utc)

    def _read_past_forecast(self, as_of: datetime, end: datetime) -> list[Interval]:
        answer = self._get(
            "forecast/historical",
            start=_text(as_of - _HOUR),
            end=_text(as_of),
            horizon_hours=self._hours(end - as_of),
        )
        issues = [
            (self._moment(row.get("generated_at")), row)
            for row in self._rows(answer.content, "data")
        ]
        known = [one for one in issues if one[0] <= as_of]
        if not known:
            raise self._client.empty(f"{self._provenance.zone} at {_text(as_of)}")
        issued, row = max(known, key=lambda one: one[0])
        rows = self._rows(row, "forecast", "data")
        return self._points(answer, rows, "forecast", issued.isoformat())

    def _hours(self, horizon: timedelta) -> str:
        return str(min(_MOST_HOURS, max(1, math.ceil(horizon / _HOUR))))

    def _get(self, what: str, **parameters: str) -> Answer:
        region = self._provenance.zone
        given = {"region": region, "signal_type": _SIGNAL, **parameters}
        try:
            return self._authorised(f"/v3/{what}", given)
        except RefusedKey as error:
            if (known := self._regions()) and region not in known:
                raise ConfigurationError(
                    f"this account of WattTime has no region {region!r}"
                    f"{did_you_mean(region, known)}"
                ) from None
            raise error from None

    def _authorised(self, path: str, parameters: dict[str, str]) -> Answer:
        token = self._login()
        try:
            return self._client.get(
                path, parameters, headers={"Authorization": f"Bearer {token}"}, secrets=(token,)
            )
        except RefusedKey:
            self._token = None  # it may have ended early
            raise

    def _login(self) -> str:
        now = self._clock()
        if self._token is not None and now < self._token[0]:
            return self._token[1]
        user, password = self._client.keys()
        coded = base64.b64encode(f"{user}:{password}".encode()).decode()
        content = self._client.get("/login", login=(user, password), secrets=(coded,)).content
        token = content.get("token") if isinstance(content, dict) else None
        if not isinstance(token, str) or not token:
            raise self._client.malformed("the login has no token")
        self._token = now + _TOKEN_LIFE, token
        return token

    def _regions(self) -> dict[str, str]:
        """Return the regions of the account; empty if they cannot be read."""
        try:
            content = self._authorised("/v3/my-access", {}).content
        except IntensityError:
            return {}
        types = content.get("signal_types") if isinstance(content, dict) else None
        return {
            str(one.get("region")): str(one.get("region_full_name") or "")
            for kind in types or ()
            if isinstance(kind, dict) and kind.get("signal_type") == _SIGNAL
            for one in kind.get("regions") or ()
            if isinstance(one, dict)
        }

    def _meta(self, answer: Answer) -> dict[str, Any]:
        meta = answer.content.get("meta") if isinstance(answer.content, dict) else None
        return meta if isinstance(meta, dict) else {}

    def _points(
        self,
        answer: Answer,
        rows: Sequence[dict[str, Any]],
        kind: Kind,
        issued_utc: str | None = None,
    ) -> list[Interval]:
        meta = self._meta(answer)
        factor = _G_PER_KWH.get(str(meta.get("units")))
        if factor is None:
            raise self._client.malformed(f"the unit is {str(meta.get('units'))[:40]!r}")
        if meta.get("signal_type", _SIGNAL) != _SIGNAL:
            raise self._client.malformed(f"the signal is {str(meta['signal_type'])[:40]!r}")
        step_s = meta.get("data_point_period_seconds", 300)
        if not isinstance(step_s, int) or step_s <= 0:
            raise self._client.malformed("the period of its points is no number of seconds")
        found = []
        for row in rows:
            start, value = self._moment(row.get("point_time")), row.get("value")
            if isinstance(value, int | float) and not isinstance(value, bool):
                value = value * factor
            end = start + timedelta(seconds=step_s)
            found.append(self._interval(start, end, value, kind, answer.sha256, issued_utc))
        return found


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S+00:00")
