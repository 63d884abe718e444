"""Hash the weights of a model, so that figures can be tied to the file of a model.

The hash is of the tensors and not of a file. So the same weights have one hash in every kind of
file, on every device.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from greentrain.errors import ConfigurationError
from greentrain.texts import short_repr

_SHARED_BYTES = 2**28
"""Bytes by which a tensor may exceed its file: small ones may repeat one value."""
_FIRST = b"greentrain weights 1\n"
"""First bytes that are hashed: the version of the rule."""


def weights_sha256(weights: Mapping[str, Any]) -> str:
    """Return the SHA-256 of the tensors of a model, as 64 hexadecimal digits.

    Hashed are, sorted by name, a line of JSON with name, data type and shape, then the values in
    row-major order. Bytes are those of the host, so hosts of both byte orders do not agree.

    Args:
        weights: The ``state_dict`` of a module, on any device and with any strides.

    Raises:
        ConfigurationError: If a value is no dense tensor, such as one of ``get_extra_state``.

    Example:
        >>> weights_sha256({"b": torch.zeros(2)}) == weights_sha256({"b": torch.zeros(1, 2)})
        False
    """
    digest = hashlib.sha256(_FIRST)
    for name in sorted(weights):
        each = weights[name]
        if not _is_dense(each) or each.is_quantized:
            kind = type(each).__name__
            if isinstance(each, Tensor):
                kind = f"a tensor of {each.dtype} and {each.layout}"
            raise ConfigurationError(
                f"the weights cannot be hashed: {short_repr(name)} is {kind}, and only dense "
                "tensors have a fixed order of bytes; leave it out of the state_dict"
            )
        if each.is_meta:
            raise ConfigurationError(
                f"the weights cannot be hashed: {short_repr(name)} is on the meta device and has "
                "no values; load the model first"
            )
        head = [name, str(each.dtype).removeprefix("torch."), list(each.shape)]
        digest.update(json.dumps(head).encode() + b"\n")
        own = each.detach().cpu().resolve_conj().resolve_neg().contiguous()
        digest.update(own.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the weights in a file: of greentrain, of Lightning, or a bare ``state_dict``.

    Nothing in the file is executed.

    Args:
        path: ``state.pt`` of a stream, a checkpoint of Lightning, a saved ``state_dict``, or a file
            of safetensors, whose name ends with ``.safetensors``.

    Raises:
        ConfigurationError: If the file cannot be read safely, or holds no weights. Also if the
            package safetensors is needed and not installed.
    """
    shown = short_repr(path.name)
    if path.suffix.lower() == ".safetensors":
        return _read_safetensors(path, shown)
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of torch, on files that are refused below
                content = torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ConfigurationError(
            f"cannot read the weights in {shown}: {error.strerror or error}"
        ) from None
    except Exception:  # torch raises errors of many kinds on other files
        raise ConfigurationError(
            f"cannot read the weights in {shown}: it is no file of torch, or holds more than "
            "values and tensors; save the state_dict of the model alone, with torch.save"
        ) from None
    found = _weights_in(content)
    if not found or not all(isinstance(name, str) for name in found):
        raise ConfigurationError(
            f"no weights are in {shown}: it is neither a state of greentrain, nor a checkpoint of "
            "Lightning, nor a state_dict; save the state_dict of the model with torch.save"
        )
    largest = max(
        (each.numel() * each.element_size() for each in found.values() if _is_dense(each)),
        default=0,
    )
    if largest > size + _SHARED_BYTES:
        raise ConfigurationError(
            f"the weights in {shown} would fill {largest} bytes and the file has {size}: a tensor "
            "repeats its values; save the state_dict with clones of its tensors"
        )
    return dict(found)


def _is_dense(each: Any) -> bool:
    return isinstance(each, Tensor) and each.layout == torch.strided


def _read_safetensors(path: Path, shown: str) -> dict[str, Tensor]:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError:
        raise ConfigurationError(
            f"reading {shown} needs the package safetensors; install it: pip install safetensors"
        ) from None
    try:
        found: dict[str, Tensor] = load_file(path)
    except OSError as error:
        raise ConfigurationError(
            f"cannot read the weights in {shown}: {error.strerror or error}"
        ) from None
    except SafetensorError as error:
        raise ConfigurationError(
            f"cannot read the weights in {shown}: it is no file of safetensors, or it is cut "
            f"short: {error}"
        ) from None
    if not found:
        raise ConfigurationError(f"no weights are in {shown}: the file holds no tensor")
    return found


def _weights_in(content: Any) -> Mapping[str, Any] | None:
    """Return the part of a file's content that holds the weights; ``None`` if there is none."""
    if not isinstance(content, Mapping):
        return None
    stream = content.get("stream")
    if "format" in content and isinstance(stream, Mapping):  # of greentrain
        model = stream.get("model")
        found = model.get("model") if isinstance(model, Mapping) else None
        return found if isinstance(found, Mapping) else None
    nested = content.get("state_dict")
    if isinstance(nested, Mapping):  # of Lightning
        return nested
    return content if any(isinstance(each, Tensor) for each in content.values()) else None
