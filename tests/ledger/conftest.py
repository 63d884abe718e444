"""The ledger's tests run on both engines."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from greentrain.ledger import Ledger
from tests.ledger.cluster import Cluster


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a ledger may be made that is not there yet."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'ledger.db'}"
    cluster: Cluster = request.getfixturevalue("cluster")
    return cluster.new()


@pytest.fixture
def ledger(url: str) -> Iterator[Ledger]:
    """An empty ledger, on each engine."""
    opened = Ledger(url)
    yield opened
    opened.close()
