"""The durable, append-only, tamper-evident record."""

from greentrain.ledger.account import LedgerAccount
from greentrain.ledger.budgets import Terms, terms_of
from greentrain.ledger.decision_rows import Decided, alternatives_of, decisions_since
from greentrain.ledger.environment import environment
from greentrain.ledger.exported_heads import ExportedHeads
from greentrain.ledger.ledger import DEFAULT_URL, Ledger
from greentrain.ledger.multi import close_ledgers, open_ledgers
from greentrain.ledger.recovery import last_descriptions, with_recovered
from greentrain.ledger.release import Release
from greentrain.ledger.run import RunLog
from greentrain.ledger.schema import SCHEMA_VERSION, canonical
from greentrain.ledger.snapshot import Snapshot, take_snapshot
from greentrain.ledger.verify import Verification, verify, verify_snapshot

__all__ = [
    "DEFAULT_URL",
    "SCHEMA_VERSION",
    "Decided",
    "ExportedHeads",
    "Ledger",
    "LedgerAccount",
    "Release",
    "RunLog",
    "Snapshot",
    "Terms",
    "Verification",
    "alternatives_of",
    "canonical",
    "close_ledgers",
    "decisions_since",
    "environment",
    "last_descriptions",
    "open_ledgers",
    "take_snapshot",
    "terms_of",
    "verify",
    "verify_snapshot",
    "with_recovered",
]
