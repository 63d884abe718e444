"""Base class of all callbacks, accepted by the Trainers of both Lightning packages."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Self

import torch
from pytorch_lightning import Callback as _Callback

from greentrain._about import MALICIOUS_ADVISORY, MALICIOUS_LIGHTNING
from greentrain.callbacks.handover import Origin
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

    class _LightningCallback(_Callback, _OtherCallback):
        pass
else:
    _LightningCallback = _Callback


class Callback(_LightningCallback):
    """A callback for ``pytorch_lightning`` and for ``lightning.pytorch``, which can be copied.

    A copy, also one made by pickling, is a new callback with the same arguments. It has no results,
    and a copy in the same process shares the meter. If Lightning trains in processes that it forks
    or spawns, the results come back to the callback in the process that started them.
    """

    origin: Origin
    _arguments: tuple[tuple[Any, ...], dict[str, Any]]
    _log: Any

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Keep the arguments for copies."""
        callback = super().__new__(cls)
        callback._arguments = (args, kwargs)
        callback.origin = Origin.of(callback)
        return callback

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # Building a callback opens and runs nothing. So `torch.load(weights_only=True)` may build
        # one, as in a checkpoint of a library that saves the arguments of its Trainer.
        known = hasattr(torch.serialization, "add_safe_globals")  # since torch 2.4
        if known and cls.__module__.startswith("greentrain."):
            torch.serialization.add_safe_globals([cls])

    def __getstate__(self) -> tuple[Any, ...]:
        return (*self._arguments, tuple(self.origin))

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        args, kwargs, origin = state
        self._arguments = (args, kwargs)
        self.__init__(*args, **kwargs)  # type: ignore[misc]
        if origin[0] != self.origin.pid:
            self.origin = Origin(*origin)

    def __copy__(self) -> Self:
        args, kwargs = self._arguments
        return type(self)(*args, **kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self.__copy__()

    @property
    def log(self) -> Any:
        """The ``log`` of the model, which Lightning attaches."""
        return self._log

    @log.setter
    def log(self, log: Any) -> None:
        self._log = log
        # Lightning attaches it just before it prepares the data, and calls no hook as early.
        trainer = getattr(getattr(log, "__self__", None), "_trainer", None)
        if trainer is not None and _has_data_to_prepare(trainer, log.__self__):
            self.on_prepare_data(trainer)

    def on_prepare_data(self, trainer: Any) -> None:
        """Start to measure the preparation of data; called before it, and before ``setup``."""

    def take_back(self, results: Mapping[str, Any]) -> None:
        """Take the results of a run in a process that Lightning started from this one."""
        vars(self).update(results)


class ReturnedResult:
    """An attribute of a callback that comes back from the processes of a run."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, callback: Callback | None, owner: type) -> Any:
        if callback is None:
            return self
        for results in callback.origin.collect():
            callback.take_back(results)
        return vars(callback)[self._name]

    def __set__(self, callback: Callback, value: Any) -> None:
        vars(callback)[self._name] = value


def _has_data_to_prepare(trainer: Any, module: Any) -> bool:
    own = getattr(type(module), "prepare_data", None)
    overridden = own is not None and not own.__module__.endswith(".core.hooks")
    return overridden or trainer.datamodule is not None
