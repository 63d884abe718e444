"""Keep the features of samples: in memory or in a file, by the content of their inputs."""

from __future__ import annotations

import functools
import hashlib
import json
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from torch import Tensor, nn

from greentrain.errors import ConfigurationError
from greentrain.texts import short_repr
from greentrain.units import is_whole

Key = tuple[int, int]
_KEY_BYTES = 16
_CHUNK = 2**16
"""Words of a sample that are hashed at once, which bounds the memory."""
_PREFIX = "greentrain-features"


def content_keys(inputs: Tensor) -> list[Key]:
    """Return a key of 128 bits for each sample: equal samples of equal shape and type have one key.

    Each key is two sums ``a_0 + sum(a_i * x_i) mod 2^64`` over the 32-bit words ``x`` of a sample
    with random odd numbers ``a``, a multilinear hash (Carter & Wegman 1979). It is computed on the
    device of the samples. Two samples that were not made to collide share a key with probability
    below ``2^-60``.

    Args:
        inputs: Samples of any type, ``(batch, ...)``.

    Returns:
        ``batch`` pairs of whole numbers.

    Example:
        >>> inputs = torch.tensor([[1.0, 2.0], [3.0, 4.0], [1.0, 2.0]])
        >>> first, second, third = content_keys(inputs)
        >>> first == third, first == second
        (True, False)
    """
    words = _words(inputs)
    form = repr((tuple(inputs.shape[1:]), inputs.dtype))
    drawn = _factors(words.shape[1], zlib.crc32(form.encode()), str(words.device))
    factors, sums = drawn[:, :-1], drawn[:, -1].repeat(len(words), 1)
    for start in range(0, words.shape[1], _CHUNK):
        part = words[:, start : start + _CHUNK].to(torch.int64)
        for column in range(2):
            sums[:, column] += (part * factors[column, start : start + _CHUNK]).sum(1)
    return [(first, second) for first, second in sums.tolist()]


