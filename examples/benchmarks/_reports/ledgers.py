"""A large ledger for reports: many runs, each of many windows, written many rows at a time."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, create_engine, func, select

from greentrain.carbon import Emissions
from greentrain.energy import Reading, Source, Window
from greentrain.ledger import Ledger, environment
from greentrain.ledger.events import window_content
from greentrain.ledger.hashing import row_hash
from greentrain.ledger.schema import CONTENT, entries, run_chain
from greentrain.units import utc_text

SOURCES = (
    Source(name="gpu:0", method="counter", relative_uncertainty=0.05, device="a card", uuid="G-0"),
    Source(name="cpu", method="estimated", relative_uncertainty=0.2, note="a model"),
    Source(name="ram", method="estimated", relative_uncertainty=None, note="a model"),
)
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
EPOCH_S = 60.0
AVERAGE = {"signal": "average", "basis": "life-cycle"}
CARBON = {
    "intensity": {"source": "a table", "zone": "DE", "data_year": 2025, **AVERAGE},
    "pue": 1.2,
    "pue_source": "given by the user",
}


def fill(ledger: Ledger, *, runs: int, windows: int) -> None:
    """Add runs of a number of epochs; every tenth begins before the previous one has ended.

    Args:
        ledger: An empty ledger.
        runs: Number of runs.
        windows: Windows of each run, each of a minute.
    """
    lasts_s = windows * EPOCH_S
    begins = BEGAN
    engine = create_engine(ledger.url)
    for number in range(runs):
        run = ledger.open_run(
            "fit",
            f"model {number % 20}",
            environment={**environment(), "carbon": CARBON, "settings": {"lr": 0.1 * number}},
            sources=SOURCES,
        )
        begins += timedelta(seconds=lasts_s * (0.5 if number % 10 == 9 else 1.0))
        contents = list(_windows(run.run_id, begins, windows))
        with engine.begin() as connection:
            _append_all(connection, run.run_id, contents, utc_text(begins))
        run.close()
    engine.dispose()


def _windows(run_id: str, begins: datetime, count: int) -> Iterator[dict[str, object]]:
    for epoch in range(count):
        started = begins + timedelta(seconds=epoch * EPOCH_S)
        energy_j = {"gpu:0": 18_000.0 + epoch / 7, "cpu": 3_000.0 + epoch / 3, "ram": 600.1}
        window = Window(
            phase="validation" if epoch % 5 == 4 else "train_epoch",
            started=started,
            ended=started + timedelta(seconds=EPOCH_S),
            reading=Reading(duration_s=EPOCH_S, energy_j=energy_j),
            epoch=epoch,
        )
        intensity = 300.0 + epoch % 24
        grams = sum(energy_j.values()) / 3.6e6 * intensity
        yield window_content(run_id, window, Emissions(grams=grams, intensity_g_per_kwh=intensity))


def _append_all(
    connection: Connection, run_id: str, contents: list[dict[str, object]], now: str
) -> None:
    """Append windows as the ledger does, but all at once."""
    chain = run_chain(run_id)
    query = select(entries.c.seq, entries.c.hash).where(entries.c.chain == chain)
    last = connection.execute(query.order_by(entries.c.seq.desc()).limit(1)).one()
    first_id = connection.execute(select(func.max(entries.c.id))).scalar_one() + 1
    head, spine = last.hash, []
    for number, content in enumerate(contents):
        entry = {
            "kind": "window",
            "chain": chain,
            "seq": last.seq + 1 + number,
            "recorded_utc": now,
            "prev_hash": head,
        }
        head = row_hash(entry, content)
        spine.append({"id": first_id + number, **entry, "hash": head})
    connection.execute(entries.insert(), spine)
    held = [{"entry_id": entry["id"], **row} for entry, row in zip(spine, contents, strict=True)]
    connection.execute(CONTENT["window"].insert(), held)
