"""Record measurements, decisions and payments durably, append-only and tamper-evident."""

from greentrain.ledger.account import LedgerAccount, ReservedPart
from greentrain.ledger.budgets import Terms, terms_of, totals_of
from greentrain.ledger.decision_rows import DecisionSummary
from greentrain.ledger.environment import environment
from greentrain.ledger.hashing import canonical
from greentrain.ledger.heads import ExportedHeads
from greentrain.ledger.ledger import DEFAULT_URL, Ledger
from greentrain.ledger.multi import (
    LOG_FOLDER,
    close_ledgers,
    default_ledgers,
    newest_ledger,
    open_ledgers,
)
from greentrain.ledger.recovery import last_descriptions, with_recovered
from greentrain.ledger.release import Release
from greentrain.ledger.row_reader import RowReader, RowsByKind
from greentrain.ledger.row_stream import LedgerRows
from greentrain.ledger.rows import (
    BudgetRow,
    CalibrationRow,
    ClosingRow,
    DecisionRow,
    EventRow,
    Head,
    Heads,
    HeartbeatRow,
    OutcomeRow,
    RecoveredWindowRow,
    ReplayRow,
    ReservationRow,
    RunRow,
    SettlementRow,
    SourceRow,
    WindowRow,
)
from greentrain.ledger.run import RunLog
from greentrain.ledger.schema import SCHEMA_VERSION
from greentrain.ledger.snapshot import Snapshot
from greentrain.ledger.sqlite import file_url
from greentrain.ledger.store import LedgerStore
from greentrain.ledger.verify import Verification, verify, verify_snapshot
from greentrain.ledger.verify_process import LedgerAtMoment, verified_meanwhile

__all__ = [
    "DEFAULT_URL",
    "LOG_FOLDER",
    "SCHEMA_VERSION",
    "BudgetRow",
    "CalibrationRow",
    "ClosingRow",
    "DecisionRow",
    "DecisionSummary",
    "EventRow",
    "ExportedHeads",
    "Head",
    "Heads",
    "HeartbeatRow",
    "Ledger",
    "LedgerAccount",
    "LedgerAtMoment",
    "LedgerRows",
    "LedgerStore",
    "OutcomeRow",
    "RecoveredWindowRow",
    "Release",
    "ReplayRow",
    "ReservationRow",
    "ReservedPart",
    "RowReader",
    "RowsByKind",
    "RunLog",
    "RunRow",
    "SettlementRow",
    "Snapshot",
    "SourceRow",
    "Terms",
    "Verification",
    "WindowRow",
    "canonical",
    "close_ledgers",
    "default_ledgers",
    "environment",
    "file_url",
    "last_descriptions",
    "newest_ledger",
    "open_ledgers",
    "terms_of",
    "totals_of",
    "verified_meanwhile",
    "verify",
    "verify_snapshot",
    "with_recovered",
]
