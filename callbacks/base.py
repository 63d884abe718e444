"""Base class of all callbacks, accepted by the Trainers of both Lightning packages."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import TYPE_CHECKING

from pytorch_lightning import Callback as _Callback

from greentrain._about import MALICIOUS_ADVISORY, MALICIOUS_LIGHTNING
from greentrain.errors import ConfigurationError


def _is_installed(name: str) -> bool:
    """Return whether a Lightning package is installed, and refuse a malicious release of it.

    Raises:
        ConfigurationError: If the release is a malicious one. It was not imported.
    """
    try:
        found = version(name)
    except PackageNotFoundError:
        return False
    if found in MALICIOUS_LIGHTNING:
        raise ConfigurationError(
            f"{name} {found} is a malicious release ({MALICIOUS_ADVISORY}) and was not imported. "
            f"Remove it with 'pip uninstall {name}', install a later release, and replace the "
            "passwords and tokens of this machine"
        )
    return find_spec(name) is not None


# `lightning.pytorch.Callback` and `pytorch_lightning.Callback` are unrelated classes, and each
# Trainer accepts only its own class. Where both are installed, a callback has to be both.
if not TYPE_CHECKING and _is_installed("lightning"):
    from lightning.pytorch import Callback as _OtherCallback

    class Callback(_Callback, _OtherCallback):
        """A callback for ``pytorch_lightning`` and for ``lightning.pytorch``."""
else:
    Callback = _Callback
