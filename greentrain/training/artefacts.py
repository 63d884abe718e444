"""Bind the outcome of an update to its weights, its data and its configuration, by their hashes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from pytorch_lightning import LightningModule

from greentrain.streams import Experience
from greentrain.texts import get_logger
from greentrain.training.data_digest import data_digest
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
        self._warned: set[str] = set()

    def weights(self, model: CurrentModel, *, changed: bool) -> dict[str, Any]:
        """Return the hash of the weights in use; ``None`` before the first update.

        Args:
            model: The current model.
            changed: Whether its weights may have changed since the last call.
        """
        if not model.trained:
            return {"weights_sha256": None}
        if changed or self._module is not model.module:
            self._module = model.module
            self._weights = self._try("weights", lambda: weights_sha256(model.module.state_dict()))
        return {"weights_sha256": self._weights}

    def data(self, experience: Experience) -> dict[str, Any]:
        """Return the hash of an experience's training data, with the numbers of samples."""
        found = self._try("data", lambda: data_digest(experience.train))
        return {
            "data_sha256": None if found is None else found.sha256,
            "data_samples": None if found is None else found.samples,
            "data_hashed": None if found is None else found.hashed,
        }

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
