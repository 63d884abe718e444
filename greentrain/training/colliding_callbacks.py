"""Find callbacks that cannot run in one Trainer."""

from __future__ import annotations

from pytorch_lightning import Callback


def collide(one: object, other: object) -> bool:
    """Return whether two callbacks cannot run in one Trainer.

    They are the same object, or Lightning would save their states under one ``state_key``.
    """
    if not (isinstance(one, Callback) and isinstance(other, Callback)):
        return False
    if one is other:
        return True
    stateful = all(type(each).state_dict is not Callback.state_dict for each in (one, other))
    return stateful and one.state_key == other.state_key
