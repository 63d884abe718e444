"""Cost of an update in rows and bytes of the ledger, and in messages between ranks."""

from __future__ import annotations

import json
import pickle
import statistics
import time
from pathlib import Path
from typing import Any
from unittest import mock

from _results import Row
from torch.distributed import TCPStore

from _scale.forks import on_ranks
from _scale.ranks import Clock, stream
from greentrain.budget import Budget
from greentrain.energy import Reading
from greentrain.ledger import Ledger
from greentrain.training.stream_ranks import Ranks
from tests.report.ledgers import decide


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
        *_of_many(folder, quick=quick),
    ]  # fmt: skip


def _of_many(folder: Path, *, quick: bool) -> list[Row]:
    """Measure what grows with the number of streams, hosts and cards."""
    decisions, gets = (100, 100) if quick else (1000, 1000)
    ledger = Ledger(f"sqlite:///{folder / 'peers.db'}")
    budget = ledger.open_budget("team", Budget(energy_j=1.0))
    with ledger.open_run("stream", "peers") as run:
        for position in range(decisions):
            decide(run, budget, position)
    read_s = []
    for _ in range(5):
        began_s = time.process_time()
        ledger.decisions_since(budget)
        read_s.append(time.process_time() - began_s)
    ledger.close()
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    store.set("joules", json.dumps([1.0, {f"node1/gpu:{card}": 1e5 / 3 for card in range(8)}]))
    get_s = []
    for _ in range(gets):
        began_s = time.perf_counter()
        store.get("joules")
        get_s.append(time.perf_counter() - began_s)
    cards = {f"node{card // 8}/gpu:{card % 8}": 1e6 / (card + 3) for card in range(1000)}
    reading = Reading(duration_s=10.0, energy_j=cards)
    one = Reading(duration_s=10.0, energy_j=dict([next(iter(cards.items()))]))
    return [
        Row(id="unit_costs", what="reading a decision of another stream",
            value=1e6 * min(read_s) / decisions, unit="us", seeds=len(read_s),
            note=f"CPU time with {decisions:,} decisions in one SQLite file; the lowest"),
        Row(id="unit_costs", what="reading the joules of another host",
            value=1e6 * statistics.median(get_s), unit="us", seeds=gets,
            note="a key of 8 cards from a TCPStore on the same machine, which was shared; the "
            "median"),
        Row(id="unit_costs", what="a reading of one card between ranks",
            value=len(pickle.dumps(one)), unit="B", note="pickled"),
        Row(id="unit_costs", what="joules of 1,000 cards in a row of the ledger",
            value=len(json.dumps(dict(reading.energy_j))), unit="B", note="JSON of a window"),
    ]  # fmt: skip
