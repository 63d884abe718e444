"""Bind the outcome of an update to its weights, its data and its configuration, by their hashes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from pytorch_lightning import LightningModule

from greentrain.streams import Experience
from greentrain.texts import get_logger
from greentrain.training.data_digest import DataDigest, data_digest
from greentrain.training.stream_state import CurrentModel
from greentrain.training.weights_digest import weights_sha256

_log = get_logger(__name__)
_Found = TypeVar("_Found")


class Artefacts:
    """The hashes of a stream's outcomes, in the columns of their rows.

    What cannot be hashed is unknown, with one warning: it never ends training.
    """

    def __init__(self) -> None:
        self._module: LightningModule | None = None
        self._weights: str | None = None
        self._new: LightningModule | None = None
        self._ahead: tuple[Experience, DataDigest | None] | None = None
        self._warned: set[str] = set()

    def hash_update(self, experience: Experience, module: LightningModule | None) -> None:
        """Hash what an update produced while its energy is still paid by the update.

        The next calls of :meth:`data` and :meth:`weights` return these hashes.

        Args:
            experience: The experience.
            module: The new model; ``None`` if it is not kept.
        """
        self._ahead = experience, self._digest(experience)
        self.hash_model(module)

    def hash_model(self, module: LightningModule | None) -> None:
        """Hash a new model ahead, as :meth:`hash_update` does."""
        self._new = module
        if module is not None:
            self._hash(module)

    def weights(self, model: CurrentModel, *, changed: bool) -> dict[str, Any]:
        """Return the hash of the weights in use; ``None`` before the first update.

        Args:
            model: The current model.
            changed: Whether its weights may have changed since the last call.
        """
        if not model.trained:
            return {"weights_sha256": None}
        new, self._new = self._new, None
        hashed = new is model.module or (not changed and self._module is model.module)
        if not hashed:
            self._hash(model.module)
        return {"weights_sha256": self._weights}

    def data(self, experience: Experience) -> dict[str, Any]:
        """Return the hash of an experience's training data, with the numbers of samples."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead[0] is experience:
            found = ahead[1]
        else:
            found = self._digest(experience)
        return {
            "data_sha256": None if found is None else found.sha256,
            "data_samples": None if found is None else found.samples,
            "data_hashed": None if found is None else found.hashed,
        }

    def _digest(self, experience: Experience) -> DataDigest | None:
        return self._try("data", lambda: data_digest(experience.train))

    def _hash(self, module: LightningModule) -> None:
        self._module = module
        self._weights = self._try("weights", lambda: weights_sha256(module.state_dict()))

    def _try(self, what: str, compute: Callable[[], _Found]) -> _Found | None:
        try:
            return compute()
        except Exception as error:  # the user's module and datasets may raise anything
            if what not in self._warned:
                self._warned.add(what)
                _log.warning(
                    "the ledger records no hash of the %s, so no file of them can be tied to their "
                    "energy: %s",
                    *(what, error),
                )
            return None
