"""Read the decisions of a report, their outcomes and what was paid for them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from greentrain.ledger import BudgetRow, DecisionRow, EventRow, RunRow
from greentrain.report.avoided import AvoidedEnergy
from greentrain.report.baseline_retrainings import measured
from greentrain.report.budget_payments import BudgetPayments, PaidWindows
from greentrain.report.budget_status import BudgetHistory, read_payments
from greentrain.report.compute import Compute
from greentrain.report.document import ExperienceEntry, RunFigures, Summary
from greentrain.report.experience_sums import ExperienceSums, summary
from greentrain.report.experiences import Experiences, Outcomes, StreamKey, is_baseline, shadow_runs
from greentrain.report.ledger_reading import LedgerContents
from greentrain.report.limits import MOST_EXPERIENCES, NO_SINK, Latest, Sink
from greentrain.report.measured import Windows
from greentrain.report.row_helpers import MeasuredWindow
from greentrain.report.scope import Scope
from greentrain.report.shifted_carbon import waited_j
from greentrain.report.times import ended_utc
from greentrain.report.uses import EnergyUses

_SHORT = ("run_id", "position", "reservation_id", "experience_id", "reason", "budget_id")
"""The columns of a decision without those of long texts."""


@dataclass(slots=True, kw_only=True)
class ExperienceFigures:
    """The experiences of a report.

    Args:
        listed: The last ones.
        left_out: Number of those before.
        summary: Counts and metrics of all.
        avoided: The comparison with always retraining in full.
        baselines: The comparison with baseline retrainings.
        retrainings: The last baseline retrainings.
        uses: The energy by what it was used for.
    """

    listed: list[ExperienceEntry]
    left_out: int
    summary: Summary
    avoided: AvoidedEnergy
    baselines: dict[str, Any] | None
    retrainings: list[ExperienceEntry]
    uses: EnergyUses


@dataclass(slots=True, kw_only=True)
class Decided:
    """The runs, budgets and decisions of a report.

    Args:
        runs: The runs of the report, in order.
        budgets: The budgets of the report, in order.
        payments: The payments from each budget.
        about: Ids of the budgets that decisions were made about.
        streams: The stream of each run, by the run's id.
        outcomes: The outcomes of the decisions.
        reader: Returns the entry of each decision, given the status of each run.
        decisions: Returns the decisions in order.
        events: Returns the events in order.
        windows_of: Returns the windows of a reservation.
    """

    runs: list[RunRow]
    budgets: list[BudgetRow]
    payments: Mapping[str, BudgetPayments]
    about: Collection[str]
    streams: Mapping[str, StreamKey]
    outcomes: Outcomes
    reader: Callable[[Mapping[str, str]], Experiences]
    decisions: Callable[[], Iterator[DecisionRow]]
    events: Callable[[], Iterator[EventRow]]
    windows_of: Callable[[str], Sequence[MeasuredWindow]]

    def experiences(
        self, statuses: Mapping[str, str], runs: Sequence[RunFigures], sink: Sink
    ) -> ExperienceFigures:
        """Read the decisions, and sum up the experiences.

        Args:
            statuses: Status of each run, by its id.
            runs: The runs of the report.
            sink: Takes each experience.
        """
        reader, latest = self.reader(statuses), Latest[DecisionRow](MOST_EXPERIENCES)
        sums: dict[StreamKey, ExperienceSums] = defaultdict(ExperienceSums)
        avoided, uses, baselines = AvoidedEnergy(), EnergyUses(), []
        compute = Compute()
        for decision in self.decisions():
            outcome = self.outcomes.of(decision)
            compute.add(decision, outcome)
            if is_baseline(decision):
                baselines.append(decision)
                uses.add(reader.figures(decision), baseline=True)
                if sink is not NO_SINK:
                    sink.experience(reader.entry(decision))
                if outcome is not None and outcome["kept"]:
                    stream = sums[self.streams[decision["run_id"]]]
                    stream.weights_sha256 = outcome["weights_sha256"]
                continue
            one = reader.figures(decision)
            uses.add(one, waited_j=waited_j(decision))
            sums[self.streams[one["run_id"]]].add(decision, one)
            avoided.add(decision, one)
            latest.add(decision)
            if sink is not NO_SINK:
                sink.experience(reader.entry(decision))
        for event in self.events():
            avoided.shifted.add_event(event)
        listed = [reader.entry(decision) for decision in latest.listed()]
        return ExperienceFigures(
            listed=listed,
            left_out=latest.count - len(listed),
            summary=summary(sums, compute.figures()),
            avoided=avoided,
            baselines=measured(baselines, self.outcomes, self.windows_of, runs),
            retrainings=[reader.entry(one) for one in baselines[-MOST_EXPERIENCES:]],
            uses=uses,
        )


@dataclass(slots=True, kw_only=True)
class LedgerPayments:
    """The payments of whole ledgers, which the reports of all their parts share.

    Args:
        payments: The payments from each budget.
        about: Ids of the runs that decided about each budget.
        payers: Ids of the runs that paid from each budget.
        overruns_j: Joules beyond each reservation.
    """

    payments: Mapping[str, BudgetPayments]
    about: dict[str, set[str]]
    payers: dict[str, set[str]]
    overruns_j: dict[str, float | None]


def read_all_payments(contents: LedgerContents, paid: Mapping[str, PaidWindows]) -> LedgerPayments:
    """Read all payments, and which runs decided about each budget.

    Args:
        contents: The ledgers.
        paid: The windows of each reservation.
    """
    about: dict[str, set[str]] = defaultdict(set)
    for row in contents.each("decision", "run_id", "budget_id"):
        about[row["budget_id"]].add(row["run_id"])
    overruns_j: dict[str, float | None] = {}
    payers: dict[str, set[str]] = defaultdict(set)
    payments = read_payments(contents.rows["budget"], _noted(contents, overruns_j, payers), paid)
    return LedgerPayments(payments=payments, about=about, payers=payers, overruns_j=overruns_j)


def read_decisions(
    contents: LedgerContents,
    scope: Scope,
    chosen: Set[str] | None,
    windows: Windows,
    paid: LedgerPayments,
) -> Decided:
    """Find the runs and the budgets of a report, and read payments and outcomes.

    A window belongs to the interval in which it ended. A decision, with its outcome, belongs to the
    interval in which it was made. A run is included if it was opened in the interval, or has a
    window or a decision there. The budgets that such runs paid from are included with all their
    payments.

    Args:
        contents: The ledgers.
        scope: The scope of the report.
        chosen: Ids of its runs; ``None`` for all.
        windows: Its windows.
        paid: The payments of the ledgers.
    """
    payments, about, payers = paid.payments, paid.about, paid.payers
    decided_runs, decided_budgets = set(), set()

    def noted_decisions() -> Iterator[DecisionRow]:
        for row in contents.each_of_runs("decision", chosen, *_SHORT):
            if scope.holds(row["recorded_utc"]):
                decided_runs.add(row["run_id"])
                decided_budgets.add(row["budget_id"])
                yield row

    def decisions() -> Iterator[DecisionRow]:
        for row in contents.each_of_runs("decision", chosen):
            if scope.holds(row["recorded_utc"]):
                yield row

    def events() -> Iterator[EventRow]:
        for row in contents.each_of_runs("event", chosen):
            if scope.holds(row["recorded_utc"]):
                yield row

    kept = contents.rows
    shown = [row for row in kept["run"] if chosen is None or row["run_id"] in chosen]
    outcomes = Outcomes(shown, noted_decisions(), contents.each_of_runs("outcome", chosen))
    of_runs = [
        row
        for row in kept["budget"]
        if chosen is None
        or not chosen.isdisjoint(payers[row["budget_id"]] | about[row["budget_id"]])
    ]
    budgets = of_runs
    if scope.of_some_time:
        active = {*windows.measured, *decided_runs}
        active |= {row["run_id"] for row in shown if scope.holds(row["recorded_utc"])}
        shown = [row for row in shown if row["run_id"] in active]
        budgets = [
            row
            for row in of_runs
            if payers[row["budget_id"]] & active
            or row["budget_id"] in decided_budgets
            or scope.holds(row["recorded_utc"])
        ]

    streams = {
        row["run_id"]: StreamKey(place, row["kind"], row["name"])
        for place, ledger in enumerate(contents.ledgers)
        for row in ledger.kept["run"]
    }

    def reader(statuses: Mapping[str, str]) -> Experiences:
        return Experiences(
            outcomes,
            windows.paid,
            BudgetHistory(of_runs, payments),
            budgets={row["budget_id"]: row["name"] for row in of_runs},
            overruns_j=paid.overruns_j,
            statuses=statuses,
            shadow=shadow_runs(kept["run"]),
            streams=streams,
        )

    def windows_of(reservation: str) -> list[MeasuredWindow]:
        found = contents.windows_of_reservation(reservation)
        return [one for one in found if not scope.of_some_time or scope.holds(ended_utc(one))]

    return Decided(
        runs=shown,
        budgets=budgets,
        payments=payments,
        about=about.keys(),
        streams=streams,
        outcomes=outcomes,
        reader=reader,
        decisions=decisions,
        events=events,
        windows_of=windows_of,
    )


def _noted(
    contents: LedgerContents, overruns_j: dict[str, float | None], payers: dict[str, set[str]]
) -> Iterator[Any]:
    """Yield the payments, and note the overruns and the runs that paid from each budget."""
    for row in contents.payments():
        if "purpose" in row:
            payers[row["budget_id"]].add(row["run_id"])
        else:
            overruns_j[row["reservation_id"]] = row["overrun_j"]
        yield row
