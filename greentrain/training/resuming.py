"""Resume the saved state of a stream, and compare it with the outcomes in its ledger."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from greentrain.errors import ConfigurationError
from greentrain.ledger import Ledger, OutcomeRow
from greentrain.texts import get_logger
from greentrain.tracking import Tracker
from greentrain.training.stream_state import StreamState

_IDENTITY = ("experience_id", "position", "reservation_id")
_NAMED = 3
"""Experiences that a warning names; it counts the others."""

_log = get_logger(__name__)


def resume(
    saved: Mapping[str, Any], settings: Mapping[str, Any], state: StreamState, tracker: Tracker
) -> None:
    """Restore the saved state of a stream.

    Raises:
        ConfigurationError: If it was saved with other settings, or with another model.
    """
    for name, before in saved["settings"].items():
        if (now := settings[name]) != before:
            raise ConfigurationError(
                f"the state was saved with {name}={before!r}, and it is {now!r} now; give the same "
                "value, or another state_dir to start again"
            )
    state.load_state_dict(saved["stream"])
    if (run := saved.get("run")) is not None:
        tracker.load_state_dict(run["tracker"])


def lacks_outcome(ledger: Ledger, saved: Mapping[str, Any], stream: str) -> bool:
    """Return whether the run that saved a state was killed before it recorded the outcome.

    The outcome is in the run that saved the state, or in a later one that completed it. An earlier
    run may have an outcome of the same experience, if the stream went back to an earlier state.

    Args:
        ledger: The ledger.
        saved: The saved state.
        stream: Name of the stream.
    """
    same = {name: saved["outcome"][name] for name in _IDENTITY}
    runs = _runs_since(ledger, saved["run_id"], stream)
    return not any(row["run_id"] in runs for row in ledger.rows("outcome", **same))


def warn_of_repeats(
    ledger: Ledger, saved: Mapping[str, Any], stream: str, known: Collection[str]
) -> None:
    """Warn of experiences whose update is finished in the ledger, and that a state does not have.

    They are there after a stream went back to an earlier state, and if a state could not be saved.

    Args:
        ledger: The ledger.
        saved: The saved state.
        stream: Name of the stream.
        known: Ids of the experiences in the state.
    """
    runs = _runs_since(ledger, saved["run_id"], stream)
    found: dict[str, OutcomeRow] = {}
    for run_id in runs:
        rows = ledger.rows("outcome", run_id=run_id)
        found |= {row["experience_id"]: row for row in rows if row["experience_id"] not in known}
    if found:
        names = ", ".join(list(found)[:_NAMED])
        more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
        _log.warning(
            "the ledger %s has finished updates on experiences that the saved state does not have: "
            "%s%s. The stream updates on them again if they arrive, and their joules stay spent",
            *(ledger.name, names, more),
        )


def _runs_since(ledger: Ledger, run_id: str, stream: str) -> list[str]:
    """Return the runs of a stream from one on; all of them if the ledger does not have this one."""
    runs = [row["run_id"] for row in ledger.rows("run", name=stream)]
    return runs[runs.index(run_id) :] if run_id in runs else runs
