"""Up to three actions for a stream, each with the command to copy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import islice
from shlex import join
from typing import TYPE_CHECKING, TypedDict

from greentrain.budget import Unit, format_amount
from greentrain.ledger.release import SILENT_S, measured_amount
from greentrain.ledger.schema import run_chain
from greentrain.report.budget_figures import BudgetFigures
from greentrain.report.document import ExperienceEntry, Report
from greentrain.report.experiences import settings_of
from greentrain.report.groups import GroupKey
from greentrain.report.ledger_reading import VerifiedContents
from greentrain.texts import masked
from greentrain.units import format_energy, format_number, plural

if TYPE_CHECKING:
    from greentrain.report.burn_down import BurnDown
    from greentrain.report.overview import BudgetState

MOST_ACTIONS = 3
_UNITS = {"J": "J", "g": "g CO2-eq"}


class NextAction(TypedDict):
    """Something to do: the reason in a sentence, and the command."""

    sentence: str
    command: str


def next_actions(
    contents: VerifiedContents,
    ledger: str,
    key: GroupKey,
    report: Report,
    budget: tuple[BudgetState, BurnDown] | None,
    now: datetime,
) -> list[NextAction]:
    """Return up to three actions, the most urgent first.

    Args:
        contents: The ledgers.
        ledger: The stream's ledger, as a command takes it.
        key: The stream.
        report: The report of the stream.
        budget: Its budget.
        now: The present time.
    """
    stream = ["--ledger", ledger, "--stream", str(key.name)]
    found = [
        *_releases(contents.of_ledger(key.ledger or 0), ledger, key, report, now),
        *_forecast(None if budget is None else budget[0], stream),
        *_fell(report, stream),
        *_overruns(report, stream),
    ]
    return list(islice(found, MOST_ACTIONS))


def _command(*words: str) -> str:
    return f"greentrain {join(masked(word) for word in words)}"


def _releases(
    contents: VerifiedContents, ledger: str, key: GroupKey, report: Report, now: datetime
) -> Iterator[NextAction]:
    """Yield a release for each reservation of a run that ended or is silent, the largest first.

    The runs are those of the stream at all times: one may have died before the report's interval.
    """
    closed = {row["run_id"] for row in contents.rows["closing"]}
    runs = {
        row["run_id"]
        for row in contents.rows["run"]
        if (row["kind"], row["name"]) == (key.kind, key.name)
    }
    last = {chain: end for chain, _, end in contents.moments(None, None)}
    held = [
        (one[f"amount_{budget['unit'].lower()}"], budget, one)
        for budget in report["budgets"]
        for one in budget["open_reservations"]
        if one["run_id"] in runs
    ]
    for amount, budget, one in sorted(held, key=lambda each: -each[0]):
        end = last.get(run_chain(one["run_id"]))
        silent = end is None or (now - datetime.fromisoformat(end)).total_seconds() >= SILENT_S
        if one["run_id"] not in closed and not silent:
            continue
        yield _release(contents, ledger, budget, one["reservation_id"], amount)


def _release(
    contents: VerifiedContents,
    ledger: str,
    budget: BudgetFigures,
    reservation: str,
    amount: float,
) -> NextAction:
    unit: Unit = budget["unit"]
    words = ["ledger", "release", reservation, "--ledger", ledger]
    text = format_amount(amount, unit)
    sentence = f"A dead run holds {text} of the budget {budget['name']}. "
    windows = contents.windows_of_reservation(reservation)
    measured = measured_amount(windows, reservation, unit)
    if measured is None:
        # Exact: a rounded amount may be above the reservation, which is an overrun.
        words += ["--actual", f"{repr(amount).removesuffix('.0')} {_UNITS[unit]}"]
        sentence += "Not everything was measured: change the amount if you know the energy used."
    else:
        used = measured[0] if unit == "J" else measured[1]
        sentence += (
            f"Release it: {format_amount(used, unit)} were used, and the rest is free again."
        )
    return {"sentence": sentence, "command": _command(*words)}


def _forecast(budget: BudgetState | None, stream: Sequence[str]) -> Iterator[NextAction]:
    if budget is None:
        return
    ahead = budget["forecast"]
    more = ahead["planned"] - ahead["done"]
    if ahead["lasts"] is not None and ahead["lasts"] < more:
        yield {
            "sentence": (
                f"The budget {budget['name']} is expected to last for {ahead['lasts']} of the "
                f"{plural(more, 'experience')} to come. See what the updates cost and brought."
            ),
            "command": _command("explain", *stream),
        }


def _fell(report: Report, stream: Sequence[str]) -> Iterator[NextAction]:
    """Yield the experience at which the metric got worse by most, if one did."""
    modes = {
        run["run_id"]: {"max": 1.0, "min": -1.0}.get(
            str(settings_of(run["environment"]).get("mode"))
        )
        for run in report["runs"]
    }
    worst: tuple[float, ExperienceEntry] | None = None
    for one in report["experiences"]:
        sign, before, after = modes.get(one["run_id"]), one["metric_before"], one["metric_after"]
        if sign is None or before is None or after is None:
            continue
        lost = sign * (before - after)
        if lost > 0 and (worst is None or lost > worst[0]):
            worst = lost, one
    if worst is not None:
        lost, one = worst
        yield {
            "sentence": (
                f"{one['metric']} got worse by {format_number(lost, 2)} at the experience "
                f"{one['experience_id']}. See its decision."
            ),
            "command": _command("explain", *stream, "--experience", one["experience_id"]),
        }


def _overruns(report: Report, stream: Sequence[str]) -> Iterator[NextAction]:
    over = [(one["overrun_j"] or 0.0, one) for one in report["experiences"] if one["overrun_j"]]
    if over:
        joules, one = max(over, key=lambda each: each[0])
        yield {
            "sentence": (
                f"The update at {one['experience_id']} used {format_energy(joules)} more than it "
                f"reserved{f', the largest of {len(over)} overruns' if over[1:] else ''}. "
                "See its decision."
            ),
            "command": _command("explain", *stream, "--experience", one["experience_id"]),
        }
