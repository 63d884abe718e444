"""Show the energy that a run used as a table, and where the run is recorded."""

from __future__ import annotations

import shlex
from pathlib import Path

from rich.console import Console
from rich.table import Table

from greentrain.callbacks.measurement import RunMeasurement
from greentrain.callbacks.messages import inform
from greentrain.energy import Reading, boundary
from greentrain.units import format_carbon, format_energy, uncertainty_j


def summary_table(measured: RunMeasurement) -> Table:
    """Return a table of each source with its method and uncertainty, and of their total.

    Its title names the stage, the model and the first characters of the id of the run.
    """
    total = measured.closed.reading
    sources = {source.name: source for source in measured.sources}
    shares = {name: source.relative_uncertainty for name, source in sources.items()}
    run_id = measured.record.run_id
    run = "" if run_id is None else f", run {run_id[:8]}"
    title = f"greentrain: energy used by {measured.phase} of {measured.name}{run}"
    table = Table(title=title, title_justify="left")
    for column in ("source", "energy", "mean power", "method", "uncertainty"):
        table.add_column(column, justify="right" if column in ("energy", "mean power") else "left")
    for name, energy_j in total.energy_j.items():
        table.add_row(
            name,
            format_energy(energy_j),
            _power(energy_j, total.duration_s),
            sources[name].method if name in sources else "unknown",
            _share(shares.get(name)),
        )
    table.add_section()
    table.add_row(
        f"total ({boundary(total.energy_j) or 'nothing'})",
        _at_least(total),
        _power(total.total_j, total.duration_s),
        f"{total.duration_s:.1f} s",
        _share(_combined(total, shares)),
    )
    calibration, idle, grams = measured.calibration, measured.idle, measured.closed.grams
    if calibration is not None and total.total_j is not None:
        low, high = calibration.low, calibration.high
        band = "" if low is None or high is None else f", {low:.3g} to {high:.3g}"
        table.add_row(
            "node (calibrated)",
            format_energy(calibration.node_j(total.total_j)),
            "",
            f"factor {calibration.factor:.3g}{band}",
        )
    for cap in measured.record.caps:
        ending = "used, stopped" if cap.stopped else "used"
        table.add_row(f"cap of {cap.cap}", f"{cap.used} {ending}")
    if idle is not None:
        power = _power(idle.total_j, idle.duration_s)
        table.add_row("idle before the run", "", power, "not subtracted")
    if grams is not None:
        table.add_row("emissions", format_carbon(grams))
    return table


def record_sentence(url: str) -> str:
    """Return where a SQLite ledger is, relative to the present folder, and how to read it.

    Example:
        >>> record_sentence("sqlite:////runs/greentrain_logs/fit 1.db")
        "Recorded in '/runs/greentrain_logs/fit 1.db'. \
Next: greentrain report --ledger '/runs/greentrain_logs/fit 1.db'"
    """
    path = Path(url.removeprefix("sqlite:///"))
    if path.is_relative_to(Path.cwd()):
        path = path.relative_to(Path.cwd())
    quoted = shlex.quote(str(path))
    return f"Recorded in {quoted}. Next: greentrain report --ledger {quoted}"


def say_record(url: str, *, printed: bool) -> None:
    """Say where a ledger is: below the printed table, or in the log."""
    if printed:
        Console().print(record_sentence(url), soft_wrap=True, markup=False, highlight=False)
    else:
        inform(f"EnergyMonitor: {record_sentence(url)}")


def _at_least(total: Reading) -> str:
    text = format_energy(total.total_j)
    return text if total.complete or total.total_j is None else f"at least {text}"


def _power(energy_j: float | None, duration_s: float) -> str:
    return "unknown" if energy_j is None or duration_s <= 0 else f"{energy_j / duration_s:.1f} W"


def _share(share: float | None) -> str:
    return "unknown" if share is None else f"± {share:.0%}"


def _combined(total: Reading, shares: dict[str, float | None]) -> float | None:
    """Return the relative uncertainty of a total; ``None`` if unknown."""
    known_j = {name: joules for name, joules in total.energy_j.items() if joules is not None}
    standard_j = uncertainty_j(known_j, {name: shares.get(name) for name in known_j})
    return None if standard_j is None or not total.total_j else standard_j / total.total_j
