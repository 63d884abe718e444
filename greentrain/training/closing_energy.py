"""What an update draws after its last step: the end of the fit, validation and comparison."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_REMEMBERED = 3


class ClosingEnergy:
    """Bound what follows the last step of an update by what followed it in the last ones.

    Example:
        >>> closing = ClosingEnergy()
        >>> closing.bound_j(2.0, unknown_j=1.0)
        3.0
        >>> closing.drew(2.5, validation_j=2.0), closing.drew(5.0, validation_j=4.0)
        (None, None)
        >>> closing.bound_j(6.0, unknown_j=1.0)  # the dearest, besides its validation, drew 1 J
        7.0
    """

    def __init__(self) -> None:
        self._beside_j: list[float] = []

    def bound_j(self, validation_j: float, *, unknown_j: float) -> float:
        """Return joules to keep for it.

        Args:
            validation_j: What its validation is expected to draw.
            unknown_j: What to keep for the rest while none was measured.
        """
        return validation_j + max(self._beside_j, default=unknown_j)

    def drew(self, energy_j: float, *, validation_j: float) -> None:
        """Take up what was drawn after the steps of an update, the validation among it."""
        beside_j = max(0.0, energy_j - validation_j)
        self._beside_j = [*self._beside_j, beside_j][-_REMEMBERED:]

    def state_dict(self) -> dict[str, Any]:
        """Return what was drawn last."""
        return {"beside_j": list(self._beside_j)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state_dict` returned."""
        self._beside_j = list(state["beside_j"])
