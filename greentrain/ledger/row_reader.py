"""Read the rows of a ledger by kind, each with its type."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Literal, TypedDict, overload

from greentrain.ledger.rows import (
    BudgetRow,
    CalibrationRow,
    ClosingRow,
    DecisionRow,
    EventRow,
    HeartbeatRow,
    OutcomeRow,
    ReplayRow,
    ReservationRow,
    RunRow,
    SettlementRow,
    SourceRow,
    WindowRow,
)


class RowsByKind(TypedDict):
    """All rows of a ledger by kind, each kind in the order recorded."""

    run: list[RunRow]
    closing: list[ClosingRow]
    source: list[SourceRow]
    window: list[WindowRow]
    heartbeat: list[HeartbeatRow]
    replay: list[ReplayRow]
    calibration: list[CalibrationRow]
    budget: list[BudgetRow]
    reservation: list[ReservationRow]
    settlement: list[SettlementRow]
    decision: list[DecisionRow]
    outcome: list[OutcomeRow]
    event: list[EventRow]


class RowReader(ABC):
    """A reader of rows by kind: a ledger, or a snapshot of one."""

    __slots__ = ()

    @overload
    def rows(self, kind: Literal["run"], **equals: Any) -> list[RunRow]: ...
    @overload
    def rows(self, kind: Literal["closing"], **equals: Any) -> list[ClosingRow]: ...
    @overload
    def rows(self, kind: Literal["source"], **equals: Any) -> list[SourceRow]: ...
    @overload
    def rows(self, kind: Literal["window"], **equals: Any) -> list[WindowRow]: ...
    @overload
    def rows(self, kind: Literal["heartbeat"], **equals: Any) -> list[HeartbeatRow]: ...
    @overload
    def rows(self, kind: Literal["replay"], **equals: Any) -> list[ReplayRow]: ...
    @overload
    def rows(self, kind: Literal["calibration"], **equals: Any) -> list[CalibrationRow]: ...
    @overload
    def rows(self, kind: Literal["budget"], **equals: Any) -> list[BudgetRow]: ...
    @overload
    def rows(self, kind: Literal["reservation"], **equals: Any) -> list[ReservationRow]: ...
    @overload
    def rows(self, kind: Literal["settlement"], **equals: Any) -> list[SettlementRow]: ...
    @overload
    def rows(self, kind: Literal["decision"], **equals: Any) -> list[DecisionRow]: ...
    @overload
    def rows(self, kind: Literal["outcome"], **equals: Any) -> list[OutcomeRow]: ...
    @overload
    def rows(self, kind: Literal["event"], **equals: Any) -> list[EventRow]: ...
    @overload
    def rows(self, kind: str, **equals: Any) -> list[Any]: ...
    def rows(self, kind: str, **equals: Any) -> list[Any]:
        """Return the rows of one kind, in the order recorded.

        Args:
            kind: A kind of entry, such as ``"run"``, ``"window"`` or ``"decision"``.
            **equals: Values that columns must have, such as ``run_id=run.run_id``.
        """
        return self._rows(kind, equals)

    @abstractmethod
    def _rows(self, kind: str, equals: Mapping[str, Any]) -> list[dict[str, Any]]: ...
