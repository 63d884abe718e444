"""The examples of continual-learning methods print a line for each method."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
METHODS = {
    "parameter_anchors.py": ["no anchor", "L2", "EWC", "online EWC", "SI", "MAS"],
    "outputs_and_gradients.py": [
        *("fine-tuning", "LwF", "A-GEM", "GEM", "DER", "ER-MIR", "DER++"),
    ],
    "structure_per_task.py": [
        *("ProgressiveNetwork", "SuperMasks", "HyperNetwork", "InterContiNet"),
    ],
    "generated_replay.py": [
        *("fine-tuning", "compressed samples", "in two levels", "replay through feedback"),
        *("generative replay", "with distillation", "BinPlay", "LogCL", "Multiband VAE"),
    ],
    "exemplars.py": ["fine-tuning", "GDumb", "iCaRL"],
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", METHODS)
def test_each_method_is_compared(name, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", [name, "--quick"])
    for variable in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):
        monkeypatch.setenv(variable, "0")
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    lines = re.findall(r"(?m)^(.+): [\d.]+ % of all experiences, .* ", capsys.readouterr().out)
    assert lines == METHODS[name]
