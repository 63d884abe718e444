"""Which NVIDIA cards this process trains on, numbered as its CUDA counts them."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from greentrain.errors import ConfigurationError, MeterError

_ORDER_NOTE = (
    "numbered in PCI order, which CUDA may not follow: the cards differ and CUDA_DEVICE_ORDER is "
    "not PCI_BUS_ID"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """A card that this process may see.

    Args:
        index: Its number as this process's CUDA counts.
        handle: The NVML handle, of the whole card also where only a MIG instance of it is seen.
        uuid: UUID of the whole card.
        name: What its maker calls it.
        mig: Whether the card is divided by MIG.
        note: What is doubtful about the number, or an empty text.
    """

    index: int
    handle: Any
    uuid: str
    name: str
    mig: bool = False
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Instance:
    """One MIG instance of a card."""

    uuid: str
    gpu_instance: int
    compute_instance: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """A card of the node, as NVML lists it."""

    handle: Any
    uuid: str
    name: str
    mig: bool
    instances: tuple[_Instance, ...]


def visible_cards(nvml: ModuleType) -> tuple[Card, ...]:
    """List the cards that CUDA shows to this process, in CUDA's order.

    Where CUDA already runs under torch its own list is taken; elsewhere ``CUDA_VISIBLE_DEVICES`` is
    read as CUDA reads it. A card of which several MIG instances are visible is listed once: its
    joules cannot be told apart.

    Args:
        nvml: The bindings, initialised.

    Returns:
        The visible cards, at least one.

    Raises:
        MeterError: If there is none, with the reason.
    """
    found = _list_node(nvml)
    mask = os.environ.get("CUDA_VISIBLE_DEVICES")
    picked, ordered = _as_torch_counts(found), True
    if picked is None:
        picked = list(found) if mask is None else _as_masked(mask, found)
        by_index = mask is None or not mask.lstrip().startswith(("GPU-", "MIG-"))
        ordered = os.environ.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID" or not by_index
    if not picked:
        raise MeterError(
            f"no NVIDIA card is visible to this process: CUDA_VISIBLE_DEVICES={mask!r} shows none "
            f"of the node's {len(found)}; unset it or name one of {_listed(found)}"
        )
    alike = len({card.name for card in found}) == 1
    cards: dict[str, Card] = {}
    for index, card in enumerate(picked):
        cards.setdefault(
            card.uuid,
            Card(
                index=index,
                handle=card.handle,
                uuid=card.uuid,
                name=card.name,
                mig=card.mig,
                note="" if ordered or alike else _ORDER_NOTE,
            ),
        )
    return tuple(cards.values())


def select_cards(cards: Sequence[Card], devices: Sequence[int | str] | None) -> tuple[Card, ...]:
    """Keep the cards asked for.

    Args:
        cards: The visible cards.
        devices: Numbers as CUDA counts the visible cards, or UUIDs (or beginnings of them that fit
            one card only), with or without ``GPU-``; ``None`` for all.

    Returns:
        The cards, in the order asked for, each once.

    Raises:
        ConfigurationError: If one is not among the visible cards.
    """
    if devices is None:
        return tuple(cards)
    chosen: dict[str, Card] = {}
    for device in devices:
        if isinstance(device, int):
            fitting = [card for card in cards if card.index == device]
        else:
            prefix = device if device.startswith("GPU-") else f"GPU-{device}"
            fitting = [card for card in cards if card.uuid.startswith(prefix)]
        if len(fitting) != 1:
            visible = ", ".join(f"{card.index} ({card.uuid})" for card in cards)
            raise ConfigurationError(
                f"devices has {device!r}, which fits {len(fitting) or 'none'} of the cards that "
                f"this process may see; these are {visible}"
            )
        chosen.setdefault(fitting[0].uuid, fitting[0])
    return tuple(chosen.values())


def _list_node(nvml: ModuleType) -> tuple[_Found, ...]:
    found: list[_Found] = []
    refusal: Exception | None = None
    for index in range(nvml.nvmlDeviceGetCount()):
        # A card that may not be opened is one that CUDA does not count either.
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            mig = _mig_is_on(nvml, handle)
            found.append(
                _Found(
                    handle=handle,
                    uuid=nvml.nvmlDeviceGetUUID(handle),
                    name=nvml.nvmlDeviceGetName(handle),
                    mig=mig,
                    instances=tuple(_mig_instances(nvml, handle)) if mig else (),
                )
            )
        except nvml.NVMLError as error:
            refusal = error
    if not found and refusal is not None:
        raise MeterError(
            f"none of the node's NVIDIA cards can be opened ({refusal}); ask for read and write "
            "access to /dev/nvidia*, in a container or batch job by requesting a GPU"
        )
    if not found:
        raise MeterError("the NVIDIA driver is loaded but knows no card; check `lspci` and dmesg")
    return tuple(found)


def _mig_is_on(nvml: ModuleType, handle: Any) -> bool:
    try:
        return bool(nvml.nvmlDeviceGetMigMode(handle)[0])
    except nvml.NVMLError:
        return False  # a card or driver from before MIG


def _mig_instances(nvml: ModuleType, handle: Any) -> Iterable[_Instance]:
    for index in range(nvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
        try:
            instance = nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, index)
            yield _Instance(
                uuid=nvml.nvmlDeviceGetUUID(instance),
                gpu_instance=nvml.nvmlDeviceGetGpuInstanceId(instance),
                compute_instance=nvml.nvmlDeviceGetComputeInstanceId(instance),
            )
        except nvml.NVMLError:
            continue  # an empty slot, or an instance of someone else


def _as_torch_counts(found: Sequence[_Found]) -> list[_Found] | None:
    """Return the cards in the order of a CUDA that already runs; ``None`` where none does."""
    cuda = getattr(sys.modules.get("torch"), "cuda", None)
    try:
        if cuda is None or not cuda.is_initialized():
            return None
        uuids = [
            str(cuda.get_device_properties(index).uuid) for index in range(cuda.device_count())
        ]
    except Exception:  # an old torch without UUIDs, or a CUDA in trouble: the mask still tells
        return None
    owners = {card.uuid: card for card in found}
    owners |= {instance.uuid: card for card in found for instance in card.instances}
    picked = [
        owners.get(uuid) or owners.get(f"GPU-{uuid}") or owners.get(f"MIG-{uuid}") for uuid in uuids
    ]
    known = [card for card in picked if card is not None]
    return known if known and len(known) == len(picked) else None


def _as_masked(mask: str, found: Sequence[_Found]) -> list[_Found]:
    """Apply ``CUDA_VISIBLE_DEVICES``: the first invalid entry ends it, a repeated one empties it.

    CUDA Programming Guide, section "CUDA Environment Variables".
    """
    picked: dict[str, _Found] = {}
    for entry in mask.split(","):
        match = _resolve(entry.strip(), found)
        if match is None:
            break
        identity, card = match
        if identity in picked:
            return []
        picked[identity] = card
    return list(picked.values())


def _resolve(entry: str, found: Sequence[_Found]) -> tuple[str, _Found] | None:
    """Return what an entry names, as (UUID of card or MIG instance, its card)."""
    if number := re.match(r"\+?(\d+)", entry):  # as C's strtol reads it: "1x" is 1
        index = int(number[1])
        return (found[index].uuid, found[index]) if index < len(found) else None
    fitting: list[tuple[str, _Found]] = []
    if old_form := re.fullmatch(r"MIG-(GPU-[^/]+)/(\d+)/(\d+)", entry):
        wanted = int(old_form[2]), int(old_form[3])
        fitting = [
            (instance.uuid, card)
            for card in found
            for instance in card.instances
            if card.uuid.startswith(old_form[1])
            and (instance.gpu_instance, instance.compute_instance) == wanted
        ]
    elif entry.startswith("MIG-"):
        fitting = [
            (instance.uuid, card)
            for card in found
            for instance in card.instances
            if instance.uuid.startswith(entry)
        ]
    elif entry.startswith("GPU-"):
        fitting = [(card.uuid, card) for card in found if card.uuid.startswith(entry)]
    return fitting[0] if len(fitting) == 1 else None


def _listed(found: Sequence[_Found]) -> str:
    return ", ".join(f"{index} ({card.uuid})" for index, card in enumerate(found))
