"""A stream of three experiences in one folder, and everything that must be in it at the end."""

from __future__ import annotations

import hashlib
import mmap
import shutil
import sqlite3
import struct
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from pytorch_lightning import Callback

from greentrain import Experience, StreamTrainer, UpdateMode
from greentrain.control import Always
from greentrain.ledger import Ledger, verify
from greentrain.ledger.outbox import left_behind, set_aside
from greentrain.memory import ClassBalancedBuffer
from greentrain.report import build
from greentrain.tracking import MlflowTracker
from tests.models import Clock, Tick, constant_meter, experience
from tests.training.fitting import timed

NAMES = ("0", "1", "2")
POWER_W, TICK_S = 128.0, 1 / 128
"""Binary fractions, so that no sum of used joules is rounded."""
_STEADY = "key NOT LIKE 'system/%' AND key NOT IN ('budget/left_wh', 'energy/cumulative_wh')"
"""Points that a killed update does not change."""
ROUNDING_J = 1e-6
"""Rounding of reserved joules, which are no such fractions."""
OUTCOME = (
    "experience_id",
    "position",
    "steps",
    "metric_before",
    "metric_after",
    "energy_j",
    "kept",
)


class SharedClock(Clock):
    """Seconds that outlive a killed process, because they are kept in a file."""

    def __init__(self, file: Path) -> None:
        if not file.exists():
            file.write_bytes(bytes(8))
        with file.open("r+b") as opened:
            self._memory = mmap.mmap(opened.fileno(), 8)

    @property
    def seconds(self) -> float:  # type: ignore[override]
        """The present time."""
        return float(struct.unpack("d", self._memory[:])[0])

    @seconds.setter
    def seconds(self, value: float) -> None:
        self._memory[:] = struct.pack("d", value)


def arrivals(names: Sequence[str] = NAMES) -> list[Experience]:
    """Return experiences; each brings another class."""
    return [experience(name, (int(name) % 4,), seed=int(name)) for name in names]


def opened(
    folder: Path, setup: str, *, callbacks: Sequence[Callback] = (), **changes: Any
) -> StreamTrainer:
    """Return the stream of a folder.

    Args:
        folder: The folder.
        setup: ``"policy"`` for the default one, ``"mlflow"`` or ``"buffer"``.
        callbacks: Further callbacks of each Trainer.
        changes: Other arguments of the stream.
    """
    clock, disk = SharedClock(folder / "clock"), folder / "disk"
    (folder / "tmp").mkdir(exist_ok=True)
    tempfile.tempdir = str(folder / "tmp")
    arguments: dict[str, Any] = {
        "budget": "1 kWh",
        "num_experiences": 100,
        "monitor": "val_acc",
        "ledger": f"sqlite:///{disk / 'greentrain.db'}",
        "trainer": {
            "max_epochs": 4,
            "accelerator": "cpu",
            "callbacks": [Tick(clock, TICK_S), *callbacks],
        },
        "loader": {"batch_size": 8 if setup == "buffer" else 20},
        "meter": constant_meter(clock, power_w=POWER_W),
        "state_dir": disk / "state",
    }
    if setup == "buffer":
        arguments["buffer"] = ClassBalancedBuffer(60, folder=disk / "buffer")
        arguments["policy"] = Always(mode=UpdateMode.REPLAY)  # the saved weights matter
    if setup == "mlflow":
        arguments["tracking_uri"] = MlflowTracker(
            f"sqlite:///{disk / 'mlflow.db'}",
            artifact_location=(disk / "artifacts").as_uri(),
            queue_folder=disk / "queue",
        )
    return StreamTrainer(timed(clock), **{**arguments, **changes})


def prepare(folder: Path, setup: str, mlflow_store: Path | None = None, **changes: Any) -> None:
    """Let the stream have its first experience."""
    (folder / "disk").mkdir(parents=True)
    if mlflow_store is not None:
        shutil.copy(mlflow_store, folder / "disk" / "mlflow.db")
    with opened(folder, setup, **changes) as trainer:
        trainer.run(arrivals(NAMES[:1]))


