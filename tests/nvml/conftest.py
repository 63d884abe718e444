"""Hands the simulated node's fixtures to the tests of this folder."""

from __future__ import annotations

from tests.nvml.simulation import nvml_library, nvml_node

__all__ = ["nvml_library", "nvml_node"]
