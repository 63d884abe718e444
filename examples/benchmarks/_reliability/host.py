"""Try failpoints: a process that imports everything once, and forks a process for each case.

``kills.py`` and ``sick.py`` start it with the library of ``failpoints.c`` loaded before all others.
It prints a line of JSON for each case.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from _reliability import failpoints, stream
from _reliability.forking import forked, spread
from _reliability.sick_disks import sick
from _reliability.sick_servers import frozen


class Host:
    """The cases of one stream, each in a copy of the folder after its first experience.

    All cases use the same path, because MLflow keeps paths in its store.

    Args:
        folder: An empty folder.
        setup: ``"policy"``, ``"mlflow"`` or ``"buffer"``.
    """

    def __init__(self, folder: Path, setup: str) -> None:
        self.setup = setup
        self.now, self._base = folder / "now", folder / "base"
        folder.mkdir(parents=True)
        store = None
        if setup == "mlflow":
            store = folder / "empty.db"
            forked(lambda: _make_mlflow_store(store))
        stream.prepare(folder / "warm", setup, store)  # imports what is imported late
        forked(lambda: stream.prepare(self.now, setup, store))
        self.now.rename(self._base)
        self.expected, _ = self.with_copy(self.finish)
        self.calls = self.with_copy(self.train)
        found, self.finishing = forked(self.finish)
        if differ := stream.differences(self.expected, found):
            raise RuntimeError(f"two undisturbed streams differ: {differ}")

    def with_copy(self, work: Callable[[], Any]) -> Any:
        """Return what a function returns in a forked process, with a fresh copy of the folder."""
        shutil.rmtree(self.now, ignore_errors=True)
        shutil.copytree(self._base, self.now)
        return forked(work)

    def train(self, first: int = failpoints.FOR_EVER) -> int:
        """Update on the second experience, be killed at a call, or return the number of calls."""
        with stream.opened(self.now, self.setup) as trainer:
            failpoints.arm(self.now, failpoints.CHANGES, first=first)
            trainer.run(stream.arrivals(stream.NAMES[:2]))
        return failpoints.disarm()

    def finish(self, first: int = failpoints.FOR_EVER) -> tuple[dict[str, Any], int]:
        """Run the stream to its end, be killed at a call, or return facts and calls."""
        failpoints.arm(self.now, failpoints.CHANGES, first=first)
        return stream.finish(self.now, self.setup), failpoints.disarm()

    def kill(self, point: int, again: int | None) -> list[str] | None:
        """Kill an update at a call, go on, and return the differences; ``None`` if it ended.

        Args:
            point: Number of the call.
            again: Number of the call at which the next process is killed too.
        """
        if self.with_copy(lambda: self.train(point)) is not None:
            return None
        try:
            if again is not None:
                forked(lambda: self.finish(again))
            found, _ = forked(self.finish)
        except RuntimeError as error:
            return [str(error)]
        return stream.differences(self.expected, found)


def kills(host: Host, most: int, part: tuple[int, int], *, again: bool) -> Iterator[dict[str, Any]]:
    """Kill an update at each of its calls, or at some of them."""
    for point in spread(host.calls, most, part):
        second = 1 + 37 * point % host.finishing if again else None
        differ = host.kill(point, second)
        yield {"case": f"call {point}", "of": host.calls, "differ": differ}


def _make_mlflow_store(file: Path | None) -> None:
    from mlflow.tracking import MlflowClient

    MlflowClient(tracking_uri=f"sqlite:///{file}").search_experiments()


def main() -> None:
    """Try the cases of some setups, and print what differs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("tries", nargs="+", metavar="SETUP:KIND")
    parser.add_argument("--most", type=int, default=0, help="cases of each kind; 0 for all")
    parser.add_argument("--scale", type=float, default=1.0, help="of all times of a frozen server")
    parser.add_argument(
        "--part", type=int, nargs=2, default=(0, 1), help="which part of how many of the cases"
    )
    given = parser.parse_args()
    part = (given.part[0], given.part[1])
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    # Each Trainer looks through all installed packages, which takes longer than the rest of it.
    metadata.entry_points = cache(metadata.entry_points)  # type: ignore[assignment]
    os.environ.pop("LD_PRELOAD")  # not for the processes that this one starts
    hosts: dict[str, Host] = {}
    for each in given.tries:
        setup, _, kind = each.partition(":")
        if kind == "frozen":
            cases = frozen(given.folder / "frozen", given.most, scale=given.scale, part=part)
        else:
            if setup not in hosts:
                hosts[setup] = Host(given.folder / setup, setup)
            host = hosts[setup]
            cases = (
                sick(host, given.most, part)
                if kind == "sick"
                else kills(host, given.most, part, again=kind == "again")
            )
        for case in cases:
            print(json.dumps({"try": each, **case}), flush=True)


if __name__ == "__main__":
    main()
