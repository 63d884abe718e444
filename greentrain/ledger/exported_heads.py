"""Heads in a file of their own, kept elsewhere, against which a ledger is compared later."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from greentrain.errors import ConfigurationError
from greentrain.units import utc_now, utc_text


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedHeads:
    """The heads of one ledger as they were when they left it.

    Args:
        exported_utc: When that was.
        heads: Count and head of each chain, as :meth:`Ledger.heads` gives them.
    """

    exported_utc: str
    heads: Mapping[str, Mapping[str, Any]]

    def covers(self, chain: str, count: int = 1) -> bool:
        """Return whether so many rows of a chain are among those that left."""
        return chain in self.heads and int(self.heads[chain]["count"]) >= count

    def failures(self, spine: Sequence[Mapping[str, Any]]) -> Iterator[str]:
        """Yield what a ledger has no more of what had left it, one sentence each."""
        wanted = {(chain, head["count"] - 1): head["head"] for chain, head in self.heads.items()}
        found = {
            (entry["chain"], entry["seq"]): entry["hash"]
            for entry in spine
            if (entry["chain"], entry["seq"]) in wanted
        }
        for (chain, seq), head in sorted(wanted.items()):
            row = f"row {seq} of {chain}, whose head was exported on {self.exported_utc},"
            if (chain, seq) not in found:
                yield f"{row} was cut off"
            elif found[chain, seq] != head:
                yield f"{row} was replaced"


def write_heads(path: Path, heads: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> None:
    """Write the heads of each ledger, by its name, into a file that is not there yet.

    Raises:
        ConfigurationError: If the file cannot be written, or is there.
    """
    now = utc_text(utc_now())
    ledgers = {name: {"exported_utc": now, "heads": held} for name, held in heads.items()}
    text = json.dumps({"greentrain_heads": 1, "ledgers": ledgers}, indent=2, sort_keys=True)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise ConfigurationError(
            f"cannot write the heads to {str(path)!r}: {error.strerror}"
        ) from None


def read_heads(path: Path, names: Sequence[str]) -> dict[str, ExportedHeads]:
    """Read the heads of these ledgers from a file of :func:`write_heads`, or from a report.json.

    Of a file that holds one ledger's heads the name does not matter: it may have been moved.

    Raises:
        ConfigurationError: If the file holds no heads, or none of one of these ledgers.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        found = _of_report(document) or {
            name: ExportedHeads(exported_utc=str(one["exported_utc"]), heads=_checked(one["heads"]))
            for name, one in document["ledgers"].items()
        }
    except OSError as error:
        raise ConfigurationError(f"cannot read {str(path)!r}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ConfigurationError(
            f"{str(path)!r} holds no heads; give what `greentrain verify --heads FILE` wrote, or a "
            "report.json"
        ) from None
    if len(found) == len(names) == 1:
        return {names[0]: next(iter(found.values()))}
    places = {name: name if name in found else Path(name).name for name in names}
    for name, place in places.items():
        if place not in found:
            raise ConfigurationError(
                f"{str(path)!r} holds no heads of {name!r}; it has those of "
                f"{', '.join(sorted(found))}"
            )
    return {name: found[place] for name, place in places.items()}


def _of_report(document: Mapping[str, Any]) -> dict[str, ExportedHeads]:
    if "verification" not in document:
        return {}
    exported_utc = str(document["period"]["last_utc"])
    verified = document["verification"]
    ledgers = verified.get("ledgers") or [{"name": "report", "heads": verified["heads"]}]
    return {
        str(one["name"]): ExportedHeads(exported_utc=exported_utc, heads=_checked(one["heads"]))
        for one in ledgers
    }


def _checked(heads: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        str(chain): {"count": int(head["count"]), "head": str(head["head"])}
        for chain, head in heads.items()
    }
