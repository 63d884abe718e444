"""MLflow's page in a real browser, on a stream that a real server was told of."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from mlflow.tracking import MlflowClient

from greentrain import StreamTrainer, UpdateMode
from greentrain.demo import DigitsModel
from greentrain.energy import ConstantMeter
from greentrain.ledger import Ledger
from greentrain.report import build, write
from greentrain.streams import digits_stream
from greentrain.tracking import MlflowTracker, names
from greentrain.training import CarbonConfig, UpdateResult
from tests.models import Clock, Tick
from tests.tracking.conftest import Server

pytestmark = pytest.mark.slow
EXPERIENCES = 8
EPOCHS = 12
# Charts are drawn when they come into view: a page on which all of them are.
TALL = {"width": 1400, "height": 3600}
WAIT_MS = 60_000  # only how long to wait for a page on a loaded machine
# A server without accounts knows no present user, and a page without a window may tell nobody.
MLFLOWS_OWN = re.compile(r"/mlflow/users/current$|notifications\.$")
CHARTS = "() => [...document.querySelectorAll('.js-plotly-plot')].flatMap(plot => plot.data)"
DRAWN = f"""names => {{
    const drawn = ({CHARTS})().map(trace => trace.metricKey || trace.name || '');
    return names.every(name => drawn.some(each => each.includes(name)));
}}"""
POINTS = f"""name => ({CHARTS})()
    .filter(trace => (trace.metricKey || trace.name || '').includes(name))
    .reduce((most, trace) => Math.max(most, trace.y.length), 0)"""


@dataclass
class Shown:
    """A stream that was told to a server.

    Args:
        page: Begins the address of everything about its experiment.
        parent: Id of the stream's run.
        children: Ids of its updates' runs by the experience.
        results: What came of each experience.
    """

    page: str
    parent: str
    children: dict[str, str]
    results: list[UpdateResult]

    @property
    def first_epochs(self) -> int:
        """Number of epochs of the first update, which the small budget shortens."""
        return math.ceil(EPOCHS * self.results[0].steps / self.results[0].decision.steps)

    def address(self, run_id: str, tab: str) -> str:
        return f"{self.page}/runs/{run_id}/{tab}?workflowType=machine_learning"


@pytest.fixture(scope="module")
def shown(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Shown:
    folder, clock = tmp_path_factory.mktemp("shown"), Clock()
    ledger_url = f"sqlite:///{folder / 'greentrain.db'}"
    tracker = MlflowTracker(server.uri, experiment="dashboard", queue_folder=folder / "queue")
    with StreamTrainer(
        DigitsModel,
        budget="1.2 Wh",  # small enough for all four update modes
        num_experiences=EXPERIENCES,
        monitor="val_acc",
        ledger=ledger_url,
        trainer={
            "max_epochs": EPOCHS,
            "accelerator": "cpu",
            "callbacks": [Tick(clock, 0.05, 0.02)],
        },
        loader={"batch_size": 32},
        meter=ConstantMeter({"cpu": 60.0, "gpu:0": 300.0}, clock=clock),
        carbon=CarbonConfig(zone="DE"),
        name="digits",
        tracking_uri=tracker,
    ) as trainer:
        results = trainer.run(digits_stream()[:EXPERIENCES])
    ledger = Ledger(ledger_url, create=False)
    tracker.attach(write(build(ledger, run=trainer.run_id), folder))
    ledger.close()
    client = MlflowClient(tracking_uri=server.uri)
    parent = str(tracker.run_id)
    experiment = client.get_run(parent).info.experiment_id
    found = client.search_runs([experiment], f"tags.mlflow.parentRunId = '{parent}'")
    return Shown(
        page=f"{server.uri}/#/experiments/{experiment}",
        parent=parent,
        children={run.data.tags[names.TAG_EXPERIENCE]: run.info.run_id for run in found},
        results=results,
    )


@pytest.fixture
def page(browser: Any, server: Server) -> Iterator[Any]:
    """A page that may ask only the server, and whose scripts may not fail."""
    opened = browser.new_page(viewport=TALL)
    elsewhere: list[str] = []
    errors: list[str] = []
    opened.on(
        "request",
        lambda request: (
            None
            if request.url.startswith((server.uri, "data:", "blob:"))
            else elsewhere.append(request.url)
        ),
    )
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.on(
        "console",
        lambda told: (
            errors.append(told.text)
            if told.type == "error" and not told.text.startswith("Failed to load resource")
            else None
        ),
    )
    opened.on(  # whose address the console does not tell
        "response",
        lambda answer: errors.append(answer.url) if answer.status >= 400 else None,
    )
    yield opened
    opened.close()
    assert elsewhere == []
    assert [error for error in errors if not MLFLOWS_OWN.search(error)] == []


def picture(page: Any, name: str) -> None:
    """Keep what the page shows, where somebody asked for it."""
    folder = os.environ.get("GREENTRAIN_SCREENSHOTS")
    if folder:
        page.set_viewport_size({"width": 1400, "height": 1000})
        page.wait_for_timeout(2000)  # for charts to fit in again
        beside_its_assistant = {"x": 0, "y": 0, "width": 1040, "height": 1000}
        page.screenshot(path=str(Path(folder) / f"mlflow-{name}.png"), clip=beside_its_assistant)


def test_the_streams_charts_have_a_point_for_each_experience(page: Any, shown: Shown) -> None:
    # The first training has no price, and neither has a decision that can pay for nothing.
    priced = sum(each.decision.min_gain_per_j is not None for each in shown.results)
    assert EXPERIENCES - 2 <= priced < EXPERIENCES
    wanted = {
        names.ENERGY_CUMULATIVE: EXPERIENCES,
        names.EMISSIONS_CUMULATIVE: EXPERIENCES,
        names.BUDGET_LEFT: EXPERIENCES,
        names.BUDGET_MIN_GAIN: priced,
        names.ANYTIME: EXPERIENCES,
        names.UPDATE_MODE_STEP: EXPERIENCES,
    }
    page.goto(shown.address(shown.parent, "model-metrics"))
    page.wait_for_function(DRAWN, arg=list(wanted), timeout=WAIT_MS)
    assert {name: page.evaluate(POINTS, name) for name in wanted} == wanted
    picture(page, "charts")


def test_an_updates_charts_have_a_point_for_each_epoch(page: Any, shown: Shown) -> None:
    page.goto(shown.address(shown.children[shown.results[0].experience_id], "model-metrics"))
    page.wait_for_function(DRAWN, arg=[names.ENERGY_EPOCH], timeout=WAIT_MS)
    assert page.evaluate(POINTS, names.ENERGY_EPOCH) == shown.first_epochs


def test_power_has_its_own_tab(page: Any, shown: Shown) -> None:
    page.goto(shown.address(shown.children[shown.results[0].experience_id], "system-metrics"))
    page.wait_for_function(DRAWN, arg=["gpu_0_power_usage_watts"], timeout=WAIT_MS)
    assert page.evaluate(POINTS, "gpu_0_power_usage_watts") >= shown.first_epochs


def test_a_filter_finds_the_runs_of_an_update_mode(page: Any, shown: Shown) -> None:
    assert {each.update_mode for each in shown.results} == {*UpdateMode} - {UpdateMode.FINE_TUNE}
    modes = [each.update_mode for each in shown.results if each.update_mode is not UpdateMode.SKIP]
    for mode in sorted(set(modes)):
        wanted = quote(f"tags.`{names.TAG_UPDATE_MODE}` = '{mode}'")
        page.goto(f"{shown.page}/runs?workflowType=machine_learning&searchFilter={wanted}")
        count = modes.count(mode) + 1  # the updates, and the stream that they are listed under
        page.get_by_text(f"{count} matching runs", exact=True).wait_for(timeout=WAIT_MS)


def test_the_report_opens_inside_the_run(page: Any, shown: Shown) -> None:
    page.goto(shown.address(shown.parent, "artifacts"))
    page.get_by_text("report.html").first.click(timeout=WAIT_MS)
    heading = page.frame_locator("iframe").get_by_role("heading", name="digits", exact=True)
    heading.wait_for(timeout=WAIT_MS)
    assert heading.count() == 1
    picture(page, "report")
