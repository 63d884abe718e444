"""Where joules come from: meters, their sources and readings."""

from greentrain.energy.codecarbon import CodeCarbonMeter
from greentrain.energy.composite import CompositeMeter
from greentrain.energy.constant import ConstantMeter
from greentrain.energy.detect import detect
from greentrain.energy.meter import NOTHING, Meter, Reading, Source
from greentrain.energy.nvml import NvmlMeter
from greentrain.energy.replay import ReplayMeter
from greentrain.energy.windows import Window, WindowRecorder, total

__all__ = [
    "NOTHING",
    "CodeCarbonMeter",
    "CompositeMeter",
    "ConstantMeter",
    "Meter",
    "NvmlMeter",
    "Reading",
    "ReplayMeter",
    "Source",
    "Window",
    "WindowRecorder",
    "detect",
    "total",
]
