"""The trials of a report: what reached a metric, and the energy that it took."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TypedDict

from greentrain.report.document import ExperienceEntry, Report, RunFigures
from greentrain.report.experiences import settings_of
from greentrain.report.row_helpers import better, grouped, main_metric, total


class Trial(TypedDict):
    """A fit, or the runs from the first experience of a stream to the last one.

    A stream that was stopped and resumed is one trial. One that began again, as in a search, is
    several. A fit is one, with the energy before a resume. ``mode`` is ``"max"`` or ``"min"``: the
    better direction of the metric, if known.
    """

    name: str
    run_ids: list[str]
    energy_j: float | None
    metric: str
    value: float
    mode: str | None


def trials(report: Report) -> list[Trial]:
    """Return the trials of a report that have a metric: those of streams, then fits, in order.

    Of several trials with one name, each has its number. The energy is that of the runs in the
    report, with probes, calibration and baseline retrainings, also of a run that was killed before
    its first decision. It is ``None`` if nothing of a run was measured. A fit or stream of which a
    part is before the report's interval is no trial, nor is a fit that ended after it.
    """
    of_run = grouped(report["experiences"], lambda one: one["run_id"])
    found: list[Trial] = []
    since = report["scope"]["since_utc"]
    for (_, name), runs in grouped(report["runs"], lambda run: (run["kind"], run["name"])).items():
        if all(run["run_id"] not in of_run for run in runs):
            continue
        attempts = _attempts(runs, of_run)
        for number, attempt in enumerate(attempts, start=1):
            title = f"{name} ({number})" if len(attempts) > 1 else name
            if since is None or _is_whole(attempt, of_run, since):
                found += _trial(title, attempt, of_run)
    return distinct([*found, *_fits(report)])


def distinct(trials: Sequence[Trial]) -> list[Trial]:
    """Return the trials, each with another name: the same ones have the beginning of a run's id."""
    count = Counter(one["name"] for one in trials)
    return [
        {**one, "name": f"{one['name']} {one['run_ids'][0][:8]}"} if count[one["name"]] > 1 else one
        for one in trials
    ]


def _fits(report: Report) -> list[Trial]:
    """Return the fits with a metric whose better direction is known."""
    since, until = (report["scope"][key] for key in ("since_utc", "until_utc"))
    fits = [
        (run, metric)
        for run in report["runs"]
        if (metric := main_metric(run)) is not None
        and (since is None or run["opened_utc"] >= since)
        and (until is None or (run["closed_utc"] or "") < until)
    ]
    count, number = Counter(run["name"] for run, _ in fits), Counter[str]()
    found: list[Trial] = []
    for run, metric in fits:
        name = run["name"]
        number[name] += 1
        joules = [run["energy_j"], *([] if run["resumed_j"] is None else [run["resumed_j"]])]
        found.append(
            {
                "name": f"{name} ({number[name]})" if count[name] > 1 else name,
                "run_ids": [run["run_id"]],
                "energy_j": None if None in joules else total(joules),
                "metric": metric["name"],
                "value": metric["value"],
                "mode": metric["mode"],
            }
        )
    return found


def _attempts(
    runs: Sequence[RunFigures], of_run: dict[str, list[ExperienceEntry]]
) -> list[list[RunFigures]]:
    """Split the runs of a stream where it begins with its first experience again."""
    found: list[list[RunFigures]] = []
    learned = False
    for run in runs:
        held = of_run.get(run["run_id"], ())
        if not found or (learned and held and held[0]["position"] == 0):
            found.append([])
            learned = False
        found[-1].append(run)
        learned = learned or any(one["status"] == "done" for one in held)
    return found


def _is_whole(
    runs: Sequence[RunFigures], of_run: dict[str, list[ExperienceEntry]], since: str
) -> bool:
    """Return whether a trial of a stream began in the report's interval."""
    positions = [one["position"] for run in runs for one in of_run.get(run["run_id"], ())]
    return runs[0]["opened_utc"] >= since and 0 in positions[:1]


def _trial(
    name: str, runs: Sequence[RunFigures], of_run: dict[str, list[ExperienceEntry]]
) -> list[Trial]:
    reached = [
        (one["metric"], one["metric_after"])
        for run in runs
        for one in of_run.get(run["run_id"], ())
        if one["status"] == "done"
    ]
    known = [(metric, value) for metric, value in reached if metric and value is not None]
    if not known:
        return []
    joules = [run["energy_j"] for run in runs if run["run_id"] in of_run or run["windows"]]
    mode = settings_of(runs[-1]["environment"]).get("mode")
    return [
        {
            "name": name,
            "run_ids": [run["run_id"] for run in runs],
            "energy_j": None if None in joules else total(joules),
            "metric": known[-1][0],
            "value": known[-1][1],
            "mode": better(mode),
        }
    ]
