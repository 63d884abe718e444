"""Another project named greentrain, and malicious releases of Lightning, as pip records them."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import Distribution, PathDistribution
from pathlib import Path

import pytest

from greentrain.cli.package_conflicts import package_conflicts

ROOT = Path(__file__).parents[2]


def installed(
    folder: Path, name: str, version: str = "1.0", *, top_level: str | None = None
) -> Distribution:
    """Write the metadata of a distribution as pip does."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    if top_level is not None:
        (info / "top_level.txt").write_text(f"{top_level}\n")
    return PathDistribution(info)


def test_an_environment_with_only_ours_has_no_conflict(tmp_path: Path) -> None:
    ours = installed(tmp_path, "lightning-greentrain", top_level="greentrain")
    other = installed(tmp_path, "torch", top_level="torch\ntorchgen")
    lightning = installed(tmp_path, "lightning", "2.6.6", top_level="lightning")
    assert list(package_conflicts([ours, other, lightning])) == []


@pytest.mark.parametrize(
    ("name", "top_level"),
    [("greentrain", None), ("GreenTrain", "other"), ("green_fork", "greentrain")],
)
def test_another_distribution_with_our_name_is_named_with_the_remedy(
    tmp_path: Path, name: str, top_level: str | None
) -> None:
    ours = installed(tmp_path, "lightning-greentrain", top_level="greentrain")
    theirs = installed(tmp_path, name, "0.3", top_level=top_level)
    ((_, why, fix),) = package_conflicts([ours, theirs])
    normalized = name.lower().replace("_", "-")
    assert f"'{normalized}' 0.3 is another project" in why
    assert fix.startswith(f"pip uninstall {normalized} lightning-greentrain, then install")


@pytest.mark.parametrize("name", ["lightning", "pytorch-lightning", "pytorch_lightning"])
@pytest.mark.parametrize("version", ["2.6.2", "2.6.3"])
def test_a_malicious_release_is_named(tmp_path: Path, name: str, version: str) -> None:
    ((what, why, _),) = package_conflicts([installed(tmp_path, name, version)])
    assert what == "a safe release of Lightning"
    assert "GHSA-w37p-236h-pfx3" in why


def run(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}", "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False
    )


def test_the_doctor_shows_it(tmp_path: Path) -> None:
    installed(tmp_path, "greentrain", "0.3", top_level="greentrain")
    command = "import sys; sys.argv[1:] = ['doctor', '--json']"
    done = run(f"{command}\nfrom greentrain.cli.app import main; main()", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "the distribution 'greentrain' 0.3 is another project" in done.stdout


def test_a_malicious_lightning_is_never_imported_by_us(tmp_path: Path) -> None:
    """The callbacks serve ``lightning`` as well, and would import it for their base class."""
    installed(tmp_path, "lightning", "2.6.3", top_level="lightning")
    (tmp_path / "lightning").mkdir()
    (tmp_path / "lightning" / "__init__.py").write_text("raise SystemExit('it ran')")
    done = run("import greentrain.callbacks", tmp_path)
    assert done.returncode == 1
    assert "lightning 2.6.3 is a malicious release" in done.stderr
    assert "it ran" not in done.stderr
