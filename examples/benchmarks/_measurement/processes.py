"""Start tools in separate processes, each on a simulated node of NVIDIA cards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT))

from tests.nvml.simulation import Node, build  # noqa: E402  the repository's root is on no path

Job = TypeVar("Job")

_WORKER = Path(__file__).with_name("worker.py")
_MARK = "benchmark-result "
PEERS = ("codecarbon", "carbontracker", "zeus")
NAMES = {
    "greentrain": "greentrain",
    "codecarbon": "CodeCarbon",
    "codecarbon-run": "CodeCarbon",
    "carbontracker": "Carbontracker",
    "zeus": "Zeus",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The result of a worker, or its end without one.

    Args:
        result: The result; empty without one.
        node: The simulated node that it ran on.
        code: Its exit code.
        error: The last line that it wrote to standard error.
    """

    result: dict[str, Any]
    node: Node
    code: int
    error: str

    @property
    def truth_j(self) -> float:
        """The exact joules of all cards over the worker's window."""
        origin_s = self.node.origin_s
        began_s, ended_s = self.result["began_s"] - origin_s, self.result["ended_s"] - origin_s
        return float(sum(card.energy_j(began_s, ended_s) for card in self.node.shown))


class Workers:
    """Starts ``worker.py``.

    Args:
        folder: Folder of the nodes, the library and all files that tools write.
        peers_python: The interpreter that has the peers.
    """

    def __init__(self, folder: Path, peers_python: str | None) -> None:
        self.folder = folder
        self.peers_python = peers_python
        self._count = 0
        self.library = build(folder)
        # CodeCarbon assumes NVIDIA cards if the machine has such a command.
        self._stub = folder / "bin"
        self._stub.mkdir()
        (self._stub / "nvidia-smi").write_text("#!/bin/sh\nexit 0\n")
        (self._stub / "nvidia-smi").chmod(0o755)

    def node(self, cards: int = 1) -> Node:
        """Return a new node."""
        self._count += 1
        return Node(self.folder / f"node{self._count}", count=cards)

    def missing(self, tool: str) -> str:
        """Return the reason why a tool cannot be run; empty if it can."""
        package = tool.partition("-")[0]
        if package not in PEERS:
            return ""
        if self.peers_python is None:
            return f"{NAMES[tool]} was not run: no --peers-python was given"
        look = [self.peers_python, "-c", f"import {package}"]
        if subprocess.run(look, capture_output=True).returncode != 0:
            return f"{NAMES[tool]} was not run: {self.peers_python} does not have it"
        return ""

    def run(self, tool: str, task: dict[str, Any], node: Node, **environment: str) -> Answer:
        """Run a task of a tool on a node that follows the real clock."""
        python = self._python(tool)
        if python is None:
            raise ValueError(f"{tool} has no interpreter")
        node.run_in_real_time()
        own = self.folder / f"{node.path.name}-files"
        own.mkdir()
        paths = {
            "LD_LIBRARY_PATH": f"{self.library.parent}:{os.environ.get('LD_LIBRARY_PATH', '')}",
            "PATH": f"{self._stub}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "TMPDIR": str(own),
            "OMP_NUM_THREADS": "1",
        }
        kept = {k: v for k, v in os.environ.items() if not k.startswith("CUDA_")}
        done = subprocess.run(
            [python, str(_WORKER), json.dumps({"tool": tool, **task})],
            env=kept | paths | node.environment | environment,
            cwd=own,
            capture_output=True,
            text=True,
            timeout=900,
        )
        printed = [line for line in done.stdout.splitlines() if line.startswith(_MARK)]
        return Answer(
            result=json.loads(printed[-1].removeprefix(_MARK)) if printed else {},
            node=node,
            code=done.returncode,
            error=done.stderr.strip().rpartition("\n")[2][:200],
        )

    def _python(self, tool: str) -> str | None:
        return self.peers_python if tool.partition("-")[0] in PEERS else sys.executable


def at_once(call: Callable[[Job], Answer], jobs: Sequence[Job], *, width: int) -> list[Answer]:
    """Run calls that mostly wait, a number of them at a time."""
    with ThreadPoolExecutor(width) as pool:
        return list(pool.map(call, jobs))