def finish(folder: Path, setup: str, **changes: Any) -> dict[str, Any]:
    """Run the stream to its end, and return what it has learned, spent and recorded."""
    weights: dict[str, str] = {}
    with opened(folder, setup, **changes) as trainer:
        weights[list(trainer.known)[-1]] = _digest(trainer.model.state_dict().values())

        def note(experience: Experience, result: object) -> None:
            weights[experience.id] = _digest(trainer.model.state_dict().values())

        trainer.run(arrivals(), on_result=note)
        known = list(trainer.known)
        stored = trainer._runner.state.data.buffer.select(lambda origin: True)
        weights["buffer"] = _digest(part for sample in stored for part in sample)
    return {"known": known, "weights": weights, **facts(folder, **changes)}


def facts(folder: Path, ledger: str = "") -> dict[str, Any]:
    """Return what the ledger, the report and MLflow say about the stream of a folder."""
    url = ledger or f"sqlite:///{folder / 'disk' / 'greentrain.db'}"
    with closing(Ledger(url, create=False)) as recorded:
        (budget,) = recorded.rows("budget")
        balance = recorded.balance(budget["budget_id"])
        settled = {
            row["reservation_id"] for row in recorded.rows("settlement") if row["released"] is None
        }
        killed_j = [
            row["amount_j"]
            for row in recorded.rows("reservation")
            if row["reservation_id"] not in settled
        ]
        return {
            "waiting": [
                path.name for path in (*left_behind(recorded.store), *set_aside(recorded.store))
            ],
            "failures": list(verify(recorded).failures),
            "outcomes": [{name: row[name] for name in OUTCOME} for row in recorded.rows("outcome")],
            "report": [
                {name: row[name] for name in OUTCOME}
                for row in build(recorded)["experiences"]
                if row["interruption"] is None
            ],
            "charged_j": balance.spent_j + balance.reserved_j,
            "killed_j": sum(killed_j),
            "windows_j": sum(row["energy_j"] for row in recorded.windows()),
            "true_j": POWER_W * SharedClock(folder / "clock").seconds,
            "mlflow": _mlflow(folder / "disk" / "mlflow.db"),
        }


def _mlflow(file: Path) -> dict[str, Any]:
    """Return the finished runs of a store by name, each with its points."""
    if not file.exists():
        return {}
    with closing(sqlite3.connect(file)) as connection:
        points = connection.execute(
            "SELECT name, key, step, count(*), min(value) FROM runs JOIN metrics USING (run_uuid) "
            f"WHERE status = 'FINISHED' AND {_STEADY} GROUP BY name, key, step ORDER BY 1, 2, 3"
        ).fetchall()
        runs = connection.execute(
            "SELECT name, count(*) FROM runs WHERE status = 'FINISHED' GROUP BY name ORDER BY name"
        ).fetchall()
    return {"runs": runs, "points": points}


def differences(expected: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """Return how a stream that was killed or had a sick disk differs from an undisturbed one."""
    differ = []
    if found["known"] != expected["known"]:
        differ.append(f"experiences {found['known']}")
    differ += [f"verify: {each}" for each in found["failures"]]
    if found["charged_j"] < found["true_j"] - ROUNDING_J:
        differ.append(f"joules lost: {found['charged_j']} charged of {found['true_j']}")
    # Of a killed update, the whole reservation may be charged.
    if found["windows_j"] > found["true_j"]:
        differ.append(f"joules doubled: {found['windows_j']} in windows, {found['true_j']} used")
    if found["charged_j"] - found["killed_j"] > found["true_j"] + ROUNDING_J:
        differ.append(f"joules doubled: {found['charged_j']} charged, {found['true_j']} used")
    for name in ("outcomes", "report"):
        if found[name] != expected[name]:
            differ.append(f"{name}: {found[name]}")
    for name, digest in found["weights"].items():
        if digest != expected["weights"][name]:
            differ.append(f"weights of {name}")
    if found["mlflow"] != expected["mlflow"]:
        wanted = {str(point) for point in expected["mlflow"]["points"]}
        has = {str(point) for point in found["mlflow"]["points"]}
        differ.append(
            f"MLflow: runs {found['mlflow']['runs']}, missing {sorted(wanted - has)}, "
            f"added {sorted(has - wanted)}"
        )
    return differ


def _digest(tensors: Any) -> str:
    digest = hashlib.sha256()
    for each in tensors:
        digest.update(each.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()
