"""Choose the runs of a report by where they ran: job of SLURM, pod, host, team and project."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any

from greentrain.errors import ConfigurationError
from greentrain.ledger import RunRow
from greentrain.ledger.environment import host_hash
from greentrain.ledger.placement import PLACES
from greentrain.report.row_helpers import parse

COLUMNS = ("slurm_job_id", "slurm_account", "team", "project")
"""Places that are columns of a run."""
KEYS = (*COLUMNS, *PLACES)
"""Places that runs are chosen by."""


def where_text(conditions: Iterable[str]) -> str | None:
    """Join conditions such as ``slurm_job_id=123`` to one text; ``None`` without any.

    Raises:
        ConfigurationError: If one is no ``KEY=VALUE``, or the key is not known.

    Example:
        >>> where_text(["slurm_account=vision", "hostname=node4"])
        'slurm_account=vision,hostname=node4'
    """
    return ",".join(f"{key}={value}" for key, value in conditions_of(",".join(conditions))) or None


def conditions_of(text: str) -> list[tuple[str, str]]:
    """Return the keys and patterns of a text such as ``slurm_job_id=123,hostname=node*``.

    Raises:
        ConfigurationError: If a part is no ``KEY=VALUE``, or a key is not known.
    """
    found: list[tuple[str, str]] = []
    for part in filter(None, (each.strip() for each in text.split(","))):
        key, equals, value = (each.strip() for each in part.partition("="))
        if not equals or not value or key not in KEYS:
            raise ConfigurationError(
                f"the condition {part!r} chooses no run; give KEY=VALUE with one of the keys "
                f"{', '.join(KEYS)}, as in slurm_job_id=123"
            )
        found.append((key, value))
    return found


def places_of(row: RunRow) -> dict[str, str]:
    """Return the known places of a run, by their keys."""
    columns: dict[str, Any] = dict(row)
    where = parse(row["environment"], {}).get("where")
    within = where if isinstance(where, dict) else {}
    found = {key: columns[key] for key in COLUMNS} | {key: within.get(key) for key in PLACES}
    return {key: str(value) for key, value in found.items() if value}


def at(row: RunRow, conditions: Sequence[tuple[str, str]]) -> bool:
    """Return whether a run meets all conditions.

    A run outside of a cluster has only a hash of its host's name. It is compared with that of the
    name.
    """
    places = places_of(row)
    return all(
        fnmatchcase(places.get(key, ""), value)
        or (key == "hostname" and row["host"] == host_hash(value))
        for key, value in conditions
    )


def check_found(
    rows: Sequence[RunRow], conditions: Sequence[tuple[str, str]], found: set[str]
) -> None:
    """Refuse conditions that no run meets, and name the last known values.

    Raises:
        ConfigurationError: If no run was found.
    """
    if found or not conditions:
        return
    wanted = " and ".join(f"{key}={value}" for key, value in conditions)
    known = {
        f"{key}={place}"[:100]: None
        for row in rows
        for key, place in places_of(row).items()
        if key in dict(conditions)
    }
    last = list(known)[-3:]
    raise ConfigurationError(
        f"no run has {wanted}; "
        + (f"the last ones have {', '.join(last)}" if last else "no run has a value of these keys")
    )
