from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from greentrain.cli.diagnosis import Diagnosis, Missing, examine
from greentrain.cli.doctor_command import doctor, show_diagnosis
from greentrain.energy import Reading, Source, codecarbon
from greentrain.energy._codecarbon_hardware import HardwarePart
from greentrain.errors import ConfigurationError, MeterError
from tests import prepared
from tests.energy import amdsmi_standin
from tests.energy.amdsmi_standin import Machine, show_cards
from tests.nvml import simulation
from tests.nvml.simulation import Node

nvml_library, nvml_node = simulation.nvml_library, simulation.nvml_node
amd = amdsmi_standin.amd
ROOT = Path(__file__).parents[2]
LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="for Linux only")


@pytest.fixture
def no_nvidia(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever cards there are, NVML says that its package is missing."""

    def refuse() -> None:
        raise MeterError("the package nvidia-ml-py is not installed")

    monkeypatch.setattr("greentrain.energy.nvml._open_nvml", refuse)


@pytest.fixture
def estimated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever counters there are, CodeCarbon finds none."""
    from codecarbon.core import cpu

    monkeypatch.setattr(cpu, "is_rapl_available", lambda: False)


def by_what(found: Diagnosis) -> dict[str, Missing]:
    return {missing.what: missing for missing in found.missing}


def the_one_on(topic: str, found: Diagnosis) -> Missing:
    (missing,) = [each for each in found.missing if topic in each.what]
    return missing


def greentrain(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "COLUMNS": "160"}
    return prepared.python(*prepared.CLI, *arguments, cwd=cwd, env=env)


def test_it_shows_what_is_measured_and_what_is_missing(tmp_path: Path) -> None:
    done = greentrain("doctor", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "cpu" in done.stdout
    assert "What is missing" in done.stdout
    assert "WallMeter" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_as_json_it_says_the_same(tmp_path: Path) -> None:
    done = greentrain("doctor", "--json", "--idle", "0.2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert set(told) == {"sources", "missing", "cgroup_share", "idle"}
    sources = {source["name"]: source for source in told["sources"]}
    assert {"cpu", "ram"} <= set(sources)
    assert set(sources["cpu"]) == {
        "name",
        "device",
        "uuid",
        "method",
        "relative_uncertainty",
        "power_limit_w",
        "max_power_w",
        "note",
        "reference",
        "lag_s",
    }
    assert all(set(missing) == {"what", "why", "fix"} for missing in told["missing"])
    assert told["idle"]["duration_s"] >= 0.2
    assert set(told["idle"]["source_power_w"]) == set(sources)


def test_a_time_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="--idle is 0; it must be a number of seconds"):
        doctor(idle_s=0.0)
    done = greentrain("doctor", "--idle", "-1", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")


def test_why_nvidia_cards_are_missing_is_nvmls_sentence(no_nvidia: None, tmp_path: Path) -> None:
    missing = by_what(examine(root=tmp_path))["NVIDIA cards"]
    assert missing.why == "the package nvidia-ml-py is not installed"
    assert missing.fix == "nothing, if this machine has no NVIDIA card"


def test_a_card_that_torch_cannot_use_is_reported(nvml_node: Node, tmp_path: Path) -> None:
    import torch

    found = examine(root=tmp_path)
    assert found.sources[0].name == "gpu:0"
    assert "NVIDIA cards" not in by_what(found)
    if torch.version.cuda is None:
        missing = by_what(found)["training on the card"]
        assert "is built without CUDA" in missing.why
        assert "https://pytorch.org" in missing.fix
    else:
        assert "training on the card" not in by_what(found)


def test_a_card_that_only_the_kernel_knows_is_no_reason_to_do_nothing(
    no_nvidia: None, tmp_path: Path
) -> None:
    show_cards(tmp_path, "0x10de")
    assert by_what(examine(root=tmp_path))["NVIDIA cards"].fix == ""


def test_amd_cards_are_shown(no_nvidia: None, amd: Machine, tmp_path: Path) -> None:
    found = examine(root=tmp_path)
    assert [source.name for source in found.sources] == ["gpu:0", "gpu:1", "cpu", "ram"]
    assert "AMD cards" not in by_what(found)
    assert "is built without ROCm" in by_what(found)["training on the card"].why


def test_an_amd_card_without_amdsmi_says_what_to_install(
    no_nvidia: None, amd: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delitem(sys.modules, "amdsmi")
    missing = by_what(examine(root=tmp_path))["AMD cards"]
    assert "amdsmi is not installed" in missing.why
    assert "pip install" in missing.why


def test_amd_cards_beside_nvidias_are_named_as_left_out(
    nvml_node: Node, amd: Machine, tmp_path: Path
) -> None:
    found = examine(root=tmp_path)
    assert [source.name for source in found.sources] == ["gpu:0", "cpu", "ram"]
    assert "next to NVIDIA's" in by_what(found)["AMD cards"].why


def forbidden(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = root / "sys/class/powercap/intel-rapl:0"
    package.mkdir(parents=True)
    (package / "energy_uj").write_text("5\n")
    monkeypatch.setattr("greentrain.energy.host_hardware.os.access", lambda path, mode: False)


def readable(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = root / "sys/class/powercap/intel-rapl:0"
    package.mkdir(parents=True)
    (package / "energy_uj").write_text("5\n")


def container(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / ".dockerenv").touch()


def machine(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "proc").mkdir()
    (root / "proc/cpuinfo").write_text("model name\t: a CPU\nflags\t\t: fpu hypervisor lahf_lm\n")
    container(root, monkeypatch)  # a container in it is not what is in the way


def bare(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pass


@LINUX
@pytest.mark.parametrize(
    ("host", "why", "fix"),
    [
        (forbidden, "only root may read", "sudo chmod a+r /sys/class/powercap/intel-rapl*/energy"),
        (forbidden, "only root may read", 'RUN+="/bin/chmod a+r /sys%p/energy_uj"'),
        (readable, "none that CodeCarbon recognizes", ""),
        (container, "its host does not pass /sys/class/powercap on", "systempaths=unconfined"),
        (machine, "its host does not pass the counters on", "nothing from inside"),
        (bare, "the kernel shows none", "sudo modprobe intel_rapl_msr"),
    ],
)
def test_why_the_cpu_is_an_estimate_is_reported_with_the_fix(
    no_nvidia: None,
    estimated: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    host: Callable[[Path, pytest.MonkeyPatch], None],
    why: str,
    fix: str,
) -> None:
    for name in ("container", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    host(tmp_path, monkeypatch)
    missing = the_one_on("RAPL", examine(root=tmp_path))
    assert why in missing.why
    assert fix in missing.fix


@LINUX
def test_a_cpu_with_a_counter_wants_nothing_better(
    no_nvidia: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Source(name="cpu", method="counter", relative_uncertainty=0.05)
    part = HardwarePart(hardware=SimpleNamespace(), source=source, quick=False)
    monkeypatch.setattr(codecarbon, "set_up", lambda root: {"cpu": part})
    monkeypatch.setattr(codecarbon.CodeCarbonMeter, "_advance", lambda *arguments: None)
    found = examine(root=tmp_path)
    assert found.sources == (source,)
    assert not [missing for missing in found.missing if "RAPL" in missing.what]


def test_an_estimated_ram_and_the_rest_of_the_machine_want_a_wall_reading(
    no_nvidia: None, tmp_path: Path
) -> None:
    found = examine(root=tmp_path)
    assert "wall reading" in the_one_on("RAM", found).fix
    assert "WallMeter" in the_one_on("power supply", found).fix


def test_what_codecarbon_cannot_do_is_reported(
    no_nvidia: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(root: Path) -> None:
        raise OSError("no /proc here")

    monkeypatch.setattr(codecarbon, "set_up", broken)
    found = examine(root=tmp_path, idle_s=1.0, wait=lambda seconds: None)
    assert found.sources == ()
    assert found.idle is None
    assert "no /proc here" in by_what(found)["CPU and RAM"].why


def test_a_shared_host_is_reported(no_nvidia: None, tmp_path: Path) -> None:
    folder = tmp_path / "sys/fs/cgroup/job"
    for each in (folder, tmp_path / "proc/self"):
        each.mkdir(parents=True)
    (folder / "cgroup.events").touch()
    (tmp_path / "proc/self/cgroup").write_text("0::/job\n")
    (tmp_path / "proc/self/mountinfo").write_text(
        "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
    )
    assert "whole host" in the_one_on("this process's part", examine(root=tmp_path)).why
    other = tmp_path / "other"
    assert not [each for each in examine(root=other).missing if "this process's" in each.what]


def test_tables_show_text_as_it_is() -> None:
    source = Source(
        name="cpu",
        method="estimated",
        relative_uncertainty=None,
        device="[red]a CPU[/red]",
        note="whole machine [or so]",
    )
    idle = Reading(duration_s=10.0, energy_j={"cpu": 125.0})
    missing = Missing(what="a wall", why="[none]", fix="")
    page = io.StringIO()
    found = Diagnosis(sources=(source,), missing=(missing,), idle=idle)
    show_diagnosis(found, Console(width=160, file=page))
    text = page.getvalue()
    for expected in ("[red]a CPU[/red]", "whole machine [or so]", "unknown", "[none]", "12.5 W"):
        assert expected in text
    assert "mean of 10 s" in text
