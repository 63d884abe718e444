"""Keep finished runs in a file, so that a benchmark that was interrupted continues."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

_WORKERS = 2


def finished(
    work: Callable[..., Mapping[str, float]],
    cases: Sequence[tuple[str, int]],
    kept: Path | None,
    **options: Any,
) -> list[Mapping[str, float]]:
    """Return the figures of each case: from the file of earlier runs, or from a new run.

    Args:
        work: Runs a case in its own process, ``work(name, seed, **options)``.
        cases: Name and seed of each.
        kept: File of finished runs, a line of JSON for each; ``None`` to keep none.
        **options: Options of ``work``, the same for all.
    """
    done = _read(kept, work.__name__)
    missing = [case for case in cases if case not in done]
    if missing:
        with ProcessPoolExecutor(min(_WORKERS, len(missing)), get_context("spawn")) as pool:
            started = {case: pool.submit(work, *case, **options) for case in missing}
            for case, future in started.items():
                done[case] = future.result()
                _write(kept, work.__name__, case, done[case])
    return [done[case] for case in cases]


def _read(kept: Path | None, kind: str) -> dict[tuple[str, int], Mapping[str, float]]:
    if kept is None or not kept.is_file():
        return {}
    lines = map(json.loads, kept.read_text(encoding="utf-8").splitlines())
    return {(each["name"], each["seed"]): each["found"] for each in lines if each["kind"] == kind}


def _write(kept: Path | None, kind: str, case: tuple[str, int], found: Mapping[str, float]) -> None:
    if kept is not None:
        line = json.dumps({"kind": kind, "name": case[0], "seed": case[1], "found": found})
        with kept.open("a", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write(f"{line}\n")
