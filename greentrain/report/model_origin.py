"""Find the updates that produced given weights, and their cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from greentrain.ledger import Ledger, RunRow, with_recovered
from greentrain.report.experiences import Outcomes, is_baseline
from greentrain.report.formats import shown
from greentrain.report.row_helpers import total
from greentrain.units import format_carbon, format_energy, plural


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOrigin:
    """An update that produced weights, as a ledger has it.

    Args:
        ledger: Name of the ledger.
        stream: Name of the stream.
        run_id: Its run.
        experience_id: The experience.
        position: Its number in the stream, from 0.
        update_mode: The update mode, or ``"baseline retraining"``.
        steps: Optimizer steps.
        finished_utc: Time of the outcome.
        energy_j: Joules for this experience, its probe included; ``None`` if unknown.
        stream_j: Joules of the stream's windows up to the outcome, over all its runs.
        stream_g: Grams of these windows.
        data_samples: Number of samples of the experience.
        data_sha256: Hash of these samples.
    """

    ledger: str
    stream: str
    run_id: str
    experience_id: str
    position: int
    update_mode: str
    steps: int
    finished_utc: str
    energy_j: float | None
    stream_j: float | None
    stream_g: float | None
    data_samples: int | None
    data_sha256: str | None

    def lines(self) -> list[str]:
        """Describe the update and its cost."""
        stream, experience = shown(self.stream, 80), shown(self.experience_id, 80)
        data = "unknown data"
        if self.data_samples is not None:
            data = f"{plural(self.data_samples, 'sample')}, sha256 {self.data_sha256}"
        grams = "" if self.stream_g is None else f" and emitted {format_carbon(self.stream_g)}"
        return [
            f"produced by update {self.position} of the stream {stream!r}: {self.update_mode} on "
            f"{experience!r}, {plural(self.steps, 'step')}, {self.finished_utc}",
            f"  this update used {format_energy(self.energy_j)}; up to then, the stream had used "
            f"{format_energy(self.stream_j)}{grams}",
            f"  run {self.run_id} in {self.ledger}; {data}",
        ]


def origins(ledger: Ledger, weights_sha256: str) -> list[ModelOrigin]:
    """Return the updates that produced weights, in order; an update that was skipped made none.

    Args:
        ledger: The ledger, which is only read.
        weights_sha256: Hash of the weights.

    Raises:
        LedgerError: If the ledger cannot be read.
    """
    if not ledger.rows("outcome", weights_sha256=weights_sha256):
        return []
    runs = ledger.rows("run")
    decisions = ledger.rows("decision")
    outcomes = Outcomes(runs, decisions, ledger.rows("outcome"))
    by_id = {row["run_id"]: row for row in runs}
    found: list[ModelOrigin] = []
    for decision in decisions:
        outcome, run = outcomes.of(decision), by_id.get(decision["run_id"])
        if (
            outcome is None
            or run is None
            or outcome["weights_sha256"] != weights_sha256
            or not (outcome["kept"] and outcome["steps"] > 0)
        ):
            continue
        stream_j, stream_g = _used(ledger, runs, run, outcome["entry_id"])
        found.append(
            ModelOrigin(
                ledger=ledger.public_name,
                stream=run["name"],
                run_id=run["run_id"],
                experience_id=decision["experience_id"],
                position=decision["position"],
                update_mode="baseline retraining"
                if is_baseline(decision)
                else decision["update_mode"],
                steps=outcome["steps"],
                finished_utc=outcome["recorded_utc"],
                energy_j=outcome["energy_j"],
                stream_j=stream_j,
                stream_g=stream_g,
                data_samples=outcome["data_samples"],
                data_sha256=outcome["data_sha256"],
            )
        )
    return found


def describe_origins(
    ledgers: Sequence[Ledger], weights_sha256: str, name: str
) -> tuple[list[str], bool]:
    """Describe the updates that produced a file of weights.

    Args:
        ledgers: The ledgers.
        weights_sha256: Hash of the weights.
        name: Name of the file.

    Returns:
        Lines of text, and whether an update was found.
    """
    lines = [f"model {shown(name, 200)}", f"weights sha256 {weights_sha256}"]
    found = [origin for ledger in ledgers for origin in origins(ledger, weights_sha256)]
    if found:
        return [*lines, *(line for origin in found for line in origin.lines())], True
    kept = sum(len(ledger.rows("outcome", weights_sha256=weights_sha256)) for ledger in ledgers)
    why = "FAILED: no update in the ledger produced these weights"
    if kept:
        why += f"; they were in use after {plural(kept, 'decision')}, but were made elsewhere"
    older = [
        row
        for ledger in ledgers
        for row in ledger.rows("outcome", weights_sha256=None)
        if row["kept"] and row["steps"] > 0
    ]
    if older:
        why += (
            f"; {plural(len(older), 'update')} in it, of older versions or of weights that cannot "
            "be hashed, cannot be compared"
        )
    return [*lines, why], False


def _used(
    ledger: Ledger, runs: Sequence[RunRow], run: RunRow, until: int
) -> tuple[float | None, float | None]:
    """Return joules and grams of a stream's windows before an entry."""
    windows = [
        window
        for one in runs
        if (one["kind"], one["name"]) == (run["kind"], run["name"])
        for window in with_recovered(
            ledger.rows("window", run_id=one["run_id"]),
            ledger.rows("heartbeat", run_id=one["run_id"]),
            ledger.rows("closing", run_id=one["run_id"]),
        )
        if window["entry_id"] < until
    ]
    return total(one["energy_j"] for one in windows), total(one["emissions_g"] for one in windows)
