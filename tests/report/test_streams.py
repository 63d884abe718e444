"""A stream is one stream over all its runs, and an experience counts once."""

from __future__ import annotations

import pytest

from greentrain.budget import Budget
from greentrain.ledger import Ledger
from greentrain.report import build, render_html
from greentrain.report.exports import markdown
from tests.report.ledgers import come, decide


def runs_of(ledger: Ledger, name: str, *runs: list[tuple[int, float | None]]) -> None:
    """Record runs of a stream, each with its positions and metrics; ``None`` was killed."""
    budget = ledger.open_budget(name, Budget.parse("2 Wh", num_experiences=9))
    for positions in runs:
        run = ledger.open_run("stream", name)
        for position, value in positions:
            decide(run, budget, position)
            if value is not None:
                come(run, position, metric_after=value)
        if all(value is not None for _, value in positions):
            run.close()


@pytest.mark.parametrize(
    ("streams", "experiences", "done", "metrics"),
    [
        pytest.param(
            {"a": [[(0, 0.1)], [(1, 0.2)]], "b": [[(0, 0.3)], [(1, 0.4)], [(2, 0.5)]]},
            *(5, 5, {"a": 0.2, "b": 0.5}),
            id="two streams, each resumed",
        ),
        pytest.param(
            {"a": [[(0, 0.1), (1, None)], [(1, 0.2), (2, 0.3)]]},
            *(3, 3, {"a": 0.3}),
            id="killed, then done by the next run",
        ),
        pytest.param(
            {"a": [[(0, 0.1), (1, None)], [(1, None)], [(1, None)]]},
            *(2, 1, {"a": 0.1}),
            id="killed three times and never done",
        ),
        pytest.param(
            {"a": [[(0, 0.1), (1, 0.2)], [(0, 0.3), (1, 0.4)]]},
            *(2, 2, {"a": 0.4}),
            id="updated again after the stream went back",
        ),
        pytest.param(
            {"a": [[(0, None)], [(0, 0.2)]], "b": [[(0, None)]]},
            *(2, 1, {"a": 0.2}),
            id="the other stream has no outcome yet",
        ),
        pytest.param(
            {"a": [[(n, n / 10)] for n in range(6)]},
            *(6, 6, {"a": 0.5}),
            id="one experience in each run",
        ),
    ],
)
def test_a_stream_is_one_over_all_its_runs(ledger, streams, experiences, done, metrics):
    for name, runs in streams.items():
        runs_of(ledger, name, *runs)
    report = build(ledger)
    summary = report["summary"]
    assert [one["name"] for one in summary["by_stream"]] == list(streams)
    assert (summary["experiences"], summary["done"]) == (experiences, done)
    assert summary["interrupted"] == experiences - done
    assert summary["update_modes"]["SKIP"] == done
    known = {
        one["name"]: one["final_metric"]
        for one in summary["by_stream"]
        if one["final_metric"] is not None
    }
    assert known == metrics
    page = render_html(report)
    assert f"over {experiences} experience" in page
    if len(streams) > 1 and len(metrics) > 1:
        assert f"{len(streams)} <small>streams</small>" in page
    row = next(line for line in markdown.render(report).splitlines() if "last metric" in line)
    assert all(f"{value:.3f}".rstrip("0") in row for value in metrics.values())


def test_two_ledgers_hold_two_streams_of_one_name(ledger, tmp_path):
    other = Ledger(f"sqlite:///{tmp_path / 'other.db'}")
    for one in (ledger, other):
        runs_of(one, "a", [(0, 0.1)], [(1, 0.2)])
    summary = build([ledger, other])["summary"]
    assert (len(summary["by_stream"]), summary["experiences"]) == (2, 4)
    assert summary["final_metric"] is None  # metrics of two streams are not mixed
    other.close()
