"""The examples of Ray, on a real local cluster of two workers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from greentrain.ledger import Ledger, verify
from tests import prepared

EXAMPLES = Path(__file__).parents[2] / "examples" / "distributed"

pytestmark = pytest.mark.slow
# A cluster starts a dozen processes, and each example uses half a minute of CPU time.
pytest.importorskip(
    "ray", reason="ray is not installed: `pip install ray[train,tune]` to run its examples"
)


def run(name: str, *arguments: str, cwd: Path) -> str:
    done = prepared.python(EXAMPLES / name, *arguments, cwd=cwd)
    if "The current node timed out during startup" in done.stderr:
        pytest.skip("this machine is too busy: Ray waits 30 s for its own processes to start")
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_a_stream_is_trained_by_two_workers(tmp_path: Path) -> None:
    output = run("ray_stream.py", "--budget", "2 Wh", cwd=tmp_path)
    assert "the stream has ended" in output
    ledger = Ledger(str(tmp_path / "ray_stream.db"), create=False)
    assert verify(ledger).ok
    assert len(ledger.rows("run")) == 1  # rank 0 alone records
    assert [row["position"] for row in ledger.rows("outcome")] == [0, 1, 2]
    used_j = sum(row["energy_j"] or 0.0 for row in ledger.rows("outcome"))
    assert used_j == pytest.approx(sum(row["energy_j"] or 0.0 for row in ledger.windows()))
    ledger.close()


def test_a_search_ends_when_its_joules_do(tmp_path: Path) -> None:
    # A trial uses 10 J and more, so the parts of the first ones use up all of the budget.
    output = run("ray_search.py", "--budget", "20 J", "--trials", "6", cwd=tmp_path)
    [trials] = re.findall(r"(?m)^(\d+) trials? (?:is|are) in the ledger", output)
    ledger = Ledger(str(tmp_path / "ray_search.db"), create=False)
    assert verify(ledger).ok
    assert 0 < int(trials) < 6
    assert len(ledger.rows("run")) == int(trials)
    ledger.close()
