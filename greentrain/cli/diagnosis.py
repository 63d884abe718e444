"""Find the sources of energy figures on this machine, and what is wrong or missing."""

from __future__ import annotations

import dataclasses
import importlib
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from greentrain.cli.package_conflicts import package_conflicts
from greentrain.energy import (
    CodeCarbonMeter,
    CompositeMeter,
    Meter,
    NvmlMeter,
    Reading,
    Source,
    host_hardware,
    idle_power,
    source_power_w,
)
from greentrain.energy.amd import AmdMeter
from greentrain.energy.cgroup import CpuShare
from greentrain.energy.detect import find
from greentrain.errors import MeterError

_RULE = 'SUBSYSTEM=="powercap", KERNEL=="intel-rapl*:*", RUN+="/bin/chmod a+r /sys%p/energy_uj"'
_RAPL: dict[str, tuple[str, str]] = {
    "forbidden": (
        "the counters /sys/class/powercap/intel-rapl*/energy_uj exist, but only root may read them",
        "until the next boot: sudo chmod a+r /sys/class/powercap/intel-rapl*/energy_uj; for good: "
        f"write {_RULE} into /etc/udev/rules.d/70-rapl.rules and run sudo udevadm trigger "
        "--action=add --subsystem-match=powercap; in a container: on its host",
    ),
    "readable": (
        "counters can be read under /sys/class/powercap, but none that CodeCarbon recognizes as "
        "that of a CPU's package",
        "",
    ),
    "virtual machine": (
        "this is a virtual machine, and its host does not pass the counters on",
        "nothing from inside",
    ),
    "container": (
        "this is a container, and its host does not pass /sys/class/powercap on",
        "docker run --security-opt systempaths=unconfined shows it, if the host lets it",
    ),
    "none": (
        "the kernel shows none under /sys/class/powercap",
        "sudo modprobe intel_rapl_msr, where the CPU has counters: Intel since 2011, AMD since Zen "
        "with Linux 5.8 or newer, no ARM",
    ),
}
"""Reason and remedy for a CPU without a counter, by the state of the host."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """A device that is not measured, or could be measured better.

    Args:
        what: The device.
        why: The reason.
        fix: The remedy; empty if ``why`` names it or there is none.
    """

    what: str
    why: str
    fix: str = ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """The sources of this machine.

    Args:
        sources: The measured devices, and their methods.
        missing: Devices that are not measured, or could be measured better.
        cgroup_share: Share of the host's busy CPU time that this process's cgroup had during the
            examination; ``None`` in the root cgroup, or if unknown.
        idle: Energy of the idle machine, if requested.
    """

    sources: tuple[Source, ...]
    missing: tuple[Missing, ...]
    cgroup_share: float | None = None
    idle: Reading | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the diagnosis as plain values for JSON."""
        idle = self.idle and {
            "duration_s": self.idle.duration_s,
            "power_w": self.idle.power_w,
            "source_power_w": source_power_w(self.idle),
        }
        return {
            "sources": [_without_share(source) for source in self.sources],
            "missing": [dataclasses.asdict(missing) for missing in self.missing],
            "cgroup_share": self.cgroup_share,
            "idle": idle,
        }


