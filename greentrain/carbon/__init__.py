"""Convert joules to grams: carbon intensities, their provenance, and PUE."""

from greentrain.carbon.accounting import UNKNOWN, CarbonAccount, Emissions
from greentrain.carbon.intensity import IntensityProvider, Interval, Provenance, mean_intensity
from greentrain.carbon.series import CsvIntensity
from greentrain.carbon.static import StaticIntensity

__all__ = [
    "UNKNOWN",
    "CarbonAccount",
    "CsvIntensity",
    "Emissions",
    "IntensityProvider",
    "Interval",
    "Provenance",
    "StaticIntensity",
    "mean_intensity",
]
