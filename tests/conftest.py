"""What holds for every test: nothing is left behind, and properties are tried alike each time."""

from __future__ import annotations

import gc
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

from tests.ledger.cluster import Cluster, programs

if TYPE_CHECKING:
    from greentrain.ledger import Ledger

# The models here are tiny: threads that wait for each other cost several times what they save.
# Set before torch is imported, and for the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")
settings.register_profile("greentrain", deadline=None, derandomize=True, database=None)
settings.load_profile("greentrain")

# Set by pytest itself, or by a package when it is first imported.
_ENVIRONMENT_OF_OTHERS = {
    "KMP_DUPLICATE_LIB_OK",
    "KMP_INIT_AT_FORK",
    "PYTEST_CURRENT_TEST",
    "PYTORCH_NVML_BASED_CUDA_CHECK",
    "TORCHINDUCTOR_CACHE_DIR",
    "_MLFLOW_TELEMETRY_SESSION_ID",
}
_OPEN_FILES = Path("/proc/self/fd")
# MLflow keeps the stores that it has opened for as long as the process lives; a simulated node's
# memory is mapped for as long as pytest holds the fixture's value.
_KEPT_OPEN = ("mlflow", "nvml-node")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take long, so that no process has one of them left at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(autouse=True)
def nothing_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves a thread, an open file in its folder or an environment variable."""
    environment, threads = _environment(), set(threading.enumerate())
    folder: Path | None = None
    if "tmp_path" in request.fixturenames:
        folder = request.getfixturevalue("tmp_path")
    yield
    left = [thread for thread in threading.enumerate() if thread not in threads]
    leaks = [f"thread {thread.name}" for thread in left if _is_leaked(thread)]
    leaks += [f"open file {path}" for path in _open_files(folder)]
    after = _environment()
    leaks += [
        f"environment variable {name}"
        for name in sorted({*environment, *after})
        if environment.get(name) != after.get(name)
    ]
    if leaks:
        pytest.fail(f"the test left behind: {', '.join(leaks)}", pytrace=False)


@pytest.fixture(scope="session", autouse=True)
def cache_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what waits for MLflow, and what is downloaded, away from the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def seconds() -> list[float]:
    """The time of a fake clock, ``clock=lambda: seconds[0]``, which moves only when it is set."""
    return [0.0]


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """An empty ledger in a file of its own."""
    from greentrain.ledger import Ledger  # half a second, for those who need it

    opened = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A PostgreSQL server of its own; tests that need one are skipped where none is installed."""
    folder = programs()
    if folder is None:
        missing = "PostgreSQL is not installed: there is no /usr/lib/postgresql/*/bin/initdb"
        if os.environ.get("CI") == "true":
            pytest.fail(f"{missing}, and CI tries both engines")
        pytest.skip(missing)
    begun = Cluster(folder)
    yield begun
    begun.remove()


def _environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if key not in _ENVIRONMENT_OF_OTHERS}


def _is_leaked(thread: threading.Thread) -> bool:
    if thread.daemon and not thread.name.startswith("greentrain"):
        return False
    if thread.name.startswith("asyncio_"):  # Playwright's, which ends with the browser
        return False
    thread.join(timeout=1.0)  # one that is about to end is no leak
    return thread.is_alive()


def _open_files(folder: Path | None) -> list[str]:
    if folder is None or not _open_now(folder):
        return []
    gc.collect()  # what only a cycle of objects still holds is let go of
    return _open_now(folder)


def _open_now(folder: Path) -> list[str]:
    found = []
    for descriptor in _OPEN_FILES.iterdir() if _OPEN_FILES.is_dir() else ():
        try:
            target = str(descriptor.readlink())
        except OSError:  # closed meanwhile: the listing's own descriptor is among them
            continue
        if target.startswith(f"{folder}/") and not Path(target).name.startswith(_KEPT_OPEN):
            found.append(target)
    return found


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Debian's chromium; tests that need it are skipped where there is none."""
    program = shutil.which("chromium")
    if program is None:
        missing = "chromium is not installed"
        if os.environ.get("CI") == "true":
            pytest.fail(f"{missing}, and CI looks at pages in it")
        pytest.skip(missing)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield opened
        opened.close()
