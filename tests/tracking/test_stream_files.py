"""Charts, model card and figures of streams in MLflow: of two that share a budget."""

from __future__ import annotations

import io
import json
import logging
import threading
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient
from PIL import Image

from greentrain import StreamTrainer
from greentrain.ledger import Ledger
from greentrain.report.exports import model_card
from greentrain.report.recheck_exports import check_rendered
from greentrain.report.stream_files import CARD, CARD_REPORT, report_of
from greentrain.tracking import MlflowTracker, RunFiles, Tracker, names
from greentrain.tracking.publisher import Publisher
from greentrain.training import CarbonConfig
from tests.models import Classifier, Clock, experience
from tests.training.fitting import timed
from tests.training.streaming import ledger_url, open_stream

ARRIVALS = (("first", (0, 1)), ("second", (2,)), ("third", (3,)))
COMPARED = (
    names.ENERGY_CUMULATIVE,
    names.ENERGY_AVOIDED,
    names.EMISSIONS_CUMULATIVE,
    names.METRIC_AFTER,
    names.BUDGET_LEFT,
)


@dataclass
class Shared:
    """Two streams in one experiment.

    Args:
        folder: With the ledger ``greentrain.db``.
        client: Of the store.
        parents: Run ids by the stream's name.
        left_wh: The shared budget in the ledger after each of its stream's experiences.
    """

    folder: Path
    client: MlflowClient
    parents: dict[str, str]
    left_wh: dict[str, list[float]]

    def artifact(self, stream: str, path: str) -> Path:
        run = self.client.get_run(self.parents[stream])
        return Path(run.info.artifact_uri.removeprefix("file://"), path)


def opened(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content))


def stream_of(folder: Path, tracker: Tracker | MlflowTracker, name: str, **more: Any) -> Any:
    clock = Clock()
    usual = {"budget": "4000 J", "num_experiences": 6, "tracking_uri": tracker, "name": name}
    return open_stream(folder, timed(clock, Classifier), clock=clock, **{**usual, **more})


def tracker_of(folder: Path, store: str) -> MlflowTracker:
    return MlflowTracker(
        store, artifact_location=(folder / "artifacts").as_uri(), queue_folder=folder / "queue"
    )


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, module_store: str) -> Shared:
    folder = tmp_path_factory.mktemp("shared")
    trackers = {name: tracker_of(folder, module_store) for name in ("digits", "letters [a-c]")}
    streams: dict[str, StreamTrainer] = {
        name: stream_of(
            folder,
            tracker,
            name,
            shared_budget="team",
            carbon=CarbonConfig(zone="DE"),
            baseline_every=3,
        )
        for name, tracker in trackers.items()
    }
    left_wh: dict[str, list[float]] = {name: [] for name in streams}
    with closing(Ledger(ledger_url(folder), create=False)) as ledger:
        budget_id = ledger.find_budget("team")["budget_id"]
        for place, (experience_id, classes) in enumerate(ARRIVALS):
            for name, stream in streams.items():
                if place == 2 and name == "digits":
                    continue  # so that the streams differ
                stream.update(experience(experience_id, classes))
                left_wh[name].append(ledger.balance(budget_id).left_j / 3600)
        for stream in streams.values():
            stream.close()
    client = MlflowClient(tracking_uri=module_store)
    parents = {name: str(tracker.run_id) for name, tracker in trackers.items()}
    return Shared(folder=folder, client=client, parents=parents, left_wh=left_wh)


def test_what_is_left_of_a_shared_budget_is_the_ledgers_figure(shared: Shared) -> None:
    for name, expected in shared.left_wh.items():
        found = shared.client.get_metric_history(shared.parents[name], names.BUDGET_LEFT)
        last_of_each = {point.step: point.value for point in found}
        assert list(last_of_each.values()) == pytest.approx(expected)
    first, other = shared.left_wh.values()
    assert first[0] > other[0] > first[1] > other[1]  # each pays from what the other left


def test_streams_are_compared_by_the_same_metrics(shared: Shared) -> None:
    experiment = shared.client.get_experiment_by_name("greentrain").experiment_id
    found = shared.client.search_runs([experiment], f"metrics.`{names.ENERGY_CUMULATIVE}` > 0")
    assert {run.info.run_name for run in found} == set(shared.parents)  # and no child
    with closing(Ledger(ledger_url(shared.folder), create=False)) as ledger:
        for run in found:
            assert set(COMPARED) <= set(run.data.metrics)
            report = report_of(ledger, run.info.run_name)
            avoided, totals = report["avoided"], report["totals"]
            expected = {
                names.ENERGY_CUMULATIVE: totals["energy_j"] / 3600,
                names.ENERGY_AVOIDED: avoided["energy"]["avoided_j"] / 3600,
                names.EMISSIONS_CUMULATIVE: report["carbon"]["emissions_g"],
            }
            for name, value in expected.items():
                assert run.data.metrics[name] == pytest.approx(value), name
            measured = avoided["measured"]
            shown = run.data.metrics.get(names.ENERGY_AVOIDED_EACH)
            assert shown == (measured and pytest.approx(measured["avoided_j"] / 3600))


