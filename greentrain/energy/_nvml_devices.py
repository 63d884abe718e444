"""List the NVIDIA cards that this process trains on, numbered as its CUDA counts them."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from greentrain.energy._metered_card import VisibleCard
from greentrain.errors import ConfigurationError, MeterError

_ORDER_NOTE = (
    "numbered in PCI order, which CUDA may not follow: the cards differ and CUDA_DEVICE_ORDER is "
    "not PCI_BUS_ID"
)
_MIG_NOTE = "shared: MIG divides the card and the figure is the whole card's"


@dataclass(frozen=True, slots=True, kw_only=True)
class _NodeCard:
    """A card of the node, as NVML lists it.

    Args:
        handle: The NVML handle.
        uuid: UUID of the whole card.
        name: Model of the card.
        mig: ``True`` if the card is divided by MIG.
        instances: GPU and compute instance of each MIG instance, by UUID.
    """

    handle: Any
    uuid: str
    name: str
    mig: bool
    instances: Mapping[str, tuple[int, int]]


def visible_cards(nvml: ModuleType) -> tuple[VisibleCard, ...]:
    """List the cards that CUDA shows to this process, in CUDA's order.

    If CUDA already runs under torch its own list is used; else ``CUDA_VISIBLE_DEVICES`` is read as
    CUDA reads it. A card with several visible MIG instances is listed once, because their joules
    cannot be separated.

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
        listed = ", ".join(f"{index} ({card.uuid})" for index, card in enumerate(found))
        raise MeterError(
            f"no NVIDIA card is visible to this process: CUDA_VISIBLE_DEVICES={mask!r} shows none "
            f"of the node's {len(found)}; unset it or name one of {listed}"
        )
    alike = len({card.name for card in found}) == 1
    cards: dict[str, VisibleCard] = {}
    for index, card in enumerate(picked):
        notes = ("" if ordered or alike else _ORDER_NOTE, _MIG_NOTE if card.mig else "")
        visible = VisibleCard(
            index=index,
            handle=card.handle,
            device=f"{card.name} ({card.uuid})",
            uuid=card.uuid,
            note="; ".join(filter(None, notes)),
        )
        cards.setdefault(card.uuid, visible)
    return tuple(cards.values())


def select_cards(
    cards: Sequence[VisibleCard], devices: Sequence[int | str] | None
) -> tuple[VisibleCard, ...]:
    """Select the requested cards.

    Args:
        cards: The visible cards.
        devices: Numbers as CUDA counts the visible cards, or UUIDs (or beginnings that fit one
            card only), with or without ``GPU-``; ``None`` for all.

    Returns:
        The cards, in the requested order, each once.

    Raises:
        ConfigurationError: If a device is not among the visible cards.
    """
    if devices is None:
        return tuple(cards)
    chosen: dict[str, VisibleCard] = {}
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


def _list_node(nvml: ModuleType) -> tuple[_NodeCard, ...]:
    found: list[_NodeCard] = []
    refusal: Exception | None = None
    for index in range(nvml.nvmlDeviceGetCount()):
        # CUDA does not count a card that may not be opened.
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            mig = _mig_is_on(nvml, handle)
            found.append(
                _NodeCard(
                    handle=handle,
                    uuid=nvml.nvmlDeviceGetUUID(handle),
                    name=nvml.nvmlDeviceGetName(handle),
                    mig=mig,
                    instances=dict(_mig_instances(nvml, handle)) if mig else {},
                )
            )
        except nvml.NVMLError as error:
            refusal = error
    if not found and refusal is not None:
        raise MeterError(
            f"none of the node's NVIDIA cards can be opened ({refusal}); get read and write "
            "access to /dev/nvidia*, in a container or batch job by requesting a GPU"
        )
    if not found:
        raise MeterError("the NVIDIA driver is loaded but finds no card; check `lspci` and dmesg")
    return tuple(found)


