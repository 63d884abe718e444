"""The durable, append-only, tamper-evident record."""

from greentrain.ledger.account import LedgerAccount
from greentrain.ledger.environment import environment
from greentrain.ledger.ledger import DEFAULT_URL, Ledger
from greentrain.ledger.run import RunLog
from greentrain.ledger.schema import SCHEMA_VERSION, canonical
from greentrain.ledger.verify import Verification, verify

__all__ = [
    "DEFAULT_URL",
    "SCHEMA_VERSION",
    "Ledger",
    "LedgerAccount",
    "RunLog",
    "Verification",
    "canonical",
    "environment",
    "verify",
]
