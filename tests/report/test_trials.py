"""Trials: what reached a metric, and the energy that it took."""

from __future__ import annotations

import csv
import io
import json
import math
import re

import jsonschema
import pytest

from greentrain.budget import Budget
from greentrain.ledger import Ledger
from greentrain.report import build, render_html
from greentrain.report.chart_shapes import WIDTH
from greentrain.report.exports.tables import render_runs
from greentrain.report.groups import roll_up
from greentrain.report.overview import overview
from greentrain.report.overview_page import render_overview
from greentrain.report.pareto_chart import MOST_NAMED, pareto_charts
from greentrain.report.trials import Trial, distinct, trials
from tests.report.ledgers import SOURCES, STARTED, come, decide, window
from tests.report.test_core import SCHEMA

MODE = {"settings": {"mode": "max"}}


def _run(
    ledger: Ledger, name: str, budget: str, reached: list[tuple[int, float | None]], joules: float
) -> None:
    """Record a run of some positions; a metric of ``None`` is an update that never ended."""
    with ledger.open_run("stream", name, environment=MODE, sources=SOURCES) as run:
        window(run, joules, 0.0)
        for position, metric in reached:
            decide(run, budget, position)
            if metric is not None:
                come(run, position, metric_after=metric)


def _unclosed_and_whole(ledger: Ledger) -> None:
    """Record a stream of three runs, the second killed in its probe, and a fit."""
    budget = _budget(ledger)
    _run(ledger, "digits", budget, [(0, 0.7)], 100.0)
    with ledger.open_run("stream", "digits", environment=MODE, sources=SOURCES) as run:
        window(run, 8.0, 0.0, phase="probe")
    _run(ledger, "digits", budget, [(1, 0.8)], 50.0)


def test_a_run_killed_in_its_probe_counts_and_a_stream_cut_by_since_is_no_trial(
    ledger: Ledger,
) -> None:
    _unclosed_and_whole(ledger)
    assert [one["energy_j"] for one in trials(build(ledger))] == [158.0]
    last = ledger.rows("run")[-1]["recorded_utc"]
    assert trials(build(ledger, since=last)) == []
    assert len(trials(build(ledger, since=ledger.rows("run")[0]["recorded_utc"]))) == 1


def test_a_fit_has_its_metric_in_the_period_in_which_it_ended(ledger: Ledger) -> None:
    metric = json.dumps([{"name": "val_acc", "value": 0.5, "mode": "max"}])
    run = ledger.open_run("fit", "lenet", sources=SOURCES)
    window(run, 100.0, 0.0)
    run.close(metrics=metric)
    ended = ledger.rows("closing")[0]["recorded_utc"]
    for rows, wanted in [
        (roll_up([ledger], "run", until=ended), None),
        (roll_up([ledger], "run", since=ended), None),
        (roll_up([ledger], "run"), 0.5),
    ]:
        assert [row["final_metric"] for row in rows] in ([wanted, wanted], [wanted])
    _run(ledger, "digits", _budget(ledger), [(0, 0.7)], 100.0)
    rows = roll_up([ledger], "stream")
    assert [row["final_metric"] for row in rows] == [0.5, 0.7, None]


def _budget(ledger: Ledger) -> str:
    return ledger.open_budget("all", Budget.parse("1 kWh", num_experiences=10))


def test_a_resumed_stream_is_one_trial_and_one_that_began_anew_is_another(ledger: Ledger) -> None:
    budget = _budget(ledger)
    _run(ledger, "search", budget, [(0, 0.7), (1, 0.8)], 100.0)
    _run(ledger, "search", budget, [(0, None)], 10.0)  # killed before its first update ended
    _run(ledger, "search", budget, [(0, 0.75)], 40.0)
    _run(ledger, "search", budget, [(1, 0.9)], 50.0)  # resumed
    _run(ledger, "alone", budget, [(0, 0.6)], 20.0)
    found = trials(build(ledger))
    assert [(one["name"], one["energy_j"], one["value"], len(one["run_ids"])) for one in found] == [
        ("search (1)", 100.0, 0.8, 1),
        ("search (2)", 100.0, 0.9, 3),
        ("alone", 20.0, 0.6, 1),
    ]
    assert {(one["metric"], one["mode"]) for one in found} == {("val_acc", "max")}


