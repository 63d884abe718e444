"""Compare an overview with an earlier one, or with a report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from greentrain.errors import ConfigurationError
from greentrain.report.groups import GroupFigures
from greentrain.report.row_helpers import number, total

if TYPE_CHECKING:
    from greentrain.report.overview import BudgetState


class Change(TypedDict):
    """Differences of a stream to an earlier report, now minus then; ``None`` if unknown.

    ``new`` is ``True`` for a stream that the earlier report does not have.
    """

    new: bool
    experiences: int | None
    energy_j: float | None
    metric: float | None
    left_j: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlierStream:
    """A stream in an earlier report."""

    experiences: int
    energy_j: float | None
    metric: str | None
    final_metric: float | None
    left_j: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Earlier:
    """An earlier report.

    Args:
        name: Name of its file.
        period: Its first and its last moment.
        streams: Its streams by ledger and name. A report does not say the ledger, which is ``None``
            then; a name that two streams share is ``None``.
    """

    name: str
    period: Mapping[str, str | None]
    streams: Mapping[tuple[str | None, str], EarlierStream | None]


def read_earlier(path: Path) -> Earlier:
    """Read an ``overview.json`` or a ``report.json``.

    Raises:
        ConfigurationError: If it cannot be read, or is neither.
    """
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"cannot read {str(path)!r}: {error.strerror}") from None
    except ValueError:
        raise _neither(path) from None
    try:
        rows = _of_overview(held) if "overview_version" in held else _of_report(held)
        period = {key: held["period"][key] for key in ("first_utc", "last_utc")}
    except (KeyError, TypeError, AttributeError):
        raise _neither(path) from None
    streams: dict[tuple[str | None, str], EarlierStream | None] = {}
    for key, one in rows:
        streams[key] = None if key in streams else one
    return Earlier(name=path.name, period=period, streams=streams)


def change(earlier: Earlier, row: GroupFigures, budget: BudgetState | None) -> Change:
    """Return the differences of a stream to an earlier report.

    Args:
        earlier: The earlier report.
        row: The stream now.
        budget: Its budget now.
    """
    name = str(row["name"])
    key = (row["ledger"], name) if (row["ledger"], name) in earlier.streams else (None, name)
    then = earlier.streams.get(key)
    if then is None:
        return {
            "new": key not in earlier.streams,
            "experiences": None,
            "energy_j": None,
            "metric": None,
            "left_j": None,
        }
    same = then.metric == row["metric"]
    return {
        "new": False,
        "experiences": row["experiences"] - then.experiences,
        "energy_j": _less(row["energy_j"], then.energy_j),
        "metric": _less(row["final_metric"], then.final_metric) if same else None,
        "left_j": _less(None if budget is None else budget["left_j"], then.left_j),
    }


def _less(now: float | None, then: float | None) -> float | None:
    return None if now is None or then is None else now - then


def _of_overview(held: Mapping[str, Any]) -> list[tuple[tuple[str | None, str], EarlierStream]]:
    return [
        (
            (str(one["ledger"]), str(one["name"])),
            _stream(one, one["energy_j"], (one["budget"] or {}).get("left_j")),
        )
        for one in held["streams"]
    ]


def _of_report(held: Mapping[str, Any]) -> list[tuple[tuple[str | None, str], EarlierStream]]:
    """Read a report: the energy of a stream is the sum over the runs of its kind and name."""
    names = {run["run_id"]: (run["kind"], run["name"]) for run in held["runs"]}
    joules: dict[tuple[str, str], list[float | None]] = {}
    for run in held["runs"]:
        joules.setdefault(names[run["run_id"]], []).append(number(run["energy_j"]))
    return [
        ((None, str(one["name"])), _stream(one, total(joules[names[one["run_ids"][0]]]), None))
        for one in held["summary"]["by_stream"]
    ]


def _stream(one: Mapping[str, Any], energy_j: object, left_j: object) -> EarlierStream:
    return EarlierStream(
        experiences=int(one["experiences"]),
        energy_j=number(energy_j),
        metric=None if one["metric"] is None else str(one["metric"]),
        final_metric=number(one["final_metric"]),
        left_j=number(left_j),
    )


def _neither(path: Path) -> ConfigurationError:
    return ConfigurationError(
        f"{str(path)!r} is neither an overview.json nor a report.json, so there is "
        "nothing to compare with"
    )
