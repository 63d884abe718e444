"""Measure joules: meters, their sources, readings and windows."""

from greentrain.energy.boundary import boundary, boundary_note
from greentrain.energy.codecarbon import CodeCarbonMeter
from greentrain.energy.composite import CompositeMeter
from greentrain.energy.constant import ConstantMeter
from greentrain.energy.detect import detect
from greentrain.energy.energy_total import EnergyTotal, energy_html
from greentrain.energy.idle import idle_power, source_power_w
from greentrain.energy.job_share import JobShare
from greentrain.energy.meter import NOTHING, Meter, Reading, Source
from greentrain.energy.nvml import NvmlMeter
from greentrain.energy.replay import ReplayMeter
from greentrain.energy.run_forecast import Forecast, predict_total
from greentrain.energy.starting import UnknownMeter, check_meter, close_meter, start_meter
from greentrain.energy.step_forecast import StepForecast
from greentrain.energy.wall import WallMeter
from greentrain.energy.wall_calibration import Calibration, calibrate, calibrate_windows
from greentrain.energy.windows import Window, WindowRecorder, total

__all__ = [
    "NOTHING",
    "Calibration",
    "CodeCarbonMeter",
    "CompositeMeter",
    "ConstantMeter",
    "EnergyTotal",
    "Forecast",
    "JobShare",
    "Meter",
    "NvmlMeter",
    "Reading",
    "ReplayMeter",
    "Source",
    "StepForecast",
    "UnknownMeter",
    "WallMeter",
    "Window",
    "WindowRecorder",
    "boundary",
    "boundary_note",
    "calibrate",
    "calibrate_windows",
    "check_meter",
    "close_meter",
    "detect",
    "energy_html",
    "idle_power",
    "predict_total",
    "source_power_w",
    "start_meter",
    "total",
]
