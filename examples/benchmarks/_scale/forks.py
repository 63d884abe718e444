"""Fork the ranks of a launch, and collect what each of them returns."""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any


def on_ranks(folder: Path, ranks: int, work: Callable[[int], Any]) -> list[Any]:
    """Call a function in one forked process for each rank, and return the results by rank.

    Args:
        folder: Holds the results.
        ranks: Number of ranks.
        work: Called with the rank; its result has to be plain values.

    Returns:
        The results; ``None`` for a rank that failed or was killed.
    """
    folder.mkdir(exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    paths = [folder / f"rank{rank}.json" for rank in range(ranks)]

    def one(rank: int) -> None:
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks)}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        paths[rank].write_text(json.dumps(work(rank)))

    for path in paths:
        path.unlink(missing_ok=True)
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=one, args=(rank,)) for rank in range(ranks)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return [json.loads(path.read_text()) if path.exists() else None for path in paths]