def state_key(modules: Iterable[nn.Module], *more: str) -> str:
    """Return the SHA-256 of the parameters and buffers of modules, as 64 hexadecimal digits.

    Args:
        modules: The modules, in order.
        more: Further texts that the key depends on, such as a precision.

    Example:
        >>> layer = nn.Linear(2, 1)
        >>> state_key([layer]) == state_key([layer], "bf16-mixed")
        False
    """
    digest = hashlib.sha256(json.dumps(more).encode())
    for module in modules:
        for name, each in (*module.named_parameters(), *module.named_buffers()):
            own = each.detach().cpu().contiguous()
            digest.update(json.dumps([name, str(own.dtype), list(own.shape)]).encode())
            digest.update(own.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


class FeatureStore:
    """Features of samples by key, bounded in bytes.

    All have one shape and type, that of the first ones. Memory is reserved at once, but used only
    for features that are there. A folder holds the features of one trunk: those under another
    ``key`` are deleted, because nothing can use them.

    Args:
        max_bytes: Most bytes of all features and their keys.
        folder: Folder of a memory-mapped file; ``None`` for memory.
        key: Key of the trunk that computed the features, see :func:`state_key`. For a folder.

    Raises:
        ConfigurationError: If an argument cannot be used, or another process uses the folder.

    Example:
        >>> store = FeatureStore(1000)
        >>> store.add([(1, 1), (2, 2)], torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        2
        >>> store.positions([(2, 2), (5, 5)])
        [1, None]
        >>> store.rows([1])
        tensor([[3., 4.]])
    """

    def __init__(
        self, max_bytes: int, *, folder: str | Path | None = None, key: str = "features"
    ) -> None:
        if not is_whole(max_bytes, 1):
            raise ConfigurationError(f"max_bytes is {max_bytes!r}; it must be 1 or more")
        self.max_bytes = int(max_bytes)
        self._positions: dict[Key, int] = {}
        self._features: Tensor | None = None
        self._keys: Tensor | None = None
        self._base: Path | None = None
        self._lock: FileLock | None = None
        if folder is not None:
            self._open(Path(folder), key)

    def __len__(self) -> int:
        return len(self._positions)

    @property
    def nbytes(self) -> int:
        """Bytes of the features and keys that are there."""
        return 0 if self._features is None else len(self) * _row_bytes(self._features[:1])

    def fits(self, samples: float, features: Tensor) -> bool:
        """Return whether so many samples with such features, ``(batch, ...)``, fit."""
        return samples * _row_bytes(features[:1]) <= self.max_bytes

    def positions(self, keys: Sequence[Key]) -> list[int | None]:
        """Return the positions of the features of keys; ``None`` for one that is not there."""
        return [self._positions.get(key) for key in keys]

    def rows(self, positions: Sequence[int]) -> Tensor:
        """Return the features at positions, ``(positions, ...)``, on the CPU."""
        if self._features is None:
            raise IndexError("the store is empty")
        return self._features[torch.tensor(positions)]

    def add(self, keys: Sequence[Key], features: Tensor) -> int:
        """Add the features of keys, as long as there is room.

        Args:
            keys: One key for each sample; one that is there already is left as it is.
            features: ``(batch, ...)``, on any device.

        Returns:
            Number of keys that were added.
        """
        # Tensors made in `inference_mode` cannot be used in a backward pass later.
        with torch.inference_mode(False), torch.no_grad():
            if self._features is None:
                self._reserve(tuple(features.shape[1:]), features.dtype)
            store, index = self._features, self._keys
            if store is None or index is None:
                return 0
            if features.shape[1:] != store.shape[1:] or features.dtype != store.dtype:
                return 0
            new: dict[Key, int] = {}
            for at, key in enumerate(keys):
                if key not in self._positions and len(self) + len(new) < len(store):
                    new.setdefault(key, at)
            if not new:
                return 0
            start, end = len(self), len(self) + len(new)
            taken = features.detach()[list(new.values())]
            store[start:end] = taken.to(store.device)
            index[start:end] = torch.tensor(list(new))
            self._positions.update(zip(new, range(start, end), strict=True))
            return len(new)

    def close(self) -> None:
        """Write the index of a file, and release the folder."""
        if self._base is not None and self._features is not None:
            head = {
                "samples": len(self),
                "shape": list(self._features.shape[1:]),
                "dtype": str(self._features.dtype).removeprefix("torch."),
            }
            self._file("json").write_text(json.dumps(head), encoding="utf-8")
        self._features = self._keys = None
        self._positions = {}
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _reserve(self, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        """Reserve the memory or file; a store that is too small for one sample stays empty."""
        one = torch.empty((1, *shape), dtype=dtype)
        capacity = self.max_bytes // _row_bytes(one)
        if not capacity:
            return
        self._features = self._array("rows", (capacity, *shape), dtype)
        self._keys = self._array("keys", (capacity, 2), torch.int64)

    def _array(self, kind: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        if self._base is None:
            return torch.empty(shape, dtype=dtype)
        size = int(torch.Size(shape).numel())
        file = str(self._file(kind))
        return torch.from_file(file, shared=True, size=size, dtype=dtype).reshape(shape)

    def _open(self, folder: Path, key: str) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(str(folder / f"{_PREFIX}.lock"))
            self._lock.acquire(timeout=0)
        except Timeout:
            raise ConfigurationError(
                f"another process uses the features in {short_repr(str(folder))}; give each "
                "training its own folder"
            ) from None
        except OSError as error:
            raise ConfigurationError(
                f"the folder {short_repr(str(folder))} cannot be used for features: "
                f"{error.strerror or error}; give another folder"
            ) from None
        self._base = folder / f"{_PREFIX}-{key}"
        kept = {self._file(kind) for kind in ("rows", "keys", "json")}
        for other in folder.glob(f"{_PREFIX}-*"):
            if other not in kept:
                other.unlink()
        self._load()

    def _load(self) -> None:
        """Load the features of an earlier training with the same trunk."""
        try:
            head: dict[str, Any] = json.loads(self._file("json").read_text(encoding="utf-8"))
        except (OSError, ValueError):  # it ended before its index was written
            return
        self._reserve(tuple(head["shape"]), getattr(torch, head["dtype"]))
        if self._keys is not None:
            known = self._keys[: head["samples"]].tolist()
            self._positions = {(a, b): at for at, (a, b) in enumerate(known)}

    def _file(self, kind: str) -> Path:
        return Path(f"{self._base}.{kind}")


@functools.lru_cache(maxsize=8)
def _factors(words: int, seed: int, device: str) -> Tensor:
    """Return two rows of random odd numbers of 64 bits, ``(2, words + 1)``; the last is added."""
    with torch.inference_mode(False):
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randint(-(2**63), 2**63 - 1, (2, words + 1), generator=generator)
        return (drawn | 1).to(device)


def _words(inputs: Tensor) -> Tensor:
    """Return samples as words of 32 bits, ``(batch, words)``."""
    flat = inputs.detach().contiguous().reshape(len(inputs), -1)
    octets = flat.view(torch.uint8).reshape(len(inputs), -1)
    return nn.functional.pad(octets, (0, -octets.shape[1] % 4)).view(torch.int32)


def _row_bytes(row: Tensor) -> int:
    return row[0].numel() * row.element_size() + _KEY_BYTES
