"""Experiences of real MLflow datasets, fresh and as a run remembers them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import mlflow.data
import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import pytest
from mlflow.entities import Dataset

from greentrain.errors import ConfigurationError
from greentrain.streams import Experience, from_mlflow

pytestmark = [
    pytest.mark.filterwarnings("ignore:The specified dataset source can be interpreted"),
    # MLflow's own use of pandas, and its hints.
    pytest.mark.filterwarnings("ignore:Starting with pandas version 4.0"),
    pytest.mark.filterwarnings("ignore:.*Inferred schema contains integer column"),
]


def frame(n: int = 20) -> pd.DataFrame:
    numbers = np.arange(n)
    return pd.DataFrame({"a": numbers / 2, "b": numbers * 2.0, "y": numbers % 2})


def rows(experience: Experience) -> list[tuple[list[float], int]]:
    found: list[Any] = [*experience.train, *experience.val]  # type: ignore[misc]
    return sorted((features.tolist(), int(label)) for features, label in found)


EXPECTED = [([i / 2, 2.0 * i], i % 2) for i in range(20)]


def test_a_table_becomes_an_experience_named_by_its_digest() -> None:
    dataset = mlflow.data.from_pandas(frame(), targets="y", name="arrivals")
    experience = from_mlflow(dataset, val_share=0.25)
    assert experience.id == dataset.digest
    assert rows(experience) == EXPECTED
    assert len(experience.val) == 5  # type: ignore[arg-type]
    assert experience.metadata["name"] == "arrivals"
    changed = frame().assign(a=1.0)
    assert from_mlflow(mlflow.data.from_pandas(changed, targets="y")).id != experience.id


def test_labels_may_be_named_and_predictions_are_no_features() -> None:
    guessed = frame().assign(guess=0.5)
    dataset = mlflow.data.from_pandas(guessed, predictions="guess")
    assert rows(from_mlflow(dataset, target="y")) == EXPECTED


def test_arrays_become_an_experience() -> None:
    table = frame()
    dataset = mlflow.data.from_numpy(table[["a", "b"]].to_numpy(), targets=table["y"].to_numpy())
    experience = from_mlflow(dataset)
    assert (experience.id, rows(experience)) == (dataset.digest, EXPECTED)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One store for all tests: a new one takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}"


def logged(dataset: Any, store: str, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    """The dataset as it is in a run that it was logged to."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    experiment = mlflow.create_experiment(dataset.name)
    with mlflow.start_run(experiment_id=experiment) as run:
        mlflow.log_input(dataset, context="training")
    (back,) = mlflow.get_run(run.info.run_id).inputs.dataset_inputs
    return back.dataset


@pytest.mark.slow
def test_what_a_run_had_as_input_is_read_from_its_source(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "monday.csv"
    frame().to_csv(path, index=False)
    dataset = mlflow.data.from_pandas(frame(), source=str(path), targets="y", name="monday")
    back = logged(dataset, database, monkeypatch)
    experience = from_mlflow(back, target="y")
    assert (experience.id, rows(experience)) == (dataset.digest, EXPECTED)
    # The same samples are held out as of the table itself.
    fresh = from_mlflow(dataset)
    assert [int(y) for _, y in experience.val] == [int(y) for _, y in fresh.val]  # type: ignore[attr-defined]
    with pytest.raises(ConfigurationError, match="has the columns a, b, y; say by target="):
        from_mlflow(back)
    path.write_text("", encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"cannot read '.*monday.csv'"):
        from_mlflow(back, target="y")
    path.unlink()
    with pytest.raises(ConfigurationError, match=r"monday\.csv"):
        from_mlflow(back, target="y")


@pytest.mark.slow
def test_a_dataset_that_came_from_code_cannot_be_read_again(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = mlflow.data.from_pandas(frame(), targets="y", name="made")
    back = logged(dataset, database, monkeypatch)
    with pytest.raises(ConfigurationError, match="'made' was logged without a source that can be"):
        from_mlflow(back, target="y")


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (frame, "dataset is a DataFrame; it must be an MLflow dataset of pandas or NumPy"),
        (
            lambda: mlflow.data.from_pandas(frame()),
            "has the columns a, b, y; say by target= which is y",
        ),
        (lambda: mlflow.data.from_numpy(np.zeros(3)), "one array of features and one of targets"),
        (
            lambda: mlflow.data.from_numpy({"a": np.zeros(3)}, targets=np.zeros(3)),
            "one array of features and one of targets",
        ),
        (lambda: mlflow.data.from_pandas(frame(1), targets="y"), "holds 1 of the samples"),
    ],
)
def test_what_holds_no_samples_is_refused(make: Callable[[], Any], complaint: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        from_mlflow(make())
    assert complaint in str(caught.value)
