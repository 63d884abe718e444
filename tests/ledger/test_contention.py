"""Sixteen processes on one budget."""

from __future__ import annotations

import json
import os
import random
import time
import traceback
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest

from greentrain.budget import Budget
from greentrain.errors import BudgetExceeded
from greentrain.ledger import Ledger, verify
from tests.ledger.events import window
from tests.prepared import CONTEXT

PROCESSES = 16
SECONDS = float(os.environ.get("GREENTRAIN_CONTENTION_S", "5"))
MOST_S = 120.0
PROJECT = Budget(energy_j=3000.0)
TEAM = Budget(energy_j=2000.0, parent="project")


def _contend(url: str, folder: str, number: int, ready: Barrier) -> None:
    """Reserve and settle, mostly for nothing, where there is never enough for everybody."""
    told: dict[str, Any] = {"reserved": 0, "settled": 0, "refused": 0, "wrong": []}
    try:
        _pay(url, number, ready, told)
    except BaseException:
        told["wrong"].append(traceback.format_exc())
    Path(folder, f"{number}.json").write_text(json.dumps(told))


def _pay(url: str, number: int, ready: Barrier, told: dict[str, Any]) -> None:
    chance = random.Random(number)
    ledger = Ledger(url)
    run = ledger.open_run("fit", f"worker {number}")
    ledger.open_budget("project", PROJECT)
    name, budget = ("project", PROJECT) if number % 4 == 0 else ("team", TEAM)
    account = ledger.account(ledger.open_budget(name, budget), run)
    ready.wait(120.0)  # sixteen interpreters take their time to start
    until = time.monotonic() + SECONDS
    while time.monotonic() < until or _too_few(ledger, until):
        amount_j = chance.uniform(400.0, 900.0)
        try:
            reservation = account.reserve(amount_j, "an update")
        except BudgetExceeded as refused:
            told["refused"] += 1
            if not refused.held_by and not account.balance().spent_j:
                told["wrong"].append(f"nobody holds what is missing: {refused}")
            continue
        told["reserved"] += 1
        if not account.balance().within:
            told["wrong"].append("overdrawn")
        drawn_j = chance.choice((0.0, 0.0, 0.0, 0.001, 1.1)) * amount_j * 1e-3
        run.record(window("probe", by_source={"cpu": drawn_j}, reservation_id=reservation))
        account.settle(reservation, drawn_j)
        told["settled"] += 1
    run.close()
    ledger.close()


def _too_few(ledger: Ledger, until: float) -> bool:
    """Return whether a loaded machine needs more time for as many reservations as processes."""
    return time.monotonic() < until + MOST_S and len(ledger.rows("reservation")) < PROCESSES


@pytest.mark.slow
def test_sixteen_processes_on_one_budget(url: str, tmp_path: Path) -> None:
    Ledger(url).close()
    ready = CONTEXT.Barrier(PROCESSES)
    workers = [
        CONTEXT.Process(target=_contend, args=(url, str(tmp_path), number, ready))
        for number in range(PROCESSES)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        worker.close()
    told = [json.loads((tmp_path / f"{number}.json").read_text()) for number in range(PROCESSES)]
    assert [one["wrong"] for one in told if one["wrong"]] == []
    assert sum(one["refused"] for one in told) > 0
    ledger = Ledger(url, create=False)
    counts = {kind: len(ledger.rows(kind)) for kind in ("reservation", "window", "settlement")}
    reserved = sum(one["reserved"] for one in told)
    print(f"{reserved} reservations, {sum(one['refused'] for one in told)} refusals")
    assert counts == dict.fromkeys(counts, reserved)
    assert reserved == sum(one["settled"] for one in told) >= PROCESSES
    for row in ledger.rows("budget"):
        status = ledger.status(row["budget_id"])
        assert (status.within, status.taken.open, status.taken.reserved) == (True, 0, 0.0)
    found = verify(ledger)
    ledger.close()
    assert found.failures == ()