def test_the_report_plots_them_with_the_front(ledger: Ledger) -> None:
    budget = _budget(ledger)
    _run(ledger, "cheap", budget, [(0, 0.7)], 50.0)
    assert "Metric against energy" not in render_html(build(ledger))  # one point is no comparison
    _run(ledger, "beaten <b>", budget, [(0, 0.6)], 60.0)
    _run(ledger, "best", budget, [(0, 0.9)], 90.0)
    page = render_html(build(ledger))
    assert "val_acc against energy; nothing else beats cheap, best" in page
    assert "<title>cheap: 50 J, val_acc 0.7, on the Pareto front</title>" in page
    assert "<title>beaten &lt;b&gt;: 60 J, val_acc 0.6</title>" in page


@pytest.mark.parametrize("environment", [{}, {"settings": {"mode": "sideways"}}])
def test_without_a_better_direction_there_is_no_chart(ledger: Ledger, environment) -> None:
    budget = _budget(ledger)
    for name in ("a", "b"):
        with ledger.open_run("stream", name, environment=environment, sources=SOURCES) as run:
            window(run, 50.0, 0.0)
            decide(run, budget, 0)
            come(run, 0)
    report = build(ledger)
    assert [one["mode"] for one in trials(report)] == [None, None]
    assert "Metric against energy" not in render_html(report)


def test_without_experiences_there_are_no_trials(ledger: Ledger) -> None:
    assert trials(build(ledger)) == []
    with ledger.open_run("fit", "alone", sources=SOURCES) as run:
        window(run, 50.0, 0.0)
    assert trials(build(ledger)) == []


def _trial(name: str, joules: float, value: float, mode: str = "max") -> Trial:
    return {
        "name": name,
        "run_ids": [name],
        "energy_j": joules,
        "metric": "m",
        "value": value,
        "mode": mode,
    }


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_metric_that_is_not_finite_has_no_point(value: float) -> None:
    held = [_trial("a", 1.0, value), _trial("b", 2.0, 0.5)]
    assert pareto_charts(held) == []
    ((_, chart),) = pareto_charts([*held, _trial("c", 3.0, 0.6)])
    assert "nothing else beats b, c<" in chart
    assert "a:" not in chart


@pytest.mark.parametrize(
    ("values", "mode", "front"),
    [
        pytest.param((0.5, 0.5), "max", "a, b", id="equal"),
        pytest.param((-5.0, -4.0), "max", "a, b", id="negative"),
        pytest.param((0.5, 0.6), "min", "a", id="loss"),
        pytest.param((3.4e38, -3.4e38), "min", "a, b", id="huge"),
        pytest.param((2e-12, 3e-12), "max", "a, b", id="tiny"),
    ],
)
def test_a_chart_of_any_values_stays_inside(
    values: tuple[float, float], mode: str, front: str
) -> None:
    same_j = 1.0 if values[0] == values[1] else 2.0
    held = [_trial("a", 1.0, values[0], mode), _trial("b", same_j, values[1], mode)]
    ((_, chart),) = pareto_charts(held)
    assert f"nothing else beats {front}<" in chart
    labels = re.findall(r'text-anchor="end"[^>]*>([^<]*)<', chart)
    assert len(set(labels)) == len(labels) >= 2  # no two ticks read the same
    assert max(map(len, labels)) <= 10
    for place in re.findall(r' [cxy]{1,2}[12]?="([^"]*)"', chart):
        assert 0 <= float(place) <= WIDTH


def test_values_further_apart_than_numbers_reach_have_no_chart() -> None:
    assert pareto_charts([_trial("a", 1.0, 1.7e308), _trial("b", 2.0, -1.7e308)]) == []


def test_of_many_trials_only_the_front_is_named() -> None:
    many = [_trial(f"{'n' * 200}{place}", 100.0 + place, 0.1) for place in range(1000)]
    ((_, chart),) = pareto_charts([*many, _trial("best", 90.0, 0.9)])
    assert chart.count("<title>") == 1002
    assert ">best</text>" in chart
    assert "n…</text>" not in chart
    rising = [_trial(f"t{place}", 1.0 + place, float(place)) for place in range(1000)]
    ((_, chart),) = pareto_charts(rising)
    assert 10 < len(re.findall(r">t\d+</text>", chart)) <= MOST_NAMED


