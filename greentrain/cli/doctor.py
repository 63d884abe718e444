"""``greentrain doctor``: what can be measured on this machine, how, and what would be better."""

from __future__ import annotations

import dataclasses
import importlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from greentrain.cli.rich_tables import open_console
from greentrain.energy import (
    CodeCarbonMeter,
    CompositeMeter,
    Meter,
    NvmlMeter,
    Reading,
    Source,
    _host,
    source_power_w,
)
from greentrain.energy._cgroup import CpuShare
from greentrain.energy.amd import AmdMeter
from greentrain.energy.detect import find
from greentrain.errors import ConfigurationError, MeterError

_RULE = 'SUBSYSTEM=="powercap", KERNEL=="intel-rapl*:*", RUN+="/bin/chmod a+r /sys%p/energy_uj"'


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """Something that is not measured, or not as well as it could be.

    Args:
        what: What it is.
        why: Why that is so.
        fix: What would help; empty where ``why`` says it or nothing would.
    """

    what: str
    why: str
    fix: str = ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """What can be measured here.

    Args:
        sources: What is measured, and how.
        missing: What is not, or could be better.
        cgroup_share: The share of the host's busy CPU time that this process's cgroup had while it
            was looked at; ``None`` in the root cgroup, or where that is not known.
        idle: What was drawn while nothing was done, if that was asked for.
    """

    sources: tuple[Source, ...]
    missing: tuple[Missing, ...]
    cgroup_share: float | None = None
    idle: Reading | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        idle = self.idle and {
            "duration_s": self.idle.duration_s,
            "power_w": self.idle.power_w,
            "source_power_w": source_power_w(self.idle),
        }
        return {
            "sources": [dataclasses.asdict(source) for source in self.sources],
            "missing": [dataclasses.asdict(missing) for missing in self.missing],
            "cgroup_share": self.cgroup_share,
            "idle": idle,
        }


def doctor(*, as_json: bool = False, idle_s: float | None = None) -> None:
    """Look at this machine and print what was found.

    Args:
        as_json: Whether to print JSON instead of tables.
        idle_s: For how long to measure what is drawn while nothing is done; ``None`` not to.
    """
    if idle_s is not None and not idle_s > 0:
        raise ConfigurationError(f"--idle is {idle_s:g}; it is a number of seconds, above 0")
    found = examine(idle_s=idle_s)
    if as_json:
        sys.stdout.write(json.dumps(found.as_dict(), indent=2, ensure_ascii=False) + "\n")
    else:
        show(found, open_console())


def examine(
    *,
    idle_s: float | None = None,
    root: Path | None = None,
    wait: Callable[[float], object] = time.sleep,
) -> Diagnosis:
    """Find out what :func:`greentrain.energy.detect` measures here, and why the rest is missing.

    Args:
        idle_s: For how long to measure what is drawn while nothing is done; ``None`` not to.
        root: Where the file system begins in which reasons are looked for.
        wait: Waits for so many seconds.
    """
    found = find()
    missing = list(_cards(found.meters, found.missing, root))
    working: list[Meter] = []
    share = idle = None
    try:
        for meter in found.meters:
            sources = meter.sources  # before the reading: it waits until everything is known
            try:
                meter.read()
            except MeterError as error:
                missing.append(Missing(what="CPU and RAM", why=str(error)))
                continue
            working.append(meter)
            missing += _better(sources, root)
        if idle_s is not None and working:
            idle = _idle(working, idle_s, wait)
        for meter in working:
            if isinstance(meter, CodeCarbonMeter):
                share = meter.cgroup_share
        all_sources = tuple(source for meter in working for source in meter.sources)
    finally:
        for meter in found.meters:
            meter.close()
    if CpuShare(root or _host.ROOT).shared:
        missing.append(
            Missing(
                what="this process's part of CPU and RAM",
                why="it runs in a cgroup, such as a container or a batch job, and the figures are "
                "those of the whole host with all others on it",
                fix="CodeCarbonMeter().cgroup_share estimates the part; compare runs on a host "
                "that is otherwise idle",
            )
        )
    missing.append(
        Missing(
            what="disks, board, fans and the losses of the power supply",
            why="no software meter sees them",
            fix="give a wall, PDU or BMC reading: EnergyMonitor(wall=WallMeter(...)), with "
            "WallMeter from greentrain.energy",
        )
    )
    return Diagnosis(sources=all_sources, missing=tuple(missing), cgroup_share=share, idle=idle)


def _idle(meters: list[Meter], idle_s: float, wait: Callable[[float], object]) -> Reading:
    from greentrain.energy import idle_power

    meter = CompositeMeter(*meters)
    meter.start()  # the members run already
    return idle_power(meter, idle_s, wait=wait)


