"""Run each test of a callback in a separate folder, where a Trainer writes its files."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.nvml.simulation import nvml_library, nvml_node

__all__ = ["nvml_library", "nvml_node"]


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run in an empty folder."""
    folder = tmp_path / "cwd"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder
