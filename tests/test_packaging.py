"""What is installed with greentrain: bounds, pins, and what an import loads."""

from __future__ import annotations

import configparser
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg")
ONE_FEATURE = {"openpyxl", "psycopg", "river", "weasyprint"}
"""Packages of a single feature, which are extras."""
OWNERS = {"codecarbon", "mlflow", "nvidia-ml-py", "pytorch-lightning", "torchmetrics"}
SLOW = {"mlflow", "pandas", "pyarrow", "sklearn", "scipy"}
"""Packages that take seconds to import, and that no callback needs."""


def lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip() and line.strip()[0] != "#"]


def requirements(text: str) -> dict[str, str]:
    """Return the conditions on each package, by its normalized name."""
    found = {}
    for line in lines(text):
        match = re.fullmatch(r"([\w.-]+)(?:\[[\w,-]*\])?(.*)", line)
        assert match, line
        found[match[1].lower().replace("_", "-")] = match[2]
    return found


REQUIRED = requirements(SETUP["options"]["install_requires"])


def read(name: str) -> dict[str, str]:
    return requirements((ROOT / name).read_text(encoding="utf-8"))


def test_the_owners_packages_are_required_and_those_of_one_feature_are_extras() -> None:
    assert set(REQUIRED) >= {*OWNERS, "torch"}
    assert not set(REQUIRED) & ONE_FEATURE
    extras = SETUP["options.extras_require"]
    offered = {name for key in extras if key != "test" for name in requirements(extras[key])}
    assert offered >= ONE_FEATURE


def test_malicious_releases_are_excluded_under_both_names() -> None:
    excluded = "!=2.6.2,!=2.6.3"
    assert REQUIRED["pytorch-lightning"].endswith(excluded)
    assert requirements(SETUP["options.extras_require"]["test"])["lightning"].endswith(excluded)
    pinned = read("constraints.txt")
    assert (pinned["lightning"], pinned["pytorch-lightning"]) == (excluded, excluded)


def test_only_torch_is_pinned_for_users() -> None:
    pinned = read("constraints.txt")
    assert {name for name, condition in pinned.items() if "==" in condition} == {"torch"}


def test_the_oldest_packages_that_are_tried_are_the_lower_bounds() -> None:
    bounds = {name: condition.split(",")[0] for name, condition in REQUIRED.items()}
    tried = {
        name: each.replace("==", ">=") for name, each in read("constraints-oldest.txt").items()
    }
    assert tried == bounds


def test_pins_of_the_tests_leave_torch_to_the_constraints_of_users() -> None:
    """Where there is an NVIDIA card, the tests run with torch's CUDA build."""
    assert "torch" not in read("constraints-test.txt")


def loaded(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint(*sys.modules)"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.slow
def test_importing_the_callbacks_loads_nothing_slow_besides_lightning() -> None:
    """Lightning loads torchmetrics, which loads scipy: that is not ours to change."""
    lightning = loaded("import pytorch_lightning, lightning.pytorch")
    callbacks = loaded("import greentrain.callbacks")
    assert callbacks & SLOW <= lightning & SLOW
    assert callbacks & SLOW <= {"scipy"}


@pytest.mark.slow
def test_a_measured_fit_loads_nothing_slow_either() -> None:
    fit = """
from pytorch_lightning import Trainer
from pytorch_lightning.demos.boring_classes import BoringModel
from greentrain.callbacks import BudgetGuard, EnergyMonitor
quiet = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False}
callbacks = [EnergyMonitor(ledger=False, summary=False), BudgetGuard("1 kWh")]
Trainer(max_steps=2, limit_val_batches=0, callbacks=callbacks, accelerator="cpu", **quiet).fit(
    BoringModel()
)"""
    assert loaded(fit) & SLOW <= {"scipy"}
