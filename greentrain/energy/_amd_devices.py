"""List the AMD cards that this process trains on, numbered as its ROCm counts them."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any

from greentrain.energy._codecarbon_hardware import quiet
from greentrain.energy._metered_card import VisibleCard, first_readable
from greentrain.errors import ConfigurationError, MeterError

_MASKS = ("ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES")
_INSTALL = "install that of your ROCm with `pip install /opt/rocm/share/amd_smi`"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Die:
    """A die, which ROCm counts as a device.

    Args:
        serial: Its name in a mask, such as ``"GPU-CF1182F2988C0A4C"``.
        counted_by: CodeCarbon's object that has its figure: for this die or for another one.
    """

    serial: str
    counted_by: Any


def visible_cards(devices: Sequence[int | str] | None) -> tuple[VisibleCard, ...]:
    """List the cards that ROCm shows to this process.

    If a card has one figure for all its dies, as the MI250 has, they are listed once.

    Args:
        devices: Numbers of the wanted cards, as ROCm counts; ``None`` for all.

    Raises:
        MeterError: If there is none, with the reason.
        ConfigurationError: If a wanted card is not visible.
    """
    found, ordered = _list_dies()
    seen, note = _unmasked(found, os.environ)
    wanted = range(len(seen)) if devices is None else devices
    cards: dict[int, VisibleCard] = {}
    for number in wanted:
        if not isinstance(number, int) or not 0 <= number < len(seen):
            raise ConfigurationError(
                f"devices has {number!r}, which is none of the AMD cards that this process may "
                f"see; these are {', '.join(str(each) for each in range(len(seen)))}"
            )
        device = seen[number].counted_by
        shared = sum(die.counted_by is device for die in found) > 1
        # The numbering matters only if some cards are left out.
        doubtful = not ordered and len(wanted) < len(found)
        notes = (
            note,
            "shared: the figure is that of all dies of the card" if shared else "",
            "numbered in amdsmi's order, which ROCm may not follow" if doubtful else "",
        )
        details = device.get_static_details()
        card = VisibleCard(
            index=number,
            handle=device,
            device=str(details["name"]),
            uuid=str(details["uuid"]),
            note="; ".join(filter(None, notes)),
        )
        cards.setdefault(id(device), card)
    return tuple(cards.values())


def _list_dies() -> tuple[list[_Die], bool]:
    """Return the dies that amdsmi lists, and ``True`` if they are in ROCm's order."""
    if find_spec("amdsmi") is None:
        raise MeterError(f"the package amdsmi is not installed; {_INSTALL}")
    try:
        with quiet():
            gpu_amd: Any = importlib.import_module("codecarbon.core.gpu_amd")
    except ImportError as error:
        raise MeterError(
            "the installed CodeCarbon cannot read AMD cards by themselves; "
            "upgrade it with `pip install --upgrade codecarbon`"
        ) from error
    if not gpu_amd.AMDSMI_AVAILABLE:
        raise MeterError(
            f"the package amdsmi does not find the library it was made for; {_INSTALL}"
        )
    amdsmi = gpu_amd.amdsmi
    try:
        amdsmi.amdsmi_init()
        handles = amdsmi.amdsmi_get_processor_handles()
        by_number: dict[int, Any] = {}
        for handle in handles:
            number = _hip_number(amdsmi, handle)
            by_number |= {} if number is None else {number: handle}
        ordered = len(by_number) == len(handles)
        if ordered:
            handles = [by_number[number] for number in sorted(by_number)]
        devices = [
            gpu_amd.AMDGPUDevice(handle=handle, gpu_index=index)
            for index, handle in enumerate(handles)
        ]
        serials = [_serial(amdsmi, handle) for handle in handles]
    except Exception as error:  # amdsmi's exceptions have no common root
        what = " ".join(str(error).split())
        raise MeterError(
            f"the AMD cards cannot be listed ({what}); get read and write access to /dev/kfd "
            "and /dev/dri/renderD*, which the groups render and video have"
        ) from error
    if not devices:
        raise MeterError("amdsmi is installed but finds no AMD card; check `amd-smi list`")
    dies: list[_Die] = []
    for device, serial in zip(devices, serials, strict=True):
        # A die without figures has them in the first die of its card, which comes before it.
        readers = partial(energy_mj, device), partial(power_w, device)
        mute = first_readable(MeterError, *readers)[0] is None
        several = dies and device._known_zero_energy_counter  # a model whose cards have several
        counted_by = dies[-1].counted_by if mute and several else device
        dies.append(_Die(serial=serial, counted_by=counted_by))
    return dies, ordered


def energy_mj(device: Any) -> float:
    """Return a card's energy accumulator in mJ.

    Raises:
        MeterError: If the card has none or it cannot be read.
    """
    if energy := device._get_total_energy_consumption():
        return float(energy)
    raise MeterError("amdsmi reports no energy")


def power_w(device: Any) -> float:
    """Return a card's power in W.

    Raises:
        MeterError: If it cannot be read, which CodeCarbon may report as 0 W.
    """
    try:
        power = float(device._get_power_usage())
    except Exception:  # as above
        power = 0.0
    if power:
        return power
    raise MeterError("amdsmi reports no power")


def _hip_number(amdsmi: Any, handle: Any) -> int | None:
    """Return ROCm's number of a device, which newer versions of amdsmi have."""
    try:
        number = amdsmi.amdsmi_get_gpu_enumeration_info(handle)["hip_id"]
    except Exception:  # as above, or an amdsmi without it
        return None
    return number if isinstance(number, int) else None


def _serial(amdsmi: Any, handle: Any) -> str:
    try:
        serial = str(amdsmi.amdsmi_get_gpu_asic_info(handle)["asic_serial"])
    except Exception:  # as above
        return ""
    return f"GPU-{serial.removeprefix('0x').upper()}"


def _unmasked(found: list[_Die], environ: Mapping[str, str]) -> tuple[list[_Die], str]:
    """Apply the masks as ROCm does, or return all with a note if that is not possible."""
    rocr, hip, cuda = (environ.get(name) for name in _MASKS)
    seen = found
    for mask in (rocr, hip or cuda or None):  # HIP takes an empty mask for none
        picked = seen if mask is None else _picked(mask, seen)
        if picked is None:
            return found, f"all cards of the machine: the mask {mask!r} names one unknown to amdsmi"
        seen = picked
    if not seen:
        masks = ", ".join(f"{name}={environ[name]!r}" for name in _MASKS if name in environ)
        raise MeterError(
            f"no AMD card is visible to this process: {masks} shows none of the machine's "
            f"{len(found)}; unset it or name one by its number"
        )
    return seen, ""


def _picked(mask: str, dies: list[_Die]) -> list[_Die] | None:
    """Return the dies that a mask shows; its first invalid entry ends it."""
    picked: list[_Die] = []
    for entry in mask.split(","):
        name = entry.strip().upper()
        if name.startswith("GPU-"):
            named = [die for die in dies if die.serial == name]
            if not named:
                return None
            die = named[0]
        elif name.isdigit() and int(name) < len(dies):
            die = dies[int(name)]
        else:
            break
        if die not in picked:
            picked.append(die)
    return picked
