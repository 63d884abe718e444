"""Many streams and many trials that pay from one budget."""

from __future__ import annotations

import multiprocessing
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from _results import Row
from pytorch_lightning import Trainer
from torch.utils.data import ConcatDataset, DataLoader

from _scale.ranks import POWER_W, Clock
from greentrain.budget import Budget
from greentrain.demo import DigitsModel
from greentrain.energy import ConstantMeter, Reading, Window
from greentrain.errors import BudgetExceeded
from greentrain.integrations import SearchBudget
from greentrain.ledger import Ledger, verify
from greentrain.report import build
from greentrain.streams import digits_stream
from tests.ledger.cluster import Cluster, programs

PROCESSES = 4


def many_streams(folder: Path, *, quick: bool) -> list[Row]:
    """Let several processes pay for the updates of many streams from one budget."""
    servers = programs()
    if servers is None:
        note = "no PostgreSQL server is installed here"
        return [Row(id="many_streams", what="not run", value=None, unit="", note=note)]
    cluster = Cluster(servers)
    try:
        return _many_streams(cluster.new(), quick=quick)
    finally:
        cluster.remove()


def _many_streams(url: str, *, quick: bool) -> list[Row]:
    streams, updates = (2, 5) if quick else (50, 50)
    # Half of what all updates use: most of the later reservations have to be refused.
    total_j = 0.5 * PROCESSES * streams * updates * 10.0
    ledger = Ledger(url)
    budget_id = ledger.open_budget("team", Budget(energy_j=total_j))
    context = multiprocessing.get_context("fork")
    began_s = time.monotonic()
    processes = [
        context.Process(
            target=_paid_updates, args=(url, streams, updates, streams * number, total_j)
        )
        for number in range(PROCESSES)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    seconds = time.monotonic() - began_s
    failed = sum(process.exitcode != 0 for process in processes)
    status = ledger.status(budget_id)
    reserved = len(ledger.rows("reservation"))
    lost = 2 * reserved - len(ledger.rows("settlement")) - len(ledger.rows("window"))
    wrong = sum([not verify(ledger).ok, status.spent > total_j, status.taken.overrun > 0, failed])
    ledger.close()
    number = PROCESSES * streams
    note = (
        f"{number} streams x {updates} updates in {PROCESSES} processes on one PostgreSQL server; "
        "the budget pays for half of them, and the others are refused"
    )
    return [
        Row(id="many_streams", what="overdrafts, failed processes, and ledgers that do not verify",
            value=wrong, unit="", reach=0, better="equal", seeds=number, note=note),
        Row(id="many_streams", what="rows lost", value=lost, unit="", reach=0, better="equal",
            seeds=3 * reserved),
        Row(id="many_streams", what="paid updates per second", value=reserved / seconds, unit="1/s",
            better="higher", seeds=reserved, note="reserve, record and settle; refusals are within "
            "the time; the machine was shared, and the server did not wait for its disk"),
    ]  # fmt: skip


def _paid_updates(url: str, streams: int, updates: int, first: int, total_j: float) -> None:
    ledger = Ledger(url)
    budget_id = ledger.open_budget("team", Budget(energy_j=total_j))
    runs = [ledger.open_run("stream", f"stream {first + number}") for number in range(streams)]
    moment = datetime.now(UTC)
    reading = Reading(duration_s=0.1, energy_j={"cpu": 10.0})
    for _ in range(updates):
        for run in runs:
            account = ledger.account(budget_id, run)
            try:
                reservation = account.reserve(20.0, "an update")
            except BudgetExceeded:
                continue
            window = Window(
                phase="update",
                started=moment,
                ended=moment + timedelta(seconds=0.1),
                reading=reading,
                reservation_id=reservation,
            )
            run.record(window)
            account.settle(reservation, 10.0)
    for run in runs:
        run.close()
    ledger.close()


def search(folder: Path, *, quick: bool) -> list[Row]:
    """Run the trials of a search on one budget until it is exhausted."""
    trials = 4 if quick else 20
    budget_j = 40.0 * trials  # a trial of 3 epochs would use about 50 J
    url = f"sqlite:///{folder / 'search.db'}"
    given = SearchBudget(budget=f"{budget_j} J", num_trials=trials, ledger=url)
    data = DataLoader(ConcatDataset([part.train for part in digits_stream()]), 64)
    started = 0
    while started < trials and not given.exhausted:
        clock = Clock()
        meter = ConstantMeter(POWER_W, clock=lambda clock=clock: clock.seconds)
        trainer = Trainer(
            max_epochs=3,
            callbacks=[given.guard(meter=meter), clock],
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(DigitsModel(), data)
        started += 1
    status = given.status()
    ledger = Ledger(url)
    missing = started - len(build(ledger)["runs"])
    ledger.close()
    note = f"{started} trials, each of which would use more than its part; 1 J a batch by a clock"
    return [
        Row(id="search", what="share of the budget that was spent",
            value=round(100 * status.spent / status.total, 6), unit="%", reach=100, seeds=started,
            note=note),
        Row(id="search", what="trials that the report lacks", value=missing, unit="", reach=0,
            better="equal", seeds=started),
    ]  # fmt: skip