def _fit(ledger: Ledger, name: str, joules: float, acc: float, **closing) -> None:
    run = ledger.open_run("fit", name, sources=SOURCES)
    window(run, joules, 0.0)
    metrics = [
        {"name": "val_acc", "value": acc, "mode": "max"},
        {"name": "loss", "value": 1.0, "mode": None},
    ]
    run.close(metrics=json.dumps(metrics), **closing)


def test_fits_are_points_next_to_streams_in_every_output(ledger: Ledger) -> None:
    _fit(ledger, "net", 50.0, 0.7)
    _run(ledger, "net", _budget(ledger), [(0, 0.8)], 90.0)
    _fit(ledger, "net", 60.0, 0.75, resumed_j=40.0)
    _fit(ledger, "alone", 10.0, 0.5)
    report = build(ledger)
    jsonschema.Draft202012Validator(SCHEMA).validate(report)
    found = [(one["name"], one["energy_j"], one["value"]) for one in trials(report)]
    assert found == [
        ("net", 90.0, 0.8),
        ("net (1)", 50.0, 0.7),
        ("net (2)", 100.0, 0.75),
        ("alone", 10.0, 0.5),
    ]
    page = render_html(report)
    assert "<title>net (1): 50 J, val_acc 0.7, on the Pareto front</title>" in page
    assert "<title>net (2): 100 J, val_acc 0.75</title>" in page
    assert "val_acc</bdi> 0.7 (more is better), <bdi>loss</bdi> 1, at the end of the fit" in page
    assert "at the end of the fit; <bdi>net (2)</bdi> in the chart" in page
    assert "used over 1 experience and by 3 runs without decisions." in page
    assert "after 40 J, which an earlier run used for the same fit" in page
    header, first, *_ = csv.reader(io.StringIO(render_runs(report)))
    row = dict(zip(header, first, strict=True))
    shown = (row["metric"], row["last metric"], row["metric mode"])
    assert shown == ("val_acc", "0.7", "max")
    document = overview([ledger], STARTED)
    names = {row["name"]: [one["name"] for one in row["trials"]] for row in document["others"]}
    assert names == {"net": ["net (1)", "net (2)"], "alone": ["alone"]}
    page = render_overview(document)
    assert "nothing else beats alone, net (1), net<" in page
    assert "<td>0.75 val_acc</td>" in page
    assert "used over 1 experience and by 3 runs without decisions." in page
    rows = {(row["name"], row["metric"], row["final_metric"]) for row in roll_up([ledger], "run")}
    assert ("alone", "val_acc", 0.5) in rows


def test_a_fit_that_is_partly_outside_of_the_interval_is_no_trial(ledger: Ledger) -> None:
    _fit(ledger, "net", 50.0, 0.7)
    (run,) = ledger.rows("run")
    (closing,) = ledger.rows("closing")
    assert len(trials(build(ledger, since=run["recorded_utc"]))) == 1
    assert trials(build(ledger, until=closing["recorded_utc"])) == []


@pytest.mark.parametrize(
    "metrics",
    ["x", "{}", "[3]", '[{"name": "a"}]', '[{"name": "a", "value": true, "mode": "max"}]', "[[]]"],
)
def test_metrics_that_were_tampered_with_break_no_report(ledger: Ledger, metrics: str) -> None:
    ledger.open_run("fit", "net").close(metrics=metrics)
    report = build(ledger)
    assert [run["metrics"] for run in report["runs"]] == [[]]
    assert trials(report) == []


def test_trials_of_one_name_have_the_beginning_of_their_run() -> None:
    same = [{**_trial("a", 1.0, 0.5), "run_ids": [run_id]} for run_id in ("0123456789", "abc")]
    names = [one["name"] for one in distinct([*same, _trial("b", 1.0, 0.5)])]
    assert names == ["a 01234567", "a abc", "b"]