def _cards(meters: list[Meter], reasons: dict[str, str], root: Path | None) -> Iterator[Missing]:
    """Tell why cards are not measured, or are but not trained on."""
    nvidia = any(isinstance(meter, NvmlMeter) for meter in meters)
    if reason := reasons.get("NVIDIA"):
        none_seen = not _host.cards(_host.NVIDIA, root)
        fix = "nothing, if this machine has no NVIDIA card" if none_seen else ""
        yield Missing(what="NVIDIA cards", why=reason, fix=fix)
    if reason := reasons.get("AMD"):
        yield Missing(what="AMD cards", why=reason)
    if nvidia and _host.cards(_host.AMD, root):
        yield Missing(
            what="AMD cards",
            why="beside NVIDIA's they are taken for a part of the CPU or for a screen's card",
        )
    if reason := reasons.get("Apple"):
        yield Missing(what="the chip's GPU", why=reason)
    if nvidia or _host.cards(_host.NVIDIA, root):
        yield from _torch("CUDA", "cuda")
    elif any(isinstance(meter, AmdMeter) for meter in meters) or _host.cards(_host.AMD, root):
        yield from _torch("ROCm", "hip")


def _torch(platform: str, version: str) -> Iterator[Missing]:
    try:
        torch: Any = importlib.import_module("torch")
    except ImportError as error:
        yield Missing(what="training on the card", why=f"torch cannot be imported: {error}")
        return
    if getattr(torch.version, version, None) is None:
        yield Missing(
            what="training on the card",
            why=f"torch {torch.__version__} is built without {platform}, so training runs on the "
            "CPU",
            fix=f"install a build for {platform}, as https://pytorch.org/get-started/locally has "
            "it",
        )


def _better(sources: tuple[Source, ...], root: Path | None) -> Iterator[Missing]:
    """Tell what would make estimates measurements."""
    for source in sources:
        if source.method != "estimated":
            continue
        if source.name == "cpu" and sys.platform.startswith("linux"):
            yield _rapl(root)
        elif source.name == "cpu":
            yield Missing(
                what="a counter of the CPU's energy",
                why="CodeCarbon finds none on this system, so load times rated power stands in",
            )
        elif source.name == "ram":
            yield Missing(
                what="a measurement of the RAM",
                why="no power of it can be read, so CodeCarbon supposes a number of modules",
                fix="only a wall reading has it, together with everything else",
            )


def _rapl(root: Path | None) -> Missing:
    what = "a counter of the CPU's energy (RAPL)"
    state = _host.rapl(root)
    if state == "forbidden":
        return Missing(
            what=what,
            why="the counters /sys/class/powercap/intel-rapl*/energy_uj are there, but only root "
            "may read them",
            fix="until the next boot: sudo chmod a+r /sys/class/powercap/intel-rapl*/energy_uj; "
            f"for good: write {_RULE} into /etc/udev/rules.d/70-rapl.rules and run sudo udevadm "
            "trigger --action=add --subsystem-match=powercap; in a container: on its host",
        )
    if state == "readable":
        return Missing(
            what=what,
            why="counters can be read under /sys/class/powercap, but none that CodeCarbon takes "
            "for a CPU's package",
        )
    if _host.virtual_machine(root):
        return Missing(
            what=what,
            why="this is a virtual machine, and its host does not pass the counters on",
            fix="nothing from inside",
        )
    if _host.container(root):
        return Missing(
            what=what,
            why="this is a container, and its host does not pass /sys/class/powercap on",
            fix="docker run --security-opt systempaths=unconfined shows it, if the host lets it",
        )
    return Missing(
        what=what,
        why="the kernel shows none under /sys/class/powercap",
        fix="sudo modprobe intel_rapl_msr, where the CPU has counters: Intel since 2011, AMD since "
        "Zen with Linux 5.8 or newer, no ARM",
    )


def show(found: Diagnosis, console: Console) -> None:
    """Print it as tables."""
    power_w = {} if found.idle is None else source_power_w(found.idle)
    table = Table(title="What can be measured here", show_lines=True)
    columns = ["source", "device", "method", "uncertainty", "how, and what to know"]
    for column in [*columns, "idle"] if power_w else columns:
        table.add_column(column)
    for source in found.sources:
        share = source.relative_uncertainty
        row = [
            source.name,
            source.device,
            source.method,
            "unknown" if share is None else f"± {share:.0%}",
            source.note,
        ]
        if power_w:
            idle_w = power_w.get(source.name)
            row.append("unknown" if idle_w is None else f"{idle_w:.3g} W")
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)
    if found.idle is not None:
        console.print(
            f"Idle is the mean of {found.idle.duration_s:.0f} s, other programs included."
        )
    lacking = Table(title="What is missing, or could be better", show_lines=True)
    for column in ("what", "why", "what helps"):
        lacking.add_column(column)
    for missing in found.missing:
        lacking.add_row(Text(missing.what), Text(missing.why), Text(missing.fix))
    console.print(lacking)
