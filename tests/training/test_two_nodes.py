"""Two nodes with a network and a hostname each, on one machine: network and UTS namespaces."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from greentrain.errors import GreentrainError
from greentrain.ledger import Ledger, verify
from greentrain.ledger.environment import host_hash
from tests.ledger.cluster import Cluster, programs
from tests.models import Clock, Tick, experience
from tests.training.rank_worker import Counted
from tests.training.streaming import open_stream, rows

ROOT = Path(__file__).parents[2]
NODES = ("gt-node-a", "gt-node-b")


def allowed(*command: str) -> bool:
    """Return whether this machine allows a command of ``ip`` or ``unshare``."""
    if shutil.which(command[0]) is None:
        return False
    return subprocess.run(command, capture_output=True).returncode == 0


@pytest.fixture
def nodes() -> Iterator[list[list[str]]]:
    """The beginning of a command on each of two nodes, which a virtual cable connects."""
    ends = [f"gtv{number}-{os.getpid()}"[:15] for number in range(2)]
    spaces = [f"{node}-{os.getpid()}" for node in NODES]
    cable = ["ip", "link", "add", ends[0], "type", "veth", "peer", "name", ends[1]]
    if not all(allowed("ip", "netns", "add", space) for space in spaces) or not allowed(*cable):
        for space in spaces:
            allowed("ip", "netns", "delete", space)
        pytest.skip("network namespaces need root, and the command ip")
    for number, (space, end) in enumerate(zip(spaces, ends, strict=True)):
        assert allowed("ip", "link", "set", end, "netns", space)
        for part in (
            ["address", "add", f"10.91.7.{number + 1}/24", "dev", end],
            ["link", "set", end, "up"],
            ["link", "set", "lo", "up"],
        ):
            assert allowed("ip", "-n", space, *part)
    yield [
        ["ip", "netns", "exec", space, "env", f"GLOO_SOCKET_IFNAME={end}", *named(node)]
        for space, end, node in zip(spaces, ends, NODES, strict=True)
    ]
    for space in spaces:
        allowed("ip", "netns", "delete", space)


def named(node: str) -> list[str]:
    """Return the beginning of a command on a host of this name."""
    return ["unshare", "-u", "sh", "-c", f'hostname {node}; exec "$@"', "sh"]


@pytest.mark.slow
def test_torchrun_on_two_nodes(nodes: list[list[str]], tmp_path: Path) -> None:
    given = json.dumps({"batch_size": 4, "count": 1})
    worker = ["-m", "tests.training.rank_worker", str(tmp_path), given]
    launched = [
        subprocess.Popen(
            [*node, sys.executable, "-m", "torch.distributed.run", "--nnodes", "2",
             "--node-rank", str(number), "--nproc-per-node", "1", "--master-addr", "10.91.7.1",
             "--master-port", "29517", *worker],
            cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )
        for number, node in enumerate(nodes)
    ]  # fmt: skip
    errors = [one.communicate(timeout=600)[1] for one in launched]
    assert [one.returncode for one in launched] == [0, 0], errors
    first, second = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1))
    assert first["weights"] == second["weights"]
    assert (first["steps"], first["rank"], second["rank"]) == ([16], 0, 1)
    assert first["energy_j"] == pytest.approx([16.0], rel=1e-6)
    [run] = rows(tmp_path, "run")
    assert run["host"] == host_hash(NODES[0])  # rank 0 alone records


HOLD = """
import sys
from greentrain.ledger import Ledger
from greentrain.errors import LedgerError
ledger = Ledger(sys.argv[1])
try:
    run = ledger.open_run("stream", "here")
except LedgerError as error:
    print(error)
    sys.exit(3)
print("open", flush=True)
sys.stdin.read()
run.close()
"""


def test_a_sqlite_ledger_is_refused_to_a_second_host(tmp_path: Path) -> None:
    if not allowed("unshare", "-u", "true"):
        pytest.skip("a separate hostname needs root, and the command unshare")
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    commands = [[*named(node), sys.executable, "-c", HOLD, url] for node in NODES]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(commands[0], cwd=ROOT, **pipes) as first:
        assert first.stdout.readline() == "open\n"
        second = subprocess.run(commands[1], cwd=ROOT, input="", capture_output=True, text=True)
        assert second.returncode == 3, second.stderr
        assert "another host writes to the ledger" in second.stdout
        assert "use 'postgresql+psycopg://user@host/database' for all" in second.stdout
        first.communicate("")
    # Once its run is closed, another host may write.
    third = subprocess.run(commands[1], cwd=ROOT, input="", capture_output=True, text=True)
    assert (third.returncode, third.stdout) == (0, "open\n"), third.stderr


class Stops(Tick):
    """Stop a database server at a batch."""

    def __init__(self, clock: Clock, server: Cluster, batch: int) -> None:
        super().__init__(clock)
        self.server, self.batch, self.seen = server, batch, 0

    def on_train_batch_start(self, *args, **kwargs) -> None:
        super().on_train_batch_start(*args, **kwargs)
        self.seen += 1
        if self.seen == self.batch:
            self.server.stop()


@pytest.mark.slow
def test_a_database_that_goes_away_in_mid_update_loses_nothing(tmp_path: Path) -> None:
    servers = programs()
    if servers is None:
        pytest.skip("PostgreSQL is not installed")
    server = Cluster(servers)
    try:
        clock = Clock()
        given = {"ledger": server.new(), "state_dir": tmp_path / "state"}
        stops = {"max_epochs": 4, "accelerator": "cpu", "callbacks": [Stops(clock, server, 30)]}
        first, second = experience("first", (0, 1)), experience("second", (0, 1, 2, 3))
        try:
            with (
                pytest.raises(GreentrainError, match=r"^the ledger '.*' failed: ") as raised,
                open_stream(tmp_path, Counted, clock=clock, trainer=stops, **given) as stream,
            ):
                stream.update(first)
                stream.update(second)
        finally:
            server.start()
        assert "\n" not in str(raised.value)
        again = Clock()
        with open_stream(tmp_path, Counted, clock=again, **given) as stream:
            assert list(stream.known) == ["first"]
            stream.update(second)
            assert list(stream.known) == ["first", "second"]
        ledger = Ledger(given["ledger"])
        assert verify(ledger).ok
        # The rows of the failed update waited in a local file.
        measured_j = sum(row["energy_j"] or 0.0 for row in ledger.windows())
        assert measured_j == pytest.approx(100.0 * (clock.seconds + again.seconds))
        ledger.close()
    finally:
        server.remove()
