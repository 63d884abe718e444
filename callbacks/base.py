"""Base class of all callbacks, accepted by the Trainers of both Lightning packages."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from pytorch_lightning import Callback as _Callback

# `lightning.pytorch.Callback` and `pytorch_lightning.Callback` are unrelated classes, and each
# Trainer accepts only its own class. Where both are installed, a callback has to be both.
if not TYPE_CHECKING and find_spec("lightning") is not None:
    from lightning.pytorch import Callback as _OtherCallback

    class Callback(_Callback, _OtherCallback):
        """A callback for ``pytorch_lightning`` and for ``lightning.pytorch``."""
else:
    Callback = _Callback