def _mig_is_on(nvml: ModuleType, handle: Any) -> bool:
    try:
        return bool(nvml.nvmlDeviceGetMigMode(handle)[0])
    except nvml.NVMLError:
        return False  # a card or driver from before MIG


def _mig_instances(nvml: ModuleType, handle: Any) -> Iterable[tuple[str, tuple[int, int]]]:
    for index in range(nvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
        try:
            instance = nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, index)
            numbers = (
                nvml.nvmlDeviceGetGpuInstanceId(instance),
                nvml.nvmlDeviceGetComputeInstanceId(instance),
            )
            yield nvml.nvmlDeviceGetUUID(instance), numbers
        except nvml.NVMLError:
            continue  # an empty slot, or an instance of someone else


def _by_uuid(found: Sequence[_NodeCard]) -> dict[str, _NodeCard]:
    """Return the card of each UUID of a card or of a MIG instance."""
    return {uuid: card for card in found for uuid in (card.uuid, *card.instances)}


def _as_torch_counts(found: Sequence[_NodeCard]) -> list[_NodeCard] | None:
    """Return the cards in the order of a CUDA that already runs; ``None`` if none does."""
    cuda = getattr(sys.modules.get("torch"), "cuda", None)
    try:
        if cuda is None or not cuda.is_initialized():
            return None
        uuids = [
            str(cuda.get_device_properties(index).uuid) for index in range(cuda.device_count())
        ]
    except Exception:  # an old torch without UUIDs, or a CUDA in trouble: the mask still applies
        return None
    owners = _by_uuid(found)
    picked = [
        owners.get(uuid) or owners.get(f"GPU-{uuid}") or owners.get(f"MIG-{uuid}") for uuid in uuids
    ]
    known = [card for card in picked if card is not None]
    return known if known and len(known) == len(picked) else None


def _as_masked(mask: str, found: Sequence[_NodeCard]) -> list[_NodeCard]:
    """Apply ``CUDA_VISIBLE_DEVICES``: the first invalid entry ends it, a repeated one empties it.

    The first entry decides whether all are numbers, UUIDs of cards or UUIDs of MIG instances; an
    entry of another kind is invalid. See the CUDA Programming Guide, section "CUDA Environment
    Variables", and ``torch.cuda._parse_visible_devices``.
    """
    picked: dict[str, _NodeCard] = {}
    kind = _prefix(mask)
    for entry in mask.split(","):
        match = _resolve(entry, found) if _prefix(entry) == kind else None
        if match is None:
            break
        identity, card = match
        if identity in picked:
            return []
        picked[identity] = card
    return list(picked.values())


def _prefix(entry: str) -> str:
    """Return the kind of an entry: ``"GPU-"``, ``"MIG-"``, or ``""`` for a number."""
    return entry[:4] if entry.startswith(("GPU-", "MIG-")) else ""


def _resolve(entry: str, found: Sequence[_NodeCard]) -> tuple[str, _NodeCard] | None:
    """Return the UUID of the card or MIG instance that an entry names, and its card."""
    if number := re.match(r"\s*\+?(\d+)", entry):  # as C's strtol reads it: "1x" is 1
        index = int(number[1])
        return (found[index].uuid, found[index]) if index < len(found) else None
    fitting: list[tuple[str, _NodeCard]] = []
    if old_form := re.fullmatch(r"MIG-(GPU-[^/]+)/(\d+)/(\d+)", entry):
        wanted = int(old_form[2]), int(old_form[3])
        fitting = [
            (uuid, card)
            for card in found
            for uuid, numbers in card.instances.items()
            if card.uuid.startswith(old_form[1]) and numbers == wanted
        ]
    elif entry.startswith(("GPU-", "MIG-")):
        fitting = [pair for pair in _by_uuid(found).items() if pair[0].startswith(entry)]
    return fitting[0] if len(fitting) == 1 else None
