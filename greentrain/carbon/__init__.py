"""Convert joules to grams: carbon intensities, their provenance, and PUE."""

from greentrain.carbon.accounting import UNKNOWN, CarbonAccount, Emissions
from greentrain.carbon.cached import CachedIntensity
from greentrain.carbon.chain import FallbackChain
from greentrain.carbon.electricity_maps import ElectricityMapsIntensity
from greentrain.carbon.entsoe import EntsoeIntensity
from greentrain.carbon.intensity import IntensityProvider, Interval, Provenance, mean_intensity
from greentrain.carbon.named import live_intensity, named_intensity
from greentrain.carbon.series import CsvIntensity
from greentrain.carbon.static import StaticIntensity
from greentrain.carbon.uk import UkIntensity
from greentrain.carbon.watttime import WattTimeIntensity

__all__ = [
    "UNKNOWN",
    "CachedIntensity",
    "CarbonAccount",
    "CsvIntensity",
    "ElectricityMapsIntensity",
    "Emissions",
    "EntsoeIntensity",
    "FallbackChain",
    "IntensityProvider",
    "Interval",
    "Provenance",
    "StaticIntensity",
    "UkIntensity",
    "WattTimeIntensity",
    "live_intensity",
    "mean_intensity",
    "named_intensity",
]
