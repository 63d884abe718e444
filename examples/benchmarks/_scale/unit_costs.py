"""What one update of a stream adds to the ledger, and what it sends between ranks."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any
from unittest import mock

from _results import Row

from _scale.forks import on_ranks
from _scale.ranks import Clock, stream
from greentrain.ledger import Ledger
from greentrain.training.stream_ranks import Ranks


def unit_costs(folder: Path, *, quick: bool) -> list[Row]:
    """Count rows, bytes of the ledger and messages of a stream on two ranks."""
    experiences = 2 if quick else 6
    place = folder / "costs"

    def work(rank: int) -> dict[str, int]:
        sent: list[int] = []
        send = Ranks.send

        def counted(ranks: Ranks, value: Any) -> None:
            sent.append(len(pickle.dumps(value)))
            send(ranks, value)

        with mock.patch.object(Ranks, "send", counted):
            stream(place, 2, experiences, Clock())
        return {"messages": len(sent), "bytes": sum(sent), "most": max(sent, default=0)}

    found = on_ranks(place, 2, work)[0]
    path = place / "scale.db"
    ledger = Ledger(f"sqlite:///{path}", create=False)
    kinds = ("run", "source", "window", "heartbeat", "reservation", "settlement", "decision",
             "outcome", "event", "closing")  # fmt: skip
    rows = sum(len(ledger.rows(kind)) for kind in kinds)  # type: ignore[call-overload]
    ledger.close()
    size = path.stat().st_size
    empty = folder / "empty.db"
    Ledger(f"sqlite:///{empty}").close()
    grown = size - empty.stat().st_size
    note = f"a stream of {experiences} experiences on two ranks, 4 epochs each; one SQLite file"
    per = {"seeds": experiences}
    return [
        Row(id="unit_costs", what="rows of the ledger for an update", value=rows / experiences,
            unit="", note=note, **per),
        Row(id="unit_costs", what="growth of the ledger for an update",
            value=grown / experiences / 1e3, unit="kB", **per),
        Row(id="unit_costs", what="messages of rank 0 for an update",
            value=found["messages"] / experiences, unit="", note="those of the opening included",
            **per),
        Row(id="unit_costs", what="bytes of these messages", value=found["bytes"] / experiences,
            unit="B", note=f"the largest has {found['most']:,} bytes; the weights of the digits' "
            "perceptron are sent within them", **per),
    ]  # fmt: skip
