"""Collect, restore and derive the states of the random generators of a process."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

_MOST_32_BITS = 2**32


def collect_states(device: torch.device | None = None) -> dict[str, Any]:
    """Return the states of Python's, NumPy's and torch's generators, and of one device.

    Args:
        device: The GPU of this process; ``None`` or a CPU for none.

    Returns:
        Numbers, lists and tensors only, so that a checkpoint with it loads with
        ``weights_only=True``.
    """
    version, numbers, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    states: dict[str, Any] = {
        "python": [version, torch.tensor(numbers, dtype=torch.int64), gauss],
        "numpy": [
            str(name),
            torch.from_numpy(np.asarray(keys, dtype=np.int64)),
            int(position),
            int(has_gauss),
            float(cached),
        ],
        "torch": torch.get_rng_state(),
    }
    if device is not None and device.type == "cuda":
        states["device"] = torch.cuda.get_rng_state(device)
    elif device is not None and device.type == "mps":
        states["device"] = torch.mps.get_rng_state()
    return states


def restore_states(states: Mapping[str, Any], device: torch.device | None = None) -> None:
    """Restore what :func:`collect_states` returned.

    Args:
        states: The states.
        device: As for :func:`collect_states`. The state of a device that had none is unchanged.
    """
    version, numbers, gauss = states["python"]
    random.setstate((version, tuple(numbers.tolist()), gauss))
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(states["torch"].cpu())
    if "device" in states and device is not None and device.type == "cuda":
        torch.cuda.set_rng_state(states["device"].cpu(), device)
    elif "device" in states and device is not None and device.type == "mps":
        torch.mps.set_rng_state(states["device"].cpu())


def derived_seed(*parts: int | str) -> int:
    """Return a seed of 63 bits that depends on all parts and on their order.

    Example:
        >>> derived_seed(1, 2) == derived_seed(1, 2), derived_seed(1, 2) == derived_seed(2, 1)
        (True, False)
    """
    text = " ".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1


def seed_generators(seed: int) -> None:
    """Seed Python's, NumPy's and torch's generators of the CPU."""
    random.seed(seed)
    np.random.seed(seed % _MOST_32_BITS)
    # `torch.manual_seed` would also seed the GPUs, whose states belong to training.
    torch.default_generator.manual_seed(seed)


@contextmanager
def kept_states() -> Iterator[None]:
    """Restore the generators of the CPU at the end of a block."""
    python, numpy, torchs = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(torchs)


def own_generator(value: object, *, most: int = 10_000) -> str | None:
    """Return the path of a random generator that an object holds, such as ``"transform.rng"``.

    A checkpoint has the state of the global generators, and not of one that is held elsewhere.

    Args:
        value: A dataset, or another object that uses random numbers.
        most: Objects to look at, at most.

    Returns:
        The first path found; ``None`` without one.

    Example:
        >>> class Noisy:
        ...     rng = None
        >>> noisy = Noisy()
        >>> own_generator(noisy) is None
        True
        >>> noisy.rng = np.random.default_rng(0)
        >>> own_generator(noisy)
        'rng'
    """
    kinds = (
        *(random.Random, torch.Generator, np.random.Generator),
        *(np.random.RandomState, np.random.BitGenerator),
    )
    queue: list[tuple[str, object]] = [("", value)]
    seen: set[int] = set()
    while queue and len(seen) < most:
        path, found = queue.pop(0)
        if isinstance(found, kinds):
            return path or type(found).__name__
        if id(found) in seen or isinstance(
            found, (torch.Tensor, np.ndarray, str, bytes, int, float, type, torch.nn.Module)
        ):
            continue
        seen.add(id(found))
        queue += [(f"{path}.{name}" if path else name, each) for name, each in _parts(found)]
    return None


def _parts(value: object) -> list[tuple[str, object]]:
    if isinstance(value, Mapping):
        return [(str(key), each) for key, each in list(value.items())[:100]]
    if isinstance(value, (list, tuple, set, frozenset)):
        return [(str(number), each) for number, each in enumerate(list(value)[:100])]
    try:
        held = dict(vars(value))
    except TypeError:  # without attributes
        return []
    return [*held.items()]
