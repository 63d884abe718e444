"""Save models for MLflow in a local folder, and log and register them later."""

from __future__ import annotations

import inspect
import shutil
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from greentrain.tracking import names

_NEEDED = ("torch", "pytorch-lightning")


def save(model: Any, folder: Path, facts: Mapping[str, Any]) -> None:
    """Write a model as ``mlflow.pytorch.log_model`` does, with metadata.

    The requirements are given, because MLflow would load the model in another process to find them.

    Args:
        model: A PyTorch module.
        folder: A folder that does not exist yet.
        facts: Plain values for the metadata of the model.

    Raises:
        Exception: Any error of pickling or MLflow.
    """
    import mlflow.pytorch

    options: dict[str, Any] = {}
    if "serialization_format" in inspect.signature(mlflow.pytorch.save_model).parameters:
        options["serialization_format"] = "pickle"  # any other needs an example of the input
    mlflow.pytorch.save_model(
        model,
        str(folder),
        pip_requirements=[f"{name}=={version(name)}" for name in _NEEDED],
        metadata=dict(facts),
        **options,
    )


def register(client: Any, experiment_id: str, run_id: str, content: Mapping[str, Any]) -> None:
    """Log a saved model in a run, register it if it has a name, and delete the local folder.

    The results of an earlier attempt are found by the model's key.

    Args:
        client: An ``MlflowClient``.
        experiment_id: The run's experiment.
        run_id: The run.
        content: ``folder``, ``key``, ``tags``, ``step``, and ``registered`` and ``alias``, which
            may be ``None``.

    Raises:
        Exception: Any error of MLflow's stores after which this has to be tried again.
    """
    from mlflow.entities import LoggedModelOutput

    found = client.search_logged_models(
        [experiment_id], filter_string=f"tags.`{names.TAG_KEY}` = '{content['key']}'"
    )
    model = (
        found[0]
        if found
        else client.create_logged_model(
            experiment_id,
            name="model",
            source_run_id=run_id,
            tags={**content["tags"], names.TAG_KEY: content["key"]},
        )
    )
    if str(model.status) != "READY":
        client.log_model_artifacts(model.model_id, content["folder"])
        client.log_outputs(run_id, [LoggedModelOutput(model.model_id, content["step"])])
        client.finalize_logged_model(model.model_id, "READY")
    if content["registered"] is not None:
        number = _version(client, model, run_id, content)
        if content["alias"] is not None:
            client.set_registered_model_alias(content["registered"], content["alias"], number)
    shutil.rmtree(content["folder"], ignore_errors=True)


def _version(client: Any, model: Any, run_id: str, content: Mapping[str, Any]) -> str:
    """Return the version number of a model under its registered name; create it if missing."""
    from mlflow.exceptions import MlflowException

    name = content["registered"]
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    for known in client.search_model_versions(f"name = '{name}' and run_id = '{run_id}'"):
        if known.tags.get(names.TAG_KEY) == content["key"]:
            return str(known.version)
    # MLflow would search for "models:/ID" at the process's own tracking URI.
    source = model.artifact_location
    tags = {**content["tags"], names.TAG_KEY: content["key"]}
    made = client.create_model_version(
        name, source, run_id=run_id, tags=tags, model_id=model.model_id
    )
    return str(made.version)
