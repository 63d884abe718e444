"""The joules of ranks on one and on two hosts, against simulated cards of known truth."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from _ledger.guard import load_driver
from _results import Row
from torch import distributed

from _scale.forks import on_ranks
from greentrain.energy import NvmlMeter
from greentrain.training import ranks_meter
from greentrain.training.stream_ranks import Ranks
from tests.nvml.simulation import CARDS, Node

SECONDS = 100.0
_TICKS = 1000
_BEGAN_S = 5.03  # no window begins on a tick of the counters


def ranks_joules(folder: Path) -> list[Row]:
    """Measure 100 simulated seconds of each layout of ranks, hosts and cards."""
    load_driver(folder)
    layouts = {
        "2 ranks on one host, each of which sees 8 cards": (1, False),
        "2 hosts x 2 ranks, each of which sees the 8 cards of its host": (2, False),
        "2 hosts x 2 ranks, each of which sees 4 of the 8 cards of its host": (2, True),
    }
    rows = []
    for number, (what, (hosts, split)) in enumerate(layouts.items()):
        errors, twice = _measured(folder / f"cards{number}", hosts, split=split)
        note = (
            f"{SECONDS:.0f} s of a square wave of 50 and 350 W on each card; hosts are simulated, "
            "with a driver and a clock each"
        )
        rows += [
            Row(id="ranks_joules", what=f"largest error of a card or of the sum: {what}",
                value=max(errors), unit="%", reach=0.2, seeds=len(errors), note=note),
            Row(id="ranks_joules", what=f"cards that are missing or counted twice: {what}",
                value=twice, unit="", reach=0, better="equal", seeds=len(errors) - 1),
        ]  # fmt: skip
    return rows


def _measured(folder: Path, hosts: int, *, split: bool) -> tuple[list[float], int]:
    """Return the errors in percent, and how many cards are missing or counted twice."""
    folder.mkdir()
    nodes = [Node(folder / f"node{host}", CARDS) for host in range(hosts)]
    for host, node in enumerate(nodes):
        for index, card in enumerate(node.shown):
            card.uuid = card.uuid.replace(b"4000", f"4{host:03}".encode())
            card.square(50.0, 350.0, period_s=0.37, phase_s=0.05 * index + 0.11 * host)
            card.tick_phase_s = 0.012 * index
        node.advance(_BEGAN_S)

    def work(rank: int) -> dict[str, float] | None:
        return _rank(rank, nodes, split=split)

    found = on_ranks(folder, 2 * hosts, work)[0]
    names = [
        (f"node{host}/" if hosts > 1 else "") + f"gpu:{index}"
        for host in range(hosts)
        for index in range(CARDS)
    ]
    truths = [card.energy_j(_BEGAN_S, _BEGAN_S + SECONDS) for node in nodes for card in node.shown]
    pairs = [(found.get(name) or 0.0, truth) for name, truth in zip(names, truths, strict=True)]
    pairs.append((sum(found.values()), sum(truths)))
    errors = [100 * abs(measured / truth - 1) for measured, truth in pairs]
    return errors, len(set(names) ^ set(found))


def _rank(rank: int, nodes: list[Node], *, split: bool) -> Any:
    host, local = divmod(rank, 2)
    node = nodes[host]
    os.environ |= node.environment | {"LOCAL_RANK": str(local), "LOCAL_WORLD_SIZE": "2"}
    if split:
        half = range(CARDS // 2 * local, CARDS // 2 * (local + 1))
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, half))
    size = 2 * len(nodes)
    distributed.init_process_group("gloo", rank=rank, world_size=size)
    given = NvmlMeter(clock=node.clock, synchronize=lambda index: None)
    with mock.patch.object(ranks_meter, "host_id", lambda: f"host {host}"):
        meter = ranks_meter.open_meter(given, Ranks(rank, size), torch.device("cpu"), local)
    before = meter.read()
    distributed.barrier()
    if local == 0:
        for _ in range(_TICKS):
            node.advance(SECONDS / _TICKS)
    distributed.barrier()
    time.sleep(3 * ranks_meter.PERIOD_S)  # the others have published by then
    used = (meter.read() - before).energy_j
    distributed.barrier()
    meter.close()
    distributed.destroy_process_group()
    return used if rank == 0 else None
