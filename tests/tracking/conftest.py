"""MLflow stores and servers for the tests: each kind is made once, because it takes seconds."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from mlflow.tracking import MlflowClient

from tests.ledger.cluster import Cluster


class Server:
    """A real ``mlflow server`` in a process of its own, which can be killed and started again.

    Args:
        backend: URL of its database.
        folder: Where its artifacts and its log go.
    """

    def __init__(self, backend: str, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self._port}"
        self._backend = backend
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [
            *(sys.executable, "-m", "mlflow", "server", "--workers", "1"),
            *("--host", "127.0.0.1", "--port", str(self._port)),
            *("--backend-store-uri", self._backend),
            *("--artifacts-destination", str(self._folder / "artifacts")),
        ]
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        for _ in range(1200):
            try:
                with urlopen(f"{self.uri}/health", timeout=1.0):
                    return
            except (URLError, OSError):
                if self._process.poll() is not None:
                    break
                time.sleep(0.1)
        raise RuntimeError((self._folder / "server.log").read_text()[-3000:])

    def kill(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, 9)
            self._process.wait()
            self._process = None


@pytest.fixture(scope="session")
def _made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mlflow-template") / "mlflow.db"
    MlflowClient(tracking_uri=f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def store(_made: Path, tmp_path: Path) -> str:
    """The URL of an empty store in a file of its own."""
    return f"sqlite:///{shutil.copy(_made, tmp_path / 'mlflow.db')}"


@pytest.fixture(scope="module")
def module_store(_made: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URL of an empty store that the tests of a module share."""
    return f"sqlite:///{shutil.copy(_made, tmp_path_factory.mktemp('store') / 'mlflow.db')}"


@pytest.fixture(scope="session")
def server(_made: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server on a SQLite file."""
    folder = tmp_path_factory.mktemp("mlflow-server")
    begun = Server(f"sqlite:///{shutil.copy(_made, folder / 'mlflow.db')}", folder)
    begun.start()
    yield begun
    begun.kill()


@pytest.fixture(scope="session")
def postgres_server(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server on PostgreSQL."""
    cluster.run("CREATE DATABASE mlflow")
    begun = Server(cluster.url("mlflow"), tmp_path_factory.mktemp("mlflow-postgres"))
    begun.start()
    yield begun
    begun.kill()


@pytest.fixture
def queue_folder(tmp_path: Path) -> Path:
    """A folder for what waits."""
    return tmp_path / "queue"