def examine(
    *,
    idle_s: float | None = None,
    root: Path | None = None,
    wait: Callable[[float], object] = time.sleep,
) -> Diagnosis:
    """Find the sources of :func:`greentrain.energy.detect`, and the reasons for missing ones.

    Args:
        idle_s: Seconds to measure the idle machine; ``None`` to skip that.
        root: Root of the file system in which reasons are searched.
        wait: Sleeps for a number of seconds.
    """
    found = find()
    missing = [Missing(what=what, why=why, fix=fix) for what, why, fix in package_conflicts()]
    missing += _missing_cards(found.meters, found.missing, root)
    working: list[Meter] = []
    share = idle = None
    try:
        for meter in found.meters:
            sources = meter.sources  # before the reading: it waits for the set-up
            try:
                meter.read()
            except MeterError as error:
                missing.append(Missing(what="CPU and RAM", why=str(error)))
                continue
            working.append(meter)
            missing += _better_methods(sources, root)
        if idle_s is not None and working:
            composite = CompositeMeter(*working)
            composite.start()  # its members run already
            idle = idle_power(composite, idle_s, wait=wait)
        for meter in working:
            if isinstance(meter, CodeCarbonMeter):
                share = meter.cgroup_share
        all_sources = tuple(
            # The share of a job is a figure of a run, and not of a machine.
            dataclasses.replace(source, job_share=None)
            for meter in working
            for source in meter.sources
        )
    finally:
        for meter in found.meters:
            meter.close()
    if CpuShare(root or host_hardware.ROOT).shared:
        missing.append(
            Missing(
                what="this process's part of CPU and RAM",
                why="it runs in a cgroup, such as a container or a batch job, and the figures are "
                "those of the whole host with all other processes",
                fix="CodeCarbonMeter().cgroup_share estimates the part; compare runs on a host "
                "that is otherwise idle",
            )
        )
    missing.append(
        Missing(
            what="disks, board, fans and the losses of the power supply",
            why="no software meter measures them",
            fix="give a wall, PDU or BMC reading: EnergyMonitor(wall=WallMeter(...)), with "
            "WallMeter from greentrain.energy",
        )
    )
    return Diagnosis(sources=all_sources, missing=tuple(missing), cgroup_share=share, idle=idle)


def _missing_cards(
    meters: list[Meter], reasons: dict[str, str], root: Path | None
) -> Iterator[Missing]:
    """Give the reasons why cards are not measured, or cannot train."""
    nvidia = any(isinstance(meter, NvmlMeter) for meter in meters)
    nvidia_cards = host_hardware.cards(host_hardware.NVIDIA, root)
    amd_cards = host_hardware.cards(host_hardware.AMD, root)
    if reason := reasons.get("NVIDIA"):
        fix = "" if nvidia_cards else "nothing, if this machine has no NVIDIA card"
        yield Missing(what="NVIDIA cards", why=reason, fix=fix)
    if reason := reasons.get("AMD"):
        yield Missing(what="AMD cards", why=reason)
    if nvidia and amd_cards:
        yield Missing(
            what="AMD cards",
            why="next to NVIDIA's they are assumed to be a part of the CPU or the display's card",
        )
    if reason := reasons.get("Apple"):
        yield Missing(what="the chip's GPU", why=reason)
    if nvidia or nvidia_cards:
        yield from _torch_without("CUDA", "cuda")
    elif amd_cards or any(isinstance(meter, AmdMeter) for meter in meters):
        yield from _torch_without("ROCm", "hip")


def _torch_without(platform: str, version: str) -> Iterator[Missing]:
    what = "training on the card"
    try:
        torch: Any = importlib.import_module("torch")
    except ImportError as error:
        yield Missing(what=what, why=f"torch cannot be imported: {error}")
        return
    if getattr(torch.version, version, None) is None:
        yield Missing(
            what=what,
            why=f"torch {torch.__version__} is built without {platform}, so training runs on the "
            "CPU",
            fix=f"install a build for {platform} from https://pytorch.org/get-started/locally",
        )


def _better_methods(sources: tuple[Source, ...], root: Path | None) -> Iterator[Missing]:
    """Give the ways to measure what is estimated now."""
    for source in sources:
        if source.method != "estimated":
            continue
        if source.name == "cpu" and sys.platform.startswith("linux"):
            yield _missing_rapl(root)
        elif source.name == "cpu":
            yield Missing(
                what="a counter of the CPU's energy",
                why="CodeCarbon finds none on this system, so its figure is load times rated power",
            )
        elif source.name == "ram":
            yield Missing(
                what="a measurement of the RAM",
                why="its power cannot be read, so CodeCarbon assumes a number of modules",
                fix="only a wall reading includes it, together with everything else",
            )


def _missing_rapl(root: Path | None) -> Missing:
    state: str = host_hardware.rapl(root)
    if state not in _RAPL:
        inside = [host_hardware.virtual_machine(root), host_hardware.container(root), True]
        state = ("virtual machine", "container", "none")[inside.index(True)]
    why, fix = _RAPL[state]
    return Missing(what="a counter of the CPU's energy (RAPL)", why=why, fix=fix)


def _without_share(source: Source) -> dict[str, Any]:
    values = dataclasses.asdict(source)
    del values["job_share"]
    return values