@pytest.mark.parametrize("chart", ["energy", "spending", "metric", "sources"])
def test_the_charts_of_the_report_are_artifacts_of_the_stream(shared: Shared, chart: str) -> None:
    for name in shared.parents:
        image = opened(shared.artifact(name, f"charts/{chart}.png").read_bytes())
        assert image.size == (1520, 652)
        if chart == "energy":
            count = len(shared.left_wh[name])
            assert image.info["Title"].startswith(f"Energy of {count} experiences")
            assert image.info["Title"].endswith(f" of {name}")


def test_the_model_card_is_of_the_stream_and_verified(shared: Shared) -> None:
    for name in shared.parents:
        card = shared.artifact(name, CARD)
        assert f"| experiences | {len(shared.left_wh[name])} |" in card.read_text()
        report = json.loads(card.with_name(CARD_REPORT).read_text())
        assert card.read_text() == model_card.new_card(report)
        with closing(Ledger(ledger_url(shared.folder), create=False)) as ledger:
            weights = report_of(ledger, name)["summary"]["weights_sha256"]
        assert f"SHA-256 of the weights: `{weights}`" in card.read_text()
        entry = model_card.entry_in(card.read_text())
        assert float(entry["emissions"]) == report["carbon"]["emissions_g"]
        ledgers = [str(shared.folder / "greentrain.db")]
        lines, code = check_rendered(card, ledgers, card.with_name(CARD_REPORT))
        assert (code, lines[-1].startswith("the file is correct")) == (0, True)
        assert "\n\n---\n" in card.read_text()  # or Markdown shows the header as a headline
        edited = shared.folder / "README.md"
        edited.write_text(card.read_text() + "\nOf my own.\n")
        lines, code = check_rendered(edited, ledgers, card.with_name(CARD_REPORT))
        assert (code, lines[-1]) == (0, "the rest of the card was not checked: it is its owner's")


def test_a_card_without_grams_says_what_is_unknown(tmp_path: Path) -> None:
    with stream_of(tmp_path, Tracked(), "plain") as stream:
        stream.update(experience(*ARRIVALS[0]))
    with closing(Ledger(ledger_url(tmp_path), create=False)) as ledger:
        card = model_card.new_card(report_of(ledger, "plain"))
    assert "so not in the header: `emissions`, `geographical_location`, `hardware_used`" in card
    assert "emissions" not in model_card.entry_in(card)


class Tracked(Tracker):
    """Makes the files at once, as a thread would."""

    def __init__(self) -> None:
        self.made: list[RunFiles] = []

    def publish(self, make: Any, step: int) -> None:
        self.made.append(make())

    def state_dict(self) -> dict[str, Any]:
        return {}


def test_files_are_those_of_the_end_of_each_update(tmp_path: Path) -> None:
    tracker = Tracked()
    with stream_of(tmp_path, tracker, "plain") as stream:
        for arrival in ARRIVALS[:2]:
            stream.update(experience(*arrival))
    cards = [made.files[CARD].decode() for made in tracker.made]
    assert ["| experiences | 1 |" in card for card in cards] == [True, False, False]
    assert ["completed" in card for card in cards] == [False, False, True]
    titles = [opened(made.files["charts/energy.png"]).info["Title"] for made in tracker.made]
    assert titles[0] == "Energy of 1 experience of plain"
    assert titles[1] == titles[2] == "Energy of 2 experiences of plain"


def test_files_that_cannot_be_made_end_no_training(
    tmp_path: Path, store: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(report: object) -> None:
        raise MemoryError("no font")

    monkeypatch.setattr("greentrain.training.stream_page.stream_files", fails)
    tracker = tracker_of(tmp_path, store)
    with caplog.at_level(logging.WARNING), stream_of(tmp_path, tracker, "plain") as stream:
        for arrival in ARRIVALS[:2]:
            assert stream.update(experience(*arrival)).experience_id == arrival[0]
    assert caplog.text.count("no new charts and no new model card") == 1
    assert "no font" in caplog.text
    run = MlflowClient(tracking_uri=store).get_run(str(tracker.run_id))
    assert run.info.status == "FINISHED"
    assert run.data.metrics[names.ENERGY_CUMULATIVE] > 0


def test_only_the_latest_files_are_made_while_others_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("greentrain.tracking.publisher.FIRST_S", 0.0)
    publisher, began, go_on = Publisher(), threading.Event(), threading.Event()
    called: list[int] = []

    def slow() -> None:
        called.append(0)
        began.set()
        go_on.wait()

    publisher.publish(slow)
    began.wait()
    for number in (1, 2, 3):
        publisher.publish(lambda number=number: called.append(number))
    go_on.set()
    publisher.finish(60.0)
    assert called == [0, 3]
    publisher.publish(lambda: called.append(4))  # a thread of its own, after the end
    publisher.finish(60.0)
    assert called == [0, 3, 4]


def test_a_short_stream_makes_its_files_at_its_end_only() -> None:
    publisher, called = Publisher(), list[int]()
    for number in (1, 2):
        publisher.publish(lambda number=number: called.append(number))
    assert called == []
    publisher.finish(60.0)
    assert called == [2]
