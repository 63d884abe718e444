"""Find the module that a user names in a model."""

from __future__ import annotations

import difflib

from torch import nn

from greentrain.errors import ConfigurationError
from greentrain.texts import short_repr


def find_module(model: nn.Module, name: str) -> nn.Module:
    """Return a module by its name, as in ``model.named_modules()``.

    Raises:
        ConfigurationError: If there is none, with the nearest names.

    Example:
        >>> find_module(nn.Sequential(nn.ReLU()), "0")
        ReLU()
    """
    known: dict[str, nn.Module] = dict(model.named_modules())
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, [each for each in known if each], n=3, cutoff=0.3)
    shown = ", ".join(near or [each for each, _ in model.named_children()][:3])
    raise ConfigurationError(
        f"{type(model).__name__} has no module {short_repr(name)} at the start of the fit; the "
        f"nearest names are: {shown or 'none'}"
    )
